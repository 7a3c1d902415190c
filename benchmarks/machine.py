"""What a measurement was taken on: machine, versions, commit; and how to hold every library to the same threads."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_PACKAGES = [
    "xpsolve",
    "numpy",
    "scipy",
    "array-api-compat",
    "array-api-extra",
    "numba",
    "torch",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "pykeops",
    "jax",
    "POT",
    "regot",
    "ott-jax",
    "geomloss",
    "pyamg",
    "scikit-learn",
    "threadpoolctl",
]


def limit_threads(threads: int) -> None:
    """Hold every library alike to ``threads`` threads. Works only before NumPy is imported: they read it once."""
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(threads)


def pin_to_one_core() -> None:
    """Bind this process and its children to one core, for libraries that ignore the variables (XLA's thread pool)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def describe() -> dict[str, Any]:
    """Machine, versions and commit as one dictionary for the report's JSON."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": gpu_name() or cpu_name(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory(),
        "gpu": gpu_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "threads": os.environ.get("OMP_NUM_THREADS", "library defaults"),
        "blas": _blas(),
        "commit": commit(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Installed versions of this package, what it stands on, and the peers."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def commit() -> str:
    """Commit of the checkout, with ``+`` when files differ from it; ``unknown`` outside a checkout."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def cpu_name() -> str:
    """The processor's model name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def gpu_name() -> str | None:
    """Name of the first CUDA device, if CuPy or torch is already loaded and sees one."""
    with contextlib.suppress(Exception):
        if "cupy" in sys.modules:
            return str(sys.modules["cupy"].cuda.runtime.getDeviceProperties(0)["name"].decode())
        if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
            return str(sys.modules["torch"].cuda.get_device_name(0))
    return None


def _git(*words: str) -> str:
    answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    return answer.stdout.strip()


def _memory() -> float | None:
    try:
        import psutil
    except ImportError:
        return None
    return round(psutil.virtual_memory().total / 2**30, 1)


def _blas() -> str | None:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return None
    found = {f"{p['internal_api']} {p.get('version')} ({p.get('architecture')})" for p in threadpool_info()
             if p["user_api"] == "blas"}  # fmt: skip
    return ", ".join(sorted(found)) or None

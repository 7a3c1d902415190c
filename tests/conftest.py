"""Fixtures: every solver is tested on every library that is here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import pytest

STANDIN = Path(__file__).parent / "standin"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--standin", action="store_true", help="with -m gpu: tests/standin in the place of CuPy and a GPU")


def pytest_configure(config: pytest.Config) -> None:
    """The stand-in is found before CuPy, or not at all."""
    if config.getoption("--standin"):
        if "cupy" in sys.modules:
            raise pytest.UsageError("--standin: the real CuPy is imported already")
        sys.path.insert(0, str(STANDIN))


def _cupy_here() -> bool:
    try:
        import cupy

        return bool(cupy.cuda.is_available())
    except ImportError:
        return False


_LIBRARIES = ["numpy", "array_api_strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu)]


@pytest.fixture(params=_LIBRARIES)
def xp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Namespace of each installed library in turn."""
    if request.param == "cupy":
        if not _cupy_here():
            pytest.skip("no CUDA device")
        # On a GPU the loop looks at every tenth iteration; counts are compared with those of libraries on the CPU.
        monkeypatch.setattr("xpsolve.solvers.iterate.is_gpu", lambda _: False)
    module = pytest.importorskip(request.param)
    probe = module.zeros(1)
    return array_api_compat.array_namespace(probe)


@pytest.fixture
def make(xp: Any) -> Callable[..., Any]:
    """Turn a NumPy array into an array of the library under test."""

    def convert(a: Any, dtype: Any = None) -> Any:
        host = np.asarray(a)
        return xp.asarray(host.tolist() if host.ndim == 0 else host.copy(), dtype=dtype or getattr(xp, host.dtype.name))

    return convert

"""Which engine, and why: the one place where that is decided, from what was measured."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependencyError
from ..namespace import is_cupy, is_gpu, is_numpy, library
from .problem import PairProblem

#: Engine name -> (module, class) inside ``engines``; imported when chosen.
ENGINES = {
    "numpy": ("numpy_tiles", "NumpyTiles"),
    "torch": ("torch_exp", "TorchExpTiles"),
    "numba": ("numba_tiles", "NumbaTiles"),
    "stored": ("stored", "Stored"),
    "array": ("array_tiles", "ArrayTiles"),
    "keops": ("keops", "KeOps"),
    "dask": ("dask_rows", "DaskRows"),
    "cupy": ("cupy_tiles", "CupyTiles"),
    "cupy-fused": ("cupy_fused", "CupyFused"),
}
#: Engines that compute in host memory, on NumPy arrays.
_HOST_ONLY = {"numpy", "torch", "numba", "dask"}
_CUPY_ONLY = {"cupy", "cupy-fused"}
_FUSED_ON_GPU = {"cupy-fused", "keops"}

#: Packages an engine needs beyond those always installed, and the extra that brings them.
_NEEDS = {
    "torch": (("torch",), "torch"),
    "numba": (("numba",), "numba"),
    "keops": (("pykeops", "torch"), "keops"),
    "dask": (("dask",), "dask"),
}

# Pairs over all passes for which loading numba (half a second, some seconds once per machine) is worth its speed; when it
# is loaded already, far fewer.
_WORTH_COMPILED, _WORTH_LOADED = 200_000_000, 100_000
_MANY, _WIDEST = 100, 128
# Dimensions of the fused CUDA kernel.
_FUSED_UP_TO = 8
_WORTH_KEOPS = 10_000_000
_MANY_PASSES = 3


@dataclass(frozen=True)
class Plan:
    """The choice made for one reduction.

    Attributes
    ----------
    engine : str
        Name in `ENGINES`.
    reason : str
        Why.
    n, m, d : int
        Shapes of the problem.
    dtype, library : str
        Of the points.
    threads : int
        Threads the engine may use.
    memory : int
        Bytes that a stored matrix would take.
    mixed : bool
        Whether exponents are formed in float64 for float32 data.
    """

    engine: str
    reason: str
    n: int
    m: int
    d: int
    dtype: str
    library: str
    threads: int
    memory: int
    mixed: bool

    def describe(self) -> str:
        """One line for a person."""
        mixed = ", exponents in float64" if self.mixed else ""
        return (
            f"{self.n} x {self.m} pairs in {self.d} dimensions, {self.dtype} on {self.library}: engine {self.engine!r} "
            f"({self.reason}; {self.threads} thread{'s' * (self.threads != 1)}, "
            f"stored it would take {self.memory / 2**20:.0f} MiB{mixed})"
        )

    __str__ = describe


def default_memory() -> int:
    """Bytes a stored kernel may take by default: 1 GiB, or a quarter of the free memory if that is less."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        free = 4 * 2**30
    return min(2**30, free // 4)


def make_plan(problem: PairProblem, reduction: str, *, engine: str, passes: int | None, memory: int | None) -> Plan:
    """Choose an engine for ``reduction``; an explicit ``engine`` other than ``"auto"`` is only checked."""
    n, m, d = problem.shape
    itemsize = 4 if "32" in str(problem.x.dtype) else 8
    size = n * m * itemsize
    if engine == "auto":
        name, reason = _choose(problem, reduction, passes, size, default_memory() if memory is None else memory)
    else:
        name, reason = engine, "asked for"
        if name not in ENGINES:
            raise InputError(f"engine is {engine!r}, expected 'auto' or one of {', '.join(map(repr, ENGINES))}")
        if name in _HOST_ONLY and not on_host(problem):
            raise InputError(
                f"engine {name!r} works on NumPy arrays and torch tensors on the CPU without gradients, "
                f"the points are {library(problem.xp)}"
            )
        if name in _CUPY_ONLY and not is_cupy(problem.xp):
            raise InputError(f"engine {name!r} works on CuPy arrays, the points are {library(problem.xp)}")
        absent = _absent(name)
        if absent:
            raise MissingDependencyError.for_extra(absent, _NEEDS[name][1], f"engine={name!r}")
    # The compiled engines take differences instead.
    mixed = problem.mixed and name not in {"numba", "cupy-fused"}
    return Plan(name, reason, n, m, d, str(problem.x.dtype), library(problem.xp), problem.threads, size, mixed)


def _absent(name: str) -> str | None:
    """The first package engine ``name`` needs that is not here."""
    packages = _NEEDS.get(name, ((), name))[0]
    return next((package for package in packages if find_spec(package) is None), None)


def _choose(problem: PairProblem, reduction: str, passes: int | None, size: int, memory: int) -> tuple[str, str]:
    name, reason = choose_tiles(problem, reduction, passes)
    reused = reduction == "sum" and (passes is None or passes >= _MANY_PASSES) and size <= memory
    # A fused kernel on a GPU computes a pair in less time than its memory takes to deliver a number.
    if reused and name not in _FUSED_ON_GPU:
        return "stored", "a fixed kernel that fits in memory and is reused"
    return name, reason


def choose_tiles(problem: PairProblem, reduction: str, passes: int | None) -> tuple[str, str]:
    """The engine that computes the pairs anew at each pass, and why."""
    n, m, d = problem.shape
    kernel = problem.kernel
    known = isinstance(kernel.metric, str)
    if is_gpu(problem.x):
        if is_cupy(problem.xp) and known and kernel.exponential and d <= _FUSED_UP_TO and reduction != "nearest":
            return "cupy-fused", "few dimensions: one fused kernel"
        if known and not problem.exclude_self and d <= 64 and n * m >= _WORTH_KEOPS and not _absent("keops"):
            return "keops", "many pairs on a GPU"
        return ("cupy", "GEMM tiles on the device") if is_cupy(problem.xp) else ("array", "tiles on the device")
    if not on_host(problem):
        return "array", "plain array-API tiles"
    if known and d <= _WIDEST and (reduction in ("sum", "nearest") or kernel.exponential):
        enough = _WORTH_LOADED if "numba" in sys.modules else _WORTH_COMPILED
        if n * m * (_MANY if passes is None else passes) >= enough and not _absent("numba"):
            return "numba", "numba is installed and there are enough pairs"
    gemm = kernel.metric in ("sqeuclidean", "dot") and not problem.direct
    if gemm and kernel.exponential and "64" in str(problem.x.dtype) and "torch" in sys.modules and _scalar_exp():
        return "torch", "torch is loaded and its float64 exp is faster"
    return "numpy", "tiles of one GEMM" if gemm else "tiles by direct differences"


@lru_cache(maxsize=1)
def _scalar_exp() -> bool:
    """Whether NumPy's float64 exp runs one number at a time on this processor: it is vectorised for AVX-512 only."""
    try:
        found = np.lib.introspect.opt_func_info(func_name="^exp$", signature="float64")["exp"]["dd"]["current"]
    except (AttributeError, KeyError):
        return True
    return not ("AVX512" in found or "X86_V4" in found)


def on_host(problem: PairProblem) -> bool:
    """Whether the engines that compute on NumPy arrays can see the points where they are."""
    if is_numpy(problem.xp):
        return True
    from .engines.host_view import sees

    return sees(problem)


def build(name: str, problem: PairProblem) -> Any:
    """The engine called ``name`` for ``problem``."""
    module, cls = ENGINES[name]
    engine = getattr(import_module(f".engines.{module}", __package__), cls)
    if name in _HOST_ONLY and not is_numpy(problem.xp):
        from .engines.host_view import HostView

        return HostView(problem, engine)
    return engine(problem)

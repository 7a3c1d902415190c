"""One fused CUDA kernel for few dimensions on CuPy arrays: one thread a row, nothing written but the answers.

Up to eight dimensions the distances cost less than reading a stored tile of them would; beyond, and for what the kernel
does not know (user metrics, other profiles), `CupyTiles` answers. The source is ``cupy_fused.cu``.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ...namespace import Array
from ..precision import out_of_range
from ..problem import PairProblem
from .cupy_tiles import CupyTiles

_METRICS = {"sqeuclidean": 0, "euclidean": 1, "cityblock": 2, "dot": 3}
_LOG2E = 1.0 / math.log(2.0)
# Shared memory holds a tile of 256 points of 8 numbers and 8 weights in either precision.
_TILE, _MOST_DIMENSIONS, _MOST_COLUMNS = 256, 8, 8
# Threads that keep a large device busy; fewer rows than this are split along y as well.
_THREADS = 2**18


class CupyFused(CupyTiles):
    """See the module's text."""

    name = "cupy-fused"

    def __init__(self, problem: PairProblem) -> None:
        super().__init__(problem)
        self._divide()

    def _divide(self) -> None:
        """Whether the kernel covers the problem, and into how many parts the columns are split."""
        problem = self.problem
        kernel, (n, m, d) = problem.kernel, problem.shape
        known = kernel.exponential and kernel.metric in _METRICS and d <= _MOST_DIMENSIONS and 0 not in (n, m, d)
        self.covered = known and not out_of_range(kernel, problem.x.dtype, problem.xp)
        self.parts = max(1, min(-(-m // _TILE), _THREADS // max(n, 1), 1024))

    def sum(self, v: Array) -> Array:
        """See `Engine.sum`."""
        if not self.covered:
            return super().sum(v)
        lib, (n, m, _) = self.lib, self.problem.shape
        c = lib.zeros((m,), dtype=v.dtype)
        out = lib.empty((n, v.shape[1]), dtype=v.dtype)
        for first in range(0, v.shape[1], _MOST_COLUMNS):
            columns = v[:, first : first + _MOST_COLUMNS]
            parts = lib.empty((self.parts, n, columns.shape[1]), dtype="float64")
            self._launch("pair_sum", columns, c, (parts,))
            out[:, first : first + _MOST_COLUMNS] = parts.sum(axis=0)
        return out

    def logsumexp(self, b: Array, guess: Array | None = None) -> Array:
        """See `Engine.logsumexp`; the running maximum is too cheap for a guess to matter."""
        if not self.covered:
            return super().logsumexp(b, guess)
        return self.softmax_sum(b, self.lib.empty((b.shape[0], 0), dtype=b.dtype))[1]

    def softmax_sum(self, b: Array, v: Array) -> tuple[Array, Array]:
        """See `Engine.softmax_sum`."""
        if not self.covered:
            return super().softmax_sum(b, v)
        lib, (n, m, _) = self.lib, self.problem.shape
        values, logs = lib.empty((n, v.shape[1]), dtype=v.dtype), None
        ones = lib.ones((m, 1), dtype=v.dtype)
        c = b * b.dtype.type(_LOG2E)
        lowest = -0.5 * float(lib.finfo(v.dtype).max)
        for first in range(0, max(v.shape[1], 1), _MOST_COLUMNS - 1):
            columns = lib.concatenate([ones, v[:, first : first + _MOST_COLUMNS - 1]], axis=1)
            parts = lib.empty((self.parts, n, columns.shape[1]), dtype="float64")
            tops = lib.empty((self.parts, n), dtype=v.dtype)
            self._launch("pair_online", columns, c, (parts, tops), lowest)
            top = tops.max(axis=0)
            total = (parts * lib.exp2((tops - top).astype("float64"))[:, :, None]).sum(axis=0)
            mass = total[:, 0]
            safe = lib.where(mass > 0, mass, 1.0)
            values[:, first : first + _MOST_COLUMNS - 1] = total[:, 1:] / safe[:, None]
            if logs is None:
                finite = (top.astype("float64") + lib.log2(safe)) / _LOG2E
                logs = lib.where(mass > 0, finite, -math.inf).astype(v.dtype)
        return values, logs

    def _launch(self, name: str, v: Array, c: Array, outputs: tuple[Array, ...], *scalars: float) -> None:
        """Run one of the two kernels over all rows; ``scalars`` follow the kernel's scale."""
        problem, lib = self.problem, self.lib
        n, m, d = problem.shape
        dtype = problem.x.dtype.type
        kernel = _compiled(
            name, problem.x.dtype.name, d, v.shape[1], _METRICS[str(problem.kernel.metric)], problem.exclude_self
        )
        x, y, v, c = (lib.ascontiguousarray(a) for a in (problem.x, problem.y, v, c))
        numbers = (dtype(problem.kernel.scale * _LOG2E), *map(dtype, scalars))
        arguments = (x, y, c, v, *outputs, self.lib.int64(n), self.lib.int64(m), *numbers)
        with self._device():
            kernel((-(-n // _TILE), self.parts), (_TILE,), arguments)

    def _device(self) -> AbstractContextManager[Any]:
        """A launch goes to the current device: let that be the one of the points."""
        device: AbstractContextManager[Any] = self.problem.x.device
        return device


@lru_cache(maxsize=128)
def _compiled(name: str, real: str, d: int, r: int, metric: int, exclude_self: bool) -> Any:
    """The CUDA function for these constants, compiled at its first call."""
    import cupy

    real = {"float32": "float", "float64": "double"}[real]
    defined = {"REAL": real, "D": d, "R": r, "TILE": _TILE, "METRIC": metric, "SELF": int(exclude_self)}
    source = files(__package__).joinpath("cupy_fused.cu").read_text(encoding="utf-8")
    return cupy.RawKernel(source, name, options=tuple(f"-D{key}={value}" for key, value in defined.items()))

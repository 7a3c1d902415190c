"""Compiled tiles (extra ``numba``): differences, kernel and weighted sum in one pass that never leaves the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...namespace import Array
from ..precision import out_of_range
from ..problem import PairProblem
from ..threads import over_rows
from .numba_loops import (
    METRICS,
    PROFILES,
    ROWS,
    fill_rows,
    lay_out_columns,
    lay_out_rows,
    nearest_rows,
    online_rows,
    sum_rows,
)
from .numpy_tiles import NumpyTiles

_LOG2E = 1.0 / math.log(2.0)
# A row of a tile; four of them and a panel of the columns share a first-level cache of 32 KiB or more.
_ROW_BYTES = 4096
# Direct differences cost three operations a coordinate and lose no digit; products cost one and lose some.
_DIRECT_UP_TO = 8
# Beyond these, BLAS on a tile is as fast.
_MOST_DIMENSIONS, _MOST_COLUMNS, _MOST_NEIGHBOURS = 128, 16, 64


class NumbaTiles(NumpyTiles):
    """NumPy's tiles answer what the loops do not cover: user metrics, many columns or dimensions, logarithms of other kernels."""

    name = "numba"

    def __init__(self, problem: PairProblem) -> None:
        super().__init__(problem)
        kernel, (n, m, d) = problem.kernel, problem.shape
        known = kernel.metric in METRICS and d <= _MOST_DIMENSIONS and 0 not in (n, m, d) and kernel.scale != 0.0
        self.covered = known and not out_of_range(kernel, problem.x.dtype, problem.xp)
        if self.covered:
            self._lay_out()

    def _lay_out(self) -> None:
        """Points and the parts of the exponent that depend on one of them alone."""
        problem, (n, _, d) = self.problem, self.problem.shape
        kernel, dtype = problem.kernel, problem.x.dtype
        metric, scale = METRICS[str(kernel.metric)], kernel.scale * (_LOG2E if kernel.exponential else 1.0)
        self.differences = kernel.metric != "sqeuclidean" or d <= _DIRECT_UP_TO or problem.mixed or problem.direct
        centre = np.zeros(d) if self.differences else problem.y.mean(axis=0, dtype=np.float64)
        self.X, self.Y, row, column = self._laid_out(centre)
        if self.differences:
            row[:], column[:] = 0.0, 0.0
        else:
            # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y about the common centre, where the precision can carry it.
            row, column, scale, metric = -scale * row, -scale * column, -2.0 * scale, METRICS["dot"]
        self.row = np.zeros(4 * self.X.shape[0], dtype=dtype)
        self.row[:n] = row
        self.column, self._metric, self._scale = column, metric, dtype.type(scale)

    def _laid_out(self, centre: Array) -> tuple[Array, ...]:
        """Rows in fours, columns in blocks of equal width (so that the last is not mostly padding), and their squared norms."""
        (n, m, d), dtype = self.problem.shape, self.problem.x.dtype
        blocks = -(-m * dtype.itemsize // _ROW_BYTES)
        self.width = width = -(-m // (16 * blocks)) * 16
        # Coordinates a power of two apart would fight for the same lines of the cache.
        stride = width + 16 * (width * dtype.itemsize % 1024 == 0)
        X = np.empty((-(-n // 4), -(-d // 4), 16), dtype=dtype)
        Y = _aligned((blocks, -(-d // 4), 4, stride), dtype)
        rows, columns = np.empty(n), np.empty(m)
        lay_out_rows(self.problem.x, centre, X, rows)
        lay_out_columns(self.problem.y, centre, Y, width, columns)
        return X, Y, rows, columns

    def _blocks(self, values: Array, fill: float = 0.0) -> Array:
        """``values`` (m,) or (m, r) as (blocks, J) or (blocks, r, J), padded."""
        blocks, width = self.Y.shape[0], self.width
        columns = values.shape[1:]
        padded = np.full((blocks * width, *columns), fill, dtype=self.Y.dtype)
        padded[: values.shape[0]] = values
        shaped = padded.reshape(blocks, width, *columns)
        out = _aligned((blocks, *columns, width), self.Y.dtype)
        out[...] = np.moveaxis(shaped, 1, -1)
        return out

    def sum(self, v: Array) -> Array:
        """See `Engine.sum`."""
        if not self.covered or v.shape[1] > _MOST_COLUMNS:
            return super().sum(v)
        n = self.problem.shape[0]
        profile, units = self._constants()
        column, weights = self._blocks(self.column), self._blocks(v)
        out = np.empty((self.row.shape[0], v.shape[1]), dtype=v.dtype)

        def work(start: int, stop: int) -> None:
            sum_rows(
                self.X, self.Y, self.row, column, self._scale, weights, self._tile(), out, start, stop, self._metric,
                profile, self.problem.exclude_self, units,
            )  # fmt: skip

        self._over_rows(work)
        return out[:n]

    def fill(self, matrix: Array) -> None:
        """Write the whole kernel matrix."""
        if not self.covered:
            super().fill(matrix)
            return
        column, (profile, units) = self._blocks(self.column), self._constants()

        def work(start: int, stop: int) -> None:
            fill_rows(
                self.X, self.Y, self.row, column, self._scale, self._tile(), matrix, start, stop, self._metric, profile,
                self.problem.exclude_self, units,
            )  # fmt: skip

        self._over_rows(work)

    def _constants(self) -> tuple[int, tuple[Any, ...]]:
        """The kernel's number and the constants that the loops need in its dtype."""
        dtype = self.problem.x.dtype.type
        return PROFILES[self.problem.kernel.profile], (dtype(1.0), dtype(1.0 / 3.0), dtype(_LOG2E), dtype(0.0))

    def logsumexp(self, b: Array, guess: Array | None = None) -> Array:
        """See `Engine.logsumexp`; the row maximum of a tile in cache costs less than a guess would save."""
        if not self._online_covered:
            return super().logsumexp(b, guess)
        return self._online_rows(b, np.empty((b.shape[0], 0), dtype=b.dtype))[1]

    def softmax_sum(self, b: Array, v: Array) -> tuple[Array, Array]:
        """See `Engine.softmax_sum`."""
        if not self._online_covered or v.shape[1] > _MOST_COLUMNS:
            return super().softmax_sum(b, v)
        return self._online_rows(b, v)

    @property
    def _online_covered(self) -> bool:
        return self.covered and self.problem.kernel.exponential

    def _online_rows(self, b: Array, v: Array) -> tuple[Array, Array]:
        n, rows = self.problem.shape[0], self.row.shape[0]
        column = self._blocks(self.column + _LOG2E * b.astype(np.float64), fill=-math.inf)
        weights = self._blocks(v)
        values, logs = np.empty((rows, v.shape[1]), dtype=v.dtype), np.empty(rows, dtype=b.dtype)

        def work(start: int, stop: int) -> None:
            online_rows(
                self.X, self.Y, self.row, column, self._scale, weights, self._tile(), values, logs, start, stop,
                self._metric, self.problem.exclude_self,
            )  # fmt: skip

        self._over_rows(work)
        return values[:n], logs[:n]

    def nearest(self, k: int) -> tuple[Array, Array]:
        """See `Engine.nearest`; distances by differences, so that the order is exact at any offset."""
        kernel, (n, m, _) = self.problem.kernel, self.problem.shape
        if not self.covered or k > _MOST_NEIGHBOURS:
            return super().nearest(k)
        x, y = (self.X, self.Y) if self.differences else self._laid_out(np.zeros(self.problem.shape[2]))[:2]
        rows, sign = self.row.shape[0], self.problem.x.dtype.type(-1.0 if kernel.metric == "dot" else 1.0)
        indices, values = np.empty((rows, k), dtype=np.int64), np.empty((rows, k), dtype=self.problem.x.dtype)

        def work(start: int, stop: int) -> None:
            nearest_rows(
                x, y, self._tile(), indices, values, start, stop, METRICS[str(kernel.metric)],
                self.problem.exclude_self, m, sign,
            )  # fmt: skip

        self._over_rows(work)
        return indices[:n], sign * values[:n]

    def _tile(self) -> Array:
        return _aligned((4, self.width), self.Y.dtype)

    def _over_rows(self, work: Callable[[int, int], None]) -> None:
        over_rows(work, self.row.shape[0], step=ROWS, threads=self.problem.threads)


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An uninitialised array that starts on a cache line: a SIMD load across two lines costs twice."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, dtype=np.uint8)
    offset = -memory.ctypes.data % 64
    return memory[offset : offset + size].view(dtype).reshape(shape)

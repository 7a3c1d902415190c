"""One GEMM gives the exponents of a tile, one exp its kernel, one more product its sum: NumPy's and CuPy's engine.

With the points augmented, ``X' = [2 g x, -g |x|^2, 1]`` and ``Y' = [y, 1, b - g |y|^2]``, the product ``X' Y'^T`` is
``b_j - g |x_i - y_j|^2``: potentials and row shifts cost nothing. A tile stays in the cache of one core.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...namespace import Array
from ...transfer import host_bool
from ..problem import PairProblem
from ..threads import over_rows
from .array_tiles import ArrayTiles

# A second-level cache per tile; from half to twice that the optimum is flat.
_TILE_BYTES = 2**19


class TileMath:
    """What is done to one tile of exponents; an engine with another exponential replaces it here."""

    def exp_(self, T: np.ndarray, out: np.ndarray) -> None:
        """``out = exp(T)``; ``out`` is ``T`` itself unless the precision is mixed."""
        np.exp(T, out=out, dtype=out.dtype, casting="same_kind")

    def exp_sum(self, T: np.ndarray, out: np.ndarray, v: np.ndarray, acc: np.ndarray) -> None:
        """``acc += exp(T) @ v``."""
        self.exp_(T, out)
        acc += out @ v


class GemmTiles(ArrayTiles):
    """Tiles in reused buffers on threads; falls back to the array-API tiles for metrics without a GEMM.

    ``lib`` is NumPy or CuPy itself, for what the standard lacks: ``out=``.
    """

    math: TileMath = TileMath()
    lib: Any = np

    def __init__(self, problem: PairProblem) -> None:
        super().__init__(problem)
        self.threads = problem.threads
        itemsize = 8 if problem.mixed else problem.x.dtype.itemsize
        self.bm, self.bn = _TILE_BYTES // (512 * itemsize), 512

    @property
    def _by_gemm(self) -> bool:
        problem = self.problem
        return problem.kernel.metric in ("sqeuclidean", "dot") and not problem.direct and 0 not in problem.shape

    @property
    def _online_by_gemm(self) -> bool:
        return self._by_gemm and self.problem.kernel.exponential

    def _augmented(self, b: Array | None, shift: Array | None) -> tuple[Array, Array]:
        """``X'`` (n, d+2) and ``Y'^T`` (d+2, m)."""
        scale, x, y = self.problem.kernel.scale, self.x, self.y
        n, d = x.shape
        left = self.lib.empty((n, d + 2), dtype=x.dtype)
        right = self.lib.empty((d + 2, y.shape[0]), dtype=x.dtype)
        right[:d] = y.T
        right[d] = 1.0
        left[:, d + 1] = 1.0
        if self.problem.kernel.metric == "dot":
            left[:, :d] = -scale * x
            left[:, d] = 0.0
            right[d + 1] = 0.0
        else:
            left[:, :d] = (2.0 * scale) * x
            left[:, d] = -scale * self.lib.einsum("ij,ij->i", x, x)
            right[d + 1] = -scale * self.lib.einsum("ij,ij->i", y, y)
        if shift is not None:
            left[:, d] -= shift
        if b is not None:
            right[d + 1] += b
        return left, right

    def _buffers(self) -> tuple[Array, Array]:
        T = self.lib.empty(self.bm * self.bn, dtype=self.x.dtype)
        dtype = self.problem.x.dtype
        return T, T if dtype == T.dtype else self.lib.empty(self.bm * self.bn, dtype=dtype)

    def _kernel_sum(self, T: Array, E: Array, v: Array, acc: Array, i: int, j: int) -> None:
        """``acc += k @ v`` for the tile of exponents at rows ``i`` and columns ``j``; destroys ``T``."""
        if self.problem.exclude_self:
            _own(T, i, j)[...] = -math.inf
        if self.problem.kernel.exponential:
            self.math.exp_sum(T, E, v, acc)
        else:
            acc += self._profile(T) @ v

    def _profile(self, T: Array) -> Array:
        """Kernels of ``-T`` in the problem's dtype; rounding may have made a distance negative, self pairs have none."""
        self.lib.negative(T, out=T)
        self.lib.maximum(T, 0.0, out=T)
        own = self.lib.isposinf(T) if self.problem.exclude_self else None
        if own is not None:
            T[own] = 0.0
        E = self.problem.kernel.value(T, self.xp).astype(self.problem.x.dtype, copy=False)
        if own is not None:
            E[own] = 0.0
        return E

    def _row_sums(self, left: Array, right: Array, v: Array, out: Array) -> None:
        """``out = exp(left @ right) @ v`` (or another profile); accumulates in float64."""
        m, bm, bn = right.shape[1], self.bm, self.bn
        matmul, kernel_sum = self.lib.matmul, self._kernel_sum
        columns = [(j, self.lib.ascontiguousarray(right[:, j : j + bn]), v[j : j + bn]) for j in range(0, m, bn)]

        def work(start: int, stop: int) -> None:
            T_buffer, E_buffer = self._buffers()
            acc = self.lib.empty((bm, v.shape[1]), dtype=self.lib.float64)
            for i in range(start, stop, bm):
                rows = left[i : min(i + bm, stop)]
                h = rows.shape[0]
                total = acc[:h]
                total[...] = 0.0
                for j, block, weights in columns:
                    size, shape = h * block.shape[1], (h, block.shape[1])
                    T = T_buffer[:size].reshape(shape)
                    E = T if E_buffer is T_buffer else E_buffer[:size].reshape(shape)
                    matmul(rows, block, out=T)
                    kernel_sum(T, E, weights, total, i, j)
                out[i : i + h] = total

        over_rows(_quiet(work), left.shape[0], step=bm, threads=self.threads)

    def sum(self, v: Array) -> Array:
        if not self._by_gemm:
            return super().sum(v)
        left, right = self._augmented(None, None)
        out = self.lib.empty((left.shape[0], v.shape[1]), dtype=v.dtype)
        self._row_sums(left, right, self.lib.ascontiguousarray(v), out)
        return out

    def fill(self, matrix: Array) -> None:
        """Write the whole kernel matrix, tile by tile."""
        n, m, _ = self.problem.shape
        if not self._by_gemm:

            def by_tiles(start: int, stop: int) -> None:
                for i in range(start, stop, self.rows):
                    for j in range(0, m, self.columns):
                        t = self.tile(i, j, log=False)[: stop - i]
                        matrix[i : i + t.shape[0], j : j + t.shape[1]] = t

            over_rows(by_tiles, n, step=self.rows, threads=self.threads)
            return
        left, right = self._augmented(None, None)

        def work(start: int, stop: int) -> None:
            T_buffer, _ = self._buffers()
            for i in range(start, stop, self.bm):
                rows = left[i : min(i + self.bm, stop)]
                for j in range(0, m, self.bn):
                    block = right[:, j : j + self.bn]
                    T = T_buffer[: rows.shape[0] * block.shape[1]].reshape(rows.shape[0], block.shape[1])
                    self.lib.matmul(rows, block, out=T)
                    target = matrix[i : i + rows.shape[0], j : j + block.shape[1]]
                    if self.problem.exclude_self:
                        _own(T, i, j)[...] = -math.inf
                    if self.problem.kernel.exponential:
                        self.math.exp_(T, target)
                    else:
                        target[...] = self._profile(T)

        over_rows(work, n, step=self.bm, threads=self.threads)

    def logsumexp(self, b: Array, guess: Array | None = None) -> Array:
        if not self._online_by_gemm:
            return super().logsumexp(b)
        if guess is None:
            return self._online(b, None)[1]
        shift = self.lib.where(self.lib.isfinite(guess), guess, 0.0)
        left, right = self._augmented(b, shift)
        sums = self.lib.empty((left.shape[0], 1), dtype=self.lib.float64)
        ones = self.lib.ones((right.shape[1], 1), dtype=self.problem.x.dtype)
        self._row_sums(left, right, ones, sums)
        # A guess far from the answer under- or overflows its row: those rows are done again with their own maximum.
        good = (sums[:, 0] > 1e-20) & (sums[:, 0] < 1e20)
        out = self.lib.array(shift + self.lib.log(self.lib.where(good, sums[:, 0], 1.0)), dtype=b.dtype)
        if not host_bool(good.all()):
            bad = self.lib.flatnonzero(~good)
            out[bad] = self._online(b, None, rows=bad)[1]
        return out

    def softmax_sum(self, b: Array, v: Any) -> tuple[Array, Array]:
        if not self._online_by_gemm:
            return super().softmax_sum(b, v)
        return self._online(b, v)

    def _online(self, b: Array, v: Array | None, rows: Array | None = None) -> tuple[Array, Array]:
        """Streaming log-sum-exp: a running row maximum, and sums rescaled when it rises."""
        left, right = self._augmented(b, None)
        numbers = self.lib.arange(left.shape[0]) if rows is None else rows
        left = left if rows is None else left[rows]
        n, m, bm, bn = left.shape[0], right.shape[1], self.bm, self.bn
        dtype = b.dtype
        ones = self.lib.ones((m, 1), dtype=dtype)
        v1 = ones if v is None else self.lib.concatenate([ones, v], axis=1)
        columns = [(j, self.lib.ascontiguousarray(right[:, j : j + bn]), v1[j : j + bn]) for j in range(0, m, bn)]
        values, logs = self.lib.zeros((n, v1.shape[1] - 1), dtype=dtype), self.lib.empty(n, dtype=dtype)

        def work(start: int, stop: int) -> None:
            T_buffer, E_buffer = self._buffers()
            for i in range(start, stop, bm):
                part = left[i : min(i + bm, stop)]
                h = part.shape[0]
                top = self.lib.full(h, -math.inf)
                acc = self.lib.zeros((h, v1.shape[1]))
                for j, block, weights in columns:
                    size, shape = h * block.shape[1], (h, block.shape[1])
                    T = T_buffer[:size].reshape(shape)
                    E = T if E_buffer is T_buffer else E_buffer[:size].reshape(shape)
                    self.lib.matmul(part, block, out=T)
                    if self.problem.exclude_self:
                        own = numbers[i : i + h] - j
                        inside = self.lib.flatnonzero((own >= 0) & (own < block.shape[1]))
                        T[inside, own[inside]] = -math.inf
                    new = self.lib.maximum(top, T.max(axis=1))
                    safe = self.lib.where(self.lib.isfinite(new), new, 0.0)
                    T -= safe.astype(T.dtype)[:, None]
                    acc *= self.lib.exp(self.lib.where(self.lib.isfinite(top), top - safe, -math.inf))[:, None]
                    self.math.exp_sum(T, E, weights, acc)
                    # The shift was rounded to the tile's dtype: continue from the rounded one.
                    top = self.lib.where(
                        self.lib.isfinite(new), safe.astype(T.dtype).astype(self.lib.float64), -math.inf
                    )
                mass = acc[:, 0]
                positive = mass > 0
                safe_mass = self.lib.where(positive, mass, 1.0)
                logs[i : i + h] = self.lib.where(positive, top + self.lib.log(safe_mass), -math.inf)
                values[i : i + h] = acc[:, 1:] / safe_mass[:, None]

        over_rows(_quiet(work), n, step=bm, threads=self.threads)
        return values, logs


def _own(T: Array, i: int, j: int) -> Array:
    """A view of the pairs (i, i) of a contiguous tile whose corner is at row ``i`` and column ``j``; empty when it holds none."""
    h, w = T.shape
    row, column = max(j - i, 0), max(i - j, 0)
    count = max(0, min(h - row, w - column))
    start = row * w + column
    return T.reshape(-1)[start : start + count * (w + 1) : w + 1]


def _quiet(work: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """The same on whatever thread, where an infinite potential meets the padding of BLAS, or an exponential overflows."""

    def run(start: int, stop: int) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            work(start, stop)

    return run

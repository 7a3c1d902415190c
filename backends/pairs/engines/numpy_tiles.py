"""The host engine: one GEMM gives the exponents of a tile, one exp its kernel, one more product its sum.

With the points augmented, ``X' = [2 g x, -g |x|^2, 1]`` and ``Y' = [y, 1, b - g |y|^2]``, the product ``X' Y'^T`` is
``b_j - g |x_i - y_j|^2``: potentials and row shifts cost nothing. A tile stays in the cache of one core.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..problem import PairProblem
from ..threads import over_rows
from .array_tiles import ArrayTiles

# Half of a 512 KiB second-level cache per tile; within that range the optimum is flat.
_TILE_BYTES = 2**18


class TileMath:
    """What is done to one tile of exponents; compiled engines replace these two."""

    def exp_(self, T: np.ndarray, out: np.ndarray) -> None:
        """``out = exp(T)``; ``out`` is ``T`` itself unless the precision is mixed."""
        np.exp(T, out=out, dtype=out.dtype, casting="same_kind")

    def exp_sum(self, T: np.ndarray, out: np.ndarray, v: np.ndarray, acc: np.ndarray) -> None:
        """``acc += exp(T) @ v``."""
        self.exp_(T, out)
        acc += out @ v


class NumpyTiles(ArrayTiles):
    """Tiles in reused buffers on threads; falls back to the array-API tiles for metrics without a GEMM."""

    name = "numpy"
    math: TileMath = TileMath()

    def __init__(self, problem: PairProblem) -> None:
        super().__init__(problem)
        d = problem.shape[2]
        self.bn = 512 * (2 if d >= 64 else 1)
        itemsize = self.x.dtype.itemsize
        self.bm = max(64, min(512, _TILE_BYTES * (2 if d >= 64 else 1) // (self.bn * itemsize) // 32 * 32))

    @property
    def _by_gemm(self) -> bool:
        problem = self.problem
        return problem.kernel.metric in ("sqeuclidean", "dot") and not problem.direct and 0 not in problem.shape

    @property
    def _online_by_gemm(self) -> bool:
        return self._by_gemm and self.problem.kernel.exponential

    def _augmented(self, b: np.ndarray | None, shift: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """``X'`` (n, d+2) and ``Y'^T`` (d+2, m)."""
        scale, x, y = self.problem.kernel.scale, self.x, self.y
        n, d = x.shape
        left = np.empty((n, d + 2), dtype=x.dtype)
        right = np.empty((d + 2, y.shape[0]), dtype=x.dtype)
        right[:d] = y.T
        right[d] = 1.0
        left[:, d + 1] = 1.0
        if self.problem.kernel.metric == "dot":
            left[:, :d] = -scale * x
            left[:, d] = 0.0
            right[d + 1] = 0.0
        else:
            left[:, :d] = (2.0 * scale) * x
            left[:, d] = -scale * np.einsum("ij,ij->i", x, x)
            right[d + 1] = -scale * np.einsum("ij,ij->i", y, y)
        if shift is not None:
            left[:, d] -= shift
        if b is not None:
            right[d + 1] += b
        return left, right

    def _buffers(self) -> tuple[np.ndarray, np.ndarray]:
        T = np.empty(self.bm * self.bn, dtype=self.x.dtype)
        dtype = self.problem.x.dtype
        return T, T if dtype == T.dtype else np.empty(self.bm * self.bn, dtype=dtype)

    def _kernel_sum(self, T: np.ndarray, E: np.ndarray, v: np.ndarray, acc: np.ndarray, i: int, j: int) -> None:
        """``acc += k @ v`` for the tile of exponents at rows ``i`` and columns ``j``; destroys ``T``."""
        if self.problem.exclude_self:
            _own(T, i, j)[...] = -math.inf
        if self.problem.kernel.exponential:
            self.math.exp_sum(T, E, v, acc)
        else:
            acc += self._profile(T) @ v

    def _profile(self, T: np.ndarray) -> np.ndarray:
        """Kernels of ``-T`` in the problem's dtype; rounding may have made a distance negative, self pairs have none."""
        np.negative(T, out=T)
        np.maximum(T, 0.0, out=T)
        own = np.isposinf(T) if self.problem.exclude_self else None
        if own is not None:
            T[own] = 0.0
        E = self.problem.kernel.value(T, np).astype(self.problem.x.dtype, copy=False)
        if own is not None:
            E[own] = 0.0
        return np.asarray(E)

    def _row_sums(self, left: np.ndarray, right: np.ndarray, v: np.ndarray, out: np.ndarray) -> None:
        """``out = exp(left @ right) @ v`` (or another profile); accumulates in float64."""
        m, bm, bn = right.shape[1], self.bm, self.bn
        matmul, kernel_sum = np.matmul, self._kernel_sum
        columns = [(j, np.ascontiguousarray(right[:, j : j + bn]), v[j : j + bn]) for j in range(0, m, bn)]

        def work(start: int, stop: int) -> None:
            T_buffer, E_buffer = self._buffers()
            acc = np.empty((bm, v.shape[1]), dtype=np.float64)
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

        over_rows(work, left.shape[0], step=bm, threads=self.problem.threads)

    def sum(self, v: np.ndarray) -> np.ndarray:
        if not self._by_gemm:
            return np.asarray(super().sum(v))
        left, right = self._augmented(None, None)
        out = np.empty((left.shape[0], v.shape[1]), dtype=v.dtype)
        self._row_sums(left, right, np.ascontiguousarray(v), out)
        return out

    def fill(self, matrix: np.ndarray) -> None:
        """Write the whole kernel matrix, tile by tile."""
        n, m, _ = self.problem.shape
        if not self._by_gemm:

            def by_tiles(start: int, stop: int) -> None:
                for i in range(start, stop, self.rows):
                    for j in range(0, m, self.columns):
                        t = self.tile(i, j, log=False)[: stop - i]
                        matrix[i : i + t.shape[0], j : j + t.shape[1]] = t

            over_rows(by_tiles, n, step=self.rows, threads=self.problem.threads)
            return
        left, right = self._augmented(None, None)

        def work(start: int, stop: int) -> None:
            T_buffer, _ = self._buffers()
            for i in range(start, stop, self.bm):
                rows = left[i : min(i + self.bm, stop)]
                for j in range(0, m, self.bn):
                    block = right[:, j : j + self.bn]
                    T = T_buffer[: rows.shape[0] * block.shape[1]].reshape(rows.shape[0], block.shape[1])
                    np.matmul(rows, block, out=T)
                    target = matrix[i : i + rows.shape[0], j : j + block.shape[1]]
                    if self.problem.exclude_self:
                        _own(T, i, j)[...] = -math.inf
                    if self.problem.kernel.exponential:
                        np.exp(T, out=target, dtype=target.dtype, casting="same_kind")
                    else:
                        target[...] = self._profile(T)

        over_rows(work, n, step=self.bm, threads=self.problem.threads)

    def logsumexp(self, b: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
        if not self._online_by_gemm:
            return np.asarray(super().logsumexp(b))
        if guess is None:
            return self._online(b, None)[1]
        shift = np.where(np.isfinite(guess), guess, 0.0)
        left, right = self._augmented(b, shift)
        sums = np.empty((left.shape[0], 1), dtype=np.float64)
        ones = np.ones((right.shape[1], 1), dtype=self.problem.x.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            self._row_sums(left, right, ones, sums)
        # A guess far from the answer under- or overflows its row: those rows are done again with their own maximum.
        good = (sums[:, 0] > 1e-20) & (sums[:, 0] < 1e20)
        out = np.array(shift + np.log(np.where(good, sums[:, 0], 1.0)), dtype=b.dtype)
        if not good.all():
            bad = np.flatnonzero(~good)
            out[bad] = self._online(b, None, rows=bad)[1]
        return out

    def softmax_sum(self, b: np.ndarray, v: Any) -> tuple[np.ndarray, np.ndarray]:
        if not self._online_by_gemm:
            return super().softmax_sum(b, v)
        return self._online(b, v)

    def _online(
        self, b: np.ndarray, v: np.ndarray | None, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Streaming log-sum-exp: a running row maximum, and sums rescaled when it rises."""
        left, right = self._augmented(b, None)
        numbers = np.arange(left.shape[0]) if rows is None else rows
        left = left if rows is None else left[rows]
        n, m, bm, bn = left.shape[0], right.shape[1], self.bm, self.bn
        dtype = b.dtype
        ones = np.ones((m, 1), dtype=dtype)
        v1 = ones if v is None else np.concatenate([ones, v], axis=1)
        columns = [(j, np.ascontiguousarray(right[:, j : j + bn]), v1[j : j + bn]) for j in range(0, m, bn)]
        values, logs = np.zeros((n, v1.shape[1] - 1), dtype=dtype), np.empty(n, dtype=dtype)

        def work(start: int, stop: int) -> None:
            T_buffer, E_buffer = self._buffers()
            for i in range(start, stop, bm):
                part = left[i : min(i + bm, stop)]
                h = part.shape[0]
                top = np.full(h, -math.inf)
                acc = np.zeros((h, v1.shape[1]))
                for j, block, weights in columns:
                    size, shape = h * block.shape[1], (h, block.shape[1])
                    T = T_buffer[:size].reshape(shape)
                    E = T if E_buffer is T_buffer else E_buffer[:size].reshape(shape)
                    np.matmul(part, block, out=T)
                    if self.problem.exclude_self:
                        own = numbers[i : i + h] - j
                        inside = np.flatnonzero((own >= 0) & (own < block.shape[1]))
                        T[inside, own[inside]] = -math.inf
                    new = np.maximum(top, T.max(axis=1))
                    safe = np.where(np.isfinite(new), new, 0.0)
                    T -= safe.astype(T.dtype)[:, None]
                    acc *= np.exp(np.where(np.isfinite(top), top - safe, -math.inf))[:, None]
                    self.math.exp_sum(T, E, weights, acc)
                    # The shift was rounded to the tile's dtype: continue from the rounded one.
                    top = np.where(np.isfinite(new), safe.astype(T.dtype).astype(np.float64), -math.inf)
                mass = acc[:, 0]
                positive = mass > 0
                safe_mass = np.where(positive, mass, 1.0)
                logs[i : i + h] = np.where(positive, top + np.log(safe_mass), -math.inf)
                values[i : i + h] = acc[:, 1:] / safe_mass[:, None]

        over_rows(work, n, step=bm, threads=self.problem.threads)
        return values, logs

    def nearest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.problem.kernel.metric not in ("sqeuclidean", "euclidean") or 0 in self.problem.shape:
            return super().nearest(k)
        x, y = self.x.astype(np.float64), self.y.astype(np.float64)
        n, m = x.shape[0], y.shape[0]
        xx, yy = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
        indices = np.empty((n, k), dtype=np.int64)
        values = np.empty((n, k), dtype=self.problem.x.dtype)
        height = max(1, 2**20 // m)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop, height):
                part = x[i : min(i + height, stop)]
                h = part.shape[0]
                t = part @ (-2.0 * y.T)
                t += yy
                t += xx[i : i + h, None]
                if self.problem.exclude_self:
                    t[np.arange(h), np.arange(i, i + h)] = math.inf
                candidates = np.argpartition(t, min(k, m) - 1, axis=1)[:, :k]
                # The expansion chose them; direct differences order them and give their values.
                exact = ((part[:, None, :] - y[candidates]) ** 2).sum(axis=2)
                if self.problem.exclude_self:
                    exact[candidates == np.arange(i, i + h)[:, None]] = math.inf
                order = np.lexsort((candidates, exact), axis=1)
                indices[i : i + h] = np.take_along_axis(candidates, order, axis=1)
                exact = np.take_along_axis(exact, order, axis=1)
                values[i : i + h] = np.sqrt(exact) if self.problem.kernel.metric == "euclidean" else exact

        over_rows(work, n, step=height, threads=self.problem.threads)
        return indices, values


def _own(T: np.ndarray, i: int, j: int) -> np.ndarray:
    """A view of the pairs (i, i) of a tile whose corner is at row ``i`` and column ``j``; empty when it holds none."""
    part = T[max(j - i, 0) :, max(i - j, 0) :]
    # einsum's diagonal is a view that may be written to.
    return np.einsum("ii->i", part[: min(part.shape), : min(part.shape)])

"""The host engine: GEMM tiles that stay in the cache of one core, and nearest neighbours by the same product."""

from __future__ import annotations

import math

import numpy as np

from ..threads import over_rows
from .gemm_tiles import GemmTiles


class NumpyTiles(GemmTiles):
    """See `GemmTiles`."""

    name = "numpy"

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

"""Plans built row tile by row tile: the only place that knows about in-place arithmetic.

One exponential costs as much as 30 multiply-adds on a CPU, and one with a subnormal result three times as much, so exponents
are clamped from below and a pass works in a tile that stays in the cache. On NumPy everything happens in place; any other
library gets the same formula without it, on larger tiles.
"""

from __future__ import annotations

from typing import Any

from ...backends.namespace import Array, Namespace, device, is_gpu, is_numpy

_TILE, _GPU_TILE = 32_768, 1 << 24


class Tiles:
    """Exponential passes over a cost matrix ``C`` into a matrix ``E`` of the same shape and dtype."""

    def __init__(self, C: Array, wide: Any, xp: Namespace) -> None:
        self.C, self.wide, self.xp = C, wide, xp
        self.E = xp.empty(C.shape, dtype=C.dtype, device=device(C))
        # exp(-230) = 1e-100 and exp(-80) = 1e-35: nothing as mass, and far from subnormal even when squared (float64).
        self.floor = -80.0 if C.dtype == xp.float32 else -230.0
        self.passes = 0
        n, m = C.shape
        self.height = max(1, min(n, (_GPU_TILE if is_gpu(C) else _TILE) // m))
        self.in_place = is_numpy(xp)
        if self.in_place:
            self.work = xp.empty((self.height, m), dtype=wide)

    def fill(self, F: Array, G: Array, eps: float) -> None:
        """``E_ij = exp((F_i + G_j - C_ij) / eps)``."""
        self.passes += 1
        xp, scale = self.xp, 1.0 / eps
        F, G = F * scale, G * scale
        for start, stop in self._ranges():
            if self.in_place:
                T = self._exponents(start, stop, scale, G)
                T += F[start:stop, None]
                self._exp(T, start, stop)
            else:
                T = F[start:stop, None] + G[None, :] - xp.astype(self.C[start:stop, :], self.wide) * scale
                self.E[start:stop, :] = xp.exp(xp.astype(xp.maximum(T, self.floor), self.E.dtype))

    def fill_rows(self, a: Array, G: Array, eps: float) -> Array:
        """The row update and its plan in one pass: ``F`` such that the rows of ``E`` sum to ``a``."""
        self.passes += 1
        xp, scale, parts = self.xp, 1.0 / eps, []
        G = G * scale
        for start, stop in self._ranges():
            if self.in_place:
                T = self._exponents(start, stop, scale, G)
                top = xp.max(T, axis=1)
                T -= top[:, None]
                tile = self._exp(T, start, stop)
                total = xp.sum(tile, axis=1, dtype=self.wide)
                tile *= xp.astype(a[start:stop] / total, tile.dtype)[:, None]
            else:
                T = G[None, :] - xp.astype(self.C[start:stop, :], self.wide) * scale
                top = xp.max(T, axis=1)
                tile = xp.exp(xp.astype(xp.maximum(T - top[:, None], self.floor), self.E.dtype))
                total = xp.sum(tile, axis=1, dtype=self.wide)
                self.E[start:stop, :] = tile * xp.astype(a[start:stop] / total, tile.dtype)[:, None]
            parts.append(xp.log(a[start:stop] / total) - top)
        return xp.concat(parts) * eps

    def rows(self, x: Array) -> Array:
        """``E x``, summed in the dtype of ``E``."""
        return self._wide(self.E @ self._narrow(x))

    def columns(self, x: Array) -> Array:
        """``E^T x``."""
        return self._wide(self._narrow(x) @ self.E)

    def squares(self, x: Array) -> Array:
        """``(E * E) x``."""
        xp, x, parts = self.xp, self._narrow(x), []
        for start, stop in self._ranges():
            tile = self.E[start:stop, :]
            if self.in_place and tile.dtype == self.wide:
                work = self.work[: stop - start]
                xp.multiply(tile, tile, out=work)
                parts.append(work @ x)
            else:
                parts.append((tile * tile) @ x)
        return self._wide(xp.concat(parts))

    def _exponents(self, start: int, stop: int, scale: float, G: Array) -> Array:
        xp, T = self.xp, self.work[: stop - start]
        xp.multiply(self.C[start:stop, :], -scale, out=T)
        T += G
        return T

    def _exp(self, T: Array, start: int, stop: int) -> Array:
        xp, tile = self.xp, self.E[start:stop, :]
        xp.maximum(T, self.floor, out=T)
        if tile.dtype != T.dtype:
            tile[...] = T
            T = tile
        xp.exp(T, out=tile)
        return tile

    def _ranges(self) -> list[tuple[int, int]]:
        n, height = self.C.shape[0], self.height
        return [(i, min(i + height, n)) for i in range(0, n, height)]

    def _narrow(self, x: Array) -> Array:
        return x if x.dtype == self.E.dtype else self.xp.astype(x, self.E.dtype)

    def _wide(self, x: Array) -> Array:
        return x if x.dtype == self.wide else self.xp.astype(x, self.wide)

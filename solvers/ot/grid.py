"""Histograms on one regular grid with a cost that is a sum over the axes: a pass costs ``n s``, not ``n^2`` (n points, s a side).

``log sum_kl exp(G_kl - D_ik - D'_jl) = log sum_k exp(log sum_l exp(G_kl - D'_jl) - D_ik)``: one axis after the other, in the log
domain, so that any regularisation works (Solomon et al. 2015 do it with products; Peyre and Cuturi 2019, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, array_namespace, device, is_gpu
from ...backends.special import logsumexp
from ...backends.transfer import host_bool, host_float
from ...backends.validation import check_count, check_dtype, check_scalar

# Entries of one tile of exponents.
_HOST_TILE, _GPU_TILE = 2**17, 2**24


class Grid:
    """Source and target histograms on the same regular grid of one, two or three dimensions.

    The cost between the cells ``i`` and ``k`` is ``sum_axis |scale_axis (i_axis - k_axis)|^p``; weights are flat arrays of
    ``prod(shape)`` numbers in row-major order.

    Parameters
    ----------
    shape : tuple of int
        Cells along each axis.
    p : float
        Power of the distance along an axis; positive.
    scale : float or sequence of float
        Distance of neighbouring cells, one for each axis if several.
    like : array
        Decides library, dtype and device, e.g. one of the histograms.

    Raises
    ------
    BackendError, InputError
        Bad shape, power, scale or dtype; the message names the argument.

    Notes
    -----
    With ``n`` cells and ``s`` along an axis: O(n s) time a pass and axis, memory O(n) and a tile.

    References
    ----------
    J. Solomon et al., Convolutional Wasserstein distances, ACM Transactions on Graphics 34(4), 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.grid import Grid
    >>> from xpsolve.solvers.ot import sinkhorn
    >>> a = np.asarray([[0.5, 0.5], [0.0, 0.0]]).reshape(-1)
    >>> b = np.asarray([[0.0, 0.0], [0.5, 0.5]]).reshape(-1)
    >>> round(sinkhorn(Grid((2, 2), like=a), a, b, reg=0.05).value, 4)
    1.0347
    """

    def __init__(
        self, shape: Sequence[int], *, p: float = 2.0, scale: float | Sequence[float] = 1.0, like: Array
    ) -> None:
        self.xp = array_namespace(like=like)
        check_dtype(like, "like", self.xp)
        if not isinstance(shape, tuple | list) or not 1 <= len(shape) <= 3:
            raise InputError(f"shape is {shape!r}, expected one, two or three numbers of cells")
        self.cells = tuple(check_count(s, "shape") for s in shape)
        self.p = check_scalar(p, "p", positive=True)
        scales = list(scale) if isinstance(scale, tuple | list) else [scale] * len(self.cells)
        if len(scales) != len(self.cells):
            raise InputError(f"scale has {len(scales)} numbers for {len(self.cells)} axes")
        self.scale = tuple(check_scalar(s, "scale", positive=True) for s in scales)
        n = math.prod(self.cells)
        self.shape, self.like = (n, n), like

    def costs(self, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop`` of the cost matrix (n, n), which no pass needs."""
        total: Array = 0.0
        for k in range(len(self.cells)):
            along = self.points[:, k]
            total = total + self.xp.abs(along[start:stop][:, None] - along[None, :]) ** self.p
        return total

    def kernel(self, reg: float) -> _GridKernel:
        """The reductions of ``exp(-cost / reg)``."""
        return _GridKernel(self, [self._axis_cost(k) / reg for k in range(len(self.cells))])

    def _line(self, axis: int) -> Array:
        xp = self.xp
        return xp.arange(self.cells[axis], dtype=self.like.dtype, device=device(self.like)) * self.scale[axis]

    def _axis_cost(self, axis: int) -> Array:
        line = self._line(axis)
        return self.xp.abs(line[:, None] - line[None, :]) ** self.p

    @property
    def points(self) -> Array:
        """Positions of the cells, (n, d)."""
        xp = self.xp
        axes = xp.meshgrid(*(self._line(k) for k in range(len(self.cells))), indexing="ij")
        return xp.stack([xp.reshape(x, (-1,)) for x in axes], axis=1)

    def cost_matrix(self) -> Array:
        """The whole (n, n) cost; for tests and small grids."""
        points = self.points
        total = self.xp.zeros(self.shape, dtype=self.like.dtype, device=device(self.like))
        for k in range(len(self.cells)):
            total = total + self.xp.abs(points[:, k][:, None] - points[:, k][None, :]) ** self.p
        return total

    def largest(self) -> float:
        """The largest cost."""
        return float(sum((s * (c - 1)) ** self.p for s, c in zip(self.scale, self.cells, strict=True)))


class _GridKernel:
    """The cost is symmetric: reductions over rows and over columns are the same."""

    def __init__(self, grid: Grid, costs: list[Array]) -> None:
        self.grid, self.xp, self.costs = grid, grid.xp, costs
        self.gpu = is_gpu(grid.like)
        self.kernels = [] if self.gpu else [self.xp.exp(-D) for D in costs]
        # A sum of products this large has lost less than its rounding to factors that underflowed.
        self.safe = 1e-200 if grid.like.dtype == self.xp.float64 else 1e-28

    def rows(self, b: Array, guess: Array | None) -> Array:
        return self._along_axes(b, None)[0]

    def columns(self, a: Array, guess: Array | None) -> Array:
        return self._along_axes(a, None)[0]

    def row_average(self, b: Array, v: Array) -> Array:
        values = self._along_axes(b, v[:, None] if v.ndim == 1 else v)[1]
        return values[:, 0] if v.ndim == 1 else values

    column_average = row_average

    def _along_axes(self, b: Array, v: Array | None) -> tuple[Array, Any]:
        """Log-sum-exp of ``b`` less the cost, and averages of ``v`` with those weights: an average of averages, axis by axis."""
        xp, cells = self.xp, self.grid.cells
        T = xp.reshape(b, cells)
        V = None if v is None else xp.reshape(v, (*cells, v.shape[1]))
        d = len(cells)
        for k in range(d):
            # The axis goes last; what it is summed to comes back to its place.
            order = (*(j for j in range(d) if j != k), k)
            back = tuple(order.index(j) for j in range(d))
            moved = xp.permute_dims(T, order)
            flat = xp.reshape(moved, (-1, cells[k]))
            W = None
            if V is not None:
                W = xp.reshape(xp.permute_dims(V, (*order, d)), (-1, cells[k], V.shape[d]))
            flat, W = self._axis(flat, W, k)
            T = xp.permute_dims(xp.reshape(flat, moved.shape), back)
            if W is not None:
                V = xp.permute_dims(xp.reshape(W, (*moved.shape, W.shape[2])), (*back, d))
        logs = xp.reshape(T, (-1,))
        return logs, None if V is None else xp.reshape(V, (self.grid.shape[0], V.shape[d]))

    def _axis(self, T: Array, V: Array | None, k: int) -> tuple[Array, Any]:
        """``log sum_k exp(T_rk - D_ik)`` for all rows ``r``, in tiles."""
        xp, side = self.xp, self.grid.cells[k]
        height = max(1, (_GPU_TILE if self.gpu else _HOST_TILE) // (side * side))
        if V is None and not self.gpu:
            return self._by_products(T, k, height), None
        logs, values = [], []
        for i in range(0, T.shape[0], height):
            stop = min(i + height, T.shape[0])
            L, A = self._exact(T[i:stop, :], None if V is None else V[i:stop, ...], k)
            logs.append(L)
            values.append(A)
        return xp.concat(logs, axis=0), None if V is None else xp.concat(values, axis=0)

    def _exact(self, T: Array, V: Array | None, k: int) -> tuple[Array, Any]:
        """One tile in the log domain."""
        xp = self.xp
        X = T[:, None, :] - self.costs[k][None, :, :]
        L = logsumexp(X, axis=2, xp=xp)
        if V is None:
            return L, None
        return L, xp.matmul(xp.exp(X - xp.where(xp.isfinite(L), L, 0.0)[:, :, None]), V)

    def _by_products(self, T: Array, k: int, height: int) -> Array:
        """The same by one matrix product where that keeps all digits; the rows where it does not are done in the log domain."""
        xp = self.xp
        top = xp.max(T, axis=1, keepdims=True)
        top = xp.where(xp.isfinite(top), top, 0.0)
        # Exponents below the clamp are slow subnormals, and their products are far below ``safe``.
        floor = -700.0 if T.dtype == xp.float64 else -85.0
        sums = xp.exp(xp.maximum(T - top, floor)) @ self.kernels[k]
        good = sums > self.safe
        logs = xp.log(xp.where(good, sums, 1.0)) + top
        lost = ~xp.all(good, axis=1)
        if not host_bool(xp.any(lost)):
            return logs
        order = xp.argsort(xp.astype(lost, xp.int8), stable=True)
        bad = int(host_float(xp.sum(xp.astype(lost, xp.int64))))
        keep, redo = order[: T.shape[0] - bad], order[T.shape[0] - bad :]
        parts = [xp.take(logs, keep, axis=0)]
        for i in range(0, bad, height):
            parts.append(self._exact(xp.take(T, redo[i : min(i + height, bad)], axis=0), None, k)[0])
        return xp.take(xp.concat(parts, axis=0), xp.argsort(order), axis=0)

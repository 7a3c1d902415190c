"""Where a cost lives: a stored matrix, two point clouds or a grid. The few reductions that Sinkhorn needs, behind one interface."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from ...backends.errors import InputError
from ...backends.log_sums import column_averages, column_log_sums, row_averages, row_log_sums
from ...backends.namespace import Array, array_namespace, device, is_numpy
from ...backends.pairs import Pairs, exponential
from ...backends.transfer import host_bool, host_float
from ...backends.validation import check_array, check_scalar
from .grid import Grid

_HALVES = {"half_sqeuclidean": ("sqeuclidean", 0.5)}


class Dense:
    """An (n, m) cost matrix, ``name`` to the caller; plus infinity forbids a pair."""

    def __init__(self, C: Array, name: str = "cost") -> None:
        self.xp = array_namespace(**{name: C})
        check_array(C, name, self.xp, ndim=2, finite=False)
        if host_bool(self.xp.any(self.xp.isnan(C) | (-math.inf == C))):
            raise InputError(f"{name} contains NaN or minus infinity")
        self.C, self.shape, self.like = C, (C.shape[0], C.shape[1]), C

    def kernel(self, reg: float) -> _DenseKernel:
        """The reductions of ``exp(-C / reg)``."""
        return _DenseKernel(-self.C / reg, self.xp)

    def largest(self) -> float:
        """The largest finite cost."""
        return host_float(self.xp.max(self.xp.where(self.xp.isfinite(self.C), self.C, 0.0)))


class _DenseKernel:
    def __init__(self, S: Array, xp: Any) -> None:
        self.S, self.xp = S, xp
        # Read only where reading waits for nothing.
        self.lowest = float(xp.min(S)) if is_numpy(xp) else -math.inf

    def rows(self, b: Array, guess: Array | None) -> Array:
        return row_log_sums(self.S, b, xp=self.xp, guess=guess, lowest=self.lowest)

    def columns(self, a: Array, guess: Array | None) -> Array:
        return column_log_sums(self.S, a, xp=self.xp, guess=guess, lowest=self.lowest)

    def row_average(self, b: Array, v: Array) -> Array:
        return row_averages(self.S, b, v, xp=self.xp)

    def column_average(self, a: Array, v: Array) -> Array:
        return column_averages(self.S, a, v, xp=self.xp)


class PointCloud:
    """Two point clouds and a cost between them, never stored.

    Parameters
    ----------
    x, y : array (n, d), (m, d)
        Points of one library, device and dtype.
    cost : str or callable
        ``"sqeuclidean"`` (``|x-y|^2``, as POT), ``"half_sqeuclidean"`` (``|x-y|^2 / 2``, as GeomLoss), ``"euclidean"``,
        ``"cityblock"``, ``"minkowski"`` (``(sum_k |x_k-y_k|^p)^(1/p)``), or a function of two tiles of points, (r, d) and
        (q, d), that returns their (r, q) costs with the array API.
    p : float, optional
        Power of ``"minkowski"``, at least 1; infinity takes the largest coordinate.
    **options
        Options of `Pairs`, e.g. ``engine`` or ``threads``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import PointCloud, sinkhorn
    >>> x = np.asarray([[0.0], [1.0]])
    >>> sinkhorn(PointCloud(x, x + 3.0), reg=0.25).transport().round(2).tolist()
    [[3.02], [3.98]]
    """

    def __init__(
        self, x: Array, y: Array, cost: Any = "sqeuclidean", *, p: float | None = None, **options: Any
    ) -> None:
        self.xp = array_namespace(x=x, y=y)
        check_array(x, "x", self.xp, ndim=2)
        check_array(y, "y", self.xp, shape=(None, x.shape[1]), dtype=x.dtype)
        if (p is not None) != (isinstance(cost, str) and cost == "minkowski"):
            raise InputError('p is given exactly when cost is "minkowski"')
        if p is not None:
            cost = _minkowski(p)
        metric, self.factor = _HALVES.get(cost, (cost, 1.0)) if isinstance(cost, str) else (cost, 1.0)
        exponential(metric, 1.0)  # refuses an unknown metric now, not at the first pass
        self.x, self.y, self.metric, self.options = x, y, metric, options
        self.shape, self.like = (x.shape[0], y.shape[0]), x

    def kernel(self, reg: float) -> _CloudKernel:
        """The reductions of ``exp(-cost / reg)``."""
        return _CloudKernel(self.pairs(self.x, reg, passes=None))

    def pairs(self, x: Array, reg: float, passes: int | None = 1) -> Pairs:
        """Pairs of other source points with this target, for so many passes (None: many)."""
        # The solver's loop sees a NaN for itself, at its own checks.
        options = {"passes": passes, "check_finite": False, **self.options}
        return Pairs(x, self.y, exponential(self.metric, self.factor / reg), **options)

    def largest(self) -> float:
        """About the largest cost: that between some of the points."""
        xp, (n, m) = self.xp, self.shape
        rows, columns = (
            xp.astype(xp.linspace(0, k - 1, min(k, 128), device=device(self.x), dtype=self.x.dtype), xp.int64)
            for k in (n, m)
        )
        few = self.subsample(rows, columns)
        return host_float(xp.max(few.pairs(few.x, 1.0).nearest(few.shape[1])[1])) * self.factor

    def subsample(self, rows: Array, columns: Array) -> PointCloud:
        """The cloud of some of the points."""
        x, y = self.xp.take(self.x, rows, axis=0), self.xp.take(self.y, columns, axis=0)
        other = object.__new__(PointCloud)
        other.__dict__.update(self.__dict__, x=x, y=y, shape=(x.shape[0], y.shape[0]), like=x)
        return other


class _CloudKernel:
    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def rows(self, b: Array, guess: Array | None) -> Array:
        return self.pairs.logsumexp(b, guess)

    def columns(self, a: Array, guess: Array | None) -> Array:
        return self.pairs.T.logsumexp(a, guess)

    def row_average(self, b: Array, v: Array) -> Array:
        return self.pairs.softmax_sum(v, b)[0]

    def column_average(self, a: Array, v: Array) -> Array:
        return self.pairs.T.softmax_sum(v, a)[0]


def _minkowski(p: float) -> Any:
    """The metric of an l_p norm, by name where the pairs know it."""
    p = check_scalar(p, "p", finite=False)
    if not p >= 1:
        raise InputError(f"p must be at least 1, got {p}")
    if p in (1.0, 2.0):
        return "cityblock" if p == 1.0 else "euclidean"

    def cost(x: Array, y: Array) -> Array:
        xp = array_namespace(x=x, y=y)
        total = xp.abs(x[:, 0][:, None] - y[:, 0][None, :])
        total = total if math.isinf(p) else total**p
        # One coordinate after the other: no array of three dimensions.
        for k in range(1, x.shape[1]):
            gap = xp.abs(x[:, k][:, None] - y[:, k][None, :])
            total = xp.maximum(total, gap) if math.isinf(p) else total + gap**p
        return total if math.isinf(p) else total ** (1.0 / p)

    return cost


Geometry: TypeAlias = Dense | PointCloud | Grid

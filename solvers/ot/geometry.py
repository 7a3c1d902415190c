"""Where a cost lives: a stored matrix or two point clouds. The few reductions that Sinkhorn needs, behind one interface."""

from __future__ import annotations

import math
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, array_namespace
from ...backends.pairs import Pairs, exponential
from ...backends.special import logsumexp
from ...backends.transfer import host_bool
from ...backends.validation import check_array

_HALVES = {"half_sqeuclidean": ("sqeuclidean", 0.5)}


class Dense:
    """An (n, m) cost matrix; plus infinity forbids a pair."""

    def __init__(self, C: Array) -> None:
        self.xp = array_namespace(cost=C)
        check_array(C, "cost", self.xp, ndim=2, finite=False)
        if host_bool(self.xp.any(self.xp.isnan(C) | (-math.inf == C))):
            raise InputError("cost contains NaN or minus infinity")
        self.C, self.shape, self.like = C, (C.shape[0], C.shape[1]), C

    def kernel(self, reg: float) -> _DenseKernel:
        """The reductions of ``exp(-C / reg)``."""
        return _DenseKernel(-self.C / reg, self.xp)


class _DenseKernel:
    def __init__(self, S: Array, xp: Any) -> None:
        self.S, self.xp = S, xp

    def rows(self, b: Array, guess: Array | None) -> Array:
        return logsumexp(self.S + b[None, :], axis=1, xp=self.xp)

    def columns(self, a: Array, guess: Array | None) -> Array:
        return logsumexp(self.S + a[:, None], axis=0, xp=self.xp)

    def row_average(self, b: Array, v: Array) -> Array:
        logs = self.rows(b, None)
        safe = self.xp.where(self.xp.isfinite(logs), logs, 0.0)
        return self.xp.exp(self.S + b[None, :] - safe[:, None]) @ v

    def column_average(self, a: Array, v: Array) -> Array:
        logs = self.columns(a, None)
        safe = self.xp.where(self.xp.isfinite(logs), logs, 0.0)
        return self.xp.exp(self.S + a[:, None] - safe[None, :]).T @ v


class PointCloud:
    """Two point clouds and a cost between them, never stored.

    Parameters
    ----------
    x, y : array (n, d), (m, d)
        Points of one library, device and dtype.
    cost : str or callable
        ``"sqeuclidean"`` (``|x-y|^2``, as POT), ``"half_sqeuclidean"`` (``|x-y|^2 / 2``, as GeomLoss), ``"euclidean"``,
        ``"cityblock"``, or a function of two tiles of points that returns their costs.
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

    def __init__(self, x: Array, y: Array, cost: Any = "sqeuclidean", **options: Any) -> None:
        self.xp = array_namespace(x=x, y=y)
        check_array(x, "x", self.xp, ndim=2)
        check_array(y, "y", self.xp, shape=(None, x.shape[1]), dtype=x.dtype)
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

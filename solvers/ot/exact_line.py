"""Exact transport on the line, whose plan keeps the order of the points: by sorting."""

from __future__ import annotations

from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device
from ...backends.transfer import host_float
from ...backends.validation import check_array, check_scalar
from .autograd import detached, with_gradient
from .exact_result import ExactResult, exact_result
from .geometry import PointCloud
from .problem import prepare


def transport_1d(x: Array, y: Array, a: Array | None = None, b: Array | None = None, *, p: float = 2.0) -> ExactResult:
    """Exact transport on the line for the cost ``|x - y|^p``, ``p >= 1``, by sorting: O((n + m) log(n + m)).

    Parameters
    ----------
    x, y : array (n,), (m,)
        Points.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform.
    p : float
        Power, at least one.

    Returns
    -------
    ExactResult
        ``value`` is the ``p``-th power of the Wasserstein distance.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.exact_line import transport_1d
    >>> transport_1d(np.asarray([3.0, 0.0]), np.asarray([1.0, 5.0]), p=1.0).value
    1.5
    """
    p = check_scalar(p, "p", positive=True)
    if p < 1:
        raise InputError(f"p is {p}, expected at least 1: a concave cost does not keep the order of points")
    xp = array_namespace(x=x, y=y)
    check_array(x, "x", xp, ndim=1)
    check_array(y, "y", xp, ndim=1, dtype=x.dtype)
    metric: Any = {2.0: "sqeuclidean", 1.0: "euclidean"}.get(p, lambda s, t: xp.abs(s - t.T) ** p)
    cloud = PointCloud(x[:, None], y[:, None], metric)
    bare, *weights = detached(cloud, a, b)
    problem = prepare(bare, *weights, reg=1.0, tol=None)
    return with_gradient(on_line(bare, problem.a, problem.b, p, 1.0, xp), cloud, a, b)


def on_line(cloud: PointCloud, a: Array, b: Array, p: float, factor: float, xp: Namespace) -> ExactResult:
    """The north-west corner rule on sorted points: a path through the matrix, one row or one column further each time."""
    order_x, order_y = xp.argsort(cloud.x[:, 0], stable=True), xp.argsort(cloud.y[:, 0], stable=True)
    n, m = cloud.shape
    x, y = xp.take(cloud.x[:, 0], order_x, axis=0), xp.take(cloud.y[:, 0], order_y, axis=0)
    total = xp.cumulative_sum(xp.take(a, order_x, axis=0))
    other = xp.cumulative_sum(xp.take(b, order_y, axis=0))
    breaks = xp.concat([total[: n - 1], other[: m - 1]], axis=0)
    order = xp.argsort(breaks, stable=True)
    zero = xp.zeros_like(x[:1])
    ends = xp.concat([zero, xp.take(breaks, order, axis=0), xp.maximum(total[n - 1 :], other[m - 1 :])], axis=0)
    w = xp.maximum(ends[1:] - ends[:-1], 0.0)
    down = xp.astype(order < n - 1, xp.int64)
    none = xp.zeros_like(down[:1]) if n + m > 2 else xp.zeros_like(order_x)
    i = xp.concat([none, xp.cumulative_sum(down)], axis=0) if n + m > 2 else none
    j = xp.concat([none, xp.cumulative_sum(1 - down)], axis=0) if n + m > 2 else none
    costs = factor * xp.abs(xp.take(x, i, axis=0) - xp.take(y, j, axis=0)) ** p
    # Along the path f_i + g_j is the cost: a step down changes f by the difference of costs, a step across changes g.
    rise = costs[1:] - costs[:-1]
    f_path = xp.concat([zero, xp.cumulative_sum(xp.where(down > 0, rise, 0.0))], axis=0) if n + m > 2 else zero
    g_path = costs - f_path
    rows, columns = xp.take(order_x, i, axis=0), xp.take(order_y, j, axis=0)
    # Each point's first place on the path tells its potential.
    first_row = xp.searchsorted(i, xp.arange(n, dtype=i.dtype, device=device(i)))
    first_column = xp.searchsorted(j, xp.arange(m, dtype=j.dtype, device=device(j)))
    f = xp.take(xp.take(f_path, first_row, axis=0), xp.argsort(order_x, stable=True), axis=0)
    g = xp.take(xp.take(g_path, first_column, axis=0), xp.argsort(order_y, stable=True), axis=0)
    return exact_result(cloud, a, b, rows, columns, w, f, g, host_float(xp.sum(w * costs)), "line", xp)

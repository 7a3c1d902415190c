"""Exact optimal transport, where a user expects it: on the line by sorting, assignment and linear programming through SciPy.

minimise  <C, P>  over  P >= 0, P 1 = a, P^T 1 = b
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device
from ...backends.operators import LinearOperator
from ...backends.scatter import segment_sum
from ...backends.transfer import from_host, host_float, to_host
from ...backends.validation import check_array, check_choice, check_scalar
from ..result import Status
from .geometry import Dense, Geometry, PointCloud
from .grid import Grid
from .plan_tiles import cost_matrix
from .problem import finite, prepare
from .result import TransportResult

_METHODS = ("auto", "line", "assignment", "lp")


def solve_exact(
    cost: Array | Dense | PointCloud, a: Array | None = None, b: Array | None = None, *, method: str = "auto"
) -> ExactResult:
    """Optimal transport without regularisation: ``min <C, P>`` with marginals ``a`` and ``b``.

    Parameters
    ----------
    cost : array (n, m) or PointCloud
        A cost matrix (plus infinity forbids a pair), or two point clouds.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform.
    method : {"auto", "line", "assignment", "lp"}
        ``"line"`` sorts points of one dimension; ``"assignment"`` is for as many sources as targets, all of equal weight;
        ``"lp"`` is HiGHS on the linear program, good for up to about a million pairs. The last two work on the host, with the
        whole matrix in float64. ``"auto"`` takes the first that applies.

    Returns
    -------
    ExactResult
        The plan as a sparse operator, dual potentials, value. Where a torch input requires grad, ``value`` is a tensor that
        carries it; so for `transport_1d` (by points for ``p`` one and two).

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; forbidden pairs that leave no plan; the message names the argument.

    References
    ----------
    D. Crouse, On implementing 2D rectangular assignment algorithms, 2016. Q. Huangfu, J. Hall, Parallelizing the dual revised
    simplex method, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.exact import solve_exact
    >>> result = solve_exact(np.asarray([[1.0, 2.0], [4.0, 3.0]]), np.asarray([0.25, 0.75]))
    >>> result.value, (result.plan @ np.eye(2)).tolist()
    (2.75, [[0.25, 0.0], [0.25, 0.5]])
    """
    from .autograd import detached, with_gradient  # which stands on this module

    check_choice(method, "method", _METHODS)
    return with_gradient(_solved(*detached(cost, a, b), method), cost, a, b)


def _solved(cost: Geometry, a: Array | None, b: Array | None, method: str) -> ExactResult:
    problem = prepare(cost, a, b, reg=1.0, tol=None)
    geometry, xp = problem.geometry, problem.xp
    line = isinstance(geometry, PointCloud) and geometry.x.shape[1] == 1 and not callable(geometry.metric)
    if method == "line" and not line:
        raise InputError("method 'line' needs point clouds of one dimension with a named cost")
    if line and method in ("auto", "line"):
        cloud: Any = geometry
        p = 2.0 if cloud.metric == "sqeuclidean" else 1.0
        return _on_line(cloud, problem.a, problem.b, p, cloud.factor, xp)
    n, m = geometry.shape
    even = n == m and host_float(xp.max(problem.a) - xp.min(problem.a) + xp.max(problem.b) - xp.min(problem.b)) == 0.0
    if method == "assignment" and not even:
        raise InputError("method 'assignment' needs as many sources as targets, all of equal weight; use 'lp'")
    C = to_host(cost_matrix(geometry)).astype("float64")
    if even and method != "lp":
        rows, columns, mass, f, g = _assignment(C, problem.mass / n)
        chosen = "assignment"
    else:
        rows, columns, mass, f, g = _program(C, to_host(problem.a), to_host(problem.b))
        chosen = "lp"
    like = geometry.like
    dtype = "float32" if like.dtype == xp.float32 else "float64"
    mass, f, g = (from_host(v.astype(dtype), like=like, xp=xp) for v in (mass, f, g))
    rows, columns = (from_host(v.astype("int64"), like=like, xp=xp) for v in (rows, columns))
    value = float((C[to_host(rows), to_host(columns)] * to_host(mass)).sum())
    return _result(geometry, problem.a, problem.b, rows, columns, mass, f, g, value, chosen, xp)


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
    >>> from xpsolve.solvers.ot.exact import transport_1d
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
    from .autograd import detached, with_gradient  # which stands on this module

    bare, *weights = detached(cloud, a, b)
    problem = prepare(bare, *weights, reg=1.0, tol=None)
    return with_gradient(_on_line(bare, problem.a, problem.b, p, 1.0, xp), cloud, a, b)


@dataclass(frozen=True, kw_only=True, repr=False)
class ExactResult(TransportResult):
    """An exact plan, by its entries, with dual potentials.

    Attributes
    ----------
    f, g : array (n,), (m,)
        Dual potentials: ``f_i + g_j <= C_ij``, with equality where the plan has mass.
    value : float
        ``<C, P>``.
    rows, columns, weights : array (k,)
        The entries of the plan; an entry may have no mass.
    reg : float
        Zero.
    residual : float
        ``|P 1 - a|_1 + |P^T 1 - b|_1``, recomputed.
    """

    rows: Array
    columns: Array
    weights: Array

    @property
    def dual_value(self) -> float:
        """``<a, f> + <b, g>``, equal to ``value`` up to rounding."""
        xp = self.geometry.xp
        return host_float(xp.sum(self.a * finite(self.f, xp)) + xp.sum(self.b * finite(self.g, xp)))

    @property
    def transport_cost(self) -> float:
        """``<C, P>``: the value itself."""
        return host_float(self.value)

    @property
    def duality_gap(self) -> float:
        """``value - dual_value``, zero up to rounding."""
        return max(self.transport_cost - self.dual_value, 0.0)

    def marginals(self) -> tuple[Array, Array]:
        """Sums of the rows (n,) and of the columns (m,) of the plan."""
        xp, (n, m) = self.geometry.xp, self.geometry.shape
        return segment_sum(self.weights, self.rows, n, xp=xp, trusted=True), segment_sum(
            self.weights, self.columns, m, xp=xp, trusted=True
        )

    def entries(self) -> Array:
        """The plan as an array."""
        xp, (n, m) = self.geometry.xp, self.geometry.shape
        return xp.reshape(segment_sum(self.weights, self.rows * m + self.columns, n * m, xp=xp, trusted=True), (n, m))

    def scaled(self) -> tuple[Array, Array]:
        """Not of an exact plan, which is not a scaled kernel: an `InputError`."""
        raise InputError(
            "an exact plan has no scalings, for it is not exp(F + G - C / reg); its potentials are f and g"
        )

    @property
    def plan(self) -> LinearOperator:
        """The plan (n, m) as a sparse operator."""
        xp, (n, m) = self.geometry.xp, self.geometry.shape

        def product(v: Array, take: Array, put: Array, k: int) -> Array:
            w = self.weights if v.ndim == 1 else self.weights[:, None]
            return segment_sum(w * xp.take(v, take, axis=0), put, k, xp=xp, trusted=True)

        def apply(v: Array) -> Array:
            return product(v, self.columns, self.rows, n)

        def adjoint(u: Array) -> Array:
            return product(u, self.rows, self.columns, m)

        return LinearOperator(
            (n, m), apply, matmat=apply, rmatvec=adjoint, rmatmat=adjoint, dtype=self.f.dtype, name="plan"
        )

    def transport(self, points: Array | None = None, target: Array | None = None) -> Array:
        """Where each source point goes: the mean of its target points under the plan, zero for a point without weight."""
        xp, geometry = self.geometry.xp, self.geometry
        if points is not None:
            raise InputError("points must be left out: an exact plan carries its own source points only")
        if target is None:
            if isinstance(geometry, Dense):
                raise InputError("target must be given when the cost is a matrix")
            target = geometry.points if isinstance(geometry, Grid) else geometry.y
        self.check_target(target)
        mass = xp.where(self.a > 0, self.a, 1.0)
        return (self.plan @ target) / (mass if target.ndim == 1 else mass[:, None])


def _result(
    geometry: Any, a: Array, b: Array, rows: Array, columns: Array, w: Array, f: Array, g: Array, value: float, method: str,
    xp: Namespace,
) -> ExactResult:  # fmt: skip
    n, m = geometry.shape
    off = xp.sum(xp.abs(segment_sum(w, rows, n, xp=xp, trusted=True) - a))
    off = off + xp.sum(xp.abs(segment_sum(w, columns, m, xp=xp, trusted=True) - b))
    residual, bound = host_float(off), (1e-4 if a.dtype == xp.float32 else 1e-7) * host_float(xp.sum(a))
    return ExactResult(
        f=f, g=g, value=value, a=a, b=b, reg=0.0, geometry=geometry, rows=rows, columns=columns, weights=w, method=method,
        status=Status.CONVERGED if residual <= bound else Status.STAGNATED, n_iter=0, residual=residual, tolerance=bound,
    )  # fmt: skip


def _on_line(cloud: PointCloud, a: Array, b: Array, p: float, factor: float, xp: Namespace) -> ExactResult:
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
    return _result(cloud, a, b, rows, columns, w, f, g, host_float(xp.sum(w * costs)), "line", xp)


def _assignment(C: Any, mass: float) -> tuple[Any, Any, Any, Any, Any]:
    """SciPy's assignment, and potentials by shortest paths over the assigned pairs."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    try:
        rows, columns = linear_sum_assignment(C)
    except ValueError as err:
        raise InputError("cost forbids so many pairs that no assignment is left") from err
    n = C.shape[0]
    matched = C[rows, columns]
    # f_i - f_k <= C[i, s(k)] - C[k, s(k)]: Bellman and Ford's relaxation, which ends within n rounds.
    slack = C[:, columns] - matched[None, :]
    least = 1e-14 * np.abs(C[np.isfinite(C)]).max()
    f = np.zeros(n)
    for _ in range(n):
        new = np.minimum(f, (slack + f[None, :]).min(axis=1))
        done = bool(np.all(new >= f - least))
        f = new
        if done:
            break
    g = np.empty(n)
    g[columns] = matched - f
    return rows, columns, np.full(n, mass), f, g


# What SciPy's linprog says where it found no feasible point.
_INFEASIBLE = 2


def _program(C: Any, a: Any, b: Any) -> tuple[Any, Any, Any, Any, Any]:
    """The linear program by HiGHS, forbidden pairs left out."""
    import numpy as np
    import scipy.sparse as sps
    from scipy.optimize import linprog

    n, m = C.shape
    rows, columns = np.nonzero(np.isfinite(C))
    k = rows.size
    matrix = sps.csr_array(
        (np.ones(2 * k), (np.concatenate([rows, n + columns]), np.tile(np.arange(k), 2))), shape=(n + m, k)
    )
    a, b = a.astype("float64"), b.astype("float64")
    # HiGHS has absolute tolerances: the program it sees has costs in [0, 1] and weights of mean about one.
    costs, mass, size = C[rows, columns], float(a.sum()), max(n, m)
    low = float(costs.min()) if k else 0.0
    span = float(costs.max()) - low if k else 0.0
    span = span if span > 0 else 1.0
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    right = np.concatenate([a / mass, b / b.sum()]) * size
    # The presolve compares sums without a tolerance and may miss a plan by rounding alone; the solver itself does not.
    for presolve in (True, False):
        answer = linprog(
            (costs - low) / span,
            A_eq=matrix,
            b_eq=right,
            bounds=(0, None),
            method="highs",
            options=options | {"presolve": presolve},
        )
        if answer.status != _INFEASIBLE:
            break
    if answer.x is None or answer.status != 0:
        raise InputError(f"cost leaves no plan with the marginals a and b, or the program failed: {answer.message}")
    plan, dual, kept = answer.x * (mass / size), span * answer.eqlin.marginals, answer.x > 0
    dual[:n] += low
    # A feasible pair again after rounding, and finite where a point takes no part.
    g = np.where(b > 0, dual[n:], -math.inf)
    f = (C - g[None, :]).min(axis=1)
    f = np.where(np.isfinite(f), f, dual[:n])
    g = np.where(b > 0, g, np.where(np.isfinite(C), C - f[:, None], math.inf).min(axis=0))
    return rows[kept], columns[kept], plan[kept], f, g

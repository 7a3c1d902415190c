"""Exact optimal transport, where a user expects it: on the line by sorting, assignment and linear programming through SciPy.

minimise  <C, P>  over  P >= 0, P 1 = a, P^T 1 = b
"""

from __future__ import annotations

from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array
from ...backends.transfer import from_host, host_float, to_host
from ...backends.validation import check_choice
from .autograd import detached, with_gradient
from .exact_assignment import assignment
from .exact_line import on_line, transport_1d
from .exact_program import program
from .exact_result import ExactResult, exact_result
from .geometry import Dense, Geometry, PointCloud
from .plan_tiles import cost_matrix
from .problem import prepare

__all__ = ["ExactResult", "solve_exact", "transport_1d"]

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
        return on_line(cloud, problem.a, problem.b, p, cloud.factor, xp)
    n, m = geometry.shape
    even = n == m and host_float(xp.max(problem.a) - xp.min(problem.a) + xp.max(problem.b) - xp.min(problem.b)) == 0.0
    if method == "assignment" and not even:
        raise InputError("method 'assignment' needs as many sources as targets, all of equal weight; use 'lp'")
    C = to_host(cost_matrix(geometry)).astype("float64")
    if even and method != "lp":
        rows, columns, mass, f, g = assignment(C, problem.mass / n)
        chosen = "assignment"
    else:
        rows, columns, mass, f, g = program(C, to_host(problem.a), to_host(problem.b))
        chosen = "lp"
    like = geometry.like
    dtype = "float32" if like.dtype == xp.float32 else "float64"
    mass, f, g = (from_host(v.astype(dtype), like=like, xp=xp) for v in (mass, f, g))
    rows, columns = (from_host(v.astype("int64"), like=like, xp=xp) for v in (rows, columns))
    value = float((C[to_host(rows), to_host(columns)] * to_host(mass)).sum())
    return exact_result(geometry, problem.a, problem.b, rows, columns, mass, f, g, value, chosen, xp)

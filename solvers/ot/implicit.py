"""Derivatives of functions of the plan or of the potentials of balanced entropic transport, by one linear solve.

The optimality conditions are differentiated instead of the iteration that found the optimum (Luise et al. 2018, "Differential
properties of Sinkhorn approximation"; Eisenberger et al. 2022, "A unified framework for implicit Sinkhorn differentiation").
With ``r`` and ``c`` the sums of the rows and columns of the plan ``P``, the derivatives come from the solution of
``[[diag r, P], [P^T, diag c]] (s, t) = rhs``. Eliminating ``s`` leaves the Schur complement ``diag c - P^T diag(1/r) P``,
which is the matrix of Newton's method for the semi-dual: positive semidefinite, its null vector the constants, the right-hand
side in its range. Conjugate gradients solve it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array, array_namespace
from ...backends.validation import check_array
from .autograd import bare
from .exact_result import ExactResult
from .gradients import centred_potentials, check_names
from .optimality import Optimality, Sensitivity
from .plan_tiles import Tile
from .problem import finite
from .result import TransportResult
from .unbalanced_problem import UnbalancedResult


def plan_vjp(
    result: TransportResult,
    W: Sensitivity,
    wrt: str | Sequence[str] | None = None,
    *,
    rtol: float | None = None,
    maxiter: int | None = None,
) -> dict[str, Array]:
    """Derivatives of a loss ``L(P)`` by what the problem is made of, from ``W = dL/dP``.

    ``dL/dC = -P * (W - s 1^T - 1 t^T) / reg``, ``dL/da = s``, ``dL/db = t``.

    Parameters
    ----------
    result : TransportResult
        Of a balanced problem, solved to a small residual (1e-8): its error enters the derivatives.
    W : array (n, m), pair of arrays, or callable
        Derivatives of the loss by the entries of the plan: as a matrix; as ``(u, v)``, which means ``u v^T``, of shapes
        (n,) and (m,) or (n, k) and (m, k), never multiplied out; or as a function of a `Tile` (rows ``start`` to ``stop``
        and their costs) that returns those rows, (stop - start, m).
    wrt : str or sequence of str, optional
        As for `gradients`: ``"a"``, ``"b"``, ``"reg"``; ``"cost"`` of a matrix, only when asked for; ``"x"``, ``"y"`` of a
        `PointCloud`.
    rtol : float, optional
        Of the conjugate gradients; default 1e-10, in float32 without float64 at hand 1e-5.
    maxiter : int, optional
        Of the conjugate gradients; default ten times the number of columns.

    Returns
    -------
    dict of str to array
        Each in the shape and dtype of what it is the derivative by. The weights' are defined up to ``(s + k, t - k)``, chosen
        as in `gradients`: ``<a, s> = <b, t>``.

    Raises
    ------
    BackendError, InputError
        A bad name, or ``W`` of a wrong dtype, shape or value.

    Warns
    -----
    ConvergenceWarning
        The linear solve did not reach ``rtol``; small regularisation makes the system ill-conditioned.

    Notes
    -----
    A float32 problem is differentiated in float64 where the device has it, as the system is nearly singular. With a
    stored cost the conditional plan is formed once, and an iteration is two products with it; for a cloud it is two passes
    over the pairs, and nothing of size n x m is stored.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import sinkhorn
    >>> from xpsolve.solvers.ot.implicit import plan_vjp
    >>> result = sinkhorn(np.asarray([[0.0, 1.0], [1.0, 0.0]]), reg=0.5, tol=1e-12)
    >>> plan_vjp(result, np.asarray([[1.0, 0.0], [0.0, 0.0]]), "cost")["cost"].round(4).tolist()
    [[-0.0525, 0.0525], [0.0525, -0.0525]]
    """
    names = _regular_names(wrt, result)
    system = Optimality(result)
    rows, columns, weight = system.averages(W)
    t = system.solve(rows, columns, rtol, maxiter)
    s, t = system.back(rows, columns, t)

    def change(tile: Tile, plan: Array) -> Array:
        own = s[tile.start : tile.stop]
        return (own[:, None] + t[None, :] - weight(tile)) / result.reg

    return system.answer(names, s, t, change)


def potentials_vjp(
    result: TransportResult,
    u: Array,
    v: Array,
    wrt: str | Sequence[str] | None = None,
    *,
    rtol: float | None = None,
    maxiter: int | None = None,
) -> dict[str, Array]:
    """Derivatives of a loss ``L(f, g)`` of the potentials, from ``u = dL/df`` and ``v = dL/dg``.

    Potentials are defined up to ``(f + k, g - k)``; here they are those with ``<a, f> = <b, g>``. A loss that does not
    depend on ``k`` (``sum u = sum v``) does not depend on that choice either.

    Parameters
    ----------
    result : TransportResult
        As for `plan_vjp`.
    u, v : array (n,), (m,)
        Derivatives by the potentials of the KL gauge; entries at points without weight are not read.
    wrt, rtol, maxiter
        As for `plan_vjp`.

    Returns
    -------
    dict of str to array
        As of `plan_vjp`.

    Raises
    ------
    BackendError, InputError
        A bad name, or arrays of a wrong dtype, shape or value.

    Warns
    -----
    ConvergenceWarning
        The linear solve did not reach ``rtol``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import sinkhorn
    >>> from xpsolve.solvers.ot.implicit import potentials_vjp
    >>> a, u = np.asarray([0.3, 0.7]), np.asarray([1.0, -1.0])
    >>> result = sinkhorn(np.asarray([[0.0, 1.0], [1.0, 0.0]]), a, reg=0.5, tol=1e-12)
    >>> potentials_vjp(result, u, 0.0 * u, "cost")["cost"].round(3).tolist()
    [[0.912, 0.088], [-0.912, -0.088]]
    """
    names = _regular_names(wrt, result)
    xp, (n, m) = result.geometry.xp, result.geometry.shape
    array_namespace(result=result.f, u=u, v=v)
    check_array(u, "u", xp, shape=(n,), dtype=result.f.dtype)
    check_array(v, "v", xp, shape=(m,), dtype=result.f.dtype)
    system = Optimality(result)
    wide, reg = system.result, result.reg
    u, v = (xp.astype(bare(w), wide.f.dtype, copy=False) for w in (u, v))
    u, v = xp.where(wide.a > 0, u, 0.0), xp.where(wide.b > 0, v, 0.0)
    # The gauge moves with the weights and the potentials: its share makes sum u = sum v.
    k = 0.5 * (xp.sum(u) - xp.sum(v)) / xp.sum(wide.a)
    f, g = centred_potentials(wide)
    u, v = u - k * wide.a, v + k * wide.b
    rows, columns = system.per_row(u), system.per_column(v)
    t = system.solve(rows, columns, rtol, maxiter)
    # Of s and of u / a only the difference is needed, which stays finite where the weight is zero.
    from_t = -system.forward(t)
    s = rows + from_t
    from_s = -system.backward(s)
    t = columns + from_s

    def change(tile: Tile, plan: Array) -> Array:
        return s[tile.start : tile.stop][:, None] + t[None, :]

    explicit = (xp.sum(u * finite(f, xp)) + xp.sum(v * finite(g, xp))) / reg
    return system.answer(names, reg * from_t - k * f, reg * from_s + k * g, change, explicit)


class SharpCost(NamedTuple):
    """The cost ``<C, P>`` of an entropic plan, and its derivatives by name."""

    value: float
    gradients: dict[str, Array]


def sharp_cost(
    result: TransportResult,
    wrt: str | Sequence[str] | None = None,
    *,
    rtol: float | None = None,
    maxiter: int | None = None,
) -> SharpCost:
    """The transport cost ``<C, P>`` without the regularisation's share, and its derivatives.

    Parameters
    ----------
    result, wrt, rtol, maxiter
        As for `plan_vjp`.

    Returns
    -------
    SharpCost
        ``value`` and ``gradients``, the latter as of `plan_vjp` with ``W = C`` and ``P`` added to the derivative by the cost.

    Raises
    ------
    InputError
        A bad name.

    References
    ----------
    G. Luise, A. Rudi, M. Pontil, C. Ciliberto, Differential properties of Sinkhorn approximation for learning with
    Wasserstein distance, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import sinkhorn
    >>> from xpsolve.solvers.ot.implicit import sharp_cost
    >>> value, gradient = sharp_cost(sinkhorn(np.asarray([[0.0, 1.0], [1.0, 0.0]]), reg=0.5, tol=1e-12), "reg")
    >>> round(value, 4), round(float(gradient["reg"]), 4)
    (0.1192, 0.42)
    """
    names = _regular_names(wrt, result)
    system = Optimality(result)
    rows, columns, weight = system.averages(_finite_costs(result))
    t = system.solve(rows, columns, rtol, maxiter)
    s, t = system.back(rows, columns, t)

    def change(tile: Tile, plan: Array) -> Array:
        return (s[tile.start : tile.stop][:, None] + t[None, :] - weight(tile)) / result.reg

    return SharpCost(result.transport_cost, system.answer(names, s, t, change, direct=1.0))


def _regular_names(wrt: str | Sequence[str] | None, result: TransportResult) -> tuple[str, ...]:
    if isinstance(result, ExactResult):
        raise InputError("result is an exact plan, which has no derivative; solve the problem with a regularisation")
    if isinstance(result, UnbalancedResult):
        raise InputError(
            "result must be of balanced transport: the plan of unbalanced transport obeys other conditions, whose derivative "
            "is not provided; gradients differentiates its value"
        )
    return check_names(wrt, result)


def _finite_costs(result: TransportResult) -> Callable[[Tile], Array]:
    xp = result.geometry.xp
    return lambda tile: xp.where(xp.isfinite(tile.cost), tile.cost, 0.0)

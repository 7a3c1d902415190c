"""Unbalanced and semi-unbalanced entropic transport: marginals relaxed by KL terms (Chizat et al. 2018; Liero et al. 2018).

minimise  <C, P> + reg KL(P | a b^T) + reg_a KL(P 1 | a) + reg_b KL(P^T 1 | b)   over  P >= 0

by Sinkhorn's iteration with the translation-invariant step (Sejourne, Vialard, Peyre 2022), or by a truncated Newton method on
the semi-dual, where the second potential has been maximised out.
"""

from __future__ import annotations

import math

from ...backends.namespace import Array
from ...backends.validation import check_choice
from ..iterate import Callback, LoopOptions, warn_unless_converged
from .autograd import bare, detached, with_gradient
from .geometry import Geometry
from .unbalanced_newton import solve_newton
from .unbalanced_problem import UnbalancedResult, prepare
from .unbalanced_sinkhorn import solve_sinkhorn

_METHODS = ("auto", "sinkhorn", "newton")


def unbalanced(
    cost: Array | Geometry,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    reg_a: float,
    reg_b: float,
    method: str = "auto",
    tol: float | None = None,
    maxiter: int = 10_000,
    x0: tuple[Array, Array] | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> UnbalancedResult:
    """Entropic transport with relaxed marginals: ``min <C, P> + reg KL(P|ab) + reg_a KL(P1|a) + reg_b KL(P'1|b)``.

    ``KL(p|q) = sum p log(p / q) - p + q``; the plan is ``a_i b_j exp((f_i + g_j - C_ij) / reg)``, and at the optimum its
    marginals are ``a exp(-f / reg_a)`` and ``b exp(-g / reg_b)``.

    Parameters
    ----------
    cost : array (n, m), PointCloud or Grid
        A cost matrix (plus infinity forbids a pair), or two point clouds or a grid, whose costs are never stored.
    a, b : array (n,), (m,), optional
        Non-negative weights of any masses; default uniform of mass one.
    reg : float
        Entropic regularisation, in the units of the cost.
    reg_a, reg_b : float
        Price of leaving the marginals ``a`` and ``b``, in the units of the cost; ``inf`` holds a marginal exactly (one
        infinite: semi-unbalanced; both: balanced, which needs equal masses).
    method : {"auto", "sinkhorn", "newton"}
        ``"auto"`` takes Newton when a relaxation is above ten times ``reg``, where Sinkhorn's contraction is slow.
    tol : float, optional
        Bound on the L1 violation of the two optimality conditions on the marginals, relative to the mean mass of ``a`` and
        ``b``; default 1e-6, in float32 1e-4.
    maxiter : int
        Most iterations (of Newton: steps and starts of levels, over all levels of its annealing).
    x0 : (f, g) or an earlier result, optional
        Potentials to start from; Newton then starts at ``reg`` without annealing.
    callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    UnbalancedResult
        Potentials, dual value, primal value and gap, mass, the plan as an operator. Where a torch input (cost, points,
        weights, ``reg``, ``reg_a`` or ``reg_b``) requires grad, ``value`` is a tensor that carries it.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The optimality conditions are not within ``tol``.

    References
    ----------
    L. Chizat, G. Peyre, B. Schmitzer, F.-X. Vialard, Scaling algorithms for unbalanced transport problems, 2018. T. Sejourne,
    F.-X. Vialard, G. Peyre, Faster unbalanced optimal transport: translation invariant Sinkhorn, 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.unbalanced import unbalanced
    >>> C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    >>> result = unbalanced(C, np.asarray([1.0, 3.0]), np.ones(2), reg=0.1, reg_a=1.0, reg_b=1.0, tol=1e-10)
    >>> round(result.mass, 4), bool(abs(result.gap) < 1e-8)
    (2.7791, True)
    """
    given, relaxations = (cost, a, b, reg), {"reg_a": reg_a, "reg_b": reg_b}
    cost, a, b = detached(cost, a, b)
    problem = prepare(cost, a, b, bare(reg), bare(reg_a), bare(reg_b), tol)
    check_choice(method, "method", _METHODS)
    why = ""
    if method == "auto":
        finite = [r for r in (problem.reg_a, problem.reg_b) if r < math.inf]
        method = "newton" if max(finite, default=0.0) > 10 * problem.reg else "sinkhorn"
        why = "a weak relaxation" if method == "newton" else "a contraction that is fast"
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    start = None if x0 is None else problem.checked(x0)
    solve = solve_newton if method == "newton" else solve_sinkhorn
    result = solve(problem, options, start, why)
    warn_unless_converged(result, "unbalanced")
    return with_gradient(result, *given, **relaxations)

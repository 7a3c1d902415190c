"""Entropic optimal transport by annealed truncated Newton steps on the semi-dual (ASN).

Maximises ``D(F) = <a, F> + <b, G(F)>``, ``G(F)`` the exact column update, down a ladder of regularisations: annealing with
extrapolated starts, inexact Newton steps by conjugate gradients (Kemertas, Farahmand and Jepson 2025), damping in proportion
to the error (Tang and Qiu 2024), Sinkhorn steps where the quadratic model cannot be trusted.
"""

from __future__ import annotations

from ...backends.namespace import Array
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from .autograd import bare, detached, with_gradient
from .geometry import Dense
from .newton_levels import Annealed, LevelState
from .problem import prepare
from .result import TransportResult
from .support import support


def newton(
    cost: Array | Dense,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 5000,
    x0: tuple[Array, Array] | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> TransportResult:
    """Entropic optimal transport at weak regularisation: ``min <C, P> + reg KL(P | a b^T)`` with marginals ``a`` and ``b``.

    The regularisation is lowered in steps, and at each the semi-dual ``D(F) = <a, F> + <b, G(F)>`` is maximised by truncated
    Newton steps. The plan is stored once; a Newton step costs matrix-vector products with it, and only a new level of
    regularisation, or potentials that have moved far, cost a pass of exponentials. Memory: twice the cost matrix.

    Parameters
    ----------
    cost : array (n, m)
        A cost matrix; plus infinity forbids a pair.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform. Zero weights are legal.
    reg : float
        Regularisation in the units of the cost.
    tol : float, optional
        Bound on the L1 violation of both marginals, relative to the mass; default 1e-6, in float32 1e-4.
    maxiter : int
        Most steps, over all levels: Newton steps and Sinkhorn steps.
    x0 : (f, g) or an earlier result, optional
        Potentials to start from; if they are good, no annealing takes place.
    callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    TransportResult
        ``evaluations`` counts ``exp_passes`` (exponentials of the whole matrix), ``newton`` and ``sinkhorn`` steps, ``cg``
        iterations, ``evaluations`` of the semi-dual, and ``levels`` of regularisation.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The marginals are not within ``tol``.

    References
    ----------
    M. Kemertas, A.-m. Farahmand, A. D. Jepson, A truncated Newton method for optimal transport, ICLR 2025.
    B. Schmitzer, Stabilized sparse scaling algorithms for entropy regularized transport problems, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.newton import newton
    >>> C = np.random.default_rng(0).random((50, 50))
    >>> result = newton(C, reg=1e-4, tol=1e-10)
    >>> result.converged, result.residual < 1e-10
    (True, True)
    """
    given = cost, a, b, reg
    (cost, a, b), reg = detached(cost, a, b), bare(reg)
    problem = prepare(cost, a, b, reg=reg, tol=tol)
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    method = Annealed(support(problem))

    def finish(outcome: Outcome[LevelState]) -> TransportResult:
        F, G = method.potentials(outcome.state)
        return problem.result(F, G, method="newton", evaluations=method.counts(), **outcome.fields())

    start = method.start(x0)
    outcome = iterate(method, start, tolerance=problem.tolerance, options=options, on_device=problem.a, finish=finish)
    result = finish(outcome)
    warn_unless_converged(result, "newton")
    return with_gradient(result, *given)

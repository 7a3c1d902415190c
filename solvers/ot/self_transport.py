"""Entropic transport of a measure onto itself, by the averaged symmetric iteration ``f <- (f + T f) / 2``.

One potential solves the problem when the cost is symmetric, and the averaged fixed point contracts by two or better whatever
the regularisation, wherever the kernel ``exp(-C / reg)`` is positive definite (Knight, Ruiz and Ucar 2014; Feydy et al. 2019).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array, array_namespace, is_array
from ...backends.transfer import host_bool, host_float
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from .autograd import bare, detached, with_gradient
from .geometry import Dense, PointCloud
from .problem import Problem, finite, potential, prepare
from .result import TransportResult


def self_transport(
    cost: Array | Dense | PointCloud,
    a: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 1000,
    x0: Array | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> TransportResult:
    """Entropic transport of ``a`` onto itself: ``min <C, P> + reg KL(P | a a^T)`` with both marginals ``a``.

    Parameters
    ----------
    cost : array (n, n) or PointCloud
        A symmetric cost matrix, or a cloud whose two point sets are one (an array (n, n) is always a matrix).
    a : array (n,), optional
        Non-negative weights; default uniform.
    reg : float
        Regularisation in the units of the cost.
    tol : float, optional
        Bound on the L1 violation of both marginals, relative to the mass; default 1e-6, in float32 1e-4.
    maxiter : int
        Most iterations, each one pass over the pairs.
    x0 : array (n,), optional
        Potential to start from.
    callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    TransportResult
        With ``f`` equal to ``g``; scaled to the exact mass, so that ``value`` is wrong only by the square of the residual.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; a cost that is not symmetric.

    Warns
    -----
    ConvergenceWarning
        The marginals are not within ``tol``.

    References
    ----------
    P. Knight, D. Ruiz, B. Ucar, A symmetry preserving algorithm for matrix scaling, 2014. J. Feydy et al., Interpolating
    between optimal transport and MMD using Sinkhorn divergences, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.self_transport import self_transport
    >>> result = self_transport(np.asarray([[0.0, 1.0], [1.0, 0.0]]), reg=0.5)
    >>> (result.plan @ np.eye(2)).round(4).tolist()
    [[0.4404, 0.0596], [0.0596, 0.4404]]
    """
    given = cost, a, a, reg
    check_symmetric(cost)
    (cost, a, _), reg = detached(cost, a, a), bare(reg)
    problem = prepare(cost, a, a, reg=reg, tol=tol)
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    result = solve_self(problem, options, x0)
    warn_unless_converged(result, "self_transport")
    return with_gradient(result, *given)


def check_symmetric(cost: Array | Dense | PointCloud, name: str = "cost") -> None:
    """Require a symmetric matrix, or a cloud onto itself."""
    if isinstance(cost, PointCloud):
        xp, x, y = cost.xp, cost.x, cost.y
        if x is not y and not (x.shape == y.shape and host_bool(xp.all(x == y))):
            raise InputError(f"{name} is a cloud of two point sets; the transport of a measure onto itself needs one")
        return
    C = cost.C if isinstance(cost, Dense) else cost
    if not is_array(C):
        return  # Dense says what is wrong with it
    xp = array_namespace(**{name: C})
    if C.ndim != 2 or C.shape[0] != C.shape[1]:
        raise InputError(f"{name} has shape {tuple(C.shape)}, expected a square matrix")
    # Costs come from distances, whose rounding need not be symmetric.
    off = xp.max(xp.abs(finite(C, xp) - finite(C, xp).T))
    same = xp.all(xp.isfinite(C) == xp.isfinite(C).T)
    bound = 1e-4 if C.dtype == xp.float32 else 1e-10
    if not host_bool(same & (off <= bound * (xp.max(xp.abs(finite(C, xp))) + 1e-300))):
        raise InputError(f"{name} is not symmetric; use sinkhorn")


def solve_self(problem: Problem, options: LoopOptions, x0: Array | None = None) -> TransportResult:
    """The averaged iteration on a checked problem, without a warning."""
    method = _Averaged(problem)
    phi = problem.xp.zeros_like(problem.a)
    if x0 is not None:
        phi = finite(potential(x0, "x0", problem.geometry.shape[0], problem.geometry), problem.xp) / problem.reg

    def finish(outcome: Outcome[_State]) -> TransportResult:
        F = problem.log_a + outcome.state.phi
        return problem.result(F, F, method="symmetric", evaluations={"passes": method.passes}, **outcome.fields())

    start = method.start(phi)
    outcome = iterate(method, start, tolerance=problem.tolerance, options=options, on_device=problem.a, finish=finish)
    return finish(outcome)


class _State(NamedTuple):
    """``phi = f / reg`` and its image ``T phi = -log sum_j a_j exp(phi_j - C_ij / reg)``."""

    phi: Array
    image: Array


class _Averaged:
    def __init__(self, problem: Problem) -> None:
        self.kernel, self.a, self.log_a = problem.geometry.kernel(problem.reg), problem.a, problem.log_a
        self.mass, self.xp, self.passes = problem.mass, problem.xp, 0

    def start(self, phi: Array) -> _State:
        xp = self.xp
        logs = self.kernel.rows(self.log_a + phi, None)
        self.passes += 1
        # A point that reaches nobody keeps a weight that no plan can serve; its potential stays where it is.
        return _State(phi, xp.where(xp.isfinite(logs), -finite(logs, xp), phi))

    def step(self, state: _State) -> _State:
        return self.start(0.5 * (state.phi + state.image))

    def _rows(self, state: _State) -> Array:
        return self.a * self.xp.exp(state.phi - state.image)

    def error(self, state: _State) -> Array:
        return 2.0 * self.xp.sum(self.xp.abs(self._rows(state) - self.a))

    def verify(self, state: _State) -> tuple[_State, float]:
        state = self.start(state.phi)
        # The exact mass makes <a, f> + <a, f> the dual value itself, whose error is of second order.
        mass = host_float(self.xp.sum(self._rows(state)))
        if not (mass > 0 and math.isfinite(mass)):
            return state, math.nan
        shift = 0.5 * math.log(self.mass / mass)
        state = _State(state.phi + shift, state.image - shift)
        return state, host_float(self.error(state))

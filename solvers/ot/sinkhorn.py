"""Entropic optimal transport by Sinkhorn's iteration in the log domain (Cuturi 2013; Peyre and Cuturi 2019, section 4.4).

minimise  <C, P> + reg KL(P | a b^T)   over  P >= 0, P 1 = a, P^T 1 = b
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array
from ...backends.transfer import host_float
from ...backends.validation import check_choice, check_scalar
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ..result import Status
from .anderson import Anderson
from .autograd import bare, detached, with_gradient
from .coarse import coarse_start, wants_coarse
from .geometry import Geometry
from .problem import Problem, finite, prepare
from .relaxation import LOG_BEYOND, Relaxation
from .result import TransportResult


def sinkhorn(
    cost: Array | Geometry,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 10_000,
    x0: tuple[Array, Array] | None = None,
    omega: float | str = 1.0,
    acceleration: str | None = None,
    schedule: Sequence[float] | str | None = None,
    coarse: bool | str = "auto",
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
    rng: Any = 0,
) -> TransportResult:
    """Entropic optimal transport: ``min <C, P> + reg KL(P | a b^T)`` with marginals ``a`` and ``b``.

    Parameters
    ----------
    cost : array (n, m), PointCloud or Grid
        A cost matrix (plus infinity forbids a pair), or two point clouds or a grid, whose costs are never stored.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform. Zero weights are legal.
    reg : float
        Regularisation in the units of the cost (POT's ``reg``, OTT's epsilon, GeomLoss's ``blur ** p``).
    tol : float, optional
        Bound on the L1 violation of both marginals, relative to the mass; default 1e-6, in float32 1e-4.
    maxiter : int
        Most iterations, each one pass over the rows and one over the columns.
    x0 : (f, g) or an earlier result, optional
        Potentials to start from.
    omega : float or "auto"
        Over-relaxation in [1, 2); 1 is Sinkhorn's own step. ``"auto"`` starts with that and tunes itself by the observed rate
        (see `relaxation`): far fewer iterations where plain Sinkhorn needs hundreds.
    acceleration : {None, "anderson"}
        Anderson acceleration of the column potential, with a memory of five and a plain step whenever the residual grows.
    schedule : sequence of float or "auto", optional
        Regularisations, decreasing, that are solved roughly (to 1e-2) on the way to ``reg``; ``"auto"`` goes down by factors of
        four from a sixteenth of the largest cost.
    coarse : bool or "auto"
        Start large clouds from the solution for a random subsample, extended by one soft c-transform.
    callback, check_every, progress, time_limit
        See `LoopOptions`.
    rng : int or Generator
        Draws the subsample.

    Returns
    -------
    TransportResult
        Potentials, value, the plan as an operator, and the transport of points.

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
    M. Cuturi, Sinkhorn distances, 2013. G. Peyre, M. Cuturi, Computational optimal transport, 2019. A. Thibault, L. Chizat,
    C. Dossal, N. Papadakis, Overrelaxed Sinkhorn-Knopp algorithm for regularized optimal transport, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import sinkhorn
    >>> C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    >>> result = sinkhorn(C, reg=0.5)
    >>> (result.plan @ np.eye(2)).round(4).tolist()
    [[0.4404, 0.0596], [0.0596, 0.4404]]
    """
    given = cost, a, b, reg
    (cost, a, b), reg = detached(cost, a, b), bare(reg)
    problem = prepare(cost, a, b, reg=reg, tol=tol)
    relaxation = Relaxation.of(omega)
    if not isinstance(coarse, bool):
        check_choice(coarse, "coarse", ("auto",))
    if acceleration is not None:
        check_choice(acceleration, "acceleration", ("anderson",))
        if relaxation != Relaxation.of(1.0):
            raise InputError("omega must be 1 where acceleration is asked for: they are two ways to the same end")
    levels = _levels(problem, schedule)
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    method, rough = _Sinkhorn(problem, relaxation, acceleration), _Rough(options)
    if x0 is not None:
        G = problem.scaled(x0)[1]
    elif levels:
        G = _annealed(problem, levels, relaxation, rough)
        method.passes = rough.passes
    elif wants_coarse(problem, coarse):
        logs = coarse_start(problem, rng, lambda small: rough.solve(small, small.log_b, Relaxation.of(1.0), 1000).F)
        G = method.update(None, problem.log_b, logs, 1.0)
    else:
        G = problem.log_b

    def finish(outcome: Outcome[_State]) -> TransportResult:
        state = outcome.state
        return problem.result(
            state.F, state.G, method="sinkhorn", evaluations={"passes": method.passes}, **outcome.fields()
        )

    start = method.start(G)
    if rough.interrupted:
        start, residual = method.verify(start)
        outcome = Outcome(start, Status.INTERRUPTED, 0, residual, problem.tolerance, (residual,))
    else:
        limits = replace(options, time_limit=rough.left())
        outcome = iterate(
            method, start, tolerance=problem.tolerance, options=limits, on_device=problem.a, finish=finish
        )
    result = finish(outcome)
    warn_unless_converged(result, "sinkhorn")
    return with_gradient(result, *given)


def _levels(problem: Problem, schedule: Sequence[float] | str | None) -> list[float]:
    """Regularisations above the wanted one, decreasing."""
    if schedule is None:
        return []
    if isinstance(schedule, str):
        check_choice(schedule, "schedule", ("auto",))
        levels = [problem.geometry.largest() / 16.0]
        while levels[-1] > problem.reg:
            levels.append(levels[-1] / 4.0)
        return levels[:-1]
    levels = [check_scalar(reg, "schedule", positive=True) for reg in schedule]
    if any(later >= earlier for earlier, later in pairwise(levels)):
        raise InputError(f"schedule must decrease, got {levels}")
    return [reg for reg in levels if reg > problem.reg]


class _Rough:
    """Rough solutions on the way to a start: what they cost, within the limits of the whole run, and how they ended."""

    def __init__(self, options: LoopOptions) -> None:
        self.most = options.maxiter
        self.until = None if options.time_limit is None else time.monotonic() + options.time_limit
        self.passes, self.interrupted = 0, False

    def left(self) -> float | None:
        """Seconds that are left; never quite none, so that a loop may say it."""
        return None if self.until is None else max(self.until - time.monotonic(), 1e-9)

    @property
    def over(self) -> bool:
        """Whether there is to be no further rough solution."""
        return self.interrupted or (self.until is not None and time.monotonic() > self.until)

    def solve(self, problem: Problem, G: Array, relaxation: Relaxation, maxiter: int) -> _State:
        """Sinkhorn's iteration from the scaled column potential ``G``."""
        method = _Sinkhorn(problem, relaxation)
        limits = LoopOptions(maxiter=min(maxiter, self.most), check_every=5, time_limit=self.left())
        outcome = iterate(method, method.start(G), tolerance=problem.tolerance, options=limits, on_device=problem.a)
        self.passes += method.passes
        self.interrupted = outcome.status is Status.INTERRUPTED
        return outcome.state


def _annealed(problem: Problem, levels: list[float], relaxation: Relaxation, rough: _Rough) -> Array:
    """Scaled column potential for ``problem`` from rough solutions at the larger regularisations."""
    xp, log_b = problem.xp, problem.log_b
    g = xp.zeros_like(log_b)
    for reg in levels:
        state = rough.solve(replace(problem, reg=reg, tol=1e-2), log_b + g / reg, relaxation, 200)
        g = (finite(state.G, xp) - finite(log_b, xp)) * reg
        if rough.over:
            break
    return log_b + g / problem.reg


# Differences that Anderson acceleration combines.
_MEMORY = 5


class _State(NamedTuple):
    """Scaled potentials after a column update; ``rows_i = log sum_j exp(G_j - C_ij / reg)``, ``columns`` likewise of ``F``."""

    F: Array
    G: Array
    rows: Array
    columns: Array
    relaxation: Relaxation


class _Sinkhorn:
    """After the column update the columns are exact; the row sums come with the next row pass, at no extra cost."""

    def __init__(self, problem: Problem, relaxation: Relaxation, acceleration: str | None = None) -> None:
        self.kernel, self.a, self.b = problem.geometry.kernel(problem.reg), problem.a, problem.b
        self.log_a, self.log_b, self.xp = problem.log_a, problem.log_b, problem.xp
        self.relaxation = relaxation
        self.anderson = Anderson(_MEMORY, problem.xp) if acceleration else None
        # Whether the columns of a state may be wrong too.
        self.both = relaxation.tuned or relaxation.omega != 1.0 or self.anderson is not None
        # Neither is monotone.
        self.keep_best = self.both
        self.passes = 0

    def start(self, G: Array) -> _State:
        rows = self.kernel.rows(G, None)
        F = self.update(None, self.log_a, rows, 1.0)
        columns = self.kernel.columns(F, None)
        G = self.update(None, self.log_b, columns, 1.0)
        self.passes += 3
        return _State(F, G, self.kernel.rows(G, rows), columns, self.relaxation)

    def update(self, old: Array | None, log_weight: Array, logs: Array, omega: float) -> Array:
        xp = self.xp
        # A point that reaches nobody (all its costs infinite, or its partners without weight) keeps no mass.
        new = xp.where(xp.isfinite(logs) & xp.isfinite(log_weight), log_weight - finite(logs, xp), -math.inf)
        if old is None or omega == 1.0:
            return new
        both = xp.isfinite(old) & xp.isfinite(new)
        beyond = (omega - 1.0) * (finite(new, xp) - finite(old, xp))
        beyond = xp.minimum(xp.maximum(beyond, -LOG_BEYOND), LOG_BEYOND)
        return xp.where(both, finite(new, xp) + beyond, new)

    def step(self, state: _State) -> _State:
        relaxation = state.relaxation
        F = self.update(state.F, self.log_a, state.rows, relaxation.omega)
        columns = self.kernel.columns(F, state.columns)
        G = self.update(state.G, self.log_b, columns, relaxation.omega)
        if self.anderson is not None:
            xp = self.xp
            both = xp.isfinite(state.G) & xp.isfinite(G)
            mixed = self.anderson.next(xp.where(both, state.G, 0.0), xp.where(both, G, 0.0))
            G = xp.where(both, mixed, G)
        self.passes += 2
        new = _State(F, G, self.kernel.rows(G, state.rows), columns, relaxation)
        return new._replace(relaxation=relaxation.seen(host_float(self.error(new)) if relaxation.due else None))

    def error(self, state: _State) -> Array:
        xp = self.xp
        violation = xp.sum(xp.abs(xp.exp(state.F + state.rows) - self.a))
        if self.both:
            violation = violation + xp.sum(xp.abs(xp.exp(state.G + state.columns) - self.b))
        return violation

    def verify(self, state: _State) -> tuple[_State, float]:
        xp = self.xp
        rows, columns = self.kernel.rows(state.G, None), self.kernel.columns(state.F, None)
        self.passes += 2
        violation = xp.sum(xp.abs(xp.exp(state.F + rows) - self.a)) + xp.sum(xp.abs(xp.exp(state.G + columns) - self.b))
        return state._replace(rows=rows, columns=columns), host_float(violation)

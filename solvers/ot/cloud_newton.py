"""Sparse Newton steps for two point clouds whose costs are never stored.

The semi-dual of the entropic problem is maximised by a truncated Newton method. A step costs two passes over the pairs, as
much as one of Sinkhorn's: one gives the column potential, the objective and so the length of the step; the other the row
sums and, on the way, those entries of the plan that are not negligible at the present error. Conjugate gradients run on these
alone. Combines the sparse Newton stage of Tang et al. (2024) with the semi-dual, chi-square-guarded Newton method of
Kemertas, Farahmand and Jepson (2025).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ...backends.errors import BackendError
from ...backends.namespace import Array, device
from ...backends.random import Sampler
from ...backends.validation import check_array, check_choice, check_count
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ..result import Status
from .cloud_step import CloudNewton, CloudState
from .geometry import PointCloud
from .problem import Problem, finite, log_weights, prepare
from .result import TransportResult
from .sinkhorn import sinkhorn

# The subsample of a coarse start, the factor of its regularisation, and how well it is solved.
_SHARE, _FEWEST, _SOFTER, _ROUGH = 8, 500, 4.0, 1e-3
# Pairs from which a coarse start pays; pairs of a plan that is always kept, however dense.
_WORTH_COARSE, _ALWAYS_KEPT = 1_000_000, 100_000
# Annealing: the first regularisation over the largest cost, the factor between levels, their tolerance and limits.
_FIRST, _FACTOR, _LEVEL_TOL, _LEVEL_STEPS, _MOST_LEVELS = 16.0, 4.0, 1e-2, 25, 40


def cloud_newton(
    cost: PointCloud,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 100,
    x0: tuple[Array, Array] | None = None,
    coarse: bool | str = "auto",
    cap: int = 300,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
    rng: Any = 0,
) -> TransportResult:
    """Entropic optimal transport between two point clouds to high accuracy, in a few passes and O(n + m) memory.

    Parameters
    ----------
    cost : PointCloud
        Points (n, d) and (m, d) and the cost between them.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform. Points without weight are left out of the work.
    reg : float
        Regularisation in the units of the cost.
    tol : float, optional
        Bound on the L1 violation of both marginals, relative to the mass; default 1e-6, in float32 1e-4.
    maxiter : int
        Most Newton or Sinkhorn steps at the wanted regularisation, two passes over the pairs each and one more for each
        shortened step.
    x0 : (f, g), optional
        Potentials to start from.
    coarse : bool or "auto"
        Start from the solution of a random subsample at a larger regularisation; ``"auto"`` for large clouds. Otherwise
        the whole problem is solved roughly at a decreasing sequence of regularisations.
    cap : int
        Entries a row, on average, that are kept of the plan. A plan that has more is too dense for this method: it then takes
        Sinkhorn steps, and where that does not help leaves the rest to over-relaxed `sinkhorn`.
    callback, check_every, progress, time_limit
        See `LoopOptions`; of the run at the wanted regularisation.
    rng : int or Generator
        Draws the subsample.

    Returns
    -------
    TransportResult
        ``evaluations`` counts ``passes`` over all pairs (those of a subsample apart), ``matvec`` of conjugate gradients,
        ``newton`` and ``sinkhorn`` steps, and ``entries`` of the plan that were kept in the end.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The marginals are not within ``tol``.

    Notes
    -----
    In units of ``reg``, the semi-dual ``<a, F> + <b, G(F)>`` has the gradient ``a - P 1`` and the Hessian
    ``-(diag(P 1) - P diag(1/b) P^T)``. Entries below ``tau a_i / m`` are left out of it, ``tau`` being the square of the last
    error: what the step is expected to reach.

    References
    ----------
    X. Tang et al., Accelerating Sinkhorn algorithm with sparse Newton iterations, ICLR 2024. M. Kemertas, A. Farahmand,
    A. Jepson, A truncated Newton method for optimal transport, ICLR 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import PointCloud
    >>> from xpsolve.solvers.ot.cloud_newton import cloud_newton
    >>> x = np.linspace(0.0, 1.0, 50)[:, None]
    >>> result = cloud_newton(PointCloud(x, x + 1.0), reg=1e-3, tol=1e-10)
    >>> result.converged, float((result.transport() - x).mean().round(6))
    (True, 1.0)
    """
    if not isinstance(cost, PointCloud):
        raise BackendError(f"cost is a {type(cost).__name__}, expected a PointCloud; see newton for a cost matrix")
    whole = prepare(cost, a, b, reg=reg, tol=tol)
    check_count(cap, "cap")
    if not isinstance(coarse, bool):
        check_choice(coarse, "coarse", ("auto",))
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every or 1, progress=progress, time_limit=time_limit
    )
    problem, spread = _positive(whole)
    n, m = problem.geometry.shape
    method = _method(problem, cap)
    if x0 is not None:
        F = _within(whole.scaled(x0)[0], whole.a, n)
        # A start that knows only the columns, or nothing, is completed by a row update.
        check_array(F, "x0[0]", problem.xp, shape=(n,))
        state = method.start(F)
    elif coarse is True or (coarse == "auto" and n * m >= _WORTH_COARSE):
        state = method.start(_coarse(problem, cap, rng))
    else:
        state = method.start(_annealed(problem, method, cap))

    def finish(outcome: Outcome[CloudState]) -> TransportResult:
        s = outcome.state
        return whole.result(*spread(s.F, s.G), method="cloud_newton", evaluations=method.counts(), **outcome.fields())

    outcome = iterate(method, state, tolerance=problem.tolerance, options=options, on_device=whole.a, finish=finish)
    result = finish(outcome)
    if method.dense and not result.converged:
        return _by_sinkhorn(whole, result, options)
    warn_unless_converged(result, "cloud_newton")
    return result


def _method(problem: Problem, cap: int, patient: bool = False) -> CloudNewton:
    n, m = problem.geometry.shape
    return CloudNewton(problem, max(cap * n, min(n * m, _ALWAYS_KEPT)), patient)


def _by_sinkhorn(problem: Problem, reached: TransportResult, options: LoopOptions) -> TransportResult:
    """What is left of a problem whose plan is dense."""
    result = sinkhorn(
        problem.geometry, problem.a, problem.b, reg=problem.reg, tol=problem.tol, omega="auto",
        x0=(reached.f, reached.g), callback=options.callback, check_every=options.check_every,
        progress=options.progress, time_limit=options.time_limit,
    )  # fmt: skip
    counts = dict(reached.evaluations)
    counts["passes"] += result.evaluations["passes"]
    return dataclasses.replace(
        result,
        n_iter=reached.n_iter + result.n_iter,
        history=reached.history + result.history,
        evaluations=counts,
        method="cloud_newton",
        why="the plan has more entries than cap allows: over-relaxed Sinkhorn went on from there",
    )


def _within(full: Array, weights: Array, n: int) -> Array:
    """The entries of positive weight."""
    return full if n == full.shape[0] else full[weights > 0]


def _positive(problem: Problem) -> tuple[Problem, Any]:
    """The problem without the points of weight zero, and what puts minus infinities in their places again."""
    xp, cloud = problem.xp, problem.geometry
    assert isinstance(cloud, PointCloud)
    rows, columns = (xp.nonzero(w > 0)[0] for w in (problem.a, problem.b))
    if (rows.shape[0], columns.shape[0]) == cloud.shape:
        return problem, lambda F, G: (F, G)
    a, b = xp.take(problem.a, rows, axis=0), xp.take(problem.b, columns, axis=0)
    small = dataclasses.replace(
        problem, geometry=cloud.subsample(rows, columns), a=a, b=b, log_a=log_weights(a, xp), log_b=log_weights(b, xp)
    )

    def one(values: Array, w: Array) -> Array:
        place = xp.cumulative_sum(xp.astype(w > 0, xp.int64)) - 1
        return xp.where(w > 0, xp.take(values, xp.where(place < 0, 0, place), axis=0), -xp.inf)

    return small, lambda F, G: (one(F, problem.a), one(G, problem.b))


def _coarse(problem: Problem, cap: int, rng: Any) -> Array:
    """Scaled row potential from a subsample at a larger regularisation, extended by one soft c-transform."""
    xp, cloud = problem.xp, problem.geometry
    assert isinstance(cloud, PointCloud)
    n, m = cloud.shape
    sampler = Sampler(rng, xp=xp, device=device(cloud.x))
    rows, columns = (sampler.choice(k, min(k, max(_FEWEST, k // _SHARE))) for k in (n, m))
    a, b = xp.take(problem.a, rows, axis=0), xp.take(problem.b, columns, axis=0)
    a, b = a / xp.sum(a), b / xp.sum(b)
    softer = _SOFTER * problem.reg
    few = Problem(cloud.subsample(rows, columns), a, b, log_weights(a, xp), log_weights(b, xp), softer, 1.0, _ROUGH, xp)
    method = _method(few, cap, patient=True)
    limits = LoopOptions(maxiter=_LEVEL_STEPS, check_every=1)
    state = iterate(
        method, method.start(_annealed(few, method, cap)), tolerance=_ROUGH, options=limits, on_device=a
    ).state
    # A potential of the KL gauge: the subsample's own weights must not enter.
    extended = cloud.subsample(xp.arange(n, device=device(cloud.x)), columns).pairs(cloud.x, softer).logsumexp(state.G)
    return problem.log_a - _SOFTER * extended


def _annealed(problem: Problem, final: CloudNewton, cap: int) -> Array:
    """Scaled row potential from rough solutions at decreasing regularisations, extrapolated linearly from one to the next.

    Every level begins with a row update, so that no row of its plan is empty. A level that takes too long is given up for
    one closer to the last.
    """
    xp, reg = problem.xp, problem.reg
    level, factor = max(problem.geometry.largest() / _FIRST, reg), _FACTOR
    g = g_before = xp.zeros_like(problem.b)
    solved = before = 0.0
    limits = LoopOptions(maxiter=_LEVEL_STEPS, check_every=1)
    for _ in range(_MOST_LEVELS):
        if level <= reg * (1 + 1e-12):
            break
        here = dataclasses.replace(problem, reg=level, tol=_LEVEL_TOL)
        method = _method(here, cap, patient=True)
        outcome = iterate(
            method,
            method.start(method.row_update(problem.log_b + _extrapolated(g, g_before, solved, before, level) / level)),
            tolerance=here.tolerance,
            options=limits,
            on_device=problem.a,
        )
        if outcome.status is Status.INTERRUPTED:
            # There is nothing yet to be returned.
            raise KeyboardInterrupt
        final.passes += method.passes
        final.matvecs += method.matvecs
        accepted = outcome.residual <= here.tolerance
        if not accepted and solved and factor > 1.3:
            factor = max(factor**0.5, 1.3)
        else:
            new = (finite(outcome.state.G, xp) - problem.log_b) * level
            g, g_before, solved, before = new - xp.sum(problem.b * new) / xp.sum(problem.b), g, level, solved
            factor = min(_FACTOR, factor**1.5)
        level = max((solved or level) / factor, reg)
    return final.row_update(problem.log_b + _extrapolated(g, g_before, solved, before, reg) / reg)


def _extrapolated(g: Array, g_before: Array, solved: float, before: float, level: float) -> Array:
    """``g`` at the regularisation ``level``, from those at ``solved`` and ``before``; both have mean zero."""
    return g if not before else g + (level - solved) / (solved - before) * (g - g_before)

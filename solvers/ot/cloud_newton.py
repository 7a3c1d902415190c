"""Sparse Newton steps for two point clouds whose costs are never stored.

The semi-dual of the entropic problem is maximised by a truncated Newton method. A step costs two passes over the pairs, as
much as one of Sinkhorn's: one gives the column potential, the objective and so the length of the step; the other the row
sums and, on the way, those entries of the plan that are not negligible at the present error. Conjugate gradients run on these
alone. Combines the sparse Newton stage of Tang et al. (2024) with the semi-dual, chi-square-guarded Newton method of
Kemertas, Farahmand and Jepson (2025).
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from ...backends.errors import BackendError
from ...backends.namespace import Array
from ...backends.validation import check_array, check_choice, check_count
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from .autograd import bare, detached, with_gradient
from .cloud_levels import Levels, LevelState
from .geometry import PointCloud
from .problem import Problem, log_weights, prepare
from .result import TransportResult
from .sinkhorn import sinkhorn

# Pairs from which a coarse start pays.
_WORTH_COARSE = 1_000_000


def cloud_newton(
    cost: PointCloud,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 5000,
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
        Most steps, over all levels: Newton steps, Sinkhorn steps and the starts of levels. A step takes two passes over the
        pairs, and one more each time it is shortened.
    x0 : (f, g) or an earlier result, optional
        Potentials to start from.
    coarse : bool or "auto"
        Start from the solution of a random subsample at a larger regularisation; ``"auto"`` for large clouds. Otherwise
        the whole problem is solved roughly at a decreasing sequence of regularisations.
    cap : int
        Entries a row, on average, that are kept of the plan. A plan that has more is too dense for this method: it then takes
        Sinkhorn steps, and where that does not help leaves the rest to over-relaxed `sinkhorn`.
    callback, check_every, progress, time_limit
        See `LoopOptions`; of all levels. On the way the callback's ``state.F``, ``state.G`` are scaled potentials at
        ``state.reg``, of the subsample where there is one. Wherever the run ends, the result holds potentials of the whole
        problem at ``reg``.
    rng : int or Generator
        Draws the subsample.

    Returns
    -------
    TransportResult
        ``evaluations`` counts, on all levels, ``passes`` over all pairs (those of a subsample apart), ``matvec`` of conjugate
        gradients, ``newton`` and ``sinkhorn`` steps, ``levels``, and ``entries`` of the plan that were kept in the end.

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
    given = cost, a, b, reg
    (cost, a, b), reg = detached(cost, a, b), bare(reg)
    whole = prepare(cost, a, b, reg=reg, tol=tol)
    check_count(cap, "cap")
    if not isinstance(coarse, bool):
        check_choice(coarse, "coarse", ("auto",))
    options = LoopOptions(
        maxiter=maxiter,
        callback=callback,
        check_every=1 if check_every is None else check_every,
        progress=progress,
        time_limit=time_limit,
    )
    began = time.monotonic()
    problem, spread = _positive(whole)
    n, m = problem.geometry.shape
    method = Levels(problem, cap)
    if x0 is not None:
        F = _within(whole.scaled(x0)[0], whole.a, n)
        check_array(F, "x0[0]", problem.xp, shape=(n,))
        state = method.enter_last(F)
    elif coarse is True or (coarse == "auto" and n * m >= _WORTH_COARSE):
        state = method.coarse(rng)
    else:
        state = method.annealed()

    def finish(outcome: Outcome[LevelState]) -> TransportResult:
        s = outcome.state
        return whole.result(*spread(s.F, s.G), method="cloud_newton", evaluations=method.counts(), **outcome.fields())

    outcome = iterate(method, state, tolerance=problem.tolerance, options=options, on_device=whole.a, finish=finish)
    result = finish(outcome)
    if method.dense and not result.converged:
        return with_gradient(_by_sinkhorn(whole, result, options, time.monotonic() - began), *given)
    warn_unless_converged(result, "cloud_newton")
    return with_gradient(result, *given)


def _by_sinkhorn(problem: Problem, reached: TransportResult, options: LoopOptions, spent: float) -> TransportResult:
    """What is left of a problem whose plan is dense, within what is left of the limits."""

    def joined(result: TransportResult) -> TransportResult:
        passes = reached.evaluations["passes"] + result.evaluations["passes"]
        return dataclasses.replace(
            result,
            n_iter=reached.n_iter + result.n_iter,
            history=reached.history + result.history,
            evaluations={**reached.evaluations, "passes": passes},
            method="cloud_newton",
            why="the plan has more entries than cap allows: over-relaxed Sinkhorn went on from there",
        )

    left = None if options.time_limit is None else max(options.time_limit - spent, 1e-9)
    try:
        result = sinkhorn(
            problem.geometry, problem.a, problem.b, reg=problem.reg, tol=problem.tol, omega="auto",
            maxiter=max(options.maxiter - reached.n_iter, 0), x0=(reached.f, reached.g), callback=options.callback,
            check_every=options.check_every, progress=options.progress, time_limit=left,
        )  # fmt: skip
    except Exception as err:
        if isinstance(getattr(err, "result", None), TransportResult):
            err.result = joined(err.result)  # type: ignore[attr-defined]
        raise
    return joined(result)


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

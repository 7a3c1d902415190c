"""A start for large clouds: the solution of a random subsample, carried over by one soft c-transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...backends.namespace import Array, device
from ...backends.random import Sampler
from ...backends.transfer import host_float
from .geometry import PointCloud
from .problem import Problem, log_weights

# A coarse start pays when a full pass costs far more than the whole coarse problem.
_COARSE_PAIRS = 4_000_000
_COARSE_POINTS = 1500


def wants_coarse(problem: Problem, coarse: bool | str) -> bool:
    """Whether a coarse start is asked for, or pays."""
    cloud = isinstance(problem.geometry, PointCloud)
    n, m = problem.geometry.shape
    return cloud and (coarse is True or (coarse == "auto" and n * m > _COARSE_PAIRS))


def coarse_start(problem: Problem, rng: Any, solve: Callable[[Problem], Array]) -> Array:
    """Scaled ``log sum_i exp(F_i - C_ij / reg)`` of the whole cloud, ``F`` from ``solve`` on the subsample.

    The column update of that is the start; where the subsample has no mass it is the weights' own logarithm.
    """
    cloud, xp, (n, m) = problem.geometry, problem.xp, problem.geometry.shape
    assert isinstance(cloud, PointCloud)
    sampler = Sampler(rng, xp=xp, device=device(cloud.x))
    rows = sampler.choice(n, min(n, _COARSE_POINTS))
    columns = sampler.choice(m, min(m, _COARSE_POINTS))
    a, b = xp.take(problem.a, rows, axis=0), xp.take(problem.b, columns, axis=0)
    sum_a, sum_b = host_float(xp.sum(a)), host_float(xp.sum(b))
    if not (sum_a > 0 and sum_b > 0):
        return xp.zeros_like(problem.b)
    a, b = a / sum_a, b / sum_b
    small = Problem(
        cloud.subsample(rows, columns), a, b, log_weights(a, xp), log_weights(b, xp), problem.reg, 1.0, problem.tol, xp
    )
    # F of the subsample, seen by every target point.
    return cloud.pairs(xp.take(cloud.x, rows, axis=0), problem.reg).T.logsumexp(solve(small))

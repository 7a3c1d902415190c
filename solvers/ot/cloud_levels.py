"""The way of `cloud_newton` down to the wanted regularisation: rough solutions at larger ones, of the cloud or of a subsample.

One state machine, so that the limits, the callback and an interrupt mean the same on every level: wherever a run ends, the
potentials of the level reached are brought to the wanted regularisation by one row and one column update.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from ...backends.namespace import Array, device
from ...backends.random import Sampler
from ..result import Status
from .cloud_step import CloudNewton, CloudState
from .geometry import PointCloud
from .problem import Problem, finite, log_weights

# The subsample of a coarse start, the factor of its regularisation, and how well it is solved.
_SHARE, _FEWEST, _SOFTER, _ROUGH = 8, 500, 4.0, 1e-3
# Pairs of a plan that is always kept, however dense.
_ALWAYS_KEPT = 100_000
# Annealing: the first regularisation over the largest cost, the factor between levels, their tolerance and limits.
_FIRST, _FACTOR, _LEAST_FACTOR, _LEVEL_TOL, _LEVEL_STEPS, _MOST_LEVELS = 16.0, 4.0, 1.3, 1e-2, 25, 40
# Steps on the last level without a gain of a tenth, after which the precision is exhausted.
_PATIENCE = 50


class LevelState(NamedTuple):
    """Scaled potentials and the regularisation they belong to (of the subsample at first, where there is one), and what is
    tested."""

    F: Array
    G: Array
    reg: float
    tested: float
    point: CloudState


class Levels:
    """A step is one of `CloudNewton` on the present level, or the start of the next level."""

    broken = Status.STAGNATED

    def __init__(self, problem: Problem, cap: int) -> None:
        self.problem, self.xp, self.cap = problem, problem.xp, cap
        # What is annealed: the problem itself, or a subsample of it (with these columns) at a softer regularisation.
        self.ladder = problem
        self.columns: Array | None = None
        self.last = self.method = _method(problem, cap)
        self.levels, self.left = 0, dict.fromkeys(("passes", "matvec", "newton", "sinkhorn"), 0)
        self.used, self.factor, self.accepted = 0, _FACTOR, _Accepted(None, None, 0.0, 0.0)
        self.best: LevelState | None = None
        self.lowest, self.waited = math.inf, 0

    @property
    def dense(self) -> bool:
        """Whether the plan has too many entries for this method."""
        return self.last.dense

    # -- beginnings --------------------------------------------------------------------------------------------------

    def annealed(self) -> LevelState:
        """From the largest regularisation."""
        xp, ladder = self.xp, self.ladder
        reg = max(ladder.geometry.largest() / _FIRST, ladder.reg)
        return self.enter(xp.zeros_like(ladder.b), reg)

    def coarse(self, rng: Any) -> LevelState:
        """From the largest regularisation, on a subsample."""
        xp, problem, cloud = self.xp, self.problem, self.problem.geometry
        assert isinstance(cloud, PointCloud)
        sampler = Sampler(rng, xp=xp, device=device(cloud.x))
        rows, self.columns = (sampler.choice(k, min(k, max(_FEWEST, k // _SHARE))) for k in cloud.shape)
        a, b = xp.take(problem.a, rows, axis=0), xp.take(problem.b, self.columns, axis=0)
        a, b = a / xp.sum(a), b / xp.sum(b)
        self.ladder = Problem(
            cloud.subsample(rows, self.columns), a, b, log_weights(a, xp), log_weights(b, xp),
            _SOFTER * problem.reg, 1.0, _ROUGH, xp,
        )  # fmt: skip
        return self.annealed()

    # -- levels ------------------------------------------------------------------------------------------------------

    def enter(self, g: Array, reg: float) -> LevelState:
        """Begin a level from column potentials of the KL gauge, with a row update, so that no row of the plan is empty."""
        ladder = self.ladder
        if self.columns is None and reg <= ladder.reg * (1 + 1e-12):
            return self.enter_last(self.last.row_update(ladder.log_b + g / ladder.reg))
        tol = ladder.tol if reg == ladder.reg else _LEVEL_TOL
        self.change(_method(dataclasses.replace(ladder, reg=reg, tol=tol), self.cap, patient=True))
        return self.state(self.method.start(self.method.row_update(ladder.log_b + g / reg)))

    def enter_last(self, F: Array) -> LevelState:
        """Begin the last level."""
        self.change(self.last)
        return self.state(self.last.start(F))

    def change(self, method: CloudNewton) -> None:
        self._add(self.left)
        self.method, self.used, self.levels = method, 0, self.levels + 1

    def descend(self, state: LevelState) -> LevelState:
        """Leave this level: accepted, or given up for one that is closer to the last accepted one."""
        xp, ladder, now = self.xp, self.ladder, self.accepted
        if state.reg == ladder.reg:
            return self.enter_last(self.rows_of(state))
        if state.point.error > self.method.problem.tolerance and now.reg and self.factor > _LEAST_FACTOR:
            self.factor = max(self.factor**0.5, _LEAST_FACTOR)
        else:
            g = self.potential(state)
            # One gauge on all levels, or the extrapolation would move a constant.
            g = g - xp.sum(ladder.b * g) / xp.sum(ladder.b)
            self.accepted = now = _Accepted(g, now.g, state.reg, now.reg)
            self.factor = min(_FACTOR, self.factor**1.5)
        reg = ladder.reg if self.levels >= _MOST_LEVELS else max(now.reg / self.factor, ladder.reg)
        return self.enter(now.at(reg), reg)

    def potential(self, state: LevelState) -> Array:
        """Column potential of the KL gauge, in the units of the cost."""
        return (finite(state.G, self.xp) - self.ladder.log_b) * state.reg

    def rows_of(self, state: LevelState) -> Array:
        """Scaled row potential of the problem itself, from the potentials of a level: the soft c-transform."""
        problem, cloud = self.problem, self.problem.geometry
        assert isinstance(cloud, PointCloud)
        if self.columns is None:
            return self.last.row_update(problem.log_b + self.potential(state) / problem.reg)
        # The subsample's own weights must not enter: a potential of the KL gauge.
        every = self.xp.arange(cloud.shape[0], device=device(cloud.x))
        logs = cloud.subsample(every, self.columns).pairs(cloud.x, state.reg).logsumexp(state.G)
        return problem.log_a - (state.reg / problem.reg) * logs

    # -- what the loop asks for --------------------------------------------------------------------------------------

    def state(self, point: CloudState) -> LevelState:
        method, problem = self.method, self.problem
        if method is not self.last:
            # What a level above the last one has reached is not what was asked for.
            tested = max(point.error * problem.mass / method.problem.mass, 2 * problem.tolerance)
            return LevelState(point.F, point.G, method.problem.reg, tested, point)
        state = LevelState(point.F, point.G, problem.reg, point.error, point)
        self.waited = 0 if point.error < 0.9 * self.lowest else self.waited + 1
        self.lowest = point.error if self.waited == 0 else self.lowest
        if self.best is None or point.error < self.best.tested:
            self.best = state
        return state

    def step(self, state: LevelState) -> LevelState:
        method = self.method
        if method is not self.last and (state.point.error <= method.problem.tolerance or self.used >= _LEVEL_STEPS):
            return self.descend(state)
        self.used += 1
        return self.state(method.step(state.point))

    def error(self, state: LevelState) -> float:
        if state.reg != self.problem.reg:
            return state.tested
        stuck = self.waited > _PATIENCE and state.tested > self.problem.tolerance
        return -1.0 if stuck else self.last.error(state.point)

    def verify(self, state: LevelState) -> tuple[LevelState, float]:
        if self.best is not None:
            # The error may rise again: what counts is the best state of the last level.
            point, truth = self.last.verify(self.best.point)
            self.best = self.best._replace(point=point, tested=truth)
            return self.best, truth
        point, truth = self.last.verify(self.last.columns_exact(self.rows_of(state)))
        return LevelState(point.F, point.G, self.problem.reg, truth, point), truth

    def counts(self) -> dict[str, int]:
        """What was done on all levels, but for the passes over a subsample."""
        counts = dict(self.left)
        self._add(counts)
        if self.method is not self.last:
            counts["passes"] += self.last.passes
        return {**counts, "levels": self.levels, "entries": self.last.counts()["entries"]}

    def _add(self, counts: dict[str, int]) -> None:
        """Add what the present level has done, unless that is the last, not begun yet."""
        if self.levels == 0:
            return
        done = self.method.counts()
        for key in counts:
            if key != "passes" or self.columns is None or self.method is self.last:
                counts[key] += done[key]


class _Accepted(NamedTuple):
    """The column potentials of the last two levels that were solved, and their regularisations (0 where there is none)."""

    g: Array | None
    g_before: Array | None
    reg: float
    before: float

    def at(self, reg: float) -> Array:
        """Extrapolated linearly to another regularisation."""
        if not self.before or self.g is None:
            return self.g
        return self.g + (reg - self.reg) / (self.reg - self.before) * (self.g - self.g_before)


def _method(problem: Problem, cap: int, patient: bool = False) -> CloudNewton:
    n, m = problem.geometry.shape
    return CloudNewton(problem, max(cap * n, min(n * m, _ALWAYS_KEPT)), patient)

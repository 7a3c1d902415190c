"""The way of `newton` down to the wanted regularisation: levels, their Newton and Sinkhorn steps, and when one is given up."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...backends.namespace import Array
from ...backends.transfer import host_float
from ..result import Status
from .semidual import Point, SemiDual
from .support import Support

# A level starts where the one before it ended, to this error; the last one goes to the tolerance.
_LEVEL_ERROR = 1e-2
# Evaluations before a level is given up and a smaller step down is tried.
_BUDGET = 40
_RATIO, _LEAST_RATIO = 4.0, 1.3
# Where sum (a - r)^2 / r is larger, the quadratic model is not to be trusted and a Sinkhorn step is taken ...
_CHI = 0.1
# ... but not for ever: weights near zero inflate it.
_SAFEGUARDS = 20
# A warm start with at most this error begins on the last level.
_WARM = 0.5
# Steps on the last level without a gain of a tenth: near the precision, and where an error is still large.
_PATIENCE, _LONG_PATIENCE = 30, 120
# A step that leaves a row less than this share of its weight would lose it: where exponents are clamped no step finds it again.
_EMPTY = 1e-30


class LevelState(NamedTuple):
    """Potentials in the units of the cost (entropy gauge), the level they belong to, and what is tested."""

    F: Array
    G: Array
    eps: float
    tested: float


class _Level(NamedTuple):
    F: Array
    G: Array
    eps: float


class Annealed:
    """A state machine over levels: a step is one Newton or Sinkhorn step, or the start of another level."""

    broken = Status.STAGNATED

    def __init__(self, part: Support) -> None:
        self.part, self.xp = part, part.xp
        self.reg, self.tol, self.mass = part.problem.reg, part.problem.tol, part.problem.mass
        self.dual = SemiDual(part)
        self.log_a = self.xp.log(part.a)
        self.point: Point | None = None
        # The best state of the last level: only there errors can be compared.
        self.record: LevelState | None = None
        self.accepted: list[_Level] = []
        self.ratio, self.budget = _RATIO, _BUDGET
        self.newtons = self.sinkhorns = self.levels = 0
        self.best, self.waited = math.inf, 0

    def start(self, x0: tuple[Array, Array] | None) -> LevelState:
        xp, part = self.xp, self.part
        if x0 is not None:
            state = self.enter(part.start(x0)[1] * self.reg, self.reg)
            if state.tested <= _WARM * self.mass:
                return state
        return self.enter(xp.zeros_like(part.b), self.first_eps())

    def first_eps(self) -> float:
        return max((self.part.high - self.part.low) / 16, self.reg)

    def enter(self, G: Array, eps: float) -> LevelState:
        """Begin a level with the row update for ``G``, so that no row of the plan is empty."""
        self.levels += 1
        self.used, self.safeguards = 0, 0
        self.best, self.waited = math.inf, 0
        self.point = self.dual.restart(G, eps)
        if self.point is None:
            return self.refuse()
        return self.state(self.point)

    def state(self, point: Point) -> LevelState:
        self.point = point
        eps = self.dual.eps
        tested = (point.err + self.part.lost) * self.mass
        if eps > self.reg:
            # What a level above the last one has reached is not what was asked for.
            tested = max(tested, 2 * self.tol * self.mass)
        state = LevelState(point.F, point.G, eps, tested)
        if eps <= self.reg and (self.record is None or tested < self.record.tested):
            self.record = state
        return state

    def error(self, state: LevelState) -> Array:
        return state.tested

    def step(self, state: LevelState) -> LevelState:
        point, eps = self.point, self.dual.eps
        last = eps <= self.reg
        if point is None or point.F is not state.F or eps != state.eps:
            return self.enter(state.G, state.eps)
        if not self.dual.current(point):
            # The truth was looked at, or a rejected trial needed a plan of its own.
            point = self.dual.at(state.F, state.G)
            if point is None:
                return self.enter(state.G, state.eps)
        if last and point.err <= self.tol and (state.tested <= self.tol * self.mass or self.part.lost > 0):
            # Points that can reach nobody leave an error that no step mends.
            return state if self.part.lost == 0 else state._replace(tested=-1.0)
        if not last and point.err <= max(_LEVEL_ERROR, self.tol):
            return self.descend(point)
        if self.used > self.budget and self.ratio > _LEAST_RATIO and not (last and point.err < 1e-6):
            return self.refuse()
        if point.err < 0.9 * self.best:
            self.best, self.waited = point.err, 0
        else:
            self.waited += 1
            near = self.xp.finfo(self.part.C.dtype).eps * 1e6 > point.err
            if last and self.waited > (_PATIENCE if near else _LONG_PATIENCE) and point.err < 1e-5:
                return state._replace(tested=-1.0)
        before = self.dual.evaluations
        new = self.advance(point)
        self.used += self.dual.evaluations - before
        return self.refuse() if new is None else self.state(new)

    def advance(self, point: Point) -> Point | None:
        """One step on this level."""
        xp, dual, a = self.xp, self.dual, self.part.a
        gradient = a - point.r
        chi = host_float(xp.sum(gradient * gradient / point.r))
        if chi > _CHI and self.safeguards < _SAFEGUARDS:
            self.safeguards += 1
            return self.sinkhorn(point)
        self.safeguards = 0
        self.newtons += 1
        # Parts of the plan that hang together by next to nothing turn what is left of a residual into long steps.
        floor = 1e-6 if self.tol < 1e-10 and point.err < 1e-7 else 1e-3
        d = dual.direction(point, max(min(0.1, point.err), floor))
        slope = host_float(xp.sum(gradient * d))
        slack = 1e-14 * (host_float(xp.sum(a * xp.abs(point.F)) + xp.sum(self.part.b * xp.abs(point.G))))
        t = 1.0
        while t > 1e-4:
            trial = dual.at(point.F + t * d, point.G)
            if (
                trial is not None
                and trial.least >= min(_EMPTY, point.least)
                and (
                    trial.value >= point.value + 1e-4 * t * slope - slack
                    or (point.err < 1e-4 and trial.err < point.err)
                )
            ):
                return trial
            t *= 0.5
        return self.sinkhorn(point)

    def sinkhorn(self, point: Point) -> Point | None:
        self.sinkhorns += 1
        return self.dual.at(point.F + self.dual.eps * (self.log_a - self.xp.log(point.r)), point.G)

    def descend(self, point: Point) -> LevelState:
        """Accept this level and start the next, its potentials extrapolated linearly in ``eps``."""
        xp, eps = self.xp, self.dual.eps
        # One gauge on all levels, or the extrapolation would move a constant.
        shift = xp.sum(self.part.b * point.G)
        self.accepted = [*self.accepted[-1:], _Level(point.F + shift, point.G - shift, eps)]
        self.ratio = min(_RATIO, self.ratio**1.5)
        return self.enter(*self.next_level())

    def next_level(self) -> tuple[Array, float]:
        now = self.accepted[-1]
        rungs = max(1, math.ceil(math.log(now.eps / self.reg) / math.log(self.ratio) - 0.2))
        eps = self.reg * (now.eps / self.reg) ** ((rungs - 1) / rungs) if rungs > 1 else self.reg
        G = now.G
        if len(self.accepted) > 1:
            before = self.accepted[0]
            G = G + (eps - now.eps) / (now.eps - before.eps) * (G - before.G)
        return G, eps

    def refuse(self) -> LevelState:
        """Give this level up: return to the last accepted one and go down by less."""
        if not self.accepted:
            first = self.first_eps()
            if self.dual.eps < first:
                # A warm start that led nowhere.
                return self.enter(self.xp.zeros_like(self.part.b), first)
            self.budget = 10 * self.budget
        else:
            self.ratio = max(math.sqrt(self.ratio), _LEAST_RATIO)
        G, eps = self.next_level() if self.accepted else (self.xp.zeros_like(self.part.b), self.dual.eps)
        if self.budget > 1e9 or (self.ratio == _LEAST_RATIO and self.levels > 1000):
            return LevelState(self.xp.zeros_like(self.part.a), G, eps, -1.0)
        return self.enter(G, eps)

    def verify(self, state: LevelState) -> tuple[LevelState, float]:
        if self.record is not None and (state.eps != self.reg or not state.tested <= self.record.tested):
            state = self.record
        if state.eps != self.reg or self.dual.eps != self.reg:
            # The run ended on a level above the last: one row update makes its potentials those of the asked problem.
            point = self.dual.restart(state.G, self.reg)
            if point is not None:
                state = self.state(point)
        F, G = self.rounded(state)
        truth = (self.dual.violation(F, G) + self.part.lost) * self.mass
        self.record = LevelState(F, G, self.reg, truth)
        return self.record, truth

    def rounded(self, state: LevelState) -> tuple[Array, Array]:
        """The potentials as the caller will see them: a float32 problem gets float32 potentials."""
        if self.part.a.dtype == self.part.C.dtype:
            return state.F, state.G
        # The column update is taken after F is rounded; only the rounding of G is left.
        reg, returned = self.reg, self.part.returned
        point = self.dual.at(returned(state.F / reg, state.G / reg)[0] * reg, state.G)
        F, G = (state.F, state.G) if point is None else (point.F, point.G)
        F, G = returned(F / reg, G / reg)
        return F * reg, G * reg

    def potentials(self, state: LevelState) -> tuple[Array, Array]:
        return self.part.full(state.F / self.reg, state.G / self.reg)

    def counts(self) -> dict[str, int]:
        """What was done."""
        return {**self.dual.counts(), "newton": self.newtons, "sinkhorn": self.sinkhorns, "levels": self.levels}

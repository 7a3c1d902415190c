"""Truncated Newton on the semi-dual of unbalanced transport: ``g`` is maximised out, ``f`` takes damped Newton steps.

With the plan frozen a product with the Hessian is two products with a matrix, tens of times cheaper than a pass of
exponentials; conjugate gradients take as many of them as the present error deserves. The regularisation is annealed, so that
each level starts near its solution (Kemertas, Farahmand, Jepson 2025; Brauer et al. 2017 for Newton on the Sinkhorn equations).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from ...backends.namespace import Array, finfo_eps
from ...backends.transfer import host_float
from ..iterate import LoopOptions, Outcome, iterate
from ..result import Status
from .jacobi_cg import jacobi_cg
from .unbalanced_plan import Stored, Streamed, frozen_plan
from .unbalanced_problem import UnbalancedProblem, UnbalancedResult, penalty_slope

# Annealing: the first regularisation over the largest cost, the factor between levels, their tolerance and steps.
_FIRST, _RATIO, _LOOSE, _LEVEL_STEPS = 16.0, 4.0, 1e-2, 60
_CG_STEPS, _HALVINGS, _CHI, _SAFEGUARDS = 1000, 30, 0.1, 20
# Steps on the last level without a gain of a tenth, after which the precision is exhausted.
_PATIENCE = 50


def solve_newton(
    problem: UnbalancedProblem, options: LoopOptions, start: tuple[Array, Array] | None, why: str
) -> UnbalancedResult:
    """Levels of falling regularisation, each solved loosely, and the last to the tolerance; from ``start`` the last alone."""
    method = _Newton(problem)

    def finish(outcome: Outcome[_State]) -> UnbalancedResult:
        s, counts = outcome.state, method.counts()
        return problem.result(s.f, s.g, method="newton", why=why, evaluations=counts, **outcome.fields())

    state = method.start(start)
    return finish(
        iterate(method, state, tolerance=problem.tolerance, options=options, on_device=problem.a, finish=finish)
    )


class _State(NamedTuple):
    """``f`` and the best ``g`` for it at ``reg``; ``logs = log sum_i exp((f_i - C_ij) / reg) a_i``; sums of the columns and of
    the rows of the plan; what the optimality condition asks of the rows, and how far they are off."""

    f: Array
    g: Array
    reg: float
    logs: Array
    c: Array
    rows: Array
    target: Array
    dual: float
    error: float


class _Newton:
    """A state machine over levels: a step is one Newton or Sinkhorn step, or the start of another level."""

    broken = Status.STAGNATED

    def __init__(self, problem: UnbalancedProblem) -> None:
        self.problem, self.xp = problem, problem.xp
        self.done = dict.fromkeys(("passes", "matvec", "newton", "sinkhorn", "levels"), 0)
        self.plan: Stored | Streamed | None = None
        self.owner: Array | None = None
        self.lowest, self.waited = math.inf, 0

    def counts(self) -> dict[str, int]:
        """What was done on all levels."""
        return {**self.done, "passes": self.done["passes"] + (self.plan.passes if self.plan is not None else 0)}

    # -- levels ------------------------------------------------------------------------------------------------------

    def start(self, start: tuple[Array, Array] | None) -> _State:
        p = self.problem
        if start is not None:
            return self.enter(*start, p.reg)
        zero_f, zero_g = self.xp.zeros_like(p.a), self.xp.zeros_like(p.b)
        return self.enter(zero_f, zero_g, max(p.geometry.largest() / _FIRST, p.reg))

    def enter(self, f: Array, g: Array, reg: float) -> _State:
        """Begin a level with the row update: it fills every row, which no Newton step could do from a row of zeros."""
        self.done["levels"] += 1
        self.done["passes"] = self.counts()["passes"]
        p = self.level = self.problem if reg == self.problem.reg else replace(self.problem, reg=reg)
        # The last plan goes first: two of them need not fit.
        self.plan = None
        plan = self.plan = frozen_plan(p.geometry, reg)
        self.used = self.safeguards = 0
        f = p.update(plan.row_logs(p.log_b + g / reg), p.reg_a)
        return self.complete(self.columns(f + p.shift(f, g), None), 1.0)

    @property
    def last(self) -> bool:
        """Whether this level is the last."""
        return self.level is self.problem

    # -- evaluations -------------------------------------------------------------------------------------------------

    def columns(self, f: Array, guess: Array | None) -> _State:
        """The best ``g`` and the dual value; the rows are not known yet."""
        p, xp = self.level, self.xp
        assert self.plan is not None
        logs = self.plan.columns(p.log_a + f / p.reg, guess)
        g = p.update(logs, p.reg_b)
        c = xp.where(xp.isfinite(logs), p.target(p.b, g, p.reg_b), 0.0)
        dual = xp.sum(p.a * penalty_slope(f, p.reg_a, xp)) + xp.sum(p.b * penalty_slope(g, p.reg_b, xp))
        return _State(f, g, p.reg, logs, c, f, f, host_float(dual - p.reg * xp.sum(c)), math.inf)

    def complete(self, state: _State, share: float) -> _State:
        """The same with its rows; ``share`` is the relative error that is expected."""
        p, xp = self.level, self.xp
        assert self.plan is not None
        target = p.target(p.a, state.f, p.reg_a)
        rows = self.plan.rows(p.log_a + state.f / p.reg, p.log_b + state.g / p.reg, state.c, target, share)
        error = host_float(xp.sum(xp.abs(target - rows)))
        if self.last:
            self.waited = 0 if error < 0.9 * self.lowest else self.waited + 1
            self.lowest = error if self.waited == 0 else self.lowest
        self.owner = state.f
        return state._replace(rows=rows, target=target, error=error)

    # -- what the loop asks for --------------------------------------------------------------------------------------

    def error(self, state: _State) -> float:
        if state.reg != self.problem.reg:
            # What a level above the last one has reached is not what was asked for.
            return max(state.error, 2.0 * self.problem.tolerance)
        return -1.0 if self.waited > _PATIENCE and state.error > self.problem.tolerance else state.error

    def verify(self, state: _State) -> tuple[_State, float]:
        if state.reg != self.problem.reg:
            # The run ended on a level above the last: one row update makes its potentials those of the asked problem.
            state = self.enter(state.f, state.g, self.problem.reg)
        self.done["passes"] += 2
        return state, self.problem.violation(state.f, state.g)

    def step(self, state: _State) -> _State:
        p, xp = self.level, self.xp
        if not self.last and (state.error <= max(_LOOSE * p.mass_a, p.tolerance) or self.used >= _LEVEL_STEPS):
            return self.enter(state.f, state.g, max(p.reg / _RATIO, self.problem.reg))
        if self.owner is not state.f:
            # The loop went back to an older state.
            state = self.complete(self.columns(state.f, state.logs), 1.0)
        self.used += 1
        gap = state.target - state.rows
        full, share = state.rows > 0, state.error / p.mass_a
        chi = host_float(xp.sum(xp.where(full, gap * gap / xp.where(full, state.rows, 1.0), 0.0))) / p.mass_a
        if chi > _CHI and self.safeguards < _SAFEGUARDS:
            self.safeguards += 1
            return self.sinkhorn(state, share)
        self.safeguards = 0
        self.done["newton"] += 1
        direction = p.reg * self.solve(state, gap)
        slope, t = host_float(xp.sum(direction * gap)), 1.0
        # What rounding of the sums may take from a step that is none the worse.
        slack = 45.0 * finfo_eps(state.f.dtype, xp) * abs(state.dual)
        for _ in range(_HALVINGS):
            trial = self.columns(state.f + t * direction, state.logs)
            if trial.dual >= state.dual + 1e-4 * t * slope - slack:
                # A full step is expected to square the error.
                return self.complete(trial, share * share if t == 1.0 else share)
            t *= 0.5
        return self.sinkhorn(state, share)

    def sinkhorn(self, state: _State, share: float) -> _State:
        """The row update, whose log-sums the row sums give, with the translation to the best mass."""
        p, xp = self.level, self.xp
        self.done["sinkhorn"] += 1
        full = (state.rows > 0) & (p.a > 0)
        logs = xp.log(xp.where(full, state.rows, 1.0)) - xp.where(full, p.log_a, 0.0) - state.f / p.reg
        f = xp.where(full, p.update(logs, p.reg_a), state.f)
        return self.complete(self.columns(f + p.shift(f, state.g), state.logs), share)

    def solve(self, state: _State, gap: Array) -> Array:
        """Conjugate gradients for ``(diag(rows + reg / reg_a target) - k E diag(c) E^T) x = gap``, ``k`` the share of ``reg_b``."""
        p, xp = self.level, self.xp
        assert self.plan is not None
        relative = state.error / p.mass_a
        k = 1.0 if p.reg_b == math.inf else p.reg_b / (p.reg_b + p.reg)
        pull = 0.0 if p.reg_a == math.inf else p.reg / p.reg_a
        damping = 1e-3 * min(1.0, relative)
        # A row without mass has no equation; a one there keeps its unknown at zero.
        diagonal = xp.where(state.rows > 0, (1.0 + damping) * state.rows + pull * state.target, 1.0)
        product, squares = self.plan.product(k, state.rows, state.c)
        jacobi = diagonal - squares
        floor = 1e-12 * xp.max(diagonal)
        inverse = 1.0 / xp.where(jacobi > floor, jacobi, floor)
        goal = max(min(0.1, relative), 1e-3) * state.error
        gap = xp.where(state.rows > 0, gap, 0.0)
        x, done = jacobi_cg(lambda d: diagonal * d - product(d), inverse, gap, goal, _CG_STEPS, xp=xp)
        self.done["matvec"] += 2 * done
        return x

"""Sinkhorn's iteration for unbalanced transport, with the translation-invariant step (Sejourne, Vialard and Peyre 2022)."""

from __future__ import annotations

from typing import NamedTuple

from ...backends.namespace import Array
from ...backends.transfer import host_float
from ..iterate import LoopOptions, Outcome, iterate
from .unbalanced_problem import UnbalancedProblem, UnbalancedResult


def solve_sinkhorn(
    problem: UnbalancedProblem, options: LoopOptions, start: tuple[Array, Array] | None, why: str
) -> UnbalancedResult:
    xp, method = problem.xp, _Sinkhorn(problem)

    def finish(outcome: Outcome[_State]) -> UnbalancedResult:
        counts = {"passes": method.passes}
        state = outcome.state
        return problem.result(state.f, state.g, method="sinkhorn", why=why, evaluations=counts, **outcome.fields())

    f, g = start if start is not None else (xp.zeros_like(problem.a), xp.zeros_like(problem.b))
    state = method.start(f, g)
    if start is None:
        # Far potentials can overflow in the first look: one step puts the plan into range.
        state = method.step(state)
    outcome = iterate(method, state, tolerance=problem.tolerance, options=options, on_device=problem.a, finish=finish)
    return finish(outcome)


class _State(NamedTuple):
    """Potentials, and the log-sums ``log sum_j b_j exp((g_j - C_ij) / reg)`` and likewise of ``f`` that belong to them."""

    f: Array
    g: Array
    rows: Array
    columns: Array


class _Sinkhorn:
    """Both potentials in turn, then the translation that gives the best mass: without it the mass converges like r / (r + reg)."""

    def __init__(self, problem: UnbalancedProblem) -> None:
        self.problem, self.kernel, self.passes = problem, problem.geometry.kernel(problem.reg), 0

    def start(self, f: Array, g: Array) -> _State:
        p = self.problem
        self.passes += 2
        return _State(f, g, self.kernel.rows(p.log_b + g / p.reg, None), self.kernel.columns(p.log_a + f / p.reg, None))

    def step(self, state: _State) -> _State:
        p = self.problem
        f = p.update(state.rows, p.reg_a)
        columns = self.kernel.columns(p.log_a + f / p.reg, state.columns)
        g = p.update(columns, p.reg_b)
        rows = self.kernel.rows(p.log_b + g / p.reg, state.rows)
        self.passes += 2
        s = p.shift(f, g)
        return _State(f + s, g - s, rows - s / p.reg, columns + s / p.reg)

    def error(self, state: _State) -> Array:
        p, xp = self.problem, self.problem.xp
        f, g, rows, columns = state
        off_a = xp.exp(p.log_a + f / p.reg + rows) - p.target(p.a, f, p.reg_a)
        off_b = xp.exp(p.log_b + g / p.reg + columns) - p.target(p.b, g, p.reg_b)
        return xp.sum(xp.abs(off_a)) + xp.sum(xp.abs(off_b))

    def verify(self, state: _State) -> tuple[_State, float]:
        state = self.start(state.f, state.g)
        return state, host_float(self.error(state))

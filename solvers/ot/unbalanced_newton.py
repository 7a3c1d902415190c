"""Truncated Newton on the semi-dual of unbalanced transport: ``g`` is maximised out, ``f`` takes damped Newton steps.

With the plan frozen a product with the Hessian is two products with a matrix, tens of times cheaper than a pass of
exponentials; conjugate gradients take as many of them as the present error deserves. The regularisation is annealed, so that
each level starts near its solution (Kemertas, Farahmand, Jepson 2025; Brauer et al. 2017 for Newton on the Sinkhorn equations).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ...backends.namespace import Array
from ...backends.special import logsumexp
from ...backends.transfer import host_float
from ..iterate import LoopOptions, Outcome, iterate

if TYPE_CHECKING:
    from .unbalanced import UnbalancedProblem, UnbalancedResult

_RATIO, _LOOSE, _LEVEL_STEPS = 4.0, 1e-2, 60
_CG_STEPS, _HALVINGS, _CHI, _SAFEGUARDS = 1000, 30, 0.1, 20


def solve_newton(
    problem: UnbalancedProblem, options: LoopOptions, start: tuple[Array, Array] | None, why: str
) -> UnbalancedResult:
    """Levels of falling regularisation, each solved loosely, and the last to the tolerance."""
    xp, counts = problem.xp, {"newton": 0, "passes": 0, "matvec": 0}
    geometry: Any = problem.geometry
    before = 0
    if start is None:
        costs = xp.where(xp.isfinite(geometry.C), geometry.C, 0.0)
        reg = max(host_float(xp.max(costs)) / 16.0, problem.reg)
        f, g = xp.zeros_like(problem.a), xp.zeros_like(problem.b)
        limits = LoopOptions(maxiter=min(_LEVEL_STEPS, options.maxiter), time_limit=options.time_limit)
        while reg > problem.reg:
            level = replace(problem, reg=reg, tolerance=max(_LOOSE * problem.mass_a, problem.tolerance))
            method = _Newton(level, counts)
            state = method.start(f, g)
            outcome = iterate(method, state, tolerance=level.tolerance, options=limits, on_device=problem.a)
            before += outcome.n_iter
            f, g = outcome.state.f, outcome.state.g
            reg = max(reg / _RATIO, problem.reg)
    else:
        f, g = start
    final = _Newton(problem, counts)

    def finish(outcome: Outcome[_State]) -> UnbalancedResult:
        fields = outcome.fields() | {"n_iter": before + outcome.n_iter}
        return problem.result(outcome.state.f, outcome.state.g, method="newton", why=why, evaluations=counts, **fields)

    state = final.start(f, g)
    return finish(
        iterate(final, state, tolerance=problem.tolerance, options=options, on_device=problem.a, finish=finish)
    )


class _State(NamedTuple):
    """``f``, the best ``g`` for it, and the plan ``E diag(c)``: the columns of ``E`` sum to one. ``rows`` and ``target`` are the
    row sums and what the optimality condition asks of them."""

    f: Array
    g: Array
    E: Array
    c: Array
    rows: Array
    target: Array
    dual: float


class _Newton:
    def __init__(self, problem: UnbalancedProblem, counts: dict[str, int]) -> None:
        geometry: Any = problem.geometry
        self.problem, self.counts, self.xp = problem, counts, problem.xp
        self.S, self.safeguards = -geometry.C / problem.reg, 0

    def start(self, f: Array, g: Array) -> _State:
        # The row update fills every row, which no Newton step could do from a row of zeros.
        p = self.problem
        self.counts["passes"] += 1
        f = p.update(logsumexp(self.S + (p.log_b + g / p.reg)[None, :], axis=1, xp=self.xp), p.reg_a)
        return self.evaluate(f + p.shift(f, g))

    def evaluate(self, f: Array) -> _State:
        from .unbalanced import penalty_slope

        p, xp = self.problem, self.xp
        self.counts["passes"] += 1
        E = self.S + (p.log_a + f / p.reg)[:, None]
        top = xp.max(E, axis=0)
        top = xp.where(xp.isfinite(top), top, 0.0)
        E = xp.exp(E - top[None, :])
        total = xp.sum(E, axis=0)
        empty = total == 0
        logs = xp.where(empty, -math.inf, xp.log(xp.where(empty, 1.0, total)) + top)
        E = E / xp.where(empty, 1.0, total)[None, :]
        g = p.update(logs, p.reg_b)
        c = xp.where(empty, 0.0, p.target(p.b, g, p.reg_b))
        dual = xp.sum(p.a * penalty_slope(f, p.reg_a, xp)) + xp.sum(p.b * penalty_slope(g, p.reg_b, xp))
        return _State(f, g, E, c, E @ c, p.target(p.a, f, p.reg_a), host_float(dual - p.reg * xp.sum(c)))

    def error(self, state: _State) -> Array:
        return self.xp.sum(self.xp.abs(state.target - state.rows))

    def verify(self, state: _State) -> tuple[_State, float]:
        self.counts["passes"] += 2
        return state, self.problem.violation(state.f, state.g)

    def step(self, state: _State) -> _State:
        p, xp = self.problem, self.xp
        gap = state.target - state.rows
        full = state.rows > 0
        chi = host_float(xp.sum(xp.where(full, gap * gap / xp.where(full, state.rows, 1.0), 0.0))) / p.mass_a
        if chi > _CHI and self.safeguards < _SAFEGUARDS:
            self.safeguards += 1
            return self.sinkhorn(state)
        self.safeguards = 0
        self.counts["newton"] += 1
        direction = p.reg * self.solve(state, gap)
        slope, t = host_float(xp.sum(direction * gap)), 1.0
        for _ in range(_HALVINGS):
            trial = self.evaluate(state.f + t * direction)
            if trial.dual >= state.dual + 1e-4 * t * slope - 1e-14 * abs(state.dual):
                return trial
            t *= 0.5
        return self.sinkhorn(state)

    def sinkhorn(self, state: _State) -> _State:
        """The row update, whose log-sums the row sums give, with the translation to the best mass."""
        p, xp = self.problem, self.xp
        full = (state.rows > 0) & (p.a > 0)
        logs = xp.log(xp.where(full, state.rows, 1.0)) - xp.where(full, p.log_a, 0.0) - state.f / p.reg
        f = xp.where(full, p.update(logs, p.reg_a), state.f)
        return self.evaluate(f + p.shift(f, state.g))

    def solve(self, state: _State, gap: Array) -> Array:
        """Conjugate gradients for ``(diag(rows + reg / reg_a target) - k E diag(c) E^T) x = gap``, ``k`` the share of ``reg_b``."""
        p, xp = self.problem, self.xp
        error = host_float(xp.sum(xp.abs(gap)))
        relative = error / p.mass_a
        k = 1.0 if p.reg_b == math.inf else p.reg_b / (p.reg_b + p.reg)
        pull = 0.0 if p.reg_a == math.inf else p.reg / p.reg_a
        damping = 1e-3 * min(1.0, relative)
        # A row without mass has no equation; a one there keeps its unknown at zero.
        diagonal = xp.where(state.rows > 0, (1.0 + damping) * state.rows + pull * state.target, 1.0)
        scale = k * state.c
        jacobi = diagonal - (state.E * state.E) @ scale
        floor = 1e-12 * xp.max(diagonal)
        inverse = 1.0 / xp.where(jacobi > floor, jacobi, floor)
        goal = max(min(0.1, relative), 1e-3) * error
        x, r = xp.zeros_like(gap), xp.where(state.rows > 0, gap, 0.0)
        z = inverse * r
        d, rz = z, xp.sum(r * z)
        for _ in range(_CG_STEPS):
            Ad = diagonal * d - state.E @ (scale * (d @ state.E))
            self.counts["matvec"] += 2
            curvature = host_float(xp.sum(d * Ad))
            if not curvature > 0:
                break
            alpha = rz / curvature
            x, r = x + alpha * d, r - alpha * Ad
            if host_float(xp.sum(xp.abs(r))) <= goal:
                break
            z = inverse * r
            rz, old = xp.sum(r * z), rz
            d = z + (rz / old) * d
        return x

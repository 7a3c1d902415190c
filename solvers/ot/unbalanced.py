"""Unbalanced and semi-unbalanced entropic transport: marginals relaxed by KL terms (Chizat et al. 2018; Liero et al. 2018).

minimise  <C, P> + reg KL(P | a b^T) + reg_a KL(P 1 | a) + reg_b KL(P^T 1 | b)   over  P >= 0

by Sinkhorn's iteration with the translation-invariant step (Sejourne, Vialard, Peyre 2022), or by a truncated Newton method on
the semi-dual, where the second potential has been maximised out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace
from ...backends.special import logsumexp
from ...backends.transfer import host_float
from ...backends.validation import check_array, check_choice, check_scalar
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from .geometry import Dense, PointCloud
from .problem import finite, log_weights, weights
from .result import TransportResult
from .unbalanced_newton import solve_newton

_METHODS = ("auto", "sinkhorn", "newton")


def unbalanced(
    cost: Array | Dense | PointCloud,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    reg_a: float,
    reg_b: float,
    method: str = "auto",
    tol: float | None = None,
    maxiter: int = 10_000,
    x0: tuple[Array, Array] | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> UnbalancedResult:
    """Entropic transport with relaxed marginals: ``min <C, P> + reg KL(P|ab) + reg_a KL(P1|a) + reg_b KL(P'1|b)``.

    ``KL(p|q) = sum p log(p / q) - p + q``; the plan is ``a_i b_j exp((f_i + g_j - C_ij) / reg)``, and at the optimum its
    marginals are ``a exp(-f / reg_a)`` and ``b exp(-g / reg_b)``.

    Parameters
    ----------
    cost : array (n, m) or PointCloud
        A cost matrix (plus infinity forbids a pair), or two point clouds whose costs are never stored.
    a, b : array (n,), (m,), optional
        Non-negative weights of any masses; default uniform of mass one.
    reg : float
        Entropic regularisation, in the units of the cost.
    reg_a, reg_b : float
        Price of leaving the marginals ``a`` and ``b``, in the units of the cost; ``inf`` holds a marginal exactly (one
        infinite: semi-unbalanced; both: balanced, which needs equal masses).
    method : {"auto", "sinkhorn", "newton"}
        Newton needs a cost matrix; ``"auto"`` takes it there when a relaxation is above ten times ``reg``.
    tol : float, optional
        Bound on the L1 violation of the two optimality conditions on the marginals, relative to the mean mass of ``a`` and
        ``b``; default 1e-6, in float32 1e-4.
    maxiter : int
        Most iterations (of Newton: of each level of its annealing).
    x0 : (f, g), optional
        Potentials to start from; Newton then starts at ``reg`` without annealing.
    callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    UnbalancedResult
        Potentials, dual value, primal value and gap, mass, the plan as an operator.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The optimality conditions are not within ``tol``.

    References
    ----------
    L. Chizat, G. Peyre, B. Schmitzer, F.-X. Vialard, Scaling algorithms for unbalanced transport problems, 2018. T. Sejourne,
    F.-X. Vialard, G. Peyre, Faster unbalanced optimal transport: translation invariant Sinkhorn, 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.unbalanced import unbalanced
    >>> C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    >>> result = unbalanced(C, np.asarray([1.0, 3.0]), np.ones(2), reg=0.1, reg_a=1.0, reg_b=1.0, tol=1e-10)
    >>> round(result.mass, 4), bool(abs(result.gap) < 1e-8)
    (2.7791, True)
    """
    problem = _prepare(cost, a, b, reg, reg_a, reg_b, tol)
    check_choice(method, "method", _METHODS)
    stored = isinstance(problem.geometry, Dense)
    if method == "newton" and not stored:
        raise InputError("method 'newton' needs a cost matrix; point clouds are solved by 'sinkhorn'")
    softest = min(problem.reg_a, problem.reg_b)
    why = ""
    if method == "auto":
        hard = max((r for r in (problem.reg_a, problem.reg_b) if r < math.inf), default=math.inf) > 10 * problem.reg
        method = "newton" if stored and hard and softest < math.inf else "sinkhorn"
        why = "a cost matrix and a weak relaxation" if method == "newton" else "a cloud, or a contraction that is fast"
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    start = None if x0 is None else problem.checked(x0)
    solve = solve_newton if method == "newton" else _solve_sinkhorn
    result = solve(problem, options, start, why)
    warn_unless_converged(result, "unbalanced")
    return result


@dataclass(frozen=True, kw_only=True, repr=False)
class UnbalancedResult(TransportResult):
    """Potentials of an unbalanced problem and what follows from them.

    Attributes
    ----------
    f, g, a, b, reg, geometry, method, why
        As of `TransportResult`.
    value : float
        Dual value, a lower bound of the minimum.
    primal : float
        Value of the plan; a marginal that is held exactly counts nothing, however far ``residual`` says it is off.
    mass : float
        Sum of the plan.
    reg_a, reg_b : float
        The relaxations.
    residual : float
        ``|P 1 - a exp(-f / reg_a)|_1 + |P^T 1 - b exp(-g / reg_b)|_1``, recomputed.
    """

    reg_a: float
    reg_b: float
    primal: float
    mass: float

    @property
    def gap(self) -> float:
        """Primal less dual value: not negative up to rounding, when no marginal is held exactly."""
        return self.primal - float(self.value)

    def grad_a(self) -> Array:
        """Gradient (n,) of the value with respect to ``a``, by the envelope theorem."""
        xp, (_, G) = self.geometry.xp, self.scaled()
        logs = self.geometry.kernel(self.reg).rows(G, None)
        return self._gradient(self.f, logs, self.reg_a, host_float(xp.sum(self.b)))

    def grad_b(self) -> Array:
        """Gradient (m,) of the value with respect to ``b``, by the envelope theorem."""
        xp, (F, _) = self.geometry.xp, self.scaled()
        logs = self.geometry.kernel(self.reg).columns(F, None)
        return self._gradient(self.g, logs, self.reg_b, host_float(xp.sum(self.a)))

    def _gradient(self, f: Array, logs: Array, relaxation: float, other: float) -> Array:
        xp, reg = self.geometry.xp, self.reg
        # Where the weight is zero the potential is continued by the update that defines it.
        share = 1.0 if relaxation == math.inf else relaxation / (relaxation + reg)
        reached = xp.isfinite(logs)
        f = xp.where(
            xp.isfinite(f) & reached, finite(f, xp), xp.where(reached, -share * reg * finite(logs, xp), math.inf)
        )
        ratio = xp.where(reached, xp.exp(xp.where(reached, f, 0.0) / reg + finite(logs, xp)), 0.0)
        return penalty_slope(f, relaxation, xp) - reg * (ratio - other)


def penalty_slope(f: Array, relaxation: float, xp: Namespace) -> Array:
    """``-r expm1(-f / r)``, the dual of ``r KL`` for one unit of weight; ``f`` for an infinite ``r``."""
    return f if relaxation == math.inf else -relaxation * xp.expm1(-f / relaxation)


@dataclass(frozen=True, eq=False)
class UnbalancedProblem:
    """An unbalanced problem, checked; ``f`` and ``g`` are potentials of the KL gauge, finite everywhere.

    Points whose every pair is forbidden have lost their weight in ``a`` and ``b`` (``given`` has it still), at a price ``lost``.
    """

    geometry: Dense | PointCloud
    a: Array
    b: Array
    log_a: Array
    log_b: Array
    reg: float
    reg_a: float
    reg_b: float
    mass_a: float
    mass_b: float
    tolerance: float
    xp: Namespace
    given: tuple[Array, Array]
    lost: float

    def checked(self, x0: tuple[Array, Array]) -> tuple[Array, Array]:
        """Potentials that a caller gave."""
        xp, (n, m), dtype = self.xp, self.geometry.shape, self.geometry.like.dtype
        check_array(x0[0], "x0[0]", xp, shape=(n,), dtype=dtype, finite=False)
        check_array(x0[1], "x0[1]", xp, shape=(m,), dtype=dtype, finite=False)
        return finite(x0[0], xp), finite(x0[1], xp)

    def update(self, logs: Array, relaxation: float) -> Array:
        """The potential that maximises the dual, given ``logs`` of the other: ``-k reg logs``, ``k = r / (r + reg)``."""
        share = 1.0 if relaxation == math.inf else relaxation / (relaxation + self.reg)
        return -share * self.reg * finite(logs, self.xp)

    def target(self, weight: Array, f: Array, relaxation: float) -> Array:
        """The marginal that the optimality condition asks for."""
        return weight if relaxation == math.inf else weight * self.xp.exp(-f / relaxation)

    def shift(self, f: Array, g: Array) -> Array | float:
        """The best ``s`` for ``(f + s, g - s)``: none where a marginal is held exactly."""
        r1, r2 = self.reg_a, self.reg_b
        if max(r1, r2) == math.inf:
            return 0.0
        left = logsumexp(self.log_a - f / r1, axis=0, xp=self.xp)
        return r1 * r2 / (r1 + r2) * (left - logsumexp(self.log_b - g / r2, axis=0, xp=self.xp))

    def result(self, f: Array, g: Array, **fields: Any) -> UnbalancedResult:
        """The result, with the values of both sides."""
        xp, kernel = self.xp, self.geometry.kernel(self.reg)
        F, G = self.log_a + f / self.reg, self.log_b + g / self.reg
        r, c = xp.exp(F + kernel.rows(G, None)), xp.exp(G + kernel.columns(F, None))
        mass = host_float(xp.sum(r))
        entropy = -self.reg * (mass - self.mass_a * self.mass_b)
        dual = xp.sum(self.a * penalty_slope(f, self.reg_a, xp)) + xp.sum(self.b * penalty_slope(g, self.reg_b, xp))
        primal = xp.sum(f * r) + xp.sum(g * c)
        primal = primal + self._penalty(r, self.a, self.reg_a) + self._penalty(c, self.b, self.reg_b)
        return UnbalancedResult(
            f=xp.where(self.a > 0, f, xp.where(self.given[0] > 0, math.inf, xp.full_like(f, -math.inf))),
            g=xp.where(self.b > 0, g, xp.where(self.given[1] > 0, math.inf, xp.full_like(g, -math.inf))),
            value=host_float(dual) + entropy + self.lost,
            primal=host_float(primal) + entropy + self.lost,
            mass=mass,
            a=self.given[0],
            b=self.given[1],
            reg=self.reg,
            reg_a=self.reg_a,
            reg_b=self.reg_b,
            geometry=self.geometry,
            **fields,
        )

    def _penalty(self, p: Array, q: Array, relaxation: float) -> Array | float:
        if relaxation == math.inf:
            return 0.0
        xp, there = self.xp, p > 0
        ratio = xp.where(there, p, 1.0) / xp.where(there, q, 1.0)
        return relaxation * xp.sum(xp.where(there, p * xp.log(ratio), 0.0) - p + q)

    def violation(self, f: Array, g: Array) -> float:
        """L1 violation of both optimality conditions, recomputed."""
        xp, kernel = self.xp, self.geometry.kernel(self.reg)
        F, G = self.log_a + f / self.reg, self.log_b + g / self.reg
        off_a = xp.exp(F + kernel.rows(G, None)) - self.target(self.a, f, self.reg_a)
        off_b = xp.exp(G + kernel.columns(F, None)) - self.target(self.b, g, self.reg_b)
        return host_float(xp.sum(xp.abs(off_a)) + xp.sum(xp.abs(off_b)))


def _prepare(cost: Any, a: Any, b: Any, reg: float, reg_a: float, reg_b: float, tol: float | None) -> UnbalancedProblem:
    geometry = cost if isinstance(cost, Dense | PointCloud) else Dense(cost)
    xp, like, (n, m) = geometry.xp, geometry.like, geometry.shape
    reg = check_scalar(reg, "reg", positive=True)
    reg_a = check_scalar(reg_a, "reg_a", positive=True, finite=False)
    reg_b = check_scalar(reg_b, "reg_b", positive=True, finite=False)
    a, b = weights(a, "a", n, like, xp), weights(b, "b", m, like, xp)
    mass_a, mass_b = host_float(xp.sum(a)), host_float(xp.sum(b))
    if min(reg_a, reg_b) == math.inf and abs(mass_a - mass_b) > 1e-5 * mass_a:
        raise InputError(
            f"a sums to {mass_a:.9g} and b to {mass_b:.9g}; with reg_a = reg_b = inf the sums must be equal"
        )
    tol = (1e-4 if like.dtype == xp.float32 else 1e-6) if tol is None else check_scalar(tol, "tol", positive=True)
    given, lost = (a, b), 0.0
    if isinstance(geometry, Dense):
        # A point that cannot send anything pays r KL(0 | a) = r a, whatever the others do.
        open_pairs = xp.isfinite(geometry.C) & (a > 0)[:, None] & (b > 0)[None, :]
        a = xp.where(xp.any(open_pairs, axis=1), a, 0.0)
        b = xp.where(xp.any(open_pairs, axis=0), b, 0.0)
        for name, price, loss in (
            ("a", reg_a, mass_a - host_float(xp.sum(a))),
            ("b", reg_b, mass_b - host_float(xp.sum(b))),
        ):
            if loss > 0 and price == math.inf:
                raise InputError(
                    f"cost forbids every pair of a point with weight in {name}, whose marginal is held exactly"
                )
            lost += price * loss if loss > 0 else 0.0
    return UnbalancedProblem(
        geometry, a, b, log_weights(a, xp), log_weights(b, xp), reg, reg_a, reg_b, mass_a, mass_b,
        0.5 * tol * (mass_a + mass_b), xp, given, lost,
    )  # fmt: skip


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


def _solve_sinkhorn(
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

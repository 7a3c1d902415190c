"""The step of `cloud_newton`: two passes over the pairs and conjugate gradients on the large entries of the plan."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

from ...backends.errors import ConvergenceWarning
from ...backends.namespace import Array, finfo_eps, wide_dtype
from ...backends.operators import LinearOperator
from ...backends.pairs.entries import large_entries
from ...backends.transfer import host_bool, host_float
from ..linear.cg import cg
from .geometry import PointCloud
from .problem import Problem
from .sparse_plan import SparsePlan

# Where the chi-square distance of the row sums is more, Newton's model is worth nothing; but not more often than this in a row.
_CHI, _MOST_SINKHORN = 0.1, 20
# Share of the mass that the entries left out are to have: at first; at least, where a step still gains five digits; at most,
# when the plan has too many entries; and the growth until then.
_TAU, _TAU_LEAST, _TAU_MOST, _TAU_GROWTH = 1e-5, 1e-6, 1e-2, 10.0
# Of ``tau``, what one entry may have; and how fast that may grow from one pass to the next.
_LARGEST_SINGLE, _LARGEST_GAIN = 0.1, 100.0
_DAMPING, _ARMIJO, _SHORTEST = 1e-3, 1e-4, 2.0**-10
_CG_STEPS, _CG_LOOSE, _CG_TIGHT = 1000, 0.1, 1e-3
# Passes whose plan was too dense at the largest ``tau``, after which the method gives up.
_MOST_DENSE = 10


class CloudState(NamedTuple):
    """Scaled potentials after a column update; logarithms of the column sums of ``exp(F) k``; row sums; what they miss."""

    F: Array
    G: Array
    columns: Array
    r: Array
    error: float
    objective: float


class CloudNewton:
    """One level of the method; ``limit`` is how many entries of the plan are kept at most.

    A ``patient`` one goes on by Sinkhorn's steps where the plan has more: on the way to a smaller regularisation these are few.
    """

    def __init__(self, problem: Problem, limit: int, patient: bool = False) -> None:
        cloud = problem.geometry
        assert isinstance(cloud, PointCloud)
        self.problem, self.xp, self.limit, self.patient = problem, problem.xp, limit, patient
        self.pairs = cloud.pairs(cloud.x, problem.reg, passes=None)
        self.wide = wide_dtype(problem.a, self.xp)
        self.a, self.b = self._wide(problem.a), self._wide(problem.b)
        self.passes = self.matvecs = self.newtons = self.sinkhorns = 0
        self.plan: SparsePlan | None = None
        self.owner: Array | None = None
        self.single = 1.0 / min(self.pairs.shape[1], 100)
        self.tau_least, self.in_a_row, self.overflows = 0.0, 0, 0

    @property
    def dense(self) -> bool:
        """Whether the plan has too many entries for this method."""
        return self.overflows >= _MOST_DENSE and not self.patient

    def counts(self) -> dict[str, int]:
        """What was done."""
        entries = 0 if self.plan is None else self.plan.nnz
        return {
            "passes": self.passes, "matvec": self.matvecs, "newton": self.newtons, "sinkhorn": self.sinkhorns,
            "entries": entries,
        }  # fmt: skip

    def _wide(self, x: Array) -> Array:
        return self.xp.astype(x, self.wide, copy=False)

    # -- passes ----------------------------------------------------------------------------------------------------

    def row_update(self, G: Array) -> Array:
        """The row potential that makes the rows exact."""
        self.passes += 1
        return self.problem.log_a - self.pairs.logsumexp(G)

    def _columns(self, F: Array, guess: Array | None) -> tuple[Array, Array, float]:
        """Column update: log-sums, ``G``, and the objective in units of ``reg``."""
        xp = self.xp
        columns = self.pairs.T.logsumexp(F, guess)
        self.passes += 1
        G = self.problem.log_b - columns
        return columns, G, host_float(xp.sum(self.a * self._wide(F)) + xp.sum(self.b * self._wide(G)))

    def _rows(self, F: Array, G: Array, columns: Array, objective: float, tau: float) -> CloudState:
        """Row sums, and the large entries of the plan."""
        xp = self.xp
        # The last plan goes first: two of them need not fit.
        self.plan = self.owner = None
        tau = max(min(max(tau, _TAU_LEAST), _TAU), self.tau_least)
        r, entries = large_entries(self.pairs, F, G, self.problem.log_a, tau * self.single, self.limit)
        self.passes += 1
        if entries is None:
            self.tau_least = min(tau * _TAU_GROWTH, _TAU_MOST)
            self.overflows += tau >= _TAU_MOST
        else:
            self.plan, self.owner, self.overflows = SparsePlan(entries, self.pairs.shape, xp), F, 0
            # An equal share of ``tau`` for each column is far too careful: aim at what was left out in fact.
            total = host_float(xp.sum(r))
            left_out = max(total - self.plan.mass, 1e-15 * total)
            self.single = min(self.single * min(0.5 * tau * total / left_out, _LARGEST_GAIN), _LARGEST_SINGLE)
        return CloudState(F, G, columns, r, host_float(xp.sum(xp.abs(r - self.a))), objective)

    # -- what the loop asks for ------------------------------------------------------------------------------------

    def start(self, F: Array) -> CloudState:
        """The state whose row potential is ``F``."""
        columns, G, objective = self._columns(F, None)
        return self._rows(F, G, columns, objective, _TAU)

    def columns_exact(self, F: Array) -> CloudState:
        """The potentials of ``F``, its row sums not looked at yet."""
        columns, G, objective = self._columns(F, None)
        return CloudState(F, G, columns, self.a, math.inf, objective)

    def error(self, state: CloudState) -> float:
        return -1.0 if self.dense and state.error > self.problem.tolerance else state.error

    def verify(self, state: CloudState) -> tuple[CloudState, float]:
        xp = self.xp
        rows, columns = self.pairs.logsumexp(state.G), self.pairs.T.logsumexp(state.F)
        self.passes += 2
        r, c = (xp.exp(self._wide(p) + self._wide(logs)) for p, logs in ((state.F, rows), (state.G, columns)))
        missed = host_float(xp.sum(xp.abs(r - self.a)))
        truth = missed + host_float(xp.sum(xp.abs(c - self.b)))
        return state._replace(r=r, error=missed), truth

    def step(self, state: CloudState) -> CloudState:
        xp, mass = self.xp, self.problem.mass
        share = state.error / mass
        if self.owner is not None and self.owner is not state.F:
            # The loop went back to an older state.
            state = self._rows(state.F, state.G, state.columns, state.objective, share)
        good = host_bool(xp.all((state.r > 0) & xp.isfinite(state.r)))
        gap = self.a - state.r
        chi = host_float(xp.sum(gap * gap / state.r)) / mass if good else math.inf
        guarded = not good or (chi > _CHI and self.in_a_row < _MOST_SINKHORN)
        if self.plan is None or guarded:
            return self._sinkhorn(state, good, share)
        moved = self._newton(state, gap, share)
        return self._sinkhorn(state, good, share) if moved is None else moved

    def _sinkhorn(self, state: CloudState, good: bool, share: float) -> CloudState:
        xp = self.xp
        F = state.F + xp.astype(xp.log(self.a) - xp.log(state.r), state.F.dtype) if good else self.row_update(state.G)
        self.in_a_row, self.sinkhorns = self.in_a_row + 1, self.sinkhorns + 1
        columns, G, objective = self._columns(F, state.columns)
        return self._rows(F, G, columns, objective, share)

    def _newton(self, state: CloudState, gap: Array, share: float) -> CloudState | None:
        xp = self.xp
        d = self._direction(state.r, gap, share)
        slope = host_float(gap @ d)
        if not 0 < slope < math.inf:
            return None
        d = xp.astype(d, state.F.dtype)
        slack = 10.0 * finfo_eps(state.F.dtype, xp) * max(
            host_float(xp.sum(self.a * xp.abs(self._wide(state.F)))), host_float(xp.sum(self.b * xp.abs(self._wide(state.G))))
        )  # fmt: skip
        length = 1.0
        while length >= _SHORTEST:
            F = state.F + length * d
            columns, G, objective = self._columns(F, state.columns)
            if objective >= state.objective + _ARMIJO * length * slope - slack:
                self.in_a_row, self.newtons = 0, self.newtons + 1
                # A full step is expected to square the error.
                return self._rows(F, G, columns, objective, share * share if length == 1.0 else share)
            length /= 2.0
        return None

    def _direction(self, r: Array, gap: Array, share: float) -> Array:
        """Solve ``((1 + s) diag(r) - P diag(1/b) P^T) x = a - r`` in the variables that give it a diagonal of ones."""
        xp, plan, b = self.xp, self.plan, self.b
        assert plan is not None
        damping = _DAMPING * min(1.0, share)
        diagonal = xp.maximum(r - plan.squares(1.0 / b), 0.0) + damping * r
        diagonal = xp.maximum(diagonal, 1e-12 * xp.max(r))
        scale = 1.0 / xp.sqrt(diagonal)
        damped = (1.0 + damping) * r

        def action(y: Array) -> Array:
            self.matvecs += 1
            x = scale * y
            return scale * (damped * x - plan.apply(plan.adjoint(x) / b))

        n = r.shape[0]
        A = LinearOperator((n, n), action, rmatvec=action, dtype=self.wide, tags={"symmetric", "positive"})
        # By Cauchy and Schwarz this bounds the L1 norm of the residual itself.
        wanted = max(min(_CG_LOOSE, share), _CG_TIGHT) * share * self.problem.mass
        atol = wanted / host_float(xp.sqrt(xp.sum(diagonal)))
        with warnings.catch_warnings():
            # A direction that is not exact is still one.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return scale * cg(A, scale * gap, rtol=0.0, atol=atol, maxiter=_CG_STEPS).x

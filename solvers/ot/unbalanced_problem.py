"""An unbalanced transport problem as both of its methods see it, and what follows from its potentials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace
from ...backends.special import logsumexp
from ...backends.transfer import host_float
from ...backends.validation import check_scalar
from .geometry import Dense, Geometry
from .problem import finite, log_weights, potentials, weights
from .result import TransportResult


def prepare(cost: Any, a: Any, b: Any, reg: float, reg_a: float, reg_b: float, tol: float | None) -> UnbalancedProblem:
    geometry = cost if isinstance(cost, Geometry) else Dense(cost)
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


@dataclass(frozen=True, eq=False)
class UnbalancedProblem:
    """An unbalanced problem, checked; ``f`` and ``g`` are potentials of the KL gauge, finite everywhere.

    Points whose every pair is forbidden have lost their weight in ``a`` and ``b`` (``given`` has it still), at a price ``lost``.
    """

    geometry: Geometry
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
        f, g = potentials(x0, self.geometry)
        return finite(f, self.xp), finite(g, self.xp)

    def update(self, logs: Array, relaxation: float) -> Array:
        """The potential that maximises the dual, given ``logs`` of the other: ``-k reg logs``, ``k = r / (r + reg)``."""
        share = 1.0 if relaxation == math.inf else relaxation / (relaxation + self.reg)
        return -share * self.reg * finite(logs, self.xp)

    def target(self, weight: Array, f: Array, relaxation: float) -> Array:
        """The marginal that the optimality condition asks for."""
        return weight if relaxation == math.inf else weight * self.xp.exp(-f / relaxation)

    def shift(self, f: Array, g: Array) -> Array | float:
        """The best ``s`` for ``(f + s, g - s)``: any where both marginals are held exactly."""
        r1, r2 = self.reg_a, self.reg_b
        if min(r1, r2) == math.inf:
            return 0.0
        # A marginal that is held exactly has its mass already: the other potential alone decides.
        left = logsumexp(self.log_a if r1 == math.inf else self.log_a - f / r1, axis=0, xp=self.xp)
        right = logsumexp(self.log_b if r2 == math.inf else self.log_b - g / r2, axis=0, xp=self.xp)
        # Where every pair is forbidden nobody has any mass, and nothing is best.
        return 1.0 / (1.0 / r1 + 1.0 / r2) * (finite(left, self.xp) - finite(right, self.xp))

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
        return 0.0 if relaxation == math.inf else relaxation * kl_divergence(p, q, self.xp)

    def violation(self, f: Array, g: Array) -> float:
        """L1 violation of both optimality conditions, recomputed."""
        xp, kernel = self.xp, self.geometry.kernel(self.reg)
        F, G = self.log_a + f / self.reg, self.log_b + g / self.reg
        off_a = xp.exp(F + kernel.rows(G, None)) - self.target(self.a, f, self.reg_a)
        off_b = xp.exp(G + kernel.columns(F, None)) - self.target(self.b, g, self.reg_b)
        return host_float(xp.sum(xp.abs(off_a)) + xp.sum(xp.abs(off_b)))


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
        return self.primal - host_float(self.value)

    @property
    def duality_gap(self) -> float:
        """`gap`, no less than zero."""
        return max(self.gap, 0.0)

    @property
    def entropy_value(self) -> float:
        """Not of unbalanced transport, where another reference measure is another problem: an `InputError`."""
        raise InputError(
            "unbalanced transport has no value in the entropy gauge: with free marginals it is another problem with "
            "another plan; its value is that of the KL gauge"
        )

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


def kl_divergence(p: Array, q: Array, xp: Namespace) -> Array:
    """``KL(p | q) = sum p log(p / q) - p + q``; where ``p`` has mass, ``q`` must."""
    there = p > 0
    ratio = xp.where(there, p, 1.0) / xp.where(there, q, 1.0)
    return xp.sum(xp.where(there, p * xp.log(ratio), 0.0) - p + q)

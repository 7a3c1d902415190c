"""A transport problem as every solver sees it: checked weights, their logarithms, and how potentials become a result.

Inside the solvers the scaled potentials ``F = f / reg + log a`` and ``G = g / reg + log b`` are iterated, so that the plan is
``exp(F_i + G_j - C_ij / reg)`` and no logarithm of a weight appears in a pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device, finfo_eps
from ...backends.transfer import host_float
from ...backends.validation import check_array, check_scalar, check_weights
from ..result import Status
from .geometry import Dense, Geometry

if TYPE_CHECKING:
    from .result import TransportResult


# Part of the tolerance that rounding of the potentials may hide.
_UNSEEN = 0.1


@dataclass(frozen=True, eq=False)
class Problem:
    """``min <C, P> + reg KL(P | a b^T)`` over the plans with marginals ``a`` and ``b``.

    Attributes
    ----------
    geometry : Dense, PointCloud or Grid
        Where the cost lives.
    a, b : array (n,), (m,)
        Weights of equal sums, zeros allowed.
    log_a, log_b : array
        Their logarithms, minus infinity for a zero.
    reg, mass, tol : float
        Regularisation; the sum of the weights; the bound on the L1 violation relative to the mass.
    xp : namespace
        Of all arrays.
    """

    geometry: Geometry
    a: Array
    b: Array
    log_a: Array
    log_b: Array
    reg: float
    mass: float
    tol: float
    xp: Namespace

    @property
    def tolerance(self) -> float:
        """The bound on ``|P 1 - a|_1 + |P^T 1 - b|_1``."""
        return self.tol * self.mass

    def scaled(self, x0: Any) -> tuple[Array, Array]:
        """Scaled potentials from those of the KL gauge, given as a pair or as an earlier result (of another ``reg``, too)."""
        f, g = potentials(x0, self.geometry)
        return self.log_a + finite(f, self.xp) / self.reg, self.log_b + finite(g, self.xp) / self.reg

    def gauged(self, F: Array, G: Array) -> tuple[Array, Array]:
        """Potentials of the KL gauge from scaled ones, which are infinite where the weight is zero or nobody is reached."""
        xp = self.xp
        f = xp.where(xp.isfinite(F), (finite(F, xp) - finite(self.log_a, xp)) * self.reg, -math.inf)
        g = xp.where(xp.isfinite(G), (finite(G, xp) - finite(self.log_b, xp)) * self.reg, -math.inf)
        return f, g

    def result(self, F: Array, G: Array, **fields: Any) -> TransportResult:
        """The result of scaled potentials; ``fields`` are those of `Outcome`, ``evaluations``, ``method`` ..."""
        from .result import TransportResult

        xp = self.xp
        f, g = self.gauged(F, G)
        value = host_float(xp.sum(self.a * finite(f, xp)) + xp.sum(self.b * finite(g, xp)))
        result = TransportResult(
            f=f, g=g, value=value, a=self.a, b=self.b, reg=self.reg, geometry=self.geometry, **fields
        )
        return self._rechecked(result, F, G)

    def _rechecked(self, result: TransportResult, F: Array, G: Array) -> TransportResult:
        """A float32 result with the residual of the plan of its own potentials, where their rounding may be a part of it.

        Only of a stored cost: without one the pass in float64 would cost more than many of those in float32.
        """
        xp = self.xp
        if not isinstance(self.geometry, Dense) or self.a.dtype != xp.float32:
            return result
        largest = host_float(xp.max(xp.abs(finite(F, xp))) + xp.max(xp.abs(finite(G, xp))))
        if 2.0 * finfo_eps(xp.float32, xp) * largest <= _UNSEEN * self.tol or not math.isfinite(result.residual):
            return result
        from .plan_tiles import violation  # which stands on this module

        truth = violation(result)
        status = Status.STAGNATED if result.converged and truth > self.tolerance else result.status
        return replace(result, residual=truth, status=status)


def prepare(cost: Array | Geometry, a: Array | None, b: Array | None, *, reg: float, tol: float | None) -> Problem:
    """Check the arguments that every balanced solver shares; errors name them."""
    geometry = cost if isinstance(cost, Geometry) else Dense(cost)
    xp, like, (n, m) = geometry.xp, geometry.like, geometry.shape
    reg = check_scalar(reg, "reg", positive=True)
    a, b = weights(a, "a", n, like, xp), weights(b, "b", m, like, xp)
    mass, mass_b = host_float(xp.sum(a)), host_float(xp.sum(b))
    check_equal_sums(mass, mass_b, like, xp)
    tol = (1e-4 if like.dtype == xp.float32 else 1e-6) if tol is None else check_scalar(tol, "tol", positive=True)
    return Problem(geometry, a, b, log_weights(a, xp), log_weights(b, xp), reg, mass, tol, xp)


def check_equal_sums(mass: float, mass_b: float, like: Array, xp: Namespace) -> None:
    """Require that the sums of ``a`` and ``b`` agree to the precision of ``like``."""
    if abs(mass - mass_b) > 1e3 * finfo_eps(like.dtype, xp) * mass:
        raise InputError(
            f"a sums to {mass:.9g} and b to {mass_b:.9g}; balanced transport needs equal sums (normalise them, or see "
            "unbalanced transport)"
        )


def potentials(x0: Any, geometry: Geometry) -> tuple[Array, Array]:
    """The potentials to start from, a pair or those of an earlier result: what every solver asks of its ``x0``."""
    pair = (x0.f, x0.g) if hasattr(x0, "f") and hasattr(x0, "g") else x0
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"x0 must be a pair of potentials (f, g) or an earlier result, got {type(x0).__name__}")
    for name, x, n in zip(("x0[0]", "x0[1]"), pair, geometry.shape, strict=True):
        potential(x, name, n, geometry)
    return pair[0], pair[1]


def potential(x: Any, name: str, n: int, geometry: Geometry) -> Array:
    """One potential of ``n`` points; infinite where a weight is zero."""
    array_namespace(cost=geometry.like, **{name: x})
    return check_array(x, name, geometry.xp, shape=(n,), dtype=geometry.like.dtype, finite=False)


def weights(w: Array | None, name: str, n: int, like: Array, xp: Namespace) -> Array:
    """The weights, uniform where none are given."""
    if w is None:
        return xp.full((n,), 1.0 / n, dtype=like.dtype, device=device(like))
    array_namespace(cost=like, **{name: w})
    return check_weights(w, name, xp, n=n, dtype=like.dtype)


def log_weights(w: Array, xp: Namespace) -> Array:
    """Logarithms, minus infinity for a zero."""
    return xp.where(w > 0, xp.log(xp.where(w > 0, w, 1.0)), -math.inf)


def finite(x: Array, xp: Namespace) -> Array:
    """``x`` with zeros in the place of infinities."""
    return xp.where(xp.isfinite(x), x, 0.0)


def shrinkage(weight: Array, total: Array, xp: Namespace) -> Array:
    """``min(1, weight / total)``; one where there is nothing to shrink."""
    over = total > weight
    return xp.where(over, weight / xp.where(over, total, 1.0), 1.0)

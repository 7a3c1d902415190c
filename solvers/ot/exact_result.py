"""An exact plan by its entries, with dual potentials: the result of every exact method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace
from ...backends.operators import LinearOperator
from ...backends.scatter import segment_sum
from ...backends.transfer import host_float
from ..result import Status
from .geometry import Dense
from .grid import Grid
from .problem import finite
from .result import TransportResult


@dataclass(frozen=True, kw_only=True, repr=False)
class ExactResult(TransportResult):
    """An exact plan, by its entries, with dual potentials.

    Attributes
    ----------
    f, g : array (n,), (m,)
        Dual potentials: ``f_i + g_j <= C_ij``, with equality where the plan has mass.
    value : float
        ``<C, P>``.
    rows, columns, weights : array (k,)
        The entries of the plan; an entry may have no mass.
    reg : float
        Zero.
    residual : float
        ``|P 1 - a|_1 + |P^T 1 - b|_1``, recomputed.
    """

    rows: Array
    columns: Array
    weights: Array

    @property
    def dual_value(self) -> float:
        """``<a, f> + <b, g>``, equal to ``value`` up to rounding."""
        xp = self.geometry.xp
        return host_float(xp.sum(self.a * finite(self.f, xp)) + xp.sum(self.b * finite(self.g, xp)))

    @property
    def transport_cost(self) -> float:
        """``<C, P>``: the value itself."""
        return host_float(self.value)

    @property
    def duality_gap(self) -> float:
        """``value - dual_value``, zero up to rounding."""
        return max(self.transport_cost - self.dual_value, 0.0)

    def marginals(self) -> tuple[Array, Array]:
        """Sums of the rows (n,) and of the columns (m,) of the plan."""
        xp, (n, m) = self.geometry.xp, self.geometry.shape
        return segment_sum(self.weights, self.rows, n, xp=xp, trusted=True), segment_sum(
            self.weights, self.columns, m, xp=xp, trusted=True
        )

    def entries(self) -> Array:
        """The plan as an array."""
        xp, (n, m) = self.geometry.xp, self.geometry.shape
        return xp.reshape(segment_sum(self.weights, self.rows * m + self.columns, n * m, xp=xp, trusted=True), (n, m))

    def scaled(self) -> tuple[Array, Array]:
        """Not of an exact plan, which is not a scaled kernel: an `InputError`."""
        raise InputError(
            "an exact plan has no scalings, for it is not exp(F + G - C / reg); its potentials are f and g"
        )

    @property
    def plan(self) -> LinearOperator:
        """The plan (n, m) as a sparse operator."""
        xp, (n, m) = self.geometry.xp, self.geometry.shape

        def product(v: Array, take: Array, put: Array, k: int) -> Array:
            w = self.weights if v.ndim == 1 else self.weights[:, None]
            return segment_sum(w * xp.take(v, take, axis=0), put, k, xp=xp, trusted=True)

        def apply(v: Array) -> Array:
            return product(v, self.columns, self.rows, n)

        def adjoint(u: Array) -> Array:
            return product(u, self.rows, self.columns, m)

        return LinearOperator(
            (n, m), apply, matmat=apply, rmatvec=adjoint, rmatmat=adjoint, dtype=self.f.dtype, name="plan"
        )

    def transport(self, points: Array | None = None, target: Array | None = None) -> Array:
        """Where each source point goes: the mean of its target points under the plan, zero for a point without weight."""
        xp, geometry = self.geometry.xp, self.geometry
        if points is not None:
            raise InputError("points must be left out: an exact plan carries its own source points only")
        if target is None:
            if isinstance(geometry, Dense):
                raise InputError("target must be given when the cost is a matrix")
            target = geometry.points if isinstance(geometry, Grid) else geometry.y
        self.check_target(target)
        mass = xp.where(self.a > 0, self.a, 1.0)
        return (self.plan @ target) / (mass if target.ndim == 1 else mass[:, None])


def exact_result(
    geometry: Any, a: Array, b: Array, rows: Array, columns: Array, w: Array, f: Array, g: Array, value: float, method: str,
    xp: Namespace,
) -> ExactResult:  # fmt: skip
    """The result of these entries, judged by the marginals that they have."""
    n, m = geometry.shape
    off = xp.sum(xp.abs(segment_sum(w, rows, n, xp=xp, trusted=True) - a))
    off = off + xp.sum(xp.abs(segment_sum(w, columns, m, xp=xp, trusted=True) - b))
    residual, bound = host_float(off), (1e-4 if a.dtype == xp.float32 else 1e-7) * host_float(xp.sum(a))
    return ExactResult(
        f=f, g=g, value=value, a=a, b=b, reg=0.0, geometry=geometry, rows=rows, columns=columns, weights=w, method=method,
        status=Status.CONVERGED if residual <= bound else Status.STAGNATED, n_iter=0, residual=residual, tolerance=bound,
    )  # fmt: skip

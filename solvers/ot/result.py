"""The one result of every transport solver: potentials, and what follows from them without storing the plan."""

from __future__ import annotations

from dataclasses import dataclass

from ...backends.errors import InputError
from ...backends.namespace import Array, array_namespace
from ...backends.operators import LinearOperator
from ...backends.validation import check_array
from ..result import Result
from .geometry import Dense, Geometry
from .grid import Grid
from .problem import finite, log_weights


@dataclass(frozen=True, kw_only=True, repr=False)
class TransportResult(Result):
    """Potentials of an entropic transport problem and what follows from them.

    Attributes
    ----------
    f, g : array (n,), (m,)
        Dual potentials in the KL gauge: the plan is ``a_i b_j exp((f_i + g_j - C_ij) / reg)``; infinite where a weight is 0.
    value : float
        Dual value ``<a, f> + <b, g>``, in the units of the cost.
    a, b : array (n,), (m,)
        The weights.
    reg : float
        The regularisation.
    geometry : Dense, PointCloud or Grid
        Where the cost lives.
    residual : float
        ``|P 1 - a|_1 + |P^T 1 - b|_1``, recomputed.
    method, why : str
        The solver, and of `solve` the reason for its choice.
    """

    f: Array
    g: Array
    value: float
    a: Array
    b: Array
    reg: float
    geometry: Geometry
    method: str = ""
    why: str = ""

    def scaled(self) -> tuple[Array, Array]:
        """``F = f / reg + log a`` and ``G = g / reg + log b``: the plan is ``exp(F_i + G_j - C_ij / reg)``."""
        xp = self.geometry.xp
        return log_weights(self.a, xp) + finite(self.f, xp) / self.reg, log_weights(self.b, xp) + finite(
            self.g, xp
        ) / self.reg

    @property
    def plan(self) -> LinearOperator:
        """The transport plan (n, m) as an operator: ``plan @ v`` and ``plan.T @ u``, never stored."""
        kernel, (F, G) = self.geometry.kernel(self.reg), self.scaled()
        xp = self.geometry.xp

        # A product is a softmax average times a row sum: nothing under- or overflows on the way.
        def apply(v: Array) -> Array:
            mass = xp.exp(F + kernel.rows(G, None))
            return kernel.row_average(G, v) * (mass if v.ndim == 1 else mass[:, None])

        def adjoint(u: Array) -> Array:
            mass = xp.exp(G + kernel.columns(F, None))
            return kernel.column_average(F, u) * (mass if u.ndim == 1 else mass[:, None])

        return LinearOperator(
            self.geometry.shape,
            apply,
            matmat=apply,
            rmatvec=adjoint,
            rmatmat=adjoint,
            dtype=self.f.dtype,
            name="plan",
        )

    def transport(self, points: Array | None = None, target: Array | None = None) -> Array:
        """Barycentric projection: where each source point goes, the mean of its target points under the plan.

        Parameters
        ----------
        points : array (p, d), optional
            Other source points (for a `PointCloud`), carried along by the same potential; default the source itself.
        target : array (m, e), optional
            What to average, default the target points (of a grid, its cells' positions); required for a cost matrix.
        """
        xp, geometry, (_, G) = self.geometry.xp, self.geometry, self.scaled()
        if isinstance(geometry, Dense):
            if points is not None or target is None:
                raise InputError("target must be given, and points left out, when the cost is a matrix")
            check_array(target, "target", xp, ndim=2, dtype=self.f.dtype)
            return geometry.kernel(self.reg).row_average(G, target)
        if isinstance(geometry, Grid):
            if points is not None:
                raise InputError("points must be left out when the cost lives on a grid")
            return geometry.kernel(self.reg).row_average(G, geometry.points if target is None else target)
        values = geometry.y if target is None else target
        if points is None:
            return geometry.kernel(self.reg).row_average(G, values)
        array_namespace(points=points, x=geometry.x)
        check_array(points, "points", xp, shape=(None, geometry.x.shape[1]), dtype=self.f.dtype)
        return geometry.pairs(points, self.reg).softmax_sum(values, G)[0]

"""The one result of every transport solver: potentials, and what follows from them without storing the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, array_namespace, finfo_eps, wide_dtype
from ...backends.operators import LinearOperator
from ...backends.transfer import host_float
from ...backends.validation import check_array, check_scalar
from .geometry import Dense, Geometry, PointCloud
from .grid import Grid
from .plan_tiles import plan_tiles
from .problem import finite, log_weights, shrinkage
from .words import TransportOutcome


@dataclass(frozen=True, kw_only=True, repr=False)
class TransportResult(TransportOutcome):
    """Potentials of an entropic transport problem and what follows from them.

    Attributes
    ----------
    f, g : array (n,), (m,)
        Dual potentials in the KL gauge: the plan is ``a_i b_j exp((f_i + g_j - C_ij) / reg)``; infinite where a weight is 0.
    value : float
        Dual value ``<a, f> + <b, g>``, in the units of the cost. Where a torch input (cost, points, weights or ``reg``)
        required grad, a 0-d tensor that carries it, once; the other fields carry none, see `plan_vjp`.
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
    value: Any
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
        target : array (m,) or (m, e), optional
            What to average, default the target points (of a grid, its cells' positions); required for a cost matrix.
        """
        xp, geometry, (_, G) = self.geometry.xp, self.geometry, self.scaled()
        self.check_target(target)
        if isinstance(geometry, Dense):
            if points is not None or target is None:
                raise InputError("target must be given, and points left out, when the cost is a matrix")
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

    def check_target(self, target: Array | None) -> None:
        """Refuse what is not one number, or one row of them, for each target point."""
        if target is None:
            return
        xp, m = self.geometry.xp, self.geometry.shape[1]
        array_namespace(cost=self.geometry.like, target=target)
        check_array(target, "target", xp, ndim=(1, 2), dtype=self.f.dtype)
        if target.shape[0] != m:
            raise InputError(f"target has shape {tuple(target.shape)}, expected {m} rows, one for each target point")

    def marginals(self) -> tuple[Array, Array]:
        """Sums of the rows (n,) and of the columns (m,) of the plan: two passes."""
        kernel, (F, G), xp = self.geometry.kernel(self.reg), self.scaled(), self.geometry.xp
        return xp.exp(F + kernel.rows(G, None)), xp.exp(G + kernel.columns(F, None))

    @property
    def marginal_errors(self) -> tuple[float, float]:
        """``|P 1 - a|_1`` and ``|P^T 1 - b|_1``."""
        xp, (rows, columns) = self.geometry.xp, self.marginals()
        return host_float(xp.sum(xp.abs(rows - self.a))), host_float(xp.sum(xp.abs(columns - self.b)))

    @property
    def transport_cost(self) -> float:
        """``<C, P>``, the cost of the plan without its regularisation: one pass, summed in float64 where the device has it."""
        geometry, xp = self.geometry, self.geometry.xp
        if isinstance(geometry, PointCloud) and geometry.metric == "sqeuclidean":
            rows, costs, _ = self.row_means(geometry)
            return host_float(xp.sum(rows * costs, dtype=wide_dtype(rows, xp)))
        # A forbidden pair has an infinite cost and no mass.
        parts = [xp.sum(plan * xp.where(plan > 0, tile.cost, 0.0)) for tile, plan in plan_tiles(self)]
        return host_float(xp.sum(xp.stack(parts)))

    def row_means(self, cloud: PointCloud) -> tuple[Array, Array, Array]:
        """Of squared distances, in one pass: the sums of the rows, and over the partners of each ``x`` the mean cost and the
        mean of ``g``."""
        xp, (F, G) = cloud.xp, self.scaled()
        centre, d = xp.mean(cloud.y, axis=0), cloud.y.shape[1]
        x, y = cloud.x - centre, cloud.y - centre
        # The mean of |x - y|^2 follows from those of y and |y|^2.
        moments = xp.concat([y, xp.sum(y * y, axis=1)[:, None], finite(self.g, xp)[:, None]], axis=1)
        means, logs = cloud.pairs(cloud.x, self.reg).softmax_sum(moments, G)
        partners = means[:, :d]
        spread = xp.maximum(means[:, d] - xp.sum(partners * partners, axis=1), 0.0)
        costs = cloud.factor * (xp.sum((x - partners) ** 2, axis=1) + spread)
        return xp.exp(F + logs), costs, means[:, d + 1]

    @property
    def entropy_value(self) -> float:
        """The value in the entropy gauge: the minimum of ``<C, P> + reg sum P (log P - 1)``.

        It is ``value + reg (sum a log a + sum b log b - mass)``; POT's ``reg_type="entropy"`` leaves out the -1 and is larger
        by ``reg`` times the mass.
        """
        xp = self.geometry.xp
        logs = xp.sum(self.a * finite(log_weights(self.a, xp), xp)) + xp.sum(
            self.b * finite(log_weights(self.b, xp), xp)
        )
        return host_float(self.value) + self.reg * host_float(logs - xp.sum(self.a))

    @property
    def duality_gap(self) -> float:
        """What the value can be wrong by: the objective of the plan rounded onto the marginals, less the dual value.

        Never negative: it equals ``reg`` times the Kullback-Leibler divergence of the rounded plan (Altschuler, Weed and
        Rigollet 2017) from the plan, and is summed as that, so that no difference of large numbers hides it.
        """
        xp, (rows, _) = self.geometry.xp, self.marginals()
        shrink = shrinkage(self.a, rows, xp)
        columns = self.plan.T @ shrink
        squeeze = shrinkage(self.b, columns, xp)
        lack_a = xp.maximum(self.a - shrink * (self.plan @ squeeze), 0.0)
        lack_b = xp.maximum(self.b - squeeze * columns, 0.0)
        # What is lacking by rounding alone must not be sent over a forbidden pair, which would cost infinitely much.
        total, least = xp.sum(lack_b), 10 * finfo_eps(lack_b.dtype, xp) * xp.sum(self.b)
        lack_b = xp.where(total > least, lack_b / xp.maximum(total, least), 0.0)
        F, G = self.scaled()
        parts = []
        for tile, plan in plan_tiles(self):
            rows_of = slice(tile.start, tile.stop)
            rounded = shrink[rows_of][:, None] * plan * squeeze[None, :] + lack_a[rows_of][:, None] * lack_b[None, :]
            logs = F[rows_of][:, None] + G[None, :] + tile.logs
            # Of the logarithms: the plan may have underflowed where the rounded one has mass.
            ratio = xp.log(xp.where(rounded > 0, rounded, 1.0)) - xp.where(rounded > 0, logs, 0.0)
            parts.append(xp.sum(xp.where(rounded > 0, rounded * ratio, 0.0) - rounded + plan))
        return self.reg * max(host_float(xp.sum(xp.stack(parts))), 0.0)

    def dense_plan(self, limit: float = 2**30) -> Array:
        """The plan as an (n, m) array.

        Parameters
        ----------
        limit : float
            Most bytes it may take; more is an `InputError`. Larger plans are for `plan`, which stores nothing.
        """
        xp, (n, m) = self.geometry.xp, self.geometry.shape
        size = n * m * (4 if self.f.dtype == xp.float32 else 8)
        if size > check_scalar(limit, "limit", positive=True, finite=False):
            raise InputError(
                f"the plan of shape {(n, m)} would take {size / 2**20:.0f} MiB, more than the limit of {limit / 2**20:.0f} "
                "MiB; raise limit, or use the operator result.plan"
            )
        return self.entries()

    def entries(self) -> Array:
        """The plan as an array, however large."""
        xp = self.geometry.xp
        return xp.concat([xp.astype(plan, self.f.dtype) for _, plan in plan_tiles(self)], axis=0)

    def to_pot(self) -> dict[str, Array]:
        """The potentials as POT names them.

        Returns
        -------
        dict
            ``log_u``, ``log_v``: of the plan ``exp(log_u_i + log_v_j - C_ij / reg)``, as ``ot.bregman.sinkhorn_log`` logs
            them, ``ot.solve(...).potentials`` holds them and ``warmstart`` takes them; ``u``, ``v``: their exponentials, the
            scalings of ``ot.sinkhorn``, which over- or underflow for small ``reg``; ``alpha``, ``beta``: the first two
            times ``reg``, in the units of the cost (entropy gauge, ``f + reg log a``).
        """
        xp, (F, G) = self.geometry.xp, self.scaled()
        return {"log_u": F, "log_v": G, "u": xp.exp(F), "v": xp.exp(G), "alpha": self.reg * F, "beta": self.reg * G}

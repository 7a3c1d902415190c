"""Sinkhorn divergence: the entropic transport value without its bias (Genevay et al. 2018; Feydy et al. 2019).

``S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2`` in the KL gauge: non-negative, zero only for equal measures (for costs whose
kernel is positive definite), between transport (reg -> 0) and a kernel distance (reg -> infinity). The self terms take one
symmetric iteration each; gradients follow from the potentials by the envelope theorem, without a further solve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device
from ...backends.special import softmax
from ...backends.transfer import host_float
from ..iterate import LoopOptions, warn_unless_converged
from ..result import Status
from .autograd import attached, bare
from .geometry import Dense, PointCloud
from .gradients import information
from .problem import finite, prepare
from .result import TransportResult
from .self_transport import check_symmetric, solve_self
from .sinkhorn import sinkhorn
from .words import TransportOutcome

Solver = Callable[..., TransportResult]


def sinkhorn_divergence(
    x: Array,
    y: Array,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    cost: Any = "sqeuclidean",
    tol: float | None = None,
    maxiter: int = 10_000,
    solver: Solver = sinkhorn,
    time_limit: float | None = None,
    **options: Any,
) -> DivergenceResult:
    """Sinkhorn divergence of two weighted point clouds: ``OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2``.

    Parameters
    ----------
    x, y : array (n, d), (m, d)
        Points.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform.
    reg : float
        Regularisation in the units of the cost.
    cost : str or callable
        A symmetric cost, as of `PointCloud`.
    tol : float, optional
        Bound on the L1 violation of the marginals of all three problems, relative to the mass; default 1e-6, in float32 1e-4.
    maxiter : int
        Most iterations of each problem.
    solver : callable
        Solves the cross term: `sinkhorn`, or any solver with its first arguments.
    time_limit : float, optional
        Seconds for each problem.
    **options
        Options of `PointCloud`, e.g. ``threads``.

    Returns
    -------
    DivergenceResult
        The value, the three transport results, and the gradients.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        One of the problems is not within ``tol``.

    References
    ----------
    A. Genevay, G. Peyre, M. Cuturi, Learning generative models with Sinkhorn divergences, 2018. J. Feydy et al.,
    Interpolating between optimal transport and MMD using Sinkhorn divergences, 2019.

    Examples
    --------
    A translation by ``t`` costs exactly ``|t|^2``, whatever the regularisation:

    >>> import numpy as np
    >>> from xpsolve.solvers.ot.divergence import sinkhorn_divergence
    >>> x = np.asarray([[0.0], [1.0], [3.0]])
    >>> result = sinkhorn_divergence(x, x + 2.0, reg=1.0, tol=1e-12)
    >>> round(result.value, 6)
    4.0
    >>> result.grad_x().round(4).tolist()
    [[-1.3333], [-1.3333], [-1.3333]]
    """
    given = {"x": x, "y": y, "a": a, "b": b, "reg": reg}
    x, y, a, b, reg = (bare(z) for z in given.values())
    clouds = (PointCloud(x, y, cost, **options), PointCloud(x, x, cost, **options), PointCloud(y, y, cost, **options))
    limits = LoopOptions(maxiter=maxiter, time_limit=time_limit)
    return _with_gradient(_divergence(clouds, a, b, reg, tol, limits, solver), given)


def sinkhorn_divergence_from_costs(
    C_xy: Array,
    C_xx: Array,
    C_yy: Array,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 10_000,
    solver: Solver = sinkhorn,
    time_limit: float | None = None,
) -> DivergenceResult:
    """Sinkhorn divergence of three cost matrices: between the measures, and of each with itself.

    Parameters
    ----------
    C_xy, C_xx, C_yy : array (n, m), (n, n), (m, m)
        Costs; the last two symmetric.
    a, b, reg, tol, maxiter, solver, time_limit
        As of `sinkhorn_divergence`.

    Returns
    -------
    DivergenceResult
        Gradients with respect to the weights only.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.divergence import sinkhorn_divergence_from_costs
    >>> x, y = np.asarray([0.0, 1.0]), np.asarray([2.0, 3.0])
    >>> C = [(u[:, None] - v) ** 2 for u, v in ((x, y), (x, x), (y, y))]
    >>> round(sinkhorn_divergence_from_costs(*C, reg=0.5, tol=1e-12).value, 6)
    4.0
    """
    given = {"C_xy": C_xy, "C_xx": C_xx, "C_yy": C_yy, "a": a, "b": b, "reg": reg}
    C_xy, C_xx, C_yy, a, b, reg = (bare(z) for z in given.values())
    array_namespace(C_xy=C_xy, C_xx=C_xx, C_yy=C_yy)
    geometries = (Dense(C_xy, "C_xy"), Dense(C_xx, "C_xx"), Dense(C_yy, "C_yy"))
    for C, name, k in ((geometries[1], "C_xx", 0), (geometries[2], "C_yy", 1)):
        check_symmetric(C, name)
        if C.shape[0] != C_xy.shape[k]:
            raise InputError(f"{name} has shape {C.shape}, expected ({C_xy.shape[k]}, {C_xy.shape[k]}) as of C_xy")
    limits = LoopOptions(maxiter=maxiter, time_limit=time_limit)
    return _with_gradient(_divergence(geometries, a, b, reg, tol, limits, solver), given)


def _with_gradient(result: DivergenceResult, given: dict[str, Any]) -> DivergenceResult:
    """The result with a ``value`` that torch can differentiate by those of the arguments that require grad."""

    def found(names: tuple[str, ...]) -> dict[str, Array]:
        return {name: _GRADIENTS[name](result) for name in names}

    value = attached(result.value, result.cross.f, found, given)
    return result if value is result.value else replace(result, value=value)


def _divergence(
    geometries: tuple[Any, Any, Any],
    a: Array | None,
    b: Array | None,
    reg: float,
    tol: float | None,
    limits: LoopOptions,
    solver: Solver,
) -> DivergenceResult:
    problem = prepare(geometries[0], a, b, reg=reg, tol=tol)
    extra = {} if limits.time_limit is None else {"time_limit": limits.time_limit}
    cross = solver(
        geometries[0], problem.a, problem.b, reg=problem.reg, tol=problem.tol, maxiter=limits.maxiter, **extra
    )
    self_a, self_b = (
        solve_self(prepare(geometry, w, w, reg=reg, tol=problem.tol), limits)
        for geometry, w in ((geometries[1], problem.a), (geometries[2], problem.b))
    )
    runs = (cross, self_a, self_b)
    worst = next((r for r in runs if not r.converged), cross)
    result = DivergenceResult(
        status=worst.status,
        n_iter=max(r.n_iter for r in runs),
        residual=max(r.residual for r in runs),
        tolerance=problem.tolerance,
        evaluations={"passes": sum(r.evaluations.get("passes", 0) for r in runs)},
        value=cross.value - 0.5 * (self_a.value + self_b.value),
        cross=cross,
        self_a=self_a,
        self_b=self_b,
    )
    # The cross term has warned for itself.
    if cross.converged or cross.status is Status.STOPPED:
        warn_unless_converged(result, "sinkhorn_divergence")
    return result


@dataclass(frozen=True, kw_only=True, repr=False)
class DivergenceResult(TransportOutcome):
    """A Sinkhorn divergence, the three problems behind it, and its gradients.

    Attributes
    ----------
    value : float
        ``OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2``, non-negative up to the square of the residual. Where a torch input
        (points, costs, weights or ``reg``) requires grad it is a 0-d tensor that carries it.
    cross, self_a, self_b : TransportResult
        The three problems.
    n_iter, residual : int, float
        The largest of the three.
    """

    value: Any
    cross: TransportResult
    self_a: TransportResult
    self_b: TransportResult

    def grad_a(self) -> Array:
        """Gradient (n,) with respect to ``a``, up to a constant: only its differences matter, as the mass is fixed.

        The constant is chosen so that ``<a, grad_a> = value / 2``; it is finite at zero weights too.
        """
        return self._weights_gradient(self.self_a, self.cross.a, rows=True)

    def grad_b(self) -> Array:
        """Gradient (m,) with respect to ``b``; as `grad_a`."""
        return self._weights_gradient(self.self_b, self.cross.b, rows=False)

    def _weights_gradient(self, own: TransportResult, w: Array, *, rows: bool) -> Array:
        cross, xp = self.cross, self.cross.geometry.xp
        (F, G), (own_F, _) = cross.scaled(), own.scaled()
        kernel = cross.geometry.kernel(cross.reg)
        # The soft c-transforms: equal to the potentials where there is weight, their smooth extension where there is none.
        across = kernel.rows(G, None) if rows else kernel.columns(F, None)
        gradient = cross.reg * (finite(own.geometry.kernel(own.reg).rows(own_F, None), xp) - finite(across, xp))
        mass = host_float(xp.sum(w))
        return gradient + (0.5 * host_float(self.value) - host_float(xp.sum(w * gradient))) / mass

    def grad_x(self) -> Array:
        """Gradient (n, d) with respect to the points ``x``; of Euclidean costs the kink at coincident points counts as 0."""
        cloud, own = self._clouds(self.self_a)
        G, own_F = self.cross.scaled()[1], self.self_a.scaled()[0]
        reg, a = self.cross.reg, self.cross.a
        force = point_gradient(cloud, cloud.x, cloud.y, G, reg) - point_gradient(own, own.x, own.x, own_F, reg)
        return a[:, None] * force

    def grad_y(self) -> Array:
        """Gradient (m, d) with respect to the points ``y``; as `grad_x`."""
        cloud, own = self._clouds(self.self_b)
        F, own_F = self.cross.scaled()[0], self.self_b.scaled()[0]
        reg, b = self.cross.reg, self.cross.b
        force = point_gradient(cloud, cloud.y, cloud.x, F, reg) - point_gradient(own, own.x, own.x, own_F, reg)
        return b[:, None] * force

    def grad_reg(self) -> float:
        """Derivative with respect to ``reg``: that of the cross term less half of those of the self terms."""
        cross, self_a, self_b = (host_float(information(run)) for run in (self.cross, self.self_a, self.self_b))
        return cross - 0.5 * (self_a + self_b)

    def _clouds(self, own: TransportResult) -> tuple[PointCloud, PointCloud]:
        first, second = self.cross.geometry, own.geometry
        if not isinstance(first, PointCloud) or not isinstance(second, PointCloud):
            raise InputError("the gradient with respect to points needs point clouds, not cost matrices")
        return first, second


_GRADIENTS: dict[str, Callable[[DivergenceResult], Array]] = {
    "x": DivergenceResult.grad_x,
    "y": DivergenceResult.grad_y,
    "a": DivergenceResult.grad_a,
    "b": DivergenceResult.grad_b,
    "C_xy": lambda result: result.cross.entries(),
    "C_xx": lambda result: -0.5 * result.self_a.entries(),
    "C_yy": lambda result: -0.5 * result.self_b.entries(),
    "reg": lambda result: result.cross.geometry.xp.asarray(
        result.grad_reg(), dtype=result.cross.f.dtype, device=device(result.cross.f)
    ),
}

# Entries of one tile: small enough for the cache.
_TILE = 2**17


def point_gradient(cloud: PointCloud, x: Array, y: Array, logs: Array, reg: float) -> Array:
    """``sum_j w_ij d/dx_i c(x_i, y_j)`` (n, d), the weights ``w_i`` proportional to ``exp(logs_j - c(x_i, y_j) / reg)``."""
    xp, metric, factor = cloud.xp, cloud.metric, cloud.factor
    if metric == "sqeuclidean":
        pairs = PointCloud(x, y, "sqeuclidean", **cloud.options)
        return 2.0 * factor * (x - pairs.pairs(x, reg / factor).softmax_sum(y, logs)[0])
    if callable(metric):
        raise InputError("the gradient with respect to points is known for the named costs only, not for a function")
    step = max(1, _TILE // y.shape[0])
    n = x.shape[0]
    tiles = [_tile(x[i : min(i + step, n), :], y, logs, reg / factor, metric, xp) for i in range(0, n, step)]
    return factor * xp.concat(tiles, axis=0)


def _tile(x: Array, y: Array, logs: Array, reg: float, metric: str, xp: Namespace) -> Array:
    gaps = [x[:, k][:, None] - y[:, k][None, :] for k in range(x.shape[1])]
    if metric == "euclidean":
        total = sum((gap * gap for gap in gaps[1:]), gaps[0] * gaps[0])
        cost = xp.sqrt(total)
        slopes = [gap / xp.where(cost > 0, cost, 1.0) for gap in gaps]
    else:
        cost = sum((xp.abs(gap) for gap in gaps[1:]), xp.abs(gaps[0]))
        slopes = [xp.sign(gap) for gap in gaps]
    w = softmax(logs[None, :] - cost / reg, axis=1, xp=xp)
    return xp.stack([xp.sum(w * slope, axis=1) for slope in slopes], axis=1)

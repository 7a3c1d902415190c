"""Entropic optimal transport by Sinkhorn's iteration in the log domain (Cuturi 2013; Peyre and Cuturi 2019, section 4.4).

    minimise  <C, P> + reg KL(P | a b^T)   over  P >= 0, P 1 = a, P^T 1 = b

Inside, the scaled potentials ``F = f / reg + log a`` and ``G = g / reg + log b`` are iterated, so that the plan is
``exp(F_i + G_j - C_ij / reg)`` and no logarithm of a weight appears in a pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device, finfo_eps
from ...backends.operators import LinearOperator
from ...backends.random import Sampler
from ...backends.transfer import host_float
from ...backends.validation import check_array, check_scalar, check_weights
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ..result import Result
from .geometry import Dense, PointCloud

# A coarse start pays when a full pass costs far more than the whole coarse problem.
_COARSE_PAIRS = 4_000_000
_COARSE_POINTS = 1500


@dataclass(frozen=True, kw_only=True, repr=False)
class SinkhornResult(Result):
    """Potentials of an entropic transport problem and what follows from them.

    Attributes
    ----------
    f, g : array (n,), (m,)
        Dual potentials in the KL gauge: the plan is ``a_i b_j exp((f_i + g_j - C_ij) / reg)``; infinite where a weight is 0.
    value : float
        Dual value ``<a, f> + <b, g>``, in the units of the cost.
    residual : float
        ``|P 1 - a|_1 + |P^T 1 - b|_1``, recomputed.
    """

    f: Array
    g: Array
    value: float
    a: Array
    b: Array
    reg: float
    geometry: Dense | PointCloud

    def _scaled(self) -> tuple[Array, Array]:
        xp = self.geometry.xp
        return _log(self.a, xp) + _finite(self.f, xp) / self.reg, _log(self.b, xp) + _finite(self.g, xp) / self.reg

    @property
    def plan(self) -> LinearOperator:
        """The transport plan (n, m) as an operator: ``plan @ v`` and ``plan.T @ u``, never stored."""
        kernel, (F, G) = self.geometry.kernel(self.reg), self._scaled()
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
            What to average, default the target points; required for a cost matrix.
        """
        xp, geometry, (_, G) = self.geometry.xp, self.geometry, self._scaled()
        if isinstance(geometry, Dense):
            if points is not None or target is None:
                raise InputError("target must be given, and points left out, when the cost is a matrix")
            check_array(target, "target", xp, ndim=2, dtype=self.f.dtype)
            return geometry.kernel(self.reg).row_average(G, target)
        values = geometry.y if target is None else target
        if points is None:
            return geometry.kernel(self.reg).row_average(G, values)
        array_namespace(points=points, x=geometry.x)
        check_array(points, "points", xp, shape=(None, geometry.x.shape[1]), dtype=self.f.dtype)
        return geometry.pairs(points, self.reg).softmax_sum(values, G)[0]


def sinkhorn(
    cost: Array | Dense | PointCloud,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 10_000,
    x0: tuple[Array, Array] | None = None,
    omega: float = 1.0,
    coarse: bool | str = "auto",
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
    rng: Any = 0,
) -> SinkhornResult:
    """Entropic optimal transport: ``min <C, P> + reg KL(P | a b^T)`` with marginals ``a`` and ``b``.

    Parameters
    ----------
    cost : array (n, m) or PointCloud
        A cost matrix (plus infinity forbids a pair), or two point clouds whose costs are never stored.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform. Zero weights are legal.
    reg : float
        Regularisation in the units of the cost (POT's ``reg``, OTT's epsilon, GeomLoss's ``blur ** p``).
    tol : float, optional
        Bound on the L1 violation of both marginals, relative to the mass; default 1e-6, in float32 1e-4.
    maxiter : int
        Most iterations, each one pass over the rows and one over the columns.
    x0 : (f, g), optional
        Potentials to start from, e.g. of an earlier result.
    omega : float
        Over-relaxation in [1, 2); 1 is Sinkhorn's own step.
    coarse : bool or "auto"
        Start large clouds from the solution for a random subsample, extended by one soft c-transform.
    callback, check_every, progress, time_limit
        See `LoopOptions`.
    rng : int or Generator
        Draws the subsample.

    Returns
    -------
    SinkhornResult
        Potentials, value, the plan as an operator, and the transport of points.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The marginals are not within ``tol``.

    References
    ----------
    M. Cuturi, Sinkhorn distances, 2013. G. Peyre, M. Cuturi, Computational optimal transport, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import sinkhorn
    >>> C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    >>> result = sinkhorn(C, reg=0.5)
    >>> (result.plan @ np.eye(2)).round(4).tolist()
    [[0.4404, 0.0596], [0.0596, 0.4404]]
    """
    geometry = cost if isinstance(cost, Dense | PointCloud) else Dense(cost)
    xp, like, (n, m) = geometry.xp, geometry.like, geometry.shape
    reg = check_scalar(reg, "reg", positive=True)
    omega = check_scalar(omega, "omega", positive=True)
    if not 1 <= omega < 2:
        raise InputError(f"omega must lie in [1, 2), got {omega}")
    a, b = _weights(a, "a", n, like, xp), _weights(b, "b", m, like, xp)
    mass, mass_b = host_float(xp.sum(a)), host_float(xp.sum(b))
    if abs(mass - mass_b) > 1e3 * finfo_eps(like.dtype, xp) * mass:
        raise InputError(f"a sums to {mass:.9g} and b to {mass_b:.9g}; balanced transport needs equal sums")
    tol = (1e-4 if like.dtype == xp.float32 else 1e-6) if tol is None else check_scalar(tol, "tol", positive=True)
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    method = _Sinkhorn(geometry.kernel(reg), a, b, omega, xp)
    if x0 is not None:
        check_array(x0[0], "x0[0]", xp, shape=(n,), dtype=like.dtype, finite=False)
        check_array(x0[1], "x0[1]", xp, shape=(m,), dtype=like.dtype, finite=False)
        G = _log(b, xp) + _finite(x0[1], xp) / reg
    elif isinstance(geometry, PointCloud) and (coarse is True or (coarse == "auto" and n * m > _COARSE_PAIRS)):
        G = _coarse_start(geometry, a, b, reg, tol, options, rng, method)
    else:
        G = _log(b, xp)
    state = method.start(G)

    def finish(outcome: Outcome[_State]) -> SinkhornResult:
        state = outcome.state
        # Scaled potentials are infinite exactly where the weight is zero (or nobody can be reached).
        f = xp.where(xp.isfinite(state.F), (_finite(state.F, xp) - _finite(_log(a, xp), xp)) * reg, -math.inf)
        g = xp.where(xp.isfinite(state.G), (_finite(state.G, xp) - _finite(_log(b, xp), xp)) * reg, -math.inf)
        value = host_float(xp.sum(a * _finite(f, xp)) + xp.sum(b * _finite(g, xp)))
        return SinkhornResult(
            f=f, g=g, value=value, a=a, b=b, reg=reg, geometry=geometry,
            evaluations={"passes": method.passes}, **outcome.fields(),
        )  # fmt: skip

    outcome = iterate(method, state, tolerance=tol * mass, options=options, on_device=like, finish=finish)
    result = finish(outcome)
    warn_unless_converged(result, "sinkhorn")
    return result


class _State(NamedTuple):
    """Scaled potentials after a column update; ``rows_i = log sum_j exp(G_j - C_ij / reg)``, ``columns`` likewise of ``F``."""

    F: Array
    G: Array
    rows: Array
    columns: Array


class _Sinkhorn:
    """After the column update the columns are exact; the row sums come with the next row pass, at no extra cost."""

    def __init__(self, kernel: Any, a: Array, b: Array, omega: float, xp: Namespace) -> None:
        self.kernel, self.a, self.b, self.omega, self.xp = kernel, a, b, omega, xp
        self.log_a, self.log_b = _log(a, xp), _log(b, xp)
        self.passes = 0

    def start(self, G: Array) -> _State:
        rows = self.kernel.rows(G, None)
        F = self._update(None, self.log_a, rows)
        columns = self.kernel.columns(F, None)
        G = self._update(None, self.log_b, columns)
        self.passes += 3
        return _State(F, G, self.kernel.rows(G, rows), columns)

    def _update(self, old: Array | None, log_weight: Array, logs: Array) -> Array:
        xp = self.xp
        # A point that reaches nobody (all its costs infinite, or its partners without weight) keeps no mass.
        new = xp.where(xp.isfinite(logs) & xp.isfinite(log_weight), log_weight - _finite(logs, xp), -math.inf)
        if old is None or self.omega == 1.0:
            return new
        both = xp.isfinite(old) & xp.isfinite(new)
        return xp.where(both, _finite(old, xp) + self.omega * (_finite(new, xp) - _finite(old, xp)), new)

    def step(self, state: _State) -> _State:
        F = self._update(state.F, self.log_a, state.rows)
        columns = self.kernel.columns(F, state.columns)
        G = self._update(state.G, self.log_b, columns)
        self.passes += 2
        return _State(F, G, self.kernel.rows(G, state.rows), columns)

    def error(self, state: _State) -> Array:
        xp = self.xp
        violation = xp.sum(xp.abs(xp.exp(state.F + state.rows) - self.a))
        if self.omega != 1.0:
            violation = violation + xp.sum(xp.abs(xp.exp(state.G + state.columns) - self.b))
        return violation

    def verify(self, state: _State) -> tuple[_State, float]:
        xp = self.xp
        rows, columns = self.kernel.rows(state.G, None), self.kernel.columns(state.F, None)
        self.passes += 2
        violation = xp.sum(xp.abs(xp.exp(state.F + rows) - self.a)) + xp.sum(xp.abs(xp.exp(state.G + columns) - self.b))
        return _State(state.F, state.G, rows, columns), host_float(violation)


def _coarse_start(
    cloud: PointCloud, a: Array, b: Array, reg: float, tol: float, options: LoopOptions, rng: Any, fine: _Sinkhorn
) -> Array:
    """``G`` for the whole cloud from the solution of a subsample: one soft c-transform carries it over."""
    xp, (n, m), where = cloud.xp, cloud.shape, device(cloud.x)
    sampler = Sampler(rng, xp=xp, device=where)
    rows = sampler.choice(n, min(n, _COARSE_POINTS))
    columns = sampler.choice(m, min(m, _COARSE_POINTS))
    small_a, small_b = xp.take(a, rows, axis=0), xp.take(b, columns, axis=0)
    if not (host_float(xp.sum(small_a)) > 0 and host_float(xp.sum(small_b)) > 0):
        return fine.log_b
    small = cloud.subsample(rows, columns)
    method = _Sinkhorn(small.kernel(reg), small_a / xp.sum(small_a), small_b / xp.sum(small_b), 1.0, xp)
    limits = LoopOptions(maxiter=min(1000, options.maxiter), check_every=5, time_limit=options.time_limit)
    state = iterate(method, method.start(method.log_b), tolerance=tol, options=limits, on_device=cloud.x).state
    # F of the subsample, seen by every target point: G_j = log b_j - log sum_i exp(F_i - C_ij / reg).
    logs = cloud.pairs(xp.take(cloud.x, rows, axis=0), reg).T.logsumexp(state.F)
    return fine._update(None, fine.log_b, logs)


def _weights(w: Array | None, name: str, n: int, like: Array, xp: Namespace) -> Array:
    if w is None:
        return xp.full((n,), 1.0 / n, dtype=like.dtype, device=device(like))
    array_namespace(cost=like, **{name: w})
    return check_weights(w, name, xp, n=n, dtype=like.dtype)


def _log(w: Array, xp: Namespace) -> Array:
    return xp.where(w > 0, xp.log(xp.where(w > 0, w, 1.0)), -math.inf)


def _finite(x: Array, xp: Namespace) -> Array:
    return xp.where(xp.isfinite(x), x, 0.0)

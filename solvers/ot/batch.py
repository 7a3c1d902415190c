"""Many transport problems on one cost at once: histograms against histograms, with one kernel and one pass for all.

The kernel is stabilised by the potentials of the mean problem, so that regularisations work at which ``exp(-C / reg)`` itself
underflows; each problem has its own scalings, and a pass is a matrix product. A problem that strays too far from the mean for
that kernel is solved by itself.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends.errors import ConvergenceWarning, InputError
from ...backends.namespace import Array, array_namespace, finfo_eps
from ...backends.transfer import host_float, to_host
from ...backends.validation import check_array, check_scalar, unwarned
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ..result import Status
from .geometry import Dense
from .problem import finite, log_weights
from .sinkhorn import sinkhorn
from .words import TransportOutcome

# Entries of the kernel below exp(-230) are held there: subnormal numbers are slow. Scalings beyond exp(80) could lift them into
# sight, so such a problem leaves the batch. In float32 the range is a third of it.
_FLOOR, _STRAY = {8: -230.0, 4: -80.0}, {8: 80.0, 4: 25.0}


@dataclass(frozen=True, kw_only=True, repr=False)
class BatchResult(TransportOutcome):
    """Potentials of ``K`` problems on one cost.

    Attributes
    ----------
    f, g : array (n, K), (m, K)
        Dual potentials in the KL gauge, as of `TransportResult`; minus infinity where a weight is zero.
    values : tuple of float
        The dual values ``<a, f> + <b, g>``.
    residuals : tuple of float
        ``|P 1 - a|_1 + |P^T 1 - b|_1`` of each problem over its mass; ``residual`` is the largest.
    alone : tuple of int
        Problems that were solved by themselves.
    """

    f: Array
    g: Array
    values: tuple[float, ...]
    residuals: tuple[float, ...]
    alone: tuple[int, ...]


def sinkhorn_batch(
    cost: Array | Dense,
    A: Array,
    B: Array,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 10_000,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> BatchResult:
    """Entropic optimal transport between column ``k`` of ``A`` and column ``k`` of ``B``, for all ``k``.

    Parameters
    ----------
    cost : array (n, m)
        The cost matrix that all problems share.
    A, B : array (n, K), (m, K)
        Non-negative weights; column ``k`` of both has the same sum. One column serves all problems of the other side.
    reg : float
        Regularisation in the units of the cost.
    tol : float, optional
        Bound on the L1 violation of both marginals of each problem, relative to its mass; default 1e-6, in float32 1e-4.
    maxiter, callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    BatchResult
        Potentials, values and residuals of each problem.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The marginals of a problem are not within ``tol``.

    Notes
    -----
    Two products of the kernel with ``K`` columns an iteration, instead of ``2 n m K`` exponentials.

    References
    ----------
    M. Cuturi, Sinkhorn distances, 2013, section 5. B. Schmitzer, Stabilized sparse scaling algorithms for entropy
    regularized transport problems, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import sinkhorn_batch
    >>> C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    >>> A = np.asarray([[0.5, 1.0], [0.5, 0.0]])
    >>> [round(value, 4) for value in sinkhorn_batch(C, A, A[:, :1], reg=0.5).values]
    [0.2831, 0.5]
    """
    geometry = cost if isinstance(cost, Dense) else Dense(cost)
    xp, like, (n, m) = geometry.xp, geometry.like, geometry.shape
    reg = check_scalar(reg, "reg", positive=True)
    array_namespace(cost=like, A=A, B=B)
    for name, weights, rows in (("A", A, n), ("B", B, m)):
        check_array(weights, name, xp, shape=(rows, None), dtype=like.dtype)
        if host_float(xp.min(weights)) < 0:
            raise InputError(f"{name} has negative entries; weights must be non-negative")
    if A.shape[1] != B.shape[1] and 1 not in (A.shape[1], B.shape[1]):
        raise InputError(f"A has {A.shape[1]} columns and B {B.shape[1]}; expected as many, or one")
    count = max(A.shape[1], B.shape[1])
    A, B = xp.broadcast_to(A, (n, count)), xp.broadcast_to(B, (m, count))
    mass, other = xp.sum(A, axis=0), xp.sum(B, axis=0)
    if host_float(xp.min(mass)) <= 0:
        raise InputError("A has a column that sums to zero")
    if host_float(xp.max(xp.abs(mass - other) / mass)) > 1e3 * finfo_eps(like.dtype, xp):
        raise InputError("A and B have columns of different sums; balanced transport needs equal ones")
    tol = (1e-4 if like.dtype == xp.float32 else 1e-6) if tol is None else check_scalar(tol, "tol", positive=True)
    limits = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    method = _Batch(geometry, A, B, mass, reg, xp)

    def finish(outcome: Outcome[_State]) -> BatchResult:
        return method.result(outcome, tol, limits)

    result = finish(iterate(method, method.start(), tolerance=tol, options=limits, on_device=like, finish=finish))
    warn_unless_converged(result, "sinkhorn_batch")
    return result


class _State(NamedTuple):
    """Scalings after a column update, and ``Kv = K v``; both marginals are ``u Kv`` and ``v (K^T u)``, the second exact."""

    u: Array
    v: Array
    Kv: Array


class _Batch:
    def __init__(self, geometry: Dense, A: Array, B: Array, mass: Array, reg: float, xp: Any) -> None:
        self.geometry, self.A, self.B, self.mass, self.reg, self.xp = geometry, A, B, mass, reg, xp
        size = 4 if A.dtype == xp.float32 else 8
        self.stray = _STRAY[size]
        a, b = xp.mean(A / mass, axis=1), xp.mean(B / mass, axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mean = sinkhorn(geometry, a, b, reg=reg, tol=1e-2, maxiter=200)
        self.F, self.G = mean.scaled()
        exponent = self.F[:, None] + self.G[None, :] - geometry.C / reg
        kept = xp.where(exponent == -math.inf, exponent, xp.maximum(exponent, xp.full_like(exponent, _FLOOR[size])))
        self.kernel = xp.exp(kept)
        # Where a scaling cannot be zero: the point has weight, and a partner.
        self.rows = (A > 0) & (self.kernel @ xp.astype(B > 0, A.dtype) > 0)
        self.columns = (B > 0) & (self.kernel.T @ xp.astype(A > 0, A.dtype) > 0)
        self.v = xp.where(b[:, None] > 0, B / xp.where(b > 0, b, 1.0)[:, None], 0.0)

    def divided(self, weights: Array, sums: Array) -> Array:
        """``weights / sums``, zero where nothing can be reached."""
        xp = self.xp
        return xp.where(sums > 0, weights / xp.where(sums > 0, sums, 1.0), 0.0)

    def start(self) -> _State:
        return self.step(_State(self.v, self.v, self.kernel @ self.v))

    def step(self, state: _State) -> _State:
        # What overflows is seen by `far`.
        with unwarned():
            u = self.divided(self.A, state.Kv)
            v = self.divided(self.B, self.kernel.T @ u)
            return _State(u, v, self.kernel @ v)

    def far(self, state: _State) -> Array:
        """Whether a problem has left the range in which the kernel is faithful to it."""
        xp = self.xp

        def spread(scaling: Array) -> Array:
            logs = log_weights(scaling, xp)
            return xp.max(xp.where(xp.isfinite(logs), xp.abs(logs), 0.0), axis=0)

        finite = xp.all(xp.isfinite(state.u), axis=0) & xp.all(xp.isfinite(state.v), axis=0)
        empty = xp.any(self.rows & (state.u <= 0), axis=0) | xp.any(self.columns & (state.v <= 0), axis=0)
        return ~finite | empty | (xp.maximum(spread(state.u), spread(state.v)) > self.stray)

    def violations(self, state: _State) -> Array:
        """Of the rows, relative to the mass; those of the columns are rounding."""
        with unwarned():
            return self.xp.sum(self.xp.abs(state.u * state.Kv - self.A), axis=0) / self.mass

    def error(self, state: _State) -> Array:
        # A problem that strayed is solved by itself later, and does not hold up the others.
        return self.xp.max(self.xp.where(self.far(state), 0.0, self.violations(state)))

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute both marginals."""
        with unwarned():
            fresh = state._replace(Kv=self.kernel @ state.v)
        total = self.both(fresh)
        return fresh, host_float(self.xp.max(self.xp.where(self.far(fresh), 0.0, total)))

    def both(self, state: _State) -> Array:
        with unwarned():
            columns = self.xp.sum(self.xp.abs(state.v * (self.kernel.T @ state.u) - self.B), axis=0) / self.mass
        return self.violations(state) + columns

    def result(self, outcome: Outcome[_State], tol: float, limits: LoopOptions) -> BatchResult:
        xp, reg, state = self.xp, self.reg, outcome.state
        far = to_host(self.far(state))
        alone = tuple(index for index, strayed in enumerate(far) if strayed)
        residuals = [float(value) for value in to_host(self.both(state))]
        status = outcome.status
        potentials = []
        for scaling, shift, weights in ((state.u, self.F, self.A), (state.v, self.G, self.B)):
            logs = finite(log_weights(scaling, xp), xp) + finite(shift, xp)[:, None]
            logs = logs - finite(log_weights(weights, xp), xp)
            potentials.append(xp.where((weights > 0) & (scaling > 0), reg * logs, -math.inf))
        f, g = potentials
        columns_f, columns_g = [f[:, k] for k in range(f.shape[1])], [g[:, k] for k in range(g.shape[1])]
        values = [float(value) for value in to_host(_dual(self.A, f, xp) + _dual(self.B, g, xp))]
        for k in alone:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                single = sinkhorn(
                    self.geometry, self.A[:, k], self.B[:, k], reg=reg, tol=tol, maxiter=limits.maxiter,
                    time_limit=limits.time_limit,
                )  # fmt: skip
            columns_f[k], columns_g[k], values[k] = single.f, single.g, single.value
            residuals[k] = single.residual / host_float(self.mass[k])
            if not single.converged and status is Status.CONVERGED:
                status = single.status
        return BatchResult(
            f=xp.stack(columns_f, axis=1), g=xp.stack(columns_g, axis=1), values=tuple(values),
            residuals=tuple(residuals), alone=alone,
            **(outcome.fields() | {"status": status, "residual": max(residuals)}),
        )  # fmt: skip


def _dual(weights: Array, potential: Array, xp: Any) -> Array:
    return xp.sum(weights * xp.where(xp.isfinite(potential), potential, 0.0), axis=0)

"""Entropic Wasserstein barycenters whose points move (Cuturi and Doucet 2014): transport to each measure, then the mean of
where the plans send each point, in turn until the points rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace
from ...backends.transfer import host_float
from ...backends.validation import check_array, check_count, check_scalar, check_weights
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from .geometry import PointCloud
from .sinkhorn import sinkhorn
from .words import TransportOutcome


def free_support_barycenter(
    ys: Sequence[Array],
    bs: Sequence[Array] | None = None,
    *,
    x0: Array,
    a: Array | None = None,
    weights: Sequence[float] | None = None,
    reg: float,
    tol: float = 1e-6,
    maxiter: int = 100,
    inner_tol: float | None = None,
    inner_maxiter: int = 10_000,
    callback: Callback | None = None,
    time_limit: float | None = None,
) -> FreeSupportResult:
    """Barycenter whose points move: ``min_x sum_k w_k OT_reg(sum_i a_i delta(x_i), b_k)`` for the squared distance.

    Alternates the ``K`` transport problems, started from their last potentials, with the weighted mean of where their plans
    send each point.

    Parameters
    ----------
    ys : sequence of arrays (m_k, d)
        Points of the measures.
    bs : sequence of arrays (m_k,), optional
        Their weights, of equal sums; default uniform.
    x0 : array (n, d)
        Points to start from; distinct ones, for points that coincide never part.
    a : array (n,), optional
        Weights of the barycenter; default uniform.
    weights : sequence of K floats, optional
        Of the measures, scaled to sum one; default equal.
    reg : float
        Regularisation, in the units of the squared distance.
    tol : float
        Bound on the root mean square movement of the points in one step, relative to their spread at the start.
    maxiter : int
        Most movements.
    inner_tol, inner_maxiter
        ``tol`` and ``maxiter`` of `sinkhorn`, which warns for itself.
    callback, time_limit
        See `LoopOptions`.

    Returns
    -------
    FreeSupportResult
        Points ``x`` and weights ``a``.

    References
    ----------
    M. Cuturi, A. Doucet, Fast computation of Wasserstein barycenters, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.free_support import free_support_barycenter
    >>> y = np.asarray([[0.0], [4.0]])
    >>> free_support_barycenter([y, y + 2.0], x0=y + 0.5, reg=0.1).x.round(3).tolist()
    [[1.0], [5.0]]
    """
    count = len(ys)
    if count == 0:
        raise InputError("ys is empty: a barycenter needs at least one measure")
    xp = array_namespace(x0=x0, a=a, **{f"ys[{k}]": y for k, y in enumerate(ys)})
    check_array(x0, "x0", xp, ndim=2)
    for k, y in enumerate(ys):
        check_array(y, f"ys[{k}]", xp, shape=(None, x0.shape[1]), dtype=x0.dtype)
    if bs is not None and len(bs) != count:
        raise InputError(f"bs has {len(bs)} entries, expected {count} as ys")
    for k, (y, b) in enumerate(zip(ys, bs or [], strict=False)):
        if b is not None:
            array_namespace(x0=x0, **{f"bs[{k}]": b})
            check_weights(b, f"bs[{k}]", xp, n=y.shape[0], dtype=x0.dtype)
    w = [1.0] * count if weights is None else [check_scalar(v, "weights", non_negative=True) for v in weights]
    if len(w) != count or not sum(w) > 0:
        raise InputError(f"weights must hold {count} numbers, as ys, with a positive sum")
    options = LoopOptions(maxiter=maxiter, callback=callback, time_limit=time_limit, check_every=1)
    check_scalar(tol, "tol", positive=True)
    if inner_tol is not None:
        check_scalar(inner_tol, "inner_tol", positive=True)
    check_count(inner_maxiter, "inner_maxiter", minimum=0)
    inner = {"reg": reg, "tol": inner_tol, "maxiter": inner_maxiter}
    method = _Moving(list(ys), list(bs) if bs is not None else [None] * count, a, [v / sum(w) for v in w], inner, xp)
    spread = host_float(xp.sqrt(xp.mean((x0 - xp.mean(x0, axis=0)) ** 2)))

    def finish(outcome: Outcome[_Cloud]) -> FreeSupportResult:
        weight = method.results[0].a
        return FreeSupportResult(
            x=outcome.state.x, a=weight, evaluations={"sinkhorn": method.inner_steps}, **outcome.fields()
        )

    bound = tol * spread if spread > 0 else tol
    outcome = iterate(method, method.look(x0), tolerance=bound, options=options, on_device=x0, finish=finish)
    result = finish(outcome)
    warn_unless_converged(result, "free_support_barycenter")
    return result


@dataclass(frozen=True, kw_only=True, repr=False)
class FreeSupportResult(TransportOutcome):
    """A barycenter with points of its own.

    Attributes
    ----------
    x : array (n, d)
        Its points.
    a : array (n,)
        Its weights.
    residual : float
        Root mean square movement that one more step would make.
    """

    x: Array
    a: Array


class _Cloud(NamedTuple):
    x: Array
    target: Array


class _Moving:
    def __init__(
        self, ys: list[Array], bs: list[Any], a: Array | None, w: list[float], inner: dict[str, Any], xp: Namespace
    ) -> None:
        self.ys, self.bs, self.a, self.w, self.inner, self.xp = ys, bs, a, w, inner, xp
        self.results: list[Any] = [None] * len(ys)
        self.inner_steps = 0

    def look(self, x: Array) -> _Cloud:
        target = self.xp.zeros_like(x)
        for k, (y, b, w) in enumerate(zip(self.ys, self.bs, self.w, strict=True)):
            last = self.results[k]
            start = None if last is None else (last.f, last.g)
            self.results[k] = result = sinkhorn(PointCloud(x, y), self.a, b, x0=start, omega="auto", **self.inner)
            self.inner_steps += result.n_iter
            target = target + w * result.transport()
        return _Cloud(x, target)

    def step(self, state: _Cloud) -> _Cloud:
        return self.look(state.target)

    def error(self, state: _Cloud) -> Array:
        return self.xp.sqrt(self.xp.mean((state.target - state.x) ** 2))

    def verify(self, state: _Cloud) -> tuple[_Cloud, float]:
        return state, host_float(self.error(state))

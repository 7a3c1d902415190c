"""Bandwidths: the rules of Scott and Silverman, what a given bandwidth means, and leave-one-out likelihood.

Every bandwidth ends as one covariance matrix H of the kernel N(y; x_j, H).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...backends.errors import BreakdownError, InputError
from ...backends.namespace import Array, Namespace, array_namespace, device, is_array, wide_dtype
from ...backends.pairs import Pairs, gaussian
from ...backends.transfer import host_bool, host_float
from ...backends.validation import check_array, check_count, check_scalar, check_weights
from ..iterate import warn_unless_converged
from ..result import Result, Status
from .whitening import Whitening, centre_and_covariance, check_data_covariance, normalised

RULES = ("scott", "silverman", "loo")


@dataclass(frozen=True, kw_only=True, repr=False)
class BandwidthResult(Result):
    """A bandwidth found by a search.

    Attributes
    ----------
    covariance : array (d, d)
        Covariance H of the kernel, ``factor**2`` times the sample covariance: pass it as ``bandwidth``.
    factor : float
        SciPy's factor: standard deviation of the kernel in units of the data's.
    log_likelihood : float
        The maximised mean leave-one-out log-likelihood.
    """

    covariance: Array
    factor: float
    log_likelihood: float


def loo_bandwidth(
    x: Array, weights: Array | None = None, *, rtol: float = 1e-6, maxiter: int = 50, engine: str = "auto"
) -> BandwidthResult:
    r"""Bandwidth that maximises the leave-one-out likelihood over multiples of the sample covariance.

    With ``H = f^2 S``, ``S`` the weighted sample covariance, maximise over ``f``

    .. math:: CV(f) = \sum_i w_i \log \frac{\sum_{j \ne i} w_j N(x_i; x_j, f^2 S)}{1 - w_i}

    by a bracketed secant search for the zero of

    .. math:: \frac{d\,CV}{d \log f} = \sum_i w_i \sum_{j \ne i} W_{ij} |x_i - x_j|^2_{S^{-1}} / f^2 - d,

    where ``W`` are the normalised kernel weights of row ``i``: one softmax pass over all pairs per evaluation, about
    ten. The search starts at Scott's factor and follows the likelihood uphill, so it ends at the local maximum next
    to it.

    Parameters
    ----------
    x : array (n, d)
        Points, at least ``d + 1`` of them.
    weights : array (n,), optional
        Non-negative weights, need not sum to one.
    rtol : float
        Tolerance on the derivative, relative to ``d``.
    maxiter : int
        Most evaluations.
    engine : str
        Engine of `xpsolve.pairs`.

    Returns
    -------
    BandwidthResult
        ``covariance``, ``factor`` and ``log_likelihood``; ``residual`` is the absolute derivative.

    Raises
    ------
    InputError, BackendError
        Bad points or weights.
    BreakdownError
        Singular covariance, or a likelihood that grows without bound as the bandwidth shrinks (repeated points).

    Notes
    -----
    Duin (1976), Habbema et al. (1974). The passes run in float64 where the device has it, also for float32 points: the
    derivative is a difference of moments. Repeated points make the likelihood unbounded at ``f = 0``; merge them into
    weights first.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.kde import loo_bandwidth
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> result = loo_bandwidth(x)
    >>> result.converged and 0.2 < result.factor < 0.8
    True
    """
    xp = array_namespace(x=x, weights=weights)
    check_points(x, "x", xp)
    if weights is not None:
        check_weights(weights, "weights", xp, n=x.shape[0], dtype=x.dtype)
    rtol = check_scalar(rtol, "rtol", positive=True)
    maxiter = check_count(maxiter, "maxiter")
    result = _search(x, weights, xp, rtol, maxiter, engine)
    warn_unless_converged(result, "loo_bandwidth")
    return result


def rule_factor(rule: str, neff: float, d: int) -> float:
    """Factor of Scott ``neff^(-1/(d+4))`` or Silverman ``(neff (d+2)/4)^(-1/(d+4))``, on the standard deviation."""
    size = neff if rule == "scott" else neff * (d + 2) / 4.0
    return float(size ** (-1.0 / (d + 4)))


def check_points(x: Array, name: str, xp: Namespace, *, d: int | None = None, dtype: Any = None) -> None:
    """Require points (n, d), with the remedy for the one mistake that everybody makes."""
    if x.ndim == 1:
        raise InputError(
            f"{name} has shape {tuple(x.shape)}, expected (n, d); reshape n one-dimensional points to (n, 1)"
        )
    check_array(x, name, xp, ndim=2)
    if d is not None:
        check_array(x, name, xp, shape=(None, d), dtype=dtype, finite=False)


def kernel_covariance(
    x: Array, weights: Array | None, bandwidth: Any, xp: Namespace, engine: str
) -> tuple[Array, Array, float]:
    """Centre (d,), kernel covariance H (d, d), both wide, and effective sample size, for any legal ``bandwidth``."""
    d = x.shape[1]
    centre, covariance, neff = centre_and_covariance(x, weights, xp)
    if isinstance(bandwidth, str):
        if bandwidth not in RULES:
            raise InputError(
                f"bandwidth is {bandwidth!r}, expected one of {', '.join(map(repr, RULES))}, a number, a (d,) array or "
                "a (d, d) array"
            )
        if bandwidth == "loo":
            return centre, loo_bandwidth(x, weights, engine=engine).covariance, neff
        check_data_covariance(x, covariance, neff, xp)
        return centre, covariance * rule_factor(bandwidth, neff, d) ** 2, neff
    return centre, _given(x, bandwidth, covariance, xp), neff


def _given(x: Array, bandwidth: Any, like: Array, xp: Namespace) -> Array:
    """Covariance of a bandwidth given as a number, (d,) standard deviations, or the (d, d) covariance itself."""
    d, dtype = x.shape[1], like.dtype
    eye = xp.eye(d, dtype=dtype, device=device(x))
    if not is_array(bandwidth) or bandwidth.ndim == 0:
        h = check_scalar(bandwidth, "bandwidth", positive=True)
        if not 0 < h * h < math.inf:
            raise InputError(f"bandwidth {h} is out of range: its square over- or underflows")
        return eye * (h * h)
    array_namespace(x=x, bandwidth=bandwidth)
    check_array(bandwidth, "bandwidth", xp, ndim=(1, 2))
    wide = xp.astype(bandwidth, dtype)
    if wide.ndim == 1:
        check_array(bandwidth, "bandwidth", xp, shape=(d,), finite=False)
        if not host_bool(xp.all((wide > 0) & (wide * wide > 0) & xp.isfinite(wide * wide))):
            raise InputError("bandwidth must have positive entries whose squares neither over- nor underflow")
        return eye * (wide * wide)[:, None]
    check_array(bandwidth, "bandwidth", xp, shape=(d, d), finite=False)
    skew = xp.max(xp.abs(wide - xp.matrix_transpose(wide)))
    if host_bool(skew > 1e-5 * xp.max(xp.abs(wide))):
        raise InputError(
            "bandwidth is a matrix that is not symmetric; a (d, d) bandwidth is the covariance of the kernel"
        )
    return 0.5 * (wide + xp.matrix_transpose(wide))


def _search(x: Array, weights: Array | None, xp: Namespace, rtol: float, maxiter: int, engine: str) -> BandwidthResult:
    d = x.shape[1]
    centre, covariance, neff = centre_and_covariance(x, weights, xp)
    check_data_covariance(x, covariance, neff, xp)
    slope = _loo_slope(x, weights, Whitening.of(centre, covariance, wide_dtype(x, xp), xp), xp, engine)
    t = math.log(rule_factor("scott", neff, d))
    root, history, value, status = _uphill(slope, t, rtol * d, maxiter)
    factor = math.exp(root)
    return BandwidthResult(
        covariance=covariance * factor**2,
        factor=factor,
        log_likelihood=value,
        status=status,
        n_iter=len(history),
        residual=history[-1],
        tolerance=rtol * d,
        history=tuple(history),
        evaluations={"passes": len(history)},
    )


def _loo_slope(
    x: Array, weights: Array | None, whitening: Whitening, xp: Namespace, engine: str
) -> Callable[[float], tuple[float, float]]:
    """The function ``log f -> (dCV/dlog f, CV)``, on whitened points."""
    n, d = x.shape
    u = whitening.apply(x)
    square = xp.sum(u * u, axis=1)
    moments = xp.concat([u, square[:, None]], axis=1)
    log_w, weigh, constant = loo_weights(n, weights, u.dtype, xp)

    def slope(t: float) -> tuple[float, float]:
        f = math.exp(t)
        pairs = Pairs(u, u, gaussian(f), engine=engine, exclude_self=True, passes=20, check_finite=False)
        mean, lse = pairs.softmax_sum(moments, b=log_w)
        # sum_j W_ij |u_i - u_j|^2, expanded; the points are centred and of unit spread, so little cancels.
        spread = square - 2.0 * xp.sum(u * mean[:, :d], axis=1) + mean[:, d]
        value = host_float(weigh(lse)) + constant + whitening.log_normaliser - d * t
        return host_float(weigh(spread)) / f**2 - d, value

    return slope


def loo_weights(
    n: int, weights: Array | None, dtype: object, xp: Namespace
) -> tuple[Array | None, Callable[[Array], Array], float]:
    """What leave-one-out needs of the weights.

    Returns ``b = log w`` (None when uniform), the weighted mean over points, and the mean of ``-log(1 - w_i)``.
    """
    if weights is None:
        return None, lambda a: xp.mean(a), -math.log(n - 1.0)
    w = normalised(weights, wide_dtype(weights, xp), xp)
    if host_float(xp.max(w)) >= 1.0:
        raise InputError("weights has one positive entry; leave-one-out needs at least two points with weight")
    constant = -host_float(xp.sum(w * xp.log1p(-w)))
    narrow, used = xp.astype(w, dtype), w > 0
    # A point without weight may have no finite value of its own: it must not turn the mean into 0 * inf.
    return log_weights(w, dtype, xp), lambda a: xp.sum(narrow * xp.where(used, a, xp.zeros_like(a))), constant


def log_weights(w: Array, dtype: object, xp: Namespace) -> Array:
    """``log w`` with minus infinity at zero, without a warning."""
    positive = w > 0
    return xp.astype(xp.where(positive, xp.log(xp.where(positive, w, xp.ones_like(w))), -math.inf), dtype)


def _uphill(
    slope: Callable[[float], tuple[float, float]], t: float, tolerance: float, maxiter: int
) -> tuple[float, list[float], float, Status]:
    """Zero of a slope that is positive at minus and negative at plus infinity: walk uphill to a bracket, then Illinois.

    The bracket keeps ``g(lo) > 0 > g(hi)``, so what it closes on is a maximum.
    """
    lo: tuple[float, float] | None = None
    hi: tuple[float, float] | None = None
    history: list[float] = []
    step, last, start, seen, value = 0.25, 0, t, t, -math.inf
    while len(history) < maxiter:
        seen = t
        g, value = slope(t)
        history.append(abs(g))
        if not math.isfinite(g):
            raise BreakdownError("bandwidth: the leave-one-out likelihood is not finite; rescale x or give a bandwidth")
        if abs(g) <= tolerance:
            return t, history, value, Status.CONVERGED
        side = 1 if g > 0 else -1
        if side > 0:
            lo = (t, g)
            if hi is not None and last == side:
                hi = (hi[0], 0.5 * hi[1])  # Illinois: an end that stays counts half, so that both ends move
        else:
            hi = (t, g)
            if lo is not None and last == side:
                lo = (lo[0], 0.5 * lo[1])
        last = side
        if lo is not None and hi is not None:
            if hi[0] - lo[0] <= 4e-16 * (1.0 + abs(t)):
                return t, history, value, Status.STAGNATED
            t = (lo[0] * hi[1] - hi[0] * lo[1]) / (hi[1] - lo[1])
            margin = 1e-3 * (hi[0] - lo[0])
            t = min(max(t, lo[0] + margin), hi[0] - margin) if abs(g) > 1e3 * tolerance else t
        else:
            t += side * step
            step *= 2.0
            if t < start - 20.0:
                raise BreakdownError(
                    "bandwidth: the leave-one-out likelihood grows without bound as the bandwidth shrinks, because "
                    "points of x are repeated; merge them into weights, or give bandwidth as a rule or a number"
                )
    return seen, history, value, Status.MAX_ITER

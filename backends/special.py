"""Special functions that the array-API standard lacks: native where the library has them, generic formulas elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .namespace import Array, Namespace, is_cupy, is_numpy, is_torch
from .validation import check_dtype


def logsumexp(x: Array, *, axis: int, xp: Namespace) -> Array:
    """``log sum exp(x)`` along ``axis``; an all minus-infinite slice gives minus infinity, not NaN.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import logsumexp
    >>> float(logsumexp(xp.asarray([-1000.0, -1000.0]), axis=0, xp=xp).round(4))
    -999.3069
    """
    check_dtype(x, "x", xp)
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0.0)
    total = xp.sum(xp.exp(x - top), axis=axis)
    positive = total > 0
    logs = xp.log(xp.where(positive, total, 1.0)) + xp.squeeze(top, axis=axis)
    return xp.where(positive, logs, -math.inf)


def softmax(x: Array, *, axis: int, xp: Namespace) -> Array:
    """``exp(x) / sum exp(x)`` along ``axis``; an all minus-infinite slice gives zeros, not NaN.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import softmax
    >>> softmax(xp.asarray([1000.0, 1000.0, -float("inf")]), axis=0, xp=xp).tolist()
    [0.5, 0.5, 0.0]
    """
    check_dtype(x, "x", xp)
    top = xp.max(x, axis=axis, keepdims=True)
    e = xp.exp(x - xp.where(xp.isfinite(top), top, 0.0))
    total = xp.sum(e, axis=axis, keepdims=True)
    return e / xp.where(total > 0, total, 1.0)


def gammaln(x: Array, *, xp: Namespace) -> Array:
    """Logarithm of the gamma function for ``x > 0``.

    The generic formula is Stirling's series after a shift to ``x + 8``: absolute error about 1e-14 near the zeros at 1 and 2.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import gammaln
    >>> gammaln(xp.asarray([1.0, 5.0]), xp=xp).round(6).tolist()  # log 24
    [0.0, 3.178054]
    """
    check_dtype(x, "x", xp)
    return _native("gammaln", "lgamma", xp, _gammaln)(x)


def erf(x: Array, *, xp: Namespace) -> Array:
    """Error function ``2/sqrt(pi) int_0^x exp(-t^2) dt`` of real arrays.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import erf
    >>> erf(xp.asarray([0.0, 1.0]), xp=xp).round(6).tolist()
    [0.0, 0.842701]
    """
    check_dtype(x, "x", xp)
    return _native("erf", "erf", xp, _erf)(x)


def _native(scipy_name: str, torch_name: str, xp: Namespace, generic: Callable[[Array, Namespace], Array]) -> Any:
    """The library's own function, or the generic one; both of one argument."""
    if is_numpy(xp):
        import scipy.special as home
    elif is_cupy(xp):
        import cupyx.scipy.special as home
    elif is_torch(xp):
        import torch

        return getattr(torch, torch_name)
    else:
        return lambda x: generic(x, xp)
    return getattr(home, scipy_name)


# Bernoulli numbers B_2k / (2k (2k-1)) of Stirling's series.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)


def _gammaln(x: Array, xp: Namespace) -> Array:
    """``log G(x) = log G(x + 8) - log x(x+1)...(x+7)``; the product of each half stays in range of float32."""
    small = x < 8.0
    base = xp.where(small, x, 1.0)
    shift = xp.zeros_like(x)
    for first in (0, 4):
        product = (base + first) * (base + (first + 1.0)) * (base + (first + 2.0)) * (base + (first + 3.0))
        shift = shift + xp.log(product)
    z = xp.where(small, x + 8.0, x)
    series, power = xp.zeros_like(x), 1.0 / z
    for coefficient in _STIRLING:
        series = series + coefficient * power
        power = power / z / z
    value = (z - 0.5) * xp.log(z) - z + 0.5 * math.log(2.0 * math.pi) + series
    return xp.where(small, value - shift, value)


def _erf(x: Array, xp: Namespace) -> Array:
    """Up to 3 the series with positive terms ``x exp(-x^2) sum (2x^2)^k / (2k+1)!!``, beyond a continued fraction of erfc."""
    a = xp.abs(x)
    near = a < 3.0
    u = xp.where(near, a, 0.0)
    term = xp.ones_like(u)
    total = term
    for k in range(1, 70):
        term = term * (2.0 * u * u) / (2.0 * k + 1.0)
        total = total + term
    inner = 2.0 / math.sqrt(math.pi) * u * xp.exp(-u * u) * total
    w = xp.where(near, 3.0, a)
    fraction = w
    for k in range(60, 0, -1):
        fraction = w + 0.5 * k / fraction
    # Beyond 30 the square would only overflow float32's exponent: erfc is zero there.
    capped = xp.where(w < 30.0, w, 30.0)
    outer = 1.0 - xp.exp(-capped * capped) / (math.sqrt(math.pi) * fraction)
    value = xp.where(near, inner, outer)
    return xp.where(xp.isnan(x), x, xp.where(x < 0, -value, value))

"""Special functions that the array-API standard lacks."""

from __future__ import annotations

import math

from .namespace import Array, Namespace


def logsumexp(x: Array, *, axis: int, xp: Namespace) -> Array:
    """``log sum exp(x)`` along ``axis``; an all minus-infinite slice gives minus infinity, not NaN.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import logsumexp
    >>> float(logsumexp(xp.asarray([-1000.0, -1000.0]), axis=0, xp=xp).round(4))
    -999.3069
    """
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0.0)
    total = xp.sum(xp.exp(x - top), axis=axis)
    positive = total > 0
    logs = xp.log(xp.where(positive, total, 1.0)) + xp.squeeze(top, axis=axis)
    return xp.where(positive, logs, -math.inf)

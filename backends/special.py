"""Special functions that the array-API standard lacks.

Where a library has its own routine, that is used; for any other, and where the libraries' own would give NaN for a slice
of minus infinities, the function is written with standard operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from .namespace import Array, Namespace, is_cupy, is_numpy, is_torch, wide_dtype
from .validation import check_dtype


@lru_cache(maxsize=64)
def _native(name: str, xp: Namespace) -> Callable[[Array], Array] | None:
    """The library's own function, or None; loaded at the first call, as these modules are slow to import."""
    known = ((is_numpy, "scipy.special"), (is_cupy, "cupyx.scipy.special"), (is_torch, "torch.special"))
    home = next((module for belongs, module in known if belongs(xp)), None)
    function: Any = getattr(import_module(home), name) if home else None
    return function  # type: ignore[no-any-return]


def _elementwise(name: str, generic: Callable[[Array, Namespace], Array], x: Array, xp: Namespace) -> Array:
    """The library's ``name`` of ``x``, or the generic formula in the widest dtype of the device; ``x`` keeps its dtype."""
    check_dtype(x, "x", xp)
    native = _native(name, xp)
    if native is not None:
        return native(x)
    return xp.astype(generic(xp.astype(x, wide_dtype(x, xp)), xp), x.dtype)


def _shifted_exp(x: Array, axis: int, xp: Namespace) -> tuple[Array, Array]:
    """``exp(x - top)`` and ``top``, the maximum along ``axis`` (zero where that is infinite), kept as an axis."""
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0.0)
    return xp.exp(x - top), top


def logsumexp(x: Array, *, axis: int, xp: Namespace) -> Array:
    """``log sum exp(x)`` along ``axis``; an all minus-infinite slice gives minus infinity, not NaN.

    Parameters
    ----------
    x : array
        Real floating.
    axis : int
        Axis to sum along.
    xp : namespace
        Library of the array.

    Returns
    -------
    array
        Without ``axis``; NaN where the slice has a NaN.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import logsumexp
    >>> float(logsumexp(xp.asarray([-1000.0, -1000.0]), axis=0, xp=xp).round(4))
    -999.3069
    """
    exps, top = _shifted_exp(x, axis, xp)
    total = xp.sum(exps, axis=axis)
    empty = total == 0
    logs = xp.log(xp.where(empty, 1.0, total)) + xp.squeeze(top, axis=axis)
    return xp.where(empty, -math.inf, logs)


def softmax(x: Array, *, axis: int, xp: Namespace) -> Array:
    """``exp(x) / sum exp(x)`` along ``axis``; an all minus-infinite slice gives zeros, not NaN.

    Parameters
    ----------
    x : array
        Real floating, finite or minus infinity.
    axis : int
        Axis along which the result sums to one.
    xp : namespace
        Library of the array.

    Returns
    -------
    array
        Of the shape and dtype of ``x``; NaN where the slice has a NaN.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import softmax
    >>> softmax(xp.asarray([1000.0, 1000.0, -xp.inf]), axis=0, xp=xp).tolist()
    [0.5, 0.5, 0.0]
    """
    check_dtype(x, "x", xp)
    exps, _ = _shifted_exp(x, axis, xp)
    total = xp.sum(exps, axis=axis, keepdims=True)
    return exps / xp.where(total == 0, 1.0, total)


def gammaln(x: Array, *, xp: Namespace) -> Array:
    """Logarithm of the gamma function, for positive numbers.

    Parameters
    ----------
    x : array
        Positive, real floating. What other numbers give is the library's choice.
    xp : namespace
        Library of the array.

    Returns
    -------
    array
        Of the shape and dtype of ``x``.

    Notes
    -----
    The generic formula shifts ``x`` to 8 or more by the recurrence and sums Stirling's series there (Abramowitz and Stegun
    1964, 6.1.15 and 6.1.41); its error in double precision is about 1e-14, relative, or absolute near the zeros 1 and 2.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import gammaln
    >>> gammaln(xp.asarray([0.5, 5.0]), xp=xp).round(6).tolist()
    [0.572365, 3.178054]
    """
    return _elementwise("gammaln", _gammaln, x, xp)


def erf(x: Array, *, xp: Namespace) -> Array:
    """Error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t^2)`` from 0 to ``x``.

    Parameters
    ----------
    x : array
        Real floating.
    xp : namespace
        Library of the array.

    Returns
    -------
    array
        Of the shape and dtype of ``x``.

    Notes
    -----
    The generic formula is the rational approximation of Cody (1969, Math. Comp. 23, 631-637); its error in double
    precision is about 1e-15.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.special import erf
    >>> erf(xp.asarray([-1.0, 0.0, 0.5]), xp=xp).round(6).tolist()
    [-0.842701, 0.0, 0.5205]
    """
    return _elementwise("erf", _erf, x, xp)


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    """Horner's rule, the highest power first."""
    value = x * 0.0 + coefficients[0]
    for c in coefficients[1:]:
        value = value * x + c
    return value


# Of x, x^-3, x^-5 ..., the highest power first.
_STIRLING = (-3617 / 122400, 1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)
_SHIFT = 8


def _gammaln(x: Array, xp: Namespace) -> Array:
    low = x < _SHIFT
    below = xp.where(low, x, 1.0)
    product = below
    for i in range(1, _SHIFT):
        product = product * (below + float(i))
    z = xp.where(low, x + float(_SHIFT), x)
    series = _polynomial(_STIRLING, 1.0 / z / z) / z
    stirling = (z - 0.5) * (xp.log(z) - 1.0) + (0.5 * math.log(2.0 * math.pi) - 0.5) + series
    return stirling - xp.where(low, xp.log(product), 0.0)


# Cody's coefficients, the highest power first: of x^2 for erf below 0.47, of x for exp(x^2) erfc(x) from there to 4.
_ERF_P = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_ERF_Q = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_ERFC_P = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_ERFC_Q = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)


def _erf(x: Array, xp: Namespace) -> Array:
    near = xp.abs(x) <= 0.46875
    inner = xp.where(near, x, 0.0)
    square = inner * inner
    small = inner * (_polynomial(_ERF_P, square) / _polynomial(_ERF_Q, square))
    # Beyond 6 the function is one in double precision; on 4 .. 6 the approximation, extended, is good to 1e-12 of
    # a complement below 2e-8.
    far = xp.minimum(xp.abs(x), 6.0)
    complement = xp.exp(-far * far) * (_polynomial(_ERFC_P, far) / _polynomial(_ERFC_Q, far))
    return xp.where(near, small, xp.sign(x) * (1.0 - complement))

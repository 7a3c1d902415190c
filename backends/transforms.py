"""Sine and cosine transforms along one axis, which the array-API standard lacks.

SciPy has native routines, and CuPy those of the second and third kind; else the FFT of the odd or even extension is
taken, which costs three to four times as much. All transforms here are orthonormal: the matrix of `dst1` is its own
inverse, that of `idct2` the transpose of that of `dct2`. The dtype stays, and every other axis is a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .errors import InputError
from .namespace import Array, Namespace, device, is_cupy, is_numpy
from .validation import check_array


def dst1(x: Array, axis: int, *, xp: Namespace) -> Array:
    """Discrete sine transform of the first kind, orthonormal: ``y_k = sqrt(2/(n+1)) sum_j x_j sin(pi (j+1)(k+1)/(n+1))``.

    Parameters
    ----------
    x : array
        Real or complex, any number of axes.
    axis : int
        The axis transformed; the others are batches.
    xp : namespace
        Library of the array.

    Returns
    -------
    array
        Of the shape and dtype of ``x``. Applied twice, the transform gives ``x`` back.

    Raises
    ------
    InputError
        ``axis`` is not an axis of ``x``, or ``x`` is empty.
    BackendError
        Wrong dtype.

    Notes
    -----
    Its vectors are the eigenvectors of ``tridiag(-1, 2, -1)``, with the eigenvalues ``4 sin(pi (k+1) / 2(n+1))^2``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.transforms import dst1
    >>> dst1(xp.asarray([1.0, 0.0, 0.0]), 0, xp=xp).round(3).tolist()
    [0.5, 0.707, 0.5]
    """
    axis = _checked(x, axis, xp)
    # CuPy's dst refuses the first kind.
    if is_numpy(xp):
        return _native("dst", 1, x, axis, xp)
    return _of_parts(_dst1, x, axis, xp)


def dct2(x: Array, axis: int, *, xp: Namespace) -> Array:
    """Discrete cosine transform of the second kind, orthonormal: ``y_k = c_k sum_j x_j cos(pi k (2j+1) / 2n)``.

    ``c_0 = sqrt(1/n)``, ``c_k = sqrt(2/n)``. Its vectors are the eigenvectors of the second difference with reflecting
    (Neumann) ends, with the eigenvalues ``4 sin(pi k / 2n)^2``. Parameters, result and errors as of `dst1`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.transforms import dct2
    >>> dct2(xp.asarray([1.0, 1.0, 1.0, 1.0]), 0, xp=xp).round(12).tolist()
    [2.0, 0.0, 0.0, 0.0]
    """
    axis = _checked(x, axis, xp)
    if is_numpy(xp) or is_cupy(xp):
        return _native("dct", 2, x, axis, xp)
    return _of_parts(_dct2, x, axis, xp)


def idct2(y: Array, axis: int, *, xp: Namespace) -> Array:
    """Inverse (and transpose) of `dct2`; parameters, result and errors as of `dst1`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.transforms import dct2, idct2
    >>> idct2(dct2(xp.asarray([1.0, 2.0, 4.0]), 0, xp=xp), 0, xp=xp).round(12).tolist()
    [1.0, 2.0, 4.0]
    """
    axis = _checked(y, axis, xp)
    if is_numpy(xp) or is_cupy(xp):
        return _native("idct", 2, y, axis, xp)
    return _of_parts(_idct2, y, axis, xp)


def _checked(x: Array, axis: int, xp: Namespace) -> int:
    check_array(x, "x", xp, allow_complex=True, finite=False)
    if not -x.ndim <= axis < x.ndim:
        raise InputError(f"axis is {axis}, but x has shape {tuple(x.shape)}")
    return int(axis % x.ndim)


def _native(name: str, kind: int, x: Array, axis: int, xp: Namespace) -> Array:
    if is_numpy(xp):
        from scipy import fft
    else:
        from cupyx.scipy import fft
    if name == "dst" and x.shape[axis] == 1:
        return xp.asarray(x, copy=True)  # the 1 x 1 matrix is the number one
    return getattr(fft, name)(x, type=kind, axis=axis, norm="ortho")


def _of_parts(transform: Callable[[Array, int, Namespace], Array], x: Array, axis: int, xp: Namespace) -> Array:
    """The transform of a complex array is that of its parts."""
    if not xp.isdtype(x.dtype, "complex floating"):
        return transform(x, axis, xp)
    return transform(xp.real(x), axis, xp) + 1j * transform(xp.imag(x), axis, xp)


def _part(ndim: int, axis: int, part: slice) -> tuple[slice, ...]:
    index = [slice(None)] * ndim
    index[axis] = part
    return tuple(index)


def _dst1(x: Array, axis: int, xp: Namespace) -> Array:
    n = x.shape[axis]
    zero = xp.zeros_like(x[_part(x.ndim, axis, slice(0, 1))])
    odd = xp.concat([zero, x, zero, -xp.flip(x, axis=axis)], axis=axis)
    wave = xp.imag(xp.fft.rfft(odd, axis=axis))
    return wave[_part(x.ndim, axis, slice(1, n + 1))] * (-1.0 / math.sqrt(2.0 * (n + 1)))


def _twiddle(n: int, like: Array, axis: int, sign: float, xp: Namespace) -> tuple[Array, Array]:
    """``exp(sign i pi k / 2n)``, scaled to make the transform orthonormal, along ``axis``."""
    k = xp.arange(n, dtype=like.dtype, device=device(like))
    angle = k * (math.pi / (2 * n))
    first = math.sqrt(1.0 / n)
    scale = xp.where(k > 0, xp.full_like(angle, first * math.sqrt(2.0)), first)
    if sign > 0:
        scale = 1.0 / scale
    shape = [1] * like.ndim
    shape[axis] = n
    return xp.reshape(scale * xp.cos(angle), tuple(shape)), xp.reshape(sign * scale * xp.sin(angle), tuple(shape))


def _dct2(x: Array, axis: int, xp: Namespace) -> Array:
    n = x.shape[axis]
    wave = xp.fft.rfft(xp.concat([x, xp.flip(x, axis=axis)], axis=axis), axis=axis)
    wave = wave[_part(x.ndim, axis, slice(0, n))]
    cosine, sine = _twiddle(n, x, axis, -1.0, xp)
    return 0.5 * (cosine * xp.real(wave) - sine * xp.imag(wave))


def _idct2(y: Array, axis: int, xp: Namespace) -> Array:
    n = y.shape[axis]
    cosine, sine = _twiddle(n, y, axis, 1.0, xp)
    wave = 2.0 * (y * cosine) + 2.0j * (y * sine)
    wave = xp.concat([wave, xp.zeros_like(wave[_part(y.ndim, axis, slice(0, 1))])], axis=axis)
    return xp.fft.irfft(wave, n=2 * n, axis=axis)[_part(y.ndim, axis, slice(0, n))]

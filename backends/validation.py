"""Checks of what a caller passes in: each error names the argument, what was found, and the remedy.

Values are checked with one combined reduction, so a GPU is asked for one number per argument, before any work starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from .errors import BackendError, InputError
from .namespace import Array, Namespace
from .transfer import host_bool, host_float


def check_dtype(x: Array, name: str, xp: Namespace, *, allow_complex: bool = False) -> None:
    """Require float32 or float64 (or their complex partners where the solver has a meaning for them)."""
    allowed = [xp.float32, xp.float64]
    if allow_complex:
        allowed += [xp.complex64, xp.complex128]
    if x.dtype not in allowed:
        wanted = "float32, float64, complex64 or complex128" if allow_complex else "float32 or float64"
        raise BackendError(
            f"{name} has dtype {x.dtype}, expected {wanted}; convert it, e.g. xp.astype({name}, xp.float64)"
        )


def check_finite(x: Array, name: str, xp: Namespace) -> None:
    """Require that no entry is NaN or infinite."""
    if math.prod(x.shape) and not host_bool(xp.all(xp.isfinite(x))):
        raise InputError(f"{name} contains NaN or infinite values")


def unwarned() -> AbstractContextManager[Any]:
    """Arithmetic on entries whose finiteness has not been read yet: NumPy's own warnings would come before our errors."""
    return np.errstate(all="ignore")


def check_array(
    x: Array,
    name: str,
    xp: Namespace,
    *,
    ndim: int | Iterable[int] | None = None,
    shape: tuple[int | None, ...] | None = None,
    allow_empty: bool = False,
    allow_complex: bool = False,
    finite: bool = True,
    dtype: Any = None,
) -> Array:
    """Check one array argument and return it unchanged.

    Parameters
    ----------
    x : array
        The argument; its library has been settled by `array_namespace`.
    name : str
        Its name in the public signature.
    xp : namespace
        Namespace of ``x``.
    ndim : int or several, optional
        Allowed numbers of dimensions.
    shape : tuple, optional
        Required shape; None in a place accepts any length there.
    allow_empty : bool
        Whether a zero length is legal.
    allow_complex : bool
        Whether complex dtypes are legal.
    finite : bool
        Whether NaN and infinities are refused (one host transfer).
    dtype : dtype, optional
        Required dtype, that of the argument that decides.

    Raises
    ------
    BackendError
        Wrong dtype.
    InputError
        Wrong number of dimensions, shape, emptiness, or a non-finite entry.
    """
    check_dtype(x, name, xp, allow_complex=allow_complex)
    if ndim is not None:
        allowed = (ndim,) if isinstance(ndim, int) else tuple(ndim)
        if x.ndim not in allowed:
            wanted = " or ".join(f"{k}-d" for k in allowed)
            raise InputError(f"{name} has shape {tuple(x.shape)}, expected a {wanted} array")
    if shape is not None and (
        len(shape) != x.ndim
        or any(want is not None and have != want for have, want in zip(x.shape, shape, strict=True))
    ):
        wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"
        raise InputError(f"{name} has shape {tuple(x.shape)}, expected {wanted}")
    if not allow_empty and math.prod(x.shape) == 0:
        raise InputError(f"{name} is empty: its shape is {tuple(x.shape)}")
    if dtype is not None and x.dtype != dtype:
        raise BackendError(f"{name} has dtype {x.dtype}, the other arrays {dtype}; convert one of them")
    if finite:
        check_finite(x, name, xp)
    return x


def check_weights(w: Array, name: str, xp: Namespace, *, n: int, dtype: Any = None) -> Array:
    """Check a vector of ``n`` non-negative weights with a positive sum."""
    check_array(w, name, xp, shape=(n,), dtype=dtype)
    if host_float(xp.min(w)) < 0:
        raise InputError(f"{name} has negative entries; weights must be non-negative")
    if not host_float(xp.sum(w)) > 0:
        raise InputError(f"{name} sums to zero; at least one weight must be positive")
    return w


def check_scalar(
    value: Any, name: str, *, positive: bool = False, non_negative: bool = False, finite: bool = True
) -> float:
    """A number as a Python float; arrays of size one are accepted, anything else is an error naming ``name``."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as err:
        raise BackendError(f"{name} must be a number, got {type(value).__name__}") from err
    if math.isnan(number) or (finite and math.isinf(number)):
        raise InputError(f"{name} must be finite, got {number}")
    if positive and not number > 0:
        raise InputError(f"{name} must be positive, got {number}")
    if non_negative and not number >= 0:
        raise InputError(f"{name} must be non-negative, got {number}")
    return number


def check_count(value: Any, name: str, *, minimum: int = 1) -> int:
    """An integer of at least ``minimum``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise BackendError(f"{name} must be an integer, got {type(value).__name__}")
    number = int(value)
    if number < minimum:
        raise InputError(f"{name} must be at least {minimum}, got {number}")
    return number


def check_choice(value: Any, name: str, choices: Iterable[str]) -> str:
    """One of a few words."""
    options = list(choices)
    if value not in options:
        raise InputError(f"{name} is {value!r}, expected one of {', '.join(map(repr, options))}")
    return str(value)


def check_callable(value: Any, name: str) -> None:
    """None or something that can be called."""
    if value is not None and not callable(value):
        raise BackendError(f"{name} must be callable, got {type(value).__name__}")


def check_floating(dtype: Any, name: str, xp: Namespace) -> Any:
    """A real floating dtype of ``xp``; float64 for None."""
    if dtype is None:
        return xp.float64
    if dtype not in (xp.float32, xp.float64):
        raise BackendError(f"{name} is {dtype!r}, expected float32 or float64 of {xp.__name__}")
    return dtype

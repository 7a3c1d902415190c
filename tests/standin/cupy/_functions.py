"""The functions of ``cupy`` 13: NumPy's, less those that CuPy lacks, with CuPy's arguments where they differ."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ._array import ndarray, on_device, to_device, to_numpy

# What NumPy 2 has and CuPy 13 has not, and a few names that both have and no solver needs.
_ARRAY_API = """
acos acosh asin asinh astype atan atan2 atanh bitwise_count bitwise_invert bitwise_left_shift bitwise_right_shift bool concat
cumulative_prod cumulative_sum isdtype matrix_transpose matvec permute_dims pow unique_all unique_counts unique_inverse
unique_values unstack vecdot vecmat
"""
_OTHERS = """
apply_over_axes asmatrix base_repr binary_repr block bmat busday_count busday_offset datetime_as_string datetime_data
einsum_path errstate frompyfunc fromregex geomspace get_include getbufsize geterr geterrcall histogram_bin_edges info insert
is_busday isnat nanpercentile nanquantile ndim nested_iters polyder polydiv polyint put_along_axis setbufsize seterr seterrcall
show_config show_runtime spacing test trapezoid
"""
# DLPack would take an array out of the stand-in.
_ABSENT = {*_ARRAY_API.split(), *_OTHERS.split(), "from_dlpack"}


def _known(name: str) -> Any:
    """The counterpart of a name of NumPy, or None."""
    x = getattr(np, name)
    if name in _ABSENT or isinstance(x, ModuleType):
        return None
    if isinstance(x, type):
        number = issubclass(x, np.number | np.bool_) and x.__name__ not in ("longdouble", "clongdouble")
        return x if number or x in (np.dtype, np.finfo, np.iinfo, np.generic) else None
    return on_device(x) if callable(x) else x


FUNCTIONS = {name: x for name in np.__all__ if not name.startswith("_") and (x := _known(name)) is not None}


def _own(f: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a function whose arguments are CuPy's own."""
    FUNCTIONS[f.__name__.strip("_")] = f
    return f


@_own
def array(obj: Any, dtype: Any = None, copy: bool = True, order: Any = "K", subok: bool = False, ndmin: int = 0) -> Any:
    return ndarray(np.array(to_numpy(obj, host=True), dtype=dtype, copy=copy or None, order=order, ndmin=ndmin))


@_own
def asarray(a: Any, dtype: Any = None, order: Any = None) -> Any:
    if isinstance(a, ndarray) and (dtype is None or a.dtype == np.dtype(dtype)):
        return a
    # The device has memory of its own: what comes from the host is copied.
    copy = True if isinstance(a, np.ndarray) else None
    return ndarray(np.array(to_numpy(a, host=True), dtype=dtype, copy=copy, order=order))


@_own
def ascontiguousarray(a: Any, dtype: Any = None) -> Any:
    return ndarray(np.ascontiguousarray(to_numpy(a, host=True), dtype=dtype))


@_own
def asfortranarray(a: Any, dtype: Any = None) -> Any:
    return ndarray(np.asfortranarray(to_numpy(a, host=True), dtype=dtype))


@_own
def asnumpy(a: Any) -> np.ndarray:
    host: np.ndarray = a.get()
    return host


@_own
def result_type(*args: Any) -> Any:
    return np.result_type(*to_numpy(args))


@_own
def concatenate(arrays: Any, axis: int | None = 0) -> Any:
    return ndarray(np.concatenate(to_numpy(arrays), axis=axis))


@_own
def sort(a: Any, axis: int = -1, kind: str | None = None) -> Any:
    return ndarray(np.sort(to_numpy(a), axis=axis, kind="stable"))


@_own
def argsort(a: Any, axis: int = -1, kind: str | None = None) -> Any:
    return a.argsort(axis, kind)


@_own
def exp(x: Any, out: Any = None) -> Any:
    if out is None:
        return to_device(np.exp(to_numpy(x)))
    np.exp(to_numpy(x), out=to_numpy(out), dtype=out.dtype, casting="same_kind")
    return out


@_own
def matmul(a: Any, b: Any, out: Any = None) -> Any:
    product = np.matmul(to_numpy(a), to_numpy(b))
    if out is None:
        return to_device(product)
    out[...] = ndarray(product)
    return out


@_own
def _sum(a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
    """Without the ``where`` and ``initial`` of NumPy."""
    return to_device(np.sum(to_numpy(a), axis=axis, dtype=dtype, keepdims=keepdims))

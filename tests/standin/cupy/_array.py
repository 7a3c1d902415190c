"""``cupy.ndarray`` of CuPy 13: an array that meets neither NumPy's arrays nor NumPy's functions unless asked to."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .cuda import Device


def refuse(x: Any) -> None:
    """CuPy's answer to an array of the host where one of the device is wanted."""
    raise TypeError(f"Unsupported type {type(x)}: host and device are mixed (stand-in for CuPy)")


def to_numpy(x: Any, *, host: bool = False) -> Any:
    """The arrays within ``x`` as NumPy arrays; those that are already refused, unless ``host``."""
    if isinstance(x, ndarray):
        return x._host
    if isinstance(x, np.ndarray) and not host:
        refuse(x)
    if type(x) in (tuple, list):
        return type(x)(to_numpy(v, host=host) for v in x)
    if isinstance(x, dict):
        return {k: to_numpy(v, host=host) for k, v in x.items()}
    return x


def to_device(x: Any) -> Any:
    """The arrays and scalars of NumPy within ``x`` as arrays of the device: CuPy has no scalars."""
    if isinstance(x, np.ndarray | np.generic):
        return ndarray(x)
    if isinstance(x, tuple | list):
        return (list if isinstance(x, list) else tuple)(to_device(v) for v in x)
    return x


def on_device(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy as one of CuPy."""

    def call(*args: Any, **options: Any) -> Any:
        return to_device(f(*to_numpy(args), **to_numpy(options)))

    call.__name__ = getattr(f, "__name__", "call")
    return call


class ndarray:
    """See the module's text; the numbers lie in NumPy's memory."""

    __module__ = "cupy"
    __array_priority__ = 100

    def __init__(self, host: Any) -> None:
        self._host = np.asarray(host)

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{func.__name__} of an array of the device")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__":
            raise TypeError(f"{ufunc.__name__}.{method} of an array of the device")
        return on_device(ufunc)(*inputs, **options)

    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    dtype = property(lambda self: self._host.dtype)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    device = property(lambda self: Device(0))
    T = property(lambda self: ndarray(self._host.T))  # .mT is of CuPy 14

    @property
    def real(self) -> Any:
        return ndarray(self._host.real)

    @real.setter
    def real(self, value: Any) -> None:
        self._host.real = to_numpy(value)

    @property
    def imag(self) -> Any:
        return ndarray(self._host.imag)

    @imag.setter
    def imag(self, value: Any) -> None:
        self._host.imag = to_numpy(value)

    def get(self, stream: Any = None) -> np.ndarray:
        return self._host.copy()

    def item(self) -> Any:
        return self._host.item()

    def tolist(self) -> Any:
        return self._host.tolist()

    def __float__(self) -> float:
        return float(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __complex__(self) -> complex:
        return complex(self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    def __index__(self) -> int:
        return self._host.__index__()

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Any]:
        return (ndarray(v) for v in self._host)

    def __getitem__(self, index: Any) -> Any:
        return ndarray(self._host[to_numpy(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[to_numpy(index)] = to_numpy(value)

    def __repr__(self) -> str:
        return f"standin.{self._host!r}"

    __hash__ = None  # type: ignore[assignment]

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> Any:
        host = self._host.astype(dtype, order=order, copy=copy)  # type: ignore[call-overload]
        return self if host is self._host else ndarray(host)

    def argsort(self, axis: int = -1, kind: str | None = None) -> Any:
        if kind not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        return ndarray(self._host.argsort(axis=axis, kind="stable"))

    def fill(self, value: Any) -> None:
        self._host.fill(to_numpy(value))


def _operator(name: str) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> Any:
        if not isinstance(other, ndarray | np.ndarray | np.generic | int | float | complex):
            return NotImplemented
        return to_device(getattr(self._host, name)(to_numpy(other)))

    return call


def _in_place(name: str) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> Any:
        getattr(self._host, name)(to_numpy(other))
        return self

    return call


def _method(name: str) -> Callable[..., Any]:
    def call(self: ndarray, *args: Any, **options: Any) -> Any:
        return to_device(getattr(self._host, name)(*to_numpy(args), **to_numpy(options)))

    return call


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_METHODS = (
    *("__pos__", "__neg__", "__invert__", "__abs__", "all", "any", "argmax", "argmin", "clip", "conj", "conjugate"),
    *("copy", "cumsum", "diagonal", "dot", "flatten", "max", "mean", "min", "nonzero", "prod", "ravel", "repeat"),
    *("reshape", "round", "squeeze", "std", "sum", "swapaxes", "take", "trace", "transpose", "var", "view"),
)

for _name in (*_BINARY, "matmul"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _operator(f"__r{_name}__"))
for _name in _BINARY:
    setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in _COMPARISONS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in _METHODS:
    setattr(ndarray, _name, _method(_name))

"""Which library, dtype and device the caller's arrays belong to.

The rule of the package is: array in, same kind of array out. These functions answer *which kind*, once, at the public
entry of a solver; nothing here is called inside an iteration.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

from .errors import BackendError

# The standard has no nominal array type; what an ``Array`` must offer is the array API itself.
Array: TypeAlias = Any
Namespace: TypeAlias = Any

_SCALARS = (bool, int, float, complex)


@lru_cache(maxsize=256)
def _is_array_type(kind: type) -> bool:
    """Whether instances of ``kind`` are arrays of a library that follows the array API."""
    if issubclass(kind, np.matrix | np.ma.MaskedArray | np.generic) or kind.__module__.split(".")[0] == "sparse":
        return False
    if issubclass(kind, np.ndarray) or hasattr(kind, "__array_namespace__"):
        return True
    # torch, old cupy and dask arrays do not carry the attribute: array-api-compat knows them by module name.
    return kind.__module__.split(".")[0] in {"torch", "cupy", "dask"} and kind.__name__ in {
        "Tensor",
        "Parameter",
        "ndarray",
        "Array",
    }


def is_array(obj: object) -> bool:
    """Whether ``obj`` is an array that solvers can compute with (strided, numeric, not a matrix, masked or sparse)."""
    if not _is_array_type(type(obj)):  # type: ignore[arg-type]
        return False
    if isinstance(obj, np.ndarray):
        return obj.dtype.kind in "biufc"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(obj, torch.Tensor):
        return bool(obj.layout is torch.strided)
    return True


def _refuse(obj: object, name: str) -> BackendError:
    kind = type(obj)
    if isinstance(obj, np.matrix):
        remedy = "np.matrix is not supported; pass np.asarray(...)"
    elif isinstance(obj, np.ma.MaskedArray):
        remedy = "masked arrays are not supported; fill or drop the masked entries"
    elif isinstance(obj, np.ndarray):
        remedy = f"its dtype is {obj.dtype}; convert it to numbers, e.g. with .astype(np.float64)"
    elif isinstance(obj, list | tuple):
        remedy = "convert it to an array first, e.g. np.asarray(...), so that dtype and device are your choice"
    elif "sparse" in kind.__module__ or kind.__name__ == "Tensor":
        remedy = "sparse containers are accepted only as linear operators"
    else:
        remedy = "expected an array of NumPy, CuPy, torch or another array-API library"
    return BackendError(f"{name} is a {kind.__module__}.{kind.__qualname__}, not an array: {remedy}")


def array_namespace(**arrays: Array | None) -> Namespace:
    """Return the array-API namespace shared by all named arrays.

    Parameters
    ----------
    **arrays : array, None or Python scalar
        Arguments by name, so that an error can say which one is wrong. None and Python scalars are ignored.

    Returns
    -------
    module
        The (array-api-compat wrapped) namespace.

    Raises
    ------
    BackendError
        An argument is no array, or the arrays belong to several libraries or devices; the message names them.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.namespace import array_namespace
    >>> array_namespace(x=np.ones(3), y=None).__name__
    'array_api_compat.numpy'
    """
    present = {name: a for name, a in arrays.items() if a is not None and not isinstance(a, _SCALARS)}
    for name, a in present.items():
        if not is_array(a):
            raise _refuse(a, name)
    if not present:
        raise BackendError(f"no array among the arguments {', '.join(arrays)}")
    namespaces = {name: array_api_compat.array_namespace(a) for name, a in present.items()}
    first_name, xp = next(iter(namespaces.items()))
    for name, other in namespaces.items():
        if other is not xp:
            raise BackendError(
                f"arrays of several libraries in one call: {first_name} is {library(xp)}, {name} is {library(other)}; "
                "convert them to one library first"
            )
    first_device = device(present[first_name])
    for name, a in present.items():
        if device(a) != first_device:
            raise BackendError(
                f"arrays on different devices in one call: {first_name} on {first_device}, {name} on {device(a)}; "
                "move them to one device first"
            )
    return xp


def library(xp: Namespace) -> str:
    """Short name of a namespace: ``"numpy"``, ``"torch"``, ``"cupy"``, ``"array_api_strict"`` ..."""
    name = xp.__name__ if isinstance(xp, ModuleType) else str(xp)
    return name.removeprefix("array_api_compat.").split(".")[0]


def is_numpy(xp: Namespace) -> bool:
    """Whether ``xp`` is NumPy's namespace."""
    return bool(array_api_compat.is_numpy_namespace(xp))


def is_cupy(xp: Namespace) -> bool:
    """Whether ``xp`` is CuPy's namespace."""
    return bool(array_api_compat.is_cupy_namespace(xp))


def is_torch(xp: Namespace) -> bool:
    """Whether ``xp`` is torch's namespace."""
    return bool(array_api_compat.is_torch_namespace(xp))


def device(x: Array) -> Any:
    """Device of an array."""
    return array_api_compat.device(x)


def is_gpu(x: Array) -> bool:
    """Whether ``x`` lives on an accelerator (decides the default ``check_every`` and the engine, nothing else)."""
    if isinstance(x, np.ndarray):
        return False
    if array_api_compat.is_cupy_array(x):
        return True
    if array_api_compat.is_torch_array(x):
        return bool(x.device.type != "cpu")
    return "gpu" in str(device(x)).lower() or "cuda" in str(device(x)).lower()


def finfo_eps(dtype: Any, xp: Namespace) -> float:
    """Machine epsilon of a real or complex dtype, as a Python float."""
    return float(xp.finfo(dtype).eps)


def has_float64(x: Array, xp: Namespace) -> bool:
    """Whether the device of ``x`` computes in float64 (some accelerators do not)."""
    info = xp.__array_namespace_info__()
    return "float64" in info.dtypes(kind="real floating", device=device(x))


def wide_dtype(x: Array, xp: Namespace) -> Any:
    """The widest real floating dtype of the device of ``x``: float64 where it exists, else float32."""
    return xp.float64 if has_float64(x, xp) else xp.float32

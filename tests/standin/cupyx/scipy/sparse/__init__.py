"""``cupyx.scipy.sparse`` of CuPy 13: matrices, not arrays, in four formats, of four kinds of numbers and booleans."""

from typing import Any

import numpy as np
import scipy.sparse as sps
from cupy._array import ndarray, refuse, to_device, to_numpy


class _Matrix:
    """A matrix of SciPy behind the members that CuPy has."""

    format: str
    ndim = 2

    def __init__(self, arg: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> None:
        kind = getattr(sps, f"{self.format}_matrix")
        if sps.issparse(arg):
            self._host = kind(arg)
        elif isinstance(arg, _Matrix):
            self._host = kind(arg._host, dtype=dtype)
        elif isinstance(arg, ndarray):
            self._host = kind(arg._host, shape=shape, dtype=dtype)
        elif isinstance(arg, tuple):
            for part in (arg[0], *(arg[1] if len(arg) == 2 else arg[1:])):
                if not isinstance(part, ndarray):
                    raise ValueError("row, column, and data arrays must be 1-D")
            self._host = kind(to_numpy(arg), shape=shape, dtype=dtype)
        else:
            raise ValueError("Unsupported initializer format")
        if self._host.dtype.char not in "?fdFD":
            raise ValueError("Only bool, float32, float64, complex64 and complex128 are supported")

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    nnz = size = property(lambda self: self._host.nnz)
    data = property(lambda self: ndarray(self._host.data))
    indices = property(lambda self: ndarray(self._host.indices))
    indptr = property(lambda self: ndarray(self._host.indptr))
    row = property(lambda self: ndarray(self._host.row))
    col = property(lambda self: ndarray(self._host.col))
    device = property(lambda self: self.data.device)
    T = property(lambda self: _of(self._host.T))

    def get(self, stream: Any = None) -> Any:
        return self._host.copy()

    def __len__(self) -> int:
        raise TypeError("sparse matrix length is ambiguous; use getnnz()")

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array with more than one element is ambiguous.")

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, _Matrix):
            return _of(self._host @ other._host)
        if not isinstance(other, ndarray):
            refuse(other)
        return to_device(self._host @ other._host)

    dot = __mul__ = __matmul__

    def __abs__(self) -> Any:
        return _of(abs(self._host))

    def tocsr(self, copy: bool = False) -> Any:
        return csr_matrix(self._host)

    def tocsc(self, copy: bool = False) -> Any:
        return csc_matrix(self._host)

    def tocoo(self, copy: bool = False) -> Any:
        return coo_matrix(self._host)

    def conj(self, copy: bool = True) -> Any:
        return _of(self._host.conj())

    def astype(self, dtype: Any) -> Any:
        return _of(self._host.astype(dtype))

    def multiply(self, other: Any) -> Any:
        return _of(self._host.multiply(other._host))

    def diagonal(self, k: int = 0) -> Any:
        return to_device(self._host.diagonal(k))

    def sum(self, axis: Any = None, dtype: Any = None) -> Any:
        return to_device(np.asarray(self._host.sum(axis=axis, dtype=dtype)))

    def sum_duplicates(self) -> None:
        self._host.sum_duplicates()

    def copy(self) -> Any:
        return _of(self._host.copy())


# Where CuPy defines them: the package knows the classes by their modules.
csr_matrix, csc_matrix, coo_matrix, dia_matrix = (
    type(f"{kind}_matrix", (_Matrix,), {"format": kind, "__module__": f"cupyx.scipy.sparse._{kind}"})
    for kind in ("csr", "csc", "coo", "dia")
)
_KINDS = {"csr": csr_matrix, "csc": csc_matrix, "coo": coo_matrix, "dia": dia_matrix}


def _of(host: Any) -> Any:
    return _KINDS[host.format](host)

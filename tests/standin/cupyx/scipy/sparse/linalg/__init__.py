"""``cupyx.scipy.sparse.linalg`` of CuPy 13: operators by their products, and SciPy's sparse factors carried over."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg
from cupy._array import ndarray, refuse


class LinearOperator:
    """What the package reads of one."""

    __module__ = "cupyx.scipy.sparse.linalg._interface"

    def __init__(
        self,
        shape: tuple[int, int],
        matvec: Callable[[Any], Any],
        rmatvec: Any = None,
        matmat: Any = None,
        dtype: Any = None,
    ) -> None:
        self.shape, self.matvec, self.rmatvec, self.dtype = shape, matvec, rmatvec, np.dtype(dtype)


class SuperLU:
    """The factors of a `scipy.sparse.linalg.SuperLU`, solved with on the device."""

    def __init__(self, obj: Any) -> None:
        if not isinstance(obj, scipy.sparse.linalg.SuperLU):
            raise TypeError("obj must be scipy.sparse.linalg.SuperLU")
        self._host = obj

    def solve(self, rhs: Any, trans: str = "N") -> Any:
        if not isinstance(rhs, ndarray):
            refuse(rhs)
        return ndarray(self._host.solve(np.asfortranarray(rhs._host).astype(self._host.L.dtype), trans))

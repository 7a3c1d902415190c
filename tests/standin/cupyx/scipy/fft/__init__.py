"""``cupyx.scipy.fft`` of CuPy 13: cosine and sine transforms of types 2 and 3 only."""

from collections.abc import Callable
from typing import Any

import scipy.fft
from cupy._array import to_device, to_numpy


def _transform(name: str) -> Callable[..., Any]:
    def call(x: Any, type: int = 2, n: Any = None, axis: int = -1, norm: Any = None, overwrite_x: bool = False) -> Any:
        if type not in (2, 3):
            raise NotImplementedError("Only DCT-II and DCT-III are supported")
        return to_device(getattr(scipy.fft, name)(to_numpy(x), type=type, n=n, axis=axis, norm=norm))

    return call


dct, idct, dst, idst = map(_transform, ("dct", "idct", "dst", "idst"))

"""``cupyx`` of CuPy 13: the switch for errors of linear algebra, and sums into repeated places."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cupy._array import to_numpy
from cupy.linalg import ERRORS


@contextmanager
def errstate(*, linalg: str | None = None) -> Iterator[None]:
    before = ERRORS["linalg"]
    ERRORS["linalg"] = linalg or before
    try:
        yield
    finally:
        ERRORS["linalg"] = before


def scatter_add(a: Any, slices: Any, value: Any) -> None:
    if a.dtype.kind == "c":
        raise TypeError("scatter_add only supports int32, float16, float32, float64, uint32 and uint64 as data type")
    np.add.at(to_numpy(a), to_numpy(slices), to_numpy(value))

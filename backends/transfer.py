"""The only door out of a device: every host transfer passes here and is counted.

A float read from a GPU array waits for all queued work, so solvers take as few as they can, and a test can bound how
many with `count_transfers`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import array_api_compat
import numpy as np

from .namespace import Array, Namespace, device


@dataclass(eq=False)
class TransferCount:
    """Number of host transfers since the enclosing `count_transfers` began."""

    n: int = 0


_counters: list[TransferCount] = []


@contextmanager
def count_transfers() -> Iterator[TransferCount]:
    """Count the host transfers made inside the ``with`` block.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.transfer import count_transfers, host_float
    >>> with count_transfers() as transfers:
    ...     _ = host_float(np.asarray(2.0))
    >>> transfers.n
    1
    """
    counter = TransferCount()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def _count() -> None:
    for counter in _counters:
        counter.n += 1


def host_float(x: Array) -> float:
    """A 0-d array as a Python float: one synchronisation on a GPU, none for what is a float already."""
    if type(x) is float:
        return x
    if _counters:
        _count()
    return float(x.detach() if hasattr(x, "detach") else x)


def host_bool(x: Array) -> bool:
    """A 0-d boolean array as a Python bool: one synchronisation on a GPU."""
    if _counters:
        _count()
    return bool(x.detach() if hasattr(x, "detach") else x)


def to_host(x: Array) -> np.ndarray:
    """A NumPy copy (or view, for NumPy input) of any array."""
    if isinstance(x, np.ndarray):
        return x
    if _counters:
        _count()
    if array_api_compat.is_cupy_array(x):
        return np.asarray(x.get())
    if array_api_compat.is_torch_array(x):
        return np.asarray(x.numpy(force=True))  # resolves gradients, devices and pending conjugations
    try:
        return np.asarray(np.from_dlpack(x))
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return np.asarray(x)


def to_host_together(*arrays: Array, xp: Namespace) -> list[np.ndarray]:
    """NumPy copies of several arrays of one dtype: one transfer for all of them."""
    if all(isinstance(x, np.ndarray) for x in arrays):
        return list(arrays)
    flat = to_host(xp.concat([xp.reshape(x, (-1,)) for x in arrays]))
    ends = np.cumsum([math.prod(x.shape) for x in arrays])
    return [part.reshape(x.shape) for part, x in zip(np.split(flat, ends[:-1]), arrays, strict=True)]


def from_host(a: np.ndarray, *, like: Array, xp: Namespace) -> Array:
    """A host array in the library and on the device of ``like``, with its dtype; not counted, as nothing waits for it."""
    if isinstance(like, np.ndarray):
        return a
    dtype = getattr(xp, a.dtype.name)
    return xp.asarray(a, dtype=dtype, device=device(like), copy=True)

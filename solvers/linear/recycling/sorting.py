"""An order for a sequence of systems in which each is like the one before (Wang et al., ICLR 2024).

What one solve leaves behind helps most where the next matrix is close. The greedy order walks from each system to the nearest
one that is left, by the distance of their parameters; long sequences are first cut into groups along a Hilbert curve through
their low frequencies.
"""

from __future__ import annotations

from typing import Any

from ....backends.errors import InputError
from ....backends.namespace import Array, array_namespace
from ....backends.transfer import to_host
from ....backends.validation import check_array, check_count


def order_greedy(P: Array, extra: Array | None = None) -> list[int]:
    """The order in which each system's parameters are the nearest of those left to the one before.

    Parameters
    ----------
    P : array (N, ...)
        Parameters, one array for each system; distances are Frobenius norms of differences.
    extra : array (N,), optional
        A scalar of each system whose absolute difference is added to the distance.

    Returns
    -------
    list of int
        A permutation of ``0 .. N-1`` that starts at 0. ``O(N^2)`` distances, from one Gram matrix.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library or shape; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import order_greedy
    >>> order_greedy(np.asarray([0.0, 3.0, 1.0, 2.0]))
    [0, 2, 3, 1]
    """
    import numpy as np

    xp = array_namespace(P=P, extra=extra)
    check_array(P, "P", xp)
    if P.ndim == 0:
        raise InputError("P has no axis, expected (N, ...)")
    count = P.shape[0]
    rows = xp.reshape(P, (count, -1))
    # The mean carries no distance, and without it the difference of squares keeps its digits.
    rows = rows - xp.mean(rows, axis=0)
    squares = xp.sum(rows * rows, axis=1)
    host = to_host(squares[:, None] + squares[None, :] - 2.0 * xp.matmul(rows, rows.T))
    distance = np.sqrt(np.maximum(host, 0.0))
    if extra is not None:
        check_array(extra, "extra", xp, shape=(count,))
        scalar = to_host(extra)
        distance = distance + abs(scalar[:, None] - scalar[None, :])
    return _walk(distance)


def _walk(distance: Any) -> list[int]:
    import numpy as np

    distance = np.array(distance, dtype=float)
    here, order = 0, [0]
    for _ in range(distance.shape[0] - 1):
        distance[:, here] = np.inf
        here = int(np.argmin(distance[here]))
        order.append(here)
    return order


def order_fft(P: Array, *, size: int = 12, group: int = 1000, dimensions: int = 7) -> list[int]:
    """An order for long sequences of fields: greedy within groups along a Hilbert curve through their low frequencies.

    Parameters
    ----------
    P : array (N, p, q)
        Fields, one for each system.
    size : int
        Frequencies kept along each axis, the lowest.
    group : int
        Systems that are compared with one another; the cost is ``O(N group)`` distances instead of ``O(N^2)``.
    dimensions : int
        Principal components in which the curve runs.

    Returns
    -------
    list of int
        A permutation of ``0 .. N-1``.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import order_fft
    >>> x = np.linspace(0.0, 6.0, 16)
    >>> fields = np.stack([np.sin(x[:, None] + shift) + 0.0 * x for shift in (0.0, 0.3, 0.1, 0.2)])
    >>> order_fft(fields)
    [0, 2, 3, 1]
    """
    import numpy as np

    xp = array_namespace(P=P)
    check_array(P, "P", xp, ndim=3)
    size, group = check_count(size, "size"), check_count(group, "group")
    dimensions = check_count(dimensions, "dimensions")
    count, p, q = P.shape
    spectrum = xp.fft.fftshift(xp.fft.fft2(P) if hasattr(xp.fft, "fft2") else xp.fft.fftn(P, axes=(1, 2)), axes=(1, 2))
    rows = slice(max(0, p // 2 - size // 2), p // 2 + (size + 1) // 2)
    columns = slice(max(0, q // 2 - size // 2), q // 2 + (size + 1) // 2)
    low = to_host(spectrum[:, rows, columns]).reshape(count, -1)
    features = np.concatenate([low.real, low.imag], axis=1) / (p * q) ** 0.5
    features = features - features.mean(axis=0)
    if count <= group:
        return _greedy(features)
    parts = np.linalg.svd(features, full_matrices=False)
    reduced = (parts[0] * parts[1])[:, :dimensions]
    span = np.ptp(reduced, axis=0)
    unit = (reduced - reduced.min(axis=0)) / np.where(span > 0, span, 1.0)
    curve = np.argsort(_hilbert(np.minimum((unit * 2**_BITS).astype(np.int64), 2**_BITS - 1)), kind="stable")
    order: list[int] = []
    for start in range(0, count, group):
        members = curve[start : start + group]
        order += [int(members[i]) for i in _greedy(features[members])]
    return order


def _greedy(features: Any) -> list[int]:
    import numpy as np

    squares = (features**2).sum(axis=1)
    return _walk(np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * features @ features.T, 0.0)))


_BITS = 8


def _hilbert(cells: Any) -> Any:
    """Places along the Hilbert curve of integer cells (N, d), ``_BITS`` bits each (Skilling 2004)."""
    import numpy as np

    x = np.array(cells, dtype=np.int64)
    d = x.shape[1]
    bit = 1 << (_BITS - 1)
    while bit > 1:
        below = bit - 1
        for axis in range(d):
            high = (x[:, axis] & bit) != 0
            swap = (x[:, 0] ^ x[:, axis]) & below
            x[:, 0] = np.where(high, x[:, 0] ^ below, x[:, 0] ^ swap)
            x[:, axis] = np.where(high, x[:, axis], x[:, axis] ^ swap)
        bit >>= 1
    for axis in range(1, d):
        x[:, axis] ^= x[:, axis - 1]
    turn = np.zeros(x.shape[0], dtype=np.int64)
    bit = 1 << (_BITS - 1)
    while bit > 1:
        turn = np.where((x[:, -1] & bit) != 0, turn ^ (bit - 1), turn)
        bit >>= 1
    x ^= turn[:, None]
    # One string of bits, the highest of every axis first.
    place = np.zeros(x.shape[0], dtype=np.float64)
    for level in range(_BITS - 1, -1, -1):
        for axis in range(d):
            place = 2.0 * place + ((x[:, axis] >> level) & 1)
    return place

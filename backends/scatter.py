"""Sums over segments: the scatter-add that the array-API standard lacks."""

from __future__ import annotations

import numpy as np

from .errors import BackendError, InputError
from .namespace import Array, Namespace, device, is_cupy, is_numpy, is_torch
from .transfer import host_bool
from .validation import check_count

# Entries of the one-hot block of the generic path.
_BLOCK = 2**20


def segment_sum(data: Array, ids: Array, k: int, *, xp: Namespace, check: bool = True) -> Array:
    """``out[s] = sum of data[i] over the i with ids[i] == s``, for ``s < k``.

    Parameters
    ----------
    data : array (n,) or (n, r)
        What is summed, float or complex.
    ids : array (n,), integer
        Segment of each entry, in any order.
    k : int
        Number of segments.
    xp : namespace
        Of both.
    check : bool
        Whether ids out of range are looked for (one host transfer); without, they are undefined behaviour.

    Returns
    -------
    array (k,) or (k, r)
        Of the dtype of ``data``; an empty segment is zero.

    Raises
    ------
    BackendError, InputError
        ``ids`` is not integer, of another length, or out of range; ``k`` is negative.

    Notes
    -----
    Native on NumPy (float64 inside), CuPy and torch, where the order of the additions, so the last bit, may change from run
    to run on a GPU. Elsewhere products with one-hot blocks: O(n k) time, bounded memory.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.scatter import segment_sum
    >>> segment_sum(xp.asarray([1.0, 2.0, 3.0]), xp.asarray([2, 0, 2]), 3, xp=xp).tolist()
    [2.0, 0.0, 4.0]
    """
    check_count(k, "k", minimum=0)
    if data.ndim not in (1, 2):
        raise InputError(f"data has shape {tuple(data.shape)}, expected (n,) or (n, r)")
    if not xp.isdtype(ids.dtype, "integral"):
        raise BackendError(f"ids has dtype {ids.dtype}, expected integers")
    if tuple(ids.shape) != (data.shape[0],):
        raise InputError(f"ids has shape {tuple(ids.shape)}, expected ({data.shape[0]},), one for each row of data")
    n = data.shape[0]
    if check and n and not host_bool(xp.all((ids >= 0) & (ids < k))):
        raise InputError(f"ids has entries outside 0 to {k - 1}")
    columns = data[:, None] if data.ndim == 1 else data
    out = _sum(columns, ids, k, xp) if n else xp.zeros((k, columns.shape[1]), dtype=data.dtype, device=device(data))
    return out[:, 0] if data.ndim == 1 else out


def _sum(columns: Array, ids: Array, k: int, xp: Namespace) -> Array:
    shape, where = (k, columns.shape[1]), device(columns)
    if is_numpy(xp):
        out = np.zeros(shape, dtype=columns.dtype)
        for j in range(shape[1]):
            parts = [np.bincount(ids, weights=part[:, j], minlength=k) for part in _real_parts(columns)]
            out[:, j] = parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1]
        return out
    out = xp.zeros(shape, dtype=columns.dtype, device=where)
    if is_torch(xp):
        return out.index_add_(0, ids.long(), columns)
    if is_cupy(xp):
        import cupyx

        for part, into in zip(_real_parts(columns), _real_parts(out), strict=True):
            cupyx.scatter_add(into, ids, part)
        return out
    names = xp.arange(k, dtype=ids.dtype, device=where)
    height = max(1, _BLOCK // max(k, 1))
    for i in range(0, columns.shape[0], height):
        stop = min(i + height, columns.shape[0])
        onehot = xp.astype(ids[i:stop][None, :] == names[:, None], columns.dtype)
        out = out + onehot @ columns[i:stop, :]
    return out


def _real_parts(a: Array) -> tuple[Array, ...]:
    return (a.real, a.imag) if a.dtype.kind == "c" else (a,)

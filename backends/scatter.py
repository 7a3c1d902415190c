"""Sums over groups of rows, which the array-API standard lacks.

Clusters, histograms and aggregated unknowns all need "add row ``i`` to total ``ids[i]``". The standard has no indexed
addition, and an assignment ``out[ids] += data`` drops repeated indices; each library has a routine of its own instead.
"""

from __future__ import annotations

import math

import numpy as np

from .errors import InputError
from .namespace import Array, Namespace, device, is_cupy, is_numpy, is_torch
from .transfer import host_bool
from .validation import check_array, check_count

# Entries of one block of the generic route: 8 MB in float64.
_BLOCK = 2**20


def segment_sum(data: Array, ids: Array, k: int, *, xp: Namespace, trusted: bool = False) -> Array:
    """Sum the rows of ``data`` that share an id.

    Parameters
    ----------
    data : array (n,) or (n, r)
        Rows to add, real or complex floating.
    ids : array (n,)
        Integers in ``0 .. k-1``: the total that each row belongs to.
    k : int
        Number of totals.
    xp : namespace
        Library of the arrays.
    trusted : bool
        Whether the range of the ids is known to be right, so that nothing is read from a device.

    Returns
    -------
    array (k,) or (k, r)
        Totals in the dtype of ``data``, zero where no row belongs.

    Raises
    ------
    InputError
        ``ids`` has another length than ``data``, is not of integers, or leaves the range; ``k`` is negative.
    BackendError
        ``data`` is not floating, or ``k`` is not an integer.

    Notes
    -----
    O(n r) operations with NumPy (which adds in float64), torch and CuPy (which add in the dtype of ``data``, on a GPU in
    no fixed order). Any other library compares every id with every label: O(n k r), in blocks of bounded memory. One
    host transfer checks the range, unless the ids are trusted.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.scatter import segment_sum
    >>> segment_sum(xp.asarray([1.0, 2.0, 4.0]), xp.asarray([2, 0, 2]), 3, xp=xp).tolist()
    [2.0, 0.0, 5.0]
    """
    check_array(data, "data", xp, ndim=(1, 2), allow_empty=True, allow_complex=True, finite=False)
    k = check_count(k, "k", minimum=0)
    n = data.shape[0]
    if not xp.isdtype(ids.dtype, "integral"):
        raise InputError(f"ids has dtype {ids.dtype}, expected integers")
    if tuple(ids.shape) != (n,):
        raise InputError(f"ids has shape {tuple(ids.shape)}, expected ({n},): one for each row of data")
    ids = xp.astype(ids, xp.__array_namespace_info__().default_dtypes(device=device(ids))["indexing"])
    if n and not trusted and not host_bool(xp.all((ids >= 0) & (ids < k))):
        raise InputError(f"ids has entries outside 0 .. {k - 1}; there are k = {k} totals")
    shape = (k, *data.shape[1:])
    if is_numpy(xp):
        return _numpy(data, ids, shape)
    if is_torch(xp):
        return xp.zeros(shape, dtype=data.dtype, device=data.device).index_add_(0, ids, data)
    if is_cupy(xp):
        return _cupy(data, ids, shape, xp)
    return _generic(data, ids, shape, xp)


def _numpy(data: np.ndarray, ids: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty(shape, dtype=data.dtype)
    if np.iscomplexobj(data):
        out.real, out.imag = _numpy(data.real, ids, shape), _numpy(data.imag, ids, shape)
        return out
    for column in np.ndindex(shape[1:]):
        out[:, *column] = np.bincount(ids, weights=data[:, *column], minlength=shape[0])
    return out


def _cupy(data: Array, ids: Array, shape: tuple[int, ...], xp: Namespace) -> Array:
    import cupyx

    out = xp.zeros(shape, dtype=data.dtype, device=device(data))
    if xp.isdtype(data.dtype, "complex floating"):  # there is no atomic addition of complex numbers
        out.real, out.imag = _cupy(data.real, ids, shape, xp), _cupy(data.imag, ids, shape, xp)
    else:
        cupyx.scatter_add(out, ids, data)
    return out


def _generic(data: Array, ids: Array, shape: tuple[int, ...], xp: Namespace) -> Array:
    """One-hot sums in blocks; a product with the one-hot matrix would spread a NaN to every total."""
    n, k, r = data.shape[0], shape[0], math.prod(shape[1:])
    rows = xp.reshape(data, (n, r))
    labels = xp.arange(k, dtype=ids.dtype, device=device(ids))
    out = xp.zeros((k, r), dtype=data.dtype, device=device(data))
    step = max(1, _BLOCK // max(1, k * r))
    for start in range(0, n, step):
        stop = min(start + step, n)
        mine = ids[start:stop][:, None] == labels
        out = out + xp.sum(xp.where(mine[:, :, None], rows[start:stop, :][:, None, :], 0.0), axis=0)
    return xp.reshape(out, shape)

"""Log-sum-exps and softmax averages of a stored matrix plus a vector, ``S_ij + b_j``, by rows and by columns.

With NumPy a tile that stays in the cache is worked on in place, and exponents are clamped before they underflow: an exponential
with a subnormal or zero result costs four times one with an ordinary result, and next to the largest it counts for nothing.
Other libraries take the plain formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from .namespace import Array, Namespace, is_numpy
from .special import logsumexp, softmax

# Entries of a tile.
_TILE = 32_768


def row_log_sums(S: Array, b: Array, *, xp: Namespace, guess: Array | None = None, lowest: float = -math.inf) -> Array:
    """``log sum_j exp(S_ij + b_j)``, (n,); minus infinity for an empty row.

    ``guess`` near the answer saves a pass over the matrix for the largest exponents, and so does a bound on its ``lowest``
    entry, where no exponent can underflow.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.log_sums import row_log_sums
    >>> row_log_sums(xp.asarray([[0.0, 0.0], [1.0, -xp.inf]]), xp.asarray([0.0, 0.0]), xp=xp).round(4).tolist()
    [0.6931, 1.0]
    """
    if not is_numpy(xp):
        return logsumexp(S + b[None, :], axis=1, xp=xp)
    return xp.concat([_logs(total, top, xp) for _, total, top in _row_tiles(S, b, guess, lowest, xp)])


def row_averages(S: Array, b: Array, v: Array, *, xp: Namespace) -> Array:
    """Means of ``v`` (m,) or (m, r) with the weights ``exp(S_ij + b_j)``, (n,) or (n, r); zero for an empty row."""
    if not is_numpy(xp):
        return softmax(S + b[None, :], axis=1, xp=xp) @ v
    parts = []
    for tile, mass, top in _row_tiles(S, b, None, -math.inf, xp):
        mass = xp.where(top == -math.inf, math.inf, mass).astype(tile.dtype)
        parts.append((tile @ v) / (mass if v.ndim == 1 else mass[:, None]))
    return xp.concat(parts)


def column_log_sums(
    S: Array, a: Array, *, xp: Namespace, guess: Array | None = None, lowest: float = -math.inf
) -> Array:
    """``log sum_i exp(S_ij + a_i)``, (m,); minus infinity for an empty column. As `row_log_sums`."""
    if not is_numpy(xp):
        return logsumexp(S + a[:, None], axis=0, xp=xp)
    if guess is not None:
        shift = _shift(guess, xp)
        clamp = _may_underflow(lowest, a, shift)
        total = xp.zeros(S.shape[1], dtype=S.dtype)
        with xp.errstate(over="ignore"):
            for tile, rows in _tiles(S, xp):
                xp.add(S[rows], a[rows, None], out=tile)
                tile -= shift
                _exponentiate(tile, clamp, xp)
                total += tile.sum(axis=0)
        if _near(total):
            return _logs(total, shift, xp)
    total, top = _column_sums(S, a, None, xp)
    return _logs(total, top, xp)


def column_averages(S: Array, a: Array, v: Array, *, xp: Namespace) -> Array:
    """Means of ``v`` (n,) or (n, r) with the weights ``exp(S_ij + a_i)``, (m,) or (m, r); zero for an empty column."""
    if not is_numpy(xp):
        return softmax(S + a[:, None], axis=0, xp=xp).T @ v
    columns = v if v.ndim == 2 else v[:, None]
    total, top = _column_sums(S, a, columns, xp)
    mass = xp.where(top == -math.inf, math.inf, total[:, 0]).astype(total.dtype)
    means = total[:, 1:] / mass[:, None]
    return means if v.ndim == 2 else means[:, 0]


def _logs(total: Array, top: Array, xp: Any) -> Array:
    """``log total + top``, where the exponents had ``top`` taken off."""
    return xp.where(top == -math.inf, -math.inf, xp.log(total) + _shift(top, xp)).astype(total.dtype)


def _shift(top: Array, xp: Any) -> Array:
    """What is taken off: nothing where the largest is not finite."""
    return xp.where(xp.isfinite(top), top, 0.0).astype(top.dtype)


# exp(-230) = 1e-100 and exp(-80) = 1e-35 are nothing beside one.
_FLOOR = {"float32": -80.0, "float64": -230.0}
# Sums further from one than this say that a guess was none.
_FAR = 1e15


def _near(total: Array) -> bool:
    return bool(total.min() > 1.0 / _FAR and total.max() < _FAR)


def _may_underflow(lowest: float, b: Array, shift: Array) -> bool:
    return not lowest + float(b.min()) - float(shift.max()) > _FLOOR[b.dtype.name]


def _exponentiate(tile: Array, clamp: bool, xp: Any) -> None:
    """In place."""
    if clamp:
        xp.maximum(tile, _FLOOR[tile.dtype.name], out=tile)
    xp.exp(tile, out=tile)


def _tiles(S: Array, xp: Any) -> Iterator[tuple[Array, slice]]:
    """Scratch for some rows at a time, and which they are."""
    n, m = S.shape
    height = max(1, min(n, _TILE // m))
    work = xp.empty((height, m), dtype=S.dtype)
    for start in range(0, n, height):
        stop = min(start + height, n)
        yield work[: stop - start], slice(start, stop)


def _row_tiles(S: Array, b: Array, guess: Array | None, lowest: float, xp: Any) -> Iterator[tuple[Array, Array, Array]]:
    """``exp(S + b - top)`` of some rows, valid until the next, their sums, and ``top``: a guess or the largest exponents."""
    for tile, rows in _tiles(S, xp):
        if guess is not None:
            shift = _shift(guess[rows], xp)
            xp.add(S[rows], b, out=tile)
            tile -= shift[:, None]
            with xp.errstate(over="ignore"):
                _exponentiate(tile, _may_underflow(lowest, b, shift), xp)
                total = tile.sum(axis=1)
            if _near(total):
                yield tile, total, shift
                continue
        xp.add(S[rows], b, out=tile)
        top = tile.max(axis=1)
        shift = _shift(top, xp)
        tile -= shift[:, None]
        _exponentiate(tile, _may_underflow(lowest, b, shift), xp)
        yield tile, tile.sum(axis=1), top


def _column_sums(S: Array, a: Array, v: Array | None, xp: Any) -> tuple[Array, Array]:
    """Sums of ``exp(S + a - top)`` over the rows (m,), or with sums weighted by ``v`` beside them (m, 1 + r), and ``top``.

    The largest exponents are known only at the end: what was summed before a larger one is scaled down.
    """
    m = S.shape[1]
    top = xp.full(m, -math.inf, dtype=S.dtype)
    total = xp.zeros(m if v is None else (m, 1 + v.shape[1]), dtype=S.dtype)
    for tile, rows in _tiles(S, xp):
        xp.add(S[rows], a[rows, None], out=tile)
        larger = xp.maximum(top, tile.max(axis=0))
        shift = _shift(larger, xp)
        tile -= shift
        _exponentiate(tile, True, xp)
        # Nothing had been summed under a top of minus infinity but clamped exponents.
        scale = xp.where(top == -math.inf, 0.0, xp.exp(top - shift)).astype(S.dtype)
        if v is None:
            total = total * scale + tile.sum(axis=0)
        else:
            total *= scale[:, None]
            total[:, 0] += tile.sum(axis=0)
            total[:, 1:] += tile.T @ v[rows]
        top = larger
    return total, top

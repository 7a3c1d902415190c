"""The compiled loops of the numba engine: a tile of four rows stays in the first-level cache from differences to sum.

`distances` leaves ``D_ij`` in the tile (a squared or city-block distance, or a product); the epilogues below make
``t_ij = a_i + c_j - s D_ij`` (``sqrt(D_ij)`` for a Euclidean distance), its kernel, and the weighted sum. Exponents are to
base two. Nothing is written to main memory but the answers.

Arrays: ``X`` (n/4, d/4, 16) holds four coordinates of four rows each, coordinate by coordinate, ``Y`` (blocks, d/4, 4, J)
those of the columns, with unused entries at the end of each row; ``a`` (n,), ``c`` (blocks, J), ``v`` (blocks, r, J), and the
tile ``T`` (4, J). Scalars come in the dtype of the points: a Python number would make float32 arithmetic float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .exp_numba import exp2
from .numba_distances import FAST_SUM, distances, exclude

#: Metrics and profiles by number: one compiled loop serves all, and branches once a block.
METRICS = {"sqeuclidean": 0, "euclidean": 1, "cityblock": 2, "dot": 3}
PROFILES = {
    "exp": 0, "matern32": 1, "matern52": 2, "cauchy": 3, "tophat": 4, "triangle": 5, "biweight": 6, "triweight": 7,
}  # fmt: skip
_LN2 = math.log(2.0)
# A sum of kernels above this says that the shift of its row has become too small.
_RISEN = 2.0**60
# Rows that meet a block of columns before the next block is fetched: the block is read from the second-level cache.
ROWS = 256


@njit(nogil=True, cache=True)
def sum_rows(X, Y, a, c, s, v, T, out, start, stop, metric, profile, exclude_self, units):
    """``out[i] = sum_j k_ij v_j`` for the rows ``start <= i < stop``, both multiples of four."""
    J, r = c.shape[1], v.shape[1]
    root = metric == 1
    acc = np.empty((ROWS, r))
    for chunk in range(start, stop, ROWS):
        end = min(chunk + ROWS, stop)
        acc[:] = 0.0
        for b in range(Y.shape[0]):
            for i in range(chunk, end, 4):
                distances(T, X[i // 4], Y[b], metric)
                if exclude_self:
                    exclude(T, i - b * J, s)
                for row in range(4):
                    t, total = T[row], acc[i + row - chunk]
                    if profile == 0 and r == 1:
                        total[0] += _exp_dot(t, a[i + row], c[b], s, root, v[b, 0])
                        continue
                    _kernel(t, a[i + row], c[b], s, root, profile, units)
                    for col in range(r):
                        total[col] += _dot(t, v[b, col])
        out[chunk:end] = acc[: end - chunk]


@njit(nogil=True, cache=True)
def fill_rows(X, Y, a, c, s, T, matrix, start, stop, metric, profile, exclude_self, units):
    """``matrix[i, j] = k_ij`` for the rows ``start <= i < stop``; ``matrix`` is (n, m) without padding."""
    (n, m), J = matrix.shape, c.shape[1]
    for i in range(start, min(stop, n), 4):
        for b in range(Y.shape[0]):
            distances(T, X[i // 4], Y[b], metric)
            if exclude_self:
                exclude(T, i - b * J, s)
            width = min(J, m - b * J)
            for row in range(min(4, n - i)):
                _kernel(T[row], a[i + row], c[b], s, metric == 1, profile, units)
                matrix[i + row, b * J : b * J + width] = T[row, :width]


@njit(nogil=True, cache=True)
def online_rows(X, Y, a, c, s, v, T, values, logs, start, stop, metric, exclude_self):
    """Softmax-weighted sums of ``v`` (r may be 0) and log-sum-exp of ``t``, by a running shift.

    The shift of a row is the largest exponent of the first block with any mass, and rises only when a later block exceeds it
    by far: so most blocks need no look at their maximum.
    """
    J, r = c.shape[1], v.shape[1]
    E, lanes = np.empty(J if r else 0, T.dtype), np.empty(16, T.dtype)
    root = metric == 1
    top = np.empty(ROWS, T.dtype)
    mass, acc = np.empty(ROWS), np.empty((ROWS, r))
    for chunk in range(start, stop, ROWS):
        end = min(chunk + ROWS, stop)
        top[:] = -np.inf
        mass[:] = 0.0
        acc[:] = 0.0
        for b in range(Y.shape[0]):
            for i in range(chunk, end, 4):
                distances(T, X[i // 4], Y[b], metric)
                if exclude_self:
                    exclude(T, i - b * J, s)
                for row in range(4):
                    t, here, shift = T[row], i + row - chunk, a[i + row]
                    if top[here] == -np.inf:
                        top[here] = _largest(t, shift, c[b], s, root, lanes)
                        if top[here] == -np.inf:
                            continue
                    total = _exp_sum(t, shift - top[here], c[b], s, root, E)
                    if not total < _RISEN:
                        new = _largest(t, shift, c[b], s, root, lanes)
                        shrink = 2.0 ** (np.float64(top[here]) - np.float64(new))
                        mass[here] *= shrink
                        for col in range(r):
                            acc[here, col] *= shrink
                        top[here] = new
                        total = _exp_sum(t, shift - new, c[b], s, root, E)
                    mass[here] += total
                    for col in range(r):
                        acc[here, col] += _dot(E, v[b, col])
        for i in range(chunk, end):
            here = i - chunk
            positive = mass[here] > 0.0
            logs[i] = np.float64(top[here]) * _LN2 + math.log(mass[here]) if positive else -np.inf
            for col in range(r):
                values[i, col] = acc[here, col] / mass[here] if positive else 0.0


@njit(nogil=True, cache=True)
def nearest_rows(X, Y, T, indices, values, start, stop, metric, exclude_self, m, sign):
    """The ``k`` smallest ``sign * D`` of each row, ascending, ties by index, in sorted lists that most columns do not enter."""
    J = T.shape[1]
    for chunk in range(start, stop, ROWS):
        end = min(chunk + ROWS, stop)
        values[chunk:end] = np.inf
        indices[chunk:end] = 0
        for b in range(Y.shape[0]):
            width = min(J, m - b * J)
            for i in range(chunk, end, 4):
                distances(T, X[i // 4], Y[b], metric)
                if exclude_self:
                    exclude(T, i - b * J, sign)
                for row in range(4):
                    _insert(T[row, :width], b * J, sign, values[i + row], indices[i + row])
    if metric == 1:
        values[start:stop] = np.sqrt(values[start:stop])


@njit(nogil=True)
def _insert(t, first, sign, values, indices):
    """Merge a row of a tile into its sorted list."""
    last = values.size - 1
    worst = values[last]
    for j in range(t.size):
        value = sign * t[j]
        if value < worst:
            place = last
            while place > 0 and values[place - 1] > value:
                values[place], indices[place] = values[place - 1], indices[place - 1]
                place -= 1
            values[place], indices[place] = value, first + j
            worst = values[last]


@njit(nogil=True, cache=True)
def lay_out_rows(x, centre, X, squares):
    """``x - centre`` (n, d) as ``X``: four coordinates of four rows side by side, zeros where four does not divide."""
    X[:] = 0
    for i in range(x.shape[0]):
        total = 0.0
        for k in range(x.shape[1]):
            X[i // 4, k // 4, 4 * (k % 4) + i % 4] = x[i, k] - centre[k]
            # Of the rounded difference, which is what the products will see.
            total += np.float64(X[i // 4, k // 4, 4 * (k % 4) + i % 4]) ** 2
        squares[i] = total


@njit(nogil=True, cache=True)
def lay_out_columns(y, centre, Y, width, squares):
    """``y - centre`` (m, d) as ``Y``: blocks of ``width`` points, coordinate by coordinate, zeros after the last point."""
    m, d = y.shape
    squares[:] = 0.0
    for b in range(Y.shape[0]):
        for first in range(0, width, 16):
            for k in range(4 * Y.shape[1]):
                row = Y[b, k // 4, k % 4]
                for j in range(first, first + 16):
                    i = b * width + j
                    row[j] = y[i, k] - centre[k] if i < m and k < d else 0
                    if i < m:
                        squares[i] += np.float64(row[j]) ** 2


# -- epilogues -------------------------------------------------------------------------------------------------------


@njit(fastmath=FAST_SUM, nogil=True)
def _exp_dot(t, a, c, s, root, v):
    total = t.dtype.type(0)
    if root:
        for j in range(t.size):
            total += v[j] * exp2(a + c[j] - s * np.sqrt(t[j]))
    else:
        for j in range(t.size):
            total += v[j] * exp2(a + c[j] - s * t[j])
    return total


@njit(fastmath=FAST_SUM, nogil=True)
def _kernel(t, a, c, s, root, profile, units):
    """Replace the distances of a row by its kernels."""
    if root:
        for j in range(t.size):
            t[j] = np.sqrt(t[j])
    if profile == 0:
        for j in range(t.size):
            t[j] = exp2(a + c[j] - s * t[j])
    else:
        for j in range(t.size):
            t[j] = s * t[j] - a - c[j]
        _profile(t, profile, units)


@njit(fastmath=FAST_SUM, nogil=True)
def _exp_sum(t, a, c, s, root, E):
    """The sum of the kernels of a row; they are kept in ``E`` unless that is empty."""
    total = t.dtype.type(0)
    if E.size:
        for j in range(t.size):
            E[j] = exp2(a + c[j] - s * (np.sqrt(t[j]) if root else t[j]))
            total += E[j]
    elif root:
        for j in range(t.size):
            total += exp2(a + c[j] - s * np.sqrt(t[j]))
    else:
        for j in range(t.size):
            total += exp2(a + c[j] - s * t[j])
    return total


@njit(nogil=True)
def _largest(t, a, c, s, root, lanes):
    """The largest exponent of a row; sixteen running maxima, because LLVM does not vectorise one."""
    lanes[:] = -np.inf
    for j in range(0, t.size, 16):
        for lane in range(16):
            exponent = a + c[j + lane] - s * (np.sqrt(t[j + lane]) if root else t[j + lane])
            lanes[lane] = max(lanes[lane], exponent)
    return lanes.max()


@njit(fastmath=FAST_SUM, nogil=True)
def _dot(t, v):
    total = t.dtype.type(0)
    for j in range(t.size):
        total += t[j] * v[j]
    return total


@njit(fastmath=FAST_SUM, nogil=True)
def _profile(t, profile, units):
    """The kernels of `kernels.PROFILES` other than exp; ``units`` is (1, 1/3, log2 e, 0) in the dtype of ``t``."""
    one, third, log2e, zero = units
    if profile == 1:
        for j in range(t.size):
            e = exp2(-log2e * t[j])
            t[j] = (one + t[j]) * e if e > zero else zero
    elif profile == 2:
        for j in range(t.size):
            e = exp2(-log2e * t[j])
            t[j] = (one + t[j] + t[j] * t[j] * third) * e if e > zero else zero
    elif profile == 3:
        for j in range(t.size):
            t[j] = one / (one + t[j])
    elif profile == 4:
        for j in range(t.size):
            t[j] = one if t[j] < one else zero
    else:
        for j in range(t.size):
            u = max(one - t[j], zero)
            t[j] = u if profile == 5 else (u * u if profile == 6 else u * u * u)

"""Distances of four rows to a block of columns, for the loops of the numba engine.

numba checks only the file of a cached function for changes: after an edit here, touch ``numba_loops.py``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .exp_numba import EXACT
from .gemm_numba import four_rows_times

#: For sums, whose order is free.
FAST_SUM = {*EXACT, "reassoc"}


@njit(fastmath=FAST_SUM, nogil=True)
def _squares(p, q):
    d0, d1, d2, d3 = p[0] - q[0], p[1] - q[1], p[2] - q[2], p[3] - q[3]
    return d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3


@njit(fastmath=FAST_SUM, nogil=True)
def _absolutes(p, q):
    return abs(p[0] - q[0]) + abs(p[1] - q[1]) + abs(p[2] - q[2]) + abs(p[3] - q[3])


def _panel_of(term):
    """Four coordinates of four rows: sixteen registers hold the points, LLVM vectorises the loop over the columns."""

    @njit(fastmath=FAST_SUM, nogil=True)
    def panel(T, x, y, first):
        p0, p1 = (x[0], x[4], x[8], x[12]), (x[1], x[5], x[9], x[13])
        p2, p3 = (x[2], x[6], x[10], x[14]), (x[3], x[7], x[11], x[15])
        y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
        t0, t1, t2, t3 = T[0], T[1], T[2], T[3]
        if first:
            for j in range(t0.size):
                q = y0[j], y1[j], y2[j], y3[j]
                t0[j] = term(p0, q)
                t1[j] = term(p1, q)
                t2[j] = term(p2, q)
                t3[j] = term(p3, q)
        else:
            for j in range(t0.size):
                q = y0[j], y1[j], y2[j], y3[j]
                t0[j] += term(p0, q)
                t1[j] += term(p1, q)
                t2[j] += term(p2, q)
                t3[j] += term(p3, q)

    return panel


_squares_panel, _absolutes_panel = _panel_of(_squares), _panel_of(_absolutes)


@njit(nogil=True)
def distances(T, X, Y, metric):
    """``T = D`` for four rows; ``metric`` as in `numba_loops.METRICS`, a Euclidean distance still squared."""
    if metric == 3:
        four_rows_times(T, X, Y, 4 * X.shape[0], T.shape[1], Y.shape[2])
    elif metric == 2:
        for k in range(X.shape[0]):
            _absolutes_panel(T, X[k], Y[k], k == 0)
    else:
        for k in range(X.shape[0]):
            _squares_panel(T, X[k], Y[k], k == 0)


@njit(nogil=True)
def exclude(T, offset, s):
    """Put the pairs (i, i) infinitely far away; row 0 of the tile meets itself in column ``offset``."""
    for row in range(4):
        if 0 <= offset + row < T.shape[1]:
            T[row, offset + row] = np.inf if s > 0 else -np.inf

"""The large entries of a plan as a sparse matrix: SciPy's or CuPy's where there is one, else the masked dense matrix."""

from __future__ import annotations

import math
from typing import Any

from ...backends.namespace import Array, Namespace, is_cupy, is_numpy
from ...backends.transfer import host_float

# A sparse product costs ten times as much per entry as a dense one.
_DENSE = 0.1


class Kept:
    """``P`` where ``mask``, else zero."""

    def __init__(self, P: Array, mask: Array, wide: Any, xp: Namespace) -> None:
        self.xp, self.wide = xp, wide
        self.count = int(xp.count_nonzero(mask)) if is_numpy(xp) else int(host_float(xp.sum(xp.astype(mask, xp.int64))))
        if (is_numpy(xp) or is_cupy(xp)) and self.count < _DENSE * math.prod(P.shape):
            if is_numpy(xp):
                from scipy.sparse import csr_matrix
            else:
                from cupyx.scipy.sparse import csr_matrix
            i, j = xp.nonzero(mask)
            self.matrix: Any = csr_matrix((xp.astype(P[mask], wide), (i, j)), shape=P.shape)
            self.transposed: Any = self.matrix.T.tocsr()
            self.squared: Any = self.matrix.multiply(self.matrix).tocsr()
        else:
            self.matrix = xp.astype(xp.where(mask, P, xp.zeros_like(P)), wide)
            self.transposed, self.squared = self.matrix.T, None

    def rows(self, x: Array) -> Array:
        """``P x``."""
        return self.matrix @ x

    def columns(self, x: Array) -> Array:
        """``P^T x``."""
        return self.transposed @ x

    def squares(self, x: Array) -> Array:
        """``(P * P) x``."""
        return (self.matrix * self.matrix) @ x if self.squared is None else self.squared @ x


def largest(P: Array, count: int, xp: Namespace) -> Array:
    """Mask of the ``count`` largest entries (more where entries tie)."""
    size = math.prod(P.shape)
    if count >= size:
        return P >= 0
    flat = xp.reshape(P, (-1,))
    threshold = xp.partition(flat, size - count)[size - count] if is_numpy(xp) else xp.sort(flat)[size - count]
    return threshold <= P


def error_tied(P: Array, a: Array, error: float, xp: Namespace) -> Array:
    """Mask of ``P_ij > min(error, 1e-2) a_i / m``: what a row drops is at most ``min(error, 1e-2) a_i``."""
    return xp.astype(min(error, 1e-2) / P.shape[1] * a, P.dtype)[:, None] < P

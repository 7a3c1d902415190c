"""A transport plan by its large entries: the two products, and the sums of squares, that conjugate gradients ask for."""

from __future__ import annotations

from typing import Any

from ...backends.namespace import Array, Namespace, is_cupy
from ...backends.pairs.entries import Entries
from ...backends.scatter import segment_sum
from ...backends.transfer import from_host, host_float, to_host


class SparsePlan:
    """The (n, m) matrix of `Entries`: CSR of SciPy or CuPy where there is one, else coordinates and sums over groups."""

    def __init__(self, entries: Entries, shape: tuple[int, int], xp: Namespace) -> None:
        self.shape, self.xp, self.nnz = shape, xp, int(entries.values.shape[0])
        self.mass = host_float(xp.sum(entries.values)) if entries.counts is None else float(entries.values.sum())
        self.host = entries.counts is not None
        self.matrix: Any = None
        if self.host:
            import numpy as np
            from scipy.sparse import csr_array

            pointers = np.zeros(shape[0] + 1, dtype=np.int32)
            np.cumsum(entries.counts, out=pointers[1:])
            self.matrix = csr_array((entries.values, entries.columns, pointers), shape=shape, copy=False)
        elif is_cupy(xp):
            from cupyx.scipy.sparse import csr_matrix

            self.matrix = csr_matrix((entries.values, (entries.rows, entries.columns)), shape=shape)
        else:
            self.values, self.rows, self.columns = entries.values, entries.rows, entries.columns

    def _product(self, matrix: Any, v: Array) -> Array:
        return from_host(matrix @ to_host(v), like=v, xp=self.xp) if self.host else matrix @ v

    def apply(self, v: Array) -> Array:
        """``P v``."""
        if self.matrix is not None:
            return self._product(self.matrix, v)
        return segment_sum(
            self.values * self.xp.take(v, self.columns, axis=0), self.rows, self.shape[0], xp=self.xp, trusted=True
        )

    def adjoint(self, u: Array) -> Array:
        """``P^T u``."""
        if self.matrix is not None:
            return self._product(self.matrix.T, u)
        return segment_sum(
            self.values * self.xp.take(u, self.rows, axis=0), self.columns, self.shape[1], xp=self.xp, trusted=True
        )

    def squares(self, v: Array) -> Array:
        """``(P * P) v``, squared entry by entry."""
        if self.matrix is not None:
            matrix = self.matrix
            squared = type(matrix)((matrix.data * matrix.data, matrix.indices, matrix.indptr), shape=self.shape)
            return self._product(squared, v)
        products = self.values * self.values * self.xp.take(v, self.columns, axis=0)
        return segment_sum(products, self.rows, self.shape[0], xp=self.xp, trusted=True)

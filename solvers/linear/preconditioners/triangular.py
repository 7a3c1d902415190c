"""Solves with a stored sparse triangular matrix, on the host: factored once by SuperLU without any pivoting.

SciPy's own `spsolve_triangular` analyses the matrix anew at each call.
"""

from __future__ import annotations

from typing import Any

from ....backends.namespace import Array


class SparseTriangle:
    """Solves with a lower or upper triangular SciPy matrix with a nonzero diagonal, and with its adjoint."""

    def __init__(self, matrix: Any) -> None:
        from scipy import sparse
        from scipy.sparse import linalg

        self.factor = linalg.splu(sparse.csc_array(matrix), permc_spec="NATURAL", diag_pivot_thresh=0.0)
        self.dtype = matrix.dtype

    def solve(self, b: Array, *, adjoint: bool = False) -> Array:
        """``T^{-1} b``, or with the conjugate transpose of ``T``, for (n,) and (n, k)."""
        return solve_factored(self.factor, self.dtype, b, "H" if adjoint else "N")


def solve_factored(factor: Any, dtype: Any, b: Array, trans: str) -> Array:
    """A SuperLU solve that takes complex vectors for real factors and returns the dtype of ``b``."""
    import numpy as np

    if np.iscomplexobj(b) and np.dtype(dtype).kind == "f":
        return factor.solve(b.real.astype(dtype), trans) + 1j * factor.solve(b.imag.astype(dtype), trans)
    return factor.solve(np.ascontiguousarray(b) if b.ndim == 1 else np.asfortranarray(b), trans)

"""Solves with a stored sparse triangular matrix: factored once on the host by SuperLU without any pivoting.

SciPy's own `spsolve_triangular` analyses the matrix anew at each call. The factors of SuperLU can be moved to a CUDA device.
"""

from __future__ import annotations

from typing import Any

from ....backends.errors import BackendError
from ....backends.namespace import Array


class SparseTriangle:
    """Solves with a lower or upper triangular SciPy matrix with a nonzero diagonal, and with its adjoint; ``there`` on the
    current CUDA device."""

    def __init__(self, matrix: Any, *, there: bool = False) -> None:
        from scipy import sparse
        from scipy.sparse import linalg

        self.factor = linalg.splu(sparse.csc_array(matrix), permc_spec="NATURAL", diag_pivot_thresh=0.0)
        if there:
            self.factor = on_device(self.factor)
        self.dtype = matrix.dtype

    def solve(self, b: Array, *, adjoint: bool = False) -> Array:
        """``T^{-1} b``, or with the conjugate transpose of ``T``, for (n,) and (n, k)."""
        return solve_factored(self.factor, self.dtype, b, "H" if adjoint else "N")


def on_device(factor: Any) -> Any:
    """The factors of SciPy's SuperLU on the current CUDA device: CuPy solves with them there."""
    from cupyx.scipy.sparse.linalg import SuperLU

    return SuperLU(factor)


def solve_factored(factor: Any, dtype: Any, b: Array, trans: str) -> Array:
    """A SuperLU solve that takes complex vectors for real factors and returns the dtype of ``b``."""
    import numpy as np

    here = isinstance(b, np.ndarray)
    if here == (type(factor).__module__.split(".")[0] == "cupyx"):
        kind, name = "CuPy" if here else "NumPy", f"{type(b).__module__}.{type(b).__name__}"
        raise BackendError(f"the factors solve for vectors of {kind}, as their matrix was; got a {name}")
    if b.dtype.kind == "c" and np.dtype(dtype).kind == "f":
        return factor.solve(b.real.astype(dtype), trans) + 1j * factor.solve(b.imag.astype(dtype), trans)
    if not here:
        return factor.solve(b, trans)
    return factor.solve(np.ascontiguousarray(b) if b.ndim == 1 else np.asfortranarray(b), trans)

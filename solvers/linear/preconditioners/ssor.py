"""Symmetric successive over-relaxation (Sheldon 1955): one forward and one backward sweep of Gauss and Seidel."""

from __future__ import annotations

from typing import Any

from ....backends.errors import InputError
from ....backends.namespace import Array
from ....backends.operators import LinearOperator
from ....backends.validation import check_scalar
from .common import is_hermitian, scipy_matrix
from .triangular import SparseTriangle


def ssor(A: Any, omega: float = 1.0) -> LinearOperator:
    """One symmetric sweep ``M = w (2 - w) (D + w U)^{-1} D (D + w L)^{-1}``, as an operator.

    Parameters
    ----------
    A : SciPy sparse matrix or NumPy array (n, n)
        ``A = L + D + U``. Host only: the sweeps are triangular solves.
    omega : float
        Relaxation ``w`` in (0, 2). For Poisson-like problems 1.5 to 1.9 saves half of the iterations.

    Returns
    -------
    LinearOperator
        ``M`` (n, n) for NumPy vectors (n,) and (n, k), tagged symmetric if ``A`` is, and positive if its diagonal is too.

    Raises
    ------
    InputError
        A zero on the diagonal; ``omega`` outside (0, 2); a bad matrix.
    BackendError
        ``A`` is no SciPy matrix.

    Notes
    -----
    Two triangular solves per product, as many operations as a product with ``A``, but one entry after the other.

    References
    ----------
    J. W. Sheldon, On the numerical solution of elliptic difference equations, 1955.
    Y. Saad, Iterative methods for sparse linear systems, 2nd ed., 2003, section 10.2.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sps
    >>> from xpsolve.solvers.linear.preconditioners import ssor
    >>> A = sps.csr_array(np.asarray([[2.0, 0.0], [0.0, 4.0]]))
    >>> (ssor(A) @ np.ones(2)).tolist()
    [0.5, 0.25]
    """
    import numpy as np
    from scipy import sparse

    w = check_scalar(omega, "omega", positive=True)
    if w >= 2:
        raise InputError(f"omega is {w}, expected a number between 0 and 2")
    matrix = scipy_matrix(A, "ssor")
    d = matrix.diagonal()
    if not np.all(d != 0):
        raise InputError("A has zeros on its diagonal: the sweeps cannot divide by them")
    hermitian = is_hermitian(matrix)
    middle = sparse.diags_array(d).tocsc()
    lower = SparseTriangle((w * sparse.tril(matrix, -1) + middle).astype(matrix.dtype))
    upper = None if hermitian else SparseTriangle((w * sparse.triu(matrix, 1) + middle).astype(matrix.dtype))
    # The factor w (2 - w) rides on the diagonal.
    scaled = d * d.dtype.type(w * (2 - w))

    def forward(v: Array) -> Array:
        half = lower.solve(v)
        half = half * (scaled if v.ndim == 1 else scaled[:, None])
        return lower.solve(half, adjoint=True) if upper is None else upper.solve(half)

    def backward(v: Array) -> Array:
        if upper is None:
            return forward(v)
        half = upper.solve(v, adjoint=True)
        weights = scaled.conj()
        return lower.solve(half * (weights if v.ndim == 1 else weights[:, None]), adjoint=True)

    tags = {"symmetric"} if hermitian else set()
    if hermitian and bool(np.all(d.real > 0)):
        tags.add("positive")
    return LinearOperator(
        matrix.shape, forward, matmat=forward, rmatvec=backward, rmatmat=backward, dtype=matrix.dtype, tags=tags,
        name=f"ssor({w:g})",
    )  # fmt: skip

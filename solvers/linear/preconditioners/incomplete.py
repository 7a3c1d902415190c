"""Incomplete factorisations: the Cholesky factor on the pattern of the matrix (Meijerink and van der Vorst 1977), and
SciPy's threshold LU for nonsymmetric systems. Both are computed on the host; of a CuPy matrix the factors are then moved to its
device and solved there, by cuSPARSE."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

from ....backends.errors import BreakdownError, InputError
from ....backends.namespace import Array
from ....backends.operators import LinearOperator
from ....backends.validation import check_scalar
from .common import is_cupy_matrix, is_hermitian, scipy_matrix
from .triangular import SparseTriangle, on_device, solve_factored

# Below this many entries the interpreter is done before a compiler would have started.
_WORTH_COMPILING = 50_000
# Shifts of the diagonal, relative to it, tried when a pivot is not positive (Manteuffel 1980).
_FIRST_SHIFT, _SHIFTS = 1e-3, 20


def ic0(A: Any) -> LinearOperator:
    """Incomplete Cholesky factorisation without fill-in: ``M = (L L^H)^{-1}``, as an operator.

    Parameters
    ----------
    A : SciPy or CuPy sparse matrix, NumPy or CuPy array (n, n)
        Hermitian positive definite.

    Returns
    -------
    LinearOperator
        ``M`` (n, n) for vectors (n,) and (n, k) of the library of ``A``, tagged symmetric and positive.

    Raises
    ------
    InputError
        ``A`` is not Hermitian, or its diagonal is not positive.
    BreakdownError
        The factorisation met non-positive pivots even with a large shift.
    BackendError
        ``A`` is no matrix of SciPy or CuPy.

    Notes
    -----
    A CuPy matrix is factored on the host; ``M`` is applied on its device, where the triangular solves have little to do at
    once: `jacobi`, `block_jacobi` and `chebyshev_polynomial` suit a GPU better.

    ``L`` has the pattern of the lower triangle of ``A``, and ``L L^H = A`` there. Where a pivot is not positive,
    ``A + alpha diag(A)`` is factored instead, ``alpha`` from 1e-3 doubled until it succeeds. Compiled if numba is
    installed and the matrix large; else about a microsecond for each pair of entries.

    References
    ----------
    J. A. Meijerink, H. A. van der Vorst, An iterative solution method for linear systems of which the coefficient matrix
    is a symmetric M-matrix, 1977.
    T. A. Manteuffel, An incomplete factorization technique for positive definite linear systems, 1980.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sps
    >>> from xpsolve.solvers.linear.preconditioners import ic0
    >>> A = sps.csr_array(np.asarray([[4.0, 2.0], [2.0, 10.0]]))
    >>> (ic0(A) @ np.asarray([6.0, 12.0])).tolist()
    [1.0, 1.0]
    """
    import numpy as np
    from scipy import sparse

    there = is_cupy_matrix(A)
    matrix = scipy_matrix(A.get() if there else A, "ic0", "SciPy and CuPy")
    if not is_hermitian(matrix):
        raise InputError("A is not Hermitian: ic0 needs a Hermitian positive definite matrix; use ilu")
    d = matrix.diagonal()
    if not np.all(d.real > 0):
        raise InputError("A has entries on its diagonal that are not positive: it is not positive definite")
    lower = sparse.csr_array(sparse.tril(matrix))
    lower.sort_indices()
    factor = _factor(lower)
    triangle = SparseTriangle(sparse.csr_array((factor, lower.indices, lower.indptr), shape=lower.shape), there=there)

    def apply(v: Array) -> Array:
        return triangle.solve(triangle.solve(v), adjoint=True)

    return LinearOperator(
        matrix.shape, apply, matmat=apply, rmatvec=apply, rmatmat=apply, dtype=matrix.dtype,
        tags={"symmetric", "positive"}, name="ic0",
    )  # fmt: skip


def ilu(A: Any, drop_tol: float = 1e-4, fill_factor: float = 10.0) -> LinearOperator:
    """Incomplete LU factorisation with a threshold (SuperLU's, through SciPy), as an operator for nonsymmetric solvers.

    Parameters
    ----------
    A : SciPy or CuPy sparse matrix, NumPy or CuPy array (n, n)
        Any nonsingular matrix.
    drop_tol : float
        Entries below this fraction of their column's norm are dropped.
    fill_factor : float
        Most entries of the factors, as a multiple of those of ``A``; at least one.

    Returns
    -------
    LinearOperator
        ``M`` (n, n) for vectors of the library of ``A``. It is **not symmetric** even where ``A`` is, and has no tags:
        conjugate gradients and MINRES stagnate with it. For them take `ic0`.

    Raises
    ------
    BreakdownError
        The factorisation met a zero pivot.
    InputError, BackendError
        A bad matrix or option.

    Notes
    -----
    A CuPy matrix is factored on the host by SuperLU too; the factors are moved to its device, where
    ``cupyx.scipy.sparse.linalg.SuperLU`` solves with them. Equal options give equal factors everywhere (CuPy's own ``spilu``
    means another, pivot-free factorisation by ``fill_factor=1``).

    References
    ----------
    X. S. Li, M. Shao, A supernodal approach to incomplete LU factorization with partial pivoting, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse as sps
    >>> from xpsolve.solvers.linear.preconditioners import ilu
    >>> A = sps.csr_array(np.asarray([[4.0, 2.0], [1.0, 10.0]]))
    >>> (ilu(A) @ np.asarray([6.0, 11.0])).round(12).tolist()
    [1.0, 1.0]
    """
    from scipy.sparse import linalg

    drop = check_scalar(drop_tol, "drop_tol", non_negative=True)
    fill = check_scalar(fill_factor, "fill_factor", positive=True)
    if fill < 1:
        raise InputError(f"fill_factor is {fill}, expected at least 1")
    there = is_cupy_matrix(A)
    matrix = scipy_matrix(A.get() if there else A, "ilu", "SciPy and CuPy")
    try:
        factor = linalg.spilu(matrix, drop_tol=drop, fill_factor=fill)
    except RuntimeError as err:
        raise BreakdownError(f"the incomplete LU factorisation failed ({err}); A may be singular") from err
    if there:
        factor = on_device(factor)

    def forward(v: Array) -> Array:
        return solve_factored(factor, matrix.dtype, v, "N")

    def backward(v: Array) -> Array:
        return solve_factored(factor, matrix.dtype, v, "H")

    return LinearOperator(
        matrix.shape, forward, matmat=forward, rmatvec=backward, rmatmat=backward, dtype=matrix.dtype, name="ilu"
    )


def _factor(lower: Any) -> Any:
    """Entries of the incomplete factor on the pattern of ``lower`` (CSR, sorted, with its diagonal)."""
    import numpy as np

    complex_ = lower.dtype.kind == "c"
    wide = lower.data.astype(np.complex128 if complex_ else np.float64)
    large = lower.nnz >= _WORTH_COMPILING
    rows = _compiled() if large else None
    diagonal = lower.indptr[1:] - 1
    shift = 0.0
    for _ in range(_SHIFTS):
        entries = wide.copy()
        entries[diagonal] *= 1.0 + shift
        if rows is not None:
            good, found = rows(lower.indptr, lower.indices, entries), entries
        else:
            listed = entries.tolist()
            good, found = ic0_rows(lower.indptr.tolist(), lower.indices.tolist(), listed), np.asarray(listed)
        if good:
            return found.astype(lower.dtype)
        shift = _FIRST_SHIFT if shift == 0 else 2 * shift
    raise BreakdownError(f"ic0 met pivots that are not positive up to a shift of {shift:g} times the diagonal")


def ic0_rows(indptr: Any, indices: Any, values: Any) -> bool:
    """Turn the lower triangle, row by row and in place, into its incomplete factor; False at a non-positive pivot.

    ``L_ij = (a_ij - sum_k L_ik conj(L_jk)) / L_jj`` over the columns ``k < j`` that both rows have. The same lines run in
    the interpreter (on lists) and compiled (on arrays).
    """
    n = len(indptr) - 1
    for i in range(n):
        start, end = indptr[i], indptr[i + 1] - 1
        for p in range(start, end + 1):
            j = indices[p]
            total = values[p]
            mine, other, last = start, indptr[j], indptr[j + 1] - 1
            while mine < p and other < last:
                left, right = indices[mine], indices[other]
                if left == right:
                    total -= values[mine] * values[other].conjugate()
                    mine += 1
                    other += 1
                elif left < right:
                    mine += 1
                else:
                    other += 1
            if p < end:
                values[p] = total / values[last]
            else:
                pivot = total.real
                if not pivot > 0.0:
                    return False
                values[p] = pivot**0.5
    return True


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """The same loop compiled, or None without numba."""
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        return None
    return numba.njit(cache=True)(ic0_rows)

"""Triangular solves and Cholesky factors, which the array-API standard lacks or leaves without a rule for failure.

The standard has no triangular solve, and a matrix that is not positive definite is an error of one family in NumPy, of
another in torch, and a silent NaN in CuPy. Here each library's own routine does the work, and every failure of a
factorisation is the same `BreakdownError`. Beside them, conjugates that cost nothing where there is nothing to conjugate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .errors import BreakdownError, InputError
from .namespace import Array, Namespace, is_cupy, is_numpy, is_torch
from .transfer import host_bool
from .validation import check_array


@contextmanager
def _breakdown(message: str) -> Iterator[None]:
    """Turn the libraries' ``LinAlgError`` into `BreakdownError`; any other error (out of memory, say) passes."""
    try:
        yield
    except (ValueError, RuntimeError) as err:
        if not type(err).__name__.endswith("LinAlgError"):
            raise
        raise BreakdownError(message) from err


def _looking(xp: Namespace) -> AbstractContextManager[object]:
    """Let CuPy look whether a factorisation succeeded: otherwise it may return a factor that is wrong but finite."""
    if not is_cupy(xp):
        return nullcontext()
    import cupyx

    found: AbstractContextManager[object] = cupyx.errstate(linalg="raise")
    return found


@contextmanager
def factoring(message: str, xp: Namespace) -> Iterator[None]:
    """A factorisation or a solve that fails is a `BreakdownError` with ``message`` on every library.

    CuPy's routines return wrong numbers instead, which need not be infinite; here they are made to look: one synchronisation.
    """
    with _breakdown(message), _looking(xp):
        yield


def _check_square(A: Array, name: str, xp: Namespace) -> None:
    check_array(A, name, xp, ndim=2, allow_complex=True, finite=False)
    if A.shape[0] != A.shape[1]:
        raise InputError(f"{name} has shape {tuple(A.shape)}, expected a square matrix")


def conj(x: Array, xp: Namespace) -> Array:
    """The complex conjugate; a real array is returned as it is, not copied."""
    return xp.conj(x) if xp.isdtype(x.dtype, "complex floating") else x


def adjoint(X: Array, xp: Namespace) -> Array:
    """Conjugate transpose of a matrix, of a real one a view."""
    return conj(X.T, xp)


def real_dtype(dtype: Any, xp: Namespace) -> Any:
    """The dtype of the real part."""
    if dtype == xp.complex64:
        return xp.float32
    return xp.float64 if dtype == xp.complex128 else dtype


def axpy(like: Array) -> Callable[..., Array]:
    """BLAS's ``axpy(x, y, a=a)``, which adds ``a x`` to a contiguous NumPy vector ``y`` of the dtype of ``like`` in place."""
    from scipy.linalg.blas import get_blas_funcs

    return get_blas_funcs("axpy", (like,))  # type: ignore[no-any-return]


def solve_triangular(L: Array, b: Array, *, lower: bool, xp: Namespace, transpose: bool = False) -> Array:
    """Solve ``L x = b`` with a triangular matrix.

    Parameters
    ----------
    L : array (n, n)
        Triangular matrix, real or complex; the entries of its other triangle are not used.
    b : array (n,) or (n, r)
        Right-hand sides, of the dtype of ``L``.
    lower : bool
        Whether ``L`` is lower triangular.
    xp : namespace
        Library of the arrays.
    transpose : bool
        Whether to solve with the conjugate transpose of ``L`` instead (for real dtypes the transpose).

    Returns
    -------
    array
        ``x``, of the shape of ``b``.

    Raises
    ------
    InputError
        ``L`` is not square, or ``b`` has another number of rows.
    BackendError
        Wrong or different dtypes.
    BreakdownError
        The library found a zero on the diagonal; torch and CuPy do not look, and return infinities or NaN.

    Notes
    -----
    O(n^2 r) operations with NumPy, CuPy and torch; any other library solves with a full matrix, O(n^3 + n^2 r).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.linalg import solve_triangular
    >>> L = xp.asarray([[2.0, 0.0], [1.0, 4.0]])
    >>> solve_triangular(L, xp.asarray([2.0, 9.0]), lower=True, xp=xp).tolist()
    [1.0, 2.0]
    """
    _check_square(L, "L", xp)
    check_array(b, "b", xp, ndim=(1, 2), allow_complex=True, allow_empty=True, finite=False, dtype=L.dtype)
    if b.shape[0] != L.shape[0]:
        raise InputError(f"b has shape {tuple(b.shape)}, expected {L.shape[0]} rows as L has")
    with _breakdown("L is singular: its diagonal has a zero"):
        if is_numpy(xp):
            from scipy import linalg

            return linalg.solve_triangular(L, b, trans="C" if transpose else "N", lower=lower, check_finite=False)
        if is_cupy(xp):
            from cupyx.scipy import linalg

            return linalg.solve_triangular(L, b, trans="C" if transpose else "N", lower=lower)
        columns = b if b.ndim == 2 else b[:, None]
        if is_torch(xp):
            matrix, upper = (L.mH, lower) if transpose else (L, not lower)
            x = xp.linalg.solve_triangular(matrix, columns, upper=upper)
        else:
            matrix = xp.tril(L) if lower else xp.triu(L)
            if transpose:
                matrix = adjoint(matrix, xp)
            x = xp.linalg.solve(matrix, columns)
    return x if b.ndim == 2 else x[:, 0]


def cholesky(A: Array, *, xp: Namespace) -> Array:
    """Lower Cholesky factor ``L`` of ``A = L L^H``.

    Parameters
    ----------
    A : array (n, n)
        Symmetric or Hermitian positive definite matrix.
    xp : namespace
        Library of the array.

    Returns
    -------
    array (n, n)
        ``L``, lower triangular with a positive diagonal.

    Raises
    ------
    InputError
        ``A`` is not square.
    BackendError
        Wrong dtype.
    BreakdownError
        ``A`` is not positive definite, or has entries that are not finite.

    Notes
    -----
    O(n^3 / 3) operations and one host transfer: only the diagonal of the factor shows the failure on every library.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.linalg import cholesky
    >>> cholesky(xp.asarray([[4.0, 2.0], [2.0, 10.0]]), xp=xp).tolist()
    [[2.0, 0.0], [1.0, 3.0]]
    """
    _check_square(A, "A", xp)
    message = "matrix is not positive definite, or has entries that are not finite"
    with factoring(message, xp):
        L = xp.linalg.cholesky(A)
    if not host_bool(xp.isfinite(xp.sum(xp.linalg.diagonal(L)))):
        raise BreakdownError(message)
    return L


def cho_solve(L: Array, b: Array, *, xp: Namespace) -> Array:
    """Solve ``L L^H x = b`` with a lower Cholesky factor.

    Parameters
    ----------
    L : array (n, n)
        Lower factor, from `cholesky`.
    b : array (n,) or (n, r)
        Right-hand sides, of the dtype of ``L``.
    xp : namespace
        Library of the arrays.

    Returns
    -------
    array
        ``x``, of the shape of ``b``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.linalg import cho_solve, cholesky
    >>> A = xp.asarray([[4.0, 2.0], [2.0, 10.0]])
    >>> cho_solve(cholesky(A, xp=xp), xp.asarray([6.0, 12.0]), xp=xp).tolist()
    [1.0, 1.0]
    """
    half = solve_triangular(L, b, lower=True, xp=xp)
    return solve_triangular(L, half, lower=True, xp=xp, transpose=True)

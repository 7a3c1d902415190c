"""Triangular solves and Cholesky factors: what the array-API standard lacks, or leaves to fail differently in every library."""

from __future__ import annotations

from .errors import BreakdownError, InputError
from .namespace import Array, Namespace, is_cupy, is_numpy, is_torch
from .transfer import host_bool
from .validation import check_array


def solve_triangular(L: Array, b: Array, *, lower: bool, xp: Namespace, adjoint: bool = False) -> Array:
    """Solve ``L z = b``, or ``L^H z = b`` with ``adjoint``, for a triangular ``L``.

    Parameters
    ----------
    L : array (n, n)
        Triangular matrix, float or complex; the other triangle is not read where the library can leave it.
    b : array (n,) or (n, k)
        Right-hand side(s), of the dtype of ``L``.
    lower : bool
        Whether ``L`` is lower triangular.
    xp : namespace
        Of both.
    adjoint : bool
        Solve with the conjugate transpose instead.

    Raises
    ------
    BackendError, InputError
        Wrong dtype or shape; the message names the argument. Values are not looked at.

    Returns
    -------
    array
        Shaped like ``b``. Native and O(n^2 k) on NumPy, CuPy and torch; elsewhere the standard's general solve, O(n^3).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.linalg import solve_triangular
    >>> L = xp.asarray([[2.0, 0.0], [1.0, 1.0]])
    >>> solve_triangular(L, xp.asarray([2.0, 3.0]), lower=True, xp=xp).tolist()
    [1.0, 2.0]
    """
    _check_square(L, "L", xp)
    check_array(b, "b", xp, ndim=(1, 2), allow_complex=True, allow_empty=True, finite=False, dtype=L.dtype)
    if b.shape[0] != L.shape[0]:
        raise InputError(f"b has shape {tuple(b.shape)}, expected {L.shape[0]} rows, one for each of L")
    if is_numpy(xp) or is_cupy(xp):
        if is_numpy(xp):
            from scipy.linalg import solve_triangular as native
        else:
            from cupyx.scipy.linalg import solve_triangular as native
        return native(L, b, lower=lower, trans=2 if adjoint else 0, check_finite=False)
    columns = b[:, None] if b.ndim == 1 else b
    A = xp.conj(xp.matrix_transpose(L)) if adjoint and xp.isdtype(L.dtype, "complex floating") else L
    if adjoint and A is L:
        A = xp.matrix_transpose(L)
    if is_torch(xp):
        import torch

        z = torch.linalg.solve_triangular(A, columns, upper=lower is adjoint)
    else:
        z = xp.linalg.solve(xp.tril(A) if lower is not adjoint else xp.triu(A), columns)
    return z[:, 0] if b.ndim == 1 else z


def cholesky(A: Array, *, xp: Namespace) -> Array:
    """Lower ``L`` with ``L L^H = A``.

    Raises
    ------
    BreakdownError
        ``A`` is not positive definite (or not finite), whichever way the library says so: its own exception, or NaN. One
        host transfer.

    BackendError, InputError
        ``A`` is not a square array of floats.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.linalg import cholesky
    >>> cholesky(xp.asarray([[4.0, 2.0], [2.0, 2.0]]), xp=xp).tolist()
    [[2.0, 0.0], [1.0, 1.0]]
    """
    _check_square(A, "A", xp)
    try:
        L = xp.linalg.cholesky(A)
    except (ValueError, RuntimeError, ArithmeticError) as err:
        raise BreakdownError("the matrix is not positive definite") from err
    if not host_bool(xp.all(xp.isfinite(xp.linalg.diagonal(L)))):
        raise BreakdownError("the matrix is not positive definite")
    return L


def cho_solve(L: Array, b: Array, *, xp: Namespace) -> Array:
    """Solve ``L L^H z = b`` from the factor that `cholesky` returns; ``b`` is (n,) or (n, k).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.backends.linalg import cho_solve
    >>> cho_solve(xp.asarray([[2.0, 0.0], [1.0, 1.0]]), xp.asarray([8.0, 6.0]), xp=xp).tolist()
    [1.0, 2.0]
    """
    return solve_triangular(L, solve_triangular(L, b, lower=True, xp=xp), lower=True, adjoint=True, xp=xp)


def _check_square(A: Array, name: str, xp: Namespace) -> None:
    check_array(A, name, xp, ndim=2, allow_complex=True, allow_empty=True, finite=False)
    if A.shape[0] != A.shape[1]:
        raise InputError(f"{name} has shape {tuple(A.shape)}, expected a square matrix")

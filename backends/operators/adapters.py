"""Turn what users have (arrays, sparse matrices of three libraries, SciPy and PyLops operators, functions) into operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import BackendError, InputError
from ..namespace import Array, Namespace, array_namespace, device, has_float64, is_array, is_numpy, library
from ..validation import check_finite
from .linear_operator import LinearOperator

# Rows promoted to float64 at a time when a residual is recomputed: bounds the extra memory to a few MB.
_ROWS_AT_ONCE = 2**20


def as_operator(A: Any, *, like: Array, name: str = "A", square: bool = True) -> LinearOperator:
    """Wrap ``A`` as a `LinearOperator` that acts on arrays like ``like``.

    Parameters
    ----------
    A : array (m, n), sparse matrix, operator or callable
        A 2-d array of the library of ``like``; a SciPy, CuPy or torch-CSR sparse matrix; a SciPy or PyLops operator
        (NumPy only); a `LinearOperator`; or a function ``v -> A v`` of a square operator of order ``like.shape[0]``.
    like : array (n,) or (n, k)
        The vector(s) the operator will meet; decides library, device and dtype.
    name : str
        Name of the argument, for errors.
    square : bool
        Whether ``A`` must be square with ``like.shape[0]`` rows.

    Raises
    ------
    BackendError, InputError
        Not an operator, of another library, device or dtype, or wrongly shaped; the message names ``name``.
    """
    xp = array_namespace(b=like)
    if isinstance(A, LinearOperator):
        op = A
    elif is_array(A):
        op = _dense(A, like, name, xp)
    elif _is_torch_sparse(A) or (hasattr(A, "nnz") and hasattr(A, "tocsr")):
        op = _sparse(A, like, name, xp)
    elif hasattr(A, "shape") and (hasattr(A, "matvec") or hasattr(A, "_matvec")):
        op = _foreign(A, like, name, xp)
    elif callable(A):
        n = like.shape[0]
        op = LinearOperator((n, n), A, dtype=like.dtype, name=name)
    else:
        raise BackendError(
            f"{name} is a {type(A).__name__}: expected a 2-d array, a sparse matrix, an operator or a callable"
        )
    if square and op.shape != (like.shape[0], like.shape[0]):
        raise InputError(f"{name} has shape {op.shape}, expected ({like.shape[0]}, {like.shape[0]})")
    return op


def _check_dtype(dtype: Any, like: Array, name: str) -> None:
    real = {"complex64": "float32", "complex128": "float64"}
    have, want = str(dtype).removeprefix("torch."), str(like.dtype).removeprefix("torch.")
    if "." in have:
        have = have.rsplit(".", 1)[1]
    if "." in want:
        want = want.rsplit(".", 1)[1]
    if have != want and have != real.get(want):
        raise BackendError(f"{name} has dtype {have}, the vector {want}; convert one of them")


def _dense(A: Array, like: Array, name: str, xp: Namespace) -> LinearOperator:
    array_namespace(**{name: A, "b": like})
    if A.ndim != 2:
        raise InputError(f"{name} has shape {tuple(A.shape)}, expected a 2-d array")
    _check_dtype(A.dtype, like, name)
    check_finite(A, name, xp)
    complex_ = xp.isdtype(A.dtype, "complex floating")

    def adjoint(u: Array) -> Array:
        return (xp.conj(A.T) if complex_ else A.T) @ u

    def precise(v: Array) -> Array:
        rows = max(1, _ROWS_AT_ONCE // max(1, A.shape[1]))
        wide = xp.astype(v, xp.float64)
        parts = [xp.astype(A[i : min(i + rows, A.shape[0]), :], xp.float64) @ wide for i in range(0, A.shape[0], rows)]
        return xp.concat(parts, axis=0)

    widen = A.dtype == xp.float32 and has_float64(A, xp)
    return LinearOperator(
        A.shape,
        A.__matmul__,
        matmat=A.__matmul__,
        rmatvec=adjoint,
        rmatmat=adjoint,
        dtype=A.dtype,
        precise_matvec=precise if widen else None,
        name=name,
    )


def _is_torch_sparse(A: Any) -> bool:
    return type(A).__module__.split(".")[0] == "torch" and "sparse" in str(getattr(A, "layout", ""))


def _torch_adjoint(A: Any) -> Any:
    """Conjugate transpose in CSR, entry by entry: torch conjugates no sparse layout lazily."""
    import torch

    entries = A.to_sparse_coo().coalesce()
    flipped, values = entries.indices().flip(0), torch.conj_physical(entries.values())
    return torch.sparse_coo_tensor(flipped, values, (A.shape[1], A.shape[0]), check_invariants=False).to_sparse_csr()


def _sparse(A: Any, like: Array, name: str, xp: Namespace) -> LinearOperator:
    home = type(A).__module__.split(".")[0].replace("cupyx", "cupy").replace("scipy", "numpy")
    if home != library(xp):
        raise BackendError(f"{name} is a sparse matrix of {home}, the vector is {library(xp)}; use one library")
    if _is_torch_sparse(A):
        if "csr" not in str(A.layout):
            raise BackendError(f"{name} has layout {A.layout}; convert it with .to_sparse_csr()")
        if A.device != device(like):
            raise BackendError(f"{name} lives on {A.device}, the vector on {device(like)}")
        values = A.values().clone()  # a view of complex values still calls itself sparse
        adjoint_matrix = _torch_adjoint(A)
    else:
        A = A.tocsr() if A.format == "coo" else A
        values = A.data
        adjoint_matrix = None
    _check_dtype(A.dtype, like, name)
    check_finite(values, name, xp)

    def adjoint(u: Array) -> Array:
        nonlocal adjoint_matrix
        if adjoint_matrix is None:
            adjoint_matrix = A.conj().T.tocsr()
        return adjoint_matrix @ u

    def precise(v: Array) -> Array:
        # A copy of the values only, made when convergence is claimed.
        return A.astype(np.float64) @ v.astype(np.float64)

    widen = is_numpy(xp) and A.dtype == np.float32
    return LinearOperator(
        tuple(A.shape),
        A.__matmul__,
        matmat=A.__matmul__,
        rmatvec=adjoint,
        rmatmat=adjoint,
        dtype=A.dtype,
        precise_matvec=precise if widen else None,
        name=name,
    )


def _foreign(A: Any, like: Array, name: str, xp: Namespace) -> LinearOperator:
    """A SciPy or PyLops operator: it computes on the host."""
    if not is_numpy(xp):
        raise BackendError(
            f"{name} is a {type(A).__module__} operator and works on NumPy arrays, the vector is {library(xp)}"
        )
    if getattr(A, "dtype", None) is not None:
        _check_dtype(A.dtype, like, name)
    return LinearOperator(
        tuple(A.shape),
        A.matvec,
        matmat=A.matmat,
        rmatvec=A.rmatvec,
        rmatmat=getattr(A, "rmatmat", None),
        dtype=like.dtype,
        name=name,
    )

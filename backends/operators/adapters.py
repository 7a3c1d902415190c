"""Turn what users have (arrays, sparse matrices of three libraries, SciPy and PyLops operators, functions) into operators."""

from __future__ import annotations

from typing import Any

from ..errors import BackendError, InputError
from ..namespace import (
    Array,
    Namespace,
    array_namespace,
    device,
    has_float64,
    is_array,
    is_cupy,
    is_numpy,
    is_torch,
    library,
)
from ..validation import check_finite
from .banded import Products
from .linear_operator import Action, LinearOperator

# Rows promoted to float64 at a time when a residual is recomputed: bounds the extra memory to a few MB.
_ROWS_AT_ONCE = 2**20


# Arguments whose finiteness is still a boolean on the device: a solver reads them all in one transfer.
Pending = list[tuple[str, Array]]


def as_operator(
    A: Any, *, like: Array, name: str = "A", square: bool = True, vector: str = "b", pending: Pending | None = None
) -> LinearOperator:
    """Wrap ``A`` as a `LinearOperator` that acts on arrays like ``like``.

    Parameters
    ----------
    A : array (m, n), sparse matrix, operator or callable
        A 2-d array of the library of ``like``; a SciPy, CuPy or torch-CSR sparse matrix; an operator of SciPy or PyLops
        (NumPy only) or of CuPy; a `LinearOperator`; or a function ``v -> A v`` of a square operator of order ``like.shape[0]``.
    like : array (n,) or (n, k)
        The vector(s) the operator will meet; decides library, device and dtype.
    name : str
        Name of the argument, for errors.
    square : bool
        Whether ``A`` must be square with ``like.shape[0]`` rows.
    vector : str
        Name of ``like``, for errors.
    pending : list, optional
        Where to leave ``(name, all entries are finite)``, unread, instead of checking it here: one transfer less.

    Returns
    -------
    LinearOperator
        ``A`` itself where it is one already.

    Raises
    ------
    BackendError, InputError
        Not an operator, of another library, device or dtype, or wrongly shaped; the message names ``name``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.operators import as_operator
    >>> operator = as_operator(np.diag([1.0, 2.0]), like=np.ones(2))
    >>> (operator @ np.ones(2)).tolist()
    [1.0, 2.0]
    """
    xp = array_namespace(**{vector: like})
    if isinstance(A, LinearOperator):
        op = A
    elif is_array(A):
        op = _dense(A, like, name, xp, pending, vector)
    elif _is_torch_sparse(A) or (hasattr(A, "nnz") and hasattr(A, "tocsr")):
        op = _sparse(A, like, name, xp, pending)
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


def _check_entries(entries: Array, name: str, xp: Namespace, pending: Pending | None) -> None:
    if pending is None:
        check_finite(entries, name, xp)
    else:
        pending.append((name, xp.all(xp.isfinite(entries))))


def _check_dtype(dtype: Any, like: Array, name: str) -> None:
    real = {"complex64": "float32", "complex128": "float64"}
    have, want = str(dtype).removeprefix("torch."), str(like.dtype).removeprefix("torch.")
    if "." in have:
        have = have.rsplit(".", 1)[1]
    if "." in want:
        want = want.rsplit(".", 1)[1]
    if have != want and have != real.get(want):
        raise BackendError(f"{name} has dtype {have}, the vector {want}; convert one of them")


def _dense(A: Array, like: Array, name: str, xp: Namespace, pending: Pending | None, vector: str) -> LinearOperator:
    array_namespace(**{name: A, vector: like})
    if A.ndim != 2:
        raise InputError(f"{name} has shape {tuple(A.shape)}, expected a 2-d array")
    _check_dtype(A.dtype, like, name)
    _check_entries(A, name, xp, pending)
    if A.dtype != like.dtype:
        A = xp.astype(A, like.dtype)  # real entries, complex vectors: torch multiplies only equal dtypes
    complex_ = xp.isdtype(A.dtype, "complex floating")

    def adjoint(u: Array) -> Array:
        return (xp.conj(A.T) if complex_ else A.T) @ u

    def precise(v: Array) -> Array:
        rows = max(1, _ROWS_AT_ONCE // max(1, A.shape[1]))
        wide = _wide(v, xp)
        x = xp.astype(v, wide)
        parts = [xp.astype(A[i : min(i + rows, A.shape[0]), :], wide) @ x for i in range(0, A.shape[0], rows)]
        return xp.concat(parts, axis=0)

    widen = A.dtype in (xp.float32, xp.complex64) and has_float64(A, xp)
    forward, backward = _any_vector(A.__matmul__, A.dtype, xp), _any_vector(adjoint, A.dtype, xp)
    return LinearOperator(
        A.shape,
        forward,
        matmat=forward,
        rmatvec=backward,
        rmatmat=backward,
        dtype=A.dtype,
        precise_matvec=precise if widen else None,
        diagonal=lambda: xp.linalg.diagonal(A),
        name=name,
    )


def _any_vector(action: Action, dtype: Any, xp: Namespace) -> Action:
    """``action`` for real and complex vectors alike: torch multiplies only equal dtypes."""
    if not is_torch(xp):
        return action

    def apply(v: Array) -> Array:
        if v.dtype == dtype:
            return action(v)
        if xp.isdtype(dtype, "complex floating"):
            return action(xp.astype(v, dtype))
        return action(xp.real(v)) + 1j * action(xp.imag(v)) if xp.isdtype(v.dtype, "complex floating") else action(v)

    return apply


def _wide(v: Array, xp: Namespace) -> Any:
    """The dtype in which residuals of ``v`` are recomputed."""
    return xp.complex128 if xp.isdtype(v.dtype, "complex floating") else xp.float64


def _is_torch_sparse(A: Any) -> bool:
    return type(A).__module__.split(".")[0] == "torch" and "sparse" in str(getattr(A, "layout", ""))


def _sparse(A: Any, like: Array, name: str, xp: Namespace, pending: Pending | None) -> LinearOperator:
    home = type(A).__module__.split(".")[0]
    if home.replace("cupyx", "cupy").replace("scipy", "numpy") != library(xp):
        raise BackendError(f"{name} is a sparse matrix of {home}, the vector is {library(xp)}; use one library")
    if len(A.shape) != 2:
        raise InputError(f"{name} has shape {tuple(A.shape)}, expected a 2-d matrix")
    torch = _is_torch_sparse(A)
    if torch:
        if "csr" not in str(A.layout):
            raise BackendError(f"{name} has layout {A.layout}; convert it with .to_sparse_csr()")
        if A.device != device(like):
            raise BackendError(f"{name} lives on {A.device}, the vector on {device(like)}")
    elif A.format not in ({"csr"} if is_cupy(xp) else {"csr", "csc", "bsr", "dia"}):
        # CuPy multiplies by rows: columns through a transposed product, diagonals after a conversion at each product.
        A = A.tocsr()
    _check_dtype(A.dtype, like, name)
    # The values of a complex CSR tensor answer few functions before they are detached.
    _check_entries(A.values().detach() if torch else A.data, name, xp, pending)
    if torch and A.dtype != like.dtype:
        A = A.to(like.dtype)
    adjoint_matrix = None

    def adjoint(u: Array) -> Array:
        nonlocal adjoint_matrix
        if adjoint_matrix is None:
            if torch:
                adjoint_matrix = A.to_sparse_coo().transpose(0, 1).conj().resolve_conj().to_sparse_csr()
            else:
                adjoint_matrix = A.conj().T.tocsr()
        return adjoint_matrix @ u

    def precise(v: Array) -> Array:
        # A copy of the values only, made when convergence is claimed.
        wide = _wide(v, xp)
        return (A.to(wide) if torch else A.astype(wide)) @ xp.astype(v, wide)

    def diagonal() -> Array:
        if not torch:
            return A.diagonal()
        coo = A.to_sparse_coo().coalesce()
        rows, columns = coo.indices()
        on = rows == columns
        out = xp.zeros(min(A.shape), dtype=A.dtype, device=A.device)
        out[rows[on]] = coo.values()[on]
        return out

    widen = A.dtype in (xp.float32, xp.complex64) and has_float64(like, xp)
    forward, backward = _any_vector(A.__matmul__, A.dtype, xp), _any_vector(adjoint, A.dtype, xp)
    return LinearOperator(
        tuple(A.shape),
        Products(A) if is_numpy(xp) and A.format == "csr" else forward,
        matmat=forward,
        rmatvec=backward,
        rmatmat=backward,
        dtype=A.dtype,
        precise_matvec=precise if widen else None,
        diagonal=diagonal,
        name=name,
    )


def _foreign(A: Any, like: Array, name: str, xp: Namespace) -> LinearOperator:
    """An operator of SciPy or PyLops, which computes on the host, or of CuPy."""
    there = type(A).__module__.split(".")[0] in {"cupy", "cupyx"}
    if not (is_cupy(xp) if there else is_numpy(xp)):
        raise BackendError(
            f"{name} is a {type(A).__module__} operator and works on {'CuPy' if there else 'NumPy'} arrays, the vector is "
            f"{library(xp)}"
        )
    if getattr(A, "dtype", None) is not None:
        _check_dtype(A.dtype, like, name)
    return LinearOperator(
        tuple(A.shape),
        A.matvec,
        matmat=getattr(A, "matmat", None),
        rmatvec=getattr(A, "rmatvec", None),
        rmatmat=getattr(A, "rmatmat", None),
        dtype=like.dtype,
        name=name,
    )

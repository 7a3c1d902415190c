"""What the preconditioners share: finding the vectors a matrix acts on, and checks of grids and their coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ....backends.errors import BackendError, InputError
from ....backends.linalg import real_dtype
from ....backends.namespace import Array, Namespace, array_namespace, is_array
from ....backends.operators import LinearOperator, as_operator
from ....backends.transfer import host_float, to_host
from ....backends.validation import check_array, check_count, check_dtype


def symmetric(
    n: int, action: Callable[[Array], Array], dtype: Any, name: str, *, positive: bool = True
) -> LinearOperator:
    """A symmetric operator whose action takes one or several columns."""
    tags = {"symmetric", "positive"} if positive else {"symmetric"}
    return LinearOperator(
        (n, n), action, matmat=action, rmatvec=action, rmatmat=action, dtype=dtype, tags=tags, name=name
    )


def operator_and_vector(A: Any, like: Array | None, name: str = "A") -> tuple[LinearOperator, Array]:
    """``A`` as an operator and a vector of its kind: ``like`` shaped (n,), or one found in ``A`` itself."""
    if like is None:
        vector = _found(A, name)
        check_dtype(vector, name, array_namespace(**{name: vector}), allow_complex=True)
    else:
        check_array(like, "like", array_namespace(like=like), ndim=(1, 2), allow_complex=True, finite=False)
        vector = like if like.ndim == 1 else like[:, 0]
    return as_operator(A, like=vector, name=name), vector


def _found(A: Any, name: str) -> Array:
    """A vector of the library, dtype and device of a matrix that stores its entries."""
    if is_array(A) and A.ndim == 2 and min(A.shape):
        return A[:, 0]
    home = type(A).__module__.split(".")[0]
    if home == "torch" and hasattr(A, "values") and getattr(A, "ndim", 0) == 2:
        return A.values().new_zeros(A.shape[0])
    if hasattr(A, "nnz") and hasattr(A, "diagonal"):
        return A.diagonal()
    if is_array(A):
        raise InputError(f"{name} has shape {tuple(A.shape)}, expected a non-empty 2-d array")
    raise BackendError(
        f"{name} does not say which vectors it acts on; pass like=, an array of length n of their library and dtype"
    )


def is_cupy_matrix(A: Any) -> bool:
    """Whether ``A`` is a sparse or dense matrix on a CUDA device, of CuPy."""
    return type(A).__module__.split(".")[0] in {"cupy", "cupyx"} and hasattr(A, "get") and hasattr(A, "shape")


def scipy_matrix(A: Any, what: str, takes: str = "SciPy") -> Any:
    """``A`` as SciPy CSC, square and finite; a NumPy array is taken too."""
    import numpy as np
    from scipy import sparse

    if sparse.issparse(A) or (isinstance(A, np.ndarray) and is_array(A) and A.ndim == 2):
        matrix = sparse.csc_array(A)
    else:
        raise BackendError(
            f"A is a {type(A).__module__}.{type(A).__name__}: {what} works on the host and takes sparse matrices of {takes}; "
            "on other libraries use jacobi, block_jacobi or chebyshev_polynomial"
        )
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise InputError(f"A has shape {tuple(A.shape)}, expected a square, non-empty matrix")
    if matrix.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
        raise BackendError(f"A has dtype {matrix.dtype}, expected float32, float64, complex64 or complex128")
    if not np.all(np.isfinite(matrix.data)):
        raise InputError("A contains NaN or infinite values")
    matrix.sum_duplicates()
    return matrix


def is_hermitian(matrix: Any) -> bool:
    """Whether a SciPy matrix equals its adjoint up to rounding."""
    import numpy as np

    gap = abs(matrix - matrix.conj().T)
    size = abs(matrix).max() if matrix.nnz else 0.0
    return bool((gap.max() if gap.nnz else 0.0) <= 10 * float(np.finfo(matrix.dtype).eps) * size)


def check_grid(shape: Sequence[int]) -> tuple[int, ...]:
    """One to three lengths."""
    if not isinstance(shape, tuple | list) or not 1 <= len(shape) <= 3:
        raise InputError(f"shape is {shape!r}, expected one to three numbers of points")
    return tuple(check_count(s, "shape") for s in shape)


def check_like(like: Array) -> Namespace:
    """The namespace of ``like``; its dtype must be floating."""
    xp = array_namespace(like=like)
    check_array(like, "like", xp, allow_complex=True, allow_empty=True, finite=False)
    return xp


def check_coefficient(a: Array, shapes: Sequence[tuple[int, ...]], like: Array, xp: Namespace) -> Array:
    """Positive nodal values of one of ``shapes``, of the library and device of ``like``."""
    array_namespace(like=like, coefficient=a)
    check_array(a, "coefficient", xp, dtype=real_dtype(like.dtype, xp))
    if tuple(a.shape) not in shapes:
        wanted = " or ".join(str(s) for s in shapes)
        raise InputError(f"coefficient has shape {tuple(a.shape)}, expected {wanted}")
    if not host_float(xp.min(a)) > 0:
        raise InputError("coefficient has entries that are not positive")
    return a


def points(shape: Sequence[int]) -> int:
    """Number of unknowns of a grid."""
    return math.prod(shape)


def host_index(i: Array) -> int:
    """A 0-d integer array as a Python integer; one transfer."""
    return int(to_host(i))

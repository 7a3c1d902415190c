"""Jacobi: divide by the diagonal, or by the size of the rows (Jacobi 1845; van der Sluis 1969 on why it is nearly the best
diagonal scaling)."""

from __future__ import annotations

from typing import Any

from ....backends.errors import BackendError, InputError
from ....backends.namespace import Array, array_namespace, is_array
from ....backends.operators import LinearOperator
from ....backends.transfer import host_bool
from ....backends.validation import check_choice
from .common import operator_and_vector


def jacobi(A: Any, *, like: Array | None = None, scale: str = "diagonal") -> LinearOperator:
    """Inverse of the diagonal of ``A``, as an operator.

    Parameters
    ----------
    A : array (n, n), sparse matrix or LinearOperator
        Must know its diagonal.
    like : array (n,), optional
        Decides library, dtype and device where ``A`` does not store its entries.
    scale : {"diagonal", "rows"}
        ``z_i = r_i / a_ii``, or ``z_i = r_i / sum_j |a_ij|``: never zero for a nonsingular matrix, so it suits
        nonsymmetric ones with zeros on the diagonal. Rows need a matrix that stores its entries.

    Returns
    -------
    LinearOperator
        ``M`` (n, n), diagonal; tagged symmetric if real, and positive if its entries are.

    Raises
    ------
    InputError
        A zero (or a value that is not finite) in the diagonal or among the row sums; ``A`` does not know its diagonal.
    BackendError
        ``A`` is no matrix or of another library than ``like``.

    References
    ----------
    A. van der Sluis, Condition numbers and equilibration of matrices, 1969.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import jacobi
    >>> (jacobi(np.asarray([[2.0, 1.0], [1.0, 4.0]])) @ np.ones(2)).tolist()
    [0.5, 0.25]
    """
    word = check_choice(scale, "scale", ("diagonal", "rows"))
    operator, vector = operator_and_vector(A, like)
    values = operator.diagonal() if word == "diagonal" else _row_sums(A, vector)
    xp = array_namespace(values=values, like=vector)
    if not host_bool(xp.all(xp.isfinite(values) & (values != 0))):
        raise InputError(f"A has zeros or values that are not finite in its {word}: they cannot be divided by")
    complex_ = xp.isdtype(values.dtype, "complex floating")
    if complex_ and host_bool(xp.all(xp.imag(values) == 0)):
        values, complex_ = xp.real(values), False  # Hermitian matrices: a real operator, which keeps symmetry
    inverse = 1.0 / values
    tags = set() if complex_ else {"symmetric"}
    if not complex_ and host_bool(xp.all(inverse > 0)):
        tags.add("positive")

    def scaled(by: Array) -> Any:
        return lambda v: v * (by if v.ndim == 1 else by[:, None])

    action = scaled(inverse)
    adjoint = scaled(xp.conj(inverse)) if complex_ else action
    return LinearOperator(
        operator.shape, action, matmat=action, rmatvec=adjoint, rmatmat=adjoint, dtype=inverse.dtype, tags=tags,
        diagonal=lambda: inverse, name="jacobi",
    )  # fmt: skip


def _row_sums(A: Any, vector: Array) -> Array:
    xp = array_namespace(like=vector)
    if is_array(A):
        return xp.sum(xp.abs(A), axis=1)
    if hasattr(A, "nnz") and hasattr(A, "tocsr"):
        sums = abs(A.tocsr()).sum(axis=1)
        return xp.reshape(xp.asarray(sums), (-1,))
    if type(A).__module__.split(".")[0] == "torch":
        return abs(A.to_sparse_coo()).sum(dim=1).to_dense()
    raise BackendError(f"A is a {type(A).__name__}: scale='rows' needs a matrix that stores its entries")

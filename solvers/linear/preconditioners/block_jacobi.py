"""Block Jacobi: the inverses of the diagonal blocks, all at once."""

from __future__ import annotations

from typing import Any

from ....backends.errors import BackendError, BreakdownError, InputError
from ....backends.linalg import factoring
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, is_array
from ....backends.operators import LinearOperator
from ....backends.transfer import host_bool
from ....backends.validation import check_count
from .common import operator_and_vector


def block_jacobi(A: Any, block_size: int, *, like: Array | None = None) -> LinearOperator:
    """Inverse of the block diagonal of ``A``, as an operator.

    Parameters
    ----------
    A : array (n, n) or sparse matrix
        Must store its entries.
    block_size : int
        Rows ``q`` of a block; the last block is smaller where ``q`` does not divide ``n``.
    like : array (n,), optional
        Decides library, dtype and device where ``A`` does not.

    Returns
    -------
    LinearOperator
        ``M`` (n, n), tagged symmetric if all blocks are Hermitian, and positive if they are positive definite.

    Raises
    ------
    BreakdownError
        A block is singular.
    InputError, BackendError
        A bad matrix or block size; the message names the argument.

    Notes
    -----
    ``O(n q^2)`` operations and ``n q`` numbers to set up, one batched product each time it is applied: fast on a GPU.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import block_jacobi
    >>> A = np.asarray([[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 4.0]])
    >>> (block_jacobi(A, 2) @ np.asarray([3.0, 3.0, 4.0])).round(12).tolist()
    [1.0, 1.0, 1.0]
    """
    q = check_count(block_size, "block_size")
    operator, vector = operator_and_vector(A, like)
    xp, n = array_namespace(like=vector), operator.shape[0]
    q = min(q, n)
    blocks = _dense_blocks(A, q, xp) if is_array(A) else _sparse_blocks(A, n, q, vector, xp)
    inverse = _inverse(blocks, xp)
    complex_ = xp.isdtype(blocks.dtype, "complex floating")
    other = xp.conj(xp.matrix_transpose(blocks)) if complex_ else xp.matrix_transpose(blocks)
    bound = 10 * finfo_eps(blocks.dtype, xp)
    tags = set()
    if host_bool(xp.max(xp.abs(blocks - other)) <= bound * xp.max(xp.abs(blocks))):
        tags.add("symmetric")
        transposed = xp.matrix_transpose(inverse)
        inverse = 0.5 * (inverse + (xp.conj(transposed) if complex_ else transposed))
        if host_bool(xp.min(xp.linalg.eigvalsh(inverse)) > 0):
            tags.add("positive")
    transposed = xp.matrix_transpose(inverse)
    adjoint = xp.conj(transposed) if complex_ else transposed

    def times(stack: Array) -> Any:
        return lambda v: _product(stack, v, n, xp)

    return LinearOperator(
        (n, n), times(inverse), matmat=times(inverse), rmatvec=times(adjoint), rmatmat=times(adjoint),
        dtype=blocks.dtype, tags=tags, name=f"block_jacobi({q})",
    )  # fmt: skip


def _product(stack: Array, v: Array, n: int, xp: Namespace) -> Array:
    count, q = stack.shape[0], stack.shape[1]
    columns = v if v.ndim == 2 else v[:, None]
    if count * q > n:
        tail = xp.zeros((count * q - n, columns.shape[1]), dtype=v.dtype, device=device(v))
        columns = xp.concat([columns, tail], axis=0)
    if stack.dtype != v.dtype and xp.isdtype(v.dtype, "complex floating"):
        stack = xp.astype(stack, v.dtype)  # torch multiplies only equal dtypes
    out = xp.matmul(stack, xp.reshape(columns, (count, q, columns.shape[1])))
    return xp.reshape(xp.reshape(out, (count * q, columns.shape[1]))[:n, :], v.shape)


def _inverse(blocks: Array, xp: Namespace) -> Array:
    message = "a diagonal block of A is singular; choose another block_size"
    with factoring(message, xp):
        inverse = xp.linalg.inv(blocks)
    if not host_bool(xp.all(xp.isfinite(inverse))):
        raise BreakdownError(message)
    return inverse


def _dense_blocks(A: Array, q: int, xp: Namespace) -> Array:
    """(count, q, q), the last padded with ones on its diagonal."""
    n = A.shape[0]
    whole = n // q
    parts = [A[i * q : (i + 1) * q, i * q : (i + 1) * q] for i in range(whole)]
    rest = n - whole * q
    if rest:
        tail = xp.eye(q, dtype=A.dtype, device=device(A))
        tail[:rest, :rest] = A[whole * q :, whole * q :]
        parts.append(tail)
    return xp.stack(parts)


def _sparse_blocks(A: Any, n: int, q: int, vector: Array, xp: Namespace) -> Array:
    """The same from the entries of a SciPy, CuPy or torch matrix."""
    if hasattr(A, "nnz") and hasattr(A, "tocsr"):
        coo = A.tocsr().tocoo()
        coo.sum_duplicates()
        rows, columns, values = coo.row, coo.col, coo.data
    elif hasattr(A, "to_sparse_coo"):
        coo = A.to_sparse_coo().coalesce()
        (rows, columns), values = coo.indices(), coo.values()
    else:
        raise BackendError(f"A is a {type(A).__name__}: block_jacobi needs a matrix that stores its entries")
    if values.shape[0] == 0:
        raise InputError("A has no entries: its blocks are singular")
    count = -(-n // q)
    blocks = xp.zeros((count, q, q), dtype=values.dtype, device=device(vector))
    inside = rows // q == columns // q
    rows, columns, values = rows[inside], columns[inside], values[inside]
    # The libraries with sparse matrices all assign by index arrays, which the standard does not.
    blocks[rows // q, rows % q, columns % q] = values
    for i in range(n, count * q):
        blocks[count - 1, i % q, i % q] = 1.0
    return blocks

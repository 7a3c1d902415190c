"""Circulant approximations of Toeplitz matrices as preconditioners: two FFTs an application.

Strang, A proposal for Toeplitz matrix calculations (1986) copies the central diagonals; T. Chan, An optimal circulant
preconditioner for Toeplitz systems (1988) takes the circulant nearest in the Frobenius norm.
"""

from __future__ import annotations

from ....backends.errors import InputError
from ....backends.namespace import Array, array_namespace, device
from ....backends.operators import LinearOperator
from ....backends.transfer import host_float
from ....backends.validation import check_array, check_choice


def circulant_preconditioner(column: Array, *, kind: str = "chan") -> LinearOperator:
    """The inverse of a circulant matrix near the Hermitian Toeplitz matrix with this first column.

    Parameters
    ----------
    column : array (n,)
        First column of a Hermitian positive definite Toeplitz matrix.
    kind : {"chan", "strang"}
        ``"chan"``: ``c_k = ((n - k) t_k + k conj(t_{n-k})) / n``, positive definite whenever the Toeplitz matrix is.
        ``"strang"``: ``c_k = t_k`` up to the middle and ``conj(t_{n-k})`` after it; often fewer iterations for smooth
        symbols, but not always positive definite.

    Returns
    -------
    LinearOperator
        ``C^{-1}``, for the argument ``M`` of `cg`.

    Raises
    ------
    InputError
        The circulant is not positive definite: with ``"chan"`` neither is the Toeplitz matrix.

    References
    ----------
    G. Strang, A proposal for Toeplitz matrix calculations, Stud. Appl. Math. 74, 1986.
    T. F. Chan, An optimal circulant preconditioner for Toeplitz systems, SIAM J. Sci. Stat. Comput. 9, 1988.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import cg
    >>> from xpsolve.solvers.linear.structured import circulant_preconditioner, toeplitz
    >>> column = 1.0 / (1.0 + np.arange(500.0)) ** 1.1
    >>> T, b = toeplitz(column), np.linspace(-1.0, 1.0, 500)
    >>> cg(T, b, M=circulant_preconditioner(column)).n_iter < cg(T, b).n_iter
    True
    """
    xp = array_namespace(column=column)
    check_array(column, "column", xp, ndim=1, allow_complex=True)
    check_choice(kind, "kind", ("chan", "strang"))
    n = column.shape[0]
    complex_ = xp.isdtype(column.dtype, "complex floating")
    real = xp.real(column[:1]).dtype if complex_ else column.dtype
    # mirrored[k] = conj(t_{n-k}), with any value at k = 0, where neither rule uses it.
    mirrored = xp.concat([column[:1], xp.flip(column[1:])])
    mirrored = xp.conj(mirrored) if complex_ else mirrored
    k = xp.arange(n, dtype=real, device=device(column))
    if kind == "chan":
        c = ((n - k) * column + k * mirrored) / n
    else:
        c = xp.where(k <= n // 2, column, mirrored)
        if complex_ and n % 2 == 0 and n > 1:
            # The middle diagonal is its own mirror image, so that the circulant is Hermitian.
            c = xp.where(k == n // 2, xp.astype(xp.real(c), c.dtype), c)
    symbol = xp.fft.fft(c if complex_ else xp.astype(c, xp.complex64 if real == xp.float32 else xp.complex128))
    eigenvalues = xp.real(symbol)
    if not host_float(xp.min(eigenvalues)) > 0:
        remedy = 'use kind="chan"' if kind == "strang" else "neither is the Toeplitz matrix"
        raise InputError(f"column: its circulant is not positive definite; {remedy}")
    half = eigenvalues[: n // 2 + 1]

    def apply(v: Array) -> Array:
        column_wise = (slice(None),) + (None,) * (v.ndim - 1)
        if not complex_ and not xp.isdtype(v.dtype, "complex floating"):
            return xp.fft.irfft(xp.fft.rfft(v, axis=0) / half[column_wise], n=n, axis=0)
        return xp.fft.ifft(xp.fft.fft(v, axis=0) / eigenvalues[column_wise], axis=0)

    return LinearOperator(
        (n, n), apply, matmat=apply, rmatvec=apply, rmatmat=apply, dtype=column.dtype, tags={"symmetric", "positive"},
        name="C^{-1}",
    )  # fmt: skip


def fast_length(n: int) -> int:
    """The smallest length of at least ``n`` whose prime factors are 2, 3 and 5."""
    best = 1 << max(n - 1, 0).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            quotient = -(-n // three)
            best = min(best, three << max(quotient - 1, 0).bit_length())
            three *= 3
        five *= 5
    return best

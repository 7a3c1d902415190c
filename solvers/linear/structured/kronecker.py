"""Kronecker products ``A_1 kron ... kron A_d`` as operators that never form the product.

A vector of length ``n_1 ... n_d`` is an array of shape (n_1, ..., n_d) in row-major order, on which each factor acts along
its own axis: ``(A kron B) vec(X) = vec(A X B^T)``. Van Loan, The ubiquitous Kronecker product (2000).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, reduce
from typing import Any

from ....backends.errors import BackendError, BreakdownError, InputError
from ....backends.linalg import adjoint, solve_triangular
from ....backends.namespace import Array, Namespace, array_namespace, finfo_eps
from ....backends.operators import LinearOperator
from ....backends.transfer import host_float
from ....backends.validation import check_array


def kronecker(factors: Sequence[Array]) -> KroneckerOperator:
    """The Kronecker product of dense matrices as an operator.

    Parameters
    ----------
    factors : sequence of arrays (m_i, n_i)
        ``A_1, ..., A_d``, of one library, device and dtype; square ones for `solve`, `logdet`, `diagonal` and `sqrt`.

    Returns
    -------
    KroneckerOperator
        Of shape ``(m_1 ... m_d, n_1 ... n_d)``.

    Raises
    ------
    BackendError, InputError
        No factors, not matrices, of different libraries or dtypes, or with NaN; the message names the factor.

    Notes
    -----
    A product costs ``sum_i n_i`` operations an entry instead of ``prod_i n_i``.

    References
    ----------
    C. F. Van Loan, The ubiquitous Kronecker product, J. Comput. Appl. Math. 123, 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.structured import kronecker
    >>> A, B = np.asarray([[2.0, 1.0], [0.0, 1.0]]), np.asarray([[1.0, 0.0], [3.0, 1.0]])
    >>> P = kronecker([A, B])
    >>> (P @ np.asarray([1.0, 0.0, 0.0, 1.0])).tolist()
    [2.0, 7.0, 0.0, 1.0]
    >>> P.solve(P @ np.asarray([1.0, 2.0, 3.0, 4.0])).round(6).tolist()
    [1.0, 2.0, 3.0, 4.0]
    """
    return KroneckerOperator(factors)


class KroneckerOperator(LinearOperator):
    """A Kronecker product, made by `kronecker`, whose page says what the factors may be.

    Attributes
    ----------
    factors : tuple of arrays
        The matrices, left to right.
    """

    def __init__(self, factors: Sequence[Array]) -> None:
        self.factors, self._xp = check_factors(factors)
        rows = tuple(F.shape[0] for F in self.factors)
        columns = tuple(F.shape[1] for F in self.factors)

        def forward(v: Array) -> Array:
            return along_axes([times(F, self._xp) for F in self.factors], v, columns, self._xp)

        def backward(u: Array) -> Array:
            return along_axes([times(adjoint(F, self._xp), self._xp) for F in self.factors], u, rows, self._xp)

        super().__init__(
            (math.prod(rows), math.prod(columns)),
            forward,
            matmat=forward,
            rmatvec=backward,
            rmatmat=backward,
            dtype=self.factors[0].dtype,
            diagonal=self._outer_diagonal,
            name=" kron ".join(["A"] * min(len(self.factors), 3)),
        )

    @property
    def H(self) -> KroneckerOperator:
        """Adjoint: the product of the adjoint factors."""
        return KroneckerOperator([adjoint(F, self._xp) for F in self.factors])

    def solve(self, b: Array) -> Array:
        """``x`` with ``(A_1 kron ... kron A_d) x = b``, for ``b`` (n,) or (n, k).

        Each factor is factorised once, ``A_i = Q_i R_i``, and kept. A singular factor is a `BreakdownError`.
        """
        columns = check_vector(b, self.shape[0], self._xp)

        def inverse(Q: Array, R: Array) -> Callable[[Array], Array]:
            def apply(V: Array) -> Array:
                turned = times(adjoint(Q, self._xp), self._xp)(V)
                return solve_triangular(widen(R, turned, self._xp), turned, lower=False, xp=self._xp)

            return apply

        sizes = tuple(F.shape[0] for F in self.factors)
        x = along_axes([inverse(Q, R) for Q, R in self._qr], columns, sizes, self._xp)
        return x if b.ndim == 2 else x[:, 0]

    def logdet(self) -> Array:
        """``log |det|`` as a 0-d array: ``sum_i (n / n_i) log |det A_i|``; minus infinity if a factor is singular."""
        self._require_square("logdet")
        n = self.shape[0]
        return sum(
            (self._xp.linalg.slogdet(F)[1] * (n / F.shape[0]) for F in self.factors[1:]),
            start=self._xp.linalg.slogdet(self.factors[0])[1] * (n / self.factors[0].shape[0]),
        )

    def sqrt(self) -> KroneckerOperator:
        """The symmetric square root ``S`` with ``S S = A``, for symmetric (Hermitian) positive semidefinite factors.

        ``S @ v`` of white noise ``v`` is a draw of the Gaussian field whose covariance is the product.
        """
        self._require_square("sqrt")
        return KroneckerOperator([_square_root(F, f"factors[{i}]", self._xp) for i, F in enumerate(self.factors)])

    @cached_property
    def _qr(self) -> list[tuple[Array, Array]]:
        self._require_square("solve")
        pairs = []
        for i, F in enumerate(self.factors):
            Q, R = self._xp.linalg.qr(F)
            sizes = self._xp.abs(self._xp.linalg.diagonal(R))
            if not host_float(self._xp.min(sizes)) > finfo_eps(F.dtype, self._xp) * host_float(self._xp.max(sizes)):
                raise BreakdownError(f"factors[{i}] is singular to working precision")
            pairs.append((Q, R))
        return pairs

    def _outer_diagonal(self) -> Array:
        self._require_square("diagonal")
        diagonals = [self._xp.linalg.diagonal(F) for F in self.factors]
        return reduce(lambda a, b: self._xp.reshape(a[:, None] * b[None, :], (-1,)), diagonals)

    def _require_square(self, what: str) -> None:
        for i, F in enumerate(self.factors):
            if F.shape[0] != F.shape[1]:
                raise InputError(f"{what} needs square factors, factors[{i}] has shape {tuple(F.shape)}")


def check_factors(factors: Any, *, square: bool = False) -> tuple[tuple[Array, ...], Namespace]:
    """The factors as a tuple, checked, and their namespace."""
    if not isinstance(factors, Sequence) or isinstance(factors, str) or len(factors) == 0:
        raise InputError(f"factors must be a list or tuple of at least one matrix, got {type(factors).__name__}")
    xp = array_namespace(**{f"factors[{i}]": F for i, F in enumerate(factors)})
    if any(not hasattr(F, "shape") for F in factors):
        raise BackendError("factors must be matrices, got a number among them")
    for i, F in enumerate(factors):
        check_array(F, f"factors[{i}]", xp, ndim=2, allow_complex=True, dtype=factors[0].dtype)
        if square and F.shape[0] != F.shape[1]:
            raise InputError(f"factors[{i}] has shape {tuple(F.shape)}, expected a square matrix")
    return tuple(factors), xp


def check_vector(b: Array, n: int, xp: Namespace) -> Array:
    """The right-hand sides as columns (n, k)."""
    check_array(b, "b", xp, ndim=(1, 2), allow_complex=True)
    if b.shape[0] != n:
        raise InputError(f"b has shape {tuple(b.shape)}, expected {n} rows")
    return b[:, None] if b.ndim == 1 else b


def along_axes(actions: Sequence[Callable[[Array], Array]], v: Array, sizes: tuple[int, ...], xp: Namespace) -> Array:
    """Apply the i-th action, a map of (n_i, c) to (m_i, c), along the i-th axis of ``v`` seen as an array of ``sizes``."""
    tail = tuple(v.shape[1:])
    T = xp.reshape(v, (*sizes, *tail))
    for axis, action in enumerate(actions):
        front = xp.moveaxis(T, axis, 0)
        rest = tuple(front.shape[1:])
        out = action(xp.reshape(front, (front.shape[0], -1)))
        T = xp.moveaxis(xp.reshape(out, (out.shape[0], *rest)), 0, axis)
    return xp.reshape(T, (-1, *tail)) if tail else xp.reshape(T, (-1,))


def widen(F: Array, v: Array, xp: Namespace) -> Array:
    """``F`` in the dtype of ``v`` where a real matrix meets complex vectors: torch multiplies only equal dtypes."""
    return F if F.dtype == v.dtype else xp.astype(F, xp.result_type(F.dtype, v.dtype), copy=False)


def times(F: Array, xp: Namespace) -> Callable[[Array], Array]:
    """``V -> F V``, one of them real and the other complex or not."""
    return lambda V: widen(F, V, xp) @ widen(V, F, xp)


def check_hermitian(F: Array, name: str, xp: Namespace) -> None:
    """Raise unless ``F`` equals its adjoint to rounding."""
    scale = host_float(xp.max(xp.abs(F)))
    if host_float(xp.max(xp.abs(F - adjoint(F, xp)))) > 100 * finfo_eps(F.dtype, xp) * scale:
        raise InputError(f"{name} is not symmetric (Hermitian)")


def _square_root(F: Array, name: str, xp: Namespace) -> Array:
    check_hermitian(F, name, xp)
    values, vectors = xp.linalg.eigh(F)
    largest, smallest = host_float(xp.max(xp.abs(values))), host_float(xp.min(values))
    if smallest < -10 * F.shape[0] * finfo_eps(F.dtype, xp) * largest:
        raise InputError(f"{name} is not positive semidefinite: it has the eigenvalue {smallest:.3g}")
    # Rounding leaves tiny negative eigenvalues of a semidefinite matrix.
    roots = xp.sqrt(xp.maximum(values, xp.zeros_like(values)))
    return (vectors * widen(roots, vectors, xp)[None, :]) @ adjoint(vectors, xp)

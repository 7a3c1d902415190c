"""Kronecker sums ``A_1 kron I + I kron A_2 + ...``, solved by diagonalising every factor.

The five-point Laplacian of a rectangle is one: ``(A kron I + I kron B) vec(X) = vec(A X + X B^T)``. With Hermitian factors
``A_i = Q_i diag(l_i) Q_i^H`` the sum is diagonal in the basis ``Q_1 kron ... kron Q_d``: Lynch, Rice, Thomas (1964).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ....backends.errors import BreakdownError
from ....backends.linalg import adjoint
from ....backends.namespace import Array, finfo_eps
from ....backends.operators import LinearOperator
from ....backends.transfer import host_float
from ....backends.validation import check_scalar
from .kronecker import along_axes, check_factors, check_hermitian, check_vector, times, widen


def kronecker_sum(factors: Sequence[Array]) -> KroneckerSum:
    """The Kronecker sum of square matrices as an operator.

    ``sum_i I kron ... kron A_i kron ... kron I``, the factor ``A_i`` in place ``i``.

    Parameters
    ----------
    factors : sequence of arrays (n_i, n_i)
        ``A_1, ..., A_d``, of one library, device and dtype; Hermitian ones for `solve` and `logdet`.

    Returns
    -------
    KroneckerSum
        Of order ``n_1 ... n_d``.

    Raises
    ------
    BackendError, InputError
        No factors, not square, of different libraries or dtypes, or with NaN; the message names the factor.

    Notes
    -----
    A product or a solve costs ``O(sum_i n_i)`` operations an entry; the first solve adds the ``O(sum_i n_i^3)`` of the
    eigenvalue problems.

    References
    ----------
    R. E. Lynch, J. R. Rice, D. H. Thomas, Direct solution of partial difference equations by tensor product methods,
    Numer. Math. 6, 1964.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.structured import kronecker_sum
    >>> T = np.asarray([[2.0, -1.0], [-1.0, 2.0]])
    >>> P = kronecker_sum([T, T])
    >>> (P @ np.ones(4)).tolist()
    [2.0, 2.0, 2.0, 2.0]
    >>> P.solve(2.0 * np.ones(4)).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return KroneckerSum(factors)


class KroneckerSum(LinearOperator):
    """A Kronecker sum, made by `kronecker_sum`.

    Attributes
    ----------
    factors : tuple of arrays
        The matrices, left to right.
    """

    def __init__(self, factors: Sequence[Array]) -> None:
        self.factors, self._xp = check_factors(factors, square=True)
        self._sizes = tuple(F.shape[0] for F in self.factors)

        def forward(v: Array) -> Array:
            return self._apply(self.factors, v)

        def backward(u: Array) -> Array:
            return self._apply([adjoint(F, self._xp) for F in self.factors], u)

        n = math.prod(self._sizes)
        super().__init__(
            (n, n),
            forward,
            matmat=forward,
            rmatvec=backward,
            rmatmat=backward,
            dtype=self.factors[0].dtype,
            diagonal=lambda: self._outer_sum([self._xp.linalg.diagonal(F) for F in self.factors]),
            name="kronecker_sum",
        )

    @property
    def H(self) -> KroneckerSum:
        """Adjoint: the sum of the adjoint factors."""
        return KroneckerSum([adjoint(F, self._xp) for F in self.factors])

    def solve(self, b: Array, shift: float = 0.0) -> Array:
        """``x`` with ``(A_1 kron I + ... + I kron A_d + shift I) x = b``, for ``b`` (n,) or (n, k), Hermitian factors.

        The eigenvalues are computed once and kept, whatever the shift. A singular sum is a `BreakdownError`: periodic and
        Neumann Laplacians need a shift, or a right-hand side projected and an eigenvalue excluded by the caller.
        """
        xp = self._xp
        columns = check_vector(b, self.shape[0], xp)
        values = self._shifted(shift)
        forward = [times(adjoint(Q, xp), xp) for Q in self._vectors]
        backward = [times(Q, xp) for Q in self._vectors]
        inner = along_axes(forward, columns, self._sizes, xp)
        inner = inner / widen(values, inner, xp)[:, None]
        x = along_axes(backward, inner, self._sizes, xp)
        return x if b.ndim == 2 else x[:, 0]

    def logdet(self, shift: float = 0.0) -> Array:
        """``log |det(A_1 kron I + ... + shift I)|`` as a 0-d array, Hermitian factors."""
        return self._xp.sum(self._xp.log(self._xp.abs(self._shifted(shift))))

    def eigenvalues(self) -> Array:
        """All eigenvalues ``l_1i + l_2j + ...`` in row-major order (n,), Hermitian factors."""
        return self._outer_sum([values for values, _ in self._pairs])

    @property
    def _vectors(self) -> list[Array]:
        return [vectors for _, vectors in self._pairs]

    @cached_property
    def _pairs(self) -> list[tuple[Array, Array]]:
        pairs = []
        for i, F in enumerate(self.factors):
            check_hermitian(F, f"factors[{i}]", self._xp)
            values, vectors = self._xp.linalg.eigh(F)
            pairs.append((values, vectors))
        return pairs

    def _shifted(self, shift: Any) -> Array:
        values = self.eigenvalues() + check_scalar(shift, "shift")
        sizes = self._xp.abs(values)
        eps = finfo_eps(values.dtype, self._xp)
        if host_float(self._xp.min(sizes)) <= 10 * eps * host_float(self._xp.max(sizes)):
            raise BreakdownError("the Kronecker sum is singular to working precision; pass a shift")
        return values

    def _outer_sum(self, parts: Sequence[Array]) -> Array:
        total = parts[0]
        for part in parts[1:]:
            total = self._xp.reshape(total[:, None] + part[None, :], (-1,))
        return total

    def _apply(self, factors: Sequence[Array], v: Array) -> Array:
        xp, tail = self._xp, tuple(v.shape[1:])
        T = xp.reshape(v, (*self._sizes, *tail))
        total = xp.zeros_like(T)
        for axis, F in enumerate(factors):
            product = xp.tensordot(widen(F, v, xp), widen(T, F, xp), axes=([1], [axis]))
            total = total + xp.moveaxis(product, 0, axis)
        return xp.reshape(total, v.shape)

"""``r = A w - alpha u`` and ``A^H r`` in one sweep over ``A``: what bounds a step of least squares is reading the matrix."""

from __future__ import annotations

from collections.abc import Callable

from ....backends.namespace import Array, Namespace, is_numpy
from ....backends.operators import LinearOperator

# A block of rows stays in the cache between its two products; smaller matrices stay there as a whole.
_BLOCK_BYTES = 2**20
_WORTH_BYTES = 2**24

Pair = Callable[[Array, Array | None, Array | None], tuple[Array, Array]]


def residual_and_gradient(operator: LinearOperator, A: Array | None, xp: Namespace) -> Pair:
    """A function of ``w``, ``alpha`` and ``u`` (or None) that returns ``r = A w - alpha u`` and ``A^H r``.

    ``A`` is the dense matrix behind the operator, if there is one: on a CPU its rows are then taken in blocks, for about 0.6 of
    the time of two products where it is larger than the cache.
    """
    back = operator.H

    def whole(w: Array, alpha: Array | None, u: Array | None) -> tuple[Array, Array]:
        r = operator @ w if u is None else operator @ w - alpha * u
        return r, back @ r

    if A is None or not is_numpy(xp) or A.nbytes < _WORTH_BYTES or not A.flags.c_contiguous:
        return whole
    m, n = A.shape
    rows = max(1, _BLOCK_BYTES // (n * A.itemsize))
    complex_ = xp.isdtype(A.dtype, "complex floating")

    def blocked(w: Array, alpha: Array | None, u: Array | None) -> tuple[Array, Array]:
        r, gradient = xp.empty((m, *w.shape[1:]), dtype=w.dtype), xp.zeros_like(w)
        for i in range(0, m, rows):
            part = A[i : i + rows]
            piece = part @ w if u is None else part @ w - alpha * u[i : i + rows]
            r[i : i + rows] = piece
            gradient += (part.T @ piece.conj()).conj() if complex_ else part.T @ piece
        return r, gradient

    return blocked

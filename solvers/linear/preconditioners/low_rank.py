"""The inverse of a low-rank matrix plus a multiple of the identity, as an operator that shows its factors."""

from __future__ import annotations

from typing import Any

from ....backends.linalg import adjoint
from ....backends.namespace import Array, array_namespace
from ....backends.operators import LinearOperator


class LowRankInverse(LinearOperator):
    """``M r = U (lam + mu)^{-1} U^H r + rest (r - U U^H r)``, with orthonormal columns ``U``.

    Returned by `nystrom` and `rpcholesky`; symmetric and positive.

    Attributes
    ----------
    vectors : array (n, l)
        ``U``, approximate eigenvectors of the kernel matrix.
    eigenvalues : array (l,)
        ``lam``, falling: the approximation is ``U diag(lam) U^H``.
    mu : float
        The regularisation.
    rest : float
        What the complement of ``U`` is multiplied by.
    factor : array (n, l) or None
        ``F`` with ``F F^H`` equal to the approximation, where it was built that way (`rpcholesky`).
    pivots : tuple of int
        The columns that `rpcholesky` chose, in order.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import LowRankInverse
    >>> M = LowRankInverse(np.asarray([[1.0], [0.0]]), np.asarray([3.0]), mu=1.0, rest=0.5)
    >>> (M @ np.asarray([4.0, 4.0])).tolist()
    [1.0, 2.0]
    """

    def __init__(
        self,
        vectors: Array,
        eigenvalues: Array,
        *,
        mu: float,
        rest: float,
        factor: Array | None = None,
        pivots: tuple[int, ...] = (),
        name: str = "low_rank",
    ) -> None:
        xp = array_namespace(vectors=vectors, eigenvalues=eigenvalues)
        self.vectors, self.eigenvalues, self.mu, self.rest = vectors, eigenvalues, mu, rest
        self.factor, self.pivots = factor, pivots
        rows = adjoint(vectors, xp)
        weights = 1.0 / (eigenvalues + mu) - rest

        def apply(v: Array) -> Array:
            if v.dtype != vectors.dtype and xp.isdtype(v.dtype, "complex floating"):
                left, right = xp.astype(vectors, v.dtype), xp.astype(rows, v.dtype)
            else:
                left, right = vectors, rows
            inner = right @ v
            return rest * v + left @ (inner * (weights if v.ndim == 1 else weights[:, None]))

        n: Any = vectors.shape[0]
        super().__init__(
            (n, n), apply, matmat=apply, rmatvec=apply, rmatmat=apply, dtype=vectors.dtype,
            tags={"symmetric", "positive"}, name=name,
        )  # fmt: skip

"""Randomised Nystrom preconditioner for ``K + mu I`` with a positive semidefinite ``K`` (Frangella, Tropp and Udell 2023)."""

from __future__ import annotations

import math
from typing import Any

from ....backends.errors import BreakdownError
from ....backends.linalg import adjoint, cholesky, real_dtype, solve_triangular
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps
from ....backends.operators import LinearOperator
from ....backends.random import Sampler
from ....backends.transfer import host_float
from ....backends.validation import check_count, check_scalar
from .common import operator_and_vector
from .low_rank import LowRankInverse

# The spectrum is caught once its smallest eigenvalue found is below this multiple of mu (the paper's rule).
_CAUGHT = 10.0
_SHIFTS = 6


def nystrom(
    K: Any,
    mu: float,
    rank: int = 50,
    *,
    rng: Any = None,
    like: Array | None = None,
    adaptive: bool = False,
    max_rank: int | None = None,
) -> LowRankInverse:
    """Approximate inverse of ``K + mu I`` from one product of ``K`` with ``rank`` random vectors.

    Parameters
    ----------
    K : array (n, n), sparse matrix, LinearOperator or callable
        Hermitian positive semidefinite; see `as_operator`.
    mu : float
        Regularisation, positive.
    rank : int
        Columns of the sketch; with ``adaptive`` the first number tried. At most ``n`` are taken.
    rng : seed or generator, optional
        Source of the random vectors.
    like : array (n,), optional
        Decides library, dtype and device where ``K`` does not store its entries.
    adaptive : bool
        Double the rank, keeping the products done, until the smallest eigenvalue found is at most ``10 mu``.
    max_rank : int, optional
        Where doubling ends, default ``n / 2``.

    Returns
    -------
    LowRankInverse
        ``M`` (n, n), symmetric and positive, with its ``vectors`` and ``eigenvalues``.

    Raises
    ------
    BreakdownError
        ``K`` is far from positive semidefinite.
    InputError, BackendError
        Bad arguments; the message names them.

    Notes
    -----
    With an orthonormal random ``Q`` (n, l): ``Khat = (K Q) (Q^H K Q)^{-1} (K Q)^H = U diag(lam) U^H``, computed with a
    small shift, and ``M = U (lam + mu)^{-1} U^H + (I - U U^H) / (lam_l + mu)``. For
    ``l >= 2 ceil(1.5 d) + 1``, ``d = sum_i lam_i / (lam_i + mu)`` the effective dimension, the expected condition number
    of the preconditioned system is below 28. ``l`` products with ``K``, O(n l^2) to set up, O(n l) to apply.

    References
    ----------
    Z. Frangella, J. A. Tropp, M. Udell, Randomized Nystrom preconditioning, 2023, algorithms 2.1 and 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import cg
    >>> from xpsolve.solvers.linear.preconditioners import nystrom
    >>> x = np.linspace(0.0, 1.0, 100)
    >>> K = np.exp(-((x[:, None] - x[None, :]) ** 2) / 0.1)
    >>> M = nystrom(K, 1e-2, rank=20, rng=0)
    >>> cg(K + 1e-2 * np.eye(100), np.ones(100), M=M).n_iter <= 2
    True
    """
    shift = check_scalar(mu, "mu", positive=True)
    columns = check_count(rank, "rank")
    operator, vector = operator_and_vector(K, like, "K")
    xp, n = array_namespace(like=vector), operator.shape[0]
    most = max(1, n // 2) if max_rank is None else min(check_count(max_rank, "max_rank"), n)
    columns = min(columns, n)
    sampler = Sampler(rng, xp=xp, dtype=real_dtype(vector.dtype, xp), device=device(vector))
    Q, Y = _sketch(operator, vector, None, None, columns, sampler, xp)
    while True:
        vectors, eigenvalues = _eigen(Q, Y, n, xp)
        smallest = host_float(eigenvalues[-1])
        if not adaptive or smallest <= _CAUGHT * shift or columns >= most:
            break
        more = min(columns, most - columns)
        Q, Y = _sketch(operator, vector, Q, Y, more, sampler, xp)
        columns += more
    return LowRankInverse(vectors, eigenvalues, mu=shift, rest=1.0 / (smallest + shift), name=f"nystrom({columns})")


def _sketch(
    K: LinearOperator, vector: Array, Q: Array | None, Y: Array | None, more: int, sampler: Sampler, xp: Namespace
) -> tuple[Array, Array]:  # fmt: skip
    """Orthonormal random columns and their products with ``K``, added to those that are there."""
    new = xp.astype(sampler.normal((K.shape[0], more)), vector.dtype, copy=False)
    if Q is None:
        new = xp.linalg.qr(new)[0]
        return new, K @ new
    for _ in range(2):
        # Twice: the second pass removes what rounding left of the first.
        new = xp.linalg.qr(new - Q @ (adjoint(Q, xp) @ new))[0]
    return xp.concat([Q, new], axis=1), xp.concat([Y, K @ new], axis=1)


def _eigen(Q: Array, Y: Array, n: int, xp: Namespace) -> tuple[Array, Array]:
    """Eigenvectors and falling eigenvalues of the Nystrom approximation."""
    size = host_float(xp.linalg.matrix_norm(Y))
    nu = math.sqrt(n) * finfo_eps(Y.dtype, xp) * size
    if size == 0:
        return Q, xp.zeros(Q.shape[1], dtype=real_dtype(Y.dtype, xp), device=device(Y))
    for _ in range(_SHIFTS):
        shifted = Y + nu * Q
        gram = adjoint(Q, xp) @ shifted
        gram = 0.5 * (gram + adjoint(gram, xp))
        try:
            L = cholesky(gram, xp=xp)
        except BreakdownError:
            nu *= 10.0  # rounding of the products was larger than its estimate
            continue
        half = adjoint(solve_triangular(L, adjoint(shifted, xp), lower=True, xp=xp), xp)
        U, s, _ = xp.linalg.svd(half, full_matrices=False)
        values = s * s - nu
        return U, xp.where(values > 0, values, 0.0)
    raise BreakdownError("K is not positive semidefinite, or has values that are not finite")

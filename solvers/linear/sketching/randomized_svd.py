"""Leading singular triplets from a random range, and low-rank eigenvalues of positive semidefinite matrices.

The range finder with power steps of Halko, Martinsson and Tropp (2011); the stabilised Nystrom approximation of Frangella,
Tropp and Udell (2023), which needs one block product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ....backends.errors import BreakdownError, InputError
from ....backends.linalg import adjoint, cholesky, real_dtype, solve_triangular
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, is_array
from ....backends.operators import LinearOperator, as_operator
from ....backends.random import Sampler
from ....backends.transfer import host_bool
from ....backends.validation import check_array, check_count


class LowRank(NamedTuple):
    """``A`` is near ``U diag(s) Vh``: ``U`` (m, k), ``s`` (k,) decreasing, ``Vh`` (k, n)."""

    U: Array
    s: Array
    Vh: Array


class Eigenpairs(NamedTuple):
    """``K`` is near ``U diag(eigenvalues) U^H``: ``U`` (n, rank) orthonormal, ``eigenvalues`` decreasing, not negative."""

    U: Array
    eigenvalues: Array


def randomized_svd(
    A: Any, k: int, *, oversampling: int = 10, power: int = 2, rng: Any = None, like: Array | None = None
) -> LowRank:
    """The ``k`` leading singular triplets of ``A``, approximately.

    Parameters
    ----------
    A : array (m, n), sparse matrix or LinearOperator with adjoint
        The matrix; ``2 power + 2`` block products with ``k + oversampling`` columns.
    k : int
        Triplets.
    oversampling : int
        Further columns of the random range.
    power : int
        Power steps, orthonormalised between: the slower the singular values fall, the more are needed.
    rng : None, int or Generator
        Seed or generator.
    like : array, optional
        Any array of the library, device and dtype wanted; needed where ``A`` is an operator.

    Returns
    -------
    LowRank
        ``U`` (m, k), ``s`` (k,), ``Vh`` (k, n).

    Raises
    ------
    InputError, BackendError
        ``k`` above the smaller length of ``A``, NaN, wrong dtype.

    Notes
    -----
    The expected spectral error is ``sigma_{k+1}`` times a factor that falls to one like the ``2 power + 1``-st root of a
    polynomial in ``min(m, n)``; exact for rank at most ``k``.

    References
    ----------
    N. Halko, P. G. Martinsson, J. A. Tropp, Finding structure with randomness, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.sketching import randomized_svd
    >>> A = np.outer(np.arange(4.0), np.ones(3))
    >>> randomized_svd(A, 1, rng=0).s.round(6).tolist()
    [6.480741]
    """
    operator, like, xp = operator_like(A, like, "A")
    k, power = check_count(k, "k"), check_count(power, "power", minimum=0)
    m, n = operator.shape
    if k > min(m, n):
        raise InputError(f"k is {k}, but A has shape {operator.shape}")
    if operator._rmatvec is None:
        raise InputError("A has no adjoint, which a singular value decomposition needs; pass rmatvec")
    width = min(k + check_count(oversampling, "oversampling", minimum=0), m, n)
    back = operator.H
    Q = _orthonormal(operator @ _gaussian((n, width), like, rng, xp), xp)
    for _ in range(power):
        Q = _orthonormal(operator @ _orthonormal(back @ Q, xp), xp)
    # B = A^H Q, so Q^H A = B^H: of B = X s W^H the factors change places.
    X, s, Wh = xp.linalg.svd(_finite(back @ Q, "A", xp), full_matrices=False)
    return LowRank(Q @ adjoint(Wh, xp)[:, :k], s[:k], adjoint(X, xp)[:k, :])


def nystrom_approximation(K: Any, rank: int, *, rng: Any = None, like: Array | None = None) -> Eigenpairs:
    """Approximate eigenpairs of a positive semidefinite ``K`` from ``rank`` products with it.

    Parameters
    ----------
    K : array (n, n), sparse matrix or LinearOperator
        Symmetric (Hermitian) positive semidefinite; not checked beyond what breaks the factorisation.
    rank : int
        Random directions, and eigenpairs returned.
    rng : None, int or Generator
        Seed or generator.
    like : array, optional
        Any array of the library, device and dtype wanted; needed where ``K`` is an operator.

    Returns
    -------
    Eigenpairs
        ``U`` (n, rank) and ``eigenvalues`` (rank,). The approximation never exceeds ``K`` by more than rounding.

    Raises
    ------
    InputError, BackendError
        ``rank`` above ``n``, not square, NaN, wrong dtype.
    BreakdownError
        ``K`` is not positive semidefinite.

    Notes
    -----
    ``(K Omega) (Omega^H K Omega)^+ (K Omega)^H``, computed on ``K + nu I`` with a shift of the size of rounding that is taken
    off again: without it the Cholesky factor fails in float32.

    References
    ----------
    Z. Frangella, J. A. Tropp, M. Udell, Randomized Nystrom preconditioning, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.sketching import nystrom_approximation
    >>> nystrom_approximation(np.diag([3.0, 1.0, 0.0, 0.0]), 3, rng=0).eigenvalues.round(6).tolist()
    [3.0, 1.0, 0.0]
    """
    operator, like, xp = operator_like(K, like, "K")
    rank, n = check_count(rank, "rank"), operator.shape[0]
    if operator.shape[1] != n or rank > n:
        raise InputError(f"K has shape {operator.shape} and rank is {rank}, expected a square K of at least that order")
    Omega = _orthonormal(_gaussian((n, rank), like, rng, xp), xp)
    Y = _finite(operator @ Omega, "K", xp)
    rounding = finfo_eps(like.dtype, xp) * xp.linalg.vector_norm(Y)
    for attempt in range(4):
        nu = rounding * 10.0**attempt
        shifted = Y + nu * Omega
        gram = adjoint(Omega, xp) @ shifted
        try:
            L = cholesky((gram + adjoint(gram, xp)) / 2.0 + _tiny_identity(gram, xp), xp=xp)
        except BreakdownError:
            continue
        B = adjoint(solve_triangular(L, adjoint(shifted, xp), lower=True, xp=xp), xp)
        U, sigma, _ = xp.linalg.svd(B, full_matrices=False)
        return Eigenpairs(U, xp.maximum(sigma**2 - nu, xp.zeros_like(sigma)))
    raise BreakdownError("K is not positive semidefinite: its products with random directions are not")


def operator_like(A: Any, like: Array | None, name: str) -> tuple[LinearOperator, Array, Namespace]:
    """``A`` as an operator, an array of its library, and that library; entries of matrices speak for themselves."""
    if like is None:
        like = A if is_array(A) else getattr(A, "data", None)
        if like is None or not is_array(like):
            if not callable(A) and not hasattr(A, "matvec"):
                array_namespace(**{name: A})  # no array: refused by name, with the remedy
            raise InputError(f"{name} is a {type(A).__name__} whose library is unknown; pass like=, an array of it")
    xp = array_namespace(like=like)
    check_array(like, "like" if like is not A else name, xp, allow_complex=True, finite=False)
    return as_operator(A, like=like, name=name, square=callable(A) and not hasattr(A, "shape")), like, xp


def _gaussian(shape: tuple[int, int], like: Array, rng: Any, xp: Namespace) -> Array:
    draws = Sampler(rng, xp=xp, dtype=real_dtype(like.dtype, xp), device=device(like)).normal(shape)
    return draws if draws.dtype == like.dtype else xp.astype(draws, like.dtype)


def _finite(Y: Array, name: str, xp: Namespace) -> Array:
    """A product with an operator, which may return NaN where a stored matrix is checked; one transfer."""
    if not host_bool(xp.all(xp.isfinite(Y))):
        raise InputError(f"{name} returned values that are not finite")
    return Y


def _orthonormal(Y: Array, xp: Namespace) -> Array:
    return xp.linalg.qr(Y, mode="reduced")[0]


def _tiny_identity(gram: Array, xp: Namespace) -> Array:
    """Makes the factor of ``K = 0`` exist."""
    tiny = float(xp.finfo(gram.dtype).smallest_normal)
    return tiny * xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram))

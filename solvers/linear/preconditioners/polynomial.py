"""Polynomial preconditioners for symmetric systems: Chebyshev steps and Neumann series from zero, as operators.

They trade inner products for products with ``A``: fewer iterations, never fewer products (Saad 1985). Worth it where a
reduction is dear and a product is cheap, as on a GPU or as the smoother of a multigrid cycle.
"""

from __future__ import annotations

import math
from typing import Any

from ....backends.errors import InputError
from ....backends.linalg import adjoint, real_dtype
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps
from ....backends.operators import LinearOperator
from ....backends.random import Sampler
from ....backends.transfer import to_host
from ....backends.validation import check_count, check_scalar
from .common import operator_and_vector, symmetric

# The interval without its lowest modes, which conjugate gradients find by themselves.
_SPAN = 30.0


def chebyshev_polynomial(
    A: Any,
    degree: int = 4,
    bounds: tuple[float, float] | None = None,
    *,
    like: Array | None = None,
    rng: Any = 0,
) -> LinearOperator:
    """``p(A)`` close to the inverse of ``A`` on an interval, as an operator: ``degree + 1`` Chebyshev steps from zero.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        Hermitian positive definite; see `as_operator`.
    degree : int
        Degree of ``p``: products with ``A`` for each product with the operator. Zero scales.
    bounds : (float, float), optional
        The interval. Its upper end must not be below the largest eigenvalue. Default ``(b / 30, b)`` with ``b`` of
        `estimate_bounds`: exact lower bounds spend the polynomial on modes that conjugate gradients find anyway.
    like : array (n,), optional
        Decides library, dtype and device where ``A`` does not store its entries.
    rng : seed or generator, optional
        For `estimate_bounds`.

    Returns
    -------
    LinearOperator
        ``M = p(A)``, symmetric, and positive definite if no eigenvalue of ``A`` is above the interval.

    Raises
    ------
    InputError, BackendError
        Bad arguments; the message names them.

    Notes
    -----
    ``1 - t p(t) = T_{d+1}((b + a - 2t) / (b - a)) / T_{d+1}((b + a) / (b - a))``, so ``t p(t)`` is within
    ``1 / T_{d+1}`` of one on ``[a, b]``, and positive below it.

    References
    ----------
    Y. Saad, Practical use of polynomial preconditionings for the conjugate gradient method, 1985.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import poisson2d
    >>> from xpsolve.solvers.linear.preconditioners import chebyshev_polynomial
    >>> A, b, x = poisson2d(15, xp=xp, mode=(8, 8))
    >>> M = chebyshev_polynomial(A, 4, (1.0, 8.0), like=b)
    >>> bool(abs(M @ b - x).max() < 0.05 * abs(x).max())
    True
    """
    steps = check_count(degree, "degree", minimum=0)
    operator, vector = operator_and_vector(A, like)
    if bounds is None:
        high = _largest(operator, vector, rng)
        low = high / _SPAN
    else:
        low, high = _interval(bounds)
    centre, half = 0.5 * (high + low), 0.5 * (high - low)

    def apply(r: Array) -> Array:
        # Saad, Iterative methods, algorithm 12.1; an interval of one point is a scaling, half = 0.
        d = r * (1.0 / centre)
        z, rho = d, half / centre
        for _ in range(steps):
            new = 1.0 / (2.0 * centre / half - rho) if half > 0 else 0.0
            factor = 2.0 * new / half if half > 0 else 1.0 / centre
            d = new * rho * d + factor * (r - operator @ z)
            z, rho = z + d, new
        return z

    return symmetric(operator.shape[0], apply, vector.dtype, f"chebyshev_polynomial({steps})")


def neumann_polynomial(
    A: Any, degree: int = 3, omega: float | None = None, *, like: Array | None = None, rng: Any = 0
) -> LinearOperator:
    """Truncated Neumann series ``w sum_{k=0}^{d} (I - w A)^k``, as an operator.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        Hermitian positive definite; see `as_operator`.
    degree : int
        Products with ``A`` for each product with the operator. Odd degrees are better than even ones.
    omega : float, optional
        ``w``, below ``2 / lambda_max``; default ``1.9 / b``, ``b`` the upper bound of `estimate_bounds`,
        for odd degrees (whose polynomial is best with the interval folded in two), and ``1 / b`` for even ones.
    like, rng
        As of `chebyshev_polynomial`.

    Returns
    -------
    LinearOperator
        ``M`` (n, n), symmetric; positive definite if ``0 < w lambda < 2`` for every eigenvalue.

    Raises
    ------
    InputError, BackendError
        Bad arguments; the message names them.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import neumann_polynomial
    >>> A = np.diag(np.asarray([1.0, 2.0]))
    >>> (neumann_polynomial(A, 1, omega=0.5) @ np.ones(2)).tolist()
    [0.75, 0.5]
    """
    steps = check_count(degree, "degree", minimum=0)
    operator, vector = operator_and_vector(A, like)
    if omega is None:
        high = _largest(operator, vector, rng)
        w = (1.9 if steps % 2 else 1.0) / high
    else:
        w = check_scalar(omega, "omega", positive=True)

    def apply(r: Array) -> Array:
        z = w * r
        for _ in range(steps):
            z = z + w * (r - operator @ z)
        return z

    return symmetric(operator.shape[0], apply, vector.dtype, f"neumann_polynomial({steps})")


def estimate_bounds(A: Any, *, like: Array | None = None, steps: int = 20, rng: Any = 0) -> tuple[float, float]:
    """An interval for the spectrum of a Hermitian operator, by a few steps of Lanczos.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        Hermitian; see `as_operator`.
    like : array (n,), optional
        Decides library, dtype and device where ``A`` does not store its entries.
    steps : int
        Products with ``A``.
    rng : seed or generator, optional
        Of the starting vector.

    Returns
    -------
    (float, float)
        ``theta_min`` and ``theta_max + beta |y_k|``, with the extreme Ritz values, the last residual ``beta`` and the
        last entry ``y_k`` of the Ritz vector. The second is above the largest eigenvalue in all but rare cases (Zhou and
        Li 2011); the first is above the smallest eigenvalue: a lower bound of nothing, only its size.

    Raises
    ------
    InputError, BackendError
        Bad arguments, or products that are not finite.

    References
    ----------
    Y. Zhou, R.-C. Li, Bounding the spectrum of large Hermitian matrices, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import estimate_bounds
    >>> low, high = estimate_bounds(np.diag(np.linspace(1.0, 5.0, 100)))
    >>> low < 1.1, 5.0 <= high < 5.3
    (True, True)
    """
    import numpy as np

    operator, vector = operator_and_vector(A, like)
    xp, n = array_namespace(like=vector), operator.shape[0]
    count = min(check_count(steps, "steps"), n)
    start = Sampler(rng, xp=xp, dtype=real_dtype(vector.dtype, xp), device=device(vector)).normal((n,))
    alphas, betas = _lanczos(operator, xp.astype(start, vector.dtype, copy=False), count, xp)
    a, b = to_host(alphas).astype(float), to_host(betas).astype(float)
    if not np.all(np.isfinite(a)) or not np.all(np.isfinite(b)):
        raise InputError("A returned values that are not finite")
    # The space may be exhausted before the last step: a beta of rounding size ends the matrix.
    size = float(np.max(np.abs(a))) + float(np.max(b))
    ended = np.flatnonzero(b <= 10 * n * finfo_eps(vector.dtype, xp) * size)
    k = int(ended[0]) + 1 if len(ended) else count
    values, vectors = np.linalg.eigh(np.diag(a[:k]) + np.diag(b[: k - 1], 1) + np.diag(b[: k - 1], -1))
    # Rounding is added, so that the bound holds where Lanczos has converged.
    rounding = 10 * finfo_eps(vector.dtype, xp) * size
    return float(values[0]), float(values[-1] + b[k - 1] * abs(vectors[-1, -1]) + rounding)


def _lanczos(A: LinearOperator, v: Array, steps: int, xp: Namespace) -> tuple[Array, Array]:
    """Diagonal and off-diagonal (the last one the residual) of the tridiagonal matrix, with full orthogonalisation."""
    norm = xp.linalg.vector_norm(v)
    basis = xp.zeros((steps, v.shape[0]), dtype=v.dtype, device=device(v))
    alphas, betas = [], []
    v = v / norm
    for k in range(steps):
        basis[k, :] = v
        w = A @ v
        seen = basis[: k + 1, :]
        h = xp.conj(seen) @ w if xp.isdtype(v.dtype, "complex floating") else seen @ w
        alphas.append(xp.real(h[k]) if xp.isdtype(v.dtype, "complex floating") else h[k])
        w = w - h @ seen
        w = w - (adjoint(seen.T, xp) @ w) @ seen
        beta = xp.linalg.vector_norm(w)
        betas.append(beta)
        v = w / xp.where(beta > 0, beta, xp.ones_like(beta))
    return xp.stack(alphas), xp.stack(betas)


def _largest(A: LinearOperator, like: Array, rng: Any) -> float:
    """The upper bound of `estimate_bounds`, which a positive definite matrix cannot have below zero."""
    high = estimate_bounds(A, like=like, rng=rng)[1]
    if not high > 0:
        raise InputError(f"A is not positive definite: its largest eigenvalue is about {high:.3g}")
    return high


def _interval(bounds: Any) -> tuple[float, float]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InputError(f"bounds is {bounds!r}, expected two numbers")
    low, high = check_scalar(bounds[0], "bounds", positive=True), check_scalar(bounds[1], "bounds", positive=True)
    if low > high or not math.isfinite(high):
        raise InputError(f"bounds is {bounds}, expected a positive interval")
    return low, high

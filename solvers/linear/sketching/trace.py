"""The trace of a matrix known by its products, with its standard error.

Hutchinson (1990) averages ``g^H A g`` over random signs. Hutch++ (Meyer, Musco, Musco, Woodruff 2021) takes the trace on a random
range exactly and averages over the rest; XTrace (Epperly, Tropp, Webber 2024) uses each probe for both, in turn.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ....backends.errors import InputError
from ....backends.linalg import adjoint, conj, solve_triangular
from ....backends.namespace import Array, Namespace, device, finfo_eps
from ....backends.operators import LinearOperator
from ....backends.random import Sampler
from ....backends.transfer import to_host
from ....backends.validation import check_choice, check_count
from .randomized_svd import operator_like

METHODS = ("hutch++", "hutchinson", "xtrace")
_LEAST = {"hutchinson": 2, "hutch++": 4, "xtrace": 4}


class TraceEstimate(NamedTuple):
    """``value``, a float (complex for complex matrices), and its ``standard_error``."""

    value: Any
    standard_error: float


def trace(A: Any, budget: int, *, method: str = "hutch++", rng: Any = None, like: Array | None = None) -> TraceEstimate:
    """Estimate ``tr(A)`` from ``budget`` products with ``A``; all methods are unbiased.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        Square; no adjoint is needed.
    budget : int
        Most products with vectors.
    method : {"hutch++", "hutchinson", "xtrace"}
        ``"hutchinson"`` for flat spectra; ``"hutch++"`` and ``"xtrace"`` where eigenvalues decay: the error then falls like
        ``1 / budget`` or faster instead of ``1 / sqrt(budget)``. ``"xtrace"`` makes more of a budget than ``"hutch++"``.
    rng : None, int or Generator
        Seed or generator.
    like : array, optional
        Any array of the library, device and dtype wanted (for a callable, a vector of length n); needed for operators.

    Returns
    -------
    TraceEstimate
        ``value`` and ``standard_error`` as Python numbers. The error is that of the random part; it is itself estimated,
        from few samples with a small budget, and for ``"xtrace"`` the samples are not independent.

    Raises
    ------
    InputError, BackendError
        Not square, budget too small, NaN, wrong dtype.

    Notes
    -----
    Hutch++ is exact for rank at most ``budget / 3``, XTrace for rank below ``budget / 2``, up to rounding.

    References
    ----------
    R. A. Meyer, C. Musco, C. Musco, D. P. Woodruff, Hutch++: optimal stochastic trace estimation, 2021.
    E. N. Epperly, J. A. Tropp, R. J. Webber, XTrace: making the most of every sample in stochastic trace estimation, 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.sketching import trace
    >>> estimate = trace(np.outer(np.ones(50), np.ones(50)), 12, rng=0)
    >>> round(estimate.value, 6), round(estimate.standard_error, 6)
    (50.0, 0.0)
    """
    method = check_choice(method, "method", METHODS)
    operator, like, xp = operator_like(A, like, "A")
    n = operator.shape[0]
    if operator.shape[1] != n:
        raise InputError(f"A has shape {operator.shape}, expected a square matrix")
    budget = check_count(budget, "budget", minimum=_LEAST[method])
    draws = Sampler(rng, xp=xp, device=device(like))

    def signs(count: int) -> Array:
        return xp.astype(2 * draws.integers(0, 2, (n, count)) - 1, like.dtype)

    if method == "hutchinson":
        G = signs(budget)
        return _summary(_inner(G, operator @ G, xp))
    if method == "hutch++":
        k = min(budget // 3, n)
        Q = xp.linalg.qr(operator @ signs(k), mode="reduced")[0]
        G = signs(budget - 2 * k)
        G = G - Q @ (adjoint(Q, xp) @ G)
        return _summary(_inner(G, operator @ G, xp) + xp.sum(_inner(Q, operator @ Q, xp)))
    return _summary(_leave_one_out(operator, signs(min(budget // 2, n)), xp))


def _leave_one_out(A: LinearOperator, Omega: Array, xp: Namespace) -> Array:
    """Estimates of XTrace: number ``i`` projects on the range of the others and probes the rest with ``omega_i``.

    With ``A Omega = Q R`` the others span ``Q (I - s_i s_i^H)``, where ``s_i`` is column ``i`` of ``R^{-H}`` at unit length.
    """
    Q, R = xp.linalg.qr(A @ Omega, mode="reduced")
    Z = A @ Q
    H, W, T = adjoint(Q, xp) @ Z, adjoint(Q, xp) @ Omega, adjoint(Z, xp) @ Omega
    # Of dependent probes every direction is spanned by the others: a diagonal of the size of rounding says which to leave.
    k, largest = R.shape[0], xp.max(xp.abs(R))
    identity = xp.eye(k, dtype=R.dtype, device=device(R))
    # In units of the largest entry, which S does not depend on.
    unit = R / xp.where(largest > 0, largest, xp.ones_like(largest))
    floor = finfo_eps(R.dtype, xp) * xp.ones_like(largest)
    diagonal = xp.linalg.diagonal(unit)
    lifted = unit + identity * xp.where(xp.abs(diagonal) < floor, xp.astype(floor, R.dtype), 0.0 * diagonal)[None, :]
    S = solve_triangular(lifted, identity, lower=False, xp=xp, transpose=True)
    S = S / xp.linalg.vector_norm(S, axis=0, keepdims=True)
    inside = xp.sum(xp.linalg.diagonal(H)) - _inner(S, H @ S, xp)
    U = W - S * _inner(S, W, xp)[None, :]
    outside = _inner(W, R, xp) - _inner(U, R, xp) - _inner(T, U, xp) + _inner(U, H @ U, xp)
    return inside + outside


def _inner(U: Array, V: Array, xp: Namespace) -> Array:
    """``u_j^H v_j`` of the columns."""
    return xp.sum(conj(U, xp) * V, axis=0)


def _summary(samples: Array) -> TraceEstimate:
    """Mean and its standard error; the few samples are read in one transfer."""
    import numpy as np

    host = to_host(samples)
    if not np.all(np.isfinite(host)):
        raise InputError("A returned values that are not finite")
    value = host.mean().item()
    if host.size == 1:
        return TraceEstimate(value, math.inf)
    # In units of the largest, whose square may be out of range.
    unit = float(np.max(np.abs(host))) or 1.0
    return TraceEstimate(value, float((host / unit).std(ddof=1)) * unit / math.sqrt(host.size))

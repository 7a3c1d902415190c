"""Randomly pivoted Cholesky for kernel matrices (Chen, Epperly, Tropp and Webber 2022): only ``rank`` columns are looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ....backends.errors import InputError
from ....backends.linalg import adjoint, real_dtype
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, is_array
from ....backends.operators import LinearOperator
from ....backends.random import Sampler
from ....backends.transfer import host_float
from ....backends.validation import check_array, check_count, check_scalar
from .common import host_index, operator_and_vector
from .low_rank import LowRankInverse


def rpcholesky(
    K: Any,
    mu: float,
    rank: int = 50,
    *,
    diag: Array | None = None,
    rng: Any = None,
    like: Array | None = None,
) -> LowRankInverse:
    """Approximate inverse of ``K + mu I`` from ``rank`` columns of ``K``, drawn by the diagonal of what is not yet explained.

    Parameters
    ----------
    K : array (n, n), LinearOperator or callable
        Hermitian positive semidefinite: its entries, an operator (one product per column), or a function that returns
        column ``i`` as an array (n,), which needs ``diag``.
    mu : float
        Regularisation, positive.
    rank : int
        Columns drawn at most.
    diag : array (n,), optional
        Diagonal of ``K``, real and non-negative; by default taken from ``K``.
    rng : seed or generator, optional
        Source of the draws.
    like : array (n,), optional
        Decides library, dtype and device of the vectors an operator meets; by default that of ``diag``.

    Returns
    -------
    LowRankInverse
        ``M = (F F^H + mu I)^{-1}`` (n, n), symmetric and positive, with ``factor`` (``F``) and ``pivots``. Fewer columns
        than ``rank`` are drawn when nothing is left to explain.

    Raises
    ------
    InputError, BackendError
        Bad arguments, or a column or diagonal that is not finite; the message names the argument.

    Notes
    -----
    Column ``i`` is drawn with a probability proportional to ``d_i``, the diagonal of ``K - F F^H``; it stops when the
    trace is at most ``n eps tr(K)``, beyond which there is nothing but rounding. ``F F^H`` reproduces the columns drawn.
    O(n l^2) operations and two host transfers per column.

    References
    ----------
    Y. Chen, E. N. Epperly, J. A. Tropp, R. J. Webber, Randomly pivoted Cholesky, 2022, algorithm 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import rpcholesky
    >>> x = np.linspace(0.0, 1.0, 100)
    >>> K = np.exp(-((x[:, None] - x[None, :]) ** 2) / 0.1)
    >>> M = rpcholesky(K, 1e-2, rank=20, rng=0)
    >>> bool(abs(M @ (K @ x + 1e-2 * x) - x).max() < 1e-8)
    True
    """
    shift, most = check_scalar(mu, "mu", positive=True), check_count(rank, "rank")
    column, d, vector = _access(K, diag, like)
    xp, n = array_namespace(diag=d), d.shape[0]
    check_array(d, "diag", xp, ndim=1)
    if host_float(xp.min(d)) < 0:
        raise InputError("diag has negative entries: K is not positive semidefinite")
    generator = Sampler(rng, xp=xp).generator
    rows, pivots = _factor(column, d, vector, min(most, n), generator, xp)
    F = adjoint(rows, xp)
    if not pivots:
        eigenvalues, U = xp.zeros(0, dtype=d.dtype, device=device(d)), F
    else:
        U, s, _ = xp.linalg.svd(F, full_matrices=False)
        eigenvalues = s * s
    return LowRankInverse(
        U, eigenvalues, mu=shift, rest=1.0 / shift, factor=F, pivots=pivots, name=f"rpcholesky({len(pivots)})"
    )


def _factor(
    column: Callable[[int], Array], d: Array, vector: Array, most: int, generator: Any, xp: Namespace
) -> tuple[Array, tuple[int, ...]]:
    """The rows of ``F^H`` (l, n) and the pivots."""
    n = d.shape[0]
    complex_ = xp.isdtype(vector.dtype, "complex floating")
    rows = xp.zeros((most, n), dtype=vector.dtype, device=device(d))
    floor = n * finfo_eps(d.dtype, xp) * host_float(xp.sum(d))
    pivots: list[int] = []
    while len(pivots) < most:
        sums = xp.cumulative_sum(d)
        total = host_float(sums[-1])
        if not math.isfinite(total):
            raise InputError("K has columns that are not finite")
        if total <= floor:
            break
        # Uniform in [0, total): an entry without weight has an empty interval and is not drawn.
        i = min(host_index(xp.sum(xp.astype(sums <= generator.random() * total, xp.int64))), n - 1)
        k = len(pivots)
        g = column(i)
        check_array(g, "K", xp, shape=(n,), dtype=vector.dtype, finite=False, allow_complex=True)
        g = xp.conj(g) if complex_ else g
        mine = rows[:k, i]
        g = g - (xp.conj(mine) if complex_ else mine) @ rows[:k, :]
        pivot = xp.real(g[i]) if complex_ else g[i]
        # Sums in parallel need not increase: rounding may let one draw an entry without weight, which must not divide.
        scale = xp.where(pivot > 0, pivot, d[i])
        g = g / xp.sqrt(xp.where(scale > 0, scale, 1.0))
        rows[k, :] = g
        d = d - xp.abs(g) ** 2
        d = xp.where(d > 0, d, 0.0 * d)  # what is not finite becomes NaN and shows in the sum
        # The pivot itself is explained: what rounding leaves there must not be drawn again.
        d[i] = 0.0
        pivots.append(i)
    if not math.isfinite(host_float(xp.sum(d))):
        raise InputError("K has columns that are not finite")
    return rows[: len(pivots), :], tuple(pivots)


def _access(K: Any, diag: Array | None, like: Array | None) -> tuple[Callable[[int], Array], Array, Array]:
    """How to read a column, the diagonal, and a vector of the kind of the columns."""
    if is_array(K) and K.ndim == 2:
        operator, vector = operator_and_vector(K, like, "K")
        return lambda i: K[:, i], _real(operator.diagonal() if diag is None else diag), vector
    if callable(K) and not isinstance(K, LinearOperator) and not hasattr(K, "shape"):
        if diag is None:
            raise InputError("diag is missing: a function that returns columns of K does not tell the diagonal")
        vector = diag if like is None else like
        return K, diag, vector
    operator, vector = operator_and_vector(K, diag if like is None else like, "K")
    xp = array_namespace(like=vector)
    places = xp.arange(vector.shape[0], device=device(vector))

    def column(i: int) -> Array:
        return operator @ xp.astype(places == i, vector.dtype)

    return column, _real(operator.diagonal() if diag is None else diag), vector


def _real(d: Array) -> Array:
    xp = array_namespace(diag=d)
    return xp.real(d) if real_dtype(d.dtype, xp) != d.dtype else d

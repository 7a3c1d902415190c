"""Kernel matrices ``K + mu I`` of many points as operators: the products are reductions over pairs, nothing is stored."""

from __future__ import annotations

from ....backends.namespace import Array, Namespace, array_namespace, device, wide_dtype
from ....backends.operators import LinearOperator
from ....backends.pairs import Kernel, Pairs
from ....backends.validation import check_array, check_scalar


def kernel_operator(x: Array, kernel: Kernel, *, mu: float = 0.0, engine: str = "auto") -> LinearOperator:
    """The matrix ``K + mu I``, ``K[i, j] = k(x_i, x_j)``, as an operator that stores nothing of size ``n^2``.

    Parameters
    ----------
    x : array (n, d)
        Points, float32 or float64.
    kernel : Kernel
        From `gaussian`, `laplace`, `matern`, ... of `backends.pairs`.
    mu : float
        Non-negative shift of the diagonal.
    engine : str
        Engine of the reductions, see `Pairs`.

    Returns
    -------
    LinearOperator
        Of shape (n, n), for one or several columns at once. Residuals of float32 systems are computed in float64.

    Raises
    ------
    BackendError, InputError
        Bad points, kernel or shift; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import gaussian
    >>> from xpsolve.solvers.linear.structured import kernel_operator
    >>> A = kernel_operator(np.asarray([[0.0], [1.0]]), gaussian(1.0), mu=0.5)
    >>> (A @ np.ones(2)).round(4).tolist()
    [2.1065, 2.1065]
    """
    xp = array_namespace(x=x)
    check_array(x, "x", xp, ndim=2)
    mu = check_scalar(mu, "mu", non_negative=True)
    K = Pairs(x, x, kernel, engine=engine, check_finite=False).operator()
    wide = wide_dtype(x, xp)
    wide_pairs: list[Pairs] = []

    def apply(v: Array) -> Array:
        return K @ v + mu * v

    def precise(v: Array) -> Array:
        if not wide_pairs:
            points = xp.astype(x, wide)
            wide_pairs.append(Pairs(points, points, kernel, check_finite=False))
        v = xp.astype(v, wide)
        return wide_pairs[0].sum(v) + mu * v

    tags = ["symmetric"] if "symmetric" in K.tags else []
    if mu > 0 and _positive_definite(kernel):
        tags.append("positive")
    return LinearOperator(
        K.shape,
        apply,
        matmat=apply,
        rmatvec=apply,
        rmatmat=apply,
        dtype=x.dtype,
        tags=tags,
        precise_matvec=precise if x.dtype != wide else None,
        diagonal=None if callable(kernel.metric) else lambda: _diagonal(x, kernel, xp) + mu,
        name="(K + mu I)",
    )


def _positive_definite(kernel: Kernel) -> bool:
    """Whether ``K`` is known to have no negative eigenvalue, whatever the points."""
    if callable(kernel.metric) or kernel.profile not in {"exp", "matern32", "matern52", "cauchy"}:
        return False
    return kernel.metric != "dot" or kernel.scale < 0


def _diagonal(x: Array, kernel: Kernel, xp: Namespace) -> Array:
    zero = xp.zeros((x.shape[0],), dtype=x.dtype, device=device(x))
    return kernel.value(kernel.scale * xp.sum(x * x, axis=1) if kernel.metric == "dot" else zero, xp)

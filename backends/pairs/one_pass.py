"""Reductions over all pairs as functions: one pass, after which nothing is kept."""

from __future__ import annotations

from typing import Any

from ..namespace import Array
from .kernels import Kernel, Metric
from .makers import exponential
from .pairs import Pairs


def kernel_sum(x: Array, y: Array, v: Array, kernel: Kernel, **options: Any) -> Array:
    """One pass of `Pairs.sum`; ``options`` are those of `Pairs`.

    Parameters
    ----------
    x, y : array (n, d), (m, d)
        Points; the sums run over ``y``.
    v : array (m,) or (m, r)
        Weights, or values of the points ``y``.
    kernel : Kernel
        From `gaussian`, `exponential`, ...
    **options
        Of `Pairs`.

    Returns
    -------
    array (n,) or (n, r)
        ``sum_j k(x_i, y_j) v_j``.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import gaussian, kernel_sum
    >>> x = np.asarray([[0.0], [1.0]])
    >>> kernel_sum(x, x, np.ones(2), gaussian(1.0)).round(4).tolist()
    [1.6065, 1.6065]
    """
    return Pairs(x, y, kernel, **{"passes": 1, **options}).sum(v)


def logsumexp(x: Array, y: Array, kernel: Kernel, b: Array | None = None, **options: Any) -> Array:
    """One pass of `Pairs.logsumexp`; ``options`` are those of `Pairs`.

    Parameters
    ----------
    x, y : array (n, d), (m, d)
        Points; the sums run over ``y``.
    kernel : Kernel
        From `gaussian`, `exponential`, ...
    b : array (m,), optional
        Added to the logarithm of the kernel; default zeros.
    **options
        Of `Pairs`.

    Returns
    -------
    array (n,)
        ``log sum_j k(x_i, y_j) exp(b_j)``.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import gaussian, logsumexp
    >>> x = np.asarray([[0.0], [1.0]])
    >>> logsumexp(x, x, gaussian(1.0)).round(4).tolist()
    [0.4741, 0.4741]
    """
    return Pairs(x, y, kernel, **{"passes": 1, **options}).logsumexp(b)


def softmax_sum(
    x: Array, y: Array, v: Array, kernel: Kernel, b: Array | None = None, **options: Any
) -> tuple[Array, Array]:
    """One pass of `Pairs.softmax_sum`; ``options`` are those of `Pairs`.

    Parameters
    ----------
    x, y : array (n, d), (m, d)
        Points; the sums run over ``y``.
    v : array (m,) or (m, r)
        Weights, or values of the points ``y``.
    kernel : Kernel
        From `gaussian`, `exponential`, ...
    b : array (m,), optional
        Added to the logarithm of the kernel; default zeros.
    **options
        Of `Pairs`.

    Returns
    -------
    means : array (n,) or (n, r)
        ``sum_j k(x_i, y_j) exp(b_j) v_j`` over the same sum without ``v_j``.
    logsumexp : array (n,)
        Logarithm of that second sum.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import gaussian, softmax_sum
    >>> x = np.asarray([[0.0], [1.0]])
    >>> means, _ = softmax_sum(x, x, x[:, 0], gaussian(1.0))
    >>> means.round(4).tolist()
    [0.3775, 0.6225]
    """
    return Pairs(x, y, kernel, **{"passes": 1, **options}).softmax_sum(v, b)


def nearest(x: Array, y: Array, k: int, metric: Metric = "sqeuclidean", **options: Any) -> tuple[Array, Array]:
    """The ``k`` nearest ``y`` of each ``x`` under ``metric``: indices and metric values; options as in `Pairs`.

    Parameters
    ----------
    x, y : array (n, d), (m, d)
        Points; the sums run over ``y``.
    k : int
        How many.
    metric : str or callable
        As of `Kernel`; of ``"dot"`` the largest.
    **options
        Of `Pairs`.

    Returns
    -------
    indices : array (n, k)
        Of the nearest ``y``, the nearest first.
    values : array (n, k)
        Their metric values.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import nearest
    >>> x = np.asarray([[0.0], [1.0]])
    >>> indices, _ = nearest(x, x + 0.1, 1)
    >>> indices.tolist()
    [[0], [1]]
    """
    kernel = exponential(metric, -1.0 if metric == "dot" else 1.0)
    return Pairs(x, y, kernel, **{"passes": 1, **options}).nearest(k)

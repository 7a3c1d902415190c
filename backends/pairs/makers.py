"""The kernels by their names, from a bandwidth; `exponential` from a cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..errors import InputError
from ..validation import check_choice, check_scalar
from .kernels import METRICS, Kernel, Metric


def exponential(metric: Metric = "sqeuclidean", scale: float = 1.0) -> Kernel:
    """``exp(-scale * metric(x, y))``, the kernel of a cost: ``exponential("sqeuclidean", 1 / eps)``.

    A distance needs a positive scale; for ``"dot"`` (attention: ``exponential("dot", -1 / sqrt(d))``) and for a user's
    function of two tiles of points any sign has a meaning.

    Parameters
    ----------
    metric : str or callable
        As of `Kernel`.
    scale : float
        Factor of the metric.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        Unknown metric, or a scale that is not positive where it must be.

    Examples
    --------
    >>> from xpsolve.backends.pairs import exponential
    >>> exponential("dot", -0.5).metric
    'dot'
    """
    if not callable(metric):
        check_choice(metric, "metric", METRICS)
    signed = callable(metric) or metric == "dot"
    return Kernel(metric, check_scalar(scale, "scale", positive=not signed), "exp")


def gaussian(bandwidth: float) -> Kernel:
    """``exp(-|x-y|^2 / (2 h^2))``.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        ``bandwidth`` is not positive, or its square over- or underflows.

    Examples
    --------
    >>> from xpsolve.backends.pairs import gaussian
    >>> gaussian(0.5).scale
    2.0
    """
    return _of_bandwidth(bandwidth, "sqeuclidean", "exp", lambda h: 0.5 / h**2)


def laplace(bandwidth: float) -> Kernel:
    """``exp(-sum_k |x_k-y_k| / h)``, the product of one-dimensional Laplace kernels.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        ``bandwidth`` is not positive, or its square over- or underflows.

    Examples
    --------
    >>> from xpsolve.backends.pairs import laplace
    >>> laplace(0.5).scale
    2.0
    """
    return _of_bandwidth(bandwidth, "cityblock", "exp", lambda h: 1.0 / h)


def matern(bandwidth: float, nu: float = 1.5) -> Kernel:
    """Matern kernel of the Euclidean distance, ``nu`` in {0.5, 1.5, 2.5}.

    With ``t = sqrt(2 nu) |x-y| / h``: ``exp(-t)``, ``(1 + t) exp(-t)``, ``(1 + t + t^2/3) exp(-t)``.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.
    nu : float
        Smoothness.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        A bad ``bandwidth``, or another ``nu``.

    Examples
    --------
    >>> from xpsolve.backends.pairs import matern
    >>> matern(0.5, nu=0.5).scale
    2.0
    """
    profiles = {0.5: "exp", 1.5: "matern32", 2.5: "matern52"}
    if nu not in profiles:
        raise InputError(f"nu is {nu}, expected 0.5, 1.5 or 2.5")
    return _of_bandwidth(bandwidth, "euclidean", profiles[nu], lambda h: math.sqrt(2 * nu) / h)


def cauchy(bandwidth: float) -> Kernel:
    """``1 / (1 + |x-y|^2 / h^2)``.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        ``bandwidth`` is not positive, or its square over- or underflows.

    Examples
    --------
    >>> from xpsolve.backends.pairs import cauchy
    >>> cauchy(0.5).scale
    4.0
    """
    return _of_bandwidth(bandwidth, "sqeuclidean", "cauchy", lambda h: 1.0 / h**2)


def epanechnikov(bandwidth: float) -> Kernel:
    """``max(1 - |x-y|^2 / h^2, 0)``.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        ``bandwidth`` is not positive, or its square over- or underflows.

    Examples
    --------
    >>> from xpsolve.backends.pairs import epanechnikov
    >>> epanechnikov(0.5).scale
    4.0
    """
    return _of_bandwidth(bandwidth, "sqeuclidean", "triangle", lambda h: 1.0 / h**2)


def biweight(bandwidth: float) -> Kernel:
    """``max(1 - |x-y|^2 / h^2, 0)^2``.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        ``bandwidth`` is not positive, or its square over- or underflows.

    Examples
    --------
    >>> from xpsolve.backends.pairs import biweight
    >>> biweight(0.5).scale
    4.0
    """
    return _of_bandwidth(bandwidth, "sqeuclidean", "biweight", lambda h: 1.0 / h**2)


def triweight(bandwidth: float) -> Kernel:
    """``max(1 - |x-y|^2 / h^2, 0)^3``.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        ``bandwidth`` is not positive, or its square over- or underflows.

    Examples
    --------
    >>> from xpsolve.backends.pairs import triweight
    >>> triweight(0.5).scale
    4.0
    """
    return _of_bandwidth(bandwidth, "sqeuclidean", "triweight", lambda h: 1.0 / h**2)


def triangle(bandwidth: float) -> Kernel:
    """``max(1 - |x-y| / h, 0)``.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        ``bandwidth`` is not positive, or its square over- or underflows.

    Examples
    --------
    >>> from xpsolve.backends.pairs import triangle
    >>> triangle(0.5).scale
    2.0
    """
    return _of_bandwidth(bandwidth, "euclidean", "triangle", lambda h: 1.0 / h)


def tophat(bandwidth: float) -> Kernel:
    """``1`` where ``|x-y| < h``, else 0.

    Parameters
    ----------
    bandwidth : float
        ``h``, positive.

    Returns
    -------
    Kernel
        For `Pairs` and the functions beside it.

    Raises
    ------
    InputError
        ``bandwidth`` is not positive, or its square over- or underflows.

    Examples
    --------
    >>> from xpsolve.backends.pairs import tophat
    >>> tophat(0.5).scale
    4.0
    """
    return _of_bandwidth(bandwidth, "sqeuclidean", "tophat", lambda h: 1.0 / h**2)


def _of_bandwidth(bandwidth: Any, metric: str, profile: str, scale: Callable[[float], float]) -> Kernel:
    h = check_scalar(bandwidth, "bandwidth", positive=True)
    try:
        factor = scale(h)
    except (OverflowError, ZeroDivisionError):
        factor = math.inf
    if not 0 < factor < math.inf:
        raise InputError(f"bandwidth {h} is out of range: 1/h^2 over- or underflows")
    return Kernel(metric, factor, profile)

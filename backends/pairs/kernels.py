"""Kernels k(x, y) = profile(t), t = scale * metric(x, y): what is known of them in formulas, no engine.

A kernel is a metric, a scale, and a profile of the one number ``t``. Engines evaluate the metric their own way (one GEMM,
a loop over coordinates, a compiled expression) and look the profile up by its name in `PROFILES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..namespace import Array, Namespace
from ..validation import check_choice, check_scalar

Metric = str | Callable[[Array, Array], Array]

METRICS = ("sqeuclidean", "euclidean", "cityblock", "dot")


@dataclass(frozen=True)
class Profile:
    """A scalar function of ``t`` and its logarithm, elementwise on a tile."""

    value: Callable[[Array, Namespace], Array]
    log: Callable[[Array, Namespace], Array]


def _log1m(t: Array, power: float, xp: Namespace) -> Array:
    """``power * log(1 - t)`` inside the support ``t < 1``, minus infinity outside."""
    inside = t < 1
    return xp.where(inside, power * xp.log1p(-xp.where(inside, t, 0.0)), -math.inf)


def _power(t: Array, power: int, xp: Namespace) -> Array:
    """``max(1 - t, 0) ** power``."""
    return xp.maximum(1.0 - t, 0.0) ** power


#: Every profile by name; ``t`` is never negative except for ``exp`` on a dot product or a user's score.
PROFILES: dict[str, Profile] = {
    "exp": Profile(lambda t, xp: xp.exp(-t), lambda t, _: -t),
    "matern32": Profile(lambda t, xp: (1.0 + t) * xp.exp(-t), lambda t, xp: xp.log1p(t) - t),
    "matern52": Profile(
        lambda t, xp: (1.0 + t + t * t / 3.0) * xp.exp(-t), lambda t, xp: xp.log1p(t + t * t / 3.0) - t
    ),
    "cauchy": Profile(lambda t, _: 1.0 / (1.0 + t), lambda t, xp: -xp.log1p(t)),
    "tophat": Profile(
        lambda t, xp: xp.astype(t < 1, t.dtype), lambda t, xp: xp.where(t < 1, xp.zeros_like(t), -math.inf)
    ),
    "triangle": Profile(lambda t, xp: _power(t, 1, xp), lambda t, xp: _log1m(t, 1, xp)),
    "biweight": Profile(lambda t, xp: _power(t, 2, xp), lambda t, xp: _log1m(t, 2, xp)),
    "triweight": Profile(lambda t, xp: _power(t, 3, xp), lambda t, xp: _log1m(t, 3, xp)),
}


@dataclass(frozen=True)
class Kernel:
    """``k(x, y) = profile(scale * metric(x, y))``; made by the functions of this module.

    Attributes
    ----------
    metric : str or callable
        ``"sqeuclidean"`` (``|x-y|^2``), ``"euclidean"`` (``|x-y|``), ``"cityblock"`` (``sum |x_k-y_k|``), ``"dot"``
        (``x.y``), or a function of two tiles of points, (p, d) and (q, d), that returns
        the (p, q) array of values (plain array API).
    scale : float
        Factor of the metric.
    profile : str
        Name in `PROFILES`.
    """

    metric: Metric
    scale: float
    profile: str

    @property
    def exponential(self) -> bool:
        """Whether ``k = exp(-t)``: then weights and potentials fold into the exponent."""
        return self.profile == "exp"

    def value(self, t: Array, xp: Namespace) -> Array:
        """Kernel at ``t``."""
        return PROFILES[self.profile].value(t, xp)

    def log(self, t: Array, xp: Namespace) -> Array:
        """Logarithm of the kernel at ``t``; minus infinity outside a compact support."""
        return PROFILES[self.profile].log(t, xp)


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

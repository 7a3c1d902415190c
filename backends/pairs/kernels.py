"""Kernels k(x, y) = profile(t), t = scale * metric(x, y): what is known of them in formulas, no engine.

A kernel is a metric, a scale, and a profile of the one number ``t``. Engines evaluate the metric their own way (one GEMM,
a loop over coordinates, a compiled expression) and look the profile up by its name in `PROFILES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..namespace import Array, Namespace

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
    """``k(x, y) = profile(scale * metric(x, y))``; made by the functions of `makers`.

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

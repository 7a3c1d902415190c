"""Densities with a known formula: Gaussian mixtures with their exact log-density and score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..backends.namespace import Array, Namespace, array_namespace
from ..backends.random import Sampler
from ..backends.validation import check_array, check_count, check_floating, check_scalar


@dataclass(frozen=True, eq=False)
class MixtureProblem:
    """Draws ``x`` of a mixture of isotropic Gaussians whose density is known.

    Attributes
    ----------
    x : array (n, d)
        The draws.
    means : array (k, d)
        Centres of the components.
    scales : array (k,)
        Their standard deviations.
    probabilities : array (k,)
        Their weights, summing to one.
    labels : array (n,)
        Component of each draw.
    """

    x: Array
    means: Array
    scales: Array
    probabilities: Array
    labels: Array

    def log_density(self, y: Array) -> Array:
        """Exact log-density at ``y`` (m, d), shape (m,); direct differences, so keep ``m`` moderate."""
        xp = array_namespace(means=self.means, y=y)
        terms = self._terms(y, xp)
        top = xp.max(terms, axis=1, keepdims=True)
        return top[:, 0] + xp.log(xp.sum(xp.exp(terms - top), axis=1))

    def score(self, y: Array) -> Array:
        """Exact gradient of the log-density at ``y``, shape (m, d)."""
        xp = array_namespace(means=self.means, y=y)
        terms = self._terms(y, xp)
        w = xp.exp(terms - xp.max(terms, axis=1, keepdims=True))
        w = w / xp.sum(w, axis=1, keepdims=True) / (self.scales * self.scales)
        return w @ self.means - xp.sum(w, axis=1, keepdims=True) * y

    def _terms(self, y: Array, xp: Namespace) -> Array:
        check_array(y, "y", xp, shape=(None, self.means.shape[1]), dtype=self.means.dtype)
        difference = y[:, None, :] - self.means[None, :, :]
        square = xp.sum(difference * difference, axis=2) / (self.scales * self.scales)
        d = self.means.shape[1]
        return xp.log(self.probabilities) - d * xp.log(self.scales) - 0.5 * d * math.log(2.0 * math.pi) - 0.5 * square


def gaussian_mixture(
    n: int,
    d: int,
    components: int = 3,
    *,
    separation: float = 4.0,
    offset: float = 0.0,
    xp: Namespace,
    dtype: Any = None,
    device: Any = None,
    rng: Any = 0,
) -> MixtureProblem:
    """Draws of a random mixture of ``components`` isotropic Gaussians, the same on every backend for one seed.

    Parameters
    ----------
    n, d : int
        Number of draws and dimension.
    components : int
        Number of Gaussians; their scales lie in [0.5, 1.5].
    separation : float
        Standard deviation of the centres.
    offset : float
        Added to every coordinate: a large one tests the centring.
    xp, dtype, device
        Where the arrays live; float64 by default.
    rng : seed or Generator
        As in SPEC 7.

    Returns
    -------
    MixtureProblem
        Draws, parameters, and the exact ``log_density`` and ``score``.

    Raises
    ------
    InputError, BackendError
        Sizes that are no positive integers, negative separation.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems.kde import gaussian_mixture
    >>> problem = gaussian_mixture(100, 2, xp=xp)
    >>> problem.x.shape, problem.log_density(problem.x).shape
    ((100, 2), (100,))
    """
    n, d, components = check_count(n, "n"), check_count(d, "d"), check_count(components, "components")
    separation = check_scalar(separation, "separation", non_negative=True)
    sampler = Sampler(rng, xp=xp, dtype=check_floating(dtype, "dtype", xp), device=device)
    means = sampler.normal((components, d)) * separation + check_scalar(offset, "offset")
    scales = sampler.uniform((components,), low=0.5, high=1.5)
    probabilities = sampler.uniform((components,), low=0.5, high=1.0)
    probabilities = probabilities / xp.sum(probabilities)
    # Labels follow the weights: invert the distribution function.
    uniform = sampler.uniform((n,))
    labels = xp.clip(xp.searchsorted(xp.cumulative_sum(probabilities), uniform), max=components - 1)
    noise = sampler.normal((n, d))
    x = xp.take(means, labels, axis=0) + noise * xp.take(scales, labels, axis=0)[:, None]
    return MixtureProblem(x, means, scales, probabilities, labels)

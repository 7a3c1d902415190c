"""Gaussian process regression with a fixed kernel: mean and variance at new points.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapter 2; the systems are those of
`kernel_ridge`, so that nothing of size ``n^2`` is stored beyond a few thousand points.
"""

from __future__ import annotations

from typing import Any

from ....backends.errors import InputError
from ....backends.namespace import Array, array_namespace, device
from ....backends.pairs import Kernel, Pairs
from ....backends.validation import check_scalar
from .kernel_ridge import KernelRidge, kernel_ridge

# Columns solved together for the variance: each is a vector of the length of the training set.
_COLUMNS = 64


class GaussianProcess:
    """The posterior of ``f ~ GP(0, amplitude k)`` given ``y = f(x) + noise``.

    Parameters
    ----------
    kernel : Kernel
        A positive definite kernel of `backends.pairs` with ``k(x, x) = 1``.
    noise : float
        Variance of the noise, positive.
    amplitude : float
        Prior variance of ``f``.
    **options
        Of `kernel_ridge`: ``method``, ``rank``, ``rtol``, ``maxiter``, ``rng``, ``engine``, ...

    Attributes
    ----------
    model : KernelRidge
        The fitted regression with its status and residual, after `fit`.

    Notes
    -----
    Mean ``k_*^T (K + mu I)^{-1} y`` and variance ``amplitude (1 - k_*^T (K + mu I)^{-1} k_*)`` with ``mu = noise /
    amplitude``. The mean costs one pass over the pairs of new and training points; the variance one solve a point.

    References
    ----------
    C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for Machine Learning, MIT Press, 2006, algorithm 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import gaussian
    >>> from xpsolve.solvers.linear.structured import GaussianProcess
    >>> x = np.linspace(0.0, 3.0, 30)[:, None]
    >>> process = GaussianProcess(gaussian(0.7), noise=1e-4).fit(x, np.cos(x[:, 0]))
    >>> mean, variance = process.predict(np.asarray([[1.0], [2.0]]), variance=True)
    >>> mean.round(3).tolist(), variance.round(3).tolist()
    ([0.54, -0.416], [0.0, 0.0])
    """

    def __init__(self, kernel: Kernel, *, noise: float, amplitude: float = 1.0, **options: Any) -> None:
        self.kernel, self.options = kernel, options
        self.noise = check_scalar(noise, "noise", positive=True)
        self.amplitude = check_scalar(amplitude, "amplitude", positive=True)
        self._model: KernelRidge | None = None

    @property
    def model(self) -> KernelRidge:
        """The fitted regression; an `InputError` before `fit`."""
        if self._model is None:
            raise InputError("the process has not been fitted; call fit(x, y)")
        return self._model

    def fit(self, x: Array, y: Array) -> GaussianProcess:
        """Condition on targets ``y`` (n,) or (n, k) at points ``x`` (n, d); returns the process itself."""
        self._model = kernel_ridge(x, y, self.kernel, self.noise / self.amplitude, **self.options)
        return self

    def predict(self, points: Array, *, variance: bool = False) -> Any:
        """Posterior mean (p,) or (p, k) at ``points`` (p, d); with ``variance`` also that of ``f``, (p,)."""
        model = self.model
        mean = model.predict(points)
        if not variance:
            return mean
        xp = array_namespace(points=points, x=model.points)
        parts = []
        for start in range(0, points.shape[0], _COLUMNS):
            some = points[start : min(start + _COLUMNS, points.shape[0]), :]
            eye = xp.eye(some.shape[0], dtype=some.dtype, device=device(some))
            cross = Pairs(model.points, some, self.kernel, passes=1).sum(eye)
            explained = xp.sum(cross * model.solve(cross), axis=0)
            parts.append(self.amplitude * (1.0 - explained))
        found = xp.concat(parts)
        # Rounding and the tolerance of the solves may leave a variance slightly below zero.
        return mean, xp.maximum(found, xp.zeros_like(found))

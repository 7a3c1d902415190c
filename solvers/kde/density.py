"""Weighted Gaussian kernel density estimate in d dimensions, in logarithms throughout.

The points are whitened once by the kernel's covariance; then every question is a reduction over pairs with the unit
Gaussian kernel: the log-density a log-sum-exp, its gradient a softmax-weighted mean (Silverman 1986; Scott 1992).
"""

from __future__ import annotations

import math
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device, wide_dtype
from ...backends.pairs import Pairs, Plan, gaussian
from ...backends.random import Sampler
from ...backends.transfer import host_float
from ...backends.validation import check_count, check_weights
from .bandwidth import check_points, kernel_covariance, log_weights, loo_weights
from .whitening import Whitening, normalised


class GaussianKDE:
    r"""Density :math:`p(y) = \sum_j w_j N(y; x_j, H)` of weighted points, with the weights scaled to sum to one.

    Parameters
    ----------
    x : array (n, d)
        Points, float32 or float64, of any array library; results have its library, dtype and device.
    weights : array (n,), optional
        Non-negative weights of the points, need not sum to one; zeros are legal. Uniform by default.
    bandwidth : str, float, array (d,) or array (d, d)
        What decides the covariance ``H`` of the kernel:

        - ``"scott"`` (default), ``"silverman"``: ``H = f^2 S`` with ``S`` the weighted sample covariance and
          ``f = neff^(-1/(d+4))`` or ``(neff (d+2)/4)^(-1/(d+4))``; the same as ``scipy.stats.gaussian_kde``.
        - ``"loo"``: ``H = f^2 S`` with ``f`` from `loo_bandwidth`.
        - a number ``h``: ``H = h^2 I``, the ``bandwidth=h`` of ``sklearn.neighbors.KernelDensity``. SciPy's
          ``bw_method=f`` is a factor of ``S`` instead: pass ``f**2 * S`` as a matrix for that.
        - an array (d,): ``H = diag(h^2)``, one standard deviation per coordinate.
        - an array (d, d): ``H`` itself, a covariance (not its root).
    engine : str
        Engine of `xpsolve.pairs`; ``"auto"`` lets the planner pick.

    Raises
    ------
    InputError
        NaN, wrong shape, negative weights, non-positive bandwidth, or too few points for a data-driven bandwidth.
    BackendError
        Lists, integers, arrays of several libraries or devices.
    BreakdownError
        A singular sample covariance, or a bandwidth matrix that is not positive definite.

    Notes
    -----
    Nothing of size n x m is stored and no density is ever formed to take its logarithm, so log-densities of hundreds of
    nats below zero (usual in 64 dimensions) keep their digits. Centring and whitening are done in float64 where the
    device has it, whatever the dtype of ``x``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.kde import GaussianKDE
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> kde = GaussianKDE(x, bandwidth="silverman")
    >>> y = np.asarray([[0.0, 0.0], [30.0, 0.0]])
    >>> kde.log_density(y).shape, bool(kde.log_density(y)[1] < -1000)
    ((2,), True)
    >>> bool(abs(kde.gradient(y)[0, 0]) < 1)
    True
    """

    def __init__(
        self, x: Array, *, weights: Array | None = None, bandwidth: Any = "scott", engine: str = "auto"
    ) -> None:
        xp: Namespace = array_namespace(x=x, weights=weights)
        check_points(x, "x", xp)
        if weights is not None:
            check_weights(weights, "weights", xp, n=x.shape[0], dtype=x.dtype)
        self._xp, self._x, self._engine = xp, x, engine
        self._weights = None if weights is None else normalised(weights, wide_dtype(x, xp), xp)
        centre, covariance, self._neff = kernel_covariance(x, weights, bandwidth, xp, engine)
        self._covariance = covariance
        self._whitening = Whitening.of(centre, covariance, x.dtype, xp)
        self._u = self._whitening.apply(x)
        n = x.shape[0]
        # A wrong engine is an error now, not at the first question.
        Pairs(self._u[:1, ...], self._u[:1, ...], gaussian(1.0), engine=engine)
        if self._weights is None:
            self._log_w = xp.zeros(n, dtype=x.dtype, device=device(x)) - math.log(n)
        else:
            self._log_w = log_weights(self._weights, x.dtype, xp)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``: number of points and of dimensions."""
        return self._x.shape[0], self._x.shape[1]

    @property
    def weights(self) -> Array:
        """Weights (n,), scaled to sum to one."""
        n = self._x.shape[0]
        if self._weights is None:
            return self._xp.full((n,), 1.0 / n, dtype=self._x.dtype, device=device(self._x))
        return self._xp.astype(self._weights, self._x.dtype)

    @property
    def covariance(self) -> Array:
        """Covariance ``H`` (d, d) of the kernel, in float64 where the device has it."""
        return self._covariance

    @property
    def effective_sample_size(self) -> float:
        """``(sum w)^2 / sum w^2``; ``n`` when the weights are uniform."""
        return self._neff

    def log_density(self, y: Array) -> Array:
        """Logarithm of the density at the points ``y`` (m, d), shape (m,).

        Examples
        --------
        >>> import numpy as np
        >>> from xpsolve.solvers.kde import GaussianKDE
        >>> float(GaussianKDE(np.zeros((1, 1)), bandwidth=1.0).log_density(np.zeros((1, 1)))[0])  # -log sqrt(2 pi)
        -0.91893853...
        """
        return self._pairs(self._whitened(y)).logsumexp(b=self._log_w) + self._whitening.log_normaliser

    def density(self, y: Array) -> Array:
        """The density at the points ``y`` (m, d), shape (m,); underflows where `log_density` does not."""
        return self._xp.exp(self.log_density(y))

    def gradient(self, y: Array) -> Array:
        r"""Gradient of the log-density (the score) at ``y`` (m, d), shape (m, d).

        :math:`\nabla \log p(y) = H^{-1} (\sum_j W_j x_j - y)` with the weights ``W`` of the kernels at ``y``: no
        quotient of two numbers that may both underflow.
        """
        at = self._whitened(y)
        mean, _ = self._pairs(at).softmax_sum(self._u, b=self._log_w)
        return self._whitening.pull_back(mean - at)

    def loo_log_likelihood(self) -> Array:
        r"""Mean leave-one-out log-likelihood, a 0-d array.

        :math:`\sum_i w_i \log p_{-i}(x_i)`, where ``p_{-i}`` is the density without point ``i``, its weights scaled to
        sum to one. The pair (i, i) is left out of the sum, never subtracted from it.

        Raises
        ------
        InputError
            Fewer than two points with positive weight.
        """
        n, xp = self._x.shape[0], self._xp
        if n < 2:
            raise InputError("x has one point; the leave-one-out likelihood needs at least two")
        log_w, weigh, constant = loo_weights(n, self._weights, self._x.dtype, xp)
        lse = Pairs(
            self._u, self._u, gaussian(1.0), engine=self._engine, exclude_self=True, check_finite=False
        ).logsumexp(b=log_w)
        return weigh(lse) + (constant + self._whitening.log_normaliser)

    def sample(self, n: int, rng: Any = None) -> Array:
        """Draw ``n`` points of the density, shape (n, d); ``rng`` is a seed or a NumPy Generator, as in SPEC 7."""
        n, xp = check_count(n, "n"), self._xp
        wide = self._whitening.factor.dtype
        sampler = Sampler(rng, xp=xp, dtype=wide, device=device(self._x))
        uniform = sampler.uniform((n,))
        if self._weights is None:
            index = xp.astype(xp.floor(uniform * self._x.shape[0]), xp.int64)
        else:
            cdf = xp.cumulative_sum(self._weights)
            # side="right" skips every point of weight zero; the last entry is scaled out because sums round.
            index = xp.searchsorted(cdf, uniform * host_float(cdf[-1]), side="right")
        index = xp.clip(index, max=self._x.shape[0] - 1)
        noise = sampler.normal((n, self._x.shape[1])) @ xp.matrix_transpose(self._whitening.factor)
        return xp.astype(xp.astype(xp.take(self._x, index, axis=0), wide) + noise, self._x.dtype)

    def plan(self, y: Array, reduction: str = "logsumexp") -> Plan:
        """What `xpsolve.pairs` would do for the points ``y``: engine, reason, memory."""
        return self._pairs(self._whitened(y)).plan(reduction)

    def __repr__(self) -> str:
        n, d = self.shape
        return f"GaussianKDE(n={n}, d={d}, dtype={self._x.dtype}, neff={self._neff:.6g})"

    def _whitened(self, y: Array) -> Array:
        array_namespace(x=self._x, y=y)
        check_points(y, "y", self._xp, d=self._x.shape[1], dtype=self._x.dtype)
        return self._whitening.apply(y)

    def _pairs(self, at: Array) -> Pairs:
        return Pairs(at, self._u, gaussian(1.0), engine=self._engine, passes=1, check_finite=False)

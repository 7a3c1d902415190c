"""The linear map that turns a covariance into the identity: u = L^{-1} (x - c) with L L^T = H.

All of it is done in float64 where the device has it, also for float32 points, and only the whitened coordinates are
cast back: subtracting the centre first is what keeps digits when the data sit at a large offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...backends.errors import BreakdownError, InputError
from ...backends.linalg import cholesky, solve_triangular
from ...backends.namespace import Array, Namespace, finfo_eps, wide_dtype
from ...backends.transfer import host_bool, host_float

_SINGULAR = (
    "the sample covariance of x is singular or not usable ({why}), so a data-driven bandwidth does not exist; give "
    "bandwidth as a number, as one number per coordinate or as a positive definite (d, d) matrix, or drop the constant "
    "and linearly dependent coordinates of x"
)


def centre_and_covariance(x: Array, weights: Array | None, xp: Namespace) -> tuple[Array, Array, float]:
    """Weighted mean (d,), unbiased weighted covariance (d, d), both wide, and the effective sample size.

    The covariance is that of ``numpy.cov(x.T, aweights=weights)``, as SciPy uses; ``neff = (sum w)^2 / sum w^2``
    (Kish 1965). Covariance entries are zero where ``neff`` is one.
    """
    dtype = wide_dtype(x, xp)
    xw = xp.astype(x, dtype)
    n = x.shape[0]
    if weights is None:
        centre = xp.mean(xw, axis=0)
        centre = centre + xp.mean(xw - centre, axis=0)  # the second pass removes the rounding of a large offset
        moved, neff = xw - centre, float(n)
        covariance = xp.matrix_transpose(moved) @ moved / max(n - 1.0, 1.0)
        return centre, covariance, neff
    w = normalised(weights, dtype, xp)
    centre = w @ xw
    centre = centre + w @ (xw - centre)
    moved = xw - centre
    square = host_float(xp.sum(w * w))
    unbias = max(1.0 - square, 0.0)
    covariance = xp.matrix_transpose(moved * w[:, None]) @ moved
    return centre, covariance / unbias if unbias > 0 else covariance * 0.0, 1.0 / square


def normalised(weights: Array, dtype: object, xp: Namespace) -> Array:
    """Weights as ``dtype``, scaled to sum to one; dividing by the maximum first, no sum over- or underflows."""
    w = xp.astype(weights, dtype)
    w = w / xp.max(w)
    return w / xp.sum(w)


def check_data_covariance(x: Array, covariance: Array, neff: float, xp: Namespace) -> None:
    """Refuse a sample covariance that is singular up to the rounding of the data.

    Raises
    ------
    InputError
        Too few points, a constant coordinate, or linearly dependent coordinates; the remedy is a given bandwidth.
    """
    n, d = x.shape
    if not neff > 1.0 + 1e-12:
        raise InputError(_SINGULAR.format(why="one point carries all the weight"))
    if n <= d:
        raise InputError(_SINGULAR.format(why=f"{n} points in {d} dimensions"))
    wide = covariance.dtype
    eps_data, eps = finfo_eps(x.dtype, xp), finfo_eps(wide, xp)
    variance = xp.linalg.diagonal(covariance)
    # A spread below the rounding of the stored numbers is no information about the data.
    floor = xp.max(xp.abs(xp.astype(x, wide)), axis=0) * (4.0 * eps_data)
    if host_bool(xp.any(variance <= floor * floor)):
        raise InputError(_SINGULAR.format(why="a coordinate is constant"))
    scale = xp.sqrt(variance)
    correlation = covariance / (scale[:, None] * scale[None, :])
    try:
        pivots = xp.linalg.diagonal(cholesky(correlation, xp=xp))
    except BreakdownError as err:
        raise BreakdownError(_SINGULAR.format(why="coordinates are linearly dependent")) from err
    # A squared pivot is one minus the squared multiple correlation with the coordinates before.
    if not host_bool(xp.all(pivots**2 > 100.0 * d * eps + (10.0 * eps_data) ** 2)):
        raise BreakdownError(_SINGULAR.format(why="coordinates are linearly dependent"))


@dataclass(frozen=True, eq=False)
class Whitening:
    """``u = L^{-1} (x - c)`` for a covariance ``H = L L^T``; everything wide inside, ``dtype`` outside.

    Attributes
    ----------
    centre : array (d,)
        Subtracted first.
    factor : array (d, d)
        Lower Cholesky factor of the covariance.
    log_det : float
        ``log det L``.
    dtype : dtype
        Of the points outside.
    xp : namespace
        Of all of them.
    """

    centre: Array
    factor: Array
    log_det: float
    dtype: object
    xp: Namespace

    @classmethod
    def of(cls, centre: Array, covariance: Array, dtype: object, xp: Namespace) -> Whitening:
        """Factor the covariance of the kernel."""
        try:
            factor = cholesky(covariance, xp=xp)
        except BreakdownError as err:
            raise BreakdownError(
                "bandwidth is a covariance that is not positive definite; "
                "add a multiple of the identity or give a number"
            ) from err
        log_det = host_float(xp.sum(xp.log(xp.linalg.diagonal(factor))))
        return cls(centre, factor, log_det, dtype, xp)

    @property
    def log_normaliser(self) -> float:
        """``log of (2 pi)^{-d/2} / det L``, the height of the kernel."""
        return -self.log_det - 0.5 * int(self.centre.shape[0]) * math.log(2.0 * math.pi)

    def apply(self, x: Array) -> Array:
        """Whitened coordinates of points (n, d), in ``dtype``."""
        xp = self.xp
        moved = xp.astype(x, self.factor.dtype) - self.centre
        u = solve_triangular(self.factor, xp.matrix_transpose(moved), lower=True, xp=xp)
        return xp.astype(xp.matrix_transpose(u), self.dtype)

    def pull_back(self, g: Array) -> Array:
        """Gradient in ``x`` of a function whose gradient in ``u`` is ``g`` (n, d): ``g L^{-1}``."""
        xp = self.xp
        wide = xp.matrix_transpose(xp.astype(g, self.factor.dtype))
        out = solve_triangular(self.factor, wide, lower=True, xp=xp, transpose=True)
        return xp.astype(xp.matrix_transpose(out), self.dtype)

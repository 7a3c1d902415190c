"""The triangular factor of a sketched matrix: preconditioner, sketch-and-solve solution, and ruler of backward errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ....backends.errors import BreakdownError, InputError
from ....backends.linalg import solve_triangular
from ....backends.namespace import Array, Namespace, device, finfo_eps, is_cupy, is_numpy, is_torch
from ....backends.operators.adapters import Pending
from ....backends.validation import unwarned
from ..norms import column_norms
from ..system import check_pending


@dataclass(frozen=True, eq=False)
class SketchedFactor:
    """``S A = Q R`` and what follows from it.

    Attributes
    ----------
    R : array (n, n)
        Upper triangular.
    U, sigma : array (n, n) and (n,)
        Left singular vectors and singular values of ``R``.
    x0 : array (n,) or (n, k)
        ``R^{-1} Q^H S b``, the solution of the sketched problem.
    scale : array ()
        ``||R||_F``, an estimate of ``||A||_F``.
    distortion : float
        Bound on how far the singular values of ``S Q`` are from one; zero where the factor is that of ``A`` itself.
    xp : namespace
        Of all arrays.
    """

    R: Array
    U: Array
    sigma: Array
    x0: Array
    scale: Array
    distortion: float
    xp: Namespace

    def solve(self, v: Array) -> Array:
        """``R^{-1} v``."""
        return solve_triangular(self.R, v, lower=False, xp=self.xp)

    def adjoint_solve(self, v: Array) -> Array:
        """``R^{-H} v``."""
        return solve_triangular(self.R, v, lower=False, xp=self.xp, transpose=True)

    def backward_errors(self, gradient: Array, x_norm: Array, r_norm: Array) -> Array:
        """Estimate of Karlson and Walden, one a column, relative to ``||A||_F``.

        ``gradient`` is ``R^{-H} A^H r``. The smallest ``||dA||_F`` for which ``x`` solves the least-squares problem with
        ``A + dA`` is about ``||(||x||^2 A^H A + ||r||^2 I)^{-1/2} A^H r||``.
        """
        xp = self.xp
        along = xp.conj(self.U).T if xp.isdtype(self.U.dtype, "complex floating") else self.U.T
        components = xp.abs(along @ gradient)
        sigma = self.sigma if gradient.ndim == 1 else self.sigma[:, None]
        denominator = xp.hypot(x_norm * sigma, r_norm + xp.zeros_like(sigma))
        filtered = components * (sigma / xp.where(denominator > 0, denominator, 1.0))
        return column_norms(filtered, xp) / self.scale


def factorize(
    SA: Array, Sb: Array, distortion: float, *, single: bool, pending: Pending, xp: Namespace
) -> SketchedFactor:
    """Factor ``[S A, S b]`` once: the last columns of its triangle are ``Q^H S b``, and no ``Q`` is formed.

    Whether the arguments are finite (``pending``) is read together with the condition.

    Raises
    ------
    InputError
        An argument is not finite, or ``A^H b`` leaves the range of the dtype.
    BreakdownError
        The columns of ``S A``, scaled to unit norm, are dependent to working precision.
    """
    n = SA.shape[1]
    triangle = _upper_factor(xp.concat([SA, Sb], axis=1), xp)
    R, rotated = triangle[:n, :n], triangle[:n, n:]
    # Condition of the columns at equal length: what a user's units do to it is no loss of rank.
    lengths = column_norms(R, xp)
    scaled = R / xp.where(lengths > 0, lengths, 1.0)
    try:
        inverse = solve_triangular(scaled, xp.eye(n, dtype=R.dtype, device=device(R)), lower=False, xp=xp)
        fact = xp.linalg.vector_norm(inverse)
    except BreakdownError:  # a zero on the diagonal, where the library looks
        fact = xp.asarray(math.inf, dtype=lengths.dtype, device=device(R))
    # A^H r must neither overflow nor, for residuals of eps times the size of b, underflow; minus one says that it does.
    eps, range_of = finfo_eps(R.dtype, xp), xp.finfo(R.dtype)
    size, heights = xp.max(lengths), xp.max(xp.abs(triangle[:, n:]), axis=0)
    with unwarned():
        low, high = (eps * size) * (eps * heights), size * heights
    lost = (heights > 0) & (size > 0) & ((low < float(range_of.smallest_normal)) | (high > eps * float(range_of.max)))
    fact = xp.where(xp.any(lost), -xp.ones_like(fact), fact)
    condition = check_pending(pending, xp, fact)
    if condition < 0:
        raise InputError(
            "b has such units, with those of A, that A^H b leaves the range of this precision: multiply b by a number that "
            "brings it near the inverse size of A, and divide x by it"
        )
    if not condition * n * eps < 0.5:
        raise BreakdownError(
            f"the sketched A is rank deficient in this precision (its columns, scaled to unit norm, have condition "
            f"{condition:.1e}): drop dependent columns of A or pass damp > 0; if A has full rank, "
            "raise d or take a safer sketch"
        )
    U, sigma, _ = xp.linalg.svd(R, full_matrices=False)
    x0 = solve_triangular(R, rotated, lower=False, xp=xp)
    return SketchedFactor(R, U, sigma, x0[:, 0] if single else x0, column_norms(sigma, xp), distortion, xp)


def _upper_factor(X: Array, xp: Namespace) -> Array:
    """``R`` of ``X = Q R``; the standard always forms ``Q`` too, at twice the cost."""
    if is_numpy(xp):
        import numpy as np

        upper: Any = np.linalg.qr(X, mode="r")
        return upper
    if is_cupy(xp):
        import cupy

        return cupy.linalg.qr(X, mode="r")
    if is_torch(xp):
        import torch

        return torch.linalg.qr(X, mode="r")[1]
    return xp.linalg.qr(X, mode="reduced")[1]

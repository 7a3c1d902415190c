"""Sketch-and-precondition: LSQR on ``A R^{-1}`` in operator form.

``A R^{-1}`` has singular values near one, so LSQR gains a digit in two or three steps; the product is never formed, which
would cost the square of the condition number. Started from the sketch-and-solve solution and again from recomputed residuals
it is backward stable too (Epperly, Meier and Nakatsukasa 2024 call it sketch-and-precondition with iterative refinement).
"""

from __future__ import annotations

from typing import Any

from ....backends.namespace import Array, Namespace
from ....backends.operators import LinearOperator
from ..golub_kahan import Limits
from ..lsqr import _Lsqr
from ..system import System
from .factor import SketchedFactor
from .refinement import Point, Refinement


class _OneSweepLsqr(_Lsqr):
    """LSQR whose two products share a sweep over the matrix."""

    def __init__(self, system: System, limits: Limits, owner: Refinement) -> None:
        super().__init__(system, limits)
        self.pair, self.factor = owner.pair, owner.factor

    def bidiagonalise(self, u: Array, v: Array, alpha: Array) -> tuple[Array, Array, Array, Array]:
        """As in the base class, ``u`` being scaled after both products."""
        u, gradient = self.pair(self.factor.solve(v), alpha, u)
        u, beta = self.normalised(u)
        gradient = self.factor.adjoint_solve(gradient) / self.xp.where(beta > 0, beta, 1.0)
        v, alpha = self.normalised(gradient - beta * v)
        return u, v, alpha, beta


class SketchAndPrecondition(Refinement):
    """Passes of LSQR for ``min ||r - A R^{-1} z||``, all columns in step."""

    def __init__(
        self, A: LinearOperator, b: Array, factor: SketchedFactor, xp: Namespace, dense: Array | None = None
    ) -> None:
        super().__init__(A, b, factor, xp, dense)
        n = A.shape[1]
        inverse = LinearOperator(
            (n, n),
            factor.solve,
            matmat=factor.solve,
            rmatvec=factor.adjoint_solve,
            rmatmat=factor.adjoint_solve,
            dtype=b.dtype,
            name="R^{-1}",
        )
        system = System(A, inverse, b, factor.x0, b, 1.0, factor.scale, xp)
        # The tests of Paige and Saunders are not asked: the backward error decides.
        self.lsqr = _OneSweepLsqr(system, Limits(0.0, 0.0, float("inf")), self)

    def begin(self, at: Point) -> Any:
        """A bidiagonalisation from the residual; the correction starts at zero."""
        self.matvecs += self.columns
        return self.lsqr.begin(self.xp.zeros_like(at.x), at.r, self.xp.zeros_like(at.r_norm))

    def advance(self, at: Point, inner: Any) -> Any:
        """One step of LSQR."""
        self.matvecs += 2 * self.columns
        return self.lsqr.step(inner)

    def estimate(self, at: Point, inner: Any) -> Array:
        """The gradient of LSQR's residual is a multiple of the next ``v``."""
        return self.worst(inner.arnorm * inner.v, at.x_norm, inner.rnorm)

    def correction(self, inner: Any) -> Array:
        """``R^{-1} z``."""
        return inner.x

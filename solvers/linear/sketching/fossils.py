"""FOSSILS: a heavy-ball iteration on the sketched normal equations, restarted from the recomputed residual.

With singular values of ``A R^{-1}`` in ``1/(1 + eta) .. 1/(1 - eta)``, ``eta`` a little above ``sqrt(n/d)``, the step
``(1 - eta^2)^2`` and the momentum ``eta^2`` shrink the error by ``eta`` a step (Epperly 2024). Here they run on
``R^{-H} A^H A R^{-1} z = R^{-H} A^H r`` for a correction of ``x`` (Epperly, Meier, Nakatsukasa 2024).
"""

from __future__ import annotations

from typing import NamedTuple

from ....backends.namespace import Array
from ..norms import column_norms
from .refinement import Point, Refinement


class Ball(NamedTuple):
    """The correction ``dx = R^{-1} z``, the step before, and at ``x + dx`` the gradient and the norm."""

    z: Array
    z_old: Array
    dx: Array
    g: Array
    x_norm: Array


class Fossils(Refinement):
    """Passes of the heavy ball."""

    def begin(self, at: Point) -> Ball:
        """At rest."""
        zero = self.xp.zeros_like(at.g)
        return Ball(zero, zero, zero, at.g, at.x_norm)

    def advance(self, at: Point, inner: Ball) -> Ball:
        """One step with momentum."""
        eta = self.factor.distortion
        z = inner.z + (1 - eta**2) ** 2 * inner.g + eta**2 * (inner.z - inner.z_old)
        dx = self.factor.solve(z)
        self.matvecs += 2 * self.columns
        # Not A^H (r - A dx): its rounding would be that of the whole residual.
        g = at.g - self.factor.adjoint_solve(self.pair(dx, None, None)[1])
        return Ball(z, inner.z, dx, g, column_norms(at.x + dx, self.xp))

    def estimate(self, at: Point, inner: Ball) -> Array:
        """The gradient is carried, the residual has hardly changed."""
        return self.worst(inner.g, inner.x_norm, at.r_norm)

    def correction(self, inner: Ball) -> Array:
        """``R^{-1} z``."""
        return inner.dx

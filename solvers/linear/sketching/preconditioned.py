"""Sketch-and-precondition: LSQR on ``A R^{-1}`` in operator form, and sketch-and-solve, which only looks at its error.

``A R^{-1}`` has singular values near one, so LSQR gains a digit in two or three steps; the product is never formed, which
would cost the square of the condition number. The recurrence corrects a point whose residual was computed, at first the
sketch-and-solve solution, and again from the truth if it claimed more than it reached.
"""

from __future__ import annotations

from typing import NamedTuple

from ....backends.namespace import Array
from ....backends.transfer import host_float
from .factor import column_norms
from .momentum import Refinement


class LsqrState(NamedTuple):
    """``x`` the point of the last true residual, ``z`` the correction (times ``R``); Golub-Kahan vectors ``u``, ``v``, the
    direction ``w`` and the rotation's scalars, one a column; ``g_norm`` is ``||R^{-H} A^H r||`` at ``x + R^{-1} z``."""

    x: Array
    z: Array
    u: Array
    v: Array
    w: Array
    alpha: Array
    rho: Array
    phi: Array
    g_norm: Array
    x_norm: Array
    r_norm: Array
    truth: Array
    steps: int


class SketchAndPrecondition(Refinement):
    """LSQR for ``min ||r - A R^{-1} z||``, all columns in step."""

    def start(self, x: Array) -> LsqrState:
        """The state with no correction at ``x``."""
        xp = self.xp
        r, g = self.residual(x)
        x_norm, beta, g_norm = column_norms(x, xp), column_norms(r, xp), column_norms(g, xp)
        truth = self.worst(g, x_norm, beta)
        v, u = self._unit(g, g_norm), self._unit(r, beta)
        alpha = g_norm / xp.where(beta > 0, beta, 1.0)
        return LsqrState(x, xp.zeros_like(g), u, v, v, alpha, alpha, beta, g_norm, x_norm, beta, truth, 0)

    def _unit(self, v: Array, norm: Array) -> Array:
        """``v / norm``, zero where the recurrence has ended."""
        return v * (1.0 / self.xp.where(norm > 0, norm, 1.0))

    def step(self, s: LsqrState) -> LsqrState:
        """One bidiagonalisation step and rotation (Paige and Saunders 1982); a column that has ended stands still."""
        xp = self.xp
        self.matvecs += 2 * self.columns
        u = self.A @ self.factor.solve(s.v) - s.alpha * s.u
        beta = column_norms(u, xp)
        u = self._unit(u, beta)
        v = self.factor.adjoint_solve(self.AH @ u) - beta * s.v
        alpha = column_norms(v, xp)
        v = self._unit(v, alpha)
        rho = xp.sqrt(s.rho**2 + beta**2)
        safe = xp.where(rho > 0, rho, 1.0)
        cosine, sine = s.rho / safe, beta / safe
        z = s.z + ((cosine * s.phi) / safe) * s.w
        w = v - ((sine * alpha) / safe) * s.w
        phi = sine * s.phi
        return s._replace(
            z=z, u=u, v=v, w=w, alpha=alpha, rho=-cosine * alpha, phi=phi,
            g_norm=xp.abs(phi * alpha * cosine), steps=s.steps + 1,
        )  # fmt: skip

    def error(self, s: LsqrState) -> Array:
        """A bound on the backward error: the recurrence knows the norm of the gradient, not its direction."""
        xp = self.xp
        if s.steps == 0:
            return s.truth
        reach = xp.sqrt(s.x_norm**2 + (s.r_norm / self.factor.sigma[0]) ** 2)
        bound = xp.max(s.g_norm / xp.where(reach > 0, reach, 1.0)) / self.factor.scale
        return self.carried(bound, s.steps)

    def verify(self, s: LsqrState) -> tuple[LsqrState, float]:
        """Apply the correction and start LSQR anew from the true residual."""
        if s.steps == 0:
            return s, host_float(s.truth)
        return self.better(s, self.start(s.x + self.factor.solve(s.z)))


class SketchAndSolve(SketchAndPrecondition):
    """The sketched solution as it is: no step improves it."""

    def step(self, s: LsqrState) -> LsqrState:
        """Nothing, so that the loop sees no gain and says so."""
        return s._replace(steps=self.longest)

    def verify(self, s: LsqrState) -> tuple[LsqrState, float]:
        """The error that the sketch left."""
        return s, host_float(s.truth)

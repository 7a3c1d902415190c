"""Heavy-ball iterations on the sketched normal equations: FOSSILS, and iterative sketching with momentum.

With singular values of ``A R^{-1}`` in ``1/(1 + eta) .. 1/(1 - eta)``, ``eta`` a little above ``sqrt(n/d)``, the step
``(1 - eta^2)^2`` and the momentum ``eta^2`` shrink the error by ``eta`` a step (Epperly 2024). FOSSILS runs them on
``R^{-H} A^H A R^{-1} z = R^{-H} A^H r`` for a correction of ``x`` and starts again from the recomputed residual (Epperly, Meier,
Nakatsukasa 2024).
"""

from __future__ import annotations

from typing import NamedTuple

from ....backends.namespace import Array
from ..norms import column_norms
from .refinement import Point, Refinement

# Steps without a new smallest error after which iterative sketching is at the floor of the precision.
_PATIENCE = 12


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


class Sketching(NamedTuple):
    """A point, the one before it, the smallest error so far, the steps since, and the norms of the point once read."""

    at: Point
    x_old: Array
    best: Array
    since: Array
    norms: tuple[float, float] | None = None

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.at.x


class IterativeSketching(Refinement):
    """The heavy ball on ``x`` with a fresh residual each step: forward stable."""

    keep_best = True

    def start(self, x: Array) -> Sketching:
        """At rest in ``x``."""
        at = self.look(x, precise=False)
        return Sketching(at, x, at.error, self.xp.zeros_like(at.error))

    def step(self, state: Sketching) -> Sketching:
        """One step with momentum."""
        eta, xp = self.factor.distortion, self.xp
        move = (1 - eta**2) ** 2 * self.factor.solve(state.at.g) + eta**2 * (state.x - state.x_old)
        at = self.look(state.x + move, precise=False)
        better = at.error < state.best
        since = xp.where(better, xp.zeros_like(state.since), state.since + 1.0)
        return Sketching(at, state.x, xp.where(better, at.error, state.best), since)

    def error(self, state: Sketching) -> Array:
        """Backward error; zero when it has stopped falling, to be looked at again."""
        error = state.at.error
        return self.xp.where(state.since > _PATIENCE, self.xp.zeros_like(error), error)

    def verify(self, state: Sketching) -> tuple[Sketching, float]:
        """Each state already holds the truth."""
        error, norms = self.read(state.at)
        return state._replace(norms=norms), error

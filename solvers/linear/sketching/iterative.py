"""Iterative sketching with momentum (Epperly 2024): the heavy ball of `fossils` on the solution itself."""

from __future__ import annotations

from typing import NamedTuple

from ....backends.namespace import Array
from .refinement import Point, Refinement

# Steps without a new smallest error after which iterative sketching is at the floor of the precision.
_PATIENCE = 12


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

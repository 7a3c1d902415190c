"""Sketch-and-solve: the least-squares solution of ``S A x = S b``, of which only the error is looked at."""

from __future__ import annotations

from ....backends.namespace import Array
from .refinement import Pass, Point, Refinement


class SketchAndSolve(Refinement):
    """The sketched solution as it is: no step improves it."""

    def begin(self, at: Point) -> None:
        """Nothing to carry."""

    def step(self, state: Pass) -> Pass:
        """The same point, to be looked at again: the loop sees no gain and says so."""
        return state

    def error(self, state: Pass) -> Array:
        """Zero, so that the truth is asked."""
        return 0.0 * state.at.error

    def verify(self, state: Pass) -> tuple[Pass, float]:
        """The error that the sketch left."""
        error, norms = self.read(state.at)
        return state._replace(norms=norms), error

"""Heavy-ball iterations on the sketched normal equations: FOSSILS, and iterative sketching with momentum.

With singular values of ``A R^{-1}`` in ``1/(1 + eta) .. 1/(1 - eta)``, ``eta = sqrt(n/d)``, the step ``(1 - eta^2)^2`` and the
momentum ``eta^2`` shrink the error by ``eta`` a step (Epperly 2024). FOSSILS runs them on ``R^{-H} A^H A R^{-1} z = R^{-H} A^H r``
for a correction of ``x`` and starts again from the recomputed residual: two passes are backward stable (Epperly, Meier,
Nakatsukasa 2024).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ....backends.namespace import Array, Namespace, finfo_eps
from ....backends.operators import LinearOperator
from ....backends.transfer import host_float
from .factor import SketchedFactor, column_norms

# Steps without a new smallest error after which iterative sketching is at the floor of the precision.
_PATIENCE = 12
# Passes aim below the tolerance by this factor: about one more step.
_MARGIN = 4.0


class Refinement:
    """What all methods share: products, the residual of a point, and its backward error."""

    def __init__(self, A: LinearOperator, b: Array, factor: SketchedFactor, xp: Namespace) -> None:
        self.A, self.AH, self.b, self.factor, self.xp = A, A.H, b, factor, xp
        self.columns = 1 if b.ndim == 1 else b.shape[1]
        self.matvecs = 0
        eta = factor.distortion
        self.step_length, self.momentum = (1 - eta**2) ** 2, eta**2
        # A pass cannot gain more than the precision has digits.
        self.longest = 2 + math.ceil(math.log(finfo_eps(b.dtype, xp) / 10) / math.log(max(eta, 0.1)))

    def residual(self, x: Array) -> tuple[Array, Array]:
        """``b - A x`` and ``R^{-H} A^H (b - A x)``."""
        self.matvecs += 2 * self.columns
        r = self.b - self.A @ x
        return r, self.factor.adjoint_solve(self.AH @ r)

    def normal(self, dx: Array) -> Array:
        """``R^{-H} A^H A dx``."""
        self.matvecs += 2 * self.columns
        return self.factor.adjoint_solve(self.AH @ (self.A @ dx))

    def carried(self, error: Array, steps: int) -> Array:
        """What a pass reports: with a margin, as the recomputed residual has rounding of its own; zero at its end."""
        return _MARGIN * error if steps < self.longest else 0.0 * error

    def better(self, old: Any, new: Any) -> tuple[Any, float]:
        """The new point, or the old one again if the correction (cut short, or below the rounding) made it worse."""
        before, after = host_float(old.truth), host_float(new.truth)
        return (new, after) if after <= before else (self.start(old.x), before)

    def worst(self, gradient: Array, x_norm: Array, r_norm: Array) -> Array:
        """Largest backward error of a column."""
        return self.xp.max(self.factor.backward_errors(gradient, x_norm, r_norm))


class FossilsState(NamedTuple):
    """``x`` the point of the last true residual and its backward error ``truth``, ``z`` and ``z_old`` the correction (times
    ``R``), ``c`` the gradient at ``x``, ``g`` and ``x_norm`` at ``x + R^{-1} z``; ``steps`` since ``x``."""

    x: Array
    z: Array
    z_old: Array
    c: Array
    g: Array
    x_norm: Array
    r_norm: Array
    truth: Array
    steps: int


class Fossils(Refinement):
    """Passes of the heavy ball, each from a recomputed residual; the loop's verification begins the next pass."""

    def start(self, x: Array) -> FossilsState:
        """The state with no correction at ``x``."""
        r, c = self.residual(x)
        zero, x_norm, r_norm = self.xp.zeros_like(c), column_norms(x, self.xp), column_norms(r, self.xp)
        return FossilsState(x, zero, zero, c, c, x_norm, r_norm, self.worst(c, x_norm, r_norm), 0)

    def step(self, s: FossilsState) -> FossilsState:
        """One heavy-ball step."""
        z = s.z + self.step_length * s.g + self.momentum * (s.z - s.z_old)
        dx = self.factor.solve(z)
        g = s.c - self.normal(dx)
        return s._replace(z=z, z_old=s.z, g=g, x_norm=column_norms(s.x + dx, self.xp), steps=s.steps + 1)

    def error(self, s: FossilsState) -> Array:
        """Backward error as the recurrence sees it; zero after the longest pass, to be looked at again."""
        if s.steps == 0:
            return s.truth
        return self.carried(self.worst(s.g, s.x_norm, s.r_norm), s.steps)

    def verify(self, s: FossilsState) -> tuple[FossilsState, float]:
        """Apply the correction and begin a pass from the true residual."""
        if s.steps == 0:
            return s, host_float(s.truth)
        return self.better(s, self.start(s.x + self.factor.solve(s.z)))


class SketchingState(NamedTuple):
    """``x``, the point before it, the gradient and backward error at ``x``, and the steps since the smallest error."""

    x: Array
    x_old: Array
    g: Array
    error: Array
    best: Array
    since: Array


class IterativeSketching(Refinement):
    """The heavy ball on ``x`` with a fresh residual each step: forward stable."""

    def start(self, x: Array) -> SketchingState:
        """The state at rest in ``x``."""
        state = self._at(x, x)
        return state._replace(best=state.error)

    def _at(self, x: Array, x_old: Array) -> SketchingState:
        r, g = self.residual(x)
        error = self.worst(g, column_norms(x, self.xp), column_norms(r, self.xp))
        return SketchingState(x, x_old, g, error, error, self.xp.zeros_like(error))

    def step(self, s: SketchingState) -> SketchingState:
        """One heavy-ball step."""
        move = self.step_length * self.factor.solve(s.g) + self.momentum * (s.x - s.x_old)
        new = self._at(s.x + move, s.x)
        better = new.error < s.best
        since = self.xp.where(better, self.xp.zeros_like(s.since), s.since + 1.0)
        return new._replace(best=self.xp.where(better, new.error, s.best), since=since)

    def error(self, s: SketchingState) -> Array:
        """Backward error; zero when it has stopped falling, to be looked at again."""
        return self.xp.where(s.since > _PATIENCE, self.xp.zeros_like(s.error), s.error)

    def verify(self, s: SketchingState) -> tuple[SketchingState, float]:
        """Each state already holds the truth."""
        return s, host_float(s.error)

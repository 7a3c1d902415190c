"""What the sketched least-squares methods share: a point, the truth about it, and corrections that start from there.

Every method corrects ``x`` through the factor ``R`` of the sketch, in the variable ``z = R dx`` in which the problem is well
conditioned. A pass of corrections starts from a recomputed residual; the loop's verification ends a pass, looks at the new
point and begins the next one: two or three passes are what makes the answer backward stable.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ....backends.namespace import Array, Namespace, finfo_eps
from ....backends.operators import LinearOperator
from ....backends.transfer import to_host
from ..norms import column_norms
from .factor import SketchedFactor
from .products import residual_and_gradient

# Passes aim below the tolerance by this factor, as the recomputed residual has rounding of its own: about one more step.
_MARGIN = 4.0


class Point(NamedTuple):
    """``x``, its recomputed residual ``r = b - A x``, ``g = R^{-H} A^H r``, the norms of ``x``, ``r`` and ``A^H r`` a column,
    and the largest backward error of a column."""

    x: Array
    r: Array
    g: Array
    x_norm: Array
    r_norm: Array
    normal_norm: Array
    error: Array


class Pass(NamedTuple):
    """A pass under way: the point it started from, the method's own state, its steps so far, and where they have been read
    the largest norms of a column of ``r`` and ``A^H r``."""

    at: Point
    inner: Any
    steps: int
    norms: tuple[float, float] | None = None

    @property
    def x(self) -> Array:
        """The point of the last recomputed residual."""
        return self.at.x


class Refinement:
    """Passes of a method that brings `begin`, `advance`, `estimate` and `correction`."""

    def __init__(
        self, A: LinearOperator, b: Array, factor: SketchedFactor, xp: Namespace, dense: Array | None = None
    ) -> None:
        self.pair = residual_and_gradient(A, dense, xp)
        self.A, self.AH, self.b, self.factor, self.xp = A, A.H, b, factor, xp
        self.columns = 1 if b.ndim == 1 else b.shape[1]
        self.matvecs = 0
        # A pass cannot gain more than the precision has digits.
        digits = math.log(finfo_eps(b.dtype, xp) / 10)
        self.longest = 2 + math.ceil(digits / math.log(max(factor.distortion, 0.1)))

    def begin(self, at: Point) -> Any:
        """The state of a pass with no correction."""
        raise NotImplementedError

    def advance(self, at: Point, inner: Any) -> Any:
        """The state after one step."""
        raise NotImplementedError

    def estimate(self, at: Point, inner: Any) -> Array:
        """The backward error of the corrected point, as the recurrence sees it."""
        raise NotImplementedError

    def correction(self, inner: Any) -> Array:
        """``dx``."""
        raise NotImplementedError

    def look(self, x: Array, *, precise: bool = True) -> Point:
        """Recompute the residual of ``x`` (in float64 where that is possible) and all that is judged by it."""
        self.matvecs += 2 * self.columns
        r = self.A.precise_residual(self.b, x) if precise else self.b - self.A @ x
        normal = self.AH @ r
        g = self.factor.adjoint_solve(normal)
        x_norm, r_norm = column_norms(x, self.xp), column_norms(r, self.xp)
        error = self.worst(g, x_norm, r_norm)
        return Point(x, r, g, x_norm, r_norm, column_norms(normal, self.xp), error)

    def worst(self, g: Array, x_norm: Array, r_norm: Array) -> Array:
        """Largest backward error of a column."""
        return self.xp.max(self.factor.backward_errors(g, x_norm, r_norm))

    def start(self, x: Array) -> Any:
        """The first pass, from ``x``."""
        at = self.look(x)
        return Pass(at, self.begin(at), 0)

    def step(self, state: Any) -> Any:
        """One step of the pass."""
        return Pass(state.at, self.advance(state.at, state.inner), state.steps + 1)

    def error(self, state: Any) -> Array:
        """What the pass has reached, with a margin; zero at its longest, to be looked at."""
        if state.steps == 0:
            return state.at.error
        estimate = self.estimate(state.at, state.inner)
        return _MARGIN * estimate if state.steps < self.longest else 0.0 * estimate

    def verify(self, state: Any) -> tuple[Any, float]:
        """Apply the correction and begin a pass from the true residual; a correction that made it worse is dropped.

        The gradient says which is worse: a start far off has a small backward error for being long, not for being near.
        """
        xp, at = self.xp, state.at
        if state.steps == 0:
            error, norms = self.read(at)
            return state._replace(norms=norms), error
        new = self.look(at.x + self.correction(state.inner))
        shorter = xp.max(column_norms(new.g, xp)) <= xp.max(column_norms(at.g, xp))
        better = xp.astype(shorter | (new.error <= at.error), at.error.dtype)
        taken, *facts = (float(fact) for fact in to_host(xp.concat([better[None], self.facts(new), self.facts(at)])))
        at, (error, *sizes) = (new, facts[:3]) if taken else (at, facts[3:])
        return Pass(at, self.begin(at), 0, (sizes[0], sizes[1])), error

    def facts(self, at: Point) -> Array:
        """The error of a point and the largest norms of a column (3,)."""
        return self.xp.stack([at.error, self.xp.max(at.r_norm), self.xp.max(at.normal_norm)])

    def read(self, at: Point) -> tuple[float, tuple[float, float]]:
        """The same on the host."""
        error, r_norm, normal_norm = (float(fact) for fact in to_host(self.facts(at)))
        return error, (r_norm, normal_norm)

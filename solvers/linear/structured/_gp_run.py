"""The minimisation behind `gp_pde`: L-BFGS over the parameters of the prior, and what it returns."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from ....backends.errors import InputError
from ....backends.namespace import Array, array_namespace
from ....backends.transfer import host_float
from ....backends.validation import check_array
from ...iterate import Callback, Iterate
from ...result import Result, Status
from ._gp_between import between_points
from ._gp_model import Model, Solution

# Steps in a row that must leave the solution where it is.
_QUIET_STEPS = 5
# A Nyquist wave shows (2 / pi)^2 = 0.41 of its second derivative in differences; a collapsed prior less than 0.1.
_RESOLUTION = 0.3
_RESTARTS = 5
# Part of the boundary values, or of the source, that a solution may miss and still be called one.
_MISSED = 0.1
# Part of its second derivatives that a process may hide between the points of the grid.
_HIDDEN = 1e-2


@dataclass(frozen=True, kw_only=True, repr=False)
class GPSolution(Result):
    """A differential equation solved by `gp_pde`; ``residual`` is the largest relative change of ``u`` in the last steps.

    Attributes
    ----------
    u : array (n,) or (n_1, n_2)
        The solution on the grid.
    loss : float
        Value of the loss; ``losses`` has one for each step, the start first.
    weights, widths, frequencies : tuple of arrays (Q,)
        ``w``, ``rho`` and ``mu`` of the components, for each axis.
    equation_residual, boundary_gap : float
        Root mean square residual of the equation relative to that of the source, and of the boundary values relative to
        that of the solution.
    between_points : float
        How far the second derivatives of the process halfway between the grid points are from what those on the grid
        interpolate to, relative to their size; zero where the error of the interpolation explains it. Above 1e-2 the
        process carries frequencies near the Nyquist frequency that the source does not show.
    """

    u: Array
    loss: float
    losses: tuple[float, ...]
    weights: tuple[Array, ...]
    widths: tuple[Array, ...]
    frequencies: tuple[Array, ...]
    equation_residual: float
    boundary_gap: float
    between_points: float
    _model: Model = field(repr=False)
    _solution: Solution = field(repr=False)

    @property
    def message(self) -> str:
        """The status as a sentence; of a process that settled on what is no solution, by how much it is none."""
        missed = max(self.boundary_gap, self.equation_residual) > _MISSED
        if self.status is not Status.STAGNATED or not (missed or self.between_points > _HIDDEN):
            return super().message
        if not missed:
            return (
                "it settled on a process that is another between the points of the grid than on them (its second derivatives "
                f"by {self.between_points:.2g} of their size): frequencies near the grid's Nyquist frequency hide an error of "
                "the solution; lower max_frequency, or take another number of components or a finer grid"
            )
        return (
            f"it settled on a process that misses the boundary values by {self.boundary_gap:.2g} and the equation by "
            f"{self.equation_residual:.2g} of their size; take more components or another max_frequency"
        )

    def predict(self, points: Any) -> Array:
        """The solution at other points: (p,) on an interval; (p, 2), or a pair of arrays that span a grid, on a rectangle."""
        model, xp = self._model, self._model.xp
        wide, dims = model.source.dtype, len(model.grids)
        if dims == 2 and isinstance(points, tuple | list):
            if len(points) != 2:
                raise InputError(f"points has {len(points)} arrays, expected one for each of the two axes")
            array_namespace(points=points[0], other=points[1], u=self.u)
            for part in points:
                check_array(part, "points", xp, ndim=1)
            return xp.astype(model.predict(self._solution, tuple(xp.astype(p, wide) for p in points)), self.u.dtype)
        array_namespace(points=points, u=self.u)
        check_array(points, "points", xp, shape=(None,) if dims == 1 else (None, 2))
        return xp.astype(model.predict(self._solution, xp.astype(points, wide)), self.u.dtype)


class Run:
    """One minimisation: the solutions of the last points that L-BFGS looked at, and the history of the accepted ones."""

    def __init__(
        self, model: Model, rtol: float, dtype: Any, callback: Callback | None, time_limit: float | None
    ) -> None:
        self.model, self.rtol, self.dtype, self.callback = model, rtol, dtype, callback
        self.deadline = None if time_limit is None else time.monotonic() + time_limit
        self.stretch = model.stretch()
        self.seen: dict[bytes, Solution] = {}
        self.evaluations = 0
        self.changes: list[float] = []
        self.losses: list[float] = []
        self.status: Status | None = None
        self.best: Solution | None = None
        self.least_resolution = 0.0

    def minimise(self, maxiter: int) -> GPSolution:
        from scipy.optimize import minimize

        start = self.model.start()
        self.best = self.solution(start)
        self.losses.append(self.best.loss)
        # A source that the grid does not resolve starts below; then it must not get much worse.
        self.least_resolution = min(_RESOLUTION, 0.5 * self.model.resolution(self.best))
        if maxiter == 0:
            return self.result(Status.MAX_ITER)
        bounds = [(low * f, high * f) for (low, high), f in zip(self.model.bounds(), self.stretch, strict=True)]
        # A line search that met only steps to be turned back ends L-BFGS; without its memory it may go on.
        for _ in range(1 + _RESTARTS):
            left = maxiter - len(self.changes)
            # ftol and gtol: where float64 ends; the stopping rule is the one of the solution.
            options = {"maxiter": left, "maxfun": 20 * left, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-9}
            try:
                minimize(
                    self.value, self.best.theta * self.stretch, jac=True, method="L-BFGS-B", options=options,
                    callback=self.accept, bounds=bounds,
                )  # fmt: skip
            except KeyboardInterrupt:
                return self.result(Status.INTERRUPTED)
            except Exception as err:
                err.result = self.result(Status.BREAKDOWN)  # type: ignore[attr-defined]
                raise
            if self.status is None and len(self.changes) >= maxiter:
                self.status = Status.MAX_ITER
            if self.status is not None:
                break
        if self.status is None:
            quiet = len(self.changes) >= _QUIET_STEPS and self.residual() <= self.rtol
            self.status = Status.CONVERGED if quiet else Status.STAGNATED
        return self.result(self.status)

    def solution(self, theta: Any) -> Solution:
        key = theta.tobytes()
        if key not in self.seen:
            self.evaluations += 1
            found = self.model.profile(theta.copy())
            self.seen[key] = found
            # A line search may return to a point before its last one.
            while len(self.seen) > 8:
                del self.seen[next(iter(self.seen))]
        return self.seen[key]

    def value(self, stretched: Any) -> tuple[float, Any]:
        found = self.solution(stretched / self.stretch)
        gradient = self.model.gradient(found) / self.stretch
        if self.model.resolution(found) < self.least_resolution:
            # Lower losses lie beyond, of solutions that are none: a line search must turn back.
            return abs(found.loss) + 10.0 * abs(self.losses[0]) + 1.0, gradient
        return found.loss, gradient

    def accept(self, intermediate_result: Any) -> None:
        xp = self.model.xp
        found, before = self.solution(intermediate_result.x / self.stretch), self.best
        assert before is not None
        size = math.sqrt(host_float(xp.sum(found.u * found.u)))
        change = math.sqrt(host_float(xp.sum((found.u - before.u) ** 2)))
        self.best = found
        self.losses.append(found.loss)
        self.changes.append(change / size if size > 0 else change)
        if self.callback is not None:
            try:
                self.callback(Iterate(len(self.changes), self.residual(), self.result(Status.STOPPED)))
            except StopIteration:
                self.status = Status.STOPPED
                raise
        if len(self.changes) >= _QUIET_STEPS and self.residual() <= self.rtol:
            self.status = Status.CONVERGED
        elif self.deadline is not None and time.monotonic() >= self.deadline:
            self.status = Status.TIME_LIMIT
        if self.status is not None:
            raise StopIteration

    def residual(self) -> float:
        return max(self.changes[-_QUIET_STEPS:], default=float("inf"))

    def result(self, status: Status) -> GPSolution:
        s, model, xp = self.best, self.model, self.model.xp
        assert s is not None

        def mean_square(a: Array) -> float:
            return math.sqrt(host_float(xp.mean(a * a)))

        def cast(arrays: Any) -> tuple[Array, ...]:
            return tuple(xp.astype(a, self.dtype) for a in arrays)

        missed = mean_square(s.r) / (model.source_size or 1.0), mean_square(s.gap) / (mean_square(s.u) or 1.0)
        hidden = between_points(model, s)
        if status is Status.CONVERGED and not (max(missed) <= _MISSED and hidden <= _HIDDEN):
            status = Status.STAGNATED
        return GPSolution(
            status=status, n_iter=len(self.changes), residual=self.residual(), tolerance=self.rtol,
            history=tuple(self.changes), evaluations={"loss": self.evaluations}, u=xp.astype(s.u, self.dtype), loss=s.loss,
            losses=tuple(self.losses), weights=cast(xp.exp(k.log_w) for k in s.kernels),
            widths=cast(xp.exp(k.log_rho) for k in s.kernels), frequencies=cast(k.mu for k in s.kernels),
            equation_residual=missed[0], boundary_gap=missed[1], between_points=hidden, _model=model, _solution=s,
        )  # fmt: skip

"""The part of a stored problem that carries mass: zero weights and unreachable points removed, sums made one, sums wide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, wide_dtype
from ...backends.transfer import host_bool, host_float
from .geometry import Dense
from .problem import Problem, finite, potentials


@dataclass(frozen=True, eq=False)
class Support:
    """A problem restricted to its support, its weights in the widest dtype and of sum one.

    Attributes
    ----------
    C : array (n, m)
        Costs between points that carry mass, in the dtype of the input; plus infinity forbids a pair.
    a, b : array (n,), (m,)
        Positive weights of sum one.
    low, high : float
        Smallest and largest finite cost.
    lost : float
        Violation, relative to the mass, by points that can reach nobody; no plan mends it.
    rows, columns : array or None
        Masks of the support; None where it is everything.
    """

    C: Array
    a: Array
    b: Array
    low: float
    high: float
    lost: float
    rows: Array | None
    columns: Array | None
    problem: Problem

    @property
    def xp(self) -> Namespace:
        """Namespace of the arrays."""
        return self.problem.xp

    def full(self, F: Array, G: Array) -> tuple[Array, Array]:
        """Scaled potentials of the whole problem, in its dtype, from those of the support."""
        xp, dtype = self.xp, self.problem.geometry.like.dtype
        F = xp.astype(F + math.log(self.problem.mass), dtype)
        return _spread(F, self.rows, xp), _spread(xp.astype(G, dtype), self.columns, xp)

    def returned(self, F: Array, G: Array) -> tuple[Array, Array]:
        """Scaled potentials as the result will hold them: a float32 problem's come back rounded, and in its gauge."""
        xp, wide, problem = self.xp, self.a.dtype, self.problem
        if wide == self.C.dtype:
            return F, G
        f, g = problem.gauged(*self.full(F, G))
        F, G = problem.scaled((f, g))
        F, G = _only(F, self.rows, xp), _only(G, self.columns, xp)
        return xp.astype(F, wide) - math.log(problem.mass), xp.astype(G, wide)

    def start(self, x0: Any) -> tuple[Array, Array]:
        """Scaled potentials of the support from a user's of the KL gauge."""
        xp, wide = self.xp, self.a.dtype
        f, g = potentials(x0, self.problem.geometry)
        f, g = finite(xp.astype(f, wide), xp), finite(xp.astype(g, wide), xp)
        f, g = _only(f, self.rows, xp), _only(g, self.columns, xp)
        return f / self.problem.reg + xp.log(self.a), g / self.problem.reg + xp.log(self.b)


def support(problem: Problem) -> Support:
    """The support of a problem with a stored cost."""
    geometry, xp = problem.geometry, problem.xp
    if not isinstance(geometry, Dense):
        raise InputError("this method needs a stored cost matrix; for point clouds use sinkhorn")
    C, wide = geometry.C, wide_dtype(geometry.C, xp)
    a, b = xp.astype(problem.a, wide), xp.astype(problem.b, wide)
    rows, columns = a > 0, b > 0
    high = host_float(xp.max(C))
    forbidden = math.isinf(high)
    if forbidden:
        allowed = xp.isfinite(C)
        rows = rows & xp.any(allowed & columns[None, :], axis=1)
        columns = columns & xp.any(allowed & rows[:, None], axis=0)
    all_rows, all_columns = host_bool(xp.all(rows)), host_bool(xp.all(columns))
    if not all_rows:
        C = xp.take(C, xp.nonzero(rows)[0], axis=0)
    if not all_columns:
        C = xp.take(C, xp.nonzero(columns)[0], axis=1)
    if not all_rows or not all_columns:
        a, b = _only(a, None if all_rows else rows, xp), _only(b, None if all_columns else columns, xp)
    if 0 in C.shape:
        raise InputError("cost forbids every pair of points with mass: no plan exists")
    if forbidden:
        allowed = xp.isfinite(C)
        high, low = (host_float(xp.max(xp.where(allowed, C, -math.inf))), host_float(xp.min(C)))
    else:
        low = host_float(xp.min(C))
        high = high if all_rows and all_columns else host_float(xp.max(C))
    sum_a, sum_b = host_float(xp.sum(a)), host_float(xp.sum(b))
    # Mass of a lost point is missing there and too much elsewhere; what rounding takes from the sums is no loss.
    lost = 2 * max(0.0, 2 - (sum_a + sum_b) / problem.mass) if forbidden else 0.0
    lost = 0.0 if lost < 1e-6 else lost
    return Support(
        C, a / sum_a, b / sum_b, low, high, lost, None if all_rows else rows, None if all_columns else columns, problem
    )


def _only(x: Array, mask: Array | None, xp: Namespace) -> Array:
    return x if mask is None else xp.take(x, xp.nonzero(mask)[0], axis=0)


def _spread(x: Array, mask: Array | None, xp: Namespace) -> Array:
    """``x`` at the places of the mask, minus infinity elsewhere."""
    if mask is None:
        return x
    places: Any = xp.cumulative_sum(xp.astype(mask, xp.int64)) - 1
    return xp.where(mask, xp.take(x, xp.maximum(places, xp.zeros_like(places)), axis=0), -math.inf)

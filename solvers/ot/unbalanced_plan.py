"""The plan of one Newton step of unbalanced transport: its sums, and products with ``E diag(k c) E^T``, ``E`` its columns made one.

A stored cost keeps ``E``. Without one, the large entries of the plan are kept where they are few; where they are many, or the
cost lives on a grid, every product is two passes of softmax averages, and nothing is kept at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from ...backends.log_sums import row_log_sums
from ...backends.namespace import Array, Namespace
from ...backends.pairs.entries import large_entries
from .geometry import Dense, Geometry, PointCloud
from .problem import finite
from .sparse_plan import SparsePlan

# Entries a row, on average, that are kept; and how many always are, however dense the plan.
_CAP, _ALWAYS_KEPT = 300, 100_000
# Share of a row's target below which an entry is left out, times the columns: at least, at most, its growth until then.
_TAU_LEAST, _TAU_MOST, _TAU_GROWTH = 1e-6, 1e-2, 10.0
# What a pair without weight falls short by, where a pass wants finite numbers in the place of minus infinity.
_NOTHING = 1e4

Action: TypeAlias = Callable[[Array], Array]


class Stored:
    """Of a cost matrix: one pass gives everything, and a product is two with a matrix."""

    def __init__(self, geometry: Dense, reg: float) -> None:
        self.xp, self.S = geometry.xp, -geometry.C / reg
        self.passes = 0

    def row_logs(self, G: Array) -> Array:
        """``log sum_j exp(G_j - C_ij / reg)``."""
        self.passes += 1
        return row_log_sums(self.S, G, xp=self.xp)

    def columns(self, F: Array, guess: Array | None) -> Array:
        """``log sum_i exp(F_i - C_ij / reg)``; ``guess`` is that of an ``F`` nearby."""
        self.passes += 1
        logs, self.E = _columns(self.S + F[:, None], self.xp)
        return logs

    def rows(self, F: Array, G: Array, c: Array, target: Array, share: float) -> Array:
        """Sums of the rows of the plan whose columns were asked for last; ``c`` are the sums of its columns."""
        return self.E @ c

    def product(self, k: float, rows: Array, c: Array) -> tuple[Action, Array]:
        """``d -> E diag(k c) E^T d`` and its diagonal."""
        E, scale = self.E, k * c
        return (lambda d: E @ (scale * (d @ E))), (E * E) @ scale


class Streamed:
    """Of points or a grid: nothing of the size of the cost is ever stored."""

    def __init__(self, geometry: Geometry, reg: float) -> None:
        self.geometry, self.xp, self.reg = geometry, geometry.xp, reg
        self.kernel, self.passes = geometry.kernel(reg), 0
        n, m = geometry.shape
        self.limit = max(_CAP * n, min(n * m, _ALWAYS_KEPT))
        self.pairs = geometry.pairs(geometry.x, reg, passes=None) if isinstance(geometry, PointCloud) else None
        self.tau_least = _TAU_LEAST
        self.plan: SparsePlan | None = None

    def row_logs(self, G: Array) -> Array:
        """``log sum_j exp(G_j - C_ij / reg)``."""
        self.passes += 1
        return self.kernel.rows(G, None)

    def columns(self, F: Array, guess: Array | None) -> Array:
        """``log sum_i exp(F_i - C_ij / reg)``; ``guess`` is that of an ``F`` nearby."""
        self.passes += 1
        return self.kernel.columns(F, guess)

    def rows(self, F: Array, G: Array, c: Array, target: Array, share: float) -> Array:
        """Sums of the rows of the plan, whose columns sum to ``c``; ``share`` is the error that is expected of it."""
        xp = self.xp
        self.passes += 1
        self.F, self.G, self.plan = F, G, None
        if self.pairs is None:
            return xp.exp(F + self.kernel.rows(G, None))
        tau = min(max(share, self.tau_least), _TAU_MOST)
        none = target <= 0
        weight = xp.where(none, _NOTHING, xp.log(xp.where(none, 1.0, target)))
        # As far below whatever the largest partner brings.
        F, G = (xp.where(xp.isfinite(x), x, -_NOTHING - xp.max(y)) for x, y in ((F, G), (G, F)))
        sums, entries = large_entries(self.pairs, F, G, weight, tau / min(c.shape[0], 100), self.limit)
        if entries is not None:
            self.plan = SparsePlan(entries, self.geometry.shape, xp)
        elif tau < _TAU_MOST:
            self.tau_least = min(tau * _TAU_GROWTH, _TAU_MOST)
        else:
            # Too dense a plan at this regularisation.
            self.pairs = None
        return xp.astype(sums, F.dtype, copy=False)

    def product(self, k: float, rows: Array, c: Array) -> tuple[Action, Array]:
        """``d -> E diag(k c) E^T d`` and its diagonal."""
        xp, F, G, plan = self.xp, self.F, self.G, self.plan
        if plan is not None:
            weight = k * xp.where(c > 0, 1.0 / xp.where(c > 0, c, 1.0), 0.0)

            def by_entries(d: Array) -> Array:
                return xp.astype(plan.apply(weight * plan.adjoint(d)), d.dtype, copy=False)

            return by_entries, xp.astype(plan.squares(weight), rows.dtype, copy=False)

        def by_passes(d: Array) -> Array:
            self.passes += 2
            averages = self.kernel.column_average(F, d)
            averages = self.kernel.row_average(G, xp.where(c > 0, averages, 0.0))
            return k * xp.where(rows > 0, rows * averages, 0.0)

        # The squares of the kernel are the kernel of half the regularisation.
        self.passes += 1
        b = xp.where(c > 0, 2.0 * finite(G, xp) - xp.log(xp.where(c > 0, c, 1.0)), -math.inf)
        logs = self.geometry.kernel(0.5 * self.reg).rows(b, None)
        return by_passes, k * xp.exp(2.0 * F + logs)


def frozen_plan(geometry: Geometry, reg: float) -> Stored | Streamed:
    """What fits the cost."""
    return Stored(geometry, reg) if isinstance(geometry, Dense) else Streamed(geometry, reg)


def _columns(X: Array, xp: Namespace) -> tuple[Array, Array]:
    """Log-sum-exps of the columns, and the exponentials over their sums."""
    top = xp.max(X, axis=0)
    top = xp.where(xp.isfinite(top), top, 0.0)
    E = xp.exp(X - top[None, :])
    total = xp.sum(E, axis=0)
    empty = total == 0
    safe = xp.where(empty, 1.0, total)
    return xp.where(empty, -math.inf, xp.log(safe) + top), E / safe[None, :]

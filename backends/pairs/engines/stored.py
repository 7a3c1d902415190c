"""The kernel matrix kept in memory: computed once, tile by tile, then every pass is one matrix product."""

from __future__ import annotations

from typing import Any

from ...namespace import Array
from ..plan import build, choose_tiles, on_host
from ..problem import PairProblem


class Stored:
    """Sums by the stored matrix; the other reductions, whose exp depends on ``b``, stay with the tiles."""

    name = "stored"

    def __init__(self, problem: PairProblem) -> None:
        self.problem, self.xp = problem, problem.xp
        name, _ = choose_tiles(problem, "sum", 1)
        self.tiles: Any = build(name if on_host(problem) else "array", problem)
        self._matrix: Array | None = None

    @property
    def matrix(self) -> Array:
        """The (n, m) kernel matrix, computed at first use."""
        if self._matrix is None:
            self._matrix = self._compute()
        return self._matrix

    def _compute(self) -> Array:
        n, m, _ = self.problem.shape
        tiles, xp = self.tiles, self.xp
        if hasattr(tiles, "fill"):
            matrix = xp.empty((n, m), dtype=self.problem.x.dtype)
            tiles.fill(matrix)
            return matrix
        rows = []
        for i in range(0, n, tiles.rows):
            rows.append(xp.concat([tiles.tile(i, j, log=False) for j in range(0, m, tiles.columns)], axis=1))
        return xp.concat(rows, axis=0)

    def sum(self, v: Array) -> Array:
        """See `Engine.sum`."""
        return self.matrix @ v if 0 not in self.problem.shape[:2] else self.tiles.sum(v)

    def transposed_sum(self, u: Array) -> Array:
        """``sum_i k(x_i, y_j) u_i``, from the same matrix."""
        return self.matrix.T @ u

    def logsumexp(self, b: Array, guess: Array | None = None) -> Array:
        """See `Engine.logsumexp`."""
        return self.tiles.logsumexp(b, guess)

    def softmax_sum(self, b: Array, v: Any) -> tuple[Array, Array]:
        """See `Engine.softmax_sum`."""
        values, logs = self.tiles.softmax_sum(b, v)
        return values, logs

    def nearest(self, k: int) -> tuple[Array, Array]:
        """See `Engine.nearest`."""
        indices, values = self.tiles.nearest(k)
        return indices, values

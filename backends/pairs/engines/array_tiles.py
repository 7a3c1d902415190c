"""Tiles in plain array API: works for every library, kernel and metric, and is the reference for the other engines."""

from __future__ import annotations

import math
from functools import cached_property

from ...namespace import Array, device, has_float64, is_gpu
from ..precision import centred
from ..problem import PairProblem

# Entries of one tile: small enough for a CPU cache, large enough that a GPU is busy.
_HOST_TILE, _GPU_TILE = 2**17, 2**24


class ArrayTiles:
    """Row blocks against all columns (or column blocks too, when a row block alone would be larger than a tile)."""

    name = "array"

    def __init__(self, problem: PairProblem) -> None:
        self.problem, self.xp = problem, problem.xp
        n, m, _ = problem.shape
        tile = _GPU_TILE if is_gpu(problem.x) else _HOST_TILE
        self.columns = min(max(m, 1), 2**11 if tile == _HOST_TILE else 2**13)
        self.rows = max(1, min(max(n, 1), tile // self.columns))
        self.wide = self.xp.float64 if has_float64(problem.x, self.xp) else problem.x.dtype

    @cached_property
    def _centred(self) -> tuple[Array, Array]:
        return centred(self.problem)

    @property
    def x(self) -> Array:
        """Points of the rows about the common centre."""
        return self._centred[0]

    @property
    def y(self) -> Array:
        """Points of the columns about the common centre."""
        return self._centred[1]

    # -- tiles ---------------------------------------------------------------------------------------------------

    def metric(self, x: Array, y: Array) -> Array:
        """The metric between two tiles of points, by direct differences where an expansion would lose digits."""
        xp, kind = self.xp, self.problem.kernel.metric
        if callable(kind):
            return kind(x, y)
        if kind == "dot":
            return x @ y.T
        if kind == "sqeuclidean" and x.shape[1] > 16 and not self.problem.direct:
            squares = xp.sum(x * x, axis=1)[:, None] + xp.sum(y * y, axis=1)[None, :]
            return xp.maximum(squares - 2.0 * (x @ y.T), 0.0)
        total = xp.zeros((x.shape[0], y.shape[0]), dtype=x.dtype, device=device(x))
        for k in range(x.shape[1]):
            difference = x[:, k][:, None] - y[:, k][None, :]
            total = total + (xp.abs(difference) if kind == "cityblock" else difference * difference)
        return xp.sqrt(total) if kind == "euclidean" else total

    def _points(self, i: int, j: int) -> tuple[Array, Array]:
        # The standard leaves a slice beyond the end undefined.
        n, m, _ = self.problem.shape
        return self.x[i : min(i + self.rows, n), :], self.y[j : min(j + self.columns, m), :]

    def _self_pairs(self, i: int, j: int, shape: tuple[int, ...]) -> Array:
        xp, where = self.xp, device(self.x)
        rows = xp.arange(i, i + shape[0], device=where)
        return rows[:, None] == xp.arange(j, j + shape[1], device=where)[None, :]

    def tile(self, i: int, j: int, *, log: bool) -> Array:
        """Kernel (or its logarithm) between row block ``i`` and column block ``j``."""
        xp, problem = self.xp, self.problem
        t = self.metric(*self._points(i, j)) * problem.kernel.scale
        t = problem.kernel.log(t, xp) if log else problem.kernel.value(t, xp)
        if t.dtype != problem.x.dtype:
            t = xp.astype(t, problem.x.dtype)
        if problem.exclude_self:
            t = xp.where(self._self_pairs(i, j, t.shape), -math.inf if log else 0.0, t)
        return t

    # -- reductions ----------------------------------------------------------------------------------------------

    def sum(self, v: Array) -> Array:
        xp, (n, m, _) = self.xp, self.problem.shape
        blocks = []
        for i in range(0, n, self.rows):
            height = min(self.rows, n - i)
            total = xp.zeros((height, v.shape[1]), dtype=self.wide, device=device(v))
            for j in range(0, m, self.columns):
                part = self.tile(i, j, log=False) @ v[j : min(j + self.columns, m), :]
                total = total + xp.astype(part, self.wide)
            blocks.append(xp.astype(total, v.dtype))
        return xp.concat(blocks, axis=0) if blocks else xp.zeros((0, v.shape[1]), dtype=v.dtype, device=device(v))

    def logsumexp(self, b: Array, guess: Array | None = None) -> Array:
        return self.softmax_sum(b, None)[1]

    def softmax_sum(self, b: Array, v: Array | None) -> tuple[Array, Array]:
        xp, (n, m, _) = self.xp, self.problem.shape
        where, dtype = device(b), b.dtype
        r = 0 if v is None else v.shape[1]
        values, logs = [], []
        for i in range(0, n, self.rows):
            height = min(self.rows, n - i)
            top = xp.full((height,), -math.inf, dtype=dtype, device=where)
            mass = xp.zeros((height,), dtype=self.wide, device=where)
            acc = xp.zeros((height, r), dtype=self.wide, device=where)
            for j in range(0, m, self.columns):
                t = self.tile(i, j, log=True) + b[None, j : min(j + self.columns, m)]
                new = xp.maximum(top, xp.max(t, axis=1))
                # A row that has seen no mass yet keeps -inf as its maximum; subtract 0 there, not -inf.
                safe = xp.where(xp.isfinite(new), new, 0.0)
                e = xp.exp(t - safe[:, None])
                shrink = xp.astype(xp.exp(xp.where(xp.isfinite(top), top - safe, -math.inf)), self.wide)
                mass = mass * shrink + xp.sum(e, axis=1, dtype=self.wide)
                if v is not None:
                    acc = acc * shrink[:, None] + xp.astype(e @ v[j : min(j + self.columns, m), :], self.wide)
                top = new
            positive = mass > 0
            safe_mass = xp.where(positive, mass, 1.0)
            logs.append(xp.where(positive, top + xp.astype(xp.log(safe_mass), dtype), -math.inf))
            values.append(xp.astype(acc / safe_mass[:, None], dtype))
        if not logs:
            return xp.zeros((0, r), dtype=dtype, device=where), xp.zeros((0,), dtype=dtype, device=where)
        return xp.concat(values, axis=0), xp.concat(logs, axis=0)

    def nearest(self, k: int) -> tuple[Array, Array]:
        xp, (n, m, _) = self.xp, self.problem.shape
        similarity = self.problem.kernel.metric == "dot"
        if n == 0:
            where = device(self.x)
            return xp.zeros((0, k), dtype=xp.int64, device=where), xp.zeros(
                (0, k), dtype=self.problem.x.dtype, device=where
            )
        indices, distances = [], []
        for i in range(0, n, self.rows):
            parts = []
            for j in range(0, m, self.columns):
                t = self.metric(*self._points(i, j))
                t = -t if similarity else t
                parts.append(xp.where(self._self_pairs(i, j, t.shape), math.inf, t) if self.problem.exclude_self else t)
            row = xp.concat(parts, axis=1)
            order = xp.argsort(row, axis=1)[:, :k]
            indices.append(order)
            best = xp.take_along_axis(row, order, axis=1)
            distances.append(xp.astype(-best if similarity else best, self.problem.x.dtype))
        return xp.concat(indices, axis=0), xp.concat(distances, axis=0)

"""Rows in chunks, each a dask task on a local engine: for a dask cluster, or a scheduler of the user's (extra ``dask``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import MissingDependencyError
from ..plan import build, choose_tiles
from ..problem import PairProblem

# One task should take tens of milliseconds, or the scheduler costs more than it distributes.
_PAIRS_PER_TASK = 20_000_000


class DaskRows:
    """The reduction distributes, the solver stays where it is; results are host arrays."""

    name = "dask"

    def __init__(self, problem: PairProblem) -> None:
        try:
            import dask
        except ImportError as err:
            raise MissingDependencyError.for_extra("dask", "dask", "engine='dask'") from err
        self.dask, self.problem = dask, problem

    def _over_rows(self, reduce: Callable[[Any, slice], tuple[np.ndarray, ...]]) -> list[np.ndarray]:
        n, m, _ = self.problem.shape
        # Left-out pairs are counted from the first row, so such a problem is one chunk.
        rows = n if self.problem.exclude_self else max(1, _PAIRS_PER_TASK // max(m, 1))
        chunks = [slice(i, min(i + rows, n)) for i in range(0, n, max(rows, 1))] or [slice(0, 0)]

        tiles, _ = choose_tiles(self.problem, "sum", None)

        def task(rows: slice) -> tuple[np.ndarray, ...]:
            return reduce(build(tiles, replace(self.problem, x=self.problem.x[rows], threads=1)), rows)

        parts = self.dask.compute(*(self.dask.delayed(task, pure=False)(rows) for rows in chunks))
        return [np.concatenate(column, axis=0) for column in zip(*parts, strict=True)]

    def sum(self, v: np.ndarray) -> np.ndarray:
        """See `Engine.sum`."""
        return self._over_rows(lambda engine, _: (engine.sum(v),))[0]

    def logsumexp(self, b: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
        """See `Engine.logsumexp`."""
        return self._over_rows(lambda engine, rows: (engine.logsumexp(b, None if guess is None else guess[rows]),))[0]

    def softmax_sum(self, b: np.ndarray, v: Any) -> tuple[np.ndarray, np.ndarray]:
        """See `Engine.softmax_sum`."""
        values, logs = self._over_rows(lambda engine, _: engine.softmax_sum(b, v))
        return values, logs

    def nearest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Engine.nearest`."""
        indices, values = self._over_rows(lambda engine, _: engine.nearest(k))
        return indices, values

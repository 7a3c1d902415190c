"""torch tensors on the CPU seen by the NumPy engines: the same memory, so nothing moves and nothing is copied.

Gradients do not pass through a view: where one is asked for, the tiles in torch's own operations answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import array_api_compat
import numpy as np

from ...namespace import Array, device, is_torch
from ..problem import PairProblem
from .array_tiles import ArrayTiles


def sees(problem: PairProblem) -> bool:
    """Whether the points are tensors in host memory that no gradient is asked of."""
    if not is_torch(problem.xp) or device(problem.x).type != "cpu" or callable(problem.kernel.metric):
        return False
    return not _differentiable(problem.x, problem.y)


class HostView:
    """A host engine under tensors."""

    def __init__(self, problem: PairProblem, engine: type) -> None:
        xp = array_api_compat.array_namespace(np.empty(0))
        self.problem = problem
        self.engine = engine(replace(problem, x=problem.x.detach().numpy(), y=problem.y.detach().numpy(), xp=xp))
        self.name = self.engine.name

    def sum(self, v: Array) -> Array:
        """See `Engine.sum`."""
        return self._answer("sum", v)

    def logsumexp(self, b: Array, guess: Array | None = None) -> Array:
        """See `Engine.logsumexp`."""
        return self._answer("logsumexp", b, guess)

    def softmax_sum(self, b: Array, v: Array) -> tuple[Array, Array]:
        """See `Engine.softmax_sum`."""
        values, logs = self._answer("softmax_sum", b, v)
        return values, logs

    def nearest(self, k: int) -> tuple[Array, Array]:
        """See `Engine.nearest`."""
        indices, values = self._answer("nearest", k)
        return indices, values

    def fill(self, matrix: Array) -> None:
        """Write the whole kernel matrix."""
        self.engine.fill(matrix.numpy())

    def _answer(self, reduction: str, *arguments: Any) -> Any:
        import torch

        if _differentiable(*arguments):
            return getattr(ArrayTiles(self.problem), reduction)(*arguments)
        views = [a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in arguments]
        answer = getattr(self.engine, reduction)(*views)
        return tuple(map(torch.from_numpy, answer)) if isinstance(answer, tuple) else torch.from_numpy(answer)


def _differentiable(*arrays: Any) -> bool:
    import torch

    return torch.is_grad_enabled() and any(isinstance(a, torch.Tensor) and a.requires_grad for a in arrays)

"""NumPy tiles whose exp is torch's: two to three times faster in float64, on the same memory."""

from __future__ import annotations

import numpy as np

from ...errors import MissingDependencyError
from ..problem import PairProblem
from .gemm_tiles import TileMath
from .numpy_tiles import NumpyTiles


class TorchMath(TileMath):
    """``torch.exp`` on the tile, without a copy; each of our threads lets torch use one."""

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as err:
            raise MissingDependencyError.for_extra("torch", "torch", "engine='torch'") from err
        self.torch = torch

    def exp_(self, T: np.ndarray, out: np.ndarray) -> None:
        tensor = self.torch.from_numpy(T)
        if out is T:
            self.torch.exp(tensor, out=tensor)
        else:
            np.exp(T, out=out, dtype=out.dtype, casting="same_kind")


class TorchExpTiles(NumpyTiles):
    """See `NumpyTiles`."""

    name = "torch"

    def __init__(self, problem: PairProblem) -> None:
        super().__init__(problem)
        self.math = TorchMath()

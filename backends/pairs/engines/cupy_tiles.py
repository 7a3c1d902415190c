"""The GEMM tiles on a GPU: the same lines as on the host, with CuPy's functions and tiles that keep a device busy."""

from __future__ import annotations

from ...errors import InputError
from ...namespace import Array, is_cupy
from ..problem import PairProblem
from .gemm_tiles import GemmTiles, TileMath


class CupyTiles(GemmTiles):
    """See `GemmTiles`: a product, an exp and one more product for each tile of 64 MiB (float32)."""

    name = "cupy"
    # Three launches a tile: large enough that they do not show, small beside the memory of a device.
    side = 4096

    def __init__(self, problem: PairProblem) -> None:
        if not is_cupy(problem.xp):
            raise InputError(f"engine {self.name!r} works on CuPy arrays; use engine='array'")
        import cupy

        super().__init__(problem)
        self.lib, self.math, self.threads = cupy, CupyMath(), 1
        self.bm = self.bn = self.side


class CupyMath(TileMath):
    """CuPy's exp; ``out`` decides the precision."""

    def exp_(self, T: Array, out: Array) -> None:
        """``out = exp(T)``."""
        import cupy

        cupy.exp(T, out=out)

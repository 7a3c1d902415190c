"""NumPy's tiles with exp and the row sum fused into one compiled pass over the tile (extra ``numba``)."""

from __future__ import annotations

import numpy as np

from ..problem import PairProblem
from .exp_numba import exp_dot32, exp_dot64
from .numpy_tiles import NumpyTiles, TileMath

# The compiled exp covers exponents up to here; a tile beyond (a bad guess of a log-sum-exp) keeps NumPy's.
_LARGEST = {"float32": 88.0, "float64": 709.0}


class NumbaMath(TileMath):
    """One column is fused; several columns, and mixed precision, keep exp and BLAS apart."""

    def exp_sum(self, T: np.ndarray, out: np.ndarray, v: np.ndarray, acc: np.ndarray) -> None:
        """``acc += exp(T) @ v``."""
        if out is not T or v.shape[1] != 1 or not self.fits(T):
            super().exp_sum(T, out, v, acc)
        elif T.dtype == np.float32:
            exp_dot32(T, v[:, 0], acc)
        else:
            exp_dot64(T, v[:, 0], acc)

    def fits(self, T: np.ndarray) -> bool:
        """Whether the exponents are known to stay in the range of the compiled exp."""
        return True


class _Checked(NumbaMath):
    def fits(self, T: np.ndarray) -> bool:
        # Reading the maximum of a tile in cache is cheap beside its exp; NaN fails the comparison too.
        return bool(T.max() < _LARGEST[T.dtype.name])


class NumbaTiles(NumpyTiles):
    """See `NumpyTiles`."""

    name = "numba"

    def __init__(self, problem: PairProblem) -> None:
        super().__init__(problem)
        self.math = NumbaMath() if problem.kernel.metric == "sqeuclidean" else _Checked()

    def logsumexp(self, b: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
        """See `Engine.logsumexp`."""
        # With a guess the exponents may be anything; without, the row maximum bounds them by zero.
        math, self.math = self.math, _Checked() if guess is not None else NumbaMath()
        try:
            return super().logsumexp(b, guess)
        finally:
            self.math = math

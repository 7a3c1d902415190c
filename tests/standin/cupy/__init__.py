"""A stand-in for CuPy 13.6 over NumPy, for tests without a GPU: its names and its refusals, not its arithmetic or speed."""

from . import cuda, fft, linalg
from ._array import ndarray
from ._functions import FUNCTIONS
from ._kernel import RawKernel

__version__ = "13.6.0"
__all__ = ["RawKernel", "cuda", "fft", "linalg", "ndarray", *FUNCTIONS]

globals().update(FUNCTIONS)

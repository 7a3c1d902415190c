"""Structured systems: Kronecker, Toeplitz and kernel matrices, and Gaussian processes that solve PDEs."""

from .circulant import circulant_preconditioner
from .kronecker import KroneckerOperator, kronecker
from .kronecker_sum import KroneckerSum, kronecker_sum
from .toeplitz import ToeplitzOperator, toeplitz

__all__ = [
    "KroneckerOperator",
    "KroneckerSum",
    "ToeplitzOperator",
    "circulant_preconditioner",
    "kronecker",
    "kronecker_sum",
    "toeplitz",
]

"""Structured systems: Kronecker, Toeplitz and kernel matrices, and Gaussian processes that solve PDEs."""

from ._gp_run import GPSolution
from .circulant import circulant_preconditioner
from .gaussian_process import GaussianProcess
from .gp_pde import gp_pde
from .kernel import kernel_operator
from .kernel_ridge import KernelRidge, kernel_ridge
from .kronecker import KroneckerOperator, kronecker
from .kronecker_sum import KroneckerSum, kronecker_sum
from .toeplitz import ToeplitzOperator, toeplitz

__all__ = [
    "GPSolution",
    "GaussianProcess",
    "KernelRidge",
    "KroneckerOperator",
    "KroneckerSum",
    "ToeplitzOperator",
    "circulant_preconditioner",
    "gp_pde",
    "kernel_operator",
    "kernel_ridge",
    "kronecker",
    "kronecker_sum",
    "toeplitz",
]

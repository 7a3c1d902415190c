"""Preconditioners: approximate inverses as linear operators, for the argument ``M`` of every solver here and of SciPy's."""

from .block_jacobi import block_jacobi
from .incomplete import ic0, ilu
from .jacobi import jacobi
from .multigrid import multigrid
from .spectral import fast_poisson
from .ssor import ssor

__all__ = ["block_jacobi", "fast_poisson", "ic0", "ilu", "jacobi", "multigrid", "ssor"]

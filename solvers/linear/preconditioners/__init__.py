"""Preconditioners: approximate inverses as linear operators, for the argument ``M`` of every solver here and of SciPy's."""

from .amg import amg
from .block_jacobi import block_jacobi
from .incomplete import ic0, ilu
from .jacobi import jacobi
from .low_rank import LowRankInverse
from .multigrid import multigrid
from .nystrom import nystrom
from .polynomial import chebyshev_polynomial, estimate_bounds, neumann_polynomial
from .rpcholesky import rpcholesky
from .spectral import fast_poisson
from .ssor import ssor

__all__ = [
    "LowRankInverse",
    "amg",
    "block_jacobi",
    "fast_poisson",
    "ic0",
    "ilu",
    "jacobi",
    "multigrid",
    "nystrom",
    "rpcholesky",
    "ssor",
]

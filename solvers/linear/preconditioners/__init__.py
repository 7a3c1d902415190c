"""Preconditioners: approximate inverses as linear operators, for the argument ``M`` of every solver here and of SciPy's."""

from .amg import amg
from .block_jacobi import block_jacobi
from .gradient_methods import GradientResult, fast_gradient, krylov_gradient
from .incomplete import ic0, ilu
from .jacobi import jacobi
from .landmarks import landmarks
from .low_rank import LowRankInverse
from .multigrid import multigrid
from .nystrom import nystrom
from .polynomial import chebyshev_polynomial, estimate_bounds, neumann_polynomial
from .rpcholesky import rpcholesky
from .spectral import fast_poisson
from .ssor import ssor
from .symmetric_polynomial import elementary_symmetric, symmetric_polynomial

__all__ = [
    "GradientResult",
    "LowRankInverse",
    "amg",
    "block_jacobi",
    "chebyshev_polynomial",
    "elementary_symmetric",
    "estimate_bounds",
    "fast_gradient",
    "fast_poisson",
    "ic0",
    "ilu",
    "jacobi",
    "krylov_gradient",
    "landmarks",
    "multigrid",
    "neumann_polynomial",
    "nystrom",
    "rpcholesky",
    "ssor",
    "symmetric_polynomial",
]

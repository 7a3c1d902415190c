"""Preconditioners: approximate inverses as linear operators, for the argument ``M`` of every solver here and of SciPy's."""

from .multigrid import multigrid
from .spectral import fast_poisson

__all__ = ["fast_poisson", "multigrid"]

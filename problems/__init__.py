"""Problems with known answers, on any backend, for tests, benchmarks and users."""

from .graphs import HarmonicProblem, harmonic_labels
from .kde import gaussian_mixture
from .krylov_cases import KrylovCase, krylov_cases
from .linear import poisson2d, spd_with_condition
from .ot import circulant, uniform_clouds

__all__ = [
    "HarmonicProblem",
    "KrylovCase",
    "circulant",
    "gaussian_mixture",
    "harmonic_labels",
    "krylov_cases",
    "poisson2d",
    "spd_with_condition",
    "uniform_clouds",
]

"""Problems with known answers, on any backend, for tests, benchmarks and users."""

from .graphs import HarmonicProblem, harmonic_labels
from .kde import gaussian_mixture
from .linear import poisson2d, spd_with_condition
from .ot import circulant, uniform_clouds

__all__ = [
    "HarmonicProblem",
    "circulant",
    "gaussian_mixture",
    "harmonic_labels",
    "poisson2d",
    "spd_with_condition",
    "uniform_clouds",
]

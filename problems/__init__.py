"""Problems with known answers, on any backend, for tests, benchmarks and users."""

from .graphs import HarmonicProblem, harmonic_labels
from .kde import gaussian_mixture
from .krylov_cases import KrylovCase, krylov_cases
from .linear import poisson2d, spd_with_condition
from .ot import circulant, uniform_clouds
from .random_fields import (
    darcy_sequence,
    gaussian_random_field,
    helmholtz_sequence,
    published_darcy_sequence,
    two_parameter_darcy_sequence,
)
from .sequences import LinearSequence, convection_diffusion_sequence, poisson_sequence, thermal_sequence
from .transport import TransportProblem, cloud, digits_pair, lap, random_marginals, robustness_set
from .transport_exact import gaussian_histograms, gaussian_transport_value, two_by_two

__all__ = [
    "HarmonicProblem",
    "KrylovCase",
    "LinearSequence",
    "TransportProblem",
    "circulant",
    "cloud",
    "convection_diffusion_sequence",
    "darcy_sequence",
    "digits_pair",
    "gaussian_histograms",
    "gaussian_mixture",
    "gaussian_random_field",
    "gaussian_transport_value",
    "harmonic_labels",
    "helmholtz_sequence",
    "krylov_cases",
    "lap",
    "poisson2d",
    "poisson_sequence",
    "published_darcy_sequence",
    "random_marginals",
    "robustness_set",
    "spd_with_condition",
    "thermal_sequence",
    "two_by_two",
    "two_parameter_darcy_sequence",
    "uniform_clouds",
]

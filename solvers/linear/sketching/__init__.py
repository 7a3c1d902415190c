"""Random sketches: operators, least squares, low-rank approximation, traces, completion, projection."""

from .completion import CompletionResult, complete
from .least_squares import lstsq_sketched
from .operators import sketch
from .randomized_svd import nystrom_approximation, randomized_svd
from .sketch_project import sketch_project
from .trace import trace

__all__ = [
    "CompletionResult",
    "complete",
    "lstsq_sketched",
    "nystrom_approximation",
    "randomized_svd",
    "sketch",
    "sketch_project",
    "trace",
]

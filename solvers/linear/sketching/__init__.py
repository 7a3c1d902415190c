"""Random sketches: operators, least squares, low-rank approximation, traces, completion, projection."""

from .least_squares import lstsq_sketched
from .operators import sketch

__all__ = ["lstsq_sketched", "sketch"]

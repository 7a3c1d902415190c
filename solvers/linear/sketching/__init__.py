"""Random sketches: operators, least squares, low-rank approximation, traces, completion, projection."""

from .operators import sketch

__all__ = ["sketch"]

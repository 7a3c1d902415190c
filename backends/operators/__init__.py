"""Linear operators and the adapters that make them."""

from .adapters import as_operator
from .five_point import FivePoint
from .linear_operator import LinearOperator

__all__ = ["FivePoint", "LinearOperator", "as_operator"]

"""Linear operators and the adapters that make them."""

from .adapters import as_operator
from .linear_operator import LinearOperator

__all__ = ["LinearOperator", "as_operator"]

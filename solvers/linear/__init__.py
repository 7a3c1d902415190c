"""Linear systems."""

from .cg import cg
from .minres import minres

__all__ = ["cg", "minres"]

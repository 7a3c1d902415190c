"""Linear systems."""

from .cg import cg
from .lsmr import lsmr
from .lsqr import lsqr
from .minres import minres

__all__ = ["cg", "lsmr", "lsqr", "minres"]

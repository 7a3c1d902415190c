"""Linear systems."""

from .bicgstab import bicgstab
from .cg import cg
from .chebyshev import chebyshev
from .fgmres import fgmres
from .flexible_cg import flexible_cg
from .gmres import gmres
from .lsmr import lsmr
from .lsqr import lsqr
from .minres import minres
from .tfqmr import tfqmr

__all__ = [
    "bicgstab",
    "cg",
    "chebyshev",
    "fgmres",
    "flexible_cg",
    "gmres",
    "lsmr",
    "lsqr",
    "minres",
    "tfqmr",
]

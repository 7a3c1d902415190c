"""Linear systems."""

from .bicgstab import bicgstab
from .block import PathResult, block_cg, enlarged_cg, regularization_path
from .cg import cg
from .chebyshev import chebyshev
from .diffusion import solve_diffusion
from .fgmres import fgmres
from .flexible_cg import flexible_cg
from .gmres import gmres
from .lsmr import lsmr
from .lsqr import lsqr
from .minres import minres
from .mixed_cg import mixed_cg
from .recycling import (
    RecycleSpace,
    RecyclingResult,
    SequenceResult,
    block_gcrodr,
    deflated_cg,
    gcrodr,
    order_fft,
    order_greedy,
    recycled_minres,
    solve_sequence,
)
from .solve import solve
from .tfqmr import tfqmr

__all__ = [
    "PathResult",
    "RecycleSpace",
    "RecyclingResult",
    "SequenceResult",
    "bicgstab",
    "block_cg",
    "block_gcrodr",
    "cg",
    "chebyshev",
    "deflated_cg",
    "enlarged_cg",
    "fgmres",
    "flexible_cg",
    "gcrodr",
    "gmres",
    "lsmr",
    "lsqr",
    "minres",
    "mixed_cg",
    "order_fft",
    "order_greedy",
    "recycled_minres",
    "regularization_path",
    "solve",
    "solve_diffusion",
    "solve_sequence",
    "tfqmr",
]

"""Sequences of systems: solvers that remember, an order in which remembering pays, and drivers for whole sequences."""

from .block_gcrodr import block_gcrodr
from .deflated_cg import deflated_cg
from .gcrodr import gcrodr
from .recycled_minres import recycled_minres
from .sequence import SequenceResult, solve_sequence
from .sorting import order_fft, order_greedy
from .space import RecycleSpace, RecyclingResult

__all__ = [
    "RecycleSpace",
    "RecyclingResult",
    "SequenceResult",
    "block_gcrodr",
    "deflated_cg",
    "gcrodr",
    "order_fft",
    "order_greedy",
    "recycled_minres",
    "solve_sequence",
]

"""Sequences of systems: solvers that remember, an order in which remembering pays, and drivers for whole sequences."""

from .gcrodr import gcrodr
from .space import RecycleSpace, RecyclingResult

__all__ = ["RecycleSpace", "RecyclingResult", "gcrodr"]

"""Optimal transport."""

from .geometry import Dense, PointCloud
from .sinkhorn import SinkhornResult, sinkhorn

__all__ = ["Dense", "PointCloud", "SinkhornResult", "sinkhorn"]

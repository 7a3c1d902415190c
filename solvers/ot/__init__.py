"""Optimal transport."""

from .geometry import Dense, PointCloud
from .result import TransportResult
from .sinkhorn import sinkhorn

__all__ = ["Dense", "PointCloud", "TransportResult", "sinkhorn"]

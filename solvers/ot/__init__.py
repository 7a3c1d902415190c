"""Optimal transport."""

from .batch import BatchResult, sinkhorn_batch
from .geometry import Dense, PointCloud
from .result import TransportResult
from .sinkhorn import sinkhorn

__all__ = ["BatchResult", "Dense", "PointCloud", "TransportResult", "sinkhorn", "sinkhorn_batch"]

"""Optimal transport."""

from .batch import BatchResult, sinkhorn_batch
from .cloud_newton import cloud_newton
from .divergence import sinkhorn_divergence, sinkhorn_divergence_from_costs
from .geometry import Dense, PointCloud
from .gradients import gradients
from .grid import Grid
from .implicit import plan_vjp, potentials_vjp, sharp_cost
from .kernel_sinkhorn import kernel_sinkhorn
from .newton import newton
from .result import TransportResult
from .self_transport import self_transport
from .sinkhorn import sinkhorn
from .sns import sns
from .solve import solve
from .unbalanced import unbalanced

__all__ = [
    "BatchResult",
    "Dense",
    "Grid",
    "PointCloud",
    "TransportResult",
    "cloud_newton",
    "gradients",
    "kernel_sinkhorn",
    "newton",
    "plan_vjp",
    "potentials_vjp",
    "self_transport",
    "sharp_cost",
    "sinkhorn",
    "sinkhorn_batch",
    "sinkhorn_divergence",
    "sinkhorn_divergence_from_costs",
    "sns",
    "solve",
    "unbalanced",
]

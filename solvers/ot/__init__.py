"""Optimal transport."""

from .barycenter import BarycenterResult, barycenter
from .batch import BatchResult, sinkhorn_batch
from .cloud_newton import cloud_newton
from .divergence import DivergenceResult, sinkhorn_divergence, sinkhorn_divergence_from_costs
from .exact import ExactResult, solve_exact, transport_1d
from .free_support import FreeSupportResult, free_support_barycenter
from .geometry import Dense, PointCloud
from .gradients import gradients
from .grid import Grid
from .implicit import SharpCost, plan_vjp, potentials_vjp, sharp_cost
from .kernel_sinkhorn import kernel_sinkhorn
from .newton import newton
from .result import TransportResult
from .rounding import bounds, round_to_polytope
from .self_transport import self_transport
from .separable import grid_costs
from .sinkhorn import sinkhorn
from .sns import sns
from .solve import solve
from .unbalanced import unbalanced
from .unbalanced_problem import UnbalancedResult

__all__ = [
    "BarycenterResult",
    "BatchResult",
    "Dense",
    "DivergenceResult",
    "ExactResult",
    "FreeSupportResult",
    "Grid",
    "PointCloud",
    "SharpCost",
    "TransportResult",
    "UnbalancedResult",
    "barycenter",
    "bounds",
    "cloud_newton",
    "free_support_barycenter",
    "gradients",
    "grid_costs",
    "kernel_sinkhorn",
    "newton",
    "plan_vjp",
    "potentials_vjp",
    "round_to_polytope",
    "self_transport",
    "sharp_cost",
    "sinkhorn",
    "sinkhorn_batch",
    "sinkhorn_divergence",
    "sinkhorn_divergence_from_costs",
    "sns",
    "solve",
    "solve_exact",
    "transport_1d",
    "unbalanced",
]

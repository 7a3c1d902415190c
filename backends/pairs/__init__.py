"""Reductions over all pairs of two point sets: kernels, engines, and the planner that picks one."""

from .kernels import Kernel
from .makers import (
    biweight,
    cauchy,
    epanechnikov,
    exponential,
    gaussian,
    laplace,
    matern,
    tophat,
    triangle,
    triweight,
)
from .one_pass import kernel_sum, logsumexp, nearest, softmax_sum
from .pairs import Pairs
from .plan import Plan

__all__ = [
    "Kernel",
    "Pairs",
    "Plan",
    "biweight",
    "cauchy",
    "epanechnikov",
    "exponential",
    "gaussian",
    "kernel_sum",
    "laplace",
    "logsumexp",
    "matern",
    "nearest",
    "softmax_sum",
    "tophat",
    "triangle",
    "triweight",
]

"""Kernel density estimation: densities, their gradients, leave-one-out likelihood and bandwidths."""

from .bandwidth import BandwidthResult, loo_bandwidth
from .density import GaussianKDE

__all__ = ["BandwidthResult", "GaussianKDE", "loo_bandwidth"]

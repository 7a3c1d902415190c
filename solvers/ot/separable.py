"""Costs that are sums over the axes of a grid, and their kernel applied one axis after the other, to logarithms.

No matrix of all pairs of pixels exists (Solomon et al. 2015). Products with the kernel itself are fast; where one underflows it
is done again by log-sum-exps, which lose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...backends.namespace import Array, Namespace, array_namespace, device
from ...backends.special import logsumexp
from ...backends.transfer import host_float
from ...backends.validation import check_count, check_scalar

# Products above this lost nothing that matters to underflow.
_FLOOR = {"float64": 1e-280, "float32": 1e-30}
_TILE = 2**20


def grid_costs(shape: Sequence[int], *, like: Array, p: float = 2.0, extent: float = 1.0) -> list[Array]:
    """Costs ``|s - t|^p`` along each axis of a regular grid, whose sum is the cost between its points.

    Parameters
    ----------
    shape : sequence of int
        Points along each axis.
    like : array
        Decides library, dtype and device.
    p : float
        Power, positive.
    extent : float
        Length of the longest axis; the spacing is the same on all.

    Returns
    -------
    list of array (n_i, n_i)
        For `barycenter`.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.separable import grid_costs
    >>> grid_costs((3,), like=np.zeros(1))[0].tolist()
    [[0.0, 0.25, 1.0], [0.25, 0.0, 0.25], [1.0, 0.25, 0.0]]
    """
    xp = array_namespace(like=like)
    lengths = [check_count(n, "shape") for n in shape]
    p, extent = check_scalar(p, "p", positive=True), check_scalar(extent, "extent", positive=True)
    spacing = extent / max(max(lengths) - 1, 1)
    lines = [xp.arange(n, dtype=like.dtype, device=device(like)) * spacing for n in lengths]
    return [xp.abs(line[:, None] - line[None, :]) ** p for line in lines]


class SeparableKernel:
    """``exp(-C / reg)`` for a cost that is a sum over axes.

    ``domain`` is "kernel" (products), "log", or "auto": products until one underflows.
    """

    def __init__(self, costs: list[Array], reg: float, domain: str, xp: Namespace) -> None:
        self.xp, self.applications = xp, 0
        self.exponents = [-C / reg for C in costs]
        self.kernels = None if domain == "log" else [xp.exp(S) for S in self.exponents]
        single = costs[0].dtype == xp.float32
        self.floor = _FLOOR["float32" if single else "float64"] if domain == "auto" else -1.0
        self.domain = "log" if domain == "log" else "kernel"

    def apply(self, x: Array, *, transposed: bool = False) -> Array:
        """Logarithm of the kernel applied to ``exp(x)``, along each axis of ``x`` but the first."""
        xp = self.xp
        self.applications += 1
        if self.kernels is not None:
            logs, least = _apply(x, [K.T if transposed else K for K in self.kernels], xp)
            if self.floor < 0 or host_float(least) > self.floor:
                return logs
            self.domain = "log"
        return _apply_log(x, [S.T if transposed else S for S in self.exponents], xp)


def _apply(x: Array, kernels: list[Array], xp: Namespace) -> tuple[Array, Array]:
    """Logarithm of the kernel applied to ``exp(x)`` along each axis but the first, and the least product."""
    top = xp.max(xp.reshape(x, (x.shape[0], -1)), axis=1)
    top = xp.reshape(xp.where(xp.isfinite(top), top, 0.0), (-1,) + (1,) * (x.ndim - 1))
    values = xp.exp(x - top)
    for axis, K in enumerate(kernels, start=1):
        values = xp.moveaxis(xp.moveaxis(values, axis, -1) @ K.T, -1, axis)
    empty = values <= 0
    return xp.where(empty, -math.inf, xp.log(xp.where(empty, 1.0, values)) + top), xp.min(values)


def _apply_log(x: Array, exponents: list[Array], xp: Namespace) -> Array:
    """The same by log-sum-exps, a tile at a time: whatever the exponents, nothing is lost."""
    for axis, S in enumerate(exponents, start=1):
        lines = xp.moveaxis(x, axis, -1)
        flat = xp.reshape(lines, (-1, S.shape[1]))
        count, step = flat.shape[0], max(1, _TILE // (S.shape[0] * S.shape[1]))
        tiles = [
            logsumexp(flat[i : min(i + step, count), None, :] + S[None, :, :], axis=2, xp=xp)
            for i in range(0, count, step)
        ]
        x = xp.moveaxis(xp.reshape(xp.concat(tiles, axis=0), lines.shape), -1, axis)
    return x

"""The semi-dual of entropic transport on a stored cost: values, gradients and Newton directions from a frozen plan.

With ``G(F)`` the exact column update, ``D(F) = <a, F> + <b, G(F)>`` is concave with gradient ``a - r`` and
``-Hess = (diag(r) - P diag(1/b) P^T) / eps``. Between two exponential passes all of it is matrix-vector products: if
``E = exp((F0 + G0 - C) / eps)`` is stored, the plan of ``F`` is ``diag(u) E diag(s)`` with ``u = exp((F - F0) / eps)`` and
``s = b / (E^T u)``; only when ``u`` or ``s`` grow large is ``E`` built anew (absorption, Schmitzer 2019).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ...backends.namespace import Array
from ...backends.transfer import host_float, to_host
from ...backends.validation import unwarned
from .jacobi_cg import jacobi_cg
from .support import Support
from .tiles import Tiles


class Point(NamedTuple):
    """The semi-dual at ``F``: the plan is ``diag(u) E diag(s)`` of the ``E`` with this stamp, its columns exact, its rows ``r``;
    ``err`` is what these miss in all, ``least`` the least of ``r / a``."""

    F: Array
    G: Array
    u: Array
    s: Array
    r: Array
    value: float
    err: float
    least: float
    stamp: int


class SemiDual:
    """Evaluations at one ``eps`` after another; the stored ``E`` belongs to ``(F0, G0, eps)``."""

    def __init__(self, part: Support) -> None:
        self.xp, self.a, self.b = part.xp, part.a, part.b
        self.log_b = self.xp.log(part.b)
        self.tiles = Tiles(part.C, part.a.dtype, part.xp)
        self.tau = 20.0 if part.C.dtype == self.xp.float32 else 60.0
        self.eps, self.evaluations, self.cg = 0.0, 0, 0

    def restart(self, G: Array, eps: float) -> Point | None:
        """The row update for ``G`` at ``eps``, and the point there."""
        with unwarned():
            self.F0, self.G0, self.eps = self.tiles.fill_rows(self.a, G, eps), G, eps
        return self.at(self.F0)

    def at(self, F: Array, G: Array | None = None) -> Point | None:
        """The point at ``F`` (``G`` a guess of its partner); None where a sum is not finite."""
        xp, eps = self.xp, self.eps
        self.evaluations += 1
        with unwarned():
            for attempt in range(4):
                log_u = (F - self.F0) / eps
                far = host_float(xp.max(xp.abs(log_u)))
                if not far <= self.tau:
                    if attempt or not far < math.inf:
                        return None
                    self._absorb(F, self.G0 if G is None else G)
                    log_u = xp.zeros_like(F)
                u = xp.exp(log_u)
                c = self.tiles.columns(u)
                log_s = self.log_b - xp.log(c)
                new = self.G0 + eps * log_s
                size = host_float(xp.max(xp.abs(log_s)))
                if not size < 1e4:
                    return None
                if size <= self.tau or attempt == 3:
                    break
                self._absorb(F, new)
            s = self.b / c
            r = u * self.tiles.rows(s)
            value = xp.sum(self.a * F) + xp.sum(self.b * new)
            # One transfer for all three.
            value, err, least = (
                float(v) for v in to_host(xp.stack([value, xp.sum(xp.abs(self.a - r)), xp.min(r / self.a)]))
            )
        return Point(F, new, u, s, r, value, err, least, self.tiles.passes) if err < 1e300 and least > 0 else None

    def current(self, point: Point) -> bool:
        """Whether ``E`` is still the one of this point."""
        return point.stamp == self.tiles.passes

    def violation(self, F: Array, G: Array) -> float:
        """``|P 1 - a|_1 + |P^T 1 - b|_1`` of these potentials, by a pass of its own."""
        xp = self.xp
        with unwarned():
            self._absorb(F, G)
            ones_n, ones_m = xp.ones_like(F), xp.ones_like(G)
            rows, columns = self.tiles.rows(ones_m), self.tiles.columns(ones_n)
            return host_float(xp.sum(xp.abs(rows - self.a)) + xp.sum(xp.abs(columns - self.b)))

    def _absorb(self, F: Array, G: Array) -> None:
        self.tiles.fill(F, G, self.eps)
        self.F0, self.G0 = F, G

    def direction(self, point: Point, forcing: float, maxiter: int = 1000) -> Array:
        """``eps x`` with ``(diag(r + sig (r + 1/n)) - P diag(1/b) P^T) x = a - r`` by Jacobi-preconditioned CG.

        Stops when the L1 residual has fallen by ``forcing``; the damping ``sig`` vanishes with the error. Its part that
        all rows share holds those whose weight is far below the error: the residual does not see them, and a step would lose them.
        """
        xp, u, s, tiles = self.xp, point.u, point.s, self.tiles
        sig = 1e-3 * min(1.0, point.err)
        weight = s * s / self.b
        r = point.r
        damping = sig * (r + 1.0 / r.shape[0])
        diagonal = r + damping
        scale = xp.maximum(r - u * u * tiles.squares(weight), xp.zeros_like(r)) + damping
        scale = 1.0 / xp.maximum(scale, 1e-12 * xp.max(r))

        def apply(p: Array) -> Array:
            return diagonal * p - u * tiles.rows(weight * tiles.columns(u * p))

        x, done = jacobi_cg(apply, scale, self.a - r, forcing * point.err, maxiter, xp=xp)
        self.cg += done
        return self.eps * x

    def counts(self) -> dict[str, int]:
        """What was done so far."""
        return {"exp_passes": self.tiles.passes, "evaluations": self.evaluations, "cg": self.cg}

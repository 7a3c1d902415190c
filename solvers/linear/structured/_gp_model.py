"""What the Gaussian processes of PDEs share on an interval and on a rectangle: parameters, bounds, scales, diagonal sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ....backends.errors import InputError
from ....backends.namespace import Array, Namespace, device
from ....backends.transfer import host_float, to_host
from .spectral_kernels import SpectralKernel, Tables

Reaction = Callable[[Array], tuple[Array, Array]]

# Relative noise of the boundary values: least, first, most. Without an upper bound all data become noise, without a lower
# one the likelihood grows for ever.
_GAP_NOISE = (1e-4, 1.0, 1.0)
# Bounds of log w about the mean prior variance; 12 below is pruned.
_LOG_W = (-12.0, 10.0)
_LOG_RHO_LEAST = -6.0
# Decay of a component over one grid step, at most: a whiter one makes any source a solution of any size.
_STEEPEST = 0.5
_SAME, _HALVINGS = 1e-9, 20
# Second differences, relative to the solution, below which an axis is a straight line and tells nothing.
STRAIGHT = 1e-4


@dataclass(frozen=True, eq=False)
class Solution:
    """The profiled unknown at one set of parameters, and what its gradient needs."""

    theta: Any
    u: Array
    alpha: Array
    r: Array
    gap: Array
    loss: float
    kernels: tuple[SpectralKernel, ...]
    tables: tuple[Tables, ...]
    factors: tuple[Any, ...]


class Model:
    """Data, grids and parameters ``theta = (log_w, log_rho, mu of each axis, log tau, log v)``.

    Parameters
    ----------
    grids : tuple of arrays (n_i,)
        Uniform grids.
    source, boundary : array (n_1, ...)
        Right-hand side, and an array whose edge entries are the boundary values.
    second, first : tuple of arrays
        Coefficients of the second and first derivatives along each axis, broadcastable to the grid.
    zeroth : array
        Coefficient of ``u``.
    nonlinearity : callable, optional
        ``u -> (c(u), c'(u))``.
    kind, components, frequency, weight, jitter, noise
        See `gp_pde`.
    xp : namespace
        Of the arrays.
    """

    def __init__(
        self,
        grids: tuple[Array, ...],
        source: Array,
        boundary: Array,
        *,
        second: Sequence[Array],
        first: Sequence[Array],
        zeroth: Array,
        nonlinearity: Reaction | None,
        kind: str,
        components: int,
        frequency: Sequence[float],
        weight: float,
        jitter: float,
        noise: tuple[float, float],
        xp: Namespace,
    ) -> None:
        self.grids, self.source, self.boundary, self.xp = grids, source, boundary, xp
        self.shape = tuple(source.shape)
        self.second, self.first, self.zeroth = second, first, zeroth
        self.has_first = any(host_float(xp.max(xp.abs(a))) > 0 for a in first)
        self.has_zeroth = host_float(xp.max(xp.abs(zeroth))) > 0
        self.nonlinearity, self.linear = nonlinearity, nonlinearity is None
        self.kind, self.components, self.frequency = kind, components, tuple(frequency)
        self.weight, self.jitter, self._relative_jitter = weight, jitter, jitter
        self.scale = 1.0
        self._noise = (noise[0], math.sqrt(noise[0] * noise[1]), noise[1])
        self.steps: list[float] = []
        self.lags: list[Array] = []
        self.eye: list[Array] = []
        self._index: list[Array] = []
        for x in grids:
            n = x.shape[0]
            step = (host_float(x[-1]) - host_float(x[0])) / (n - 1)
            k = xp.arange(n, device=device(x))
            self.steps.append(step)
            self.lags.append(xp.astype(k, x.dtype) * step)
            self.eye.append(xp.eye(n, dtype=x.dtype, device=device(x)))
            self._index.append(xp.reshape(k[:, None] - k[None, :] + (n - 1), (-1,)))
        self.source_size: float = math.sqrt(host_float(xp.mean(source * source)))

    def toeplitz(self, lags: Array, sign: float, axis: int) -> Array:
        """The matrix with ``lags[i - j]`` below the diagonal and ``sign`` times its mirror image above."""
        n = lags.shape[0]
        both = self.xp.concat([sign * self.xp.flip(lags[1:]), lags])
        return self.xp.reshape(self.xp.take(both, self._index[axis], axis=0), (n, n))

    def reaction(self, u: Array) -> tuple[Array, Array | None]:
        """``a0 u + c(u)`` and its derivative; None for a derivative that is zero."""
        if self.nonlinearity is None:
            return (self.zeroth * u, self.zeroth + self.xp.zeros_like(u)) if self.has_zeroth else (0.0 * u, None)
        pair: Any = self.nonlinearity(u)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"nonlinearity returned a {type(pair).__name__}, expected the pair (c(u), c'(u))")
        value, slope = pair
        return self.zeroth * u + value, self.zeroth + slope

    def unpack(self, theta: Any) -> tuple[tuple[SpectralKernel, ...], float, float]:
        """Kernels of the axes, ``log tau`` and ``log v``."""
        Q, xp = self.components, self.xp
        parts = xp.asarray(theta, dtype=self.source.dtype, device=device(self.source), copy=True)
        kernels = tuple(
            SpectralKernel(self.kind, parts[a : a + Q], parts[a + Q : a + 2 * Q], parts[a + 2 * Q : a + 3 * Q], xp)
            for a in range(0, 3 * Q * len(self.grids), 3 * Q)
        )
        return kernels, float(theta[-2]), float(theta[-1])

    def find_scale(self) -> None:
        """Settle the size of the solution, to which prior variance, jitter and noise are relative."""
        xp = self.xp
        # The size that gives the first prior second derivatives of the size of the source, or that of the boundary values.
        speed = max(2.0 * math.pi * f for f in self.frequency) ** 2 / math.sqrt(5.0)
        most = max(host_float(xp.max(xp.abs(a))) for a in self.second)
        edges = host_float(xp.max(xp.abs(self.boundary * self.on_edge())))
        size = max(edges, self.source_size / (most * speed) if most > 0 else 0.0)
        for _ in range(3):
            self.scale = size if size > 0 and math.isfinite(size) else 1.0
            self.jitter = self._relative_jitter * self.scale**2
            u = self.profile(self.start()).u
            size = math.sqrt(host_float(xp.mean(u * u)))
        self.scale = size if size > 0 and math.isfinite(size) else self.scale
        self.jitter = self._relative_jitter * self.scale**2

    def on_edge(self) -> Array:
        """One at the points of the boundary, zero elsewhere."""
        xp = self.xp
        inner = xp.ones_like(self.source)
        for axis, x in enumerate(self.grids):
            k = xp.arange(x.shape[0], device=device(x))
            keep = xp.astype((k > 0) & (k < x.shape[0] - 1), self.source.dtype)
            inner = inner * (keep if axis == len(self.grids) - 1 else keep[:, None])
        return 1.0 - inner

    def start(self) -> Any:
        """Equal weights, unit decay, frequencies spread evenly up to the largest."""
        import numpy as np

        Q = self.components
        parts = []
        for axis, largest in enumerate(self.frequency):
            variance = self.scale**2 if axis == 0 else 1.0
            parts += [np.full(Q, math.log(variance / Q)), np.zeros(Q), np.linspace(0.0, 1.0, Q) * largest]
        noise = [self._precision(_GAP_NOISE[1], self.scale), self._precision(self._noise[1], self._unit())]
        theta = np.concatenate([*parts, noise])
        low, high = np.transpose(self.bounds())
        return np.clip(theta, low, high)

    def stretch(self) -> Any:
        """Factors that give ``log tau`` and ``log v`` a unit curvature, for L-BFGS: their gradients dwarf all others."""
        import numpy as np

        edge = 2 if len(self.shape) == 1 else 2 * sum(self.shape) - 4
        noise = [math.sqrt(0.5 * self.weight * edge), math.sqrt(0.5 * math.prod(self.shape))]
        return np.concatenate([np.ones(3 * self.components * len(self.shape)), noise])

    def bounds(self) -> list[tuple[float, float]]:
        """Bounds of ``theta``: frequencies below Nyquist, components resolved by the grid, noise in its range."""
        Q = self.components
        pairs: list[tuple[float, float]] = []
        for axis, step in enumerate(self.steps):
            middle = math.log((self.scale**2 if axis == 0 else 1.0) / Q)
            extent = step * (self.shape[axis] - 1)
            steepest = _STEEPEST / step
            # exp(-rho t^2) has a rate of change near sqrt(2 rho), the Matern profile sqrt(5) rho.
            most = math.log(0.5 * steepest**2) if self.kind == "gaussian" else math.log(steepest / math.sqrt(5.0))
            least = min(_LOG_RHO_LEAST, math.log(1e-2 / extent))
            pairs += [(middle + _LOG_W[0], middle + _LOG_W[1])] * Q + [(least, most)] * Q + [(0.0, 0.5 / step)] * Q
        for size, (least, _, most) in ((self.scale, _GAP_NOISE), (self._unit(), self._noise)):
            pairs.append((self._precision(most, size), self._precision(least, size)))
        return pairs

    def _unit(self) -> float:
        if self.source_size > 0:
            return self.source_size
        extent = max(step * (n - 1) for step, n in zip(self.steps, self.shape, strict=True))
        size: float = self.scale * (math.pi / extent) ** 2
        return size

    @staticmethod
    def _precision(level: float, size: float) -> float:
        return -2.0 * math.log(level * size)

    def assemble(self, square: Array, logdet: Array, gap: Array, r: Array, log_tau: float, log_v: float) -> float:
        """``|z|^2 / 2 + log det / 2 + lam (tau |gap|^2 - n_b log tau) / 2 + (v |r|^2 - n log v) / 2``; ``logdet`` halved."""
        xp = self.xp
        moving = 0.5 * square + logdet
        moving = moving + (0.5 * self.weight * math.exp(log_tau)) * xp.sum(gap * gap)
        moving = moving + (0.5 * math.exp(log_v)) * xp.sum(r * r)
        fixed = 0.5 * self.weight * math.prod(gap.shape) * log_tau + 0.5 * math.prod(r.shape) * log_v
        total: float = host_float(moving) - fixed
        return total

    def join(self, kernel_gradients: list[Array], s: Solution) -> Any:
        """The whole gradient on the host."""
        import numpy as np

        xp, (tau, v) = self.xp, (math.exp(float(s.theta[-2])), math.exp(float(s.theta[-1])))
        norms = to_host(xp.stack([xp.sum(s.gap * s.gap), xp.sum(s.r * s.r)]))
        by_tau = -0.5 * self.weight * (math.prod(s.gap.shape) - tau * float(norms[0]))
        by_v = -0.5 * (math.prod(s.r.shape) - v * float(norms[1]))
        return np.concatenate([np.asarray(to_host(xp.concat(kernel_gradients)), dtype=float), [by_tau, by_v]])

    def resolution(self, s: Solution) -> float:
        """How much of the process' second derivatives the differences of its values show, the least over the axes.

        A wave at the Nyquist frequency shows ``(2 / pi)^2``, a slower one more. Less means that the process has other
        derivatives than its values have: the prior has collapsed to one of no size that fits any source.
        """
        xp, ratios = self.xp, []
        size = xp.sqrt(xp.sum(s.u * s.u))
        for axis, step in enumerate(self.steps):
            u = s.u if axis == 0 else s.u.T
            process = self.curvature(s, axis) * step**2
            shown = xp.sqrt(xp.sum((u[2:, ...] - 2.0 * u[1:-1, ...] + u[:-2, ...]) ** 2))
            true = xp.sqrt(xp.sum(process[1:-1, ...] ** 2))
            ratios.append(xp.where(true > STRAIGHT * size, shown / xp.where(true > 0, true, 1.0), 1.0))
        return host_float(xp.min(xp.stack(ratios)))

    def curvature(self, s: Solution, axis: int) -> Array:
        """Second derivative of the process along an axis, that axis first."""
        return self.toeplitz(s.tables[axis].orders[2], 1.0, axis) @ self.coefficients(s, axis)

    def curvature_between(self, s: Solution, axis: int) -> Array:
        """The same halfway between the points and the next ones, one row fewer."""
        xp, n = self.xp, self.shape[axis]
        lags = s.kernels[axis].tables(self.lags[axis] + 0.5 * self.steps[axis]).orders[2]
        both = xp.concat([xp.flip(lags[: n - 1]), lags])
        matrix = xp.reshape(xp.take(both, self._index[axis], axis=0), (n, n))
        return matrix[: n - 1, :] @ self.coefficients(s, axis)

    def coefficients(self, s: Solution, axis: int) -> Array:
        """``K^{-1}`` along an axis, that axis first, applied to the solution."""
        raise NotImplementedError

    def profile(self, theta: Any) -> Solution:
        """See the subclasses."""
        raise NotImplementedError

    def gradient(self, s: Solution) -> Any:
        """See the subclasses."""
        raise NotImplementedError

    def joint_loss(self, theta: Any, u: Array) -> float:
        """See the subclasses."""
        raise NotImplementedError

    def predict(self, s: Solution, points: Any) -> Array:
        """See the subclasses."""
        raise NotImplementedError


def lag_sums(P: Array, Q: Array, xp: Namespace) -> tuple[Array, Array]:
    """Sums of ``P Q^T`` over ``i - j = k`` plus, and minus, those over ``j - i = k``, for ``P``, ``Q`` (n,) or (n, c).

    The first contracts with a symmetric Toeplitz matrix, the second with an antisymmetric one.
    """
    n = P.shape[0]
    product = xp.fft.rfft(P, n=2 * n, axis=0) * xp.conj(xp.fft.rfft(Q, n=2 * n, axis=0))
    sums = xp.fft.irfft(product if P.ndim == 1 else xp.sum(product, axis=1), n=2 * n)
    forward, backward = sums[:n], xp.concat([xp.zeros_like(sums[:1]), xp.flip(sums[n + 1 :])])
    return forward + backward, forward - backward


def solved_enough(u: Array, before: Array, xp: Namespace) -> bool:
    """Whether a Gauss-Newton step changed nothing that matters."""
    change, size = xp.sum((u - before) ** 2), xp.sum(u * u)
    return host_float(change - _SAME**2 * size) <= 0


def shorten(z: Array, goal: Array, merit: Callable[[Array], float]) -> Array:
    """``goal``, or the first of the points halfway, a quarter of the way ... to it where ``merit`` does not rise."""
    before, length = merit(z), 1.0
    for _ in range(_HALVINGS):
        trial = z + length * (goal - z)
        if merit(trial) <= before:
            return trial
        length *= 0.5
    return z


def nearer(z: Array, merit: Callable[[Array], float], xp: Namespace) -> Array:
    """``z``, or zero where that is the better start: a guess from other parameters may be far off."""
    zero = xp.zeros_like(z)
    return z if merit(z) <= merit(zero) else zero

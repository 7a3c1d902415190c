"""The Gaussian process of a PDE on a rectangle: product kernels, a whitened unknown, least squares by conjugate gradients.

With ``K_i = V_i S_i^2 V_i^T`` and ``U = L_1 Z L_2^T``, ``L_i = V_i S_i``, the loss is ``|Z|^2 / 2`` plus least squares that
only products along the axes form. In the eigenbasis the normal equations are close to diagonal, for kernel and derivative
matrices nearly commute: their diagonal is the preconditioner.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ....backends.namespace import Array, device
from ....backends.transfer import host_float
from ._gp_model import Model, Solution, lag_sums, nearer, shorten, solved_enough
from .spectral_kernels import Tables

# Relative residual and most steps of the conjugate gradients; Gauss-Newton steps for a nonlinear equation.
_INNER_RTOL, _INNER_MAXITER, _INNER_STEPS = 1e-7, 400, 10


class _Axis(NamedTuple):
    """``L = V S``, ``E = A L^{-T}`` with the derivative matrix ``A``, ``W = V / S`` and the singular values ``S``."""

    L: Array
    E: Array
    W: Array
    S: Array


class Plane(Model):
    """``sum_i (a2_i d_ii + a1_i d_i) u + a0 u + c(u) = f`` on a uniform (n_1, n_2) grid; ``a2_i``, ``a1_i`` (1,)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        xp = self.xp
        edges = []
        for n, x in zip(self.shape, self.grids, strict=True):
            k = xp.arange(n, device=device(x))
            edges.append((k == 0) | (k == n - 1))
        self._inner = [xp.astype(~edge, self.source.dtype) for edge in edges]
        self._mask = 1.0 - self._inner[0][:, None] * self._inner[1][None, :]
        self._edge_count = 2 * sum(self.shape) - 4
        self._alpha = xp.zeros_like(self.source)

    def profile(self, theta: Any) -> Solution:
        """Minimise the loss over ``U`` for fixed parameters (host array ``theta``)."""
        xp = self.xp
        kernels, log_tau, log_v = self.unpack(theta)
        tables = tuple(kernel.tables(t) for kernel, t in zip(kernels, self.lags, strict=True))
        a, b = (self._axis(table, axis) for axis, table in enumerate(tables))

        def merit(Z: Array) -> float:
            u = a.L @ Z @ b.L.T
            r = a.E @ (Z @ b.L.T) + a.L @ (Z @ b.E.T) + self.reaction(u)[0] - self.source
            gap = self._mask * (u - self.boundary)
            squares = xp.sum(Z * Z) + math.exp(log_v) * xp.sum(r * r)
            return host_float(squares + (self.weight * math.exp(log_tau)) * xp.sum(gap * gap))

        Z = nearer(a.L.T @ self._alpha @ b.L, merit, xp)
        u = a.L @ Z @ b.L.T
        for _ in range(1 if self.linear else _INNER_STEPS):
            before = u
            goal = self._newton_step(a, b, Z, u, log_tau, log_v)
            Z = goal if self.linear else shorten(Z, goal, merit)
            u = a.L @ Z @ b.L.T
            if solved_enough(u, before, xp):
                break
        B = Z @ b.L.T
        r = a.E @ B + a.L @ (Z @ b.E.T) + self.reaction(u)[0] - self.source
        self._alpha = a.W @ Z @ b.W.T
        loss, gap = self._loss(Z, u, r, a, b, log_tau, log_v)
        return Solution(theta, u, self._alpha, r, gap, loss, kernels, tables, (a, b, Z))

    def _loss(
        self, Z: Array, u: Array, r: Array, a: _Axis, b: _Axis, log_tau: float, log_v: float
    ) -> tuple[float, Array]:
        xp, (n, m) = self.xp, self.shape
        logdet = m * xp.sum(xp.log(a.S)) + n * xp.sum(xp.log(b.S))
        difference = u - self.boundary
        gap = xp.concat([difference[0, :], difference[-1, :], difference[1:-1, 0], difference[1:-1, -1]])
        return self.assemble(xp.sum(Z * Z), logdet, gap, r, log_tau, log_v), gap

    def _axis(self, table: Tables, axis: int) -> _Axis:
        xp = self.xp
        # The scale of the field is carried by the first axis.
        jitter = self.jitter if axis == 0 else self._relative_jitter
        K = self.toeplitz(table.orders[0], 1.0, axis) + jitter * self.eye[axis]
        values, V = xp.linalg.eigh(K)
        S = xp.sqrt(xp.maximum(values, xp.full_like(values, 0.5 * jitter)))
        A = self.second[axis] * self.toeplitz(table.orders[2], 1.0, axis)
        if self.has_first:
            A = A + self.first[axis] * self.toeplitz(table.orders[1], -1.0, axis)
        W = V / S[None, :]
        return _Axis(V * S[None, :], A @ W, W, S)

    def _newton_step(self, a: _Axis, b: _Axis, Z: Array, u: Array, log_tau: float, log_v: float) -> Array:
        """Preconditioned conjugate gradients on the normal equations of the problem linearised at ``u``, from ``Z``."""
        xp, mask = self.xp, self._mask
        by_gap, v = self.weight * math.exp(log_tau), math.exp(log_v)
        value, slope = self.reaction(u)

        def images(Z: Array) -> tuple[Array, Array]:
            B = Z @ b.L.T
            U = a.L @ B
            R = a.E @ B + a.L @ (Z @ b.E.T)
            return U, (R if slope is None else R + slope * U)

        def adjoint(G: Array, R: Array) -> Array:
            G = G if slope is None else G + slope * R
            return (a.L.T @ G + a.E.T @ R) @ b.L + (a.L.T @ R) @ b.E

        target = self.source - value if slope is None else self.source - value + slope * u
        diagonal = self._diagonal(a, b, by_gap, v, 0.0 if slope is None else host_float(xp.mean(slope)))
        U, R = images(Z)
        right = adjoint(by_gap * (mask * self.boundary), v * target)
        g = right - Z - adjoint(by_gap * (mask * U), v * R)
        h = g / diagonal
        p, gh = h, xp.sum(g * h)
        bound = _INNER_RTOL**2 * host_float(xp.sum(right * right / diagonal))
        for _ in range(_INNER_MAXITER):
            if host_float(gh) <= bound:
                break
            U, R = images(p)
            q = p + adjoint(by_gap * (mask * U), v * R)
            step = gh / xp.sum(p * q)
            Z, g = Z + step * p, g - step * q
            h = g / diagonal
            before, gh = gh, xp.sum(g * h)
            p = h + (gh / before) * p
        return Z

    def _diagonal(self, a: _Axis, b: _Axis, by_gap: float, v: float, slope: float) -> Array:
        """Diagonal of the normal matrix: squared norms of the images of the unit matrices."""
        xp = self.xp

        def products(axis: _Axis) -> tuple[Array, Array, Array]:
            return (xp.sum(axis.E * axis.E, axis=0), xp.sum(axis.E * axis.L, axis=0), xp.sum(axis.L * axis.L, axis=0))

        (ee, el, ll), (ff, fm, mm) = products(a), products(b)
        residual = ee[:, None] * mm[None, :] + 2.0 * el[:, None] * fm[None, :] + ll[:, None] * ff[None, :]
        mixed = el[:, None] * mm[None, :] + ll[:, None] * fm[None, :]
        whole = ll[:, None] * mm[None, :]
        residual = residual + 2.0 * slope * mixed + slope**2 * whole
        inner = [
            xp.sum(keep[:, None] * axis.L * axis.L, axis=0) for keep, axis in zip(self._inner, (a, b), strict=True)
        ]
        edge = whole - inner[0][:, None] * inner[1][None, :]
        return 1.0 + v * xp.maximum(residual, xp.zeros_like(residual)) + by_gap * edge

    def gradient(self, s: Solution) -> Any:
        """Gradient of the profiled loss at fixed ``U`` (envelope theorem)."""
        xp = self.xp
        a, b, Z = s.factors
        v = math.exp(float(s.theta[-1]))
        parts = []
        views = ((a, b, Z, s.r, 0), (b, a, Z.T, s.r.T, 1))
        for own, other, field, r, axis in views:
            count = self.shape[1 - axis]
            W = own.W @ field
            X = W @ other.L.T
            back = own.W @ (own.E.T @ r)
            c0 = (
                0.5 * count * lag_sums(own.W, own.W, xp)[0] - 0.5 * lag_sums(W, W, xp)[0] - v * lag_sums(back, X, xp)[0]
            )
            even, odd = lag_sums(r, X, xp)
            # lag_sums counts the diagonal once, and every other lag on both sides.
            parts.append(s.tables[axis].gradient([c0, v * self.first[axis] * odd, v * self.second[axis] * even]))
        return self.join(parts, s)

    def coefficients(self, s: Solution, axis: int) -> Array:
        """``K^{-1}`` along the axis, applied to ``U`` or its transpose."""
        a, b, Z = s.factors
        own, other, field = (a, b, Z) if axis == 0 else (b, a, Z.T)
        return own.W @ field @ other.L.T

    def joint_loss(self, theta: Any, u: Array) -> float:
        """The loss at any ``U``, which `profile` minimises."""
        _, log_tau, log_v = self.unpack(theta)
        a, b, _ = self.profile(theta).factors
        Z = a.W.T @ u @ b.W
        r = a.E @ (Z @ b.L.T) + a.L @ (Z @ b.E.T) + self.reaction(u)[0] - self.source
        return self._loss(Z, u, r, a, b, log_tau, log_v)[0]

    def predict(self, s: Solution, points: Any) -> Array:
        """On a grid spanned by a pair of arrays, or at scattered points (p, 2)."""
        columns = points if isinstance(points, tuple) else (points[:, 0], points[:, 1])
        left, right = (
            kernel.value(p[:, None] - x[None, :]) for kernel, p, x in zip(s.kernels, columns, self.grids, strict=True)
        )
        # Whitened: the entries of K_1^{-1} U K_2^{-1} are too large to cancel well.
        a, b, Z = s.factors
        product, right = (left @ a.W) @ Z, right @ b.W
        return product @ right.T if isinstance(points, tuple) else self.xp.sum(product * right, axis=1)

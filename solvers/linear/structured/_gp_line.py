"""The Gaussian process of a PDE on an interval: its loss profiled over the solution, and the gradient of that.

On a uniform grid ``K`` and its derivatives are Toeplitz: they are built from ``n`` lags, and gradients are contracted through
sums over their diagonals, which FFTs give. One Cholesky factor, one triangular solve with ``n`` columns and one QR factor
of a (2 n + 2, n + 1) matrix are all the cubic work of an evaluation.
"""

from __future__ import annotations

import math
from typing import Any

from ....backends.linalg import cho_solve, cholesky, solve_triangular
from ....backends.namespace import Array, Namespace, device, is_numpy
from ....backends.transfer import host_float
from ._gp_model import Model, Solution, lag_sums, nearer, shorten, solved_enough

# Gauss-Newton steps for a nonlinear equation.
_INNER_STEPS = 25


class Line(Model):
    """``a2 u'' + a1 u' + a0 u + c(u) = f`` on a uniform grid of ``n`` points; ``a2``, ``a1``, ``a0`` (n,)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._alpha = self.xp.zeros_like(self.source)

    def profile(self, theta: Any) -> Solution:
        """Minimise the loss over ``u`` for fixed parameters (host array ``theta``)."""
        xp, f, g = self.xp, self.source, self.boundary
        (kernel,), log_tau, log_v = self.unpack(theta)
        tables = kernel.tables(self.lags[0])
        K = self.toeplitz(tables.orders[0], 1.0, 0) + self.jitter * self.eye[0]
        L = cholesky(K, xp=xp)
        (second,), (first,) = self.second, self.first
        A = second[:, None] * self.toeplitz(tables.orders[2], 1.0, 0)
        if self.has_first:
            A = A + first[:, None] * self.toeplitz(tables.orders[1], -1.0, 0)
        D = solve_triangular(L, A.T, lower=True, xp=xp).T
        # sqrt of the weights of gap and residual.
        weigh_gap, weigh = math.sqrt(self.weight) * math.exp(0.5 * log_tau), math.exp(0.5 * log_v)
        edge = xp.stack([L[0, :], L[-1, :]])
        edge_values = xp.stack([g[0], g[-1]])

        def merit(z: Array) -> float:
            misfit = xp.concat([z, weigh_gap * (edge @ z - edge_values), weigh * (D @ z + self.reaction(L @ z)[0] - f)])
            return host_float(xp.sum(misfit * misfit))

        z = self._alpha if self.linear else nearer(L.T @ self._alpha, merit, xp)
        u = L @ z
        for _ in range(_INNER_STEPS):
            value, slope = self.reaction(u)
            rows = D if slope is None else D + slope[:, None] * L
            target = f - value if slope is None else f - value + slope * u
            left = xp.concat([self.eye[0], weigh_gap * edge, weigh * rows])
            right = xp.concat([xp.zeros_like(f), weigh_gap * edge_values, weigh * target])
            goal = _least_squares(left, right, xp)
            if self.linear:
                z, u = goal, L @ goal
                break
            before = u
            z = shorten(z, goal, merit)
            u = L @ z
            if solved_enough(u, before, xp):
                break
        self._alpha = solve_triangular(L, z, lower=True, xp=xp, transpose=True)
        alpha = self._alpha
        r = A @ alpha + self.reaction(u)[0] - f
        gap = xp.stack([u[0], u[-1]]) - edge_values
        logdet = xp.sum(xp.log(xp.linalg.diagonal(L)))
        loss = self.assemble(xp.sum(z * z), logdet, gap, r, log_tau, log_v)
        return Solution(theta, u, alpha, r, gap, loss, (kernel,), (tables,), (L, A))

    def gradient(self, s: Solution) -> Any:
        """Gradient of the profiled loss; ``u`` is optimal, so only the explicit dependence counts (envelope theorem)."""
        xp = self.xp
        L, A = s.factors
        v = math.exp(self.unpack(s.theta)[2])
        p = cho_solve(L, A.T @ s.r, xp=xp)
        even, _ = lag_sums(s.alpha + 2.0 * v * p, s.alpha, xp)
        c0 = 0.5 * (self._inverse_sums(L) - even)
        (second,), (first,) = self.second, self.first
        c2, _ = lag_sums(second * s.r, s.alpha, xp)
        cotangents = [c0, xp.zeros_like(c0), v * c2]
        if self.has_first:
            cotangents[1] = v * lag_sums(first * s.r, s.alpha, xp)[1]
        return self.join([s.tables[0].gradient(cotangents)], s)

    def _inverse_sums(self, L: Array) -> Array:
        """Sums of ``K^{-1}`` over ``|i - j| = k``, from its first column by the formula of Gohberg and Semencul."""
        xp, (n,) = self.xp, self.shape
        first = xp.zeros((n,), dtype=L.dtype, device=device(L)) + self.eye[0][:, 0]
        c = cho_solve(L, first, xp=xp)
        m = xp.arange(n, dtype=L.dtype, device=device(L))
        transform, weighted = xp.fft.rfft(c, n=2 * n), xp.fft.rfft(m * c, n=2 * n)
        plain = xp.fft.irfft(transform * xp.conj(transform), n=2 * n)[:n]
        moment = xp.fft.irfft(transform * xp.conj(weighted), n=2 * n)[:n]
        sums = ((n - m) * plain - 2.0 * moment) / c[0]
        return xp.where(m > 0, 2.0 * sums, sums)

    def coefficients(self, s: Solution, axis: int) -> Array:
        """``K^{-1} u``."""
        return s.alpha

    def joint_loss(self, theta: Any, u: Array) -> float:
        """The loss at any ``u``, which `profile` minimises."""
        xp = self.xp
        s = self.profile(theta)
        L, A = s.factors
        z = solve_triangular(L, u, lower=True, xp=xp)
        alpha = solve_triangular(L, z, lower=True, xp=xp, transpose=True)
        r = A @ alpha + self.reaction(u)[0] - self.source
        gap = xp.stack([u[0], u[-1]]) - xp.stack([self.boundary[0], self.boundary[-1]])
        logdet = xp.sum(xp.log(xp.linalg.diagonal(L)))
        _, log_tau, log_v = self.unpack(theta)
        return self.assemble(xp.sum(z * z), logdet, gap, r, log_tau, log_v)

    def predict(self, s: Solution, points: Any) -> Array:
        """``k(points, x) alpha``: the jitter belongs to the fit, not to the function."""
        lags = points[:, None] - self.grids[0][None, :]
        return s.kernels[0].value(lags) @ s.alpha


def _least_squares(left: Array, right: Array, xp: Namespace) -> Array:
    """``argmin |left z - right|`` by Householder QR: the normal equations would square a condition number of 1e7."""
    n = left.shape[1]
    both = xp.concat([left, right[:, None]], axis=1)
    if is_numpy(xp):
        from scipy.linalg import qr

        R = qr(both, mode="r", overwrite_a=True, check_finite=False)[0]
    else:
        R = xp.linalg.qr(both)[1]
    return solve_triangular(R[:n, :n], R[:n, n], lower=False, xp=xp)

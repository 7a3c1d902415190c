"""Spectral mixture kernels of one variable, their derivatives, and the gradients of both with respect to the parameters.

Stationary kernels ``k(t) = sum_q w_q m(|t|; rho_q) cos(2 pi mu_q t)``, a mixture in the frequency domain of bumps at
``+-mu_q``: with the Matern-5/2 profile ``m`` of Student-t bumps, with ``m = exp(-rho t^2)`` of Gaussian ones (Wilson and
Adams 2013; Fang et al. 2024).
"""

from __future__ import annotations

import math

from ....backends.namespace import Array, Namespace

KINDS = ("student", "gaussian")
# Entries of the (Q, p, n) arrays of a prediction held at once.
_ENTRIES = 2**20


class SpectralKernel:
    """The mixture with ``log_w``, ``log_rho`` and ``mu`` (frequencies in cycles), each (Q,), at fixed lags.

    Parameters
    ----------
    kind : {"student", "gaussian"}
        Profile ``m``.
    log_w, log_rho, mu : array (Q,)
        Parameters.
    xp : namespace
        Of the arrays.
    """

    def __init__(self, kind: str, log_w: Array, log_rho: Array, mu: Array, xp: Namespace) -> None:
        self.kind, self.log_w, self.log_rho, self.mu, self.xp = kind, log_w, log_rho, mu, xp

    def value(self, t: Array) -> Array:
        """``k`` at lags of any shape and sign."""
        xp, shape = self.xp, t.shape
        t = xp.reshape(t, (1, -1))
        parts = []
        width = max(1, _ENTRIES // self.mu.shape[0])
        for start in range(0, t.shape[1], width):
            some = t[:, start : min(start + width, t.shape[1])]
            m = _profile(self.kind, self.log_rho, some, xp, orders=1)[0]
            wave = xp.cos((2.0 * math.pi) * self.mu[:, None] * some)
            parts.append(xp.sum(xp.exp(self.log_w)[:, None] * m * wave, axis=0))
        return xp.reshape(xp.concat(parts), shape)

    def tables(self, t: Array) -> Tables:
        """Values and derivatives of every component at the non-negative lags ``t`` (n,)."""
        return Tables(self, t)


class Tables:
    """Components at lags ``t`` (n,): ``orders[d]`` (n,) is the ``d``-th derivative of ``k``, ``d`` = 0, 1, 2."""

    def __init__(self, kernel: SpectralKernel, t: Array) -> None:
        xp = self.xp = kernel.xp
        t = t[None, :]
        omega = (2.0 * math.pi) * kernel.mu[:, None]
        w = xp.exp(kernel.log_w)[:, None]
        cos, sin = xp.cos(omega * t), xp.sin(omega * t)
        m, p, s, dm, dp, ds = _profile(kernel.kind, kernel.log_rho, t, xp, orders=3)
        square = omega * omega
        # Leibniz: derivatives of m cos, then the same with the derivatives of m in log rho, then in mu.
        self._w = [
            w * (m * cos),
            w * (p * cos - omega * m * sin),
            w * (s * cos - 2.0 * omega * p * sin - square * m * cos),
        ]
        self._rho = [
            w * (dm * cos),
            w * (dp * cos - omega * dm * sin),
            w * (ds * cos - 2.0 * omega * dp * sin - square * dm * cos),
        ]
        v = (2.0 * math.pi) * w
        self._mu = [
            v * (-t * m * sin),
            v * (-t * p * sin - m * sin - omega * t * m * cos),
            v
            * (-t * s * sin - 2.0 * p * sin - 2.0 * omega * t * p * cos - 2.0 * omega * m * cos + square * t * m * sin),
        ]
        self.orders = [xp.sum(part, axis=0) for part in self._w]

    def gradient(self, cotangents: list[Array]) -> Array:
        """``sum_d <c_d, d k^(d)>`` for the parameters ``(log_w, log_rho, mu)``: (3 Q,), from ``c_d`` (n,)."""
        xp = self.xp
        parts = []
        for tables in (self._w, self._rho, self._mu):
            parts.append(
                sum(table @ c for table, c in zip(tables[1:], cotangents[1:], strict=True)) + tables[0] @ cotangents[0]
            )
        return xp.concat(parts)


def _profile(kind: str, log_rho: Array, t: Array, xp: Namespace, *, orders: int) -> tuple[Array, ...]:
    """``m, m', m''`` and their derivatives in ``log rho`` at lags ``t`` (1, n), or only ``m`` for one order."""
    rho = xp.exp(log_rho)[:, None]
    if kind == "gaussian":
        a = rho * t * t
        m = xp.exp(-a)
        if orders == 1:
            return (m,)
        p, s = -2.0 * rho * t * m, 2.0 * rho * (2.0 * a - 1.0) * m
        return m, p, s, -a * m, p * (1.0 - a), 2.0 * rho * (5.0 * a - 1.0 - 2.0 * a * a) * m
    c = math.sqrt(5.0) * rho
    r = c * xp.abs(t)
    decay = xp.exp(-r)
    m = (1.0 + r + r * r / 3.0) * decay
    if orders == 1:
        return (m,)
    p, s = -(c / 3.0) * r * (1.0 + r) * decay, -(c * c / 3.0) * (1.0 + r - r * r) * decay
    dm = -(r * r / 3.0) * (1.0 + r) * decay
    dp = -(c / 3.0) * r * (2.0 + 2.0 * r - r * r) * decay
    ds = -(c * c / 3.0) * (2.0 + r * (2.0 + r * (r - 5.0))) * decay
    return m, p, s, dm, dp, ds

"""TFQMR: transpose-free quasi-minimal residuals (Freund 1993).

Smooths the residuals of CGS into a quasi-residual that never rises; no product with the adjoint. A step is half an
iteration of CGS, one product with ``A``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...backends.namespace import Array, finfo_eps
from ...backends.transfer import host_float
from ..iterate import Callback, warn_unless_converged
from ..result import LinearResult, Status
from .system import System, prepare, run


def tfqmr(
    A: Any,
    b: Array,
    *,
    x0: Array | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve ``A x = b`` for any square ``A`` by a smoothed conjugate gradient squared method.

    Parameters
    ----------
    A, b, x0, rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `gmres`; a step has one product with ``A``.
    M : like A, optional
        Approximation of the inverse of ``A``, applied on the right.

    Returns
    -------
    LinearResult
        As of `cg`; `history` holds the bound ``tau sqrt(m + 1)`` of the residual.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached.

    References
    ----------
    R. W. Freund, A transpose-free quasi-minimal residual algorithm for non-Hermitian linear systems, 1993.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import tfqmr
    >>> A = np.asarray([[4.0, 1.0], [-1.0, 2.0]])
    >>> tfqmr(A, np.asarray([5.0, 1.0]), rtol=1e-10).x.round(6).tolist()
    [1.0, 1.0]
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M)
    result = run(
        _Tfqmr(system), system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "tfqmr")
    return result


class _State(NamedTuple):
    """``base + M t`` the iterate; ``w``, ``y``, ``d``, ``v``, ``u`` the vectors and the scalars of Freund's algorithm 5.1; ``m``
    half-steps done since the start, ``sound`` positive while no scalar has vanished."""

    method: _Tfqmr
    base: Array
    t: Array
    w: Array
    y: Array
    d: Array
    v: Array
    u: Array
    shadow: Array
    theta: Array
    eta: Array
    tau: Array
    rho: Array
    alpha: Array
    bound: Array
    sound: Array
    m: int

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.base + self.method.system.precondition(self.t)


class _Tfqmr:
    keep_best = True
    broken = Status.BREAKDOWN

    def __init__(self, system: System) -> None:
        self.system, self.matvecs = system, 0
        self.tiny = finfo_eps(system.b.dtype, system.xp) ** 2

    def op(self, y: Array) -> Array:
        """``A M y``."""
        self.matvecs += self.system.columns
        return self.system.A @ self.system.precondition(y)

    def start(self, x: Array, r: Array) -> _State:
        xp, system = self.system.xp, self.system
        u, zero, tau = self.op(r), xp.zeros_like(r), system.norm(r)
        rho = system.dot(r, r)
        nil = xp.zeros_like(rho)
        return _State(
            self, x, zero, r, r, zero, u, u, r, xp.zeros_like(tau), nil, tau, rho, nil, tau, xp.ones_like(tau), 0
        )

    def step(self, state: _State) -> _State:
        xp, dot, norm = self.system.xp, self.system.dot, self.system.norm
        _, base, t, w, y, d, v, u, shadow, theta, eta, tau, rho, alpha, bound, sound, m = state
        active = self.system.active(bound)
        even = m % 2 == 0
        old_eta_theta = theta**2 * eta
        if even:
            seen = dot(shadow, v)
            vanished = xp.abs(seen) <= self.tiny * norm(shadow) * norm(v)
            usable = active & ~vanished
            sound = xp.where(active & vanished, -1.0, sound)
            alpha = xp.where(usable, rho / xp.where(usable, seen, 1.0), 0.0)
            y_next = y - alpha * v
        moves = active & (xp.abs(alpha) != 0)
        step = xp.where(moves, alpha, 1.0)
        w = w - alpha * u
        d = y + (old_eta_theta / step) * d
        theta_new = norm(w) / xp.where(tau > 0, tau, 1.0)
        c = 1.0 / xp.sqrt(1.0 + theta_new**2)
        tau = xp.where(moves, tau * theta_new * c, tau)
        eta = xp.where(moves, c**2 * alpha, 0.0)
        t = t + eta * d
        bound = xp.where(moves, tau * float(m + 2) ** 0.5, bound)
        if even:
            y, u = y_next, self.op(y_next)
        else:
            rho_new = dot(shadow, w)
            usable = moves & (xp.abs(rho) > 0)
            beta = xp.where(usable, rho_new / xp.where(usable, rho, 1.0), 0.0)
            y = w + beta * y
            u_new = self.op(y)
            v = u_new + beta * (u + beta * v)
            u, rho = u_new, rho_new
        return _State(self, base, t, w, y, d, v, u, shadow, theta_new, eta, tau, rho, alpha, bound, sound, m + 1)

    def error(self, state: _State) -> Array:
        return self.system.xp.copysign(self.system.worst(state.bound), self.system.xp.min(state.sound))

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and begin from it."""
        x = state.x
        self.matvecs += self.system.columns
        fresh = self.start(x, self.system.true_residual(x))
        return fresh, host_float(self.system.worst(fresh.tau))

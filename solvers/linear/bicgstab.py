"""BiCGStab: short recurrences for systems that are not symmetric (van der Vorst 1992).

Four inner products and two products with ``A`` an iteration, and no long basis; the residual may rise on the way. Where the
recurrence breaks down it is begun again from the residual at hand; a run that does not converge returns its best iterate.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...backends.namespace import Array, finfo_eps, is_numpy
from ...backends.transfer import host_float
from ..iterate import Callback, warn_unless_converged
from ..result import LinearResult
from .system import System, prepare, run


def bicgstab(
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
    """Solve ``A x = b`` for any square ``A`` with a handful of vectors.

    Parameters
    ----------
    A, b, x0, rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `gmres`; an iteration has two products with ``A``.
    M : like A, optional
        Approximation of the inverse of ``A``, applied on the right.

    Returns
    -------
    LinearResult
        As of `cg`; without convergence the best iterate that was looked at.

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
    H. A. van der Vorst, Bi-CGSTAB: a fast and smoothly converging variant of Bi-CG, 1992.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import bicgstab
    >>> A = np.asarray([[4.0, 1.0], [-1.0, 2.0]])
    >>> bicgstab(A, np.asarray([5.0, 1.0]), rtol=1e-10).x.round(6).tolist()
    [1.0, 1.0]
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M)
    plain = b.ndim == 1 and is_numpy(system.xp) and system.xp.isdtype(b.dtype, "real floating")
    method = (_BiCGStabNumPy if plain else _BiCGStab)(system)
    result = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "bicgstab")
    return result


class _State(NamedTuple):
    """``x``, its carried residual ``r`` with ``rr = <r, r>``, the shadow ``rt``, direction ``p``, ``v = A M p``, and the scalars
    of the last iteration; ``rho`` of zero says that the recurrence begins here."""

    x: Array
    r: Array
    rt: Array
    p: Array
    v: Array
    rho: Array
    alpha: Array
    omega: Array
    rr: Array


class _BiCGStab:
    keep_best = True

    def __init__(self, system: System) -> None:
        self.system, self.matvecs = system, 0
        self.tiny = finfo_eps(system.b.dtype, system.xp)

    def start(self, x: Array, r: Array) -> _State:
        zero, rr = self.system.xp.zeros_like(r), self.system.dot(r, r)
        nil = self.system.xp.zeros_like(rr)
        return _State(x, r, r, zero, zero, nil, nil, nil, rr)

    def step(self, state: _State) -> _State:
        system, xp = self.system, self.system.xp
        x, r, rt, p, v, rho_old, alpha_old, omega_old, rr = state
        rnorm = self.norm(rr)
        dot, active = system.dot, system.active(rnorm)
        rho = dot(rt, r)
        # A shadow that no longer sees the residual, or a first step: begin again with the residual as its own shadow.
        lost = (xp.abs(rho) <= self.tiny * system.norm(rt) * rnorm) | (rho_old * omega_old == 0)
        rt = xp.where(lost, r, rt)
        rho = xp.where(lost, rr, rho)
        # In this order the arithmetic is SciPy's, and so, to the last bit, are the iterates that the method lets chaos choose.
        beta = (rho / xp.where(lost, 1.0, rho_old)) * (alpha_old / xp.where(lost, 1.0, omega_old))
        beta = xp.where(lost, 0.0, beta)
        p = p - omega_old * v
        p *= beta
        p += r
        ph = system.precondition(p)
        v = system.A @ ph
        seen = dot(rt, v)
        usable = active & (xp.abs(seen) > 0)
        alpha = xp.where(usable, rho / xp.where(usable, seen, 1.0), 0.0)
        s = -alpha * v
        s += r
        sh = system.precondition(s)
        t = system.A @ sh
        self.matvecs += 2 * system.columns
        tt = system.real_dot(t, t)
        stable = active & (tt > 0)
        omega = xp.where(stable, dot(t, s) / xp.where(stable, tt, 1.0), 0.0)
        step = alpha * ph
        step += x
        step += omega * sh
        x = step
        r = -omega * t
        r += s
        # A step that could not be taken leaves rho at zero: the next one begins again.
        return _State(x, r, rt, p, v, xp.where(usable, rho, 0.0), alpha, omega, dot(r, r))

    def norm(self, rr: Array) -> Array:
        """Norms from the squares, which are complex where the vectors are."""
        complex_ = self.system.xp.isdtype(rr.dtype, "complex floating")
        return (self.system.xp.real(rr) if complex_ else rr) ** 0.5

    def error(self, state: _State) -> Array:
        return self.system.worst(self.norm(state.rr))

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and begin from it."""
        self.matvecs += self.system.columns
        fresh = self.start(state.x, self.system.true_residual(state.x))
        return fresh, host_float(self.error(fresh))


class _BiCGStabNumPy(_BiCGStab):
    """One real right-hand side: numbers of Python, and vectors that change in place; only ``x`` of an old state stays.

    Products and sums stay apart, as in SciPy: fused ones round otherwise, and the method makes much of that.
    """

    def start(self, x: Array, r: Array) -> _State:
        state = super().start(x, r)
        xp = self.system.xp
        self.scratch = xp.empty_like(r)
        own = {
            "r": xp.asarray(r, copy=True),
            "rt": xp.asarray(r, copy=True),
            "p": xp.zeros_like(r),
            "v": xp.zeros_like(r),
        }
        return state._replace(rho=0.0, alpha=0.0, omega=0.0, rr=float(state.rr), **own)

    def add(self, y: Array, a: float, x: Array) -> None:
        """``y += a x``."""
        self.system.xp.multiply(x, a, out=self.scratch)
        y += self.scratch

    def step(self, state: _State) -> _State:
        system = self.system
        x, r, rt, p, v, rho_old, alpha_old, omega_old, rr = state
        rho = float(rt @ r)
        if rho_old * omega_old == 0 or abs(rho) <= self.tiny * (float(rt @ rt) * rr) ** 0.5:
            rt, rho, beta = system.xp.asarray(r, copy=True), rr, 0.0
        else:
            beta = (rho / rho_old) * (alpha_old / omega_old)
        self.add(p, -omega_old, v)
        p *= beta
        p += r
        ph = system.precondition(p)
        v = system.A @ ph
        seen = float(rt @ v)
        alpha = rho / seen if seen else 0.0
        self.add(r, -alpha, v)
        sh = system.precondition(r)
        t = system.A @ sh
        self.matvecs += 2
        tt = float(t @ t)
        omega = float(t @ r) / tt if tt > 0 else 0.0
        moved = alpha * ph
        moved += x
        self.add(moved, omega, sh)
        self.add(r, -omega, t)
        return _State(moved, r, rt, p, v, rho if seen else 0.0, alpha, omega, float(r @ r))

    def error(self, state: _State) -> float:
        return math.sqrt(state.rr)

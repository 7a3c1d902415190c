"""LSQR for sparse linear equations and least squares (Paige and Saunders 1982).

Conjugate gradients on the normal equations in a form that never squares the condition number: Golub and Kahan's
bidiagonalisation and a QR factorisation of the bidiagonal matrix. A run ends on the recomputed residuals.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...backends.namespace import Array, is_numpy
from ..iterate import Callback, warn_unless_converged
from .golub_kahan import GolubKahan, LeastSquaresResult, prepare_least_squares


def lsqr(
    A: Any,
    b: Array,
    *,
    x0: Array | None = None,
    damp: float = 0.0,
    atol: float = 1e-6,
    btol: float = 1e-6,
    conlim: float = 1e8,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LeastSquaresResult:
    """Minimise ``||A x - b||^2 + damp^2 ||x||^2``; without damping and from zero, ``x`` has the least norm.

    Parameters
    ----------
    A : array (m, n), sparse matrix or LinearOperator
        Any shape and rank; an operator needs ``rmatvec``.
    b : array (m,) or (m, k)
        One right-hand side or several, which share the products.
    x0 : array (n,) or (n, k), optional
        Starting point, default zero; unlike in SciPy it does not change what is minimised.
    damp : float
        Tikhonov regularisation.
    atol, btol : float
        Converged when ``||r|| <= btol ||b|| + atol ||A|| ||x||`` (the system is consistent) or ``||A^H r|| <= atol ||A||
        ||r||`` (it is not), as in SciPy; ``||A||`` is the running Frobenius estimate.
    conlim : float
        Stop when the condition number, estimated from below, passes this.
    maxiter : int, optional
        Most iterations, default ``2 n``.
    M : like A (n, n), optional
        Right preconditioner with an adjoint: ``x = M t``, and ``A M`` should be well conditioned. The second test is then
        on ``M^H A^H r``.
    callback, check_every, progress, time_limit
        See `LoopOptions`; the callback's iterate has ``x``, ``rnorm`` and ``arnorm``.

    Returns
    -------
    LeastSquaresResult
        ``residual`` is the larger column's ratio to its nearer threshold (converged: at most 1); ``residual_norm`` and
        ``normal_norm`` are the recomputed norms of ``r`` and ``A^H r``.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        Neither test passed; the result holds the last good iterate and a status with advice.

    Notes
    -----
    One product with ``A``, one with its adjoint, and three vector updates an iteration. ``||r||`` falls at every step; where
    a run may be cut short, `lsmr` leaves a smaller ``||A^H r||``.

    References
    ----------
    C. C. Paige, M. A. Saunders, LSQR: an algorithm for sparse linear equations and sparse least squares, 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import lsqr
    >>> A = np.asarray([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> lsqr(A, np.asarray([1.0, 0.0, -1.0])).x.round(6).tolist()
    [1.0, -1.0]
    """
    system, limits = prepare_least_squares(A, b, x0=x0, damp=damp, atol=atol, btol=btol, conlim=conlim, M=M)
    plain = b.ndim == 1 and is_numpy(system.xp) and system.xp.isdtype(b.dtype, "real floating")
    result = (_LsqrNumPy if plain else _Lsqr)(system, limits).run(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    warn_unless_converged(result, "lsqr")
    return result


class _State(NamedTuple):
    """``base + M t`` the iterate; ``u``, ``v``, ``alpha`` the bidiagonalisation, ``w`` the direction, ``phibar`` and ``rhobar``
    the rotated last row, and what the tests need; ``offset`` bounds the norm of ``base``."""

    method: _Lsqr
    base: Array
    t: Array
    u: Array
    v: Array
    w: Array
    alpha: Array
    rhobar: Array
    rnorm: Array
    arnorm: Array
    anorm2: Array
    directions2: Array
    cond: Array
    offset: Array

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.base + self.method.lift(self.t)


class _Lsqr(GolubKahan):
    def begin(self, base: Array, r: Array, anorm2: Array) -> _State:
        u, beta = self.normalised(r)
        v, alpha = self.normalised(self.AH @ u)
        self.matvecs += self.system.columns
        # The first row already tells a part of ||A||, or the tests would divide by nothing.
        anorm2 = self.xp.where(anorm2 > 0, anorm2, alpha * alpha)
        nil = self.xp.zeros_like(beta)
        return _State(
            self, base, self.xp.zeros_like(base), u, v, v, alpha, alpha, beta, alpha * beta, anorm2, nil, nil,
            self.system.norm(base),
        )  # fmt: skip

    def step(self, state: _State) -> _State:
        xp = self.xp
        alpha_old, phibar = state.alpha, state.rnorm
        u, v, alpha, beta = self.bidiagonalise(state.u, state.v, alpha_old)
        rho = xp.sqrt(state.rhobar**2 + beta**2)
        # A pivot lost in rounding: the space is exhausted, the answer stands.
        anorm2 = state.anorm2 + beta**2 + alpha**2
        alive = rho > self.tiny * xp.sqrt(anorm2)
        safe = xp.where(alive, rho, 1.0)
        c, s = xp.where(alive, state.rhobar / safe, 0.0), xp.where(alive, beta / safe, 1.0)
        theta, phi = s * alpha, c * phibar
        t = state.t + (phi / safe) * state.w
        w = v - (theta / safe) * state.w
        phibar = s * phibar
        directions2 = state.directions2 + self.system.real_dot(state.w, state.w) / safe**2
        return _State(
            self, state.base, t, u, v, w, alpha, -c * alpha, phibar, phibar * alpha * xp.abs(c), anorm2, directions2,
            xp.sqrt(anorm2 * directions2), state.offset,
        )  # fmt: skip


class _LsqrNumPy(_Lsqr):
    """One real right-hand side: numbers of Python, and vectors that change in place; only ``t`` of an old state stays."""

    def begin(self, base: Array, r: Array, anorm2: Array) -> _State:
        state, xp = super().begin(base, r, anorm2), self.xp
        self.bound = float(self.bnorm)
        numbers: dict[str, Any] = {name: float(getattr(state, name)) for name in _NUMBERS}
        return state._replace(v=xp.asarray(state.v, copy=True), w=xp.asarray(state.v, copy=True), **numbers)

    def step(self, state: _State) -> _State:
        u, v, w = state.u, state.v, state.w
        u *= -state.alpha
        u += self.A @ v
        beta = float(u @ u) ** 0.5
        u /= beta or 1.0
        v *= -beta
        v += self.AH @ u
        alpha = float(v @ v) ** 0.5
        v /= alpha or 1.0
        self.matvecs += 2
        rho = math.hypot(state.rhobar, beta)
        anorm2 = state.anorm2 + beta * beta + alpha * alpha
        # A pivot lost in rounding: the space is exhausted, the answer stands.
        alive = not rho <= self.tiny * anorm2**0.5
        safe = rho if alive else 1.0
        c, s = (state.rhobar / safe, beta / safe) if alive else (0.0, 1.0)
        theta, phi = s * alpha, c * state.rnorm
        t = (phi / safe) * w
        t += state.t
        directions2 = state.directions2 + float(w @ w) / (safe * safe)
        w *= -theta / safe
        w += v
        phibar = s * state.rnorm
        return state._replace(
            t=t, alpha=alpha, rhobar=-c * alpha, rnorm=phibar, arnorm=phibar * alpha * abs(c), anorm2=anorm2,
            directions2=directions2, cond=(anorm2 * directions2) ** 0.5,
        )  # fmt: skip

    def error(self, state: _State) -> float:
        rnorm, arnorm, anorm, limits = state.rnorm, state.arnorm, state.anorm2**0.5, self.limits
        if rnorm == 0 or arnorm == 0:
            return 0.0
        if not math.isfinite(rnorm + arnorm):
            return math.nan
        small = limits.btol * self.bound + limits.atol * anorm * (float(state.t @ state.t) ** 0.5 + state.offset)
        normal = limits.atol * anorm * rnorm
        ratio = min(rnorm / small if small > 0 else math.inf, arnorm / normal if normal > 0 else math.inf)
        # Beyond conlim the answer would be rounding; the sign says so.
        return -1.0 if state.cond > limits.conlim and ratio > 1.0 else float(ratio)


_NUMBERS = ("alpha", "rhobar", "rnorm", "arnorm", "anorm2", "directions2", "cond", "offset")

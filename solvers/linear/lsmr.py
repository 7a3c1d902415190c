"""LSMR: least squares with a monotone ``||A^H r||`` (Fong and Saunders 2011).

MINRES on the normal equations in a form that never squares the condition number. ``||A^H r||`` falls at every step, so a run
that is cut short leaves the better answer. A run ends on the recomputed residuals.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...backends.namespace import Array
from ..iterate import Callback, warn_unless_converged
from .golub_kahan import GolubKahan, LeastSquaresResult, prepare_least_squares


def lsmr(
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
    """Minimise ``||A x - b||^2 + damp^2 ||x||^2`` by the smallest ``||A^H r||`` over the Krylov space.

    Parameters
    ----------
    A, b, x0, damp, atol, btol, conlim, maxiter, M, callback, check_every, progress, time_limit
        As of `lsqr`.

    Returns
    -------
    LeastSquaresResult
        As of `lsqr`.

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
    One product with ``A``, one with its adjoint, and four vector updates an iteration.

    References
    ----------
    D. C.-L. Fong, M. Saunders, LSMR: an iterative algorithm for sparse least-squares problems, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import lsmr
    >>> A = np.asarray([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> lsmr(A, np.asarray([1.0, 0.0, -1.0])).x.round(6).tolist()
    [1.0, -1.0]
    """
    system, limits = prepare_least_squares(A, b, x0=x0, damp=damp, atol=atol, btol=btol, conlim=conlim, M=M)
    result = _Lsmr(system, limits).run(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    warn_unless_converged(result, "lsmr")
    return result


class _State(NamedTuple):
    """``base + M t`` the iterate, ``u``, ``v``, ``alpha`` the bidiagonalisation, ``h`` and ``hbar`` the directions; the scalars
    bear the names of the paper (section 5 for those of ``||r||``)."""

    method: _Lsmr
    base: Array
    t: Array
    u: Array
    v: Array
    h: Array
    hbar: Array
    alpha: Array
    alphabar: Array
    zeta: Array
    zetabar: Array
    rho: Array
    rhobar: Array
    cbar: Array
    sbar: Array
    betadd: Array
    betad: Array
    rhodold: Array
    tautildeold: Array
    thetatilde: Array
    extremes: tuple[Array, Array]
    rnorm: Array
    arnorm: Array
    anorm2: Array
    cond: Array
    offset: Array

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.base + self.method.lift(self.t)


class _Lsmr(GolubKahan):
    def begin(self, base: Array, r: Array, anorm2: Array) -> _State:
        xp = self.xp
        u, beta = self.normalised(r)
        v, alpha = self.normalised(self.AH @ u)
        self.matvecs += self.system.columns
        anorm2 = xp.where(anorm2 > 0, anorm2, alpha * alpha)
        nil, one, zero = xp.zeros_like(beta), xp.ones_like(beta), xp.zeros_like(base)
        return _State(
            self, base, zero, u, v, v, zero, alpha, alpha, nil, alpha * beta, one, one, one, nil, beta, nil, one, nil,
            nil, (nil, xp.full_like(nil, float("inf"))), beta, alpha * beta, anorm2, nil, self.system.norm(base),
        )  # fmt: skip

    def step(self, state: _State) -> _State:
        xp = self.xp
        u, v, alpha, beta = self.bidiagonalise(state.u, state.v, state.alpha)
        anorm2 = state.anorm2 + beta**2 + alpha**2
        floor = self.tiny * xp.sqrt(anorm2)
        # The two rotations: of the bidiagonal matrix, and of its product with itself.
        rho_old, rho = state.rho, xp.sqrt(state.alphabar**2 + beta**2)
        alive = rho > floor
        rho = xp.where(alive, rho, 1.0)
        c, s = xp.where(alive, state.alphabar / rho, 0.0), xp.where(alive, beta / rho, 1.0)
        theta, alphabar = s * alpha, c * alpha
        rhobar_old, zeta_old = state.rhobar, state.zeta
        thetabar, rhotemp = state.sbar * rho, state.cbar * rho
        rhobar = xp.sqrt(rhotemp**2 + theta**2)
        alive = alive & (rhobar > floor)
        rhobar = xp.where(alive, rhobar, 1.0)
        cbar, sbar = xp.where(alive, rhotemp / rhobar, 0.0), xp.where(alive, theta / rhobar, 1.0)
        zeta, zetabar = cbar * state.zetabar, -sbar * state.zetabar
        hbar = state.h - (thetabar * rho / (rho_old * rhobar_old)) * state.hbar
        t = state.t + xp.where(alive, zeta / (rho * rhobar), 0.0) * hbar
        h = v - (theta / rho) * state.h
        # ||r|| of the iterate, which is not the one LSQR would have.
        betahat, betadd = c * state.betadd, -s * state.betadd
        thetatilde_old = state.thetatilde
        rhotilde = xp.sqrt(state.rhodold**2 + thetabar**2)
        rhotilde = xp.where(rhotilde > 0, rhotilde, 1.0)
        ctilde, stilde = state.rhodold / rhotilde, thetabar / rhotilde
        thetatilde, rhodold = stilde * rhobar, ctilde * rhobar
        betad = -stilde * state.betad + ctilde * betahat
        tautildeold = (zeta_old - thetatilde_old * state.tautildeold) / rhotilde
        taud = (zeta - thetatilde * tautildeold) / xp.where(rhodold != 0, rhodold, 1.0)
        rnorm = xp.sqrt((betad - taud) ** 2 + betadd**2)
        # The condition number from the diagonal of the second factor, whose last entry is not final.
        largest, smallest = state.extremes
        least = xp.maximum(xp.minimum(smallest, rhotemp), floor)
        cond = xp.maximum(largest, rhotemp) / xp.where(least > 0, least, 1.0)
        extremes = (xp.maximum(largest, rhobar), xp.minimum(smallest, rhobar))
        return _State(
            self, state.base, t, u, v, h, hbar, alpha, alphabar, zeta, zetabar, rho, rhobar, cbar, sbar, betadd, betad,
            rhodold, tautildeold, thetatilde, extremes, rnorm, xp.abs(zetabar), anorm2, cond, state.offset,
        )  # fmt: skip

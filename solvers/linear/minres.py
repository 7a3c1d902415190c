"""Minimal residuals for Hermitian systems that need not be definite (Paige and Saunders 1975).

The preconditioned Lanczos recurrence with a QR factorisation of its tridiagonal matrix, in the two-vector form of Elman,
Silvester and Wathen (2014, algorithm 4.1). Like `cg`, a run is called converged only after ``b - A x`` was recomputed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...backends.linalg import axpy
from ...backends.namespace import Array, finfo_eps, is_numpy
from ...backends.transfer import host_float
from ..iterate import Callback, warn_unless_converged
from ..result import LinearResult
from .system import System, prepare, run


def minres(
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
    """Solve ``A x = b`` for a Hermitian ``A``, definite or not, by the smallest residual over the Krylov space.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        The operator, Hermitian; see `as_operator` for what is accepted.
    b : array (n,) or (n, k)
        One right-hand side, or ``k`` of them that share each product with ``A`` and stop one by one.
    x0 : array like b, optional
        Starting point, default zero; not modified.
    rtol, atol : float
        Column ``j`` has converged when ``||b_j - A x_j|| <= max(rtol ||b_j||, atol)``. SciPy's `minres` divides by
        ``||A|| ||x||`` instead and may stop much earlier.
    maxiter : int, optional
        Most iterations, default ``10 n``.
    M : like A, optional
        Approximation of the *inverse* of ``A``, Hermitian positive *definite* also where ``A`` is not.
    callback, check_every, progress, time_limit
        See `LoopOptions`; the callback's iterate has ``x``.

    Returns
    -------
    LinearResult
        As of `cg`.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached; the result holds the last good iterate and a status with advice.

    Notes
    -----
    The residual falls at every step, measured in the norm of ``M`` when there is one. One product with ``A``, two inner
    products and six vector updates an iteration; three more updates with ``M``, for the norm that is tested.

    References
    ----------
    C. C. Paige, M. A. Saunders, Solution of sparse indefinite systems of linear equations, 1975.
    H. Elman, D. Silvester, A. Wathen, Finite elements and fast iterative solvers, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import minres
    >>> A = np.diag(np.asarray([1.0, -2.0, 4.0]))
    >>> minres(A, np.asarray([1.0, 2.0, 4.0])).x.round(6).tolist()
    [1.0, -1.0, 1.0]
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M, hermitian=True)
    plain = system.M is None and b.ndim == 1 and is_numpy(system.xp) and system.xp.isdtype(b.dtype, "real floating")
    method = (_MinresNumPy if plain else Minres)(system)
    result = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "minres")
    return result


class _State(NamedTuple):
    """``x`` the iterate, ``r`` its residual (carried only with ``M``), ``v`` and ``z = M v`` the Lanczos vectors with
    ``gamma^2 = <z, v>``, ``w`` the directions and ``aw = A w`` (with ``M``), ``c`` and ``s`` the last two rotations, ``eta``
    the signed residual norm, ``least`` the smallest ``<z, v>`` met (negative says that ``M`` is indefinite), ``size`` the
    largest pivot met, and ``alive`` whether a column's Krylov space still grows."""

    x: Array
    r: Array
    v: tuple[Array, Array]
    z: Array
    gamma: tuple[Array, Array]
    w: tuple[Array, Array]
    aw: tuple[Array, Array]
    c: tuple[Array, Array]
    s: tuple[Array, Array]
    eta: Array
    norm: Array
    least: Array
    size: Array
    alive: Array


class Minres:
    """The recurrence, as the loop runs it."""

    def __init__(self, system: System) -> None:
        self.system, self.matvecs = system, 0
        self.lost = 10.0 * finfo_eps(system.b.dtype, system.xp)
        self.inner = system.real_dot

    def start(self, x: Array, r: Array) -> _State:
        """The state whose Krylov space begins with the residual ``r`` of ``x``."""
        M, xp = self.system.M, self.system.xp
        z = r if M is None else M @ r
        squared = self.inner(z, r)
        gamma = xp.sqrt(xp.maximum(squared, xp.zeros_like(squared)))
        norm = gamma if M is None else xp.sqrt(self.inner(r, r))
        least = squared if M is None else self.system.energy(squared, norm)
        zero, one = xp.zeros_like(r), xp.ones_like(gamma)
        nil = xp.zeros_like(gamma)
        return _State(
            x, r, (zero, r), z, (one, gamma), (zero, zero), (zero, zero), (one, one), (nil, nil), gamma, norm, least, nil,
            norm >= 0,
        )  # fmt: skip

    def step(self, state: _State) -> _State:
        A, M, xp = self.system.A, self.system.M, self.system.xp
        x, r, (v_old, v), z, (gamma_old, gamma), (w0, w1), (aw0, aw1) = state[:7]
        (c0, c1), (s0, s1), eta, norm, least, size, alive = state[7:]
        active = alive & self.system.active(norm)
        g = xp.where(gamma > 0, gamma, 1.0)
        z = z / g
        az = A @ z
        self.matvecs += self.system.columns
        delta = self.inner(z, az)
        # Sums land in their own first term: no state is touched, and half as much new memory.
        v_new = (-delta / g) * v
        v_new += az
        v_new -= (gamma / gamma_old) * v_old
        z_new = v_new if M is None else M @ v_new
        squared = self.inner(z_new, v_new)
        gamma_new = xp.sqrt(xp.maximum(squared, xp.zeros_like(squared)))
        # The new column of the tridiagonal matrix under the last two rotations, and the rotation that ends it.
        a0, a2, a3 = c1 * delta - c0 * s1 * gamma, s1 * delta + c0 * c1 * gamma, s0 * gamma
        a1 = xp.sqrt(a0 * a0 + gamma_new * gamma_new)
        # A pivot lost in rounding: the space is exhausted, and a step along it would follow the null space of A for ever.
        size = xp.maximum(size, a1)
        regular = ~(a1 <= self.lost * size)  # NaN goes on, to be seen
        alive = alive & regular
        safe = xp.where(regular, a1, 1.0)
        c, s = xp.where(regular, a0 / safe, 0.0), xp.where(regular, gamma_new / safe, 1.0)
        w = -a3 * w0
        w += z
        w -= a2 * w1
        w /= safe
        tau = xp.where(active & regular, c * eta, 0.0)
        moved = tau * w
        moved += x
        x = moved
        eta = xp.where(active, -s * eta, eta)
        aw = aw1
        if M is None:
            norm = xp.abs(eta)
        else:
            # The rotations give the norm in M only: the residual itself takes its own update.
            aw = -a3 * aw0
            aw += az
            aw -= a2 * aw1
            aw /= safe
            r = r - tau * aw
            norm = xp.sqrt(self.inner(r, r))
        least = xp.minimum(least, xp.where(active, squared, xp.ones_like(squared)))
        return _State(
            x, r, (v, v_new), z_new, (g, gamma_new), (w1, w), (aw1, aw), (c1, c), (s1, s), eta, norm, least, size,
            alive,
        )  # fmt: skip

    def error(self, state: _State) -> Array:
        xp = self.system.xp
        # The sign of <z, v> rides on the norm, and infinity says that no space is left: one transfer tells all.
        norm = xp.copysign(self.system.worst(state.norm), xp.min(state.least))
        left = self.system.active(state.norm)
        return xp.where(xp.any(left) & ~xp.any(left & state.alive), -math.inf, norm)

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and start the recurrence from it."""
        self.matvecs += self.system.columns
        fresh = self.start(state.x, self.system.true_residual(state.x))
        return fresh, host_float(self.system.worst(fresh.norm))


class _MinresNumPy(Minres):
    """One real right-hand side without a preconditioner: numbers of Python, and BLAS's one-pass updates in place.

    Only ``x`` of an old state stays; the Lanczos vectors and directions change.
    """

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self.axpy = axpy(system.b)

    def start(self, x: Array, r: Array) -> _State:
        state = super().start(x, r)
        xp, v = self.system.xp, self.system.xp.asarray(r, copy=True)
        gamma, size = float(state.gamma[1]), float(state.size)
        return state._replace(
            v=(xp.zeros_like(v), v), z=v, gamma=(1.0, gamma), w=(xp.zeros_like(v), xp.zeros_like(v)), c=(1.0, 1.0),
            s=(0.0, 0.0), eta=gamma, norm=gamma, size=size, alive=True,
        )  # fmt: skip

    def step(self, state: _State) -> _State:
        x, r, (v_old, v), _, (gamma_old, gamma), (w0, w1) = state[:6]
        (c0, c1), (s0, s1), eta, _, least, size, alive = state[7:]
        g = gamma or 1.0
        z = v / g
        az = self.system.A @ z
        self.matvecs += 1
        delta = float(z @ az)
        # v_new = az - (delta / g) v - (gamma / gamma_old) v_old, in the memory of v_old.
        v_old *= -gamma / gamma_old
        v_old += az
        self.axpy(v, v_old, a=-delta / g)
        v, v_new = v, v_old
        gamma_new = float(v_new @ v_new) ** 0.5
        a0, a2, a3 = c1 * delta - c0 * s1 * gamma, s1 * delta + c0 * c1 * gamma, s0 * gamma
        a1 = math.hypot(a0, gamma_new)
        size = max(size, a1)
        if a1 <= self.lost * size:
            # Exhausted, as in the general step: nothing moves any more.
            return state._replace(v=(v, v_new), alive=False)
        c, s = a0 / a1, gamma_new / a1
        # w = (z - a3 w0 - a2 w1) / a1, in the memory of w0.
        w0 *= -a3 / a1
        self.axpy(z, w0, a=1.0 / a1)
        self.axpy(w1, w0, a=-a2 / a1)
        moved = (c * eta) * w0
        moved += x
        eta = -s * eta
        return _State(
            moved, r, (v, v_new), v_new, (g, gamma_new), (w1, w0), state.aw, (c1, c), (s1, s), eta, abs(eta), least, size,
            alive,
        )  # fmt: skip

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and start the recurrence from it."""
        self.matvecs += 1
        fresh = self.start(state.x, self.system.true_residual(state.x))
        return fresh, float(fresh.norm)

    def error(self, state: _State) -> float:
        return -math.inf if not state.alive and state.norm > self.system.tolerance else state.norm

"""Conjugate gradients for Hermitian positive definite systems, one or many right-hand sides at once.

Hestenes and Stiefel (1952). The recurrence's residual drifts from the true one, in float32 soon; a run is called converged
only after ``b - A x`` was recomputed (in float64 where the entries of A are stored), and goes on from that truth otherwise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...backends.linalg import axpy
from ...backends.namespace import Array, is_numpy
from ...backends.transfer import host_float
from ..iterate import Callback, warn_unless_converged
from ..result import LinearResult
from .rows import Rows
from .system import System, prepare, run


def cg(
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
    """Solve ``A x = b`` for a Hermitian positive definite ``A``.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        The operator; see `as_operator` for what is accepted.
    b : array (n,) or (n, k)
        One right-hand side, or ``k`` of them that share each product with ``A`` and stop one by one.
    x0 : array like b, optional
        Starting point, default zero; not modified.
    rtol, atol : float
        Column ``j`` has converged when ``||b_j - A x_j|| <= max(rtol ||b_j||, atol)``.
    maxiter : int, optional
        Most iterations, default ``10 n``.
    M : like A, optional
        Approximation of the *inverse* of ``A``, Hermitian positive definite (SciPy's meaning).
    callback, check_every, progress, time_limit
        See `LoopOptions`; the callback's iterate has ``x``.

    Returns
    -------
    LinearResult
        ``x`` in the library, dtype and device of ``b``. ``residual`` is the recomputed ``||b - A x||``; for several
        columns the largest ``||r_j|| tau / tau_j``, where ``tau_j`` is the bound of column ``j`` and ``tau`` the largest.

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
    After ``i`` iterations ``||x_i - x||_A <= 2 ((sqrt(c) - 1) / (sqrt(c) + 1))^i ||x_0 - x||_A``, ``c`` the condition
    number of ``M A``. One product with ``A``, two inner products and three vector updates an iteration.

    References
    ----------
    M. R. Hestenes, E. Stiefel, Methods of conjugate gradients for solving linear systems, 1952.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import cg
    >>> A = np.diag(np.asarray([1.0, 2.0, 4.0]))
    >>> cg(A, np.asarray([1.0, 2.0, 4.0])).x.round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M, hermitian=True)
    single = b.ndim == 1 and not system.xp.isdtype(b.dtype, "complex floating")
    if is_numpy(system.xp) and (single or b.ndim == 2):
        method: _Method = _SingleNumPy(system) if single else _ColumnsNumPy(system)
    else:
        method = _Single(system) if single else _Columns(system)
    result = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "cg")
    return result


class _State(NamedTuple):
    """``x`` the iterate, ``r`` its carried residual, ``p`` the direction, ``rz = <r, M r>``, ``rr = <r, r>``, and the
    curvature ``<p, A p>`` of the last step."""

    x: Array
    r: Array
    p: Array
    rz: Array
    rr: Array
    curvature: Array


class _Method:
    """What one and many right-hand sides share: starting from a residual, and the recomputed truth."""

    def __init__(self, system: System) -> None:
        self.system, self.A, self.M, self.xp = system, system.A, system.M, system.xp
        self.matvecs = 0

    def start(self, x: Array, r: Array) -> _State:
        """The state whose direction is the (preconditioned) residual."""
        z = self.system.precondition(r)
        rr = self.system.real_dot(r, r)
        rz = rr if self.M is None else self.system.real_dot(r, z)
        return _State(x, r, z, rz, rr, self.xp.ones_like(rz))

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and restart the direction from it."""
        self.matvecs += self.system.columns
        fresh = self.start(state.x, self.system.true_residual(state.x))
        return fresh, host_float(self.system.worst(fresh.rr**0.5))


class _Single(_Method):
    """One real right-hand side: the leanest step, no masks."""

    def step(self, state: _State) -> _State:
        x, r, p, rz, rr, _ = state
        q = self.A @ p
        self.matvecs += 1
        curvature, active = p @ q, self.system.moving(rr**0.5)
        # Zero curvature must not divide, and counts as negative.
        curvature = self.xp.where(active, self.xp.where(curvature == 0, -1.0, curvature), 1.0)
        alpha = self.xp.where(active, rz / curvature, 0.0)
        x = x + alpha * p
        r = r - alpha * q
        rr = r @ r
        z = r if self.M is None else self.M @ r
        rz_new = rr if self.M is None else r @ z
        # Between looks a residual may have become zero exactly.
        beta = rz_new / self.xp.where(rz == 0, 1.0, rz)
        return _State(x, r, z + beta * p, rz_new, rr, curvature)

    def error(self, state: _State) -> Array:
        # The sign of the curvature (and of <r, M r>) rides on the norm: one transfer tells both.
        signed = state.curvature
        if self.M is not None:
            signed = self.xp.minimum(signed, self.system.energy(state.rz, state.rr))
        return self.xp.copysign(state.rr**0.5, signed)


class _SingleNumPy(_Single):
    """The same with BLAS's one-pass updates: residual and direction change in place, only ``x`` of an old state stays."""

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self.axpy = axpy(system.b)

    def start(self, x: Array, r: Array) -> _State:
        return _own(super().start(x, r))

    def step(self, state: _State) -> _State:
        x, r, p, rz, rr, _ = state
        if not self.system.moving(math.sqrt(rr)):
            return state
        q = self.A @ p
        self.matvecs += 1
        curvature = (p @ q) or -1.0
        alpha = rz / curvature
        moved = alpha * p
        moved += x
        self.axpy(q, r, a=-alpha)
        rr = r @ r
        z = r if self.M is None else self.M @ r
        rz_new = rr if self.M is None else r @ z
        p *= rz_new / rz if rz else 0.0
        p += z
        return _State(moved, r, p, rz_new, rr, curvature)


def _own(state: _State) -> _State:
    """The state with copies of its residual and direction, in row order, which may then change in place."""
    return state._replace(r=state.r.copy(), p=state.p.copy())


class _Columns(_Method):
    """Many or complex right-hand sides: each column has its own scalars and freezes when it has converged."""

    def step(self, state: _State) -> _State:
        x, r, p, rz, rr, worst = state
        system, xp = self.system, self.xp
        active = system.active(rr**0.5)
        q = self.A @ p
        self.matvecs += system.columns
        curvature = system.real_dot(p, q)
        good = active & (curvature > 0)
        alpha = xp.where(good, rz / xp.where(good, curvature, 1.0), 0.0)
        x, r = x + alpha * p, r - alpha * q
        rr = system.real_dot(r, r)
        z = r if self.M is None else self.M @ r
        rz_new = rr if self.M is None else system.real_dot(r, z)
        going = good & (rz > 0)
        # The direction of a frozen column is never followed.
        p = z + xp.where(going, rz_new / xp.where(going, rz, 1.0), 0.0) * p
        # A column that met no positive curvature must not be forgotten between looks.
        bad = active & ((curvature <= 0) | (rz <= 0) | (rz_new < 0))
        return _State(x, r, p, rz_new, rr, xp.where(bad, -1.0, worst))

    def error(self, state: _State) -> Array | float:
        return self.xp.copysign(self.system.worst(state.rr**0.5), self.xp.min(state.curvature))


class _ColumnsNumPy(_Columns):
    """The same in place and with long rows (`Rows`); masks only once a column has converged or met a curvature that is not
    positive, for of small arrays they cost as much as the arithmetic of a small system."""

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self.rows = Rows(system.b, system.xp)

    def start(self, x: Array, r: Array) -> _State:
        return _own(super().start(x, r))

    def step(self, state: _State) -> _State:
        x, r, p, rz, rr, worst = state
        rows, M = self.rows, self.M
        q = self.A @ p
        self.matvecs += self.system.columns
        curvature = rows.dot(p, q)
        active = self.system.active(rr**0.5)
        plain = active.all() and curvature.min() > 0 and (M is None or rz.min() > 0)
        good = active if plain else active & (curvature > 0)
        alpha = rz / curvature if plain else rows.ratio(rz, curvature, good)
        factors = rows.factors(alpha)
        x, r = rows.along(x, factors, p), rows.less(r, factors, q)
        rr = rows.dot(r, r)
        z = r if M is None else M @ r
        rz_new = rr if M is None else rows.dot(r, z)
        beta = rz_new / rz if plain else rows.ratio(rz_new, rz, good & (rz > 0))
        p = rows.turn(p, rows.factors(beta), z)
        if not plain or M is not None:
            bad = active & ((curvature <= 0) | (rz <= 0) | (rz_new < 0))
            worst = self.xp.where(bad, -1.0, worst)
        return _State(x, r, p, rz_new, rr, worst)

    def error(self, state: _State) -> float:
        return self.rows.signed_worst(state.rr**0.5 * self.system.weights, state.curvature)

"""Flexible conjugate gradients: the preconditioner may vary, as inner iterations and learned maps do (Notay 2000).

Each direction is made conjugate to the last few by inner products instead of by the recurrence that a fixed preconditioner
would justify.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...backends.namespace import Array
from ...backends.transfer import host_float
from ...backends.validation import check_count
from ..iterate import Callback, warn_unless_converged
from ..result import LinearResult
from .system import System, prepare, run


def flexible_cg(
    A: Any,
    b: Array,
    *,
    M: Any,
    window: int = 1,
    x0: Array | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve ``A x = b`` for a Hermitian positive definite ``A`` with a preconditioner that may vary.

    Parameters
    ----------
    A, b, x0, rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `cg`.
    M : callable or like A
        ``r -> an approximation of A^{-1} r``, linear or not, the same at each call or not. Not checked for symmetry.
    window : int
        Past directions that each new one is made conjugate to; more help a preconditioner that varies much.

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
    ``1 + 2 window`` inner products and ``2 window`` further vectors an iteration.

    References
    ----------
    Y. Notay, Flexible conjugate gradients, 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import cg, flexible_cg
    >>> A = np.diag(np.linspace(1.0, 100.0, 50))
    >>> flexible_cg(A, np.ones(50), M=lambda r: cg(A, r, rtol=0.1).x, rtol=1e-8).n_iter < 15
    True
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M)
    method = _FlexibleCG(system, check_count(window, "window"))
    result = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "flexible_cg")
    return result


class _State(NamedTuple):
    """``x``, its carried residual ``r`` with norm ``rnorm``, the last ``(p, A p, <p, A p>)``, and ``curvature``,
    negative once one was not positive."""

    x: Array
    r: Array
    rnorm: Array
    past: tuple[tuple[Array, Array, Array], ...]
    curvature: Array


class _FlexibleCG:
    def __init__(self, system: System, window: int) -> None:
        self.system, self.window, self.matvecs = system, window, 0

    def start(self, x: Array, r: Array) -> _State:
        rnorm = self.system.norm(r)
        return _State(x, r, rnorm, (), self.system.xp.ones_like(rnorm))

    def step(self, state: _State) -> _State:
        xp, system = self.system.xp, self.system
        x, r, rnorm, past, worst = state
        active = system.active(rnorm)
        p = system.precondition(r)
        for direction, image, curvature in past:
            ok = curvature > 0
            p = p - xp.where(ok, system.dot(image, p) / xp.where(ok, curvature, 1.0), 0.0) * direction
        q = system.A @ p
        self.matvecs += system.columns
        curvature = system.real_dot(p, q)
        good = active & (curvature > 0)
        alpha = xp.where(good, system.dot(p, r) / xp.where(good, curvature, 1.0), 0.0)
        x = x + alpha * p
        r = r - alpha * q
        worst = xp.where(active & (curvature <= 0), -1.0, worst)
        past = ((p, q, curvature), *past)[: self.window]
        return _State(x, r, system.norm(r), past, worst)

    def error(self, state: _State) -> Array:
        return self.system.xp.copysign(self.system.worst(state.rnorm), self.system.xp.min(state.curvature))

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and forget the past directions."""
        self.matvecs += self.system.columns
        fresh = self.start(state.x, self.system.true_residual(state.x))
        return fresh, host_float(self.system.worst(fresh.rnorm))

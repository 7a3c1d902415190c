"""Chebyshev iteration: no inner products at all, for spectra whose bounds are known (Golub and Varga 1961).

What it saves are reductions, which cost most where processors are many: the residual is measured only when it is looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array
from ...backends.transfer import host_float
from ...backends.validation import check_scalar
from ..iterate import Callback, warn_unless_converged
from ..result import LinearResult, Status
from .system import System, prepare, run


def chebyshev(
    A: Any,
    b: Array,
    *,
    bounds: tuple[float, float],
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
    """Solve ``A x = b`` for a Hermitian positive definite ``A`` whose spectrum lies within known bounds.

    Parameters
    ----------
    A, b, x0, rtol, atol, maxiter, callback, progress, time_limit
        As of `cg`.
    bounds : (float, float)
        An interval that holds the eigenvalues of ``M A``. An upper bound that is too low makes the iteration diverge (the
        run then stops with the status BREAKDOWN), a lower one that is too high makes it slow.
    M : like A, optional
        Approximation of the inverse of ``A``, Hermitian positive definite.
    check_every : int, optional
        Iterations between two measurements of the residual, which are the only reductions; default 1, 10 on a GPU.

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
        The tolerance was not reached; the result holds the best iterate that was looked at and a status with advice.

    Notes
    -----
    After ``i`` iterations the error has fallen at least by ``T_i((hi + lo) / (hi - lo))``, ``T_i`` the Chebyshev polynomial.

    References
    ----------
    G. H. Golub, R. S. Varga, Chebyshev semi-iterative methods, 1961.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import chebyshev
    >>> A = np.diag(np.asarray([1.0, 2.0, 4.0]))
    >>> chebyshev(A, np.asarray([1.0, 2.0, 4.0]), bounds=(1.0, 4.0), rtol=1e-9).x.round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    if not hasattr(bounds, "__len__") or len(bounds) != 2:
        raise InputError(f"bounds is {bounds!r}, expected two positive numbers")
    low, high = (check_scalar(bound, "bounds", positive=True) for bound in bounds)
    if low > high:
        raise InputError(f"bounds is {bounds!r}, expected the smaller number first")
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M, hermitian=True)
    result = run(
        _Chebyshev(system, low, high), system, maxiter=maxiter, callback=callback, check_every=check_every,
        progress=progress, time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "chebyshev")
    return result


# The residual of a convergent run stays below a small multiple of its start; one that has grown so far diverges.
_DIVERGED = 1e6


class _State(NamedTuple):
    """``x``, its carried residual ``r``, the next correction ``d``, and the recurrence's scalar ``rho``."""

    x: Array
    r: Array
    d: Array
    rho: float


class _Chebyshev:
    keep_best = True
    broken = Status.BREAKDOWN

    def __init__(self, system: System, low: float, high: float) -> None:
        self.system, self.matvecs = system, 0
        self.centre, self.half = 0.5 * (high + low), 0.5 * (high - low)
        self.limit = _DIVERGED * system.worst(system.norm(system.r))

    def start(self, x: Array, r: Array) -> _State:
        return _State(x, r, self.system.precondition(r) / self.centre, self.half / self.centre)

    def step(self, state: _State) -> _State:
        x, r, d, rho = state
        x = x + d
        r = r - self.system.A @ d
        self.matvecs += self.system.columns
        z = self.system.precondition(r)
        if self.half == 0:  # one eigenvalue: Richardson's iteration is exact
            return _State(x, r, z / self.centre, 0.0)
        rho_new = 1.0 / (2.0 * self.centre / self.half - rho)
        return _State(x, r, (rho_new * rho) * d + (2.0 * rho_new / self.half) * z, rho_new)

    def error(self, state: _State) -> Array:
        worst = self.system.worst(self.system.norm(state.r))
        return self.system.xp.where(worst > self.limit, -1.0, worst)

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and begin from it."""
        self.matvecs += self.system.columns
        fresh = self.start(state.x, self.system.true_residual(state.x))
        return fresh, host_float(self.system.worst(self.system.norm(fresh.r)))

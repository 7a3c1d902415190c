"""Conjugate gradients in low precision with a solution in high: reliable updates (Clark et al. 2010).

One run of the recurrence in float32, whose residual is replaced by the float64 one each time it has fallen by ``delta``; the
search direction goes on across a replacement, so the Krylov space is not begun anew as in iterative refinement.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...backends.errors import BackendError, InputError
from ...backends.namespace import Array, Namespace, finfo_eps, is_array, is_gpu
from ...backends.operators import LinearOperator, as_operator
from ...backends.operators.adapters import Pending
from ...backends.transfer import host_float, to_host
from ...backends.validation import check_count, check_scalar
from ..iterate import Callback, Outcome, warn_unless_converged
from ..result import LinearResult, Status
from .system import System, check_pending, prepare, run


def mixed_cg(
    A: Any,
    b: Array,
    *,
    A_low: Any = None,
    delta: float = 0.1,
    x0: Array | None = None,
    rtol: float = 1e-10,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve ``A x = b`` in float64 for a Hermitian positive definite ``A``, with nearly all products in float32.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        The operator in float64 (complex128).
    b : array (n,) or (n, k)
        Right-hand sides in float64 (complex128).
    A_low : like A, optional
        The operator in float32 (complex64); by default a stored matrix is converted, an operator must bring it.
    delta : float
        The residual is recomputed in float64 each time it has fallen by this factor.
    x0, rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `cg`.
    M : like A_low, optional
        Approximation of the inverse of ``A``, acting on float32 vectors.

    Returns
    -------
    LinearResult
        As of `cg`; ``evaluations`` counts ``matvec`` (float64) and ``matvec_low`` (float32).

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached; the result holds the last good iterate and a status with advice.

    References
    ----------
    M. A. Clark et al., Solving lattice QCD systems of equations using mixed precision solvers on GPUs, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import mixed_cg
    >>> A = np.diag(np.linspace(1.0, 100.0, 50))
    >>> result = mixed_cg(A, np.ones(50), rtol=1e-13)
    >>> bool(abs(A @ result.x - 1.0).max() < 1e-12)
    True
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=None, hermitian=True)
    xp = system.xp
    if b.dtype not in (xp.float64, xp.complex128):
        raise BackendError(f"b has dtype {b.dtype}, expected float64 or complex128: the answer's precision")
    delta = check_scalar(delta, "delta", positive=True)
    if delta >= 1:
        raise InputError(f"delta must be below 1, got {delta}")
    low = xp.complex64 if b.dtype == xp.complex128 else xp.float32
    like = xp.astype(b, low)
    given = _lowered(A, low, xp) if A_low is None else A_low
    pending: Pending = []
    operator = as_operator(given, like=like, name="A_low", pending=pending)
    if A_low is None:
        pending.clear()  # as finite as A, which was looked at
    inverse = None if M is None else as_operator(M, like=like, name="M", pending=pending)
    if pending:
        check_pending(pending, xp)
    look = (10 if is_gpu(b) else 1) if check_every is None else check_count(check_every, "check_every")
    method = _MixedCG(system, operator, inverse, low, delta, look)

    def build(outcome: Outcome[Any]) -> LinearResult:
        counts = {"matvec": method.matvecs, "matvec_low": method.low_matvecs}
        return LinearResult(x=outcome.state.x, evaluations=counts, **outcome.fields())

    result = run(
        method, system, maxiter=maxiter, callback=callback, check_every=look, progress=progress,
        time_limit=time_limit, build=build,
    )  # fmt: skip
    warn_unless_converged(result, "mixed_cg")
    return result


def _lowered(A: Any, low: Any, xp: Namespace) -> Any:
    """The stored matrix in low precision."""
    if isinstance(A, LinearOperator) or not (is_array(A) or hasattr(A, "nnz") or hasattr(A, "layout")):
        raise InputError("A_low is needed: A is not a stored matrix that could be converted to float32")
    if is_array(A):
        real = not xp.isdtype(A.dtype, "complex floating")
        return xp.astype(A, xp.float32 if real else low)
    real = "complex" not in str(A.dtype)
    dtype = xp.float32 if real else low
    return A.to(dtype) if hasattr(A, "layout") else A.astype(dtype)


# The carried residual has stalled when it found no new minimum for this many iterations and this part of the run.
_PATIENCE, _PART = 50, 0.2
# Units of the lower precision's rounding, of a residual that began at one.
_NOISE = 10.0
# The true residual is the carried one up to such a factor, or the directions say nothing of it.
_SUNK = 2.0


class _State(NamedTuple):
    """``base + scale y`` the iterate (sums in float64: rounded ones would show in the residual); ``r``, ``p`` in low
    precision and ``y`` in units of ``scale``, ``rz = <r, M r>``, ``curvature``
    negative once one was not positive; on the host ``steps`` since the start, ``norm`` the last one looked at, ``low`` the
    smallest since the last replacement and ``low_at`` when, ``replaced`` the last recomputed norm, and ``futile``
    replacements in a row; ``pending`` the recomputed norm of a replacement that no look has read yet;
    ``exact`` says that ``norm`` was recomputed and nothing has moved since."""

    method: _MixedCG
    base: Array
    y: Array
    r: Array
    p: Array
    rz: Array
    curvature: Array
    scale: Array
    steps: int
    norm: float
    low: float
    low_at: int
    replaced: float
    futile: int
    pending: Array | None = None
    exact: bool = False

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.base + self.scale * self.y


class _MixedCG:
    def __init__(
        self, system: System, A: LinearOperator, M: LinearOperator | None, low: Any, delta: float, look: int
    ) -> None:
        self.system, self.A, self.M, self.low, self.delta, self.look = system, A, M, low, delta, look
        self.matvecs = self.low_matvecs = 0
        self.xp = system.xp
        self.broken = Status.INDEFINITE
        self.noise = _NOISE * finfo_eps(low, system.xp)

    def precondition(self, r: Array) -> Array:
        return r if self.M is None else self.M @ r

    def start(self, x: Array, r: Array) -> _State:
        xp, system = self.xp, self.system
        size = system.norm(r)
        scale = xp.where(size > 0, size, 1.0)
        low = xp.astype(r / scale, self.low)
        z = self.precondition(low)
        rz = system.real_dot(low, z)
        norm = host_float(system.worst(size))
        return _State(self, x, xp.zeros_like(x), low, z, rz, xp.ones_like(rz), scale, 0, norm, norm, 0, norm, 0)

    def step(self, state: _State) -> _State:
        xp, system = self.xp, self.system
        # The carried norm, without another pass where <r, r> is known.
        length = xp.sqrt(state.rz) if self.M is None else system.norm(state.r)
        size = state.scale * xp.astype(length, state.scale.dtype)
        # A column also waits where rounding is all that is left of the residual in single precision.
        good_rz = (state.rz > 0) & system.moving(size) & (length > self.noise)
        q = self.A @ state.p
        self.low_matvecs += system.columns
        curvature = system.real_dot(state.p, q)
        good = good_rz & (curvature > 0)
        broken = good_rz & (curvature <= 0)
        if self.M is not None:
            # Of a residual that is still too large, <r, M r> is positive if M is.
            broken = broken | (~(state.rz > 0) & system.active(size))
        alpha = xp.where(good, state.rz / xp.where(good, curvature, 1.0), 0.0)
        worst = xp.where(broken, -1.0, state.curvature)
        state = state._replace(
            y=state.y + xp.astype(alpha * state.p, state.y.dtype),
            r=state.r - alpha * q,
            curvature=worst,
            steps=state.steps + 1,
            exact=False,
        )
        if state.steps % self.look == 0:
            state, due = self.glance(state)
            if due:
                return self.replace(state, good)
        return self.turn(state, state.r, good)

    def turn(self, state: _State, r: Array, good: Array) -> _State:
        """The next direction from the residual ``r``."""
        xp = self.xp
        z = self.precondition(r)
        rz = self.system.real_dot(r, z)
        beta = xp.where(good, rz / xp.where(good, state.rz, 1.0), 0.0)
        return state._replace(r=r, p=z + beta * state.p, rz=rz)

    def glance(self, state: _State) -> tuple[_State, bool]:
        """Look at the carried residual: whether it has fallen far enough, or stalled, so that it must be recomputed."""
        xp, system = self.xp, self.system
        relative = xp.astype(system.norm(state.r), state.scale.dtype)
        weighted = state.scale * relative * system.weights
        facts = [xp.max(relative), xp.max(weighted), xp.astype(xp.min(state.curvature), state.scale.dtype)]
        if state.pending is not None:
            facts.append(state.pending)
        fallen, norm, sign, *recomputed = (float(fact) for fact in to_host(xp.stack(facts)))
        if sign <= 0:
            return state._replace(norm=-1.0), False
        for exact in recomputed:
            futile = state.futile + 1 if exact > 0.5 * state.replaced else 0
            if futile > 1:
                self.broken = Status.STAGNATED
                return state._replace(norm=-1.0), False
            state = state._replace(replaced=exact, futile=futile, low=min(state.low, exact), pending=None)
        state = state._replace(norm=norm)
        if norm < state.low:
            state = state._replace(low=norm, low_at=state.steps)
        stalled = state.steps - state.low_at > _PATIENCE + _PART * state.steps
        return state, fallen <= self.delta or stalled or norm <= system.tolerance

    def replace(self, state: _State, good: Array) -> _State:
        """Put the float64 residual in the place of the carried one, and go on in the same direction."""
        xp, system = self.xp, self.system
        base = state.x
        exact = system.true_residual(base)
        self.matvecs += system.columns
        size = system.norm(exact)
        worst = system.worst(size)
        # Where the end may be reached the norm is read at once; the direction goes on if it is not.
        known = {"norm": host_float(worst), "exact": True} if state.norm <= system.tolerance else {"pending": worst}
        # Between two looks the carried residual may have sunk far below the true one: a new beginning, for the quotient of the
        # two would blow the old direction up.
        carried = state.scale * xp.astype(system.norm(state.r), state.scale.dtype)
        turned = self.turn(state, xp.astype(exact / state.scale, self.low), good & (size <= _SUNK * carried))
        # New units, so that float32 does not run out of range.
        scale = xp.where(size > 0, size, 1.0)
        factor = xp.astype(state.scale / scale, turned.rz.dtype)
        return turned._replace(
            base=base, y=xp.zeros_like(state.y), r=turned.r * factor, p=turned.p * factor, rz=turned.rz * factor**2,
            scale=scale, low=math.inf, low_at=state.steps, **known,
        )  # fmt: skip

    def error(self, state: _State) -> float:
        return state.norm

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x``, where that was not just done, and begin from it."""
        if state.exact:
            return state, state.norm
        self.matvecs += self.system.columns
        x = state.x
        fresh = self.start(x, self.system.true_residual(x))
        return fresh, fresh.norm

"""Block conjugate gradients: many right-hand sides that search one common Krylov space (O'Leary 1980, Dubrulle 2001).

Each solution is the best of the space that all residuals span together, so ``k`` columns need far fewer passes over ``A`` than
one. The residuals are kept as ``R = Q C`` with orthonormal ``Q``, which does not break down when they become dependent.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ....backends.errors import BreakdownError, InputError
from ....backends.linalg import adjoint, cho_solve, factoring
from ....backends.namespace import Array, device, finfo_eps
from ....backends.transfer import host_bool, host_float, to_host
from ....backends.validation import check_scalar
from ...iterate import Callback, warn_unless_converged
from ...result import LinearResult
from ..system import System, prepare, run


def block_cg(
    A: Any,
    B: Array,
    *,
    x0: Array | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    rank_tol: float | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve ``A X = B`` for a Hermitian positive definite ``A``, all columns from one Krylov space.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        The operator; see `as_operator` for what is accepted.
    B : array (n, k)
        Right-hand sides, at most ``n`` of them; dependent or zero columns are found and cost nothing.
    x0, rtol, atol, maxiter, M, callback, check_every, progress, time_limit
        As of `cg`; the tolerances hold for each column.
    rank_tol : float, optional
        Directions of the scaled columns below this part of the largest are dropped; default ``100 eps``.

    Returns
    -------
    LinearResult
        As of `cg`; an iteration multiplies ``A`` with a block of as many columns as are independent.

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
    Pays where a pass over ``A`` costs about the same for one and for many vectors: dense and kernel matrices. For a cheap
    sparse ``A`` the products of order ``n k^2`` beside it weigh more, and `cg` with several columns is faster.

    References
    ----------
    D. P. O'Leary, The block conjugate gradient algorithm and related methods, 1980.
    A. A. Dubrulle, Retooling the method of block conjugate gradients, 2001 (algorithm BCGrQ).

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import block_cg
    >>> A = np.diag(np.asarray([1.0, 2.0, 4.0]))
    >>> block_cg(A, np.eye(3)).x.diagonal().round(6).tolist()
    [1.0, 0.5, 0.25]
    """
    system = prepare(A, B, x0=x0, rtol=rtol, atol=atol, M=M, hermitian=True, name="B")
    if B.ndim != 2:
        raise InputError(f"B has shape {tuple(B.shape)}, expected (n, k); for one right-hand side see enlarged_cg")
    method = BlockCG(system, rank_tol) if system.M is None else _PreconditionedBlockCG(system, rank_tol)
    result = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "block_cg")
    return result


class _State(NamedTuple):
    """``x`` the iterates and their residuals ``Q C``, ``P`` the directions, ``norms`` of the columns; ``known`` is the tested
    quantity where it is on the host already, negative once the curvature was."""

    x: Array
    Q: Array
    C: Array
    P: Array
    norms: Array
    known: float | None


class BlockCG:
    """The residual-orthonormal form; a subclass chooses what the space is begun with (`seed`)."""

    def __init__(self, system: System, rank_tol: float | None = None) -> None:
        self.system, self.xp, self.matvecs = system, system.xp, 0
        if rank_tol is None:
            rank_tol = 100.0 * finfo_eps(system.b.dtype, system.xp)
        self.rank_tol = check_scalar(rank_tol, "rank_tol", non_negative=True)

    def seed(self, R: Array) -> tuple[Array, Array]:
        """The vectors that begin the space, (n, t), and the coefficients (t, k) that make the residuals of them."""
        xp = self.xp
        return R, xp.eye(R.shape[1], dtype=R.dtype, device=device(R))

    def factor(self, R: Array, worst: Array) -> tuple[Array, Array, float]:
        """``R = Q C`` with orthonormal columns of ``Q``, as many as are independent; ``worst`` on the host by the way."""
        xp = self.xp
        block, coefficients = self.seed(R)
        norms = self.system.norm(block)
        scale = xp.where(norms > 0, norms, 1.0)
        Q, S = xp.linalg.qr(block / scale)
        U, s, Vh = xp.linalg.svd(S, full_matrices=False)
        *values, known = (float(value) for value in to_host(xp.concat([s, xp.reshape(worst, (1,))])))
        rank = max(1, sum(value > self.rank_tol * values[0] for value in values))
        # By the norms themselves: a column of zeros takes no part, not even of rounding.
        small = (xp.astype(s[:rank], R.dtype)[:, None] * Vh[:rank, :]) * xp.astype(norms, R.dtype)[None, :]
        return Q @ U[:, :rank], small @ coefficients, known

    def start(self, x: Array, r: Array) -> _State:
        norms = self.system.norm(r)
        Q, C, known = self.factor(r[:, None] if r.ndim == 1 else r, self.system.worst(norms))
        return _State(x, Q, C, Q, norms, known)

    def norms_of(self, C: Array) -> Array:
        norms = self.system.norm(C)
        return norms[0] if self.system.b.ndim == 1 else norms

    def step(self, state: _State) -> _State:
        xp = self.xp
        x, Q, C, P = state[:4]
        AP = self.system.A @ P
        self.matvecs += P.shape[1]
        eye, moving = xp.eye(P.shape[1], dtype=P.dtype, device=device(P)), xp.any(self.system.moving(state.norms))
        G = xp.where(moving, adjoint(P, xp) @ AP, eye)
        L = positive_factor(G, xp)
        if L is None:
            return state._replace(known=broken(G, xp))
        update = P @ cho_solve(L, xp.where(moving, C, 0.0), xp=xp)
        x = x + (update[:, 0] if x.ndim == 1 else update)
        inverse = cho_solve(L, xp.where(moving, eye, 0.0), xp=xp)
        Q, S = xp.linalg.qr(Q - AP @ inverse)
        C = S @ C
        return _State(x, Q, C, Q + P @ adjoint(S, xp), self.norms_of(C), None)

    def error(self, state: Any) -> Any:
        return self.system.worst(state.norms) if state.known is None else state.known

    def verify(self, state: Any) -> tuple[Any, float]:
        """Recompute ``B - A X`` and begin a space from it."""
        self.matvecs += self.system.columns
        x = state.x
        r = self.system.true_residual(x)
        norms = self.system.norm(r)
        worst = host_float(self.system.worst(norms))
        # The residuals of solved columns are rounding and span nothing worth a direction.
        return (self.start(x, r) if worst > self.system.tolerance else state._replace(norms=norms, known=worst)), worst


def positive_factor(G: Array, xp: Any) -> Array | None:
    """Cholesky factor of the Hermitian part, or None where it is not positive definite."""
    try:
        with factoring("", xp):
            return xp.linalg.cholesky((G + adjoint(G, xp)) * 0.5)
    except BreakdownError:
        return None


def broken(G: Array, xp: Any) -> float:
    """What the loop is told of a matrix that has no Cholesky factor: a negative curvature, or NaN where there is one."""
    return -1.0 if host_bool(xp.all(xp.isfinite(G))) else math.nan


class _Preconditioned(NamedTuple):
    """Iterates and residuals ``R`` of the independent right-hand sides, orthonormal directions ``P``, and the coefficients
    ``W`` that make the user's columns of them, on top of ``base``."""

    base: Array
    Y: Array
    R: Array
    P: Array
    W: Array
    norms: Array
    known: float | None

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.base + self.Y @ self.W


class _PreconditionedBlockCG(BlockCG):
    """With a preconditioner the directions are kept orthonormal instead."""

    def start(self, x: Array, r: Array) -> Any:
        norms = self.system.norm(r)
        Q, W, known = self.factor(r, self.system.worst(norms))
        P = self.xp.linalg.qr(self.system.precondition(Q))[0]
        return _Preconditioned(x, self.xp.zeros_like(Q), Q, P, W, norms, known)

    def step(self, state: Any) -> Any:
        xp, system = self.xp, self.system
        AP = system.A @ state.P
        self.matvecs += state.P.shape[1]
        PH = adjoint(state.P, xp)
        eye, moving = xp.eye(PH.shape[0], dtype=PH.dtype, device=device(PH)), xp.any(system.moving(state.norms))
        G = xp.where(moving, PH @ AP, eye)
        L = positive_factor(G, xp)
        if L is None:
            return state._replace(known=broken(G, xp))
        step = cho_solve(L, xp.where(moving, PH @ state.R, 0.0), xp=xp)
        R = state.R - AP @ step
        Z = system.precondition(R)
        P = xp.linalg.qr(Z - state.P @ cho_solve(L, adjoint(AP, xp) @ Z, xp=xp))[0]
        return state._replace(Y=state.Y + state.P @ step, R=R, P=P, norms=system.norm(R @ state.W), known=None)

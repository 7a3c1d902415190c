"""GCRO-DR: restarted GMRES that keeps what it has learnt, within a solve and from one system to the next.

Parks, de Sturler, Mackey, Johnson and Maiti (2006), in the flexible form with the kept space in solution space (Carvalho et
al. 2011): ``A U = C`` with orthonormal ``C`` deflates every cycle, and after it harmonic Ritz vectors renew ``U``. It survives a
change of the matrix and of the preconditioner.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ....backends.namespace import Array
from ....backends.transfer import host_float
from ....backends.validation import check_count
from ...iterate import Callback, warn_unless_converged
from ...result import Status
from ..arnoldi import Cycle
from ..system import System, prepare, run
from .space import (
    RecycleSpace,
    RecyclingResult,
    check_space,
    gram,
    harmonic_ritz,
    images,
    images_still_hold,
    on_host,
    orthonormal_images,
    remember,
    rows_times,
    select,
)


def gcrodr(
    A: Any,
    b: Array,
    *,
    recycle: RecycleSpace | None = None,
    m: int = 40,
    k: int = 20,
    same_operator: bool | None = None,
    x0: Array | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> RecyclingResult:
    """Solve ``A x = b`` for any square ``A``, recycling a space from earlier solves.

    Parameters
    ----------
    A, x0, rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `gmres`.
    b : array (n,)
        One right-hand side.
    recycle : RecycleSpace, optional
        The ``recycle`` of an earlier result; of any solver of this room, for a matrix of the same order.
    m, k : int
        Vectors of a cycle, and how many of them are kept: ``m - k`` new products a cycle.
    same_operator : bool, optional
        Whether ``A`` is the operator of the earlier solve, so that its images are still right. By default it is when it
        is the same object and one product confirms it; otherwise ``k`` products renew the images.
    M : like A, optional
        Approximation of the inverse, on the right; it may change from step to step and from system to system.

    Returns
    -------
    RecyclingResult
        As of `gmres`, with ``recycle`` for the next system. ``evaluations["matvec"]`` includes the products of the images.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        As of `gmres`.

    Notes
    -----
    Keeps ``2 k + (2 m - 2 k) + 2`` vectors. With nothing to recycle the first cycle has ``m`` steps and the method is
    GMRES with deflated restarting. A space with which a solve was a quarter longer than the sequence's first one
    is dropped.

    References
    ----------
    M. L. Parks, E. de Sturler, G. Mackey, D. D. Johnson, S. Maiti, Recycling Krylov subspaces for sequences of linear systems,
    2006.
    L. M. Carvalho, S. Gratton, R. Lago, X. Vasseur, A flexible generalized conjugate residual method with inner orthogonalization
    and deflated restarting, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import gcrodr
    >>> A = np.diag(np.linspace(1.0, 1000.0, 200))
    >>> first = gcrodr(A, np.ones(200), rtol=1e-8)
    >>> second = gcrodr(A, np.cos(np.arange(200.0)), recycle=first.recycle, rtol=1e-8)
    >>> second.n_iter < first.n_iter
    True
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M)
    check_space(recycle, b)
    m, k = check_count(m, "m", minimum=2), check_count(k, "k", minimum=0)
    m = min(m, b.shape[0])
    if k >= m:
        k = m - 1
    method = _GcroDR(system, m, k)
    if recycle is not None and k:
        method.adopt(recycle, A, same_operator)
    result: RecyclingResult = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit, build=lambda outcome: remember(method, outcome, recycle, A),
    )  # fmt: skip
    warn_unless_converged(result, "gcrodr")
    return result


class _Deflated(Cycle):
    """An Arnoldi cycle orthogonal to the rows of ``C``: ``A Z = C B + V H``."""

    def __init__(
        self, system: System, x: Array, r: Array, steps: int, space: tuple[Array, Array] | None, *, flexible: bool
    ) -> None:
        super().__init__(system, x, r, steps, flexible=flexible)
        self.space = space
        self.B: list[Array] = []

    def orthogonalise(self, basis: Array, w: Array, size: Array) -> tuple[Array, Array]:
        if self.space is not None:
            C = self.space[1]
            b = self.components(C, w)
            w = w - self.combine(b, C)
            again = self.components(C, w)
            w = w - self.combine(again, C)
            self.B.append(b + again)
        return super().orthogonalise(basis, w, size)

    def form(self, j: int) -> Array:
        if j == 0 or self.space is None:
            return super().form(j)
        y = self.xp.astype(self.solution(j), self.V.dtype)
        along = self.xp.matmul(y, self.xp.stack(self.B[:j]))
        return super().form(j) - self.combine(along, self.space[0])


class _State(NamedTuple):
    """``j`` steps into a cycle; the iterate is formed when it is asked for."""

    cycle: _Deflated
    j: int

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.cycle.form(self.j)


class _GcroDR:
    broken = Status.STAGNATED

    def __init__(self, system: System, m: int, k: int) -> None:
        self.system, self.m, self.k, self.xp, self.matvecs = system, m, k, system.xp, 0
        self.filled: tuple[_Deflated, int] | None = None
        self.space: tuple[Array, Array] | None = None

    def adopt(self, recycle: RecycleSpace, A: Any, same: bool | None) -> None:
        """Take the kept space, with images under the present operator."""
        if same is None and recycle.operator is A:
            self.matvecs += 1
            same = images_still_hold(self.system.A, recycle, self.xp)
        if same:
            self.space = recycle.U, recycle.C
        else:
            self.matvecs += recycle.k
            self.space = orthonormal_images(recycle.U, images(self.system.A, recycle.U, self.xp), self.xp)

    def start(self, x: Array, r: Array) -> _State:
        """A cycle from ``x``, whose residual is first freed of the images of the space, renewed from the last cycle."""
        space, steps = self.learn(), self.m
        if space is not None:
            U, C = space
            c = self.xp.matmul(self.xp.conj(C) if self.xp.isdtype(C.dtype, "complex floating") else C, r)
            x, r = x + self.xp.matmul(c, U), r - self.xp.matmul(c, C)
            steps = max(1, self.m - int(U.shape[0]))
        return _State(_Deflated(self.system, x, r, steps, space, flexible=self.system.M is not None), 0)

    def step(self, state: _State) -> _State:
        cycle, j = state
        if j == cycle.m:
            x = state.x
            self.matvecs += 1
            cycle, j = self.start(x, self.system.b - self.system.A @ x)
        cycle.extend(j)
        self.matvecs += 1
        self.filled = (cycle, j + 1)
        return _State(cycle, j + 1)

    def error(self, state: _State) -> Any:
        cycle, j = state
        (norm,) = cycle.norms(j)
        rotations = cycle.host[0]
        if norm > self.system.tolerance:
            if rotations.exhausted:
                self.broken = Status.SINGULAR
                return -1.0
            if j == cycle.m and self.space is None and norm >= (1.0 - 1e-8) * rotations.norms[0]:
                self.broken = Status.STAGNATED
                return -1.0
        return norm

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and begin a cycle from it."""
        x = state.x
        self.matvecs += 1
        r = self.system.true_residual(x)
        norm = host_float(self.system.norm(r))
        if norm <= self.system.tolerance:
            # Nothing more to do: the last cycle stays the one to learn from.
            return _State(_Deflated(self.system, x, r, 1, None, flexible=False), 0), norm
        return self.start(x, r), norm

    def learn(self) -> tuple[Array, Array] | None:
        """The space renewed by the harmonic Ritz vectors of the last cycle."""
        import numpy as np

        if self.filled is None or not self.k:
            return self.space
        cycle, j = self.filled
        cycle.norms(j)
        # Beyond an exhausted space the columns are not of the operator.
        j = min(j, cycle.host[0].steps) if cycle.host[0].exhausted else j
        self.filled = None
        if j == 0:
            return self.space
        xp = self.xp
        H, V = cycle.H[: j + 1, :j], cycle.V[: j + 1, :]
        Z = cycle.V[:j, :] if cycle.Z is None else cycle.Z[:j, :]
        # All that the small problem needs is read at once.
        if cycle.space is None:
            W, S = V, Z
            G, F = on_host(H, gram(W, S, xp), xp=xp)
        else:
            U, C = cycle.space
            kept = int(U.shape[0])
            size = xp.linalg.vector_norm(U, axis=1)
            D = 1.0 / xp.where(size > 0, size, 1.0)
            W, S = xp.concat([C, V], axis=0), xp.concat([U * D[:, None], Z], axis=0)
            B = xp.stack(cycle.B[:j]).T
            H, B, D, F = on_host(H, B, xp.astype(D, H.dtype), gram(W, S, xp), xp=xp)
            G = np.zeros((kept + j + 1, kept + j), dtype=H.dtype)
            G[:kept, :kept], G[:kept, kept:], G[kept:, kept:] = np.diag(D), B, H
        P = harmonic_ritz(G, F, min(self.k, G.shape[1]))
        chosen = None if P is None else select(G, P)
        if chosen is None:
            return self.space
        self.space = rows_times(chosen[1], S, xp), rows_times(chosen[0], W, xp)
        return self.space

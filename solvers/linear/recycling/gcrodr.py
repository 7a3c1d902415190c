"""GCRO-DR: restarted GMRES that keeps what it has learnt, within a solve and from one system to the next.

Parks, de Sturler, Mackey, Johnson and Maiti (2006), in the flexible form with the kept space in solution space (Carvalho et
al. 2011): ``A U = C`` with orthonormal ``C`` deflates every cycle, and after it harmonic Ritz vectors renew ``U``. It survives a
change of the matrix and of the preconditioner.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ....backends.linalg import conj
from ....backends.namespace import Array
from ....backends.validation import check_count
from ...iterate import Callback, warn_unless_converged
from ...result import Status
from ..arnoldi import Cycle
from ..system import System, prepare, run
from .space import (
    Adoption,
    RecycleSpace,
    RecyclingResult,
    Space,
    check_recycling,
    gram,
    harmonic_ritz,
    least_part,
    on_host,
    orthonormal,
    remember,
    rows_times,
    select,
    triangle,
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
    m, k = check_count(m, "m", minimum=2), check_count(k, "k", minimum=0)
    adoption = None
    if recycle is not None and k:
        adoption = Adoption(recycle, A, triangle, orthonormal, same=same_operator)
    ask = None if adoption is None else adoption.ask
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M, ask=ask)
    check_recycling(recycle, b)
    m = min(m, b.shape[0])
    method = _GcroDR(system, m, min(k, m - 1))
    if adoption is not None and method.k:
        method.adopt(adoption)
    result: RecyclingResult = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit, build=lambda outcome: remember(method, outcome, recycle, A),
    )  # fmt: skip
    warn_unless_converged(result, "gcrodr")
    return result


class _Deflated(Cycle):
    """An Arnoldi cycle orthogonal to the rows of ``C``: ``A Z = C B + V H``; with ``learning`` the next one wants to know it."""

    def __init__(
        self, system: System, x: Array, r: Array, steps: int, space: Space | None, *, flexible: bool, learning: bool
    ) -> None:
        super().__init__(system, x, r, steps, flexible=flexible)
        self.space, self.learning = space, learning
        self.B: list[Array] = []
        self.known: list[Any] = []

    def orthogonalise(self, basis: Array, w: Array, size: Array) -> tuple[Array, Array]:
        if self.space is not None:
            C = self.space[1]
            b = self.components(C, w)
            w = w - self.combine(b, C)
            again = self.components(C, w)
            w = w - self.combine(again, C)
            self.B.append(b + again)
        return super().orthogonalise(basis, w, size)

    def read(self, done: int, j: int) -> Any:
        """At the end of the cycle what the next one learns from comes along with the Hessenberg matrix."""
        if j < self.m or not self.learning:
            return super().read(done, j)
        block, *self.known = on_host(self.H[:, done:j], *self.small(j), xp=self.xp)
        return block

    def small(self, j: int) -> list[Array]:
        """After ``j`` steps: ``H``, ``<w, s>`` of images ``W = [C, V]`` and directions ``S = [U D, Z]``, and where a space is
        kept ``B`` and ``D``."""
        xp = self.xp
        H, V, Z = self.H[: j + 1, :j], self.V[: j + 1, :], (self.V if self.Z is None else self.Z)[:j, :]
        if self.space is None:
            self.W, self.S = V, Z
            return [H, gram(V, Z, xp)]
        U, C = self.space
        size = xp.linalg.vector_norm(U, axis=1)
        D = 1.0 / xp.where(size > 0, size, 1.0)
        self.W, self.S = xp.concat([C, V], axis=0), xp.concat([U * D[:, None], Z], axis=0)
        return [H, gram(self.W, self.S, xp), xp.stack(self.B[:j]).T, xp.astype(D, H.dtype)]

    def ritz(self, j: int, k: int) -> Space | None:
        """Harmonic Ritz vectors of the first ``j`` steps, from what is known of at least as many."""
        import numpy as np

        H, F, *rest = self.known
        kept = 0
        G = H = H[: j + 1, :j]
        if rest:
            B, D = rest
            kept = D.size
            G = np.zeros((kept + j + 1, kept + j), dtype=H.dtype)
            G[:kept, :kept], G[:kept, kept:], G[kept:, kept:] = np.diag(D), B[:, :j], H
        rows, columns = G.shape
        P = harmonic_ritz(G, F[:rows, :columns], min(k, columns))
        chosen = None if P is None else select(G, P, least_part(self.V, self.xp))
        if chosen is None:
            return None
        return rows_times(chosen[1], self.S[:columns, :], self.xp), rows_times(chosen[0], self.W[:rows, :], self.xp)

    def form(self, j: int) -> Array:
        if j == 0 or self.space is None:
            return super().form(j)
        y = self.xp.astype(self.solution(j), self.V.dtype)
        along = self.xp.matmul(y, self.xp.stack(self.B[:j]))
        return super().form(j) - self.combine(along, self.space[0])


class _State(NamedTuple):
    """``j`` steps into a cycle; the iterate is formed when it is asked for. After ``ended`` a new cycle must begin."""

    cycle: _Deflated
    j: int
    ended: bool = False

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.cycle.form(self.j)


class _GcroDR:
    broken = Status.STAGNATED

    def __init__(self, system: System, m: int, k: int) -> None:
        self.system, self.m, self.k, self.xp, self.matvecs = system, m, k, system.xp, 0
        self.filled: tuple[_Deflated, int] | None = None
        self.space: Space | None = None

    def adopt(self, adoption: Adoption) -> None:
        """Take the kept space, with orthonormal images under the present operator."""
        self.space = adoption.space(self.system.answer)
        self.matvecs += adoption.matvecs

    def start(self, x: Array, r: Array) -> _State:
        """A cycle from ``x``, whose residual is first freed of the images of the space, renewed from the last cycle."""
        space, steps = self.learn(), self.m
        if space is not None:
            U, C = space
            c = self.xp.matmul(conj(C, self.xp), r)
            x, r = x + self.xp.matmul(c, U), r - self.xp.matmul(c, C)
            steps = max(1, self.m - int(U.shape[0]))
        flexible = self.system.M is not None
        return _State(_Deflated(self.system, x, r, steps, space, flexible=flexible, learning=self.k > 0), 0)

    def step(self, state: _State) -> _State:
        cycle, j, ended = state
        if ended or j == cycle.m:
            x = state.x
            self.matvecs += 1
            cycle, j, _ = self.start(x, self.system.b - self.system.A @ x)
        cycle.extend(j)
        self.matvecs += 1
        self.filled = (cycle, j + 1)
        return _State(cycle, j + 1)

    def ahead(self, state: _State) -> int:
        """Steps to the end of the cycle, where the next one learns from it."""
        return state.cycle.m - state.j or self.m - self.k

    def error(self, state: _State) -> Any:
        cycle, j, _ = state
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
        """Recompute ``b - A x`` and end the cycle; what is to be learnt is read with its norm."""
        x = state.x
        self.matvecs += 1
        r = self.system.true_residual(x)
        asked = []
        if self.filled is not None and self.k and not self.filled[0].known:
            asked = self.filled[0].small(self.filled[1])
        host, *small = on_host(self.xp.astype(self.system.norm(r), r.dtype), *asked, xp=self.xp)
        if small and self.filled is not None:
            self.filled[0].known = small
        # The iterate stays the one that was measured: deflating its residual is left to the next step, if there is one.
        return _State(_Deflated(self.system, x, r, 1, None, flexible=False, learning=False), 0, ended=True), float(
            host.real
        )

    def learn(self) -> Space | None:
        """The space renewed by the harmonic Ritz vectors of the last cycle."""
        if self.filled is None or not self.k:
            return self.space
        cycle, j = self.filled
        self.filled = None
        cycle.norms(j)
        if not cycle.known:
            cycle.known = on_host(*cycle.small(j), xp=self.xp)
        # Beyond an exhausted space the columns are not of the operator.
        j = min(j, cycle.host[0].steps) if cycle.host[0].exhausted else j
        if j:
            self.space = cycle.ritz(j, self.k) or self.space
        return self.space

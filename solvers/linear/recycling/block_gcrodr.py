"""Block GCRO-DR: several right-hand sides that share one Krylov space, and what it has taught, from system to system.

Parks, Soodhalter and Szyld (2016): as `gcrodr`, with a block of residuals in the place of one. Each solution is the best of the
space that all of them span, and the kept space is renewed by what all of them have seen. Residuals that are small or depend on
others leave the block (Calandra, Gratton, Lago, Vasseur and Carvalho 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from ....backends.namespace import Array
from ....backends.transfer import host_float, to_host
from ....backends.validation import check_count
from ...iterate import Callback, Outcome, warn_unless_converged
from ...result import Status
from ..system import System, prepare, run
from .block_arnoldi import BlockCycle
from .space import (
    Adoption,
    RecycleSpace,
    RecyclingResult,
    Space,
    check_recycling,
    clipped,
    gram,
    harmonic_ritz,
    least_part,
    on_host,
    orthonormal,
    rows_times,
    select,
    triangle,
)

# As of the other solvers of this room: this much longer is no sign against the memory.
_LONGER = 1.25
# A cycle that gains less than this has not moved; with a space that the next one renews, two of them in a row.
_STILL, _CYCLES = 1.0 - 1e-8, 2
# An exhausted space leaves rounding, unless the operator is singular.
_SOLVED = 0.5


def block_gcrodr(
    A: Any,
    B: Array,
    *,
    recycle: RecycleSpace | None = None,
    m: int | None = None,
    k: int | None = None,
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
    """Solve ``A X = B`` for any square ``A``, all columns from one Krylov space, recycling a space from earlier solves.

    Parameters
    ----------
    A, x0, rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `gmres`; the tolerances hold for each column, and an iteration multiplies ``A`` with a block.
    B : array (n, p)
        Right-hand sides; dependent or zero columns are found and cost nothing.
    recycle : RecycleSpace, optional
        The ``recycle`` of an earlier result; of any solver of this room, for a matrix of the same order.
    m, k : int, optional
        Vectors of a cycle, and how many of them are kept: about ``(m - k) / p`` block products a cycle. By default
        ``20 (p + 1)`` and ``4 (p + 4)``, as of `gcrodr` for a single column.
    same_operator : bool, optional
        As of `gcrodr`.
    M : like A, optional
        Approximation of the inverse, on the right, applied to blocks; it may change from step to step and from system to
        system.

    Returns
    -------
    RecyclingResult
        As of `gmres`, with ``recycle`` for the next system, of this solver or of another. ``evaluations["matvec"]`` counts
        the columns of the blocks, and the products of the images.

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
    With ``A Z = C B + V H`` of a cycle and its residuals ``R = V E g``, each column takes the ``y`` of
    ``min ||E g_j - H y||``. Keeps ``m + 2 k + p`` vectors, ``m`` more with a preconditioner; beside the products a step costs
    ``O(n m p)``, a cycle ``O(m^3)`` on the host. It pays where a pass over ``A`` costs about the same for one and for many
    vectors; where ``A`` is cheap and sparse, on the host, `gcrodr` column by column is as fast or a little faster.

    A column that has met its tolerance leaves the block at the next cycle, as do combinations of columns below a tenth of
    the tolerances.

    References
    ----------
    M. L. Parks, K. M. Soodhalter, D. B. Szyld, A block recycled GMRES method with investigations into aspects of solver
    performance, 2016.
    A. H. Baker, J. M. Dennis, E. R. Jessup, On improving linear solver performance: a block variant of GMRES, 2006.
    H. Calandra, S. Gratton, R. Lago, X. Vasseur, L. M. Carvalho, A modified block flexible GMRES method with deflation at each
    iteration for the solution of non-Hermitian linear systems with multiple right-hand sides, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import block_gcrodr
    >>> A = np.diag(np.linspace(1.0, 1000.0, 200))
    >>> first = block_gcrodr(A, np.cos(np.outer(np.arange(200.0), [1.0, 2.0, 3.0])), rtol=1e-8)
    >>> second = block_gcrodr(A, np.sin(np.outer(np.arange(200.0), [1.0, 2.0, 3.0])), recycle=first.recycle, rtol=1e-8)
    >>> second.converged, second.n_iter < first.n_iter
    (True, True)
    """
    k = k if k is None else check_count(k, "k", minimum=0)
    adoption = None
    if recycle is not None and k != 0:
        adoption = Adoption(recycle, A, triangle, orthonormal, same=same_operator, block=True)
    ask = None if adoption is None else adoption.ask
    system = prepare(A, B, x0=x0, rtol=rtol, atol=atol, M=M, name="B", ask=ask)
    check_recycling(recycle, B, block=True)
    p = int(B.shape[1])
    m = 20 * (p + 1) if m is None else check_count(m, "m", minimum=2)
    k = min(4 * (p + 4) if k is None else k, m - 1, int(B.shape[0]) - 1)
    method = _BlockGcroDR(system, m, k)
    if adoption is not None and k:
        method.adopt(adoption)
    result: RecyclingResult = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit, build=lambda outcome: _remember(method, outcome, recycle, A),
    )  # fmt: skip
    warn_unless_converged(result, "block_gcrodr")
    return result


@dataclass(frozen=True, eq=False, repr=False)
class _Shared(RecycleSpace):
    """A space whose ``baseline`` counts products, of steps that ``columns`` right-hand sides shared."""

    columns: int = 1


def _remember(
    method: _BlockGcroDR, outcome: Outcome[Any], recycle: RecycleSpace | None, operator: Any
) -> RecyclingResult:
    """The result, with the space unless it made the solve clearly longer than the sequence's first one."""
    space, p = method.learn(), method.system.columns
    # In products, so that a solver of single columns may go on with the space.
    baseline, columns = outcome.n_iter * p, p
    if recycle is not None:
        baseline, columns = recycle.baseline, getattr(recycle, "columns", 1)
    longest = _LONGER * baseline / min(p, columns)
    kept = None
    if space is not None and (recycle is None or outcome.n_iter <= longest):
        kept = _Shared(*clipped(space), operator, baseline, columns)
    return RecyclingResult(x=outcome.state.x, recycle=kept, evaluations={"matvec": method.matvecs}, **outcome.fields())


class _State(NamedTuple):
    """``j`` steps into a cycle, whose iterates are formed when they are asked for; or recomputed residuals ``r`` of known
    iterates, from which the next step begins a cycle."""

    cycle: BlockCycle | None
    j: int
    known: Array | None = None
    r: Array | None = None

    @property
    def x(self) -> Array:
        """The iterates."""
        return self.known if self.cycle is None else self.cycle.form(self.j)


class _BlockGcroDR:
    def __init__(self, system: System, m: int, k: int) -> None:
        self.system, self.m, self.k, self.xp, self.matvecs = system, m, k, system.xp, 0
        self.broken = Status.STAGNATED
        self.filled: tuple[BlockCycle, int] | None = None
        self.space: Space | None = None
        self.still = 0

    def adopt(self, adoption: Adoption) -> None:
        """Take the kept space, with orthonormal images under the present operator."""
        self.space = adoption.space(self.system.answer)
        self.matvecs += adoption.matvecs

    def start(self, x: Array, r: Array) -> _State:
        return _State(self.cycle(x, r), 0)

    def cycle(self, x: Array, r: Array) -> BlockCycle:
        """A cycle from ``x``, whose residuals are first freed of the images of the space, renewed from the last cycle."""
        space = self.learn()
        if space is not None:
            U, C = space
            c = (self.xp.conj(C) if self.system.complex else C) @ r
            x, r = x + U.T @ c, r - C.T @ c
        return BlockCycle(self.system, x, r, space, self.m)

    def step(self, state: _State) -> _State:
        cycle, j = state.cycle, state.j
        if cycle is None:
            cycle = self.cycle(state.x, state.r)
        elif j == cycle.m or cycle.small.exhausted is not None:
            x, before = state.x, self.worst(cycle.norms(0))
            self.matvecs += self.system.columns
            x, r, _ = cycle.unspoilt(x, self.system.b - self.system.A @ x)
            cycle, j = self.cycle(x, r), 0
            self.still = self.still + 1 if self.worst(cycle.norms(0)) >= _STILL * before else 0
        cycle.extend(j)
        self.matvecs += cycle.q
        self.filled = (cycle, j + 1)
        return _State(cycle, j + 1)

    def worst(self, norms: list[float]) -> float:
        """The weighted norm that is tested, NaN where one of them is."""
        if not all(map(math.isfinite, norms)):
            return math.nan
        return max(norm * weight for norm, weight in zip(norms, self.system.host_weights, strict=True))

    def ahead(self, state: _State) -> int:
        """Steps to the end of the cycle, where the next one learns from it."""
        return 0 if state.cycle is None else state.cycle.m - state.j

    def error(self, state: _State) -> Any:
        cycle, j = state.cycle, state.j
        assert cycle is not None
        worst = self.worst(cycle.norms(j))
        if worst > self.system.tolerance:
            if cycle.small.exhausted is not None and worst > _SOLVED * self.worst(cycle.norms(0)):
                self.broken = Status.SINGULAR
                return -1.0
            if self.still >= (1 if cycle.space is None else _CYCLES):
                self.broken = Status.STAGNATED
                return -1.0
        return worst

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``B - A X``; what goes on begins a cycle from it."""
        xp, system, x = self.xp, self.system, state.x
        self.matvecs += system.columns
        r = system.true_residual(x)
        if state.cycle is None or state.j == 0:
            return _State(None, 0, x, r), host_float(system.worst(system.norm(r)))
        kept, _, well = state.cycle.unspoilt(x, r)
        norms = system.norm(r)
        worst, whole = to_host(xp.stack([system.worst(norms), xp.astype(xp.all(well), norms.dtype)]))
        if not whole:
            return self.verify(_State(None, 0, kept))
        return _State(None, 0, x, r), float(worst)

    def learn(self) -> Space | None:
        """The space renewed by the harmonic Ritz vectors of the last cycle, as far as it was finite."""
        import numpy as np

        if self.filled is None or not self.k:
            return self.space
        cycle, j = self.filled
        self.filled = None
        while j and not all(map(math.isfinite, cycle.norms(j))):
            j -= 1
        if j == 0:
            return self.space
        xp, kept, size = self.xp, cycle.kept, j * cycle.q
        rows = kept + size + cycle.q
        W, Z = cycle.W[:rows, :], cycle.V[:size, :] if cycle.Z is None else cycle.Z[:size, :]
        parts = [cycle.G[:rows, :size]]
        if cycle.space is not None:
            U = cycle.space[0]
            norms = xp.linalg.vector_norm(U, axis=1)
            D = 1.0 / xp.where(norms > 0, norms, 1.0)
            U = U * xp.astype(D, U.dtype)[:, None]
            parts += [gram(W, U, xp), xp.astype(D, U.dtype)]
        if cycle.Z is not None:
            parts.append(gram(W, Z, xp))
        # All that the small problem needs is read at once.
        G, *more = on_host(*parts, xp=xp)
        order = np.asarray(cycle.small.order[: cycle.small.sizes[j]], dtype=int)
        F = more.pop()[:, order] if cycle.Z is not None else np.eye(rows, dtype=G.dtype)[:, kept + order]
        G = G[:, order]
        if cycle.space is not None:
            D = np.zeros((rows, kept), dtype=G.dtype)
            D[:kept] = np.diag(more[1])
            F, G = np.concatenate([more[0], F], axis=1), np.concatenate([D, G], axis=1)
        P = harmonic_ritz(G, F, min(self.k, G.shape[1])) if G.shape[1] else None
        chosen = None if P is None else select(G, P, least_part(cycle.W, xp))
        if chosen is None:
            return self.space
        full = np.zeros((size, chosen[1].shape[1]), dtype=chosen[1].dtype)
        full[order] = chosen[1][kept:]
        new = rows_times(full, Z, xp)
        if cycle.space is not None:
            new = new + rows_times(chosen[1][:kept], U, xp)
        self.space = new, rows_times(chosen[0], W, xp)
        return self.space

"""MINRES with a recycled space, for sequences of Hermitian systems that need not be definite.

Wang, de Sturler and Paulino (2007): the Lanczos recurrence runs on ``(I - C C^H) A`` for the kept ``A U = C``, so it stays short.
After a solve the space is renewed by the harmonic Ritz vectors of ``U`` and the first Lanczos vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ....backends.linalg import conj
from ....backends.namespace import Array
from ....backends.operators import LinearOperator
from ....backends.validation import check_count
from ...iterate import Callback, warn_unless_converged
from ..minres import Minres
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

# Of the squared lengths of combinations of unit vectors.
_INDEPENDENT = 1e-8


def recycled_minres(
    A: Any,
    b: Array,
    *,
    recycle: RecycleSpace | None = None,
    k: int = 20,
    ell: int = 60,
    x0: Array | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> RecyclingResult:
    """Solve ``A x = b`` for a Hermitian ``A``, definite or not, recycling a space from earlier solves.

    Parameters
    ----------
    A, x0, rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `minres`.
    b : array (n,)
        One right-hand side.
    recycle : RecycleSpace, optional
        The ``recycle`` of an earlier result.
    k : int
        Directions kept from one system to the next; their images cost ``k`` products when the operator has changed.
    ell : int
        First Lanczos vectors of a solve from which they are renewed.

    Returns
    -------
    RecyclingResult
        As of `minres`, with ``recycle`` for the next system. ``evaluations["matvec"]`` includes the products of the images.

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
    S. Wang, E. de Sturler, G. H. Paulino, Large-scale topology optimization using preconditioned Krylov subspace methods with
    recycling, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import recycled_minres
    >>> A = np.diag(np.linspace(-100.0, 1000.0, 200))
    >>> first = recycled_minres(A, np.ones(200), rtol=1e-8)
    >>> second = recycled_minres(A, np.cos(np.arange(200.0)), recycle=first.recycle, rtol=1e-8)
    >>> second.n_iter < first.n_iter
    True
    """
    k, ell = check_count(k, "k", minimum=0), check_count(ell, "ell", minimum=0)
    adoption = Adoption(recycle, A, triangle, orthonormal) if recycle is not None and k else None
    ask = None if adoption is None else adoption.ask
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=None, hermitian=True, ask=ask)
    check_recycling(recycle, b)
    method = _RecycledMinres(system, k, ell)
    if adoption is not None and not system.asymmetric:
        method.adopt(adoption)
    result: RecyclingResult = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit, build=lambda outcome: remember(method, outcome, recycle, A),
    )  # fmt: skip
    warn_unless_converged(result, "recycled_minres")
    return result


class _State(NamedTuple):
    """The state of MINRES on the projected system, whose ``x`` lacks what the kept directions bring; ``measured`` is the
    iterate whose residual was recomputed last, from which the next step begins."""

    method: _RecycledMinres
    inner: Any
    measured: Array | None = None

    @property
    def x(self) -> Array:
        """The iterate."""
        return self.method.completed(self.inner.x) if self.measured is None else self.measured


class _RecycledMinres:
    def __init__(self, system: System, k: int, ell: int) -> None:
        self.system, self.xp, self.k, self.ell, self.extra = system, system.xp, k, ell, 0
        self.space: Space | None = None
        self.vectors: list[Array] = []
        self.images: list[Array] = []
        self.known: list[Any] = []
        self.counted = 0
        n = system.b.shape[0]
        projected = LinearOperator((n, n), self.project, dtype=system.b.dtype, name="(I - C C^H) A")
        self.minres = Minres(
            System(projected, None, system.b, system.x, system.r, system.tolerance, system.weights, system.xp)
        )

    @property
    def matvecs(self) -> int:
        """Products with ``A``."""
        return self.minres.matvecs + self.extra

    def adopt(self, adoption: Adoption) -> None:
        """Take the kept space with orthonormal images under the present operator."""
        self.space = adoption.space(self.system.answer)
        self.extra += adoption.matvecs

    def project(self, v: Array) -> Array:
        """``(I - C C^H) A v``, with the projection done twice; the first vectors and images are recorded."""
        w = image = self.system.A @ v
        if self.space is not None:
            C = self.space[1]
            for _ in range(2):
                w = w - self.xp.matmul(self.xp.matmul(conj(C, self.xp), w), C)
        if len(self.vectors) < self.ell:
            # Copies: the recurrence may change its vectors in place.
            self.vectors.append(self.xp.asarray(v, copy=True))
            self.images.append(self.xp.asarray(image, copy=True))
        return w

    def completed(self, x: Array) -> Array:
        """``x`` and the part of the solution along the kept directions."""
        if self.space is None:
            return x
        U, C = self.space
        self.extra += 1
        c = self.xp.matmul(conj(C, self.xp), self.system.b - self.system.A @ x)
        # An operator that has begun to fail must not spoil what there is.
        return x + self.xp.matmul(self.xp.where(self.xp.isfinite(c), c, self.xp.zeros_like(c)), U)

    def start(self, x: Array, r: Array) -> _State:
        if self.space is not None:
            U, C = self.space
            c = self.xp.matmul(conj(C, self.xp), r)
            x, r = x + self.xp.matmul(c, U), r - self.xp.matmul(c, C)
        return _State(self, self.minres.start(x, r))

    def step(self, state: _State) -> _State:
        if state.measured is not None:
            self.extra += 1
            state = self.start(state.measured, self.system.b - self.system.A @ state.measured)
        return _State(self, self.minres.step(state.inner))

    def error(self, state: _State) -> Array:
        return self.minres.error(state.inner)

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x``, from which the next step begins; what is to be learnt is read with its norm."""
        x = state.x
        self.extra += 1
        r = self.system.true_residual(x)
        norm = self.xp.astype(self.system.norm(r), r.dtype)
        host, *small = on_host(norm, *self.small(), xp=self.xp)
        self.known = small or self.known
        return state._replace(measured=x), float(host.real)

    def small(self) -> list[Array]:
        """``G``, ``W^H Z`` and ``Z^H Z`` with ``A Z = W G`` of the old space and the recorded vectors, where they are news."""
        xp = self.xp
        if len(self.vectors) == self.counted or not self.k:
            return []
        self.counted = len(self.vectors)
        old = ([], []) if self.space is None else ([self.space[0]], [self.space[1]])
        Z = xp.concat(old[0] + [row[None, :] for row in self.vectors], axis=0)
        AZ = xp.concat(old[1] + [row[None, :] for row in self.images], axis=0)
        size = xp.linalg.vector_norm(Z, axis=1)[:, None]
        size = xp.where(size > 0, size, 1.0)
        Q, R = xp.linalg.qr((AZ / size).T)
        self.Z, self.W = Z / size, Q.T
        return [R, gram(self.W, self.Z, xp), gram(self.Z, self.Z, xp)]

    def learn(self) -> Space | None:
        """Harmonic Ritz vectors of the old space and the recorded Lanczos vectors."""
        import numpy as np

        if not self.known:
            return self.space
        G, F, N = self.known
        if not (np.isfinite(G).all() and np.isfinite(N).all()):
            return self.space
        # Lanczos vectors lose their orthogonality: combinations that nearly vanish have no images worth keeping.
        values, vectors = np.linalg.eigh(N)
        keep = values > max(_INDEPENDENT, 1e2 * least_part(self.Z, self.xp)) * values[-1]
        Y = vectors[:, keep] / np.sqrt(values[keep])
        P = harmonic_ritz(G @ Y, F @ Y, min(self.k, Y.shape[1]))
        chosen = None if P is None else select(G @ Y, P, least_part(self.Z, self.xp))
        if chosen is None:
            return self.space
        return rows_times(Y @ chosen[1], self.Z, self.xp), rows_times(chosen[0], self.W, self.xp)

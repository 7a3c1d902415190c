"""Deflated conjugate gradients with a recycled space, for sequences of Hermitian positive definite systems.

Saad, Yeung, Erhel and Guyomarc'h (2000): directions are kept conjugate to a few approximate eigenvectors ``W``, whose part of
the solution is solved directly. After a solve ``W`` is renewed by harmonic Ritz vectors of ``W`` and the first directions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ....backends.linalg import cho_solve, conj
from ....backends.namespace import Array, Namespace
from ....backends.transfer import from_host
from ....backends.validation import check_count
from ...iterate import Callback, warn_unless_converged
from ..system import System, prepare, run
from .space import (
    Adoption,
    RecycleSpace,
    RecyclingResult,
    Space,
    check_recycling,
    gram,
    least_part,
    on_host,
    remember,
    rows_times,
)


def deflated_cg(
    A: Any,
    b: Array,
    *,
    recycle: RecycleSpace | None = None,
    k: int = 20,
    ell: int = 40,
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
    """Solve ``A x = b`` for a Hermitian positive definite ``A``, deflating by a space from earlier solves.

    Parameters
    ----------
    A, x0, rtol, atol, maxiter, M, callback, check_every, progress, time_limit
        As of `cg`.
    b : array (n,)
        One right-hand side.
    recycle : RecycleSpace, optional
        The ``recycle`` of an earlier result.
    k : int
        Directions kept from one system to the next; their images cost ``k`` products when the operator has changed.
    ell : int
        First search directions of a solve from which they are renewed.

    Returns
    -------
    RecyclingResult
        As of `cg`, with ``recycle`` for the next system. ``evaluations["matvec"]`` includes the products of the images.

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
    The number of iterations is that of conjugate gradients on the spectrum without the deflated part. ``2 n k`` operations an
    iteration beside those of `cg`, and ``2 (k + ell)`` vectors.

    References
    ----------
    Y. Saad, M. Yeung, J. Erhel, F. Guyomarc'h, A deflated version of the conjugate gradient algorithm, 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import deflated_cg
    >>> A = np.diag(np.linspace(1.0, 1000.0, 200))
    >>> first = deflated_cg(A, np.ones(200), rtol=1e-8)
    >>> second = deflated_cg(A, np.cos(np.arange(200.0)), recycle=first.recycle, rtol=1e-8)
    >>> second.n_iter < first.n_iter
    True
    """
    k, ell = check_count(k, "k", minimum=0), check_count(ell, "ell", minimum=0)
    adoption = Adoption(recycle, A, _energies, _factored) if recycle is not None and k else None
    ask = None if adoption is None else adoption.ask
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M, hermitian=True, ask=ask)
    check_recycling(recycle, b)
    method = _DeflatedCG(system, k, ell)
    if adoption is not None and not system.asymmetric:
        method.adopt(adoption)
    result: RecyclingResult = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit, build=lambda outcome: remember(method, outcome, recycle, A),
    )  # fmt: skip
    warn_unless_converged(result, "deflated_cg")
    return result


class _State(NamedTuple):
    """As of `cg`; after ``ended`` the direction must be begun anew."""

    x: Array
    r: Array
    p: Array
    rz: Array
    rr: Array
    curvature: Array
    ended: bool = False


class _DeflatedCG:
    # Beyond what rounding allows the part along the kept directions grows again.
    keep_best = True

    def __init__(self, system: System, k: int, ell: int) -> None:
        self.system, self.xp, self.k, self.ell, self.matvecs = system, system.xp, k, ell, 0
        self.W: Array | None = None
        self.AW: Array | None = None
        self.factor: Array | None = None
        self.directions: list[Array] = []
        self.images: list[Array] = []
        self.known: list[Any] = []
        self.counted = 0

    def adopt(self, adoption: Adoption) -> None:
        """Deflate by the kept directions, if they have positive energies."""
        found = adoption.space(self.system.answer)
        self.matvecs += adoption.matvecs
        if found is not None:
            self.W, self.AW, self.factor = found

    def deflate(self, z: Array) -> Array:
        """``z`` less its part along ``W`` in the ``A``-inner product."""
        if self.W is None:
            return z
        y = cho_solve(self.factor, self.xp.matmul(conj(self.AW, self.xp), z), xp=self.xp)
        return z - self.xp.matmul(y, self.W)

    def start(self, x: Array, r: Array) -> _State:
        system = self.system
        if self.W is not None:
            y = cho_solve(self.factor, self.xp.matmul(conj(self.W, self.xp), r), xp=self.xp)
            x, r = x + self.xp.matmul(y, self.W), r - self.xp.matmul(y, self.AW)
        z = system.precondition(r)
        rr, rz = system.real_dot(r, r), system.real_dot(r, z)
        return _State(x, r, self.deflate(z), rz, rr, self.xp.ones_like(rz))

    def step(self, state: _State) -> _State:
        system, xp = self.system, self.xp
        x, r, p, rz, rr, *_ = self.start(state.x, state.r) if state.ended else state
        q = system.A @ p
        self.matvecs += 1
        curvature = system.real_dot(p, q)
        safe = xp.where(curvature == 0, -1.0, curvature)
        if len(self.directions) < self.ell:
            size = xp.abs(safe) ** 0.5
            self.directions.append(p / size)
            self.images.append(q / size)
        active = system.moving(rr**0.5)
        safe = xp.where(active, safe, 1.0)
        alpha = xp.where(active, rz / safe, 0.0)
        x = x + alpha * p
        r = r - alpha * q
        rr = system.real_dot(r, r)
        z = system.precondition(r)
        rz_new = rr if system.M is None else system.real_dot(r, z)
        p = self.deflate(z) + (rz_new / xp.where(rz == 0, 1.0, rz)) * p
        return _State(x, r, p, rz_new, rr, safe)

    def error(self, state: _State) -> Array:
        rz = self.system.energy(state.rz, state.rr)
        return self.xp.copysign(state.rr**0.5, self.xp.minimum(state.curvature, rz))

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x``, from which the next step begins; what is to be learnt is read with its norm."""
        self.matvecs += 1
        r = self.system.true_residual(state.x)
        norm = self.xp.astype(self.system.norm(r), r.dtype)
        host, *small = on_host(norm, *self.small(), xp=self.xp)
        self.known = small or self.known
        # The iterate stays the one that was measured: deflating its residual is left to the next step, if there is one.
        return state._replace(r=r, ended=True), float(host.real)

    def small(self) -> list[Array]:
        """``<z_i, A z_j>`` and ``<A z_i, M A z_j>`` of the old space and the recorded directions, where they are news."""
        xp = self.xp
        rows = ([] if self.W is None else [self.W]) + [row[None, :] for row in self.directions]
        if len(rows) == self.counted or not self.k:
            return []
        self.counted = len(rows)
        self.Z = xp.concat(rows, axis=0)
        self.AZ = xp.concat(([] if self.AW is None else [self.AW]) + [row[None, :] for row in self.images], axis=0)
        MAZ = self.AZ if self.system.M is None else (self.system.M @ self.AZ.T).T
        return [gram(self.Z, self.AZ, xp), gram(self.AZ, MAZ, xp)]

    def learn(self) -> Space | None:
        """Harmonic Ritz vectors, of the preconditioned operator, of the old space and the recorded directions."""
        import numpy as np

        xp = self.xp
        if not self.known:
            return None if self.W is None else (self.W, self.AW)
        F, G = self.known
        curvatures = np.real(np.diag(F))
        if not (np.isfinite(F).all() and np.isfinite(G).all() and (curvatures > 0).all()):
            return None
        scale = 1.0 / np.sqrt(curvatures)
        F, G = scale[:, None] * F * scale, scale[:, None] * G * scale
        values, vectors = np.linalg.eigh(0.5 * (F + F.conj().T))
        keep = values > least_part(self.Z, xp) * values[-1]
        if not keep.any():
            return None
        basis = vectors[:, keep] / np.sqrt(values[keep])
        _, small = np.linalg.eigh(basis.conj().T @ (0.5 * (G + G.conj().T)) @ basis)
        chosen = scale[:, None] * (basis @ small[:, : self.k])
        W, AW = rows_times(chosen, self.Z, xp), rows_times(chosen, self.AZ, xp)
        size = xp.linalg.vector_norm(W, axis=1)[:, None]
        return W / size, AW / size


def _energies(W: Array, AW: Array, xp: Namespace) -> tuple[Array, None]:
    """``<w_i, A w_j>``."""
    return gram(W, AW, xp), None


def _factored(W: Array, AW: Array, _: None, energies: Any, xp: Namespace) -> tuple[Array, Array, Array] | None:
    """The directions, their images and the Cholesky factor of their energies; None where those are not positive."""
    import numpy as np

    try:
        factor = np.linalg.cholesky(0.5 * (energies + energies.conj().T))
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(factor).all():
        return None
    return W, AW, xp.astype(from_host(factor, like=W, xp=xp), W.dtype)

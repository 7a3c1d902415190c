"""Deflated conjugate gradients with a recycled space, for sequences of Hermitian positive definite systems.

Saad, Yeung, Erhel and Guyomarc'h (2000): directions are kept conjugate to a few approximate eigenvectors ``W``, whose part of
the solution is solved directly. After a solve ``W`` is renewed by harmonic Ritz vectors of ``W`` and the first directions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ....backends.linalg import cho_solve
from ....backends.namespace import Array
from ....backends.transfer import host_float
from ....backends.validation import check_count
from ...iterate import Callback, warn_unless_converged
from ..block.block_cg import positive_factor
from ..system import System, prepare, run
from .space import (
    RecycleSpace,
    RecyclingResult,
    check_space,
    gram,
    images,
    images_still_hold,
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
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M, hermitian=True)
    check_space(recycle, b)
    method = _DeflatedCG(system, check_count(k, "k", minimum=0), check_count(ell, "ell", minimum=0))
    if recycle is not None and recycle.k and method.k and not system.asymmetric:
        method.adopt(recycle, A)
    result: RecyclingResult = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit, build=lambda outcome: remember(method, outcome, recycle, A),
    )  # fmt: skip
    warn_unless_converged(result, "deflated_cg")
    return result


class _State(NamedTuple):
    """As of `cg`."""

    x: Array
    r: Array
    p: Array
    rz: Array
    rr: Array
    curvature: Array


class _DeflatedCG:
    def __init__(self, system: System, k: int, ell: int) -> None:
        self.system, self.xp, self.k, self.ell, self.matvecs = system, system.xp, k, ell, 0
        self.W: Array | None = None
        self.AW: Array | None = None
        self.factor: Array | None = None
        self.directions: list[Array] = []
        self.images: list[Array] = []

    def conj(self, rows: Array) -> Array:
        return self.xp.conj(rows) if self.xp.isdtype(rows.dtype, "complex floating") else rows

    def adopt(self, recycle: RecycleSpace, A: Any) -> None:
        """Deflate by the kept directions, with images under the present operator."""
        W, AW, xp = recycle.U, recycle.C, self.xp
        known = False
        if recycle.operator is A:
            self.matvecs += 1
            known = images_still_hold(self.system.A, recycle, xp)
        if not known:
            AW = images(self.system.A, W, xp)
            self.matvecs += recycle.k
        L = positive_factor(xp.matmul(self.conj(W), AW.T), xp)
        if L is not None:
            self.W, self.AW, self.factor = W, AW, L

    def deflate(self, z: Array) -> Array:
        """``z`` less its part along ``W`` in the ``A``-inner product."""
        if self.W is None:
            return z
        y = cho_solve(self.factor, self.xp.matmul(self.conj(self.AW), z), xp=self.xp)
        return z - self.xp.matmul(y, self.W)

    def start(self, x: Array, r: Array) -> _State:
        system = self.system
        if self.W is not None:
            y = cho_solve(self.factor, self.xp.matmul(self.conj(self.W), r), xp=self.xp)
            x, r = x + self.xp.matmul(y, self.W), r - self.xp.matmul(y, self.AW)
        z = system.precondition(r)
        rr, rz = system.real_dot(r, r), system.real_dot(r, z)
        return _State(x, r, self.deflate(z), rz, rr, self.xp.ones_like(rz))

    def step(self, state: _State) -> _State:
        system, xp = self.system, self.xp
        x, r, p, rz, _, _ = state
        q = system.A @ p
        self.matvecs += 1
        curvature = system.real_dot(p, q)
        safe = xp.where(curvature == 0, -1.0, curvature)
        if len(self.directions) < self.ell:
            size = xp.abs(safe) ** 0.5
            self.directions.append(p / size)
            self.images.append(q / size)
        alpha = rz / safe
        x = x + alpha * p
        r = r - alpha * q
        rr = system.real_dot(r, r)
        z = system.precondition(r)
        rz_new = rr if system.M is None else system.real_dot(r, z)
        p = self.deflate(z) + (rz_new / xp.where(rz == 0, 1.0, rz)) * p
        return _State(x, r, p, rz_new, rr, safe)

    def error(self, state: _State) -> Array:
        return self.xp.copysign(state.rr**0.5, self.xp.minimum(state.curvature, state.rz))

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``b - A x`` and restart the direction from it."""
        self.matvecs += 1
        r = self.system.true_residual(state.x)
        norm = host_float(self.system.norm(r))
        if norm <= self.system.tolerance:
            return state._replace(r=r, rr=self.system.real_dot(r, r)), norm
        fresh = self.start(state.x, r)
        return fresh, norm

    def learn(self) -> tuple[Array, Array] | None:
        """Harmonic Ritz vectors, of the preconditioned operator, of the old space and the recorded directions."""
        import numpy as np

        xp = self.xp
        rows = ([] if self.W is None else [self.W]) + [row[None, :] for row in self.directions]
        if not rows or not self.k:
            return None if self.W is None else (self.W, self.AW)
        Z = xp.concat(rows, axis=0)
        AZ = xp.concat(([] if self.AW is None else [self.AW]) + [row[None, :] for row in self.images], axis=0)
        MAZ = AZ if self.system.M is None else (self.system.M @ AZ.T).T
        F, G = on_host(gram(Z, AZ, xp), gram(AZ, MAZ, xp), xp=xp)
        curvatures = np.real(np.diag(F))
        if not (np.isfinite(F).all() and np.isfinite(G).all() and (curvatures > 0).all()):
            return None
        scale = 1.0 / np.sqrt(curvatures)
        F, G = scale[:, None] * F * scale, scale[:, None] * G * scale
        values, vectors = np.linalg.eigh(0.5 * (F + F.conj().T))
        keep = values > 1e-12 * values[-1]
        if not keep.any():
            return None
        basis = vectors[:, keep] / np.sqrt(values[keep])
        _, small = np.linalg.eigh(basis.conj().T @ (0.5 * (G + G.conj().T)) @ basis)
        chosen = scale[:, None] * (basis @ small[:, : self.k])
        W, AW = rows_times(chosen, Z, xp), rows_times(chosen, AZ, xp)
        size = xp.linalg.vector_norm(W, axis=1)[:, None]
        return W / size, AW / size

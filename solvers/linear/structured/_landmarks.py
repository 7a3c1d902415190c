"""A Nystrom preconditioner for ``K + mu I`` from columns of the kernel matrix alone.

Frangella, Tropp, Udell, Randomized Nystrom preconditioning (2023), with coordinate vectors at random points (landmarks) in
place of a Gaussian test matrix: ``n l`` kernel values instead of a pass over all ``n^2`` pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....backends.linalg import cholesky, solve_triangular
from ....backends.namespace import Array, Namespace, device, finfo_eps, wide_dtype
from ....backends.operators import LinearOperator
from ....backends.pairs import Kernel, Pairs
from ....backends.random import Sampler
from ....backends.transfer import host_float

# Ranks tried in turn, and the most columns whose factorisation still pays for the iterations it saves.
_FIRST_RANK, _LAST_RANK = 64, 1024


@dataclass(frozen=True, eq=False)
class LowRank:
    """``K`` is near ``U diag(values) U^T``, ``U`` (n, l) with orthonormal columns, values falling."""

    U: Array
    values: Array


def landmark_nystrom(
    x: Array, kernel: Kernel, mu: float, *, rank: int | None, sampler: Sampler, xp: Namespace
) -> LowRank:
    """The approximation of this rank, or of the first that leaves no eigenvalue above ``10 mu`` behind."""
    n = x.shape[0]
    order = sampler.permutation(n)
    trial = min(n, _FIRST_RANK if rank is None else rank)
    last = min(n, _LAST_RANK)
    while True:
        approximation = _factor(x, xp.take(x, order[:trial], axis=0), kernel, xp)
        if rank is not None or trial >= last or host_float(approximation.values[-1]) <= 10.0 * mu:
            return approximation
        trial = min(2 * trial, last)


def _factor(x: Array, landmarks: Array, kernel: Kernel, xp: Namespace) -> LowRank:
    # In float32 the core matrix would need a shift that drowns most of its eigenvalues.
    wide = wide_dtype(x, xp)
    x, landmarks = xp.astype(x, wide), xp.astype(landmarks, wide)
    n, rank = x.shape[0], landmarks.shape[0]
    eye = xp.eye(rank, dtype=wide, device=device(x))
    core = Pairs(landmarks, landmarks, kernel, passes=1).sum(eye)
    # The shift of the paper, with the norm of the core in place of that of all columns.
    shift = n**0.5 * finfo_eps(wide, xp) * host_float(xp.linalg.matrix_norm(core))
    C = cholesky((core + core.T) / 2.0 + shift * eye, xp=xp)
    inverse = solve_triangular(C, eye, lower=True, xp=xp)
    B = Pairs(x, landmarks, kernel, passes=1).sum(inverse.T)
    U, s, _ = xp.linalg.svd(B, full_matrices=False)
    return LowRank(U, xp.maximum(s * s - shift, xp.zeros_like(s)))


def preconditioner(approximation: LowRank, mu: float, dtype: object, xp: Namespace) -> LinearOperator:
    """``(lam_l + mu) U (lam + mu)^{-1} U^T + (I - U U^T)``, equation (1.3) of the paper."""
    n = approximation.U.shape[0]
    U = xp.astype(approximation.U, dtype)
    values = approximation.values
    gain = xp.astype((values[-1] + mu) / (values + mu) - 1.0, dtype)

    def apply(r: Array) -> Array:
        inner = U.T @ r
        return r + U @ (gain * inner if r.ndim == 1 else gain[:, None] * inner)

    return LinearOperator(
        (n, n), apply, matmat=apply, rmatvec=apply, rmatmat=apply, dtype=dtype, tags={"symmetric", "positive"}, name="M"
    )

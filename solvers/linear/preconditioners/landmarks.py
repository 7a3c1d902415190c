"""A Nystrom preconditioner for a kernel matrix plus a ridge, from its columns at a few points alone.

Frangella, Tropp, Udell, Randomized Nystrom preconditioning (2023), with coordinate vectors at random points (landmarks) in
place of a Gaussian test matrix: ``n l`` kernel values instead of a pass over all ``n^2`` pairs.
"""

from __future__ import annotations

from typing import Any

from ....backends.linalg import cholesky, solve_triangular
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, wide_dtype
from ....backends.pairs import Kernel, Pairs
from ....backends.random import Sampler
from ....backends.transfer import host_float
from ....backends.validation import check_array, check_count, check_scalar
from .low_rank import LowRankInverse

# Ranks tried in turn, and the most columns whose factorisation still pays for the iterations it saves.
_FIRST_RANK, _LAST_RANK = 64, 1024
# The spectrum is caught once its smallest eigenvalue found is below this multiple of mu (the paper's rule).
_CAUGHT = 10.0


def landmarks(x: Array, kernel: Kernel, mu: float, *, rank: int | None = None, rng: Any = None) -> LowRankInverse:
    """Approximate inverse of ``K + mu I``, ``K_ij = k(x_i, x_j)``, from the columns of random points.

    Parameters
    ----------
    x : array (n, d)
        The points.
    kernel : Kernel
        A positive definite kernel of `backends.pairs`.
    mu : float
        Positive regularisation.
    rank : int, optional
        Columns, at most ``n``. By default doubled from 64 until no eigenvalue above ``10 mu`` is left out, at most 1024.
    rng : None, int or Generator
        Which points are taken (SPEC 7).

    Returns
    -------
    LowRankInverse
        ``M`` (n, n), symmetric and positive, in the dtype of ``x``.

    Raises
    ------
    BackendError, InputError
        Bad points or options; the message names the argument.

    Notes
    -----
    ``n rank`` kernel values and ``O(n rank^2)`` operations, in float64. Against `nystrom` it saves the pass over all pairs, and
    catches a little less of the spectrum; against `rpcholesky` the columns come in one block.

    References
    ----------
    Z. Frangella, J. A. Tropp, M. Udell, Randomized Nystrom preconditioning, SIAM J. Matrix Anal. Appl. 44, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import gaussian
    >>> from xpsolve.solvers.linear.preconditioners import landmarks
    >>> landmarks(np.linspace(0.0, 1.0, 300)[:, None], gaussian(0.5), 1e-3, rng=0).eigenvalues.shape
    (64,)
    """
    xp = array_namespace(x=x)
    check_array(x, "x", xp, ndim=2)
    mu = check_scalar(mu, "mu", positive=True)
    if rank is not None:
        check_count(rank, "rank")
    n = x.shape[0]
    order = Sampler(rng, xp=xp, device=device(x)).permutation(n)
    trial, last = min(n, _FIRST_RANK if rank is None else rank), min(n, _LAST_RANK)
    while True:
        U, values = _factor(x, xp.take(x, order[:trial], axis=0), kernel, xp)
        smallest = host_float(values[-1])
        if rank is not None or trial >= last or smallest <= _CAUGHT * mu:
            break
        trial = min(2 * trial, last)
    U, values = xp.astype(U, x.dtype), xp.astype(values, x.dtype)
    return LowRankInverse(U, values, mu=mu, rest=1.0 / (smallest + mu), name="landmarks")


def _factor(x: Array, chosen: Array, kernel: Kernel, xp: Namespace) -> tuple[Array, Array]:
    """``K`` is near ``U diag(values) U^T``, ``U`` (n, l) with orthonormal columns, values falling."""
    # In float32 the core matrix would need a shift that drowns most of its eigenvalues.
    wide = wide_dtype(x, xp)
    x, chosen = xp.astype(x, wide), xp.astype(chosen, wide)
    n, rank = x.shape[0], chosen.shape[0]
    eye = xp.eye(rank, dtype=wide, device=device(x))
    core = Pairs(chosen, chosen, kernel, passes=1).sum(eye)
    # The shift of the paper, with the norm of the core in place of that of all columns.
    shift = n**0.5 * finfo_eps(wide, xp) * host_float(xp.linalg.matrix_norm(core))
    C = cholesky((core + core.T) / 2.0 + shift * eye, xp=xp)
    inverse = solve_triangular(C, eye, lower=True, xp=xp)
    B = Pairs(x, chosen, kernel, passes=1).sum(inverse.T)
    U, s, _ = xp.linalg.svd(B, full_matrices=False)
    return U, xp.maximum(s * s - shift, xp.zeros_like(s))

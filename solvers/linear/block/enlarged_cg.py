"""Enlarged conjugate gradients: one right-hand side in the Krylov space of several vectors (Grigori and Tissot 2019).

Where a pass over ``A`` costs the same for one vector and for sixteen, vectors that only widen the space pay: random ones beside
``b`` act like a randomised preconditioner that need not be built (Chen, Huber, Lin and Zaid 2025).
"""

from __future__ import annotations

from typing import Any

from ....backends.errors import InputError
from ....backends.namespace import Array, device
from ....backends.random import Sampler
from ....backends.validation import check_choice, check_count
from ...iterate import Callback, warn_unless_converged
from ...result import LinearResult
from ..system import System, prepare, run
from .block_cg import BlockCG


def enlarged_cg(
    A: Any,
    b: Array,
    *,
    t: int = 16,
    mode: str = "random",
    rng: Any = None,
    x0: Array | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve ``A x = b`` for a Hermitian positive definite ``A`` in the Krylov space of ``t`` vectors.

    Parameters
    ----------
    A, x0, rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `cg`.
    b : array (n,)
        One right-hand side.
    t : int
        Vectors that begin the space, at most ``n``.
    mode : {"random", "split"}
        The residual and ``t - 1`` Gaussian vectors, or the residual cut into ``t`` slabs of rows.
    rng : None, int or Generator
        Of the Gaussian vectors (SPEC 7).

    Returns
    -------
    LinearResult
        As of `cg`; an iteration is one pass over ``A`` with ``t`` columns, each counted as a product.

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
    L. Grigori, O. Tissot, Scalable linear solvers based on enlarged Krylov subspaces with dynamic reduction of search
    directions, 2019.
    T. Chen, C. Huber, E. Lin, H. Zaid, Preconditioning without a preconditioner: faster ridge-regression and Gaussian
    sampling with randomized block Krylov subspace methods, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import enlarged_cg
    >>> A = np.diag(np.linspace(1.0, 1000.0, 64))
    >>> enlarged_cg(A, np.ones(64), t=16, rng=0).n_iter < 8
    True
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=None, hermitian=True)
    if b.ndim != 1:
        raise InputError(f"b has shape {tuple(b.shape)}, expected (n,); for several right-hand sides see block_cg")
    t = min(check_count(t, "t"), b.shape[0])
    kind = {"random": _Random, "split": _Split}[check_choice(mode, "mode", ("random", "split"))]
    result = run(
        kind(system, t, rng), system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "enlarged_cg")
    return result


class _Random(BlockCG):
    """The residual and Gaussian vectors; only the residual's coefficients are carried."""

    def __init__(self, system: System, t: int, rng: Any) -> None:
        super().__init__(system)
        xp, b = system.xp, system.b
        complex_ = xp.isdtype(b.dtype, "complex floating")
        real = xp.real(b).dtype if complex_ else b.dtype
        sampler = Sampler(rng, xp=xp, dtype=real, device=device(b))
        self.extra = xp.astype(sampler.normal((b.shape[0], t - 1)), b.dtype)

    def seed(self, R: Array) -> tuple[Array, Array]:
        xp = self.xp
        block = xp.concat([R, self.extra], axis=1)
        return block, xp.eye(block.shape[1], 1, dtype=R.dtype, device=device(R))


class _Split(BlockCG):
    """The residual cut into slabs of rows, whose sum it is."""

    def __init__(self, system: System, t: int, rng: Any) -> None:
        super().__init__(system)
        xp, n = system.xp, system.b.shape[0]
        rows = xp.arange(n, device=device(system.b)) * t // n
        slabs = xp.arange(t, device=device(system.b))
        self.mask = xp.astype(rows[:, None] == slabs[None, :], system.b.dtype)

    def seed(self, R: Array) -> tuple[Array, Array]:
        xp = self.xp
        return self.mask * R, xp.ones((self.mask.shape[1], 1), dtype=R.dtype, device=device(R))

"""GMRES with restarts for any square system (Saad and Schultz 1986), right-preconditioned.

The residual is the smallest over the Krylov space and falls within a cycle. On the right the preconditioner leaves the
residual alone: what is tested is what the user asked for.
"""

from __future__ import annotations

from typing import Any

from ...backends.namespace import Array
from ...backends.validation import check_count
from ..iterate import Callback, warn_unless_converged
from ..result import LinearResult
from .arnoldi import Restarted
from .system import prepare, run


def gmres(
    A: Any,
    b: Array,
    *,
    x0: Array | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    restart: int = 30,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve ``A x = b`` for any square ``A`` by the smallest residual over Krylov spaces of up to ``restart`` products.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        The operator; see `as_operator` for what is accepted.
    b : array (n,) or (n, k)
        One right-hand side, or ``k`` of them: each has its own Krylov space, they share each product with ``A``.
    x0 : array like b, optional
        Starting point, default zero; not modified.
    rtol, atol : float
        Column ``j`` has converged when ``||b_j - A x_j|| <= max(rtol ||b_j||, atol)``.
    restart : int
        Steps of a cycle: ``restart + 2`` vectors are kept for each right-hand side.
    maxiter : int, optional
        Most steps, *inner* ones (SciPy counts cycles), default ``10 n``.
    M : like A, optional
        Approximation of the inverse, applied on the right: ``A M t = b``, ``x = M t``. It must not change from step to
        step; see `fgmres` for one that does.
    callback, check_every, progress, time_limit
        See `LoopOptions`; the callback's iterate forms ``x`` when it is asked for.

    Returns
    -------
    LinearResult
        As of `cg`.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached; the result holds the last good iterate and a status with advice: STAGNATED when a
        whole cycle gained nothing, SINGULAR when the space is exhausted and a residual is left.

    Notes
    -----
    One product with ``A`` and two passes over the basis (four matrix-vector products of ``j`` rows) in step ``j`` of a
    cycle. On a GPU the Hessenberg matrix is read once a look: a ``restart`` that is a multiple of ``check_every`` costs no
    further transfer.

    References
    ----------
    Y. Saad, M. H. Schultz, GMRES: a generalized minimal residual algorithm, 1986.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import gmres
    >>> A = np.asarray([[1.0, 2.0], [0.0, 4.0]])
    >>> gmres(A, np.asarray([3.0, 4.0])).x.round(6).tolist()
    [1.0, 1.0]
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M)
    method = Restarted(system, min(check_count(restart, "restart"), b.shape[0]), flexible=False)
    result = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "gmres")
    return result

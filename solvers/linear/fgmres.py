"""Flexible GMRES: the preconditioner may be another one at every step (Saad 1993).

For preconditioners that are themselves iterations, or learned maps: their outputs are kept, and the iterate is combined
from them instead of from the basis.
"""

from __future__ import annotations

from typing import Any

from ...backends.namespace import Array
from ...backends.validation import check_count
from ..iterate import Callback, warn_unless_converged
from ..result import LinearResult
from .arnoldi import Restarted
from .system import prepare, run


def fgmres(
    A: Any,
    b: Array,
    *,
    M: Any,
    x0: Array | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    restart: int = 30,
    maxiter: int | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve ``A x = b`` for any square ``A`` with a preconditioner that may vary.

    Parameters
    ----------
    A, b, x0, rtol, atol, restart, maxiter, callback, check_every, progress, time_limit
        As of `gmres`; ``2 restart + 2`` vectors are kept for each right-hand side.
    M : callable or like A
        ``r -> an approximation of A^{-1} r``, linear or not, the same at each call or not.

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
        As of `gmres`.

    References
    ----------
    Y. Saad, A flexible inner-outer preconditioned GMRES algorithm, 1993.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import cg, fgmres
    >>> A = np.diag(np.linspace(1.0, 100.0, 50))
    >>> inner = lambda r: cg(A, r, rtol=0.1).x
    >>> fgmres(A, np.ones(50), M=inner, rtol=1e-8).n_iter < 15
    True
    """
    system = prepare(A, b, x0=x0, rtol=rtol, atol=atol, M=M)
    method = Restarted(system, min(check_count(restart, "restart"), b.shape[0]), flexible=True)
    result = run(
        method, system, maxiter=maxiter, callback=callback, check_every=check_every, progress=progress,
        time_limit=time_limit,
    )  # fmt: skip
    warn_unless_converged(result, "fgmres")
    return result

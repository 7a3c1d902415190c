"""One call for any linear system: the method follows from what the operator says of itself, and the result says which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...backends.errors import ConvergenceWarning, InputError
from ...backends.namespace import Array, array_namespace, finfo_eps, is_array
from ...backends.operators import as_operator
from ...backends.transfer import host_bool, host_float
from ...backends.validation import check_array, check_choice
from ..iterate import warn_unless_converged
from ..result import LinearResult, Status
from .block import block_cg
from .cg import cg
from .gmres import gmres
from .lsmr import lsmr
from .minres import minres
from .system import asymmetry

_ASSUMPTIONS = ("general", "symmetric", "positive", "least squares")


def solve(A: Any, b: Array, *, assume: str | None = None, M: Any = None, **options: Any) -> LinearResult:
    """Solve ``A x = b``, or ``min ||A x - b||``, by the method that fits.

    Parameters
    ----------
    A : array (m, n), sparse matrix, LinearOperator or callable
        The operator; see `as_operator` for what is accepted.
    b : array (m,) or (m, k)
        One right-hand side or several.
    assume : {"general", "symmetric", "positive", "least squares"}, optional
        What is known of ``A`` (``"positive"``: Hermitian positive definite). By default its tags are believed; without
        tags two products tell whether it is Hermitian, and a stored diagonal without a negative entry is taken as a
        hint that it is definite, to be withdrawn if a negative curvature shows.
    M : like A, optional
        Approximation of the inverse of ``A``.
    **options
        Of the method: ``x0``, ``rtol``, ``atol``, ``maxiter``, ``callback``, ``check_every``, ``progress``, ``time_limit``.

    Returns
    -------
    LinearResult
        With the chosen ``method`` and ``why``.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached; the result holds the last good iterate and a status with advice.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import solve
    >>> result = solve(np.diag(np.asarray([1.0, 2.0])), np.asarray([1.0, 4.0]))
    >>> result.method, result.x.round(6).tolist()
    ('cg', [1.0, 2.0])
    """
    import warnings

    if assume is not None:
        check_choice(assume, "assume", _ASSUMPTIONS)
    xp = array_namespace(b=b)
    check_array(b, "b", xp, ndim=(1, 2), allow_complex=True)
    operator = as_operator(A, like=b, name="A", square=False)
    kind, why = _kind(operator, b, xp) if assume is None else (assume, f'assume="{assume}"')
    if kind == "least squares":
        return _named(_least_squares(operator, b, M, options), "lsmr", why)
    if operator.shape[0] != operator.shape[1]:
        raise InputError(f"A has shape {operator.shape}: not square, so assume must be 'least squares'")
    if kind == "general":
        return _named(gmres(operator, b, M=M, **options), "gmres", why)
    if kind == "symmetric":
        return _named(minres(operator, b, M=M, **options), "minres", why)
    # One pass over a dense matrix serves all columns: there a common Krylov space pays.
    together = b.ndim == 2 and b.shape[1] >= 4 and is_array(A)
    method, name = (block_cg, "block_cg") if together else (cg, "cg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = method(operator, b, M=M, **options)
    if result.status is Status.INDEFINITE and assume is None and M is None:
        why = f"{why}, but a negative curvature showed"
        return _named(minres(operator, b, **(options | {"x0": result.x})), "minres", why)
    warn_unless_converged(result, name)
    return _named(result, name, why)


def _named(result: LinearResult, method: str, why: str) -> LinearResult:
    return replace(result, method=method, why=why)


def _least_squares(A: Any, b: Array, M: Any, options: dict[str, Any]) -> LinearResult:
    """LSMR with the tolerance of the other methods."""
    options = dict(options)
    rtol = options.pop("rtol", 1e-5)
    if options.pop("atol", 0.0):
        raise InputError("atol has no meaning for least squares; rtol is used for both of its tests")
    return lsmr(A, b, M=M, atol=rtol, btol=rtol, **options)


def _kind(operator: Any, b: Array, xp: Any) -> tuple[str, str]:
    """What ``A`` is, by its shape, its tags, or a probe."""
    if operator.shape[0] != operator.shape[1]:
        return "least squares", f"A of shape {operator.shape} is not square"
    if "positive" in operator.tags:
        return "positive", "A is tagged symmetric positive definite"
    if "symmetric" in operator.tags:
        return "symmetric", "A is tagged symmetric"
    if host_float(asymmetry(operator, b, xp)) > finfo_eps(b.dtype, xp) ** 0.5:
        return "general", "two products show that A is not symmetric"
    try:
        diagonal = operator.diagonal()
    except InputError:
        return "symmetric", "two products agree with a symmetric A"
    if host_bool(xp.all(xp.real(diagonal) > 0 if xp.isdtype(diagonal.dtype, "complex floating") else diagonal > 0)):
        return "positive", "two products agree with a symmetric A, and its diagonal is positive"
    return "symmetric", "two products agree with a symmetric A, and its diagonal is not positive"

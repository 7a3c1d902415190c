"""What every Krylov method shares: the checked system, the bound that each column must meet, and the run to its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...backends.namespace import Array, Namespace, array_namespace
from ...backends.operators import LinearOperator, as_operator
from ...backends.transfer import host_float
from ...backends.validation import check_array, check_scalar
from ..iterate import LoopOptions, Outcome, iterate
from ..result import LinearResult


@dataclass(frozen=True, eq=False)
class System:
    """``A x = b`` with its tolerances.

    Attributes
    ----------
    A, M : LinearOperator
        The operator and the approximation of its inverse (or None).
    b, x : array (n,) or (n, k)
        Right-hand sides and starting points.
    r : array like b
        Residuals of the starting points.
    tolerance : float
        The largest bound of a column; what a weighted norm is tested against.
    weights : array () or (k,)
        Factors that make the tolerance of every column the largest one.
    xp : namespace
        Of all arrays.
    """

    A: LinearOperator
    M: LinearOperator | None
    b: Array
    x: Array
    r: Array
    tolerance: float
    weights: Array
    xp: Namespace


def prepare(A: Any, b: Array, *, x0: Array | None, rtol: float, atol: float, M: Any) -> System:
    """Check the arguments that every solver of ``A x = b`` shares; errors name them."""
    xp = array_namespace(b=b, x0=x0)
    check_array(b, "b", xp, ndim=(1, 2), allow_complex=True)
    rtol, atol = check_scalar(rtol, "rtol", non_negative=True), check_scalar(atol, "atol", non_negative=True)
    operator = as_operator(A, like=b, name="A")
    inverse = None if M is None else as_operator(M, like=b, name="M")
    if x0 is not None:
        check_array(x0, "x0", xp, shape=tuple(b.shape), dtype=b.dtype, allow_complex=True)
    norms = xp.sqrt(xp.sum(xp.abs(b) ** 2, axis=0))
    bounds = xp.maximum(rtol * norms, xp.full_like(norms, atol))
    # A zero column is solved by zero, whatever x0 says; its bound of zero must not divide.
    x = xp.zeros_like(b) if x0 is None else xp.where(norms > 0, x0, xp.zeros_like(b))
    tolerance = host_float(xp.max(bounds))
    weights = xp.where(bounds > 0, tolerance / xp.where(bounds > 0, bounds, 1.0), 1.0)
    r = b if x0 is None else b - operator @ x
    return System(operator, inverse, b, x, r, tolerance, weights, xp)


def run(method: Any, system: System, *, maxiter: int | None, **options: Any) -> LinearResult:
    """Run ``method`` on ``system`` (``options`` are those of `LoopOptions`); its states have ``x``, and it counts ``matvecs``."""
    limits = LoopOptions(maxiter=10 * system.b.shape[0] if maxiter is None else maxiter, **options)

    def finish(outcome: Outcome[Any]) -> LinearResult:
        return LinearResult(x=outcome.state.x, evaluations={"matvec": method.matvecs}, **outcome.fields())

    start = method.start(system.x, system.r)
    return finish(iterate(method, start, tolerance=system.tolerance, options=limits, on_device=system.b, finish=finish))

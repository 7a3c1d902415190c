"""Sorted Krylov recycling: a driver that orders a sequence of systems, solves it with memory, and returns all solutions.

Wang, Hao, Wang, Geng, Wang, Li and Wu, Accelerating data generation for neural operators via Krylov subspace recycling, ICLR
2024. Sorting pays where the parameters lie on a set of few dimensions; for rough random fields, or one matrix with many
right-hand sides, it changes nothing, and for diffusion on a grid `solve_diffusion` is faster than any recycling.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ....backends.errors import BackendError, ConvergenceWarning, InputError
from ....backends.namespace import Array, array_namespace
from ....backends.validation import check_callable, check_choice
from ...result import LinearResult, Status
from ..cg import cg
from ..gmres import gmres
from ..minres import minres
from .deflated_cg import deflated_cg
from .gcrodr import gcrodr
from .recycled_minres import recycled_minres
from .sorting import order_fft, order_greedy
from .space import RecycleSpace

_REMEMBER: dict[str, Callable[..., Any]] = {
    "gcrodr": gcrodr, "deflated_cg": deflated_cg, "recycled_minres": recycled_minres,
}  # fmt: skip
_FORGET: dict[str, Callable[..., LinearResult]] = {"cg": cg, "minres": minres, "gmres": gmres}


@dataclass(frozen=True)
class SequenceResult:
    """All solutions of a sequence, in the caller's order.

    Attributes
    ----------
    results : tuple of LinearResult
        One for each system.
    order : tuple of int
        The order in which they were solved.
    recycle : RecycleSpace or None
        What the last solve left, for a sequence that goes on.
    """

    results: tuple[LinearResult, ...]
    order: tuple[int, ...]
    recycle: RecycleSpace | None

    @property
    def converged(self) -> bool:
        """Whether every system reached its tolerance."""
        return all(result.converged for result in self.results)

    @property
    def matvecs(self) -> int:
        """Products with the operators, those of renewed images included."""
        return sum(result.evaluations["matvec"] for result in self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> LinearResult:
        return self.results[index]

    def __repr__(self) -> str:
        met = sum(result.converged for result in self.results)
        return f"SequenceResult({met} of {len(self)} converged, {self.matvecs} products)"


def solve_sequence(
    systems: Iterable[tuple[Any, Array]],
    params: Array | None = None,
    *,
    method: str = "gcrodr",
    order: str | Sequence[int] = "greedy",
    preconditioner: Callable[[Any], Any] | None = None,
    recycle: RecycleSpace | None = None,
    **options: Any,
) -> SequenceResult:
    """Solve ``A_i x_i = b_i`` for all ``i``, each with what the ones before have left.

    Parameters
    ----------
    systems : iterable of (A, b)
        The systems, as any solver takes them.
    params : array (N, ...), optional
        The parameters they were drawn from, for the order; without them they are solved as given.
    method : {"gcrodr", "deflated_cg", "recycled_minres", "gmres", "minres", "cg"}
        The solver; the last three remember nothing.
    order : {"greedy", "fft", "given"} or permutation
        See `order_greedy` and `order_fft`.
    preconditioner : callable, optional
        ``A -> M``, called for each system; not for ``"recycled_minres"``.
    recycle : RecycleSpace, optional
        What an earlier sequence has left.
    **options
        Of the solver.

    Returns
    -------
    SequenceResult
        The results in the order of ``systems``. An interrupt from the keyboard ends the sequence: systems that were not
        begun have their starting point and the status INTERRUPTED.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        Of each system that did not reach the tolerance.

    References
    ----------
    H. Wang, Z. Hao, J. Wang, Z. Geng, Z. Wang, B. Li, F. Wu, Accelerating data generation for neural operators via Krylov
    subspace recycling, ICLR 2024.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import two_parameter_darcy_sequence
    >>> from xpsolve.solvers.linear import solve_sequence
    >>> sequence = two_parameter_darcy_sequence(15, 6, xp=xp)
    >>> done = solve_sequence(sequence, sequence.parameters, rtol=1e-8)
    >>> done.converged, done.order[0]
    (True, 0)
    """
    check_choice(method, "method", (*_REMEMBER, *_FORGET))
    if not hasattr(systems, "__iter__"):
        raise BackendError(f"systems is a {type(systems).__name__}, expected an iterable of pairs (A, b)")
    check_callable(preconditioner, "preconditioner")
    if preconditioner is not None and method == "recycled_minres":
        raise InputError("preconditioner: recycled_minres has none; take method='gcrodr' or 'minres'")
    listed = list(systems)
    for index, system in enumerate(listed):
        if not hasattr(system, "__len__") or hasattr(system, "shape") or len(system) != 2:
            raise BackendError(f"systems[{index}] is a {type(system).__name__}, expected a pair (A, b)")
    chosen = _order(len(listed), params, order)
    results: dict[int, LinearResult] = {}
    interrupted = False
    for index in chosen:
        A, b = listed[index]
        if interrupted:
            results[index] = _not_begun(method, A, b, options)
            continue
        extra = dict(options)
        if preconditioner is not None:
            extra["M"] = preconditioner(A)
        if method in _FORGET:
            results[index] = _FORGET[method](A, b, **extra)
        else:
            result = _REMEMBER[method](A, b, recycle=recycle, **extra)
            results[index], recycle = result, result.recycle
        interrupted = results[index].status is Status.INTERRUPTED
    return SequenceResult(tuple(results[i] for i in range(len(listed))), tuple(chosen), recycle)


def _not_begun(method: str, A: Any, b: Array, options: dict[str, Any]) -> LinearResult:
    """The result of no iteration at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result: LinearResult = (_FORGET | _REMEMBER)[method](
            A, b, **(options | {"maxiter": 0, "callback": None, "progress": False})
        )
    return result if result.converged else replace(result, status=Status.INTERRUPTED)


def _order(count: int, params: Array | None, order: str | Sequence[int]) -> list[int]:
    if not isinstance(order, str):
        if not hasattr(order, "__iter__"):
            raise InputError(f"order is {order!r}, expected 'greedy', 'fft', 'given' or a permutation")
        places = list(order)
        if not all(hasattr(place, "__index__") for place in places) or sorted(places) != list(range(count)):
            raise InputError(f"order is not a permutation of 0 .. {count - 1}")
        return [int(index) for index in places]
    check_choice(order, "order", ("greedy", "fft", "given"))
    if params is None or order == "given" or count == 0:
        return list(range(count))
    array_namespace(params=params)
    if params.ndim == 0 or params.shape[0] != count:
        raise InputError(f"params has shape {tuple(params.shape)}, expected {count} along its first axis")
    return order_greedy(params) if order == "greedy" else order_fft(params)

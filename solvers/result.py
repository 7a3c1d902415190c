"""The one result of every solver, and the words for how a run can end."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ..backends.errors import ConvergenceError
from ..backends.namespace import Array


class Status(enum.Enum):
    """How a run ended; the value is the sentence shown to the user, with the advice that fits."""

    CONVERGED = "tolerance reached"
    MAX_ITER = "iteration limit reached; raise maxiter, loosen the tolerance, or precondition"
    STAGNATED = (
        "no further progress: the precision is exhausted (use float64 or loosen the tolerance), or a restarted method is "
        "stuck (raise restart or precondition)"
    )
    INDEFINITE = (
        "negative or zero curvature: the operator (or the preconditioner) is not positive definite; "
        "minres solves symmetric indefinite systems"
    )
    NOT_SYMMETRIC = (
        "the operator (or the preconditioner) is not symmetric (Hermitian), as this method needs; use gmres or bicgstab"
    )
    SINGULAR = (
        "the Krylov space is exhausted and a residual is left: the operator (or the preconditioner) is singular; use lsqr, or "
        "minres if symmetric"
    )
    ILL_CONDITIONED = "the estimated condition number passed conlim; raise it, or regularise with damp"
    BREAKDOWN = "the recurrence broke down; this is the last good iterate"
    NONFINITE = "a step produced NaN or infinity; this is the last good iterate"
    TIME_LIMIT = "time limit reached; raise time_limit or loosen the tolerance"
    STOPPED = "stopped by the callback"
    INTERRUPTED = "interrupted from the keyboard; this is the last complete iterate"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What every solver returns; a family adds fields under the names of its literature.

    Attributes
    ----------
    status : Status
        How the run ended; ``status.value`` is a sentence with advice.
    n_iter : int
        Iterations done.
    residual : float
        The tested quantity, recomputed from the returned solution, never taken from a recurrence.
    tolerance : float
        What ``residual`` was tested against.
    history : tuple of float
        One tested quantity per check, the starting point first.
    evaluations : mapping
        What was counted, e.g. ``{"matvec": 12}``.
    """

    status: Status
    n_iter: int
    residual: float
    tolerance: float
    history: tuple[float, ...] = ()
    evaluations: Mapping[str, int] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        """Whether the recomputed residual is within the tolerance."""
        return self.status is Status.CONVERGED

    @property
    def success(self) -> bool:
        """SciPy's word for `converged`."""
        return self.converged

    @property
    def message(self) -> str:
        """The status as a sentence."""
        return self.status.value

    @property
    def nit(self) -> int:
        """SciPy's word for `n_iter`."""
        return self.n_iter

    def raise_for_status(self) -> Self:
        """Return the result itself if converged, else raise `ConvergenceError` with the result attached."""
        if not self.converged:
            raise ConvergenceError(self._summary(), self)
        return self

    def _summary(self) -> str:
        return (
            f"{self.message} ({self.n_iter} iterations, residual {self.residual:.3g}, tolerance {self.tolerance:.3g})"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status.name}: {self._summary()})"


@dataclass(frozen=True, kw_only=True, repr=False)
class LinearResult(Result):
    """Solution ``x`` of a linear system, shaped like the right-hand side.

    It unpacks as SciPy's solvers return: ``x, info = cg(A, b)``.

    Attributes
    ----------
    x : array
        The solution, or the last good iterate.
    method, why : str
        Of `solve`: the solver that was chosen, and the reason.
    """

    x: Array
    method: str = ""
    why: str = ""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_scipy())

    def to_scipy(self) -> tuple[Any, int]:
        """The pair ``(x, info)`` of SciPy: 0 converged, ``n_iter`` if a limit was met, -1 for a breakdown."""
        if self.converged:
            return self.x, 0
        limits = {
            Status.MAX_ITER, Status.STAGNATED, Status.TIME_LIMIT, Status.STOPPED, Status.INTERRUPTED, Status.ILL_CONDITIONED
        }  # fmt: skip
        return self.x, max(self.n_iter, 1) if self.status in limits else -1

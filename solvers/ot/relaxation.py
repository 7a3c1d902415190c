"""Over-relaxation of Sinkhorn's iteration that tunes itself (Thibault, Chizat, Dossal and Papadakis 2021; Lehmann et al. 2022).

Sinkhorn is block Gauss-Seidel on the dual, so Young's theory of successive over-relaxation holds near the solution: if
``sigma^2`` is the rate of plain Sinkhorn, the best factor is ``2 / (1 + sqrt(1 - sigma^2))``; and if the iteration with factor
``w`` contracts by ``lam``, then ``sigma^2 = (lam + w - 1)^2 / (w^2 lam)``. So the rate seen while relaxed still tells sigma.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...backends.errors import InputError
from ...backends.validation import check_scalar

# The first iterations say nothing about the rate; a rate is the mean over half a period.
_WINDOW = 10
# The largest factor; what is left of it above 1 when the error grows; and the growth of one period after which Sinkhorn's own
# step is taken again.
_LARGEST, _BACK, _GROWTH = 1.985, 0.7, 10.0
#: The most that a relaxed step may miss the exact update by, as a factor and its logarithm. So no half step leaves more than ten
#: times the mass, however far the iterate is from the solution; near it nothing changes.
MOST_BEYOND = 10.0
LOG_BEYOND = math.log(MOST_BEYOND)


class Relaxation(NamedTuple):
    """The factor for the next iteration. Immutable: `seen` returns the next one.

    Attributes
    ----------
    omega : float
        The factor, 1 is Sinkhorn's own step.
    tuned : bool
        Whether errors change it.
    n : int
        Iterations seen.
    mark : float
        The error at the start of the window; NaN where there is none.
    reference : float
        The error at the end of the last period.

    Examples
    --------
    >>> from xpsolve.solvers.ot.relaxation import Relaxation
    >>> relaxation = Relaxation.of("auto")
    >>> for n in range(1, 21):
    ...     relaxation = relaxation.seen(0.99**n)
    >>> round(relaxation.omega, 4)
    1.8182
    """

    omega: float
    tuned: bool
    n: int = 0
    mark: float = math.nan
    reference: float = math.inf

    @classmethod
    def of(cls, omega: Any) -> Relaxation:
        """From a solver's argument: ``"auto"`` or a number in [1, 2)."""
        if isinstance(omega, str):
            if omega != "auto":
                raise InputError(f"omega is {omega!r}, expected 'auto' or a number in [1, 2)")
            return cls(1.0, True)
        omega = check_scalar(omega, "omega", positive=True)
        if not 1 <= omega < 2:
            raise InputError(f"omega must lie in [1, 2), got {omega}")
        return cls(omega, False)

    @property
    def due(self) -> bool:
        """Whether the error of the iteration to come is wanted: so a GPU is asked for it only then."""
        return self.tuned and (self.n + 1) % _WINDOW == 0

    def seen(self, error: float | None = None) -> Relaxation:
        """After one more iteration; ``error`` is both marginals' violation, needed where `due` says so."""
        n = self.n + 1
        if not self.tuned or n % _WINDOW or error is None:
            return self._replace(n=n)
        # What grows so much (or is no number) is not the start of a relaxed phase: begin again from the plain iteration.
        lost = not error <= _GROWTH * self.reference
        if n % (2 * _WINDOW):
            return self._replace(n=n, mark=error, omega=1.0 if lost else self.omega)
        omega = 1.0 if lost else self.omega
        if not lost and self.mark > 0 and error > 0:
            omega = _tuned(omega, (error / self.mark) ** (1 / _WINDOW))
        return self._replace(n=n, mark=math.nan, reference=error, omega=omega)


def plain_rate(rate: float, omega: float) -> float:
    """The rate of plain Sinkhorn, ``sigma^2``, behind the ``rate`` that was seen with the factor ``omega``."""
    return min((rate + omega - 1) ** 2 / (omega**2 * rate), 1.0)


def best_omega(sigma_squared: float) -> float:
    """``2 / (1 + sqrt(1 - sigma^2))``, a little less than 2 at most."""
    return min(2 / (1 + math.sqrt(max(0.0, 1 - sigma_squared))), _LARGEST)


def _tuned(omega: float, rate: float) -> float:
    if rate >= 1:
        # The error grows: too bold.
        return 1 + _BACK * (omega - 1)
    if rate <= omega - 1 + 1e-3:
        # Beyond the best factor the rate is omega - 1 whatever sigma is: nothing can be learned.
        return omega
    return best_omega(plain_rate(rate, omega))

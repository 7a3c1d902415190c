"""Over-relaxation that tunes itself: from the observed rate of convergence to the best factor, by Young's relation.

With the factor ``w`` every update moves ``w`` times as far as Sinkhorn's. Near the solution the error then falls by a factor
``lam`` an iteration, where ``(lam + w - 1)^2 = sigma^2 w^2 lam`` and ``sigma^2`` is the rate of plain Sinkhorn; the best factor is
``2 / (1 + sqrt(1 - sigma^2))`` (Young 1954; Thibault, Chizat, Dossal and Papadakis 2021; Lehmann et al. 2022).
"""

from __future__ import annotations

import math

# The first factor is chosen after so many plain iterations; every so many it is looked at again, by the rate over the window.
_EVERY, _WINDOW = 20, 10
_LARGEST, _BACK, _GROWTH = 1.985, 0.7, 10.0


class OverRelaxation:
    """The factor ``omega`` of the next iteration, from the errors of those done.

    No arrays: it is told an error where it `wants` one, twice in twenty iterations, so that a GPU is not asked each time.

    Attributes
    ----------
    omega : float
        The factor in use; 1 is the plain iteration.

    Examples
    --------
    >>> from xpsolve.solvers.ot.over_relaxation import OverRelaxation
    >>> tuner = OverRelaxation()
    >>> for n in range(21):
    ...     if tuner.wants(n):
    ...         tuner.tell(n, 0.99**n)
    >>> round(tuner.omega, 4)
    1.8182
    """

    def __init__(self) -> None:
        self.omega = 1.0
        self._early, self._reference = math.inf, math.inf

    def wants(self, n: int) -> bool:
        """Whether the error after ``n`` iterations is to be told."""
        return n > 0 and n % _EVERY in (0, _EVERY - _WINDOW)

    def tell(self, n: int, error: float) -> None:
        """Note the error of both marginals after ``n`` iterations; may change ``omega``."""
        if n % _EVERY:
            self._early = error
            # Something that grows so much is not the start of a relaxed phase: begin again from the plain iteration.
            if not error <= _GROWTH * self._reference:
                self.omega = 1.0
            return
        rate = (error / self._early) ** (1.0 / _WINDOW) if 0 < self._early < math.inf else math.nan
        grown = not error <= _GROWTH * self._reference
        self._reference, self._early = error, math.inf
        if grown or not rate > 0:
            self.omega = 1.0
        elif rate >= 1:
            self.omega = 1.0 + _BACK * (self.omega - 1.0)
        elif rate > self.omega - 1.0 + 1e-3:
            self.omega = best_omega(plain_rate(rate, self.omega))


def plain_rate(rate: float, omega: float) -> float:
    """The rate of plain Sinkhorn, ``sigma^2``, behind the ``rate`` that was seen with the factor ``omega``."""
    return min((rate + omega - 1.0) ** 2 / (omega * omega * rate), 1.0)


def best_omega(sigma_squared: float) -> float:
    """``2 / (1 + sqrt(1 - sigma^2))``, a little less than 2 at most."""
    return min(2.0 / (1.0 + math.sqrt(max(0.0, 1.0 - sigma_squared))), _LARGEST)

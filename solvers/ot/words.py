"""How a run of optimal transport can end, in words that fit: no preconditioner and no restart is at hand here."""

from __future__ import annotations

from ..result import Result, Status

_WORDS = {
    Status.MAX_ITER: "iteration limit reached; raise maxiter, loosen the tolerance, or raise reg",
    Status.STAGNATED: (
        "no further progress: the precision is exhausted, or the method cannot follow so small a reg; use float64, loosen the "
        "tolerance, raise reg, or try another method"
    ),
}


class TransportOutcome(Result):
    """A `Result` whose advice is about transport."""

    @property
    def message(self) -> str:
        """The status as a sentence."""
        return _WORDS.get(self.status, self.status.value)

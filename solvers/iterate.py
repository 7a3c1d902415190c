"""The one loop: a solver brings a state and a step, everything else about iterating is written here.

Stopping on a recomputed truth, how seldom a GPU is asked for a number, callbacks, history, progress, the time limit, what
is left when something interrupts, and the warning when the tolerance is not reached.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ..backends.errors import ConvergenceWarning, MissingDependencyError
from ..backends.memory import keep_freed_memory
from ..backends.namespace import Array, is_gpu
from ..backends.transfer import host_float
from ..backends.validation import check_callable, check_count, check_scalar
from .result import Result, Status

State = TypeVar("State")

_log = logging.getLogger("xpsolve.iterate")


class Method(Protocol[State]):
    """A numerical method as the loop sees it. What a result is made of never changes: the iterate of an old state stays valid
    after a step.

    A method whose error may rise again sets the attribute ``keep_best``: a run that does not converge then ends with the
    best state it looked at, not with the last. One that must itself read the host now and then (a restarted method at the end
    of a cycle) says how many steps ahead by ``ahead(state)`` (zero: not known): the look before that moves there, and one
    synchronisation serves both.
    """

    def step(self, state: State) -> State:
        """One iteration."""

    def error(self, state: State) -> Array:
        """The tested quantity as the method carries it, a 0-d device array; cheap, possibly drifted from the truth.

        A negative value says that the curvature or the recurrence broke down (the status is then the method's attribute
        ``broken``, INDEFINITE unless it has one; minus infinity says SINGULAR), NaN that the step was not finite: so one
        transfer tells the loop both how far it is and that it must stop.
        """

    def verify(self, state: State) -> tuple[State, float]:
        """The same quantity recomputed from the iterate itself, and a state that goes on from that truth."""


@dataclass(frozen=True)
class Iterate:
    """What a callback is given at each check.

    Attributes
    ----------
    n_iter : int
        Iterations done.
    residual : float
        The tested quantity as the method carries it.
    state : object
        The method's own state, immutable; ``state.x`` (or the family's name) is the iterate.
    """

    n_iter: int
    residual: float
    state: Any

    def __getattr__(self, name: str) -> Any:
        # The iterate's fields can be read directly: callback(lambda it: it.x).
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.state, name)


Callback = Callable[[Iterate], object]


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """Options that mean the same in every solver.

    Attributes
    ----------
    maxiter : int
        Most iterations.
    callback : callable, optional
        Called with an `Iterate` at each check; may raise StopIteration to stop with the status STOPPED.
    check_every : int, optional
        Iterations between two looks at the error. Default 1 on the host, 10 on a GPU, where each look is a synchronisation.
        A method that works in cycles looks at the end of each one, instead of shortly before.
    progress : bool
        Show a progress bar (needs the extra ``progress``).
    time_limit : float, optional
        Seconds after which the run stops with the status TIME_LIMIT, looked at whenever the error is.
    """

    maxiter: int
    callback: Callback | None = None
    check_every: int | None = None
    progress: bool = False
    time_limit: float | None = None

    def __post_init__(self) -> None:
        check_count(self.maxiter, "maxiter", minimum=0)
        check_callable(self.callback, "callback")
        if self.check_every is not None:
            check_count(self.check_every, "check_every")
        if self.time_limit is not None:
            check_scalar(self.time_limit, "time_limit", positive=True)


@dataclass(frozen=True)
class Outcome(Generic[State]):
    """How a loop ended: the last good state and what the result needs to say about the run."""

    state: State
    status: Status
    n_iter: int
    residual: float
    tolerance: float
    history: tuple[float, ...]

    def fields(self) -> dict[str, Any]:
        """The fields that every `Result` shares."""
        return {
            "status": self.status,
            "n_iter": self.n_iter,
            "residual": self.residual,
            "tolerance": self.tolerance,
            "history": self.history,
        }


# A drifted recurrence is restarted from the truth; after this many restarts in a row that gain less than a factor of two
# the precision is exhausted.
_FUTILE_RESTARTS = 2
_MARGIN, _PATIENCE = 0.9, 10


def iterate(
    method: Method[State],
    state: State,
    *,
    tolerance: float,
    options: LoopOptions,
    on_device: Array,
    finish: Callable[[Outcome[State]], Result] | None = None,
) -> Outcome[State]:
    """Run ``method`` from ``state`` until its recomputed error is at most ``tolerance``.

    Parameters
    ----------
    method : Method
        The numerical method.
    state : State
        Its starting state.
    tolerance : float
        Bound on the tested quantity.
    options : LoopOptions
        Limits, callback and looks.
    on_device : array
        Any array of the problem: whether it lives on a GPU decides the default of ``check_every``.
    finish : callable, optional
        Turns an outcome into the family's result; used to attach ``err.result`` to an error that a callback raised.

    Returns
    -------
    Outcome
        Never raises for lack of convergence, nor on KeyboardInterrupt (status INTERRUPTED). An exception raised by the
        callback passes through with the last good result attached as its attribute ``result``.
    """
    keep_freed_memory()
    run = _Run(method, state, tolerance, options)
    check_every = options.check_every or (10 if is_gpu(on_device) else 1)
    with _progress_bar(options.progress, options.maxiter) as bar:
        try:
            status = run.loop(check_every, bar)
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        except Exception as err:
            outcome = run.outcome(Status.BREAKDOWN)
            err.result = finish(outcome) if finish else outcome  # type: ignore[attr-defined]
            err.add_note(
                f"xpsolve: the last good iterate, after {outcome.n_iter} iterations, is in this error's .result"
            )
            raise
    return run.outcome(status)


class _Run(Generic[State]):
    """One run of the loop; ``good`` is the last state whose error was seen to be finite."""

    def __init__(self, method: Method[State], state: State, tolerance: float, options: LoopOptions) -> None:
        self.method, self.options, self.tolerance = method, options, tolerance
        self.good, self.good_iter = state, 0
        self.residual = math.nan
        self.keep_best, self.best = bool(getattr(method, "keep_best", False)), math.inf
        self.verified: State | None = None
        self.history: list[float] = []

    def loop(self, check_every: int, bar: Any) -> Status:
        step, error, options = self.method.step, self.method.error, self.options
        ahead: Callable[[State], int] | None = getattr(self.method, "ahead", None)
        maxiter, callback, tolerance = options.maxiter, options.callback, self.tolerance
        deadline = math.inf if options.time_limit is None else time.monotonic() + options.time_limit
        futile, last_truth, alarm, patience = 0, math.inf, tolerance, 0
        state, n_iter = self.good, 0
        while True:
            residual = host_float(error(state))
            if not residual >= 0 or residual == math.inf:
                broken: Status = getattr(self.method, "broken", Status.INDEFINITE)
                if residual == -math.inf:
                    return Status.SINGULAR
                return broken if residual < 0 else Status.NONFINITE
            if not self.keep_best or residual <= max(self.best, tolerance):
                self.good, self.good_iter, self.residual = state, n_iter, residual
                self.best = residual
            self.history.append(residual)
            if bar is not None:
                bar.update(n_iter - bar.n)
                bar.set_postfix(residual=f"{residual:.2e}", refresh=False)
            if residual <= (tolerance if n_iter >= patience else alarm):
                state, truth = self.method.verify(state)
                if not math.isfinite(truth):
                    return Status.NONFINITE
                self.good = self.verified = state
                self.residual = self.best = self.history[-1] = truth
                if truth <= tolerance:
                    return Status.CONVERGED
                _log.debug("false alarm at iteration %d: carried %.3g, true %.3g", n_iter, residual, truth)
                futile = futile + 1 if truth > 0.5 * last_truth else 0
                last_truth = truth
                # Ask for a little more than what was too little, or for time: one that is right but slow gets through.
                alarm, patience = _MARGIN * tolerance, n_iter + max(_PATIENCE, n_iter // _PATIENCE)
                if futile >= _FUTILE_RESTARTS:
                    return Status.STAGNATED
            if callback is not None:
                try:
                    callback(Iterate(n_iter, self.history[-1], state))
                except StopIteration:
                    return Status.STOPPED
            if n_iter >= maxiter:
                return Status.MAX_ITER
            if time.monotonic() > deadline:
                return Status.TIME_LIMIT
            burst = check_every
            if ahead is not None and 0 < (until := ahead(state)) < 2 * check_every:
                burst = until
            burst = min(burst, maxiter - n_iter)
            for _ in range(burst):
                state = step(state)
            n_iter += burst

    def outcome(self, status: Status) -> Outcome[State]:
        state, residual = self.good, self.residual
        if self.verified is not self.good and status is not Status.CONVERGED:
            # A run that ends early reports the truth too; a limit met exactly at convergence is convergence.
            try:
                state, residual = self.method.verify(self.good)
            except Exception:
                _log.debug("the residual could not be recomputed", exc_info=True)
            if status in {Status.MAX_ITER, Status.TIME_LIMIT} and residual <= self.tolerance:
                status = Status.CONVERGED
        return Outcome(state, status, self.good_iter, residual, self.tolerance, tuple(self.history))


def warn_unless_converged(result: Result, solver: str) -> None:
    """Emit one `ConvergenceWarning` saying what happened and what to do, if ``result`` did not converge."""
    if not result.converged and result.status is not Status.STOPPED:
        message = (
            f"{solver}: {result.message} (after {result.n_iter} iterations the residual is {result.residual:.3g}, "
            f"the tolerance {result.tolerance:.3g})"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)


def _progress_bar(wanted: bool, total: int) -> AbstractContextManager[Any]:
    if not wanted:
        return nullcontext()
    try:
        from tqdm.auto import tqdm
    except ImportError as err:
        raise MissingDependencyError.for_extra("tqdm", "progress", "progress=True") from err
    bar: AbstractContextManager[Any] = tqdm(total=total, unit="it", leave=False)
    return bar

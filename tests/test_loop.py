"""The one loop, driven by a method whose every number is known: each status, and what is left when something goes wrong."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from xpsolve.backends.errors import (
    BackendError,
    ConvergenceError,
    ConvergenceWarning,
    InputError,
    MissingDependencyError,
)
from xpsolve.backends.transfer import count_transfers
from xpsolve.solvers.iterate import Iterate, LoopOptions, Outcome, iterate, warn_unless_converged
from xpsolve.solvers.linear import cg
from xpsolve.solvers.ot import sinkhorn
from xpsolve.solvers.result import LinearResult, Result, Status


@dataclass(frozen=True)
class Value:
    x: float


class Halving:
    """Halves a number; ``drift`` is how much smaller the carried error is than the true one."""

    def __init__(self, drift: float = 1.0, at_step: Callable[[int], None] | None = None, floor: float = 0.0) -> None:
        self.drift, self.at_step, self.floor, self.steps = drift, at_step, floor, 0

    def step(self, state: Value) -> Value:
        self.steps += 1
        if self.at_step is not None:
            self.at_step(self.steps)
        return Value(max(state.x / 2, self.floor))

    def error(self, state: Value) -> Any:
        return np.asarray(state.x * self.drift)

    def verify(self, state: Value) -> tuple[Value, float]:
        return state, state.x


def run(method: Any = None, tolerance: float = 0.1, **options: Any) -> Outcome[Value]:
    options = {"maxiter": 100} | options
    return iterate(
        method or Halving(), Value(1.0), tolerance=tolerance, options=LoopOptions(**options), on_device=np.ones(1)
    )


def test_converges_on_the_recomputed_truth() -> None:
    outcome = run()
    assert (outcome.status, outcome.n_iter, outcome.residual) == (Status.CONVERGED, 4, 1 / 16)
    assert outcome.history == (1.0, 0.5, 0.25, 0.125, 0.0625)
    # The carried error claims convergence two steps before it is true: each claim is recomputed and refused.
    drifted = run(Halving(drift=0.25))
    assert (drifted.status, drifted.residual, drifted.n_iter) == (Status.CONVERGED, 1 / 16, 4)


def test_a_start_within_the_tolerance_takes_no_step() -> None:
    outcome = run(tolerance=2.0)
    assert (outcome.status, outcome.n_iter) == (Status.CONVERGED, 0)


def test_stagnation_is_said_and_not_waited_out() -> None:
    outcome = run(Halving(drift=1e-3, floor=0.3))
    assert outcome.status is Status.STAGNATED
    assert outcome.residual == 0.3
    assert outcome.n_iter < 10


@pytest.mark.parametrize(
    ("value", "status"), [(-1.0, Status.INDEFINITE), (math.nan, Status.NONFINITE), (math.inf, Status.NONFINITE)]
)
def test_a_bad_number_ends_the_run_at_the_last_good_iterate(value: float, status: Status) -> None:
    class Bad(Halving):
        def error(self, state: Value) -> Any:
            return np.asarray(value if state.x < 0.3 else state.x)

    outcome = run(Bad())
    assert outcome.status is status
    assert outcome.state.x == outcome.residual == 0.5
    assert outcome.n_iter == 1


def test_limits() -> None:
    assert run(maxiter=2).status is Status.MAX_ITER
    assert run(maxiter=2).n_iter == 2
    assert run(maxiter=0).n_iter == 0
    assert run(maxiter=4).status is Status.CONVERGED
    slow = run(Halving(at_step=lambda _: time.sleep(0.02)), tolerance=1e-30, time_limit=0.05)
    assert slow.status is Status.TIME_LIMIT
    assert 1 <= slow.n_iter < 20


def test_a_limit_between_checks_is_kept_exactly() -> None:
    outcome = run(tolerance=1e-30, maxiter=7, check_every=5)
    assert outcome.n_iter == 7
    assert len(outcome.history) == 3  # at 0, 5 and 7


def test_rare_checks_overshoot_by_less_than_one_burst_and_look_less() -> None:
    with count_transfers() as often:
        exact = run(tolerance=1e-6)
    with count_transfers() as rarely:
        burst = run(tolerance=1e-6, check_every=8)
    assert exact.n_iter <= burst.n_iter < exact.n_iter + 8
    assert rarely.n <= burst.n_iter / 8 + 3 < often.n


def test_the_callback_sees_each_check_and_can_stop() -> None:
    seen: list[Iterate] = []

    def callback(it: Iterate) -> None:
        seen.append(it)
        if it.n_iter == 3:
            raise StopIteration

    outcome = run(callback=callback)
    assert outcome.status is Status.STOPPED
    assert [it.n_iter for it in seen] == [0, 1, 2, 3]
    assert [it.x for it in seen] == [1.0, 0.5, 0.25, 0.125]  # immutable: none is the last one in disguise
    assert seen[1].residual == 0.5
    with pytest.raises(AttributeError):
        _ = seen[0].nothing


def test_an_error_in_the_callback_carries_the_last_good_iterate() -> None:
    def callback(it: Iterate) -> None:
        if it.n_iter == 2:
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        run(callback=callback)
    assert caught.value.result.state.x == 0.25  # type: ignore[attr-defined]
    assert "last good iterate" in caught.value.__notes__[0]


def test_an_interrupt_in_a_step_leaves_the_last_complete_iterate() -> None:
    def interrupt(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    outcome = run(Halving(at_step=interrupt))
    assert (outcome.status, outcome.n_iter, outcome.state.x, outcome.residual) == (Status.INTERRUPTED, 2, 0.25, 0.25)


@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")
def test_an_interrupt_leaves_solvers_with_a_usable_result() -> None:
    def interrupt(it: Iterate) -> None:
        if it.n_iter == 3:
            raise KeyboardInterrupt

    rng = np.random.default_rng(0)
    G = rng.standard_normal((40, 40))
    A, b = G @ G.T + np.eye(40), rng.standard_normal(40)
    result = cg(A, b, callback=interrupt)
    assert result.status is Status.INTERRUPTED
    np.testing.assert_allclose(np.linalg.norm(b - A @ result.x), result.residual, rtol=1e-10)
    transport = sinkhorn(rng.random((6, 7)), reg=0.01, callback=interrupt)
    assert transport.status is Status.INTERRUPTED
    assert transport.n_iter == 3
    assert np.isfinite(transport.f).all()
    assert np.isfinite(transport.g).all()


def test_progress_uses_tqdm_or_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    assert run(progress=True).status is Status.CONVERGED
    assert "it" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(MissingDependencyError, match=r"xpsolve\[progress\]"):
        run(progress=True)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("maxiter", -1, InputError),
        ("maxiter", 1.5, BackendError),
        ("check_every", 0, InputError),
        ("time_limit", 0.0, InputError),
        ("time_limit", math.nan, InputError),
        ("callback", 3, BackendError),
    ],
)
def test_options_are_checked_before_any_work(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        LoopOptions(**({"maxiter": 5} | {name: value}))


def test_results_speak() -> None:
    numbers: dict[str, Any] = {"n_iter": 3, "residual": 0.5, "tolerance": 0.1}
    done = Result(status=Status.CONVERGED, **numbers)
    assert done.raise_for_status() is done
    assert done.success
    assert done.nit == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_unless_converged(done, "f")
        warn_unless_converged(Result(status=Status.STOPPED, **numbers), "f")
    limited = Result(status=Status.MAX_ITER, **numbers)
    with pytest.warns(ConvergenceWarning, match=r"f: .*maxiter.*0\.5.*0\.1") as caught:
        warn_unless_converged(limited, "f")
    assert len(caught) == 1
    with pytest.raises(ConvergenceError, match="maxiter") as raised:
        limited.raise_for_status()
    assert raised.value.result is limited
    codes = {s: LinearResult(status=s, x=None, **numbers).to_scipy()[1] for s in Status}
    assert codes[Status.CONVERGED] == 0
    assert codes[Status.MAX_ITER] == codes[Status.STAGNATED] == 3
    assert codes[Status.INDEFINITE] == codes[Status.BREAKDOWN] == -1

"""`solve` by default: which method it takes and when it changes its mind, with the user's options kept throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xpsolve.backends.errors import BackendError, ConvergenceWarning
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import newton, solve
from xpsolve.solvers.result import Status

TRIED = "iterations of kernel Sinkhorn were not enough"


def costs(n: int) -> np.ndarray:
    return np.random.default_rng(0).random((n, n))


# Regularisations at which iterations are quick, promise to end, end near, and end far from the marginals.
@pytest.mark.parametrize(
    ("n", "reg", "method", "why"),
    [
        (100, 0.03, "kernel_sinkhorn", "not above 2000"),
        (60, 0.01, "kernel_sinkhorn", "not above 2000"),
        (100, 0.003, "newton", f"60 {TRIED}"),
        (20, 0.001, "newton", f"20 {TRIED}"),
        (20, 0.0001, "newton", "times the regularisation"),
    ],
)
def test_choice(xp: Any, make: Any, n: int, reg: float, method: str, why: str) -> None:
    result = solve(make(costs(n)), reg=reg, tol=1e-9)
    assert result.converged
    assert result.method == method
    assert result.why.endswith(why)
    expected = newton(costs(n), reg=reg, tol=1e-12)
    np.testing.assert_allclose(to_host(result.plan @ xp.eye(n, dtype=xp.float64)), expected.dense_plan(), atol=1e-8)


def test_patience_is_doubled_where_the_rate_promises_an_end() -> None:
    result = solve(costs(60), reg=0.01, tol=1e-9)
    assert 60 < result.n_iter < 120


def test_nothing_spent_is_hidden_and_nothing_gained_is_lost() -> None:
    C = costs(300)
    cold, result = newton(C, reg=1e-3, tol=1e-9), solve(C, reg=1e-3, tol=1e-9)
    assert result.why == f"60 {TRIED}"
    assert result.n_iter < 0.7 * cold.n_iter
    # Two products an iteration, of the trial alone.
    assert result.evaluations["matvec"] > 120


@pytest.mark.parametrize("reg", [0.003, 0.001])
def test_the_callback_sees_both_methods_and_can_stop_either(reg: float) -> None:
    C, seen = costs(20), list[str]()
    result = solve(C, reg=reg, callback=lambda iterate: seen.append(type(iterate.state).__name__))
    assert result.method == "newton"
    kinds = set(seen)
    assert len(kinds) >= 2

    for kind in kinds:

        def stop(iterate: Any, kind: str = kind) -> None:
            if type(iterate.state).__name__ == kind:
                raise StopIteration

        def fail(iterate: Any, kind: str = kind) -> None:
            if type(iterate.state).__name__ == kind:
                raise ZeroDivisionError

        stopped = solve(C, reg=reg, callback=stop)
        assert stopped.status is Status.STOPPED
        with pytest.raises(ZeroDivisionError) as caught:
            solve(C, reg=reg, callback=fail)
        left = caught.value.result  # type: ignore[attr-defined]
        for end in (stopped, left):
            assert np.isfinite(end.f).all()
            assert np.isfinite(end.g).all()


def test_limits_and_refusals() -> None:
    C = costs(100)
    with pytest.warns(ConvergenceWarning):
        short = solve(C, reg=0.003, maxiter=5)
    assert (short.status, short.method, short.n_iter) == (Status.MAX_ITER, "kernel_sinkhorn", 5)
    with pytest.warns(ConvergenceWarning):
        late = solve(C, reg=0.003, time_limit=1e-9)
    assert late.status is Status.TIME_LIMIT
    assert np.isfinite(late.f).all()
    with pytest.raises(BackendError, match="callback must be callable"):
        solve(C, reg=0.003, callback=3)

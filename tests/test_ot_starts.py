"""Where a transport solver begins and ends: an earlier result as ``x0``, and the best state of a run that is cut off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xpsolve.backends.errors import ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import PointCloud, cloud_newton, kernel_sinkhorn, newton, sinkhorn, sns, solve, unbalanced

RNG = np.random.default_rng(0)
X, Y = RNG.random((40, 2)), RNG.random((55, 2))
C = ((X[:, None] - Y) ** 2).sum(axis=2)


@pytest.mark.parametrize(
    "solver", [sinkhorn, kernel_sinkhorn, newton, cloud_newton, sns, solve], ids=lambda s: s.__name__
)
def test_an_earlier_result_is_a_start(xp: Any, make: Any, solver: Any) -> None:
    cost = PointCloud(make(X), make(Y)) if solver is cloud_newton else make(C)
    first = newton(make(C), reg=0.01, tol=1e-10)
    again = solver(cost, reg=0.01, tol=1e-9, x0=first)
    assert again.converged
    assert again.n_iter == 0
    assert solver(cost, reg=0.01, tol=1e-9).n_iter > 0
    np.testing.assert_allclose(to_host(again.dense_plan()), to_host(first.dense_plan()), atol=1e-10)


@pytest.mark.parametrize("method", ["sinkhorn", "newton"])
def test_an_earlier_relaxed_result_is_a_start(method: str) -> None:
    options: dict[str, Any] = {"reg": 0.1, "reg_a": 1.0, "reg_b": 1.0}
    first = unbalanced(C, **options, tol=1e-10)
    assert unbalanced(C, **options, tol=1e-9, x0=first, method=method).n_iter == 0
    assert unbalanced(C, **options, tol=1e-9, method=method).n_iter > 0


def test_a_result_of_another_shape_is_no_start() -> None:
    first = newton(C[:, :50].copy(), reg=0.01)
    with pytest.raises(InputError, match="x0"):
        sinkhorn(C, reg=0.01, x0=first)


def test_anderson_cut_off_ends_on_its_best_state(xp: Any, make: Any) -> None:
    with pytest.warns(ConvergenceWarning):
        result = sinkhorn(make(C), reg=0.003, tol=1e-12, acceleration="anderson", maxiter=40)
    # The run had wandered off by then, or this would show nothing.
    assert result.history[-1] > 5 * min(result.history)
    assert result.n_iter == int(np.argmin(result.history))
    plan = to_host(result.dense_plan())
    truth = np.abs(plan.sum(axis=1) - 1 / 40).sum() + np.abs(plan.sum(axis=0) - 1 / 55).sum()
    np.testing.assert_allclose([result.residual, min(result.history)], truth, rtol=1e-9)

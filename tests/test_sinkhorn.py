"""Sinkhorn against closed forms, invariances and POT."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import Grid, PointCloud, sinkhorn, sinkhorn_batch, sns, solve_exact
from xpsolve.solvers.result import Status


@pytest.fixture
def clouds() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    x, y, a = rng.random((40, 2)), rng.random((55, 2)), rng.random(40) + 0.1
    a[3] = 0.0
    return x, y, a / a.sum(), np.full(55, 1 / 55)


def test_two_by_two_closed_form() -> None:
    C, a, b = np.asarray([[0.1, 0.9], [0.4, 0.3]]), np.asarray([0.3, 0.7]), np.asarray([0.6, 0.4])
    plan = sinkhorn(C, a, b, reg=0.2, tol=1e-13).plan @ np.eye(2)
    np.testing.assert_allclose(plan[0, 0], 0.2957273296050, atol=1e-12)
    np.testing.assert_allclose(plan.sum(axis=1), a, atol=1e-12)


def test_circulant_cost() -> None:
    n, reg = 64, 0.05
    gaps = np.minimum(np.arange(n), n - np.arange(n)) / n
    c = gaps**2
    C = c[(np.arange(n)[:, None] - np.arange(n)) % n]
    result = sinkhorn(C, reg=reg, tol=1e-13)
    np.testing.assert_allclose(result.value, -reg * math.log(np.exp(-c / reg).mean()), rtol=1e-12)
    assert result.n_iter <= 1


def test_cost_that_splits_gives_the_product_plan() -> None:
    rng = np.random.default_rng(1)
    u, v, a, b = rng.random(7), rng.random(9), rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(9))
    result = sinkhorn(u[:, None] + v, a, b, reg=0.03, tol=1e-12)
    np.testing.assert_allclose(result.plan @ np.eye(9), np.outer(a, b), atol=1e-13)
    np.testing.assert_allclose(result.value, a @ u + b @ v, rtol=1e-12)


def test_gaussians_on_a_line() -> None:
    grid = np.linspace(-9, 9, 601)
    a, b = np.exp(-((grid + 0.5) ** 2) / 2), np.exp(-((grid - 0.7) ** 2) / 0.72)
    result = sinkhorn((grid[:, None] - grid) ** 2, a / a.sum(), b / b.sum(), reg=1.0, tol=1e-12)
    np.testing.assert_allclose(result.value, 2.29389333245, rtol=1e-10)


def test_matrix_and_cloud_agree_on_every_library(xp: Any, make: Any, clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = clouds
    reference = sinkhorn(((x[:, None] - y) ** 2).sum(axis=2), a, b, reg=0.02, tol=1e-10)
    result = sinkhorn(PointCloud(make(x), make(y)), make(a), make(b), reg=0.02, tol=1e-10)
    assert result.converged
    assert abs(result.n_iter - reference.n_iter) <= 1
    assert type(result.f) is type(make(x))
    np.testing.assert_allclose(result.value, reference.value, rtol=1e-12)
    np.testing.assert_allclose(to_host(result.transport()), reference.transport(target=y), atol=1e-9)
    np.testing.assert_allclose(to_host(result.transport(make(x))), reference.transport(target=y), atol=1e-9)
    np.testing.assert_allclose(to_host(result.plan @ make(np.ones(55))), a, atol=1e-10)
    np.testing.assert_allclose(to_host(result.plan.T @ make(np.ones(40))), b, atol=1e-10)


def test_agrees_with_pot(clouds: tuple[np.ndarray, ...]) -> None:
    ot = pytest.importorskip("ot")
    x, y, _, b = clouds
    a, C = np.full(40, 1 / 40), ((x[:, None] - y) ** 2).sum(axis=2)
    plan = sinkhorn(C, a, b, reg=0.05, tol=1e-12).plan @ np.eye(55)
    np.testing.assert_allclose(plan, ot.sinkhorn(a, b, C, 0.05, stopThr=1e-13, numItermax=10**5), atol=1e-11)


def test_float32_and_tiny_regularisation(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = (c.astype(np.float32) for c in clouds)
    result = sinkhorn(PointCloud(x, y), a, b, reg=0.02, tol=1e-4)
    assert result.converged
    assert result.f.dtype == np.float32
    with pytest.warns(ConvergenceWarning):
        hard = sinkhorn(((x[:, None] - y) ** 2).sum(axis=2), a, b, reg=1e-5, maxiter=50)
    assert np.isfinite(hard.f[a > 0]).all()
    assert hard.status is Status.MAX_ITER


def test_warm_start_coarse_start_and_over_relaxation(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = clouds
    plain = sinkhorn(PointCloud(x, y), a, b, reg=0.02, tol=1e-9)
    assert sinkhorn(PointCloud(x, y), a, b, reg=0.02, tol=1e-9, x0=(plain.f, plain.g)).n_iter <= 1
    assert sinkhorn(PointCloud(x, y), a, b, reg=0.02, tol=1e-9, coarse=True).n_iter <= 1
    relaxed = sinkhorn(PointCloud(x, y), a, b, reg=0.02, tol=1e-9, omega=1.4)
    assert relaxed.n_iter < 0.7 * plain.n_iter
    np.testing.assert_allclose(relaxed.value, plain.value, rtol=1e-7)


def test_a_callback_that_raises_leaves_valid_potentials(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = clouds

    def boom(iterate: Any) -> None:
        if iterate.n_iter == 3:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as caught:
        sinkhorn(PointCloud(x, y), a, b, reg=0.02, tol=1e-12, callback=boom)
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.n_iter == 3
    assert np.isfinite(result.g).all()


def test_one_point_and_forbidden_pairs() -> None:
    assert sinkhorn(np.asarray([[3.0]]), reg=0.1).value == pytest.approx(3.0)
    C = np.asarray([[0.0, math.inf], [math.inf, 0.0]])
    np.testing.assert_allclose(sinkhorn(C, reg=0.1).plan @ np.eye(2), np.eye(2) / 2, atol=1e-14)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 12), m=st.integers(1, 12), reg=st.floats(0.05, 5.0), seed=st.integers(0, 2**16))
def test_permutation_scaling_and_marginals(n: int, m: int, reg: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    C, a, b = rng.random((n, m)), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    result = sinkhorn(C, a, b, reg=reg, tol=1e-10, maxiter=100_000)
    plan = result.plan @ np.eye(m)
    np.testing.assert_allclose(plan.sum(axis=1), a, atol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=0), b, atol=1e-9)
    order = rng.permutation(n)
    np.testing.assert_allclose(
        sinkhorn(C[order], a[order], b, reg=reg, tol=1e-10, maxiter=100_000).value, result.value, rtol=1e-7
    )
    np.testing.assert_allclose(
        sinkhorn(3 * C, a, b, reg=3 * reg, tol=1e-10, maxiter=100_000).value, 3 * result.value, rtol=1e-7
    )


def test_bad_input_names_the_argument() -> None:
    C, ones = np.ones((2, 3)), np.ones(2)
    for options, name in [
        ({"reg": 0.0}, "reg"),
        ({"reg": 1.0, "a": np.asarray([-1.0, 2.0])}, "a has negative"),
        ({"reg": 1.0, "a": ones}, "a sums to"),
        ({"reg": 1.0, "b": ones}, "b has shape"),
        ({"reg": 1.0, "omega": 2.5}, "omega"),
        ({"reg": 1.0, "tol": -1.0}, "tol"),
    ]:
        with pytest.raises(InputError, match=name):
            sinkhorn(C, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cost"):
        sinkhorn(C * np.nan, reg=1.0)


@pytest.mark.parametrize("way", [{"schedule": "auto"}, {"coarse": True}])
def test_an_interrupt_and_the_limits_hold_on_the_way_to_a_start(way: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.random((60, 2)), rng.random((50, 2))
    calls, stop_at = 0, 12

    def cost(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        return np.sqrt(((p[:, None] - q[None]) ** 2).sum(axis=2))

    for last in (12, 16, 20):  # all of them before the first iteration at the wanted regularisation
        calls, stop_at = 0, last
        with pytest.warns(ConvergenceWarning, match="interrupted"):
            result = sinkhorn(PointCloud(x, y, cost), reg=1e-3, **way)
        assert (result.status, result.n_iter) == (Status.INTERRUPTED, 0)
        np.testing.assert_allclose(result.residual, sum(result.marginal_errors), rtol=1e-8)
        assert result.residual < 1.0
    stop_at = 0
    with pytest.warns(ConvergenceWarning, match="time"):
        result = sinkhorn(PointCloud(x, y, cost), reg=1e-3, time_limit=1e-6, **way)
    assert result.status is Status.TIME_LIMIT
    np.testing.assert_allclose(result.residual, sum(result.marginal_errors), rtol=1e-8)


def test_advice_is_about_transport() -> None:
    rng = np.random.default_rng(0)
    C, A = rng.random((30, 30)), rng.dirichlet(np.ones(30), 2).T
    for call, word in (
        (lambda: sinkhorn(C, reg=1e-3, maxiter=3), "raise maxiter"),
        (lambda: sns(C, reg=1e-6, tol=1e-9), "try another method"),
        (lambda: sinkhorn_batch(C, A, A[:, ::-1], reg=1e-2, maxiter=1), "raise maxiter"),
    ):
        with pytest.warns(ConvergenceWarning, match=word) as record:
            result = call()
        for text in (str(record[0].message), repr(result)):
            assert word in text
            assert "precondition" not in text
            assert "restart" not in text


def test_targets_of_every_result_are_checked_alike(xp: Any, make: Any) -> None:
    rng = np.random.default_rng(0)
    x, y, values = rng.random((6, 2)), rng.random((6, 2)), rng.random((6, 3))
    cloud = PointCloud(make(x), make(y))
    C = make(((x[:, None] - y) ** 2).sum(axis=2))
    grid = Grid((2, 3), like=make(x))
    results = [sinkhorn(cost, reg=0.1, tol=1e-3) for cost in (cloud, C, grid)] + [solve_exact(cloud), solve_exact(C)]
    for result in results:
        plan = to_host(result.dense_plan())
        expected = plan @ values / plan.sum(axis=1)[:, None]
        np.testing.assert_allclose(to_host(result.transport(target=make(values))), expected, atol=1e-6)
        np.testing.assert_allclose(to_host(result.transport(target=make(values[:, 0]))), expected[:, 0], atol=1e-6)
        with pytest.raises(InputError, match=r"target has shape .* expected 6 rows"):
            result.transport(target=make(values[:5]))
        with pytest.raises(BackendError, match=r"target is a .*list"):
            result.transport(target=[[1.0, 2.0]] * 6)


def test_the_gap_of_a_plan_that_all_but_misses_a_column_warns_of_nothing() -> None:
    C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    result = sinkhorn(C, reg=1.0, tol=1e-12)
    far = dataclasses.replace(result, g=result.g - np.asarray([0.0, 715.0]))
    # All the mass of the second column, moved there, costs as much as its potential lacks.
    assert far.duality_gap == pytest.approx(0.5 * 715.0, rel=0.01)

"""Grids, costs, the accelerations of Sinkhorn, and the matrix-free Newton method, against stored Sinkhorn and closed forms."""

from __future__ import annotations

import importlib
import math
import time
import tracemalloc
import warnings
from typing import Any

import array_api_compat.numpy as npx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.pairs import Pairs, exponential
from xpsolve.backends.pairs.entries import large_entries
from xpsolve.backends.transfer import to_host
from xpsolve.problems import cloud, digits_pair, lap
from xpsolve.solvers.ot import Dense, PointCloud, sinkhorn
from xpsolve.solvers.ot.anderson import Anderson
from xpsolve.solvers.ot.cloud_newton import cloud_newton
from xpsolve.solvers.ot.grid import Grid
from xpsolve.solvers.ot.sparse_plan import SparsePlan
from xpsolve.solvers.result import Status

RNG = np.random.default_rng(0)
X, Y = RNG.random((70, 2)), RNG.random((90, 2))
A = RNG.random(70) + 0.1
A[3] = 0.0
A /= A.sum()
B = np.full(90, 1 / 90)


def violation(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(plan.sum(axis=1) - a).sum() + np.abs(plan.sum(axis=0) - b).sum())


# -- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [(17,), (5, 6), (3, 4, 2), (1, 5)])
@pytest.mark.parametrize("p", [1.0, 2.0, 1.5])
def test_a_grid_reduces_as_its_matrix_does(xp: Any, make: Any, cells: tuple[int, ...], p: float) -> None:
    n, rng = math.prod(cells), np.random.default_rng(1)
    u, v = 30.0 * rng.standard_normal(n), rng.standard_normal((n, 2))
    u[0] = -math.inf
    grid = Grid(cells, p=p, scale=0.3, like=make(v))
    index = 0.3 * np.stack(np.unravel_index(np.arange(n), cells), axis=1)
    C = (np.abs(index[:, None] - index) ** p).sum(axis=2)
    np.testing.assert_allclose(to_host(grid.cost_matrix()), C, atol=1e-13)
    np.testing.assert_allclose(to_host(grid.points), index, atol=1e-14)
    assert grid.largest() == pytest.approx(C.max())
    for reg in (1e-4, 0.1, 10.0):
        ours, truth = grid.kernel(reg), Dense(C).kernel(reg)
        np.testing.assert_allclose(to_host(ours.rows(make(u), None)), truth.rows(u, None), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(to_host(ours.columns(make(u), None)), truth.columns(u, None), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(to_host(ours.row_average(make(u), make(v))), truth.row_average(u, v), atol=1e-11)
        np.testing.assert_allclose(
            to_host(ours.column_average(make(u), make(v[:, 0]))), truth.column_average(u, v[:, 0]), atol=1e-11
        )


def test_a_grid_gives_a_whole_result(xp: Any, make: Any) -> None:
    problem = digits_pair(2, 1, floor=0.0, xp=npx)
    grid = Grid((8, 8), scale=1 / math.sqrt(problem.scale), like=make(problem.a))
    reg = 0.01
    dense = sinkhorn(problem.cost, problem.a, problem.b, reg=reg, tol=1e-10)
    result = sinkhorn(grid, make(problem.a), make(problem.b), reg=reg, tol=1e-10)
    assert result.n_iter == dense.n_iter
    np.testing.assert_allclose(result.value, dense.value, rtol=1e-11)
    plan = to_host(result.plan @ make(np.eye(64)))
    assert violation(plan, problem.a, problem.b) < 1e-9
    full = problem.a > 0
    expected = dense.transport(target=to_host(grid.points))
    np.testing.assert_allclose(to_host(result.transport())[full], expected[full], atol=1e-9)


def test_a_grid_takes_little_memory() -> None:
    side = 48
    grid = Grid((side, side), scale=1 / side, like=np.ones(1))
    kernel, u = grid.kernel(1e-3), RNG.standard_normal(side * side)
    tracemalloc.start()
    kernel.rows(u, None)
    kernel.row_average(u, u)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.2 * 8 * side**4


def test_grids_on_float32_and_bad_grids() -> None:
    u = RNG.standard_normal(64).astype(np.float32)
    rows = Grid((8, 8), like=u).kernel(0.05).rows(u, None)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, Grid((8, 8), like=B).kernel(0.05).rows(u.astype(float), None), rtol=2e-6)
    for options, name in [
        ({"shape": (2, 2, 2, 2)}, "shape"),
        ({"shape": (0, 2)}, "shape"),
        ({"shape": (2, 2), "p": 0.0}, "p must"),
        ({"shape": (2, 2), "scale": (1.0,)}, "scale"),
        ({"shape": (2, 2), "scale": -1.0}, "scale"),
    ]:
        with pytest.raises(InputError, match=name):
            Grid(like=B, **options)  # type: ignore[arg-type]
    result = sinkhorn(Grid((3,), like=B), reg=1.0)
    with pytest.raises(InputError, match="points"):
        result.transport(points=np.ones((1, 1)))


# -- costs of clouds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_minkowski_and_user_costs(xp: Any, make: Any, p: float) -> None:
    from scipy.spatial.distance import cdist

    C = cdist(X, Y, "chebyshev") if math.isinf(p) else cdist(X, Y, "minkowski", p=p)
    expected = sinkhorn(C, A, B, reg=0.05, tol=1e-10)
    for geometry in (
        PointCloud(make(X), make(Y), "minkowski", p=p),
        PointCloud(make(X), make(Y), lambda x, y: make(cdist(to_host(x), to_host(y), "minkowski", p=p))),
    ):
        result = sinkhorn(geometry, make(A), make(B), reg=0.05, tol=1e-10)
        np.testing.assert_allclose(result.value, expected.value, rtol=1e-10)
    with pytest.raises(InputError, match="p must"):
        PointCloud(X, Y, "minkowski", p=0.5)
    with pytest.raises(InputError, match="p is given"):
        PointCloud(X, Y, p=p)


# -- accelerations of Sinkhorn ---------------------------------------------------------------------------------------


def plain_iterations(C: np.ndarray, a: np.ndarray, b: np.ndarray, reg: float, tol: float) -> int:
    """Iterations of a Sinkhorn in scaling form with absorption, written here from the definition."""
    G = reg * np.log(b)
    S = (G - C) / reg
    top = S.max(axis=1)
    F = reg * (np.log(a) - top - np.log(np.exp(S - top[:, None]).sum(axis=1)))
    K, u, v = np.exp((F[:, None] + G - C) / reg), np.ones_like(a), np.ones_like(b)
    for n in range(20_000):
        Kv = K @ v
        # The loop's own count starts after one whole sweep, whose columns are exact.
        if n > 0 and np.abs(u * Kv - a).sum() <= tol:
            return n - 1
        u = a / Kv
        v = b / (K.T @ u)
        if n % 10 == 0 and max(np.abs(np.log(u)).max(), np.abs(np.log(v)).max()) > 50:
            F, G = F + reg * np.log(u), G + reg * np.log(v)
            K, u, v = np.exp((F[:, None] + G - C) / reg), np.ones_like(a), np.ones_like(b)
    raise AssertionError("plain Sinkhorn did not converge")


@pytest.mark.parametrize(("name", "weak", "bound"), [("dig", 400, 100), ("dig", 1200, 176), ("cloud", 1000, 162)])
def test_tuned_over_relaxation_takes_a_sixth_of_the_iterations(name: str, weak: int, bound: int) -> None:
    problem = digits_pair(2, 3, xp=npx) if name == "dig" else cloud(500, 2, xp=npx)
    result = sinkhorn(problem.cost, problem.a, problem.b, reg=1 / weak, tol=1e-9, omega="auto")
    assert result.converged
    assert result.n_iter <= bound
    assert 6 * result.n_iter <= plain_iterations(problem.cost, problem.a, problem.b, 1 / weak, 1e-9)


def test_accelerations_agree_with_plain_sinkhorn(xp: Any, make: Any) -> None:
    problem = lap(60, 1, xp=npx)
    C, options = make(problem.cost), {"reg": 1 / 100, "tol": 1e-11}
    plain = sinkhorn(C, make(A_60), **options)
    for more in (
        {"omega": "auto"},
        {"acceleration": "anderson"},
        {"omega": "auto", "schedule": "auto"},
        {"schedule": [0.1, 0.03]},
    ):
        result = sinkhorn(C, make(A_60), **options, **more)  # type: ignore[arg-type]
        assert result.converged
        np.testing.assert_allclose(result.value, plain.value, rtol=1e-9)
        assert "omega" not in more or "schedule" in more or result.n_iter <= plain.n_iter


A_60 = np.asarray([0.0] + [1 / 59] * 59)


def test_anderson_saves_iterations_and_annealing_warm_starts() -> None:
    problem = digits_pair(2, 2, xp=npx)
    options: dict[str, Any] = {"reg": 1 / 400, "tol": 1e-9}
    mixed = sinkhorn(problem.cost, problem.a, problem.b, acceleration="anderson", **options)
    with pytest.warns(ConvergenceWarning):
        plain = sinkhorn(problem.cost, problem.a, problem.b, maxiter=4 * mixed.n_iter, **options)
    assert mixed.converged
    assert not plain.converged
    on_the_way = sinkhorn(problem.cost, problem.a, problem.b, omega="auto", schedule="auto", **options)
    assert on_the_way.history[0] < 0.5 * plain.history[0]


def test_anderson_minimises_the_weighted_residual() -> None:
    # Two unknowns that do not know each other; with one difference only the one that is weighed is solved.
    rate, x = np.asarray([0.9, 0.5]), np.ones(2)
    for k in (0, 1):
        mixing = Anderson(1, npx)
        weight = np.asarray([1.0, 1e-9]) if k == 0 else np.asarray([1e-9, 1.0])
        y = mixing.next(x, rate * x, weight)
        y = mixing.next(y, rate * y, weight)
        assert abs(y[k]) < 1e-8 < abs(y[1 - k])


def test_anderson_forgets_when_the_residual_grows() -> None:
    mixing = Anderson(3, npx)
    mixing.next(np.zeros(2), np.ones(2))
    mixing.next(np.ones(2), 1.5 * np.ones(2))
    np.testing.assert_array_equal(mixing.next(np.zeros(2), np.asarray([9.0, -9.0])), [9.0, -9.0])


def test_bad_options_name_the_argument() -> None:
    C = np.ones((2, 2))
    for options, name in [
        ({"omega": 2.0}, "omega"),
        ({"acceleration": "magic"}, "acceleration"),
        ({"acceleration": "anderson", "omega": 1.5}, "omega"),
        ({"schedule": [0.1, 0.2]}, "schedule"),
        ({"schedule": "fast"}, "schedule"),
        ({"schedule": [-1.0]}, "schedule"),
    ]:
        with pytest.raises(InputError, match=name):
            sinkhorn(C, reg=0.01, **options)  # type: ignore[arg-type]


# -- the large entries of a plan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_large_entries_are_those_of_the_matrix(xp: Any, make: Any, metric: str) -> None:
    from scipy.spatial.distance import cdist

    f, g, log_weight = (RNG.standard_normal(k) for k in (70, 90, 70))
    P = np.exp(f[:, None] + g - 40 * cdist(X, Y, metric))
    pairs = Pairs(make(X), make(Y), exponential(metric, 40.0))
    threshold = 1e-3
    sums, entries = large_entries(pairs, make(f), make(g), make(log_weight), threshold, 10**6)
    np.testing.assert_allclose(to_host(sums), P.sum(axis=1), rtol=1e-12)
    kept = np.where(threshold * np.exp(log_weight)[:, None] < P, P, 0.0)
    assert 0 < (kept > 0).sum() < P.size / 2
    assert entries is not None
    plan = SparsePlan(entries, P.shape, xp)
    v, u = RNG.standard_normal(90), RNG.standard_normal(70)
    np.testing.assert_allclose(to_host(plan.apply(make(v))), kept @ v, atol=1e-12)
    np.testing.assert_allclose(to_host(plan.adjoint(make(u))), kept.T @ u, atol=1e-12)
    np.testing.assert_allclose(to_host(plan.squares(make(v))), kept**2 @ v, atol=1e-12)
    assert plan.nnz == (kept > 0).sum()
    assert plan.mass == pytest.approx(kept.sum())
    again, none = large_entries(pairs, make(f), make(g), make(log_weight), threshold, plan.nnz - 1)
    assert none is None
    np.testing.assert_allclose(to_host(again), P.sum(axis=1), rtol=1e-12)


# -- the Newton method -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_newton_agrees_with_stored_sinkhorn(xp: Any, make: Any, metric: str, coarse: bool) -> None:
    from scipy.spatial.distance import cdist

    reg, C = 0.02, cdist(X, Y, metric)
    expected = sinkhorn(C, A, B, reg=reg, tol=1e-12, omega="auto", maxiter=5000)
    result = cloud_newton(PointCloud(make(X), make(Y), metric), make(A), make(B), reg=reg, tol=1e-11, coarse=coarse)
    assert result.converged
    assert result.n_iter <= 15
    assert type(result.f) is type(make(X))
    np.testing.assert_allclose(result.value, expected.value, rtol=1e-10)
    plan = to_host(result.plan @ make(np.eye(90)))
    np.testing.assert_allclose(plan, expected.plan @ np.eye(90), atol=1e-10)
    assert violation(plan, A, B) < 2e-11
    assert to_host(result.f)[3] == -math.inf
    counts = result.evaluations
    # The first level is begun before the first step.
    assert counts["newton"] + counts["sinkhorn"] + counts["levels"] - 1 == result.n_iter


def test_newton_where_plain_sinkhorn_needs_ten_thousands() -> None:
    for reg in (1e-3, 1e-4, 1e-5):
        result = cloud_newton(PointCloud(X, Y), A, B, reg=reg, tol=1e-10)
        assert result.converged, (reg, result)
    F, G = result.scaled()
    P = np.exp(F[:, None] + G - ((X[:, None] - Y) ** 2).sum(axis=2) / 1e-5)
    assert violation(P, A, B) < 1.1e-10


def test_newton_memory_and_passes() -> None:
    for n, share in ((2000, 0.25), (4000, 0.15)):
        rng = np.random.default_rng(0)
        x, y = rng.random((n, 2)), rng.random((n, 2))
        points = PointCloud(x, y, engine="numpy", threads=1)
        tracemalloc.start()
        result = cloud_newton(points, reg=1e-3, tol=1e-9)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result.converged
        assert result.evaluations["passes"] <= 25
        assert peak < share * 8 * n * n


def test_newton_goes_on_with_sinkhorn_where_the_plan_is_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.random((200, 2)), rng.random((200, 2))
    expected = cloud_newton(PointCloud(x, y), reg=0.01, tol=1e-9)
    assert not expected.why
    # Small plans are kept however dense they are; not so here.
    module = importlib.import_module("xpsolve.solvers.ot.cloud_levels")
    monkeypatch.setattr(module, "_ALWAYS_KEPT", 1)
    result = cloud_newton(PointCloud(x, y), reg=0.01, tol=1e-9, cap=2)
    assert result.converged
    assert "over-relaxed" in result.why
    assert result.method == "cloud_newton"
    np.testing.assert_allclose(result.value, expected.value, rtol=1e-8)


def test_newton_in_float32_and_with_one_point() -> None:
    single = cloud_newton(PointCloud(X.astype(np.float32), Y.astype(np.float32)), reg=0.01, tol=1e-5)
    assert single.converged
    assert single.f.dtype == np.float32
    assert abs(single.value - cloud_newton(PointCloud(X, Y), reg=0.01, tol=1e-10).value) < 1e-5
    with pytest.warns(ConvergenceWarning):
        hopeless = cloud_newton(PointCloud(X.astype(np.float32), Y.astype(np.float32)), reg=0.01, tol=1e-12, maxiter=8)
    assert hopeless.residual < 1e-4
    one = cloud_newton(PointCloud(X[:1], Y[:1]), reg=0.1, tol=1e-12)
    assert one.value == pytest.approx(((X[0] - Y[0]) ** 2).sum())
    many = cloud_newton(PointCloud(X[:1], Y), reg=0.1, tol=1e-12)
    np.testing.assert_allclose(many.transport()[0], Y.mean(axis=0), atol=1e-12)


def test_newton_warm_start_limit_and_callback() -> None:
    points = PointCloud(X, Y)
    result = cloud_newton(points, A, B, reg=0.01, tol=1e-10)
    assert cloud_newton(points, A, B, reg=0.01, tol=1e-9, x0=(result.f, result.g)).n_iter == 0
    with pytest.warns(ConvergenceWarning):
        short = cloud_newton(points, A, B, reg=0.01, tol=1e-10, maxiter=1)
    assert short.status is Status.MAX_ITER
    assert violation(short.plan @ np.eye(90), A, B) == pytest.approx(short.residual, rel=1e-6)

    def stop(iterate: Any) -> None:
        raise StopIteration

    assert cloud_newton(points, A, B, reg=0.01, tol=1e-10, callback=stop).status is Status.STOPPED


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("how", ["interrupt", "stop", "raise", "time", "maxiter"])
def test_newton_ended_on_the_way_leaves_potentials_of_the_wanted_problem(how: str, coarse: bool) -> None:
    points, reg, seen = PointCloud(X, Y), 1e-3, []
    options: dict[str, Any] = {"reg": reg, "tol": 1e-10, "coarse": coarse}
    errors = {"interrupt": KeyboardInterrupt, "stop": StopIteration, "raise": ZeroDivisionError}

    def callback(iterate: Any) -> None:
        seen.append(iterate.reg)
        if how == "time" and iterate.n_iter == 6:
            time.sleep(0.31)
        elif how in errors and iterate.n_iter == 6:
            raise errors[how]

    if how == "raise":
        with pytest.raises(ZeroDivisionError) as caught:
            cloud_newton(points, A, B, callback=callback, **options)
        result, status = caught.value.result, Status.BREAKDOWN  # type: ignore[attr-defined]
    else:
        limits = {"time": {"time_limit": 0.3}, "maxiter": {"maxiter": 6}}.get(how, {})
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ConvergenceWarning)
            result = cloud_newton(points, A, B, callback=callback, **options, **limits)
        assert bool(said) == (how != "stop")
        status = {
            "interrupt": Status.INTERRUPTED, "stop": Status.STOPPED, "time": Status.TIME_LIMIT, "maxiter": Status.MAX_ITER
        }[how]  # fmt: skip
    assert result.status is status
    assert result.reg == reg
    # The run ended on the way: no level was the last.
    assert min(seen) > reg
    assert result.f.shape == (70,)
    assert result.residual == pytest.approx(violation(result.plan @ np.eye(90), A, B), rel=1e-9)
    # What the levels were good for: far better than no potentials, and a start from them takes fewer steps.
    nothing = sinkhorn(points, A, B, reg=reg, maxiter=10_000, callback=_stop)
    whole = cloud_newton(points, A, B, **options)
    assert result.value > nothing.value
    again = cloud_newton(points, A, B, **options, x0=(result.f, result.g))
    assert again.converged
    assert again.n_iter < whole.n_iter or how == "time"
    assert again.value == pytest.approx(whole.value, rel=1e-10)


def _stop(iterate: Any) -> None:
    raise StopIteration


def test_newton_limits_count_over_all_levels_and_over_sinkhorn(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cloud_newton(PointCloud(X, Y), A, B, reg=1e-3, tol=1e-10)
    assert len(whole.history) == whole.n_iter + 1
    assert whole.evaluations["levels"] > 3
    monkeypatch.setattr(importlib.import_module("xpsolve.solvers.ot.cloud_levels"), "_ALWAYS_KEPT", 1)
    with pytest.warns(ConvergenceWarning):
        short = cloud_newton(PointCloud(X, Y), A, B, reg=0.05, tol=1e-12, cap=1, maxiter=30)
    assert "over-relaxed" in short.why
    assert short.n_iter == 30

    def late(iterate: Any) -> None:
        if not hasattr(iterate.state, "reg"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        cloud_newton(PointCloud(X, Y), A, B, reg=0.05, tol=1e-12, cap=1, callback=late)
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.method == "cloud_newton"
    assert result.residual == pytest.approx(violation(result.plan @ np.eye(90), A, B), rel=1e-9)


@settings(deadline=None, max_examples=20)
@given(
    n=st.integers(1, 25), m=st.integers(1, 25), d=st.integers(1, 4), reg=st.floats(1e-3, 2.0), seed=st.integers(0, 999)
)
def test_newton_on_any_shape_and_weights(n: int, m: int, d: int, reg: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, a, b = rng.random((n, d)), rng.random((m, d)), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    result = cloud_newton(PointCloud(x, y), a, b, reg=reg, tol=1e-9)
    assert result.converged
    assert violation(result.plan @ np.eye(m), a, b) < 1e-8


def test_newton_refuses_what_it_cannot_take() -> None:
    with pytest.raises(BackendError, match="PointCloud"):
        cloud_newton(np.ones((3, 3)), reg=1.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cap"):
        cloud_newton(PointCloud(X, Y), reg=1.0, cap=0)
    with pytest.raises(InputError, match="coarse"):
        cloud_newton(PointCloud(X, Y), reg=1.0, coarse="never")
    with pytest.raises(InputError, match="reg"):
        cloud_newton(PointCloud(X, Y), reg=-1.0)

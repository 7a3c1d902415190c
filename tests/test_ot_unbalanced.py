"""Unbalanced transport against closed forms, the mass identity, its own two methods, central differences and POT."""

from __future__ import annotations

import math
import time
import tracemalloc
import warnings
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import ConvergenceWarning, InputError
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.solvers.ot import Grid, PointCloud, sinkhorn, solve, unbalanced_plan
from xpsolve.solvers.ot.jacobi_cg import jacobi_cg
from xpsolve.solvers.ot.unbalanced import unbalanced

INF = math.inf


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(1)
    X, a = rng.normal(size=(60, 3)), rng.uniform(0.5, 1, 60)
    Y, b = rng.normal(size=(50, 3)) + 0.5, rng.uniform(0.5, 1, 50)
    return X, Y, a / a.sum() * 1.3, b / b.sum()


def costs(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    return ((X[:, None] - Y) ** 2).sum(axis=2)


@pytest.mark.parametrize("method", ["newton", "sinkhorn"])
@pytest.mark.parametrize(("r1", "r2"), [(0.5, 2.0), (1e3, 1.0), (3.0, INF), (INF, 3.0)])
def test_one_point(method: str, r1: float, r2: float) -> None:
    a, b, c, reg = 1.7, 0.4, 0.9, 0.3
    result = unbalanced(
        np.asarray([[c]]), np.asarray([a]), np.asarray([b]), reg=reg, reg_a=r1, reg_b=r2, method=method, tol=1e-12
    )
    if max(r1, r2) < INF:
        expected = math.exp((reg * math.log(a * b) + r1 * math.log(a) + r2 * math.log(b) - c) / (reg + r1 + r2))
    else:
        expected = a if r1 == INF else b
    assert result.mass == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("method", ["newton", "sinkhorn"])
@pytest.mark.parametrize(("r1", "r2"), [(0.1, 0.1), (1.0, 1.0), (0.7, 2.0), (100.0, 100.0)])
def test_mass_identity_and_gap(method: str, r1: float, r2: float, case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = case
    reg = 0.1
    result = unbalanced(costs(X, Y), a, b, reg=reg, reg_a=r1, reg_b=r2, method=method, tol=1e-11)
    assert result.converged
    identity = r1 * 1.3 + r2 * 1.0 + reg * 1.3 - (r1 + r2 + reg) * result.mass
    assert result.value == pytest.approx(identity, rel=1e-9)
    assert abs(result.gap) < 1e-12
    plan = result.plan @ np.eye(50)
    np.testing.assert_allclose(plan.sum(axis=1), a * np.exp(-result.f / r1), atol=1e-10)
    np.testing.assert_allclose(plan.sum(axis=0), b * np.exp(-result.g / r2), atol=1e-10)

    # The primal value, from its definition.
    def kl(p: np.ndarray, q: np.ndarray) -> float:
        return float((p * np.log(p / q) - p + q).sum())

    value = (costs(X, Y) * plan).sum() + reg * kl(plan, np.outer(a, b))
    value += r1 * kl(plan.sum(axis=1), a) + r2 * kl(plan.sum(axis=0), b)
    assert result.primal == pytest.approx(value, rel=1e-12)


def test_a_loose_run_has_a_gap_that_is_not_negative(case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = case
    best = unbalanced(costs(X, Y), a, b, reg=0.1, reg_a=1.0, reg_b=1.0, tol=1e-12).value
    loose = unbalanced(costs(X, Y), a, b, reg=0.1, reg_a=1.0, reg_b=1.0, tol=1e-2, method="sinkhorn")
    assert loose.value < best < loose.primal
    assert 1e-7 < loose.gap < 1e-2


def test_weak_relaxation_takes_few_newton_steps(case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = case
    result = unbalanced(costs(X, Y), a, b, reg=0.1, reg_a=100.0, reg_b=100.0, tol=1e-10)
    assert result.method == "newton"
    assert result.converged
    assert result.evaluations["newton"] <= 20
    assert result.evaluations["passes"] <= 40
    # The translation step spares Sinkhorn twenty times the iterations it would need: 13143 without it.
    plain = unbalanced(costs(X, Y), a, b, reg=0.1, reg_a=100.0, reg_b=100.0, tol=1e-10, method="sinkhorn")
    assert plain.n_iter < 700
    assert plain.value == pytest.approx(result.value, rel=1e-12)
    # Potentials grow like the relaxation: at 1e6 their rounding alone is an error of 1e-10.
    for r, tol in ((1e4, 1e-10), (1e6, 1e-8)):
        assert unbalanced(costs(X, Y), a, b, reg=0.1, reg_a=r, reg_b=r, tol=tol).evaluations["newton"] <= 20


@pytest.mark.parametrize("method", ["newton", "sinkhorn"])
def test_semi_unbalanced_keeps_the_mass_that_is_held(method: str, case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = case
    kept_b = unbalanced(costs(X, Y), a, b, reg=0.1, reg_a=1.0, reg_b=INF, tol=1e-11, method=method)
    kept_a = unbalanced(costs(X, Y), a, b, reg=0.1, reg_a=INF, reg_b=1.0, tol=1e-11, method=method)
    np.testing.assert_allclose(kept_b.plan.T @ np.ones(60), b, atol=1e-10)
    np.testing.assert_allclose(kept_a.plan @ np.ones(50), a, atol=1e-10)
    assert kept_a.mass == pytest.approx(1.3, rel=1e-10)
    assert abs(kept_a.gap) < 1e-9
    # Exchanging the sides exchanges the answer.
    turned = unbalanced(costs(X, Y).T, b, a, reg=0.1, reg_a=1.0, reg_b=INF, tol=1e-11, method=method)
    assert turned.value == pytest.approx(kept_a.value, rel=1e-9)


def test_balanced_is_the_limit(case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = case
    a = a / a.sum()
    exact = sinkhorn(costs(X, Y), a, b, reg=0.5, tol=1e-12).value
    for method in ("sinkhorn", "newton"):
        held = unbalanced(costs(X, Y), a, b, reg=0.5, reg_a=INF, reg_b=INF, tol=1e-11, method=method)
        assert held.value == pytest.approx(exact, rel=1e-9)
    gaps = [exact - unbalanced(costs(X, Y), a, b, reg=0.5, reg_a=r, reg_b=r, tol=1e-11).value for r in (1e2, 1e4)]
    assert 0 < gaps[1] < 0.02 * gaps[0]


def test_every_library(xp: Any, make: Any, case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = case
    a = np.where(np.arange(60) < 3, 0.0, a)
    reference = unbalanced(costs(X, Y), a, b, reg=0.3, reg_a=0.7, reg_b=2.0, tol=1e-12, method="sinkhorn")
    points = PointCloud(make(X), make(Y))
    runs = [(make(costs(X, Y)), "newton"), (make(costs(X, Y)), "sinkhorn"), (points, "newton"), (points, "sinkhorn")]
    for cost, method in runs:
        result = unbalanced(cost, make(a), make(b), reg=0.3, reg_a=0.7, reg_b=2.0, tol=1e-11, method=method)
        assert result.converged
        assert type(result.f) is type(make(X))
        assert result.value == pytest.approx(reference.value, rel=1e-10)
        np.testing.assert_allclose(to_host(result.plan @ make(np.ones(50))), reference.plan @ np.ones(50), atol=1e-9)
        np.testing.assert_allclose(to_host(result.grad_a()), reference.grad_a(), atol=1e-8)
        again = unbalanced(
            cost, make(a), make(b), reg=0.3, reg_a=0.7, reg_b=2.0, tol=1e-9, x0=(result.f, result.g), method=method
        )
        assert again.n_iter <= 2


RELAXATIONS = [(0.5, 0.5), (1.0, 3.0), (100.0, 100.0), (1.0, INF), (INF, 1.0)]


@pytest.mark.parametrize(("r1", "r2"), RELAXATIONS)
@pytest.mark.parametrize("kept", [True, False])
def test_newton_on_points_takes_the_steps_of_the_stored_cost(
    r1: float, r2: float, kept: bool, case: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y, a, b = case
    a, b = np.where(np.arange(60) < 3, 0.0, a), np.where(np.arange(50) > 47, 0.0, b)
    if not kept:
        # No entry of the plan may be kept: every product is a pass.
        monkeypatch.setattr(unbalanced_plan, "_CAP", 0)
        monkeypatch.setattr(unbalanced_plan, "_ALWAYS_KEPT", 0)
    options: dict[str, Any] = {"reg": 0.1, "reg_a": r1, "reg_b": r2, "tol": 1e-12, "method": "newton"}
    stored = unbalanced(costs(X, Y), a, b, **options)
    result = unbalanced(PointCloud(X, Y), a, b, **options)
    assert result.converged
    assert result.n_iter == stored.n_iter
    assert result.evaluations["newton"] == stored.evaluations["newton"]
    assert (result.evaluations["passes"] > result.evaluations["matvec"]) == (not kept)
    assert result.value == pytest.approx(stored.value, abs=1e-10)
    np.testing.assert_allclose(result.plan @ np.eye(50), stored.plan @ np.eye(50), atol=1e-10)


@pytest.mark.parametrize(("r1", "r2"), RELAXATIONS)
def test_newton_on_a_grid_takes_the_steps_of_the_stored_cost(xp: Any, make: Any, r1: float, r2: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(42), 1.5 * rng.random(42)
    a[:4] = 0.0
    a, b = make(a), make(b)
    grid = Grid((6, 7), scale=(0.2, 0.3), like=a)
    options: dict[str, Any] = {"reg": 0.05, "reg_a": r1, "reg_b": r2, "tol": 1e-11, "method": "newton"}
    stored, result = unbalanced(grid.cost_matrix(), a, b, **options), unbalanced(grid, a, b, **options)
    assert result.converged
    assert result.n_iter == stored.n_iter
    assert result.value == pytest.approx(stored.value, abs=1e-10)
    np.testing.assert_allclose(to_host(result.f), to_host(stored.f), atol=1e-8)
    # And Sinkhorn's iteration gives the same.
    other = unbalanced(grid, a, b, **(options | {"method": "sinkhorn"}))
    assert other.value == pytest.approx(stored.value, abs=1e-10)


@pytest.mark.parametrize(("reg", "r"), [(1e-3, 1.0), (0.02, 1.0)])
def test_newton_on_many_points_stores_no_matrix(reg: float, r: float) -> None:
    n, rng = 2500, np.random.default_rng(0)
    x, y = rng.random((n, 2)), 0.8 * rng.random((n, 2)) + 0.1
    points = PointCloud(x, y, threads=1)
    a, b = rng.random(n) / n, rng.random(n) / n
    # What is imported on the way is not counted.
    unbalanced(points, a, b, reg=100 * reg, reg_a=r, reg_b=r, method="newton", tol=0.1)
    points.kernel(reg).row_average(b, b)
    tracemalloc.start()
    result = unbalanced(points, a, b, reg=reg, reg_a=r, reg_b=r, tol=1e-9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.converged
    assert result.method == "newton"
    assert result.evaluations["newton"] <= 14
    assert peak < 0.33 * 8 * n * n
    identity = r * (a.sum() + b.sum()) + reg * a.sum() * b.sum() - (2 * r + reg) * result.mass
    assert result.value == pytest.approx(identity, abs=1e-8)


@pytest.mark.parametrize("how", ["interrupt", "stop", "raise", "time", "maxiter"])
def test_newton_ended_on_the_way_leaves_potentials_of_the_wanted_problem(
    how: str, case: tuple[np.ndarray, ...]
) -> None:
    X, Y, a, b = case
    errors = {"interrupt": KeyboardInterrupt, "stop": StopIteration, "raise": ZeroDivisionError}
    seen = []

    def callback(iterate: Any) -> None:
        seen.append(iterate.reg)
        if iterate.n_iter == 5 and how in errors:
            raise errors[how]
        if iterate.n_iter == 5 and how == "time":
            time.sleep(0.31)

    limits: dict[str, Any] = {"time": {"time_limit": 0.3}, "maxiter": {"maxiter": 5}}.get(how, {})
    options: dict[str, Any] = {"reg": 0.01, "reg_a": 1.0, "reg_b": 2.0, "tol": 1e-10, "method": "newton"}
    for cost in (costs(X, Y), PointCloud(X, Y)):
        if how == "raise":
            with pytest.raises(ZeroDivisionError) as caught:
                unbalanced(cost, a, b, **options, callback=callback)
            result = caught.value.result  # type: ignore[attr-defined]
        else:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", ConvergenceWarning)
                result = unbalanced(cost, a, b, **options, **limits, callback=callback)
            assert bool(said) == (how != "stop")
        assert result.status.name == {
            "interrupt": "INTERRUPTED", "stop": "STOPPED", "raise": "BREAKDOWN", "time": "TIME_LIMIT", "maxiter": "MAX_ITER"
        }[how]  # fmt: skip
        assert min(seen) > 0.01
        plan = result.plan @ np.eye(50)
        off = np.abs(plan.sum(axis=1) - a * np.exp(-result.f)).sum()
        off += np.abs(plan.sum(axis=0) - b * np.exp(-result.g / 2.0)).sum()
        assert result.residual == pytest.approx(off, rel=1e-9)
        again = unbalanced(cost, a, b, **options, x0=(result.f, result.g))
        assert again.converged
        assert again.value == pytest.approx(unbalanced(cost, a, b, **options).value, rel=1e-10)


def test_conjugate_gradients_ask_the_host_seldom() -> None:
    n, rng = 60, np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    matrix = (Q * np.geomspace(1e-3, 1.0, n)) @ Q.T
    A, rhs = strict.asarray(matrix), strict.asarray(rng.normal(size=n))
    ones = strict.ones(n, dtype=strict.float64)
    found = {}
    for every in (1, 10):
        with count_transfers() as transfers:
            x, n_iter = jacobi_cg(lambda p: A @ p, ones, rhs, 1e-8, 1000, xp=strict, check_every=every)
        assert np.abs(matrix @ to_host(x) - to_host(rhs)).sum() < 2e-8
        found[every] = n_iter
        assert transfers.n == 1 + n_iter // every - (every == 1)
    assert 0 <= found[10] - found[1] < 10
    # Negative curvature between two looks: the iterate stays where it was met.
    B = strict.asarray(matrix - 5e-2 * np.eye(n))
    early, count = jacobi_cg(lambda p: B @ p, ones, rhs, 1e-8, 1000, xp=strict, check_every=1)
    late, looked = jacobi_cg(lambda p: B @ p, ones, rhs, 1e-8, 1000, xp=strict, check_every=10)
    assert count % 10 != 0
    assert looked == 10 * math.ceil(count / 10)
    np.testing.assert_array_equal(to_host(early), to_host(late))


def test_gradients_by_central_differences(case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = case
    options: dict[str, Any] = {"reg": 0.3, "reg_a": 0.7, "reg_b": 2.0, "tol": 1e-12}
    result, h, rng = unbalanced(costs(X, Y), a, b, **options), 1e-5, np.random.default_rng(0)
    da, db = rng.normal(size=60) * 0.01, rng.normal(size=50) * 0.01
    up, down = (unbalanced(costs(X, Y), a + s * da, b, **options).value for s in (h, -h))
    assert result.grad_a() @ da == pytest.approx((up - down) / (2 * h), rel=1e-6)
    up, down = (unbalanced(costs(X, Y), a, b + s * db, **options).value for s in (h, -h))
    assert result.grad_b() @ db == pytest.approx((up - down) / (2 * h), rel=1e-6)


def test_agrees_with_pot(case: tuple[np.ndarray, ...]) -> None:
    ot = pytest.importorskip("ot")
    X, Y, a, b = case
    C = costs(X, Y)
    for r1, r2 in ((1.0, 1.0), (0.7, 2.0)):
        theirs = ot.unbalanced.sinkhorn_unbalanced(
            a, b, C, 0.3, (r1, r2), reg_type="kl", numItermax=10**5, stopThr=1e-14
        )
        ours = unbalanced(C, a, b, reg=0.3, reg_a=r1, reg_b=r2, tol=1e-12).plan @ np.eye(50)
        np.testing.assert_allclose(ours, theirs, atol=1e-11)


def test_float32_forbidden_pairs_and_tiny_regularisation(case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = (c.astype(np.float32) for c in case)
    C = costs(X, Y)
    C[0, :] = INF  # this point cannot move anything
    wide = unbalanced(C.astype(float), a.astype(float), b.astype(float), reg=0.1, reg_a=1.0, reg_b=1.0, tol=1e-10)
    for method in ("newton", "sinkhorn"):
        result = unbalanced(C, a, b, reg=0.1, reg_a=1.0, reg_b=1.0, method=method)
        assert result.converged
        assert result.f.dtype == np.float32
        assert result.value == pytest.approx(wide.value, rel=1e-5)
        assert (result.plan @ np.ones(50, dtype=np.float32))[0] == 0
        assert result.f[0] == INF
        # Its weight costs reg_a, and reg times the mass that it might have met.
        assert result.grad_a()[0] == pytest.approx(1.0 + 0.1 * 1.0, rel=1e-5)
    with pytest.raises(InputError, match="held exactly"):
        unbalanced(C, a, b, reg=0.1, reg_a=INF, reg_b=1.0)
    X, Y, a, b = case
    hard = unbalanced(costs(X, Y), a, b, reg=2e-3, reg_a=1.0, reg_b=1.0, tol=1e-9)
    assert hard.converged
    assert abs(hard.gap) < 1e-9


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    n=st.integers(1, 9), m=st.integers(1, 9), reg=st.floats(0.1, 3.0), r=st.floats(0.1, 20.0), seed=st.integers(0, 999)
)
def test_two_methods_agree(n: int, m: int, reg: float, r: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    C, a, b = rng.random((n, m)), rng.random(n) + 0.01, 3 * rng.random(m) + 0.01
    runs = [
        unbalanced(C, a, b, reg=reg, reg_a=r, reg_b=2 * r, tol=1e-11, method=method)
        for method in ("newton", "sinkhorn")
    ]
    assert runs[0].value == pytest.approx(runs[1].value, rel=1e-9, abs=1e-10)
    product = reg * a.sum() * b.sum()
    identity = r * a.sum() + 2 * r * b.sum() + product - (3 * r + reg) * runs[0].mass
    assert runs[0].value == pytest.approx(identity, rel=1e-8, abs=1e-9)


def test_failure_is_said_and_bad_input_named(case: tuple[np.ndarray, ...]) -> None:
    X, Y, a, b = case
    C = costs(X, Y)
    with pytest.warns(ConvergenceWarning, match="unbalanced"):
        assert not unbalanced(C, a, b, reg=0.1, reg_a=1e4, reg_b=1e4, method="sinkhorn", maxiter=5).converged
    good: dict[str, Any] = {"reg": 0.1, "reg_a": 1.0, "reg_b": 1.0}
    for options, name in [
        ({"reg": 0.0}, "reg"),
        ({"reg_a": -1.0}, "reg_a"),
        ({"reg_b": math.nan}, "reg_b"),
        ({"method": "magic"}, "method"),
        ({"reg_a": INF, "reg_b": INF}, "equal"),
        ({"tol": 0.0}, "tol"),
    ]:
        with pytest.raises(InputError, match=name):
            unbalanced(C, a, b, **(good | options))
    with pytest.raises(InputError, match="b has negative"):
        unbalanced(C, a, -b, **good)


@pytest.mark.parametrize("method", ["sinkhorn", "newton"])
@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize(("reg", "tilt"), [(0.3, 10.0), (0.05, 0.1), (0.01, 0.1)])
def test_one_marginal_is_held_whatever_the_mass_of_the_other(method: str, side: str, reg: float, tilt: float) -> None:
    """The potentials have to move by ``relaxation * log(ratio of the masses)``, which no small steps reach."""
    rng = np.random.default_rng(348)
    C, a, b = rng.random((5, 4)), rng.random(5) * tilt, rng.random(4) / tilt
    price = 500.0
    prices = {"reg_a": math.inf, "reg_b": price} if side == "a" else {"reg_a": price, "reg_b": math.inf}
    result = unbalanced(C, a, b, reg=reg, **prices, tol=1e-9, method=method, maxiter=2000)
    assert result.converged
    held, free = (a, b) if side == "a" else (b, a)
    assert abs(result.mass - held.sum()) <= result.tolerance
    # So weak a relaxation is nearly balanced transport to the other weights, scaled to the mass that is held.
    m = held.sum()
    scaled = free * m / free.sum()
    near = solve(C, *((a, scaled) if side == "a" else (scaled, b)), reg=reg, tol=1e-9)
    np.testing.assert_allclose(result.dense_plan(), near.dense_plan(), atol=0.02 * m)


@pytest.mark.parametrize("method", ["sinkhorn", "newton"])
def test_where_every_pair_is_forbidden_nothing_moves(xp: Any, make: Any, method: str) -> None:
    C, a, b = make(np.full((3, 4), INF)), make(np.full(3, 1.0)), make(np.full(4, 0.5))
    result = unbalanced(C, a, b, reg=0.1, reg_a=2.0, reg_b=5.0, method=method)
    assert result.converged
    assert (result.mass, result.transport_cost) == (0.0, 0.0)
    # All of a and b is lost at its price, and KL(0 | a b^T) is the product of the masses.
    assert result.value == pytest.approx(3.0 * 2.0 + 2.0 * 5.0 + 0.1 * 6.0, rel=1e-6)


@pytest.mark.parametrize("prices", [(0.35, 0.002, 12.0), (0.44, 0.003, 24.0), (0.06, 0.09, 0.75), (0.16, 0.18, 11.0)])
def test_single_precision_steps_are_judged_by_its_own_rounding(prices: tuple[float, float, float]) -> None:
    """A dual value of float32 cannot rise by 1e-14 of itself: near the optimum no step would be accepted."""
    reg, reg_a, reg_b = prices
    for seed in range(6):
        rng = np.random.default_rng(seed)
        C, a, b = rng.random((5, 4)), rng.random(5), rng.random(4) * 3.0
        host = unbalanced(C, a, b, reg=reg, reg_a=reg_a, reg_b=reg_b, tol=1e-9)
        single = (z.astype(np.float32) for z in (C, a, b))
        result = unbalanced(*single, reg=reg, reg_a=reg_a, reg_b=reg_b, method="newton", tol=1e-5)
        assert result.converged
        assert result.n_iter < 30
        assert result.value == pytest.approx(host.value, rel=1e-5)


@pytest.mark.parametrize("side", ["a", "b"])
def test_points_without_weight_stay_empty_under_a_weak_relaxation(make: Any, side: str) -> None:
    # Potentials are a million times the regularisation: what stands for the logarithm of zero must be far below any of them.
    rng = np.random.default_rng(1)
    x, y = rng.random((3, 2)), rng.random((8, 2))
    a, b = np.full(3, 2 / 3), rng.dirichlet(np.ones(8))
    (a if side == "a" else b)[0] = 0.0
    options: dict[str, Any] = {"reg": 1e-3, "reg_a": 3e3, "reg_b": 1e3, "method": "newton"}
    result = unbalanced(PointCloud(make(x), make(y)), make(a), make(b), **options)
    stored = unbalanced(((x[:, None] - y) ** 2).sum(-1), a, b, **options)
    assert result.converged
    assert result.value == pytest.approx(stored.value, rel=1e-9)

"""Exact transport, rounding and bounds: against each other, sorting, duality and POT."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from xpsolve.backends.errors import ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import PointCloud, gradients, sinkhorn
from xpsolve.solvers.ot.exact import solve_exact, transport_1d
from xpsolve.solvers.ot.rounding import bounds, round_to_polytope


@settings(deadline=None, max_examples=25, derandomize=True)
@given(n=st.integers(1, 12), m=st.integers(1, 12), p=st.sampled_from([1.0, 1.5, 2.0, 3.0]), seed=st.integers(0, 999))
def test_line_and_program_agree_and_the_potentials_prove_it(n: int, m: int, p: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, a, b = rng.normal(size=n), rng.normal(size=m), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    if n > 2:
        x[1], a[0] = x[0], 0.0
        a /= a.sum()
    C = np.abs(x[:, None] - y) ** p
    line, program = transport_1d(x, y, a, b, p=p), solve_exact(C, a, b, method="lp")
    assert line.value == pytest.approx(program.value, rel=1e-7, abs=1e-10)
    for result in (line, program):
        assert result.converged
        plan = result.plan @ np.eye(m)
        np.testing.assert_allclose(plan.sum(axis=1), a, atol=1e-9)
        np.testing.assert_allclose(plan.sum(axis=0), b, atol=1e-9)
        assert (plan * C).sum() == pytest.approx(result.value, abs=1e-12)
        assert (result.f[:, None] + result.g - C).max() < 1e-10
        assert result.dual_value == pytest.approx(result.value, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e8, 1e16])
@pytest.mark.parametrize("mass", [1e-3, 1.0, 1e6])
def test_the_program_does_not_depend_on_units(scale: float, mass: float) -> None:
    rng = np.random.default_rng(3)
    C, a, b = rng.random((7, 6)), rng.dirichlet(np.full(7, 0.3)), rng.dirichlet(np.full(6, 0.3))
    # Far from zero, too: what is common to all costs carries no information.
    for offset in (0.0, 1e3, -1e3):
        plain = solve_exact(C, a, b, method="lp")
        result = solve_exact(scale * (C + offset), mass * a, mass * b, method="lp")
        unit = scale * mass
        assert result.value / unit == pytest.approx(plain.value + offset, rel=1e-12, abs=1e-12)
        assert result.dual_value / unit == pytest.approx(result.value / unit, rel=1e-12, abs=1e-10)
        assert (result.f[:, None] + result.g - scale * (C + offset)).max() < 1e-11 * scale
        assert result.residual < 1e-12 * mass


@pytest.mark.parametrize("scale", [1e-20, 1e-10, 1.0, 1e20])
def test_potentials_of_an_assignment_do_not_depend_on_units(scale: float) -> None:
    for seed in range(10):
        C = scale * np.random.default_rng(seed).random((12, 12))
        result = solve_exact(C, method="assignment")
        assert (result.f[:, None] + result.g - C).max() < 1e-12 * scale
        assert result.dual_value == pytest.approx(result.value, rel=1e-12)


def test_rounding_of_the_sums_leaves_a_plan() -> None:
    # Weights of separate blocks whose sums agree to rounding, some near it. The program is solved to 1e-10 of the mean weight.
    rng = np.random.default_rng(0)
    for _ in range(40):
        b = 10.0 ** rng.uniform(-12, 0, 30)
        b /= b.sum()
        assert solve_exact(rng.random((1, 30)), None, b).residual < 1e-10
    for _ in range(60):
        left, right = rng.integers(0, 3, 20), rng.integers(0, 3, 30)
        left[:3] = right[:3] = range(3)
        plan = np.where(left[:, None] == right, 10.0 ** rng.uniform(-12, 0, (20, 30)), 0.0)
        plan /= plan.sum()
        C = np.where(left[:, None] == right, rng.random((20, 30)), math.inf)
        result = solve_exact(C, plan.sum(axis=1), plan.sum(axis=0))
        assert result.residual < 1e-10
        assert result.duality_gap < 1e-9


def test_the_program_sees_the_least_of_weights() -> None:
    rng = np.random.default_rng(4)
    C, a, b = rng.random((8, 9)), 10.0 ** rng.uniform(-12, 0, 8), 10.0 ** rng.uniform(-12, 0, 9)
    result = solve_exact(C, a / a.sum(), b / b.sum(), method="lp")
    rows, columns = result.marginals()
    np.testing.assert_allclose(rows, a / a.sum(), atol=1e-15)
    np.testing.assert_allclose(columns, b / b.sum(), atol=1e-15)


def test_every_library(xp: Any, make: Any) -> None:
    rng = np.random.default_rng(0)
    x, y, a = rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), rng.dirichlet(np.ones(9))
    C = cdist(x, y, "sqeuclidean")
    even, uneven = solve_exact(C), solve_exact(C, a)
    assert (even.method, uneven.method) == ("assignment", "lp")
    assert even.value == pytest.approx(solve_exact(C, method="lp").value, rel=1e-9)
    assert (even.f[:, None] + even.g - C).max() < 1e-12
    assert even.dual_value == pytest.approx(even.value, rel=1e-12)
    for reference, weights in ((even, None), (uneven, make(a))):
        for cost in (make(C), PointCloud(make(x), make(y))):
            result = solve_exact(cost, weights)
            assert type(result.f) is type(make(C))
            assert result.value == pytest.approx(reference.value, rel=1e-10)
            target = to_host(result.transport(target=make(y)))
            np.testing.assert_allclose(target, reference.transport(target=y), atol=1e-8)
            np.testing.assert_allclose(
                to_host(result.plan.T @ make(np.ones(9))), reference.plan.T @ np.ones(9), atol=1e-9
            )
    line = solve_exact(PointCloud(make(x[:, :1]), make(y[:, :1])))
    assert line.method == "line"
    assert line.value == pytest.approx(((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2).mean(), rel=1e-12)
    # Rounding and bounds.
    P = rng.random((9, 9)) / 81
    R = to_host(round_to_polytope(make(P), make(a), make(np.full(9, 1 / 9))))
    np.testing.assert_allclose(R.sum(axis=1), a, atol=1e-15)
    np.testing.assert_allclose(R.sum(axis=0), 1 / 9, atol=1e-15)
    err = abs(P.sum(axis=1) - a).sum() + abs(P.sum(axis=0) - 1 / 9).sum()
    assert abs(R - P).sum() <= 2 * err
    assert R.min() >= 0
    for cost in (make(C), PointCloud(make(x), make(y))):
        lower, upper = bounds(sinkhorn(cost, make(a), reg=0.2))
        assert lower <= uneven.value <= upper
        assert upper - lower < 0.5


def test_bounds_hold_for_loose_runs_and_tighten() -> None:
    rng = np.random.default_rng(2)
    x, y, a = rng.random((40, 2)), rng.random((50, 2)), rng.dirichlet(np.ones(40))
    a[3] = 0.0
    a /= a.sum()
    C = cdist(x, y)
    exact = solve_exact(C, a).value
    with pytest.warns(ConvergenceWarning):
        loose = sinkhorn(C, a, reg=0.005, maxiter=2)
    lower, upper = bounds(loose)
    assert lower <= exact <= upper
    # The upper bound is the cost of the rounded plan.
    plan = round_to_polytope(loose.plan @ np.eye(50), a, np.full(50, 0.02))
    assert upper == pytest.approx((plan * C).sum(), rel=1e-10)
    widths = []
    for reg in (0.1, 0.03, 0.01):
        result = sinkhorn(PointCloud(x, y, "euclidean"), a, reg=reg, tol=1e-5)
        lower, upper = bounds(result)
        assert lower <= exact <= upper
        entropy = -(a[a > 0] * np.log(a[a > 0])).sum()
        assert upper - exact <= reg * min(entropy, math.log(50)) + 1e-4
        widths.append(upper - lower)
    assert widths[0] > widths[1] > widths[2]
    single = sinkhorn(
        PointCloud(x.astype(np.float32), y.astype(np.float32), "euclidean"), a.astype(np.float32), reg=0.03
    )
    lower, upper = bounds(single)
    assert lower <= exact + 1e-6
    assert upper >= exact - 1e-6


def test_feasible_plans_stay() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(7))
    np.testing.assert_allclose(round_to_polytope(np.outer(a, b), a, b), np.outer(a, b), atol=1e-16)


def test_agrees_with_pot() -> None:
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(4)
    C, a, b = rng.random((30, 45)), rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(45))
    assert solve_exact(C, a, b).value == pytest.approx(ot.emd2(a, b, C), rel=1e-8)


def test_forbidden_pairs_and_bad_input() -> None:
    C = np.asarray([[math.inf, 1.0], [2.0, math.inf]])
    assert solve_exact(C).value == pytest.approx(1.5)
    assert solve_exact(C, method="lp").value == pytest.approx(1.5)
    with pytest.raises(InputError, match="no assignment"):
        solve_exact(np.asarray([[math.inf, math.inf], [2.0, 1.0]]))
    with pytest.raises(InputError, match="leaves no plan"):
        solve_exact(C, np.asarray([0.2, 0.8]))
    with pytest.raises(InputError, match="assignment"):
        solve_exact(C, np.asarray([0.2, 0.8]), method="assignment")
    with pytest.raises(InputError, match="one dimension"):
        solve_exact(C, method="line")
    with pytest.raises(InputError, match="at least 1"):
        transport_1d(np.ones(2), np.ones(2), p=0.5)
    with pytest.raises(InputError, match="P has negative"):
        round_to_polytope(-np.ones((2, 2)), np.full(2, 0.5), np.full(2, 0.5))
    assert transport_1d(np.ones(1), np.zeros(1)).value == 1.0
    single = transport_1d(np.float32([0, 1]), np.float32([2, 3]), p=1)
    assert single.f.dtype == np.float32
    assert single.value == 2.0


@pytest.mark.parametrize("method", ["lp", "assignment", "line"])
def test_everything_a_result_offers_works_for_an_exact_one(xp: Any, make: Any, method: str) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(7, 1)), rng.normal(size=(7, 1))
    a = rng.dirichlet(np.ones(7)) if method == "lp" else None
    C = cdist(x, y, "sqeuclidean")
    cost = PointCloud(make(x), make(y)) if method == "line" else make(C)
    result = solve_exact(cost, None if a is None else make(a), method=method)
    plan = to_host(result.dense_plan())
    np.testing.assert_allclose(plan, to_host(result.plan @ make(np.eye(7))), atol=1e-15)
    assert result.transport_cost == result.value == pytest.approx((plan * C).sum(), rel=1e-12)
    assert result.entropy_value == result.value
    assert 0 <= result.duality_gap <= 1e-9
    assert max(result.marginal_errors) <= 1e-9
    np.testing.assert_allclose(to_host(result.marginals()[0]), plan.sum(axis=1), atol=1e-15)
    with pytest.raises(InputError, match="limit"):
        result.dense_plan(limit=8.0)
    with pytest.raises(InputError, match="no scalings"):
        result.to_pot()
    with pytest.raises(InputError, match="no regularisation"):
        gradients(result, "reg")


@pytest.mark.parametrize("metric", ["sqeuclidean", "half_sqeuclidean", "euclidean", "cityblock"])
def test_gradients_of_the_exact_cost(xp: Any, make: Any, metric: str) -> None:
    rng = np.random.default_rng(4)
    given = {"x": rng.normal(size=(6, 2)), "y": rng.normal(size=(5, 2)), "a": rng.dirichlet(np.ones(6))}
    b = rng.dirichlet(np.ones(5))

    def value(**changed: np.ndarray) -> float:
        of = given | changed
        return float(solve_exact(PointCloud(of["x"], of["y"], metric), of["a"], b).value)

    result = solve_exact(PointCloud(make(given["x"]), make(given["y"]), metric), make(given["a"]), make(b))
    found = gradients(result)
    assert set(found) == {"a", "b", "x", "y"}
    step = 1e-6
    for name, at in given.items():
        along = rng.normal(size=at.shape)
        if name == "a":
            along *= at  # keeps the support
            along -= at * along.sum()
        rise = (value(**{name: at + step * along}) - value(**{name: at - step * along})) / (2 * step)
        assert (to_host(found[name]) * along).sum() == pytest.approx(rise, rel=1e-6, abs=1e-8)
    matrix = solve_exact(make(cdist(given["x"], given["y"])), make(given["a"]), make(b))
    np.testing.assert_allclose(to_host(gradients(matrix, "cost")["cost"]), to_host(matrix.dense_plan()))

"""The Sinkhorn divergence and its self term against identities, limits and central differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import PointCloud, sinkhorn
from xpsolve.solvers.ot.divergence import sinkhorn_divergence, sinkhorn_divergence_from_costs
from xpsolve.solvers.ot.self_transport import self_transport


def squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None] - y) ** 2).sum(axis=2)


@pytest.fixture
def clouds() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    return rng.random((12, 2)), rng.random((15, 2)), rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(15))


@pytest.mark.parametrize("reg", [0.1, 0.01, 0.001])
def test_self_term_takes_forty_iterations(reg: float) -> None:
    C = squared(*[np.random.default_rng(0).random((300, 2))] * 2)
    result = self_transport(C, reg=reg, tol=1e-12)
    assert result.converged
    assert result.n_iter <= 40
    plan = result.plan @ np.eye(300)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 300, atol=1e-14)
    np.testing.assert_allclose(plan, plan.T, atol=1e-16)


def test_self_term_agrees_with_sinkhorn_on_every_library(xp: Any, make: Any, clouds: tuple[np.ndarray, ...]) -> None:
    x, _, a, _ = clouds
    a = np.where(np.arange(12) == 4, 0.0, a)
    a = a / a.sum()
    reference = sinkhorn(squared(x, x), a, a, reg=0.1, tol=1e-13)
    for cost in (make(squared(x, x)), PointCloud(make(x), make(x))):
        result = self_transport(cost, make(a), reg=0.1, tol=1e-12)
        assert result.converged
        assert type(result.f) is type(make(x))
        assert result.value == pytest.approx(reference.value, abs=1e-12)
        again = self_transport(cost, make(a), reg=0.1, tol=1e-12, x0=result.f)
        assert again.n_iter <= 1


def test_loose_self_term_is_wrong_by_the_square_only(clouds: tuple[np.ndarray, ...]) -> None:
    x, _, a, _ = clouds
    exact = self_transport(squared(x, x), a, reg=0.05, tol=1e-13).value
    loose = self_transport(squared(x, x), a, reg=0.05, tol=1e-3)
    assert 1e-5 < loose.residual <= 1e-3
    assert abs(loose.value - exact) <= 0.05 * loose.residual**2 * 20


@settings(deadline=None, max_examples=20, derandomize=True)
@given(n=st.integers(1, 40), d=st.integers(1, 4), reg=st.floats(1.0, 20.0), seed=st.integers(0, 2**16))
def test_translation_identity(n: int, d: int, reg: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, t, a = rng.random((n, d)), rng.random(d), rng.dirichlet(np.ones(n)) + 1e-3
    a /= a.sum()
    result = sinkhorn_divergence(x, x + t, a, a, reg=reg, tol=1e-11)
    assert result.value == pytest.approx(t @ t, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(result.grad_x(), -2 * a[:, None] * t, atol=1e-8)
    np.testing.assert_allclose(result.grad_y(), 2 * a[:, None] * t, atol=1e-8)


def test_not_negative_symmetric_and_zero_for_equals() -> None:
    rng = np.random.default_rng(0)
    for trial in range(100):
        n, m = rng.integers(1, 12, size=2)
        x, y = rng.random((n, 2)), rng.random((m, 2))
        cost = ("sqeuclidean", "euclidean", "half_sqeuclidean")[trial % 3]
        value = sinkhorn_divergence(x, y, reg=0.2, cost=cost, tol=1e-8).value
        assert value >= -1e-15
        assert sinkhorn_divergence(y, x, reg=0.2, cost=cost, tol=1e-8).value == pytest.approx(value, abs=1e-12)
        order = rng.permutation(n)
        assert sinkhorn_divergence(x, x[order], reg=0.2, cost=cost, tol=1e-8).value == pytest.approx(0, abs=1e-14)


def test_limits_of_the_regularisation(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = clouds
    far = sinkhorn_divergence(x, y, a, b, reg=1e5, tol=1e-13).value
    assert far == pytest.approx(((a @ x - b @ y) ** 2).sum(), rel=1e-4)
    # Equal weights on a line: transport is sorting, and a small regularisation is close to it.
    u, v = np.sort(x[:, :1], axis=0), np.sort(y[:12, :1], axis=0)
    near = sinkhorn_divergence(u, v, reg=4e-3, tol=1e-4).value
    assert near == pytest.approx(((u - v) ** 2).mean(), rel=5e-2)


@pytest.mark.parametrize("cost", ["sqeuclidean", "half_sqeuclidean", "euclidean", "cityblock"])
def test_gradients_by_central_differences(cost: str, clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = clouds
    rng = np.random.default_rng(1)

    def value(x: np.ndarray = x, y: np.ndarray = y, a: np.ndarray = a, b: np.ndarray = b) -> float:
        # From exact distances: of a cloud with itself, products of points give 1e-8 in the place of a zero distance.
        matrices = (scale * cdist(p, q, metric) for p, q in ((x, y), (x, x), (y, y)))
        return sinkhorn_divergence_from_costs(*matrices, a, b, reg=0.1, tol=1e-13).value

    scale, metric = (0.5, "sqeuclidean") if cost == "half_sqeuclidean" else (1.0, cost)
    result, h = sinkhorn_divergence(x, y, a, b, reg=0.1, cost=cost, tol=1e-12), 1e-6
    for name, point, gradient in (
        ("x", x, result.grad_x()),
        ("y", y, result.grad_y()),
        ("a", a, result.grad_a()),
        ("b", b, result.grad_b()),
    ):
        direction = rng.normal(size=point.shape)
        if point.ndim == 1:
            direction = (direction - direction.mean()) * 0.1
        slope = (value(**{name: point + h * direction}) - value(**{name: point - h * direction})) / (2 * h)
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-9), name


def test_gradient_at_zero_weights_is_the_one_sided_slope(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = clouds
    a = np.where(np.arange(12) == 4, 0.0, a)
    a /= a.sum()
    result, h = sinkhorn_divergence(x, y, a, b, reg=0.1, tol=1e-13), 1e-5
    direction = (np.arange(12) == 4) - a
    moved = sinkhorn_divergence(x, y, a + h * direction, b, reg=0.1, tol=1e-13).value
    assert result.grad_a() @ direction == pytest.approx((moved - result.value) / h, rel=1e-3)


def test_every_library_and_the_matrix_form(xp: Any, make: Any, clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = clouds
    reference = sinkhorn_divergence(x, y, a, b, reg=0.05, tol=1e-11)
    result = sinkhorn_divergence(make(x), make(y), make(a), make(b), reg=0.05, tol=1e-11)
    stored = sinkhorn_divergence_from_costs(
        make(squared(x, y)), make(squared(x, x)), make(squared(y, y)), make(a), make(b), reg=0.05, tol=1e-11
    )
    for other in (result, stored):
        assert other.converged
        assert other.value == pytest.approx(reference.value, abs=1e-12)
        np.testing.assert_allclose(to_host(other.grad_a()), reference.grad_a(), atol=1e-9)
        np.testing.assert_allclose(to_host(other.grad_b()), reference.grad_b(), atol=1e-9)
    np.testing.assert_allclose(to_host(result.grad_x()), reference.grad_x(), atol=1e-10)
    far = sinkhorn_divergence(make(x), make(y), reg=0.05, cost="euclidean", tol=1e-10)
    assert type(far.grad_y()) is type(make(x))
    dual = (to_host(result.grad_a()) * a).sum() + (to_host(result.grad_b()) * b).sum()
    assert dual == pytest.approx(reference.value, abs=1e-12)
    with pytest.raises(InputError, match="point clouds"):
        stored.grad_x()


def test_float32_and_coincident_points(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = (c.astype(np.float32) for c in clouds)
    x[1] = y[2] = x[0]
    result = sinkhorn_divergence(x, y, a, b, reg=0.1, cost="euclidean")
    wide_x, wide_y, wide_a, wide_b = (c.astype(np.float64) for c in (x, y, a, b))
    wide = sinkhorn_divergence(wide_x, wide_y, wide_a / wide_a.sum(), wide_b / wide_b.sum(), reg=0.1, cost="euclidean")
    assert result.grad_x().dtype == np.float32
    assert np.isfinite(result.grad_x()).all()
    assert result.value == pytest.approx(wide.value, abs=2e-6)


def test_mass_other_than_one(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, b = clouds
    one, three = (sinkhorn_divergence(x, y, m * a, m * b, reg=0.1, tol=1e-12).value for m in (1.0, 3.0))
    assert three > 0
    assert sinkhorn_divergence(x, x, 3 * a, 3 * a, reg=0.1, tol=1e-8).value == pytest.approx(0, abs=1e-13)
    # The plan of three times the weights is three times the plan: values scale alike.
    assert three == pytest.approx(3 * one, rel=1e-9)


def test_a_shortage_of_iterations_is_said(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, _, _ = clouds
    with pytest.warns(ConvergenceWarning):
        result = sinkhorn_divergence(x, y, reg=0.001, tol=1e-12, maxiter=3)
    assert not result.converged
    assert math.isfinite(result.value)
    with pytest.warns(ConvergenceWarning, match="self_transport"):
        assert self_transport(squared(x, x), reg=0.01, tol=1e-12, maxiter=3).n_iter == 3


def test_bad_input_names_the_argument(clouds: tuple[np.ndarray, ...]) -> None:
    x, y, a, _ = clouds
    C = squared(x, x)
    with pytest.raises(InputError, match="symmetric"):
        self_transport(np.triu(C), reg=1.0)
    with pytest.raises(InputError, match="square"):
        self_transport(squared(x, y), reg=1.0)
    with pytest.raises(InputError, match="two point sets"):
        self_transport(PointCloud(x, y), reg=1.0)
    with pytest.raises(InputError, match="reg"):
        sinkhorn_divergence(x, y, reg=0.0)
    with pytest.raises(InputError, match="b to 15"):
        sinkhorn_divergence(x, y, a, np.ones(15), reg=1.0)
    with pytest.raises(InputError, match="C_yy"):
        sinkhorn_divergence_from_costs(squared(x, y), C, C, reg=1.0)
    with pytest.raises(BackendError, match="y has dtype"):
        sinkhorn_divergence(x, y.astype(np.float32), reg=1.0)
    with pytest.raises(InputError, match="named costs"):
        sinkhorn_divergence(x, y, reg=1.0, cost=lambda p, q: squared(p, q)).grad_x()

"""The transport families: their definitions, and exact values that an independent Sinkhorn confirms."""

from __future__ import annotations

import math
from typing import Any

import array_api_compat.numpy as npx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.problems import (
    cloud,
    digits_pair,
    gaussian_histograms,
    gaussian_transport_value,
    lap,
    random_marginals,
    robustness_set,
    two_by_two,
)
from xpsolve.solvers.ot import sinkhorn


def test_assignments_are_those_of_numpys_generator() -> None:
    np.testing.assert_array_equal(lap(7, 3, xp=npx).cost, np.random.default_rng(3).uniform(size=(7, 7)))
    rng = np.random.default_rng(3)
    C, a = rng.uniform(size=(7, 7)), rng.uniform(0.1, 1.0, 7)
    problem = random_marginals(7, 3, xp=npx)
    np.testing.assert_array_equal(problem.cost, C)
    np.testing.assert_allclose(problem.a, a / a.sum(), rtol=1e-15)


def test_clouds_and_digits_follow_their_definitions() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.uniform(size=(9, 3)), rng.uniform(size=(9, 3))
    squares = ((x[:, None] - y) ** 2).sum(axis=2)
    problem = cloud(9, 3, 2, xp=npx)
    np.testing.assert_array_equal(problem.x, x)
    np.testing.assert_allclose(problem.cost, squares / squares.max(), rtol=1e-13)
    np.testing.assert_allclose(cloud(9, 3, 2, p=1, normalise=False, xp=npx).cost, np.sqrt(squares), rtol=1e-13)
    from scipy.spatial.distance import cdist
    from sklearn.datasets import load_digits

    digits = digits_pair(1, 2, images=(3, 8), xp=npx)
    image = np.kron(load_digits().images[3], np.ones((2, 2))).ravel()
    image = image / image.sum() + 0.01 / 256
    np.testing.assert_allclose(digits.a, image / image.sum(), rtol=1e-12)
    pixels = np.stack(np.divmod(np.arange(256), 16), axis=1)
    np.testing.assert_allclose(digits.cost, cdist(pixels, pixels, "cityblock") / 30, rtol=1e-14)


def test_the_robustness_set_is_one_of_ten_normalised_problems() -> None:
    problems = robustness_set(xp=npx)
    assert [p.cost.shape for p in problems] == [(300, 300)] * 5 + [(256, 256)] * 2 + [(200, 350), (300, 300), (64, 64)]
    assert len({p.name for p in problems}) == 10
    for problem in problems:
        assert problem.a.min() > 0
        assert problem.b.min() > 0
        assert 0.99 < problem.cost.max() <= 1.0
        assert abs(problem.a.sum() - 1) + abs(problem.b.sum() - 1) < 1e-14
    assert problems[9].a.min() < 2e-8


def test_every_library_gets_the_same_numbers(xp: Any) -> None:
    makers = [
        lambda **w: lap(5, 1, **w), lambda **w: random_marginals(5, 1, **w), lambda **w: digits_pair(2, 1, **w),
        lambda **w: cloud(5, 2, 1, kind="gaussian", **w), lambda **w: two_by_two(0.3, **w),
        lambda **w: gaussian_histograms(1.0, 11, **w),
    ]  # fmt: skip
    for make in makers:
        host, there, single = make(xp=npx), make(xp=xp), make(xp=xp, dtype=xp.float32)
        for field in ("cost", "a", "b", "x", "y"):
            if (expected := getattr(host, field)) is None:
                assert getattr(there, field) is None
                continue
            np.testing.assert_array_equal(to_host(getattr(there, field)), expected)
            assert getattr(single, field).dtype == xp.float32


@settings(deadline=None, max_examples=30)
@given(reg=st.floats(0.3, 3.0), a=st.floats(0.05, 0.95), b=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_two_by_two_is_solved_by_its_quadratic(reg: float, a: float, b: float, seed: int) -> None:
    C = np.random.default_rng(seed).random((2, 2))
    problem = two_by_two(reg, C.tolist(), (a, 1 - a), (b, 1 - b), xp=npx)
    result = sinkhorn(problem.cost, problem.a, problem.b, reg=reg, tol=1e-13)
    (p11, p12), (p21, p22) = problem.plan
    odds = -(C[0, 0] + C[1, 1] - C[0, 1] - C[1, 0]) / reg
    np.testing.assert_allclose(math.log(p11 * p22 / (p12 * p21)), odds, atol=1e-9)
    np.testing.assert_allclose([p11 + p12, p21 + p22, p11 + p21], [a, 1 - a, b], atol=1e-14)
    np.testing.assert_allclose(result.plan @ np.eye(2), problem.plan, atol=1e-11)
    np.testing.assert_allclose(result.value, problem.value, atol=1e-11)


def test_two_by_two_survives_tiny_regularisation() -> None:
    for cost in ([[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]):
        problem = two_by_two(1e-4, cost, (0.3, 0.7), (0.6, 0.4), xp=npx)
        plan = np.asarray(problem.plan)
        np.testing.assert_allclose(plan.sum(axis=1), [0.3, 0.7], atol=1e-14)
        expected = [[0.3, 0.0], [0.3, 0.4]] if cost[0][0] == 0 else [[0.0, 0.3], [0.6, 0.1]]
        np.testing.assert_allclose(plan, expected, atol=1e-12)


@pytest.mark.parametrize(("reg", "value"), [(1.0, 2.29389333245), (0.1, 1.77528684853)])
def test_gaussians(reg: float, value: float) -> None:
    problem = gaussian_histograms(reg, xp=npx)
    np.testing.assert_allclose(problem.value, value, atol=1e-11)
    if reg == 1.0:
        coarser = gaussian_histograms(reg, 401, xp=npx)
        result = sinkhorn(coarser.cost, coarser.a, coarser.b, reg=reg, tol=1e-12)
        np.testing.assert_allclose(result.value, value, rtol=1e-10)


def test_gaussian_values_add_over_independent_axes_and_do_not_see_rotations() -> None:
    one = gaussian_transport_value(0.2, 1.0, 1.0, 0.3, 0.4) + gaussian_transport_value(-1.0, 0.5, 0.0, 2.0, 0.4)
    A, B = np.diag([1.0, 0.5]), np.diag([0.3, 2.0])
    np.testing.assert_allclose(gaussian_transport_value([0.2, -1.0], A, [1.0, 0.0], B, 0.4), one, rtol=1e-13)
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 2)))[0]
    turned = gaussian_transport_value(Q @ [0.2, -1.0], Q @ A @ Q.T, Q @ [1.0, 0.0], Q @ B @ Q.T, 0.4)
    np.testing.assert_allclose(turned, one, rtol=1e-12)


def test_bad_parameters_are_refused_by_name() -> None:
    for call, name in [
        (lambda: lap(0, xp=npx), "n must"),
        (lambda: digits_pair(3, xp=npx), "p is"),
        (lambda: digits_pair(2, 1, images=(0, 99999), xp=npx), "images"),
        (lambda: cloud(5, 2, kind="square", xp=npx), "kind"),
        (lambda: two_by_two(0.0, xp=npx), "reg"),
        (lambda: two_by_two(1.0, a=(0.5, 0.6), xp=npx), "sum to 1"),
        (lambda: gaussian_transport_value([0.0, 1.0], 1.0, 0.0, 1.0, 1.0), "covariances"),
    ]:
        with pytest.raises(InputError, match=name):
            call()
    with pytest.raises(BackendError, match="dtype"):
        lap(3, xp=npx, dtype=npx.int64)

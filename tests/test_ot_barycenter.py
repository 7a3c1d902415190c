"""Barycenters against Gaussians, translations, the whole kernel matrix, and one another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import barycenter, grid_costs
from xpsolve.solvers.ot.free_support import free_support_barycenter
from xpsolve.solvers.result import Status

LINE = np.linspace(-5, 5, 400)
C = (LINE[:, None] - LINE) ** 2


def gaussian(mean: float, std: float) -> np.ndarray:
    p = np.exp(-((LINE - mean) ** 2) / (2 * std**2)) + 1e-12
    return p / p.sum()


def spread(p: np.ndarray) -> float:
    return float(np.sqrt((p * (LINE - p @ LINE) ** 2).sum()))


@pytest.fixture(scope="module")
def pair() -> np.ndarray:
    return np.stack([gaussian(-1.5, 0.4), gaussian(1.5, 0.7)])


@pytest.mark.parametrize(("reg", "plain", "debiased"), [(0.2, 0.634811, 0.550582), (0.05, 0.572308, 0.550036)])
def test_two_gaussians(reg: float, plain: float, debiased: float, pair: np.ndarray) -> None:
    result = barycenter(pair, C, reg=reg)
    assert result.domain == "kernel"
    assert spread(result.p) == pytest.approx(plain, abs=2e-6)
    assert result.p.sum() == pytest.approx(1.0, abs=1e-7)
    assert result.p @ LINE == pytest.approx(0.0, abs=1e-6)
    assert spread(barycenter(pair, C, reg=reg, debiased=True).p) == pytest.approx(debiased, abs=5e-6)


@pytest.mark.parametrize(("debiased", "tol", "most"), [(False, 1e-8, 220), (True, 1e-6, 220)])
def test_acceleration_takes_a_fifth_of_the_iterations_and_changes_nothing_else(
    debiased: bool, tol: float, most: int
) -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    A = np.kron(digits.images[digits.target == 3][:12], np.ones((3, 3)))
    A += 1e-3 * A.mean()
    A /= A.sum(axis=(1, 2), keepdims=True)
    options: dict[str, Any] = {"reg": 2e-3, "debiased": debiased, "tol": tol}
    fast = barycenter(A, grid_costs((24, 24), like=A), **options)
    assert fast.converged
    assert fast.n_iter <= most
    with pytest.warns(ConvergenceWarning):
        barycenter(A, grid_costs((24, 24), like=A), acceleration=None, maxiter=5 * fast.n_iter, **options)
    plain = barycenter(A, grid_costs((24, 24), like=A), acceleration=None, **options)
    # Both are as far from the limit as their residuals allow.
    assert abs(fast.p - plain.p).sum() < (30 if debiased else 3) * tol


def test_debiased_gaussians_do_not_creep(pair: np.ndarray) -> None:
    result = barycenter(pair, C, reg=0.2, debiased=True, tol=1e-8)
    assert result.converged
    assert result.n_iter <= 400
    # The barycenter of Gaussians in one dimension has the mean of the deviations.
    assert spread(result.p) == pytest.approx(0.550582, abs=2e-6)
    # The floor of 1e-12 at the ends of the line is a thousandth of this error.
    assert abs(result.p - gaussian(0.0, 0.55)).sum() < 1e-2


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    k=st.integers(1, 4),
    n=st.integers(1, 12),
    reg=st.floats(0.02, 2.0),
    debiased=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_measures(k: int, n: int, reg: float, debiased: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    A = rng.dirichlet(np.ones(n), size=k)
    (cost,) = grid_costs((n,), like=A)
    runs = [
        barycenter(A, cost, reg=reg, debiased=debiased, acceleration=how, tol=1e-5, maxiter=20_000)
        for how in ("anderson", None)
    ]
    assert all(r.converged for r in runs)
    assert runs[0].n_iter <= runs[1].n_iter + 5
    assert runs[0].p.sum() == pytest.approx(1.0, abs=1e-4)


def test_equal_measures(pair: np.ndarray) -> None:
    same = np.stack([gaussian(0.0, 0.4)] * 2)
    blurred = barycenter(same, C, reg=0.2, tol=1e-10).p
    assert spread(blurred) == pytest.approx(np.sqrt(0.16 + 0.2 / 2), abs=1e-8)
    sharp = barycenter(same, C, reg=0.2, debiased=True, tol=1e-8).p
    assert abs(sharp - same[0]).sum() < 1e-7
    # All the weight on one measure: the others do not matter.
    only = barycenter(pair, C, np.asarray([1.0, 0.0]), reg=0.2, debiased=True).p
    assert abs(only - pair[0]).sum() < 1e-4


@pytest.mark.parametrize("debiased", [False, True])
def test_grids_are_applied_axis_by_axis_on_every_library(xp: Any, make: Any, debiased: bool) -> None:
    rng = np.random.default_rng(0)
    A = rng.random((3, 5, 7))
    A[0, :2, :] = 0.0
    A /= A.sum(axis=(1, 2), keepdims=True)
    w, axes = np.asarray([0.5, 0.2, 0.3]), grid_costs((5, 7), like=A, p=1.5)
    whole = (axes[0][:, None, :, None] + axes[1][None, :, None, :]).reshape(35, 35)
    reference = barycenter(A.reshape(3, 35), whole, w, reg=0.1, debiased=debiased, tol=1e-7).p.reshape(5, 7)
    for domain in ("kernel", "log"):
        result = barycenter(
            make(A), [make(c) for c in axes], make(w), reg=0.1, debiased=debiased, domain=domain, tol=1e-7
        )
        assert result.converged
        assert type(result.p) is type(make(A))
        np.testing.assert_allclose(to_host(result.p), reference, atol=1e-6)
    mine = grid_costs((5, 7), like=make(A), p=1.5)
    np.testing.assert_allclose(to_host(mine[0]), axes[0], atol=1e-15)


def test_small_regularisation_and_float32() -> None:
    # Two single points: the barycenter is the point between them, and needs logarithms.
    A = np.zeros((2, 9, 9))
    A[0, 0, 0] = A[1, 8, 8] = 1.0
    result = barycenter(A, grid_costs((9, 9), like=A), reg=1e-3)
    assert result.domain == "log"
    assert result.p[4, 4] > 0.999
    narrow = A.astype(np.float32)
    single = barycenter(narrow, grid_costs((9, 9), like=narrow), reg=1e-3)
    assert single.p.dtype == np.float32
    np.testing.assert_allclose(single.p, result.p, atol=1e-4)


def test_weights_move_the_barycenter() -> None:
    # Translates of one Gaussian: the barycenter is a translate of its blur.
    p = barycenter(np.stack([gaussian(-1.5, 0.5), gaussian(1.5, 0.5)]), C, np.asarray([0.3, 0.7]), reg=0.2, tol=1e-10).p
    assert p @ LINE == pytest.approx(0.6, abs=1e-6)
    assert spread(p) == pytest.approx(np.sqrt(0.25 + 0.2 / 2), abs=1e-6)


def test_agrees_with_pot(pair: np.ndarray) -> None:
    # Equal weights only: POT starts from an unweighted mean, which its iteration never forgets when they differ.
    ot = pytest.importorskip("ot")
    theirs = ot.bregman.barycenter(pair.T.copy(), C, 0.2, numItermax=5000, stopThr=1e-13)
    ours = barycenter(pair, C, reg=0.2, tol=1e-11).p
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_free_support_on_every_library(xp: Any, make: Any) -> None:
    rng = np.random.default_rng(0)
    y = rng.random((12, 2)) * 2
    shifts = np.asarray([[0.0, 0.0], [2.0, 0.0], [0.0, 5.0]])
    w = [0.5, 0.2, 0.3]
    alone = free_support_barycenter([y], x0=y[:4] + 0.01, reg=0.3, tol=1e-4, inner_tol=1e-6)
    result = free_support_barycenter(
        [make(y + s) for s in shifts], x0=make(y[:4] + 0.01), weights=w, reg=0.3, tol=1e-4, inner_tol=1e-6
    )
    assert result.converged
    # Translates of one cloud: translations do not change a plan, so the answer is that of the cloud alone, translated.
    np.testing.assert_allclose(to_host(result.x), alone.x + w @ shifts, atol=1e-3)
    np.testing.assert_allclose(to_host(result.x).mean(axis=0), (y + w @ shifts).mean(axis=0), atol=1e-5)
    one = free_support_barycenter([make(y)], [make(np.full(12, 1 / 12))], x0=make(y[:1]), reg=0.1)
    np.testing.assert_allclose(to_host(one.x)[0], y.mean(axis=0), atol=1e-10)


@pytest.mark.parametrize("debiased", [False, True])
def test_a_kernel_that_underflows_is_said_once(make: Any, debiased: bool) -> None:
    A, C = make(np.asarray([[1.0, 0.0], [0.0, 1.0]])), make(np.asarray([[0.0, 1.0], [1.0, 0.0]]))
    with pytest.warns(ConvergenceWarning) as seen:
        result = barycenter(A, C, reg=1e-3, domain="kernel", debiased=debiased)
    assert len(seen) == 1
    assert result.status is Status.NONFINITE


def test_failure_is_said_and_bad_input_named(pair: np.ndarray) -> None:
    with pytest.warns(ConvergenceWarning, match="barycenter"):
        assert barycenter(pair, C, reg=0.05, maxiter=3).n_iter == 3
    for A, cost, options, name in [
        (pair, C, {"reg": 0.0}, "reg"),
        (-pair, C, {}, "negative"),
        (pair * np.asarray([[1.0], [2.0]]), C, {}, "different sums"),
        (pair, C[:9, :9], {}, "cost has shape"),
        (pair, [C, C], {}, "A has shape"),
        (pair, C, {"weights": np.ones(3)}, "weights has shape"),
        (pair, C, {"domain": "space"}, "domain"),
        (pair, C, {"acceleration": "nesterov"}, "acceleration"),
    ]:
        with pytest.raises(InputError, match=name):
            barycenter(A, cost, **({"reg": 0.1} | options))
    with pytest.raises(BackendError, match="cost has dtype"):
        barycenter(pair, C.astype(np.float32), reg=0.1)
    with pytest.raises(InputError, match="ys"):
        free_support_barycenter([], x0=np.ones((2, 2)), reg=0.1)

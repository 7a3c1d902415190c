"""Batches of transport problems: each as good as alone, at regularisations where the bare kernel underflows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import sinkhorn, sinkhorn_batch
from xpsolve.solvers.result import Status


def histograms(n: int, count: int, seed: int = 0) -> np.ndarray:
    H = np.random.default_rng(seed).random((n, count)) + 0.05
    return H / H.sum(axis=0)


def line(n: int, m: int) -> np.ndarray:
    return (np.linspace(0, 1, n)[:, None] - np.linspace(0, 1, m)[None, :]) ** 2


@pytest.mark.parametrize("reg", [0.1, 1e-3])
def test_each_problem_is_as_good_as_alone(xp: Any, make: Any, reg: float) -> None:
    C, A, B = line(30, 40), histograms(30, 5), histograms(40, 5, 1)
    A[3, 1], A[:, 2] = 0.0, A[:, 2] * 7.0
    A[:, 1] /= A[:, 1].sum()
    B[:, 2] *= 7.0
    result = sinkhorn_batch(make(C), make(A), make(B), reg=reg, tol=1e-9, maxiter=50_000)
    assert result.converged
    assert type(result.f) is type(make(C))
    f, g = to_host(result.f), to_host(result.g)
    for k in range(5):
        with np.errstate(divide="ignore"):
            plan = A[:, k][:, None] * B[:, k][None, :] * np.exp((f[:, k][:, None] + g[:, k][None, :] - C) / reg)
        violation = np.abs(plan.sum(1) - A[:, k]).sum() + np.abs(plan.sum(0) - B[:, k]).sum()
        assert violation <= 1.01e-9 * A[:, k].sum() + 1e-12
        np.testing.assert_allclose(result.residuals[k], violation / A[:, k].sum(), atol=1e-12)
        single = sinkhorn(C, A[:, k], B[:, k], reg=reg, tol=1e-9, maxiter=50_000)
        np.testing.assert_allclose(result.values[k], single.value, atol=1e-8)
    assert f[3, 1] == -np.inf


def test_a_problem_far_from_the_mean_is_solved_by_itself() -> None:
    n = 60
    C = line(n, n)
    spike = np.zeros((n, 6)) + 1e-12
    for k in range(6):
        spike[10 * k, k] = 1.0
    spike /= spike.sum(axis=0)
    result = sinkhorn_batch(C, spike, spike[:, ::-1].copy(), reg=2e-4, tol=1e-7)
    assert result.converged
    assert result.alone
    exact = [((10 * k - 10 * (5 - k)) / (n - 1)) ** 2 for k in range(6)]
    np.testing.assert_allclose(result.values, exact, atol=3e-3)


def test_one_side_may_serve_all_and_float32_stays() -> None:
    C, A, b = line(20, 25), histograms(20, 4), histograms(25, 1)
    result = sinkhorn_batch(C.astype("f4"), A.astype("f4"), b.astype("f4"), reg=0.05)
    assert result.f.dtype == np.float32
    assert result.g.shape == (25, 4)
    wide = sinkhorn_batch(C, A, b, reg=0.05, tol=1e-9)
    np.testing.assert_allclose(result.values, wide.values, atol=1e-4)


def test_a_problem_without_a_plan_keeps_its_potentials() -> None:
    # Two separate pairs, whose weights differ in every problem: scalings grow without end, and must not end as zeros.
    C, A = np.asarray([[0.9, math.inf], [math.inf, 0.7]]), np.asarray([[0.82243119], [0.17756881]])
    B = np.asarray([[1.0, 0.1, 0.5], [0.0, 0.9, 0.5]])
    with pytest.warns(ConvergenceWarning):
        result = sinkhorn_batch(C, A, B, reg=0.05, maxiter=400)
    # In the first problem the second pair has no weight to send.
    assert np.isfinite(result.f[:, 1:]).all()
    assert np.isfinite(result.g[:, 1:]).all()
    # One marginal is exact, the other misses what the two differ by.
    np.testing.assert_allclose(result.residuals[1:], np.sum(np.abs(A - B), axis=0)[1:], atol=1e-9)


def test_limits_and_bad_input() -> None:
    C, A, B = line(15, 15), histograms(15, 3), histograms(15, 3, 1)
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        result = sinkhorn_batch(C, A, B, reg=1e-3, tol=1e-10, maxiter=2)
    assert result.status is Status.MAX_ITER
    assert np.isfinite(result.f).all()

    def stop(it: Any) -> None:
        raise StopIteration

    assert sinkhorn_batch(C, A, B, reg=0.1, callback=stop).status is Status.STOPPED
    for wrong, error, match in [
        ({"A": A[:-1]}, InputError, "A has shape"),
        ({"B": B[:, :2]}, InputError, "columns"),
        ({"A": -A}, InputError, "A has negative"),
        ({"A": 2.0 * A}, InputError, "sums"),
        ({"A": 0.0 * A}, InputError, "sums to zero"),
        ({"A": A.astype("f4")}, BackendError, "A has dtype"),
        ({"cost": C * np.nan}, InputError, "cost"),
        ({"reg": 0.0}, InputError, "reg"),
        ({"tol": -1.0}, InputError, "tol"),
    ]:
        arguments: dict[str, Any] = {"cost": C, "A": A, "B": B, "reg": 0.1} | wrong
        with pytest.raises(error, match=match):
            sinkhorn_batch(**arguments)


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 12), m=st.integers(1, 12), count=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_any_shape(n: int, m: int, count: int, seed: int) -> None:
    C = np.random.default_rng(seed).random((n, m))
    A, B = histograms(n, count, seed), histograms(m, count, seed + 1)
    result = sinkhorn_batch(C, A, B, reg=0.2, tol=1e-9)
    for k in range(count):
        np.testing.assert_allclose(result.values[k], sinkhorn(C, A[:, k], B[:, k], reg=0.2, tol=1e-9).value, atol=1e-8)

"""Newton, Sinkhorn-Newton-Sparse and kernel Sinkhorn on stored costs: closed forms, published sequences, hard inputs, faults."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import array_api_compat.numpy as npx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve import problems
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import PointCloud, sinkhorn
from xpsolve.solvers.ot.kernel_sinkhorn import kernel_sinkhorn
from xpsolve.solvers.ot.newton import newton
from xpsolve.solvers.ot.relaxation import Relaxation, best_omega, plain_rate
from xpsolve.solvers.ot.sns import sns
from xpsolve.solvers.result import Status

SOLVERS = [newton, kernel_sinkhorn, sns]


def lap(n: int, seed: int = 0) -> np.ndarray:
    return problems.lap(n, seed, xp=npx).cost


def digits(k: int, p: int, i: int = 0, j: int = 1) -> tuple[np.ndarray, ...]:
    pytest.importorskip("sklearn")
    pair = problems.digits_pair(p, k, images=(i, j), xp=npx)
    return pair.cost, pair.a, pair.b


def dense(result: Any) -> np.ndarray:
    """The plan from the potentials by its formula, outside the package."""
    f, g, a, b = (to_host(x).astype(np.float64) for x in (result.f, result.g, result.a, result.b))
    C = to_host(result.geometry.C).astype(np.float64)
    ok = np.isfinite(C) & np.isfinite(f)[:, None] & np.isfinite(g)
    exponents = np.where(
        ok, np.where(np.isfinite(f), f, 0)[:, None] + np.where(np.isfinite(g), g, 0) - np.where(ok, C, 0), 0
    )
    return np.where(ok, np.outer(a, b) * np.exp(exponents / result.reg), 0.0)


def violation(result: Any) -> float:
    P, a, b = dense(result), to_host(result.a), to_host(result.b)
    return float(np.abs(P.sum(axis=1) - a).sum() + np.abs(P.sum(axis=0) - b).sum())


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_by_two_closed_form(solver: Any) -> None:
    C, a, b = np.asarray([[0.1, 0.9], [0.4, 0.3]]), np.asarray([0.3, 0.7]), np.asarray([0.6, 0.4])
    np.testing.assert_allclose(dense(solver(C, a, b, reg=0.2, tol=1e-13))[0, 0], 0.2957273296050, atol=1e-12)
    for c, reg in ((1.0, 0.5), (2.0, 0.1)):
        P = dense(solver(np.asarray([[0.0, c], [c, 0.0]]), reg=reg, tol=1e-13))
        np.testing.assert_allclose(P[0, 0], 0.5 / (1 + math.exp(-c / reg)), atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_costs_that_split_and_circulant_costs(solver: Any) -> None:
    rng = np.random.default_rng(1)
    u, v, a, b = rng.random(7), rng.random(9), rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(9))
    result = solver(u[:, None] + v, a, b, reg=0.003, tol=1e-12)
    np.testing.assert_allclose(dense(result), np.outer(a, b), atol=1e-12)
    np.testing.assert_allclose(result.value, a @ u + b @ v, rtol=1e-12)
    n, reg = 64, 0.002
    c = (np.minimum(np.arange(n), n - np.arange(n)) / n) ** 2
    C = c[(np.arange(n)[:, None] - np.arange(n)) % n]
    result = solver(C, reg=reg, tol=1e-12)
    np.testing.assert_allclose(result.value, -reg * math.log(np.exp(-c / reg).mean()), rtol=1e-10)
    np.testing.assert_allclose(dense(result), np.exp(-C / reg) / (n * np.exp(-c / reg).sum()), atol=1e-13)


@pytest.mark.parametrize("solver", SOLVERS)
def test_invariances(solver: Any) -> None:
    """Permutation, a cost plus a splitting one, and units."""
    rng = np.random.default_rng(2)
    C, a, b = rng.random((30, 20)), rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(20))
    plain = solver(C, a, b, reg=0.02, tol=1e-12)
    order = rng.permutation(30)
    np.testing.assert_allclose(
        dense(solver(C[order], a[order], b, reg=0.02, tol=1e-12)), dense(plain)[order], atol=1e-11
    )
    u, v = rng.random(30), rng.random(20)
    shifted = solver(C + u[:, None] + v, a, b, reg=0.02, tol=1e-12)
    np.testing.assert_allclose(dense(shifted), dense(plain), atol=1e-11)
    np.testing.assert_allclose(shifted.value, plain.value + a @ u + b @ v, rtol=1e-11)
    # Weights of mass 3: the reference a b^T has mass 9, the plan 3.
    heavy = solver(7 * C, 3 * a, 3 * b, reg=0.14, tol=1e-12)
    np.testing.assert_allclose(heavy.value, 21 * plain.value - 3 * 0.14 * math.log(3), rtol=1e-10)
    np.testing.assert_allclose(dense(heavy), 3 * dense(plain), atol=1e-10)


def test_all_methods_agree_and_so_does_pot() -> None:
    C, a, b = digits(1, 2)
    reference = newton(C, a, b, reg=0.005, tol=1e-11)
    for result in (
        kernel_sinkhorn(C, a, b, reg=0.005, tol=1e-11),
        kernel_sinkhorn(C, a, b, reg=0.005, tol=1e-11, omega=1.0),
        sns(C, a, b, reg=0.005, tol=1e-11),
        sinkhorn(C, a, b, reg=0.005, tol=1e-11),
    ):
        assert result.converged
        np.testing.assert_allclose(result.value, reference.value, rtol=1e-9)
        np.testing.assert_allclose(dense(result), dense(reference), atol=1e-10)
    ot = pytest.importorskip("ot")
    P = ot.sinkhorn(a, b, C, 0.005, stopThr=1e-12, numItermax=20_000)
    np.testing.assert_allclose(dense(reference), P, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_library(solver: Any, xp: Any, make: Any) -> None:
    rng = np.random.default_rng(3)
    C, a, b = rng.random((40, 30)), rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(30))
    a[5], b[7] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    reference = solver(C, a, b, reg=1 / 200, tol=1e-10)
    before = make(C)
    result = solver(before, make(a), make(b), reg=1 / 200, tol=1e-10)
    assert result.converged
    assert type(result.f) is type(make(a))
    assert abs(result.n_iter - reference.n_iter) <= 1
    np.testing.assert_array_equal(to_host(before), C)
    np.testing.assert_allclose(result.value, reference.value, rtol=1e-10)
    assert violation(result) <= 1.1e-10
    assert to_host(result.f)[5] == -math.inf
    assert to_host(result.g)[7] == -math.inf
    np.testing.assert_allclose(to_host(result.plan @ make(np.ones(30))), a, atol=1e-10)
    single = solver(make(C.astype(np.float32)), make(a.astype(np.float32)), make(b.astype(np.float32)), reg=1 / 200)
    assert single.converged
    assert single.f.dtype == xp.float32
    np.testing.assert_allclose(single.value, reference.value, atol=1e-5)


def test_published_newton_sequence() -> None:
    """Random assignment, 500 points, eta = 1200: 20 Sinkhorn iterations, then at most 10 Newton steps to 1e-12."""
    sequence = [1.8e-2, 8.5e-3, 4.5e-4, 4.9e-5, 7.7e-6, 1.4e-6, 2.4e-7, 2.7e-9]
    for seed in range(3):
        full = sns(lap(500, seed), reg=1 / 1200, tol=1e-12)
        kept = sns(lap(500, seed), reg=1 / 1200, tol=1e-12, keep=8)
        assert full.converged
        assert kept.converged
        assert full.evaluations["newton"] <= 10
        assert abs(kept.evaluations["newton"] - full.evaluations["newton"]) <= 1
        assert violation(full) <= 1.5e-12
        if seed == 0:
            # Same phases as the published run, to half an order of magnitude.
            np.testing.assert_allclose(np.log10(full.history[20:28]), np.log10(sequence), atol=0.5)
    # Too few entries make the Newton stage linear.
    assert sns(lap(500), reg=1 / 1200, tol=1e-9, keep=2).evaluations["newton"] >= 25


def test_newton_counts_stay_where_they_are() -> None:
    result = newton(lap(500), reg=1 / 1200, tol=1e-9)
    assert result.evaluations["newton"] <= 12
    assert result.evaluations["exp_passes"] <= 8
    C, a, b = digits(3, 1)
    result = newton(C, a, b, reg=1 / 1200, tol=1e-9)
    assert result.evaluations["newton"] <= 35
    assert result.evaluations["exp_passes"] <= 80
    assert violation(result) <= 2e-9


def robust() -> dict[str, tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(7)
    R = rng.uniform(size=(80, 140))
    a, b = rng.dirichlet(np.full(80, 0.3)) + 1e-9, rng.dirichlet(np.full(140, 0.3)) + 1e-9
    x = np.linspace(0, 1, 120)
    ha, hb = np.exp(-((x - 0.2) ** 2) / 0.005) + 1e-6, np.exp(-((x - 0.8) ** 2) / 0.002) + 1e-6
    points, targets = rng.random((100, 2)), rng.random((100, 2))
    return {
        "rectangular": (R, a / a.sum(), b / b.sum()),
        "histograms": ((x[:, None] - x) ** 2, ha / ha.sum(), hb / hb.sum()),
        "digits": digits(1, 1, 3, 8),
        "cloud": (np.sqrt(((points[:, None] - targets) ** 2).sum(axis=2)), np.full(100, 0.01), np.full(100, 0.01)),
    }


@pytest.mark.parametrize("name", ["rectangular", "histograms", "digits", "cloud"])
@pytest.mark.parametrize("eta", [50, 1e3, 1e4, 1e5])
def test_newton_reaches_every_regularisation(name: str, eta: float) -> None:
    C, a, b = robust()[name]
    result = newton(C, a, b, reg=1 / eta, tol=1e-9)
    assert result.converged
    assert violation(result) <= 1e-9 + 1e-15 * eta


@pytest.mark.parametrize("floor", [1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("eta", [1e4, 1e5])
def test_newton_does_not_lose_points_of_next_to_no_weight(floor: float, eta: float) -> None:
    from sklearn.datasets import load_digits

    # Weights far below the error of most steps, which steps used to throw away for good.
    a, b = (np.reshape(load_digits().images[i], -1) + floor for i in (0, 4))
    line = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij"), axis=-1).reshape(-1, 2)
    C = ((line[:, None] - line) ** 2).sum(axis=2)
    result = newton(C / C.max(), a / a.sum(), b / b.sum(), reg=1 / eta, tol=1e-10)
    assert result.converged
    assert result.n_iter < 400
    # What is left is the rounding of potentials of some hundreds or thousands.
    assert violation(result) <= 1e-10 + 1e-15 * eta


def test_newton_reaches_the_rounding_of_its_potentials_where_the_plan_falls_apart() -> None:
    # At this regularisation the plan is nearly a permutation; its parts hang together by 1e-14 of the mass.
    rng = np.random.default_rng(5)
    x, y = rng.uniform(size=(300, 2)), rng.uniform(size=(300, 2))
    C = ((x[:, None] - y) ** 2).sum(axis=2)
    result = newton(C / C.max(), reg=1e-5, tol=1e-12)
    assert result.converged
    assert result.residual <= 1e-12


def test_weak_regularisation_is_the_linear_programme() -> None:
    from scipy.optimize import linear_sum_assignment

    C = lap(60, 4)
    rows, columns = linear_sum_assignment(C)
    result = newton(C, reg=1e-6, tol=1e-9)
    np.testing.assert_allclose((dense(result) * C).sum(), C[rows, columns].mean(), atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32(solver: Any) -> None:
    C, a, b = digits(2, 2)
    exact = newton(C, a, b, reg=1 / 1200, tol=1e-10)
    tolerance = 5e-6 if solver is not sns else 1e-4
    result = solver(C.astype(np.float32), a.astype(np.float32), b.astype(np.float32), reg=1 / 1200, tol=tolerance)
    assert result.converged
    assert result.f.dtype == np.float32
    # float32 weights are themselves wrong by 1e-7 in sum.
    assert violation(result) <= tolerance + 1e-6
    assert abs((dense(result) * C).sum() - (dense(exact) * C).sum()) <= 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
def test_small_shapes_and_forbidden_pairs(solver: Any) -> None:
    one = solver(np.ones((1, 1)), reg=0.1, tol=1e-12)
    assert one.converged
    np.testing.assert_allclose(one.value, 1.0)
    np.testing.assert_allclose(
        dense(solver(np.arange(5.0)[None, :], reg=0.01, tol=1e-12))[0], np.full(5, 0.2), atol=1e-13
    )
    rng = np.random.default_rng(0)
    C = rng.uniform(size=(5, 4))
    C[0, 1], C[2, :3] = np.inf, np.inf
    result = solver(C, np.full(5, 0.2), np.full(4, 0.25), reg=0.01, tol=1e-11)
    assert result.converged
    assert violation(result) <= 1.1e-11
    assert dense(result)[2, 3] == pytest.approx(0.2, abs=1e-10)
    finite = solver(np.where(np.isfinite(C), C, 10.0), np.full(5, 0.2), np.full(4, 0.25), reg=0.01, tol=1e-11)
    np.testing.assert_allclose(result.value, finite.value, rtol=1e-9)
    C[2] = np.inf
    with pytest.warns(ConvergenceWarning):
        result = solver(C, np.full(5, 0.2), np.full(4, 0.25), reg=0.01, maxiter=200)
    # A point that can reach nobody: never below twice its mass, and the residual is a bound on the violation.
    assert 0.4 - 1e-9 <= violation(result) <= result.residual + 1e-9 <= 0.41
    with pytest.raises(InputError, match="forbids every pair"):
        solver(np.full((3, 3), np.inf), reg=0.1)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 12), seed=st.integers(0, 10**6), eta=st.floats(1, 1e4))
def test_any_shape_and_weights(n: int, m: int, seed: int, eta: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(n)) * (rng.random(n) < 0.8), rng.dirichlet(np.ones(m)) * (rng.random(m) < 0.8)
    a[0] += 0.1
    b[-1] += 0.1
    result = newton(rng.random((n, m)), a / a.sum(), b / b.sum(), reg=1 / eta, tol=1e-9)
    assert result.converged
    assert violation(result) <= 1.1e-9


def test_warm_start_skips_the_annealing() -> None:
    C, a, b = digits(2, 2)
    first = newton(C, a, b, reg=1e-3, tol=1e-9)
    again = newton(C, a, b, reg=1e-3, tol=1e-9, x0=(first.f, first.g))
    assert again.n_iter <= 1
    assert again.evaluations["levels"] == 1
    near = newton(C, a, b, reg=0.9e-3, tol=1e-9, x0=(first.f, first.g))
    assert near.evaluations["levels"] == 1
    bad = (np.random.default_rng(0).normal(size=256), np.random.default_rng(1).normal(size=256))
    assert newton(C, a, b, reg=1e-3, tol=1e-9, x0=bad).converged
    assert kernel_sinkhorn(C, a, b, reg=1e-3, tol=1e-9, x0=(first.f, first.g)).n_iter <= 1


@pytest.mark.parametrize("solver", [newton, sns, kernel_sinkhorn])
def test_an_interrupt_leaves_valid_potentials(solver: Any) -> None:
    C, a, b = digits(2, 2)

    def interrupt(it: Any) -> None:
        if it.n_iter == 3:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted"):
        result = solver(C, a, b, reg=1e-3, callback=interrupt)
    assert result.status is Status.INTERRUPTED
    np.testing.assert_allclose(result.residual, violation(result), rtol=1e-6)
    assert violation(result) < 2
    finished = solver(C, a, b, reg=1e-3, x0=(result.f, result.g), tol=1e-8)
    assert finished.converged
    with pytest.warns(ConvergenceWarning, match="limit"):
        limited = newton(C, a, b, reg=1e-3, maxiter=2)
    assert limited.status is Status.MAX_ITER
    np.testing.assert_allclose(limited.residual, violation(limited), rtol=1e-6)


def test_an_error_in_the_callback_carries_the_result() -> None:
    def fail(it: Any) -> None:
        if it.n_iter == 4:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        newton(lap(50), reg=1e-3, callback=fail)
    np.testing.assert_allclose(caught.value.result.residual, violation(caught.value.result), rtol=1e-6)  # type: ignore[attr-defined]


def test_out_of_reach_is_said() -> None:
    with pytest.warns(ConvergenceWarning):
        result = newton(lap(60), reg=1e-4, tol=1e-19)
    assert result.status is Status.STAGNATED
    assert violation(result) < 1e-10


def test_kernel_iterates_are_those_of_the_log_domain() -> None:
    C, a, b = digits(1, 2)
    log, kernel = sinkhorn(C, a, b, reg=2e-3, tol=1e-10), kernel_sinkhorn(C, a, b, reg=2e-3, tol=1e-10, omega=1.0)
    assert abs(log.n_iter - kernel.n_iter) <= 1
    np.testing.assert_allclose(log.history[5:60], kernel.history[5:60], rtol=1e-6)


def test_absorption_is_invisible() -> None:
    """A start far away forces absorptions."""
    C, a, b = digits(1, 2)
    x0 = (5 * np.sin(np.arange(64.0)), 5 * np.cos(np.arange(64.0)))
    far = kernel_sinkhorn(C, a, b, reg=5e-3, tol=1e-10, x0=x0, maxiter=50_000)
    assert far.evaluations["exp_passes"] > 2
    np.testing.assert_allclose(far.value, newton(C, a, b, reg=5e-3, tol=1e-10).value, rtol=1e-9)


def test_relaxation_finds_the_rate_and_the_factor() -> None:
    C, a, b = digits(2, 2)
    P = dense(newton(C, a, b, reg=2.5e-3, tol=1e-12))
    sigma = np.linalg.svd(P / np.sqrt(np.outer(P.sum(axis=1), P.sum(axis=0))), compute_uv=False)[1]
    plain = kernel_sinkhorn(C, a, b, reg=2.5e-3, tol=1e-11, omega=1.0)
    late = plain.history[-21:-1]
    np.testing.assert_allclose((late[-1] / late[0]) ** (1 / 19), sigma**2, atol=1e-3)
    relaxed = kernel_sinkhorn(C, a, b, reg=2.5e-3, tol=1e-11)
    assert 4 * relaxed.n_iter < plain.n_iter
    # Young's relation, from a sequence with the exact rate of an under-relaxed run.
    w, tuned = 1.5, Relaxation(1.5, True)
    roots = np.roots([1, 2 * (w - 1) - w**2 * sigma**2, (w - 1) ** 2])
    rate = float(np.max(np.abs(roots)))
    for k in range(20):
        tuned = tuned.seen(rate**k)
    np.testing.assert_allclose(tuned.omega, 2 / (1 + math.sqrt(1 - sigma**2)), rtol=1e-9)
    # A growing error makes it cautious, and the factor never reaches two.
    for k in range(20):
        tuned = tuned.seen(rate**20 * 1.05**k)
    assert 1 < tuned.omega < 2 / (1 + math.sqrt(1 - sigma**2))
    assert all(
        1 <= Relaxation(w, True, 19, 1.0).seen(e).omega < 2 for w in (1.0, 1.9) for e in (1e-30, 0.5, 0.999999, 1e9)
    )


@given(sigma=st.floats(0.05, 0.9999), omega=st.floats(1.0, 1.9))
def test_youngs_relation(sigma: float, omega: float) -> None:
    if omega < best_omega(sigma) - 1e-3:
        # The larger root of (lam + w - 1)^2 = sigma w^2 lam.
        half = 0.5 * (sigma * omega**2 - 2 * (omega - 1))
        lam = half + math.sqrt(half**2 - (omega - 1) ** 2)
        assert plain_rate(lam, omega) == pytest.approx(sigma, rel=1e-9)


def test_relaxation_begins_again_when_errors_explode() -> None:
    def after(tuned: Relaxation, error: float) -> Relaxation:
        for _ in range(10):
            tuned = tuned.seen(error)
        return tuned

    tuned = after(after(Relaxation.of("auto"), 0.9**10), 0.9**20)
    first = tuned.omega
    assert 1 < first < 2
    tuned = after(after(tuned, 0.10), 0.11)
    assert 1 < tuned.omega < first
    tuned = after(tuned, 5.0)
    assert tuned.omega == 1.0
    assert after(tuned, math.nan).omega == 1.0


def test_errors_fall_in_the_newton_stage() -> None:
    history = newton(lap(200), reg=1e-3, tol=1e-11).history[-5:]
    assert all(after < before for before, after in pairwise(history))


@pytest.mark.parametrize("solver", SOLVERS)
def test_bad_input(solver: Any) -> None:
    C = lap(4)
    cloud = PointCloud(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(InputError, match="stored cost"):
        solver(cloud, reg=0.1)
    with pytest.raises(InputError, match="reg"):
        solver(C, reg=0.0)
    with pytest.raises(InputError, match="NaN"):
        solver(np.where(C > 0.5, np.nan, C), reg=0.1)
    with pytest.raises(InputError, match="sums to"):
        solver(C, np.full(4, 0.5), np.full(4, 0.25), reg=0.1)
    with pytest.raises(InputError, match="negative"):
        solver(C, np.asarray([0.5, 0.6, -0.1, 0.0]), reg=0.1)
    with pytest.raises(InputError, match="x0"):
        solver(C, reg=0.1, x0=np.ones(4))
    with pytest.raises(InputError, match=r"x0\[1\]"):
        solver(C, reg=0.1, x0=(np.ones(4), np.ones(3)))
    with pytest.raises(BackendError, match="cost"):
        solver(C.astype(int), reg=0.1)


def test_bad_options() -> None:
    with pytest.raises(InputError, match="omega"):
        kernel_sinkhorn(lap(3), reg=0.1, omega=2.0)
    with pytest.raises(InputError, match="omega"):
        kernel_sinkhorn(lap(3), reg=0.1, omega="best")
    with pytest.raises(InputError, match="keep"):
        sns(lap(3), reg=0.1, keep=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_looks_warm_starts_splitting_and_units(solver: Any) -> None:
    rng = np.random.default_rng(0)
    C, a = rng.random((80, 60)), rng.random(80)
    a[:9] = 0
    a /= a.sum()
    result = solver(C, a, reg=1e-2, tol=1e-10, check_every=7)
    assert result.converged
    assert solver(C, a, reg=1e-2, tol=1e-9, x0=(result.f, result.g)).n_iter == 0
    # Two halves of a point are the point; units of the cost do not matter; Fortran order neither.
    split = solver(np.repeat(C, 2, axis=0), np.repeat(a, 2) / 2, reg=1e-2, tol=1e-10)
    np.testing.assert_allclose(split.value, result.value, rtol=1e-11)
    np.testing.assert_allclose(solver(C * 1e6, a, reg=1e4, tol=1e-10).value, 1e6 * result.value, rtol=1e-11)
    np.testing.assert_allclose(solver(np.asfortranarray(C), a, reg=1e-2, tol=1e-10).value, result.value, rtol=1e-11)
    assert solver(np.zeros((4, 3)), reg=1.0).value == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("which", [4, 6, 7, 8, 9])
@pytest.mark.parametrize("weak", [1e4, 1e5])
@pytest.mark.parametrize("solve", [kernel_sinkhorn, sinkhorn])
def test_over_relaxation_never_leaves_more_than_a_few_masses(solve: Any, which: int, weak: float) -> None:
    # Unbounded relaxed steps ended here at errors between 1e41 and 1e144, or not finite.
    pytest.importorskip("sklearn")
    problem = problems.robustness_set(xp=npx)[which]
    most = 700 if solve is kernel_sinkhorn else 60
    reg = float(problem.cost.max()) / weak
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = solve(problem.cost, problem.a, problem.b, reg=reg, omega="auto", maxiter=most)
    assert result.status in {Status.CONVERGED, Status.MAX_ITER}
    assert max(result.history) <= 25
    # The best state that was looked at, recomputed; early errors leave nothing out.
    assert result.residual <= 1.01 * min(result.history) + 1e-9


def test_newton_that_stagnates_ends_on_its_best_state() -> None:
    problem = problems.random_marginals(300, 5, xp=npx)
    with pytest.warns(ConvergenceWarning, match="newton"):
        result = newton(problem.cost, problem.a, problem.b, reg=1e-3, tol=1e-17)
    assert result.status is Status.STAGNATED
    assert result.residual < 1e-13


@pytest.mark.parametrize("solver", [newton, sinkhorn])
def test_the_residual_of_float32_potentials_is_that_of_their_plan(make: Any, solver: Any) -> None:
    # Potentials 30,000 times the regularisation: their rounding alone moves 1e-4 of the mass.
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, y = rng.random((40, 2)), rng.random((30, 2))
        C = ((x[:, None] - y) ** 2).sum(-1).astype("f4")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = solver(make(C), reg=float(C.max()) * 3e-5, maxiter=100)
        plan = to_host(result.dense_plan()).astype(float)
        truth = np.abs(plan.sum(axis=1) - 1 / 40).sum() + np.abs(plan.sum(axis=0) - 1 / 30).sum()
        assert result.residual == pytest.approx(truth, rel=1e-3, abs=1e-6)
        assert result.converged == (result.residual <= 1e-4)

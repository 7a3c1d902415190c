"""Sketched least squares: backward errors against Householder QR, honest statuses, every sketch, method and library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, BreakdownError, ConvergenceWarning, InputError
from xpsolve.backends.namespace import array_namespace
from xpsolve.backends.operators import LinearOperator, as_operator
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.solvers.linear.sketching import lstsq_sketched, products, sketch
from xpsolve.solvers.result import Status

KINDS = ("gaussian", "srht", "fjlt", "sparse_sign", "countsketch")
METHODS = ("fossils", "precondition", "iterative", "solve")
HARD = [(1e6, 1e-3), (1e10, 1e-12), (1e12, 1e-12), (1e12, 1e-3)]


def hardls(m: int, n: int, condition: float, residual: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Problem of known solution, condition and residual."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((m, n + 1)))[0]
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = (U[:, :n] * np.logspace(0, -np.log10(condition), n)) @ V.T
    x = rng.standard_normal(n)
    x /= np.linalg.norm(x)
    return A, A @ x + residual * U[:, n], x


def backward_error(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> float:
    """Estimate of Karlson and Walden, perturbations of A only, from a full SVD of A."""
    _, sigma, Vh = np.linalg.svd(A, full_matrices=False)
    r = b - A @ x
    scale = np.sqrt((np.linalg.norm(x) * sigma) ** 2 + np.linalg.norm(r) ** 2)
    return float(np.linalg.norm(Vh @ (A.conj().T @ r) / scale))


@pytest.mark.parametrize(("condition", "residual"), HARD)
def test_backward_stable_as_householder_qr(condition: float, residual: float) -> None:
    A, b, x = hardls(4000, 50, condition, residual, 1)
    Q, R = np.linalg.qr(A)
    by_qr = np.linalg.solve(R, Q.T @ b)
    bound = 10 * backward_error(A, b, by_qr)
    forward = 30 * np.linalg.norm(by_qr - x)
    for method, seed in (("fossils", 2), ("fossils", 3), ("precondition", 2)):
        for d in (None, 600):
            result = lstsq_sketched(A, b, method=method, rng=seed, d=d)
            assert result.converged
            assert backward_error(A, b, result.x) <= bound
            assert np.linalg.norm(result.x - x) <= forward


def test_what_the_tests_of_stability_can_see() -> None:
    """The normal equations and the unrefined iteration fail the bound that the refined methods keep."""
    A, b, _ = hardls(4000, 50, 1e12, 1e-3, 1)
    Q, R = np.linalg.qr(A)
    bound = 10 * backward_error(A, b, np.linalg.solve(R, Q.T @ b))
    with pytest.warns(ConvergenceWarning, match="no further progress"):
        result = lstsq_sketched(A, b, method="iterative", rng=2)
    assert result.status is Status.STAGNATED
    assert backward_error(A, b, result.x) > bound
    # The estimate that came with it is the true one up to the distortion of the sketch.
    ratio = result.residual * np.linalg.norm(A) / backward_error(A, b, result.x)
    assert 0.6 < ratio < 1.6
    A, b, _ = hardls(4000, 50, 1e6, 1e-3, 1)
    assert backward_error(A, b, np.linalg.solve(A.T @ A, A.T @ b)) > 100 * bound


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_least_squares_on_every_library(xp: Any, make: Any, method: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((900, 5)), rng.standard_normal((900, 3)) * np.asarray([1.0, 1e-3, 0.0])
    if "complex" in dtype:
        A, B = A + 1j * rng.standard_normal(A.shape), B + 1j * rng.standard_normal(B.shape) * B
    A, B = A.astype(dtype), B.astype(dtype)
    given, right = make(A), make(B)
    result = lstsq_sketched(given, right, method=method, rng=1)
    x, eps = to_host(result.x), np.finfo(dtype).eps
    assert type(result.x) is type(right)
    assert result.x.dtype == right.dtype
    np.testing.assert_array_equal(to_host(given), A)
    np.testing.assert_array_equal(to_host(right), B)
    assert np.all(x[:, 2] == 0)
    truth = np.linalg.lstsq(A.astype(complex), B.astype(complex), rcond=None)[0]
    scale = np.asarray([1.0, 1e-3, 1.0])
    np.testing.assert_allclose(x / scale, truth / scale, atol=0.3 if method == "solve" else 200 * eps)
    residuals = np.linalg.norm(B - A.astype(complex) @ x, axis=0)
    np.testing.assert_allclose(result.residual_norm, residuals.max(), rtol=20 * eps)
    assert abs(result.n_iter - lstsq_sketched(A, B, method=method, rng=1).n_iter) <= 2
    single = to_host(lstsq_sketched(given, right[:, 0], method=method, rng=1).x)
    np.testing.assert_allclose(single, x[:, 0], atol=300 * eps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["fossils", "precondition"])
def test_every_sketch_leads_to_the_same_solution(kind: str, method: str) -> None:
    A, b, x = hardls(3000, 20, 1e5, 1e-6, 4)
    for seed in (1, 2):
        result = lstsq_sketched(A, b, method=method, sketch=kind, rng=seed)
        assert result.converged
        np.testing.assert_allclose(result.x, x, atol=1e-9)


def test_rates_do_not_know_the_condition() -> None:
    counts = [lstsq_sketched(*hardls(4000, 50, c, 0.1, 5)[:2], rng=1).n_iter for c in (1e1, 1e4, 1e8)]
    assert max(counts) <= 55
    # sqrt(n/d) = .289 a step and the safety of the momentum, .370; without momentum it would be .53.
    history = np.asarray(lstsq_sketched(*hardls(4000, 50, 1e2, 0.1, 5)[:2], rng=1, d=600, method="iterative").history)
    rate = (history[16] / history[4]) ** (1 / 12)
    assert 0.25 < rate < 0.40


@pytest.mark.parametrize("method", ["fossils", "precondition", "iterative"])
def test_damping(method: str) -> None:
    A, b, _ = hardls(2000, 30, 1e14, 1e-2, 6)
    mu = 1e-3
    truth = np.linalg.lstsq(np.vstack([A, mu * np.eye(30)]), np.concatenate([b, np.zeros(30)]), rcond=None)[0]
    result = lstsq_sketched(A, b, damp=mu, method=method, rng=1)
    assert result.converged
    np.testing.assert_allclose(result.x, truth, rtol=1e-8, atol=1e-9)


def test_operators_and_sparse_matrices_are_sketched_too() -> None:
    A, b, _ = hardls(2500, 70, 1e3, 1e-8, 7)
    A = np.where(np.abs(A) > 0.01, A, 0.0)
    truth = np.linalg.lstsq(A, b, rcond=None)[0]
    op = LinearOperator(A.shape, A.__matmul__, rmatvec=A.T.__matmul__, dtype=A.dtype)
    for matrix in (sps.csr_array(A), op):
        np.testing.assert_allclose(lstsq_sketched(matrix, b, rng=1).x, truth, rtol=1e-9)


def test_short_matrices_need_no_sketch() -> None:
    for m, n in ((2, 1), (40, 39), (100, 10)):
        A, b, x = hardls(m, n, 10.0 if n > 1 else 1.0, 0.5, 8)
        for method in METHODS:
            result = lstsq_sketched(A, b, method=method)
            assert result.n_iter <= 3
            np.testing.assert_allclose(result.x, x, atol=1e-12)


def test_zero_right_hand_side() -> None:
    result = lstsq_sketched(np.random.default_rng(9).standard_normal((500, 4)), np.zeros(500), rng=0)
    assert result.converged
    assert result.x.tolist() == [0.0] * 4


def test_bad_least_squares_are_refused() -> None:
    rng = np.random.default_rng(10)
    A, b = rng.standard_normal((600, 4)), rng.standard_normal(600)
    wrong = A.copy()
    wrong[3, 2] = np.nan
    with pytest.raises(InputError, match="A contains NaN"):
        lstsq_sketched(wrong, b)
    with pytest.raises(InputError, match="b contains NaN"):
        lstsq_sketched(A, np.where(b > 2, np.inf, b))
    with pytest.raises(InputError, match="more rows than columns"):
        lstsq_sketched(A[:4], b[:4])
    with pytest.raises(InputError, match="expected 599 rows"):
        lstsq_sketched(A, b[:-1])
    with pytest.raises(InputError, match="d is 4"):
        lstsq_sketched(A, b, d=4)
    with pytest.raises(InputError, match="method"):
        lstsq_sketched(A, b, method="qr")
    with pytest.raises(InputError, match="sketch"):
        lstsq_sketched(A, b, sketch="dct")
    with pytest.raises(InputError, match="damp"):
        lstsq_sketched(A, b, damp=-1.0)
    with pytest.raises(BackendError, match="A has dtype"):
        lstsq_sketched(A.astype(np.float32), b)
    with pytest.raises(InputError, match="adjoint"):
        lstsq_sketched(LinearOperator((600, 4), A.__matmul__, dtype=A.dtype), b)


def test_lost_rank_is_said(xp: Any, make: Any) -> None:
    rng = np.random.default_rng(11)
    for A in (
        np.repeat(rng.standard_normal((700, 3)), 2, axis=1),
        rng.standard_normal((700, 3)) @ rng.standard_normal((3, 8)),
        np.zeros((700, 2)),
        np.eye(700)[:, :4] * np.asarray([1.0, 1.0, 0.0, 1.0]),
    ):
        with pytest.raises(BreakdownError, match="rank deficient"):
            lstsq_sketched(make(A), make(np.ones(700)), rng=0)
        assert lstsq_sketched(make(A), make(np.ones(700)), rng=0, damp=0.5).converged
    # Badly scaled columns are no loss of rank.
    A = rng.standard_normal((700, 4)) * np.asarray([1.0, 1e-18, 1e9, 1e-30])
    x = to_host(lstsq_sketched(make(A), make(A @ np.asarray([1.0, 1e18, 1e-9, 1e30])), rng=0).x)
    np.testing.assert_allclose(x, [1.0, 1e18, 1e-9, 1e30], rtol=1e-10)


def test_the_loop_is_the_shared_one() -> None:
    A, b, _ = hardls(3000, 40, 1e4, 0.1, 12)
    with pytest.warns(ConvergenceWarning, match="lstsq_sketched"):
        result = lstsq_sketched(A, b, rng=1, maxiter=3)
    assert result.status is Status.MAX_ITER
    seen: list[int] = []
    lstsq_sketched(A, b, rng=1, callback=lambda it: seen.append(it.x.shape[0]))
    assert set(seen) == {40}
    with pytest.warns(ConvergenceWarning):
        assert not lstsq_sketched(A, b, rng=1, method="solve", rtol=1e-10).converged


@pytest.mark.parametrize(("kind", "d"), [("gaussian", 60), ("srht", 60), ("sparse_sign", 60), ("gaussian", 40)])
def test_small_sketches_do_not_make_the_momentum_diverge(kind: str, d: int) -> None:
    A, b, x = hardls(1500, 12, 1e3, 1e-2, 16)
    for seed in range(15):
        result = lstsq_sketched(A, b, sketch=kind, d=d, rng=seed, maxiter=2000)
        assert result.converged
        np.testing.assert_allclose(result.x, x, atol=1e-9)


@pytest.mark.parametrize("method", ["fossils", "precondition"])
def test_a_start_far_off_is_left(method: str) -> None:
    """The sketched solution of an ill-conditioned problem is 1e5 times too long: its backward error is small for that alone."""
    for seed in range(12):
        A, b, _ = hardls(1500 + 300 * seed, 2 + seed, 1e11, 0.05, seed)
        result = lstsq_sketched(A, b, method=method, sketch="gaussian", rng=seed)
        assert result.converged
        assert backward_error(A, b, result.x) <= 3 * np.finfo(float).eps * np.linalg.norm(A)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("shape", [(700,), (700, 3)])
def test_products_in_blocks_are_the_products(
    monkeypatch: pytest.MonkeyPatch, dtype: str, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(products, "_WORTH_BYTES", 0)
    monkeypatch.setattr(products, "_BLOCK_BYTES", 5000)
    rng = np.random.default_rng(17)

    def draw(*size: int) -> np.ndarray:
        return (rng.standard_normal(size) + (1j * rng.standard_normal(size) if "complex" in dtype else 0.0)).astype(
            dtype
        )

    A, u, w = draw(700, 9), draw(*shape), draw(9, *shape[1:])
    pair = products.residual_and_gradient(as_operator(A, like=u, square=False), A, array_namespace(u=u))
    tolerance = 2000 * np.finfo(dtype).eps
    for alpha, other in ((2.0, u), (None, None)):
        r, gradient = pair(w, alpha, other)
        assert r.dtype == gradient.dtype == u.dtype
        expected = A @ w - (2.0 * u if other is not None else 0.0)
        np.testing.assert_allclose(r, expected, atol=tolerance)
        back = A.conj().T @ expected
        np.testing.assert_allclose(gradient, back, atol=20 * np.finfo(dtype).eps * np.abs(back).max())
    for method in ("fossils", "precondition"):
        blocked = lstsq_sketched(A, u, method=method, rng=1, d=100)
        monkeypatch.setattr(products, "_WORTH_BYTES", 2**40)
        whole = lstsq_sketched(A, u, method=method, rng=1, d=100)
        monkeypatch.setattr(products, "_WORTH_BYTES", 0)
        assert blocked.converged
        np.testing.assert_allclose(blocked.x, whole.x, atol=tolerance)


def test_few_transfers() -> None:
    A, b, _ = hardls(4000, 50, 1e4, 0.1, 14)
    for method in ("fossils", "precondition", "iterative"):
        with count_transfers() as transfers:
            result = lstsq_sketched(A, b, rng=1, method=method, check_every=10)
        assert transfers.n <= 2 * (result.n_iter / 10) + 20


def test_moderately_tall_matrices_are_still_sketched() -> None:
    A, b, x = hardls(3000, 250, 1e3, 1e-3, 15)
    for method in METHODS[:3]:
        result = lstsq_sketched(A, b, rng=1, method=method)
        assert 5 < result.n_iter < 90
        np.testing.assert_allclose(result.x, x, atol=1e-9)


def test_single_coefficients_need_a_dense_sketch() -> None:
    """An outlier outside the range of A: CountSketch puts all of it on one coefficient in about a tenth of the draws."""
    A, b = np.eye(2048)[:, :64], np.eye(2048)[:, 64]
    rng = np.random.default_rng(13)

    def errors(kind: str, number: int) -> np.ndarray:
        found = []
        for _ in range(number):
            S = sketch(kind, 512, 2048, like=b, rng=rng)
            found.append(np.abs(np.linalg.lstsq(S @ A, S @ b, rcond=1e-12)[0]).max())
        return np.asarray(found)

    draws = {"gaussian": 40, "srht": 60, "sparse_sign": 100, "countsketch": 300}
    dense_error, transformed, sparse, count = (errors(kind, number) for kind, number in draws.items())
    assert 0.09 < np.median(dense_error) < 0.16
    assert dense_error.max() < 0.25
    assert 0.08 < np.median(transformed) < 0.14
    assert transformed.max() < 0.3
    assert 0.11 < np.median(sparse) < 0.2
    assert sparse.max() < 0.45
    # A pair of collided columns shares the outlier, so count at half its weight; 11.8 % in theory.
    heavy = np.mean(count > 0.4)
    assert 0.06 < heavy < 0.19
    assert np.median(count) < 1e-12
    single = lstsq_sketched(A, b, method="solve", sketch="gaussian", d=512, rng=3).x
    S = sketch("gaussian", 512, 2048, like=b, rng=3)
    np.testing.assert_allclose(single, np.linalg.lstsq(S @ A, S @ b, rcond=None)[0], atol=1e-13)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 12),
    extra=st.integers(1, 600),
    method=st.sampled_from(METHODS[:3]),
    condition=st.floats(1.0, 1e6),
    seed=st.integers(0, 2**16),
)
def test_any_least_squares(n: int, extra: int, method: str, condition: float, seed: int) -> None:
    # Iterative sketching is forward stable only: further up it may stop short, and says so.
    condition = min(condition, 1e4) if method == "iterative" else condition
    A, b, _ = hardls(n + extra, n, condition if n > 1 else 1.0, 0.1, seed)
    result = lstsq_sketched(A, b, method=method, rng=seed)
    assert result.converged
    assert backward_error(A, b, result.x) <= 100 * np.finfo(float).eps * max(1.0, np.linalg.norm(A))


@pytest.mark.parametrize("method", ["fossils", "precondition", "iterative"])
@pytest.mark.parametrize("size", [1e-200, 1e-160, 1e160, 1e200])
def test_units_of_the_matrix_are_no_loss_of_rank(make: Any, method: str, size: float) -> None:
    """Squares of such entries underflow or overflow; neither is called rank deficient, nor solved where it is not."""
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((400, 10)), rng.standard_normal(400)
    truth = np.linalg.lstsq(A, b)[0]
    result = lstsq_sketched(make(size * A), make(b), method=method, rng=1)
    assert result.converged
    np.testing.assert_allclose(to_host(result.x) * size, truth, rtol=1e-9)
    with pytest.raises(InputError, match="leaves the range"):
        lstsq_sketched(make(size * A), make(size * b), method=method, rng=1)


def test_units_of_single_precision(make: Any) -> None:
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((300, 8)), rng.standard_normal(300)
    truth = np.linalg.lstsq(A, b)[0]
    for size in (1e-15, 1e25):
        single = make((size * A).astype(np.float32))
        result = lstsq_sketched(single, make(b.astype(np.float32)), rng=1)
        np.testing.assert_allclose(to_host(result.x).astype(float) * size, truth, rtol=1e-4)
        with pytest.raises(InputError, match="leaves the range"):
            lstsq_sketched(single, make((size * b).astype(np.float32)), rng=1)

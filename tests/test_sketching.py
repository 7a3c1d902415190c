"""Sketches and what is built on them: known quantiles, orthogonality, tables of errors from independent runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, BreakdownError, InputError
from xpsolve.backends.operators import LinearOperator
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.linear.preconditioners import rpcholesky
from xpsolve.solvers.linear.sketching import lstsq_sketched, nystrom_approximation, randomized_svd, sketch, trace

KINDS = ("gaussian", "srht", "fjlt", "sparse_sign", "countsketch")


def dense(S: LinearOperator) -> np.ndarray:
    return np.asarray(S @ np.eye(S.shape[1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_the_same_sketch_on_every_library(xp: Any, make: Any, kind: str, dtype: str) -> None:
    draws = np.random.default_rng(0)
    A = draws.standard_normal((37, 3)) + (1j * draws.standard_normal((37, 3)) if "complex" in dtype else 0)
    A = A.astype(dtype)
    truth = dense(sketch(kind, 12, 37, like=np.ones(1), rng=5))
    S = sketch(kind, 12, 37, like=make(A), rng=5)
    assert S.dtype == make(A.real.copy()).dtype  # real draws, whatever they meet
    eps = np.finfo(dtype).eps
    before = A.copy()
    given = make(A)
    for v in (given, given[:, 0]):
        out = S @ v
        assert type(out) is type(v)
        assert out.dtype == v.dtype
        np.testing.assert_allclose(to_host(out), truth @ to_host(v), atol=200 * eps)
        np.testing.assert_allclose(to_host(S.H @ out), truth.T @ (truth @ to_host(v)), atol=1000 * eps)
    np.testing.assert_array_equal(to_host(given), before)
    S.check_adjoint(given[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_kept_in_the_mean(kind: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(100) * np.logspace(0, -2, 100)
    norms = [np.sum((sketch(kind, 24, 100, like=x, rng=rng) @ x) ** 2) for _ in range(500)]
    assert abs(np.mean(norms) - x @ x) <= 3 * np.std(norms) / math.sqrt(500)


@pytest.mark.parametrize("kind", KINDS)
def test_a_subspace_keeps_its_shape(kind: str) -> None:
    m, n = 2000, 40
    Q = np.linalg.qr(np.random.default_rng(2).standard_normal((m, n)))[0]
    for multiple in (4, 8):
        d = multiple * n
        values = np.linalg.svd(sketch(kind, d, m, like=Q, rng=3) @ Q, compute_uv=False)
        reach = 1.2 * math.sqrt(n / d)
        assert 1 - reach < values.min()
        assert values.max() < 1 + reach


def test_the_full_transform_is_orthogonal(xp: Any, make: Any) -> None:
    S = sketch("srht", 64, 64, like=make(np.ones(1)), rng=4)
    matrix = to_host(S @ make(np.eye(64)))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(64), atol=1e-14)
    # Rows are distinct: with repetition the largest singular value of a part would exceed sqrt(N/d).
    part = dense(sketch("srht", 48, 64, like=np.ones(1), rng=4))
    np.testing.assert_allclose(part @ part.T, np.eye(48) * 64 / 48, atol=1e-13)


def test_sparse_columns_have_distinct_rows() -> None:
    for d, zeta in ((8, 8), (9, 8), (300, 8), (5, 8), (300, 1)):
        kind = "countsketch" if zeta == 1 else "sparse_sign"
        matrix = dense(sketch(kind, d, 500, like=np.ones(1), rng=6))
        np.testing.assert_array_equal(np.count_nonzero(matrix, axis=0), min(zeta, d))
        np.testing.assert_allclose(np.linalg.norm(matrix, axis=0), 1.0, rtol=1e-14)
    # Floyd's draw is uniform: each row is as likely as any other.
    hits = np.count_nonzero(dense(sketch("sparse_sign", 12, 3000, like=np.ones(1), rng=7)), axis=1)
    assert np.all(np.abs(hits / 3000 - 8 / 12) < 4 * math.sqrt(8 / 12 * 4 / 12 / 3000))


def test_the_sparser_projection_distorts_no_more() -> None:
    """Table of 256 rows on 1024: about 2 ln(points) entries a row are as good as a dense projection; 2 a row are not."""
    rng = np.random.default_rng(8)
    spread = rng.standard_normal((1024, 80))
    points = np.concatenate([np.eye(1024)[:, :100], spread / np.linalg.norm(spread, axis=0)], axis=1)

    def distortion(kind: str, density: float | None = None) -> float:
        off = [np.sum((sketch(kind, 256, 1024, like=points, rng=rng, density=density) @ points) ** 2, axis=0) - 1
               for _ in range(6)]  # fmt: skip
        return float(np.sqrt(np.mean(np.square(off))))

    ideal = math.sqrt(2 / 256)
    assert distortion("gaussian") == pytest.approx(ideal, rel=0.12)
    assert distortion("fjlt", 0.01) < 1.2 * ideal
    assert distortion("fjlt") < 1.2 * ideal
    assert distortion("fjlt", 0.002) > 1.2 * ideal


def test_bad_sketches_are_refused() -> None:
    like = np.ones(1)
    with pytest.raises(InputError, match="kind"):
        sketch("dct", 4, 8, like=like)
    with pytest.raises(InputError, match="d is 20"):
        sketch("srht", 20, 9, like=like)
    with pytest.raises(InputError, match="density"):
        sketch("fjlt", 2, 9, like=like, density=1.5)
    with pytest.raises(InputError, match="zeta"):
        sketch("sparse_sign", 2, 9, like=like, zeta=0)
    with pytest.raises(InputError, match="m must"):
        sketch("gaussian", 2, 0, like=like)
    with pytest.raises(BackendError, match="like"):
        sketch("gaussian", 2, 4, like=[1.0])


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(KINDS), d=st.integers(1, 16), m=st.integers(9, 40), seed=st.integers(0, 2**16))
def test_any_size(kind: str, d: int, m: int, seed: int) -> None:
    S = sketch(kind, d, m, like=np.ones(1), rng=seed)
    matrix = dense(S)
    assert matrix.shape == (d, m)
    np.testing.assert_allclose(np.asarray(S.H @ np.eye(d)), matrix.T, atol=1e-14)


def with_spectrum(values: np.ndarray, seed: int = 0) -> np.ndarray:
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((values.size, values.size)))[0]
    return np.asarray((Q * values) @ Q.T)


@pytest.mark.parametrize(
    ("decay", "power", "factor"), [(2.0, 0, 1.15), (2.0, 1, 1.01), (0.5, 1, 1.05), (0.5, 2, 1.005)]
)
def test_randomized_svd_reaches_the_next_singular_value(decay: float, power: int, factor: float) -> None:
    rng, values = np.random.default_rng(0), np.arange(1, 301.0) ** -decay
    U, V = (np.linalg.qr(rng.standard_normal((300, 300)))[0] for _ in range(2))
    A = (U * values) @ V.T
    found = randomized_svd(A, 10, power=power, rng=1)
    error = np.linalg.norm(A - (found.U * found.s) @ found.Vh, 2)
    assert values[10] * (1 - 1e-10) <= error <= factor * values[10]
    if decay == 0.5:  # without power steps a slow decay is not resolved
        plain = randomized_svd(A, 10, power=0, rng=1)
        assert np.linalg.norm(A - (plain.U * plain.s) @ plain.Vh, 2) > 1.3 * values[10]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_low_rank_is_found_exactly(xp: Any, make: Any, dtype: str) -> None:
    rng = np.random.default_rng(2)

    def part(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if "complex" in dtype else 0.0)

    A = (part(60, 4) @ part(4, 25)).astype(dtype)
    given, eps = make(A), np.finfo(dtype).eps
    U, s, Vh = randomized_svd(given, 4, rng=3)
    assert type(U) is type(given)
    assert U.dtype == given.dtype
    U, s, Vh = (to_host(factor) for factor in (U, s, Vh))
    np.testing.assert_allclose((U * s) @ Vh, A, atol=500 * eps)
    np.testing.assert_allclose(s, np.linalg.svd(A, compute_uv=False)[:4], rtol=100 * eps)
    np.testing.assert_allclose(U.conj().T @ U, np.eye(4), atol=50 * eps)
    K = A @ A.conj().T / 60
    pairs = nystrom_approximation(make(K), 7, rng=4)
    W, values = to_host(pairs.U), to_host(pairs.eigenvalues)
    assert values.dtype == np.finfo(dtype).dtype
    # The error is the shift: rounding of the largest eigenvalue.
    np.testing.assert_allclose((W * values) @ W.conj().T, K, atol=300 * eps * values[0])
    np.testing.assert_allclose(W.conj().T @ W, np.eye(7), atol=100 * eps)


def test_nystrom_never_exceeds_the_matrix() -> None:
    K = with_spectrum(np.arange(1, 201.0) ** -2)
    U, values = nystrom_approximation(K, 40, rng=5)
    assert np.linalg.eigvalsh(K - (U * values) @ U.T)[0] > -1e-14
    assert np.all(values <= np.arange(1, 41.0) ** -2 * (1 + 1e-12))
    # Half the directions as oversampling: the expected error is at most 1 + 2 r / (p - 1) next eigenvalues, r = p = 20.
    assert np.linalg.norm(K - (U * values) @ U.T, 2) <= (1 + 40 / 19) * 21.0**-2
    assert np.all(np.diff(values) <= 0)
    assert nystrom_approximation(np.zeros((5, 5)), 2, rng=0).eigenvalues.tolist() == [0.0, 0.0]
    with pytest.raises(BreakdownError, match="K is not positive"):
        nystrom_approximation(-np.eye(8), 3, rng=0)


# Relative rms errors of 30 runs, n = 500, seen in an independent implementation.
TRACES = {
    ("square", 30): (0.17, 7e-3), ("square", 90): (0.076, 7e-4), ("harmonic", 30): (0.046, 0.025),
    ("harmonic", 90): (0.021, 6e-3), ("flat", 30): (2.2e-3, 4.7e-3), ("flat", 90): (9.5e-4, 3.5e-3),
}  # fmt: skip


@pytest.mark.parametrize(("spectrum", "budget"), TRACES)
def test_traces_are_as_good_as_known(spectrum: str, budget: int) -> None:
    j = np.arange(1, 501.0)
    A = with_spectrum({"square": j**-2, "harmonic": 1 / j, "flat": np.linspace(1, 2, 500)}[spectrum])
    rms = {}
    for method in ("hutchinson", "hutch++", "xtrace"):
        runs = [trace(A, budget, method=method, rng=seed) for seed in range(30)]
        errors = np.asarray([run.value for run in runs]) / np.trace(A) - 1
        claimed = np.sqrt(np.mean([run.standard_error**2 for run in runs])) / np.trace(A)
        rms[method] = np.sqrt(np.mean(errors**2))
        assert 0.5 < rms[method] / claimed < 2.0
        assert abs(errors.mean()) < 3.5 * errors.std(ddof=1) / math.sqrt(30)
    known = dict(zip(("hutchinson", "hutch++"), TRACES[spectrum, budget], strict=True))
    for method, value in known.items():
        assert 0.6 * value < rms[method] < 1.5 * value
    assert rms["xtrace"] < 1.3 * rms["hutch++"]
    assert (rms["hutchinson"] < rms["hutch++"]) == (spectrum == "flat")


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_traces_of_low_rank_are_exact(xp: Any, make: Any, method: str) -> None:
    B = np.random.default_rng(6).standard_normal((80, 5))
    for A in (B @ B.T, (B @ B.T).astype(np.float32), B @ B.T + 0j, 1j * (B @ B.T), np.zeros((80, 80))):
        estimate = trace(make(A), 30, method=method, rng=7)
        tolerance = 100 * np.finfo(A.dtype).eps * np.linalg.norm(B) ** 2
        assert isinstance(estimate.value, complex if np.iscomplexobj(A) else float)
        assert abs(estimate.value - np.trace(A)) < tolerance
        assert estimate.standard_error < tolerance


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_traces_of_operators(method: str) -> None:
    A = np.diag(np.arange(1.0, 13.0)) + np.triu(np.ones((12, 12)), 1)
    runs = [trace(A.__matmul__, 8, method=method, rng=seed, like=np.ones(12)).value for seed in range(400)]
    assert abs(np.mean(runs) - 78.0) < 4 * np.std(runs) / 20
    assert trace(np.asarray([[3.0]]), 4, method=method, rng=0).value == pytest.approx(3.0)


def test_bad_low_rank_requests_are_refused() -> None:
    A = np.ones((6, 4))
    no_adjoint = LinearOperator((6, 4), A.__matmul__, dtype=A.dtype)
    for refused in (A.tolist(), A.astype(object), "A"):
        with pytest.raises(BackendError, match="A is a"):
            randomized_svd(refused, 2)
    calls: list[tuple[Any, str]] = [
        (lambda: randomized_svd(A, 5), "k is 5"),
        (lambda: randomized_svd(no_adjoint, 2, like=A), "adjoint"),
        (lambda: nystrom_approximation(A, 2), "K has shape"),
        (lambda: trace(A, 10), "square"),
        (lambda: trace(np.eye(3), 2), "budget"),
        (lambda: trace(np.eye(3), 9, method="exact"), "method"),
        (lambda: trace(np.full((2, 2), np.nan), 9), "A contains"),
        (lambda: trace(np.eye(3).__matmul__, 9), "like"),
    ]
    for call, match in calls:
        with pytest.raises(InputError, match=match):
            call()


def test_operators_that_return_nan_are_named(xp: Any, make: Any) -> None:
    like, tall = make(np.ones(12)), make(np.ones(200))

    def nan(shape: tuple[int, int]) -> LinearOperator:
        forward, back = make(np.full(shape[0], np.nan)), make(np.full(shape[1], np.nan))
        return LinearOperator(shape, lambda v: forward, rmatvec=lambda u: back, dtype=like.dtype)

    A = nan((12, 12))
    calls = [
        lambda: randomized_svd(A, 2, like=like, rng=0),
        lambda: nystrom_approximation(A, 2, like=like, rng=0),
        *(lambda method=m: trace(A, 9, like=like, method=method, rng=0) for m in ("hutch++", "hutchinson", "xtrace")),
        lambda: lstsq_sketched(nan((200, 3)), tall, rng=0),
        lambda: rpcholesky(A, 0.1, 1, diag=like, rng=0),
        lambda: rpcholesky(A, 0.1, 5, diag=like, rng=0),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"^(A|K) .*(not finite|NaN)"):
            call()


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_standard_errors_in_any_units(method: str) -> None:
    """The squares of tiny samples underflow: their spread is not zero for that."""
    A = np.diag(np.linspace(0.0, 1.0, 60)) + np.cos(np.add.outer(np.arange(60.0), np.arange(60.0)))
    plain, tiny = trace(A, 12, method=method, rng=1), trace(1e-200 * A, 12, method=method, rng=1)
    np.testing.assert_allclose(1e200 * tiny.standard_error, plain.standard_error, rtol=1e-9)
    np.testing.assert_allclose(1e200 * tiny.value, plain.value, rtol=1e-9)

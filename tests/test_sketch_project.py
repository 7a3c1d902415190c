"""Sketch-and-project: monotone error, the sampled equations hold, known rates, adaptive acceptance, every library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.linear.sketching import sketch_project
from xpsolve.solvers.result import Status


def system(m: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((m, n)), rng.standard_normal(n)
    return A, A @ x, x


def squared_error(block: int, steps: int, kind: str, seeds: int = 6) -> float:
    A, b, x = system(300, 100)
    runs = []
    for seed in range(seeds):
        with pytest.warns(ConvergenceWarning):
            run = sketch_project(A, b, block=block, kind=kind, rtol=0.0, maxiter=steps, check_every=steps, rng=seed)
        runs.append(np.sum((run.x - x) ** 2) / np.sum(x**2))
    return float(np.mean(runs))


# Squared rates a row seen in an independent implementation: .9953, .9948, .9910; a fixed partition is a little slower.
@pytest.mark.parametrize(("block", "steps", "known"), [(1, 1500, 0.9953), (10, 150, 0.9948), (50, 30, 0.9910)])
@pytest.mark.parametrize("kind", ["rows", "gaussian"])
def test_known_rates(kind: str, block: int, steps: int, known: float) -> None:
    A = system(300, 100)[0]
    sigma = np.linalg.svd(A, compute_uv=False)
    error = squared_error(block, steps, kind)
    assert error <= (1 - sigma[-1] ** 2 / np.sum(sigma**2)) ** (block * steps)
    assert error ** (1 / (block * steps)) == pytest.approx(known, abs=0.0018)


@pytest.mark.parametrize("kind", ["rows", "gaussian"])
@pytest.mark.parametrize("shape", [(60, 20), (20, 60), (40, 40)])
def test_the_error_never_rises_and_the_sampled_equations_hold(kind: str, shape: tuple[int, int]) -> None:
    A, b, _ = system(*shape, 1)
    x = np.linalg.pinv(A) @ b  # the point that iterates from zero can reach
    errors: list[float] = []

    def look(at: Any) -> None:
        errors.append(float(np.linalg.norm(at.x - x)))
        if kind == "rows" and at.n_iter:
            assert np.sum(np.abs(b - A @ at.x) < 1e-11 * np.linalg.norm(b)) >= 5

    with pytest.warns(ConvergenceWarning):
        sketch_project(A, b, block=5, kind=kind, rtol=0.0, maxiter=30, check_every=1, rng=2, callback=look)
    assert len(errors) == 31
    assert np.all(np.diff(errors) <= 1e-12)
    assert errors[-1] < 0.7 * errors[0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("kind", ["rows", "gaussian"])
def test_every_library(xp: Any, make: Any, kind: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    A = rng.standard_normal((90, 15)) + (1j * rng.standard_normal((90, 15)) if "c" in dtype else 0)
    X = rng.standard_normal((15, 3)) * np.asarray([1.0, 1e-4, 0.0])
    A, B = A.astype(dtype), (A @ X).astype(dtype)
    given = make(A)
    result = sketch_project(given, make(B), block=8, kind=kind, rtol=1e-5, rng=4)
    assert type(result.x) is type(given)
    assert result.x.dtype == given.dtype
    assert result.converged
    x = to_host(result.x)
    assert np.all(np.linalg.norm(B - A @ x, axis=0) <= 1.01e-5 * np.linalg.norm(B, axis=0))
    assert np.all(x[:, 2] == 0)
    alone = sketch_project(given, make(B[:, 0]), block=8, kind=kind, rtol=1e-5, rng=4)
    np.testing.assert_allclose(to_host(alone.x), X[:, 0], atol=1e-4)
    assert alone.n_iter == sketch_project(A, B[:, 0], block=8, kind=kind, rtol=1e-5, rng=4).n_iter
    np.testing.assert_array_equal(to_host(given), A)


def test_one_block_is_the_least_norm_solution() -> None:
    A, b, _ = system(20, 50, 5)
    for kind in ("rows", "gaussian"):
        result = sketch_project(A, b, block=500, kind=kind, rtol=1e-10, rng=6)
        assert result.n_iter == 1
        np.testing.assert_allclose(result.x, np.linalg.pinv(A) @ b, atol=1e-10)
    again = sketch_project(A, b, x0=result.x, rtol=1e-10, rng=0)
    assert again.n_iter == 0
    assert sketch_project(A, np.zeros(20), x0=np.ones(50)).x.tolist() == [0.0] * 50


def test_dependent_rows_and_rows_of_zeros() -> None:
    A, b, x = system(30, 12, 7)
    A, b = np.vstack([A, A, np.zeros((5, 12)), 2 * A]), np.concatenate([b, b, np.zeros(5), 2 * b])
    for kind in ("rows", "gaussian"):
        np.testing.assert_allclose(sketch_project(A, b, block=30, kind=kind, rtol=1e-9, rng=8).x, x, atol=1e-7)
    assert sketch_project(np.asarray([[2.0]]), np.asarray([3.0])).x.tolist() == [1.5]


def test_inconsistent_systems_are_said() -> None:
    A, b, _ = system(50, 10, 9)
    b = b + 0.1 * np.random.default_rng(0).standard_normal(50)
    with pytest.warns(ConvergenceWarning, match="sketch_project"):
        result = sketch_project(A, b, block=10, rng=10)
    assert result.status is Status.MAX_ITER
    np.testing.assert_allclose(result.residual, np.linalg.norm(b - A @ result.x), rtol=1e-12)
    # Of the looks the best is kept, and it is no worse than twice the best that exists.
    assert result.residual == pytest.approx(min(result.history))
    assert result.residual < 2 * np.linalg.norm(b - A @ np.linalg.lstsq(A, b, rcond=None)[0])


def test_an_outer_method_accepts_what_it_needs() -> None:
    """The descent test of an inexact Newton step decides, and the tolerance it needed is reported."""
    rng = np.random.default_rng(11)
    Q = np.linalg.qr(rng.standard_normal((80, 80)))[0]
    H, g = (Q * np.logspace(0, 0.7, 80)) @ Q.T, rng.standard_normal(80)
    asked: list[float] = []

    def descends(d: np.ndarray, r: np.ndarray) -> bool:
        asked.append(float(np.linalg.norm(r)))
        np.testing.assert_allclose(r, -g - H @ d, atol=1e-12)
        return bool(g @ d + 0.5 * d @ H @ d <= -0.25 * (g @ np.linalg.solve(H, g)) and g @ d < 0)

    result = sketch_project(H, -g, block=16, rtol=1e-12, accept=descends, rng=12)
    assert result.converged
    assert result.n_iter < sketch_project(H, -g, block=16, rtol=1e-4, rng=12).n_iter / 2
    np.testing.assert_allclose(result.tolerance, asked[-1], rtol=1e-12)
    np.testing.assert_allclose(result.residual, asked[-1], rtol=1e-12)
    assert len(asked) > 1
    # Never accepted: the plain tolerance still ends the run.
    assert sketch_project(H, -g, block=16, rtol=1e-3, accept=lambda x, r: False, rng=12).converged


def test_operators_need_gaussian_sketches() -> None:
    A, b, x = system(60, 20, 13)
    sparse = sps.csr_array(A)
    np.testing.assert_allclose(sketch_project(sparse, b, kind="gaussian", block=15, rtol=1e-8, rng=14).x, x, atol=1e-6)
    with pytest.raises(BackendError, match="kind='gaussian'"):
        sketch_project(sparse, b)


def test_bad_projections_are_refused() -> None:
    A, b, _ = system(10, 4)
    with pytest.raises(InputError, match="kind"):
        sketch_project(A, b, kind="columns")
    with pytest.raises(InputError, match="A contains"):
        sketch_project(np.where(A > 1, np.nan, A), b)
    with pytest.raises(InputError, match="expected 9 rows"):
        sketch_project(A, b[:9])
    with pytest.raises(InputError, match="block"):
        sketch_project(A, b, block=0)
    with pytest.raises(InputError, match="x0 has shape"):
        sketch_project(A, b, x0=b)
    with pytest.raises(BackendError, match="accept"):
        sketch_project(A, b, accept=0.1)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="callback"):
        sketch_project(A, b, callback=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="check_every"):
        sketch_project(A, b, check_every=0)


@settings(deadline=None, max_examples=25)
@given(
    m=st.integers(1, 40), n=st.integers(1, 12), block=st.integers(1, 50),
    kind=st.sampled_from(["rows", "gaussian"]), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_any_shape(m: int, n: int, block: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, min(m, n))))[0] for size in (m, n))
    A = (U * rng.uniform(0.5, 1.0, min(m, n))) @ V.T
    b = A @ rng.standard_normal(n)
    result = sketch_project(A, b, block=block, kind=kind, rtol=1e-6, rng=seed, maxiter=20000)
    assert result.converged
    assert np.linalg.norm(b - A @ result.x) <= 1e-6 * np.linalg.norm(b) * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["rows", "gaussian"])
@pytest.mark.parametrize(("of_matrix", "of_right"), [(1.0, 1e-180), (1e-180, 1e-180), (1e-180, 1.0), (1e170, 1e170)])
def test_projections_in_any_units(make: Any, kind: str, of_matrix: float, of_right: float) -> None:
    """Squares of such entries underflow or overflow: zero is then no solution, and the probabilities are no NaN."""
    rng = np.random.default_rng(5)
    A, x = rng.standard_normal((80, 20)), rng.standard_normal(20)
    result = sketch_project(make(of_matrix * A), make(of_right * (A @ x)), kind=kind, block=30, rtol=1e-10, rng=0)
    assert result.converged
    np.testing.assert_allclose(to_host(result.x) * (of_matrix / of_right), x, rtol=1e-7)

"""Matrix completion: the table of errors by sweeps, exact recovery, the noise floor, sketched against exact, every library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.linear.sketching import complete
from xpsolve.solvers.result import Status


def flat(m: int, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Rank k with equal singular values and entries of mean square k."""
    U, V = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    return np.asarray(U @ V.T) * np.sqrt(m * n)


def off(result: Any, M: np.ndarray) -> float:
    return float(np.linalg.norm(to_host(result.matrix) - M) / np.linalg.norm(M))


# Errors after 1, 5, 10, 20 sweeps at 400 x 400, rank 5, seen in an independent implementation.
@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")
@pytest.mark.parametrize(
    ("share", "known"),
    [(0.05, (0.78, 0.27, 0.083, 0.012)), (0.1, (0.22, 8e-3, 3e-4, 8e-7)), (0.2, (0.10, 4e-4, 8e-7, 6e-12))],
)
def test_errors_fall_as_known(share: float, known: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    M = flat(400, 400, 5, rng)
    mask = rng.random((400, 400)) < share
    for iters, error in zip((1, 5, 10, 20), known, strict=True):
        found = off(complete(np.where(mask, M, np.nan), mask, 5, iters=iters, rtol=0.0, rng=0), M)
        assert found < 2 * error
        assert found > error / 12  # not by another, better method: the same sweeps


@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")
def test_one_correction_makes_a_sketch_as_good_as_exact() -> None:
    rng = np.random.default_rng(0)
    M = flat(400, 400, 5, rng)
    mask = rng.random((400, 400)) < 0.2
    options = {"iters": 20, "rtol": 0.0, "rng": 1}
    exact = off(complete(M, mask, 5, **options), M)
    bare, once = (off(complete(M, mask, 5, sketched=True, corrections=c, **options), M) for c in (0, 1))
    assert exact < 1e-11
    assert once < 5 * exact
    assert 100 * once < bare < 1e-6


@pytest.mark.parametrize("sketched", [False, True])
@pytest.mark.parametrize(("init", "oversampling"), [("svd", 4), ("random", 8)])
@pytest.mark.parametrize("shape", [(100, 60), (60, 100)])
def test_exact_recovery_from_few_times_the_unknowns(
    shape: tuple[int, int], init: str, oversampling: int, sketched: bool
) -> None:
    k = 3
    rng = np.random.default_rng(2)
    M = flat(*shape, k, rng)
    mask = rng.random(shape) < oversampling * k * (sum(shape) - k) / np.prod(shape)
    result = complete(np.where(mask, M, np.nan), mask, k, rtol=1e-10, rng=3, init=init, sketched=sketched)
    assert result.converged
    assert off(result, M) < 1e-8
    np.testing.assert_allclose(result.V.T @ result.V, np.eye(k), atol=1e-12)


def test_the_floor_is_proportional_to_the_noise() -> None:
    rng = np.random.default_rng(4)
    M, noise = flat(120, 100, 4, rng), rng.standard_normal((120, 100))
    mask = rng.random(M.shape) < 0.4
    errors = []
    for level in (1e-1, 1e-2, 1e-3):
        result = complete(M + level * noise, mask, 4, rtol=1e-8, rng=0)
        assert result.converged
        errors.append(off(result, M))
        # About k (m + n - k) of the observed noise is fitted.
        left = np.sqrt(1 - 4 * 216 / mask.sum()) * level * np.linalg.norm(noise[mask]) / np.linalg.norm(M[mask])
        assert result.fit == pytest.approx(left, rel=0.05)
    np.testing.assert_allclose(np.diff(np.log10(errors)), -1.0, atol=0.05)


def test_every_library(xp: Any, make: Any) -> None:
    rng = np.random.default_rng(5)
    M = flat(40, 30, 2, rng)
    mask = rng.random(M.shape) < 0.6
    for dtype in ("float64", "float32"):
        values = np.where(mask, M, np.nan).astype(dtype)
        for sketched in (False, True):
            given = make(values)
            result = complete(given, make(mask), 2, rng=6, sketched=sketched)
            assert type(result.U) is type(given)
            assert result.V.dtype == given.dtype
            assert result.converged
            assert off(result, M) < 2e-5
            assert abs(result.n_iter - complete(values, mask, 2, rng=6, sketched=sketched).n_iter) <= 1
            np.testing.assert_array_equal(to_host(given), values)


def test_a_full_mask_needs_no_sweep() -> None:
    M = flat(30, 20, 3, np.random.default_rng(7))
    result = complete(M, np.ones(M.shape, dtype=bool), 3)
    assert result.n_iter <= 1
    assert off(result, M) < 1e-12
    one = complete(np.asarray([[2.5]]), np.asarray([[True]]), 1)
    np.testing.assert_allclose(one.matrix, [[2.5]])
    assert complete(np.zeros((4, 3)), np.ones((4, 3), dtype=bool), 1).matrix.tolist() == np.zeros((4, 3)).tolist()


def test_rows_never_seen_are_zero_and_the_rest_is_found() -> None:
    rng = np.random.default_rng(8)
    M = flat(60, 50, 3, rng)
    mask = rng.random(M.shape) < 0.5
    mask[3], mask[:, 0], mask[:, 1] = False, False, False
    mask[5:7, 1] = True  # two entries for three unknowns
    for sketched in (False, True):
        result = complete(M, mask, 3, rtol=1e-9, rng=9, sketched=sketched)
        assert result.converged
        matrix = np.delete(result.matrix[:, 2:], 3, axis=0)
        np.testing.assert_allclose(matrix, np.delete(M[:, 2:], 3, axis=0), atol=1e-6)
        np.testing.assert_allclose(result.matrix[3], 0.0, atol=1e-8)
        np.testing.assert_allclose(result.matrix[:, 0], 0.0, atol=1e-8)
        np.testing.assert_allclose(result.matrix[5:7, 1], M[5:7, 1], rtol=1e-5)


def test_too_few_sweeps_are_said() -> None:
    rng = np.random.default_rng(10)
    M = flat(50, 50, 2, rng)
    mask = rng.random(M.shape) < 0.3
    with pytest.warns(ConvergenceWarning, match="complete"):
        result = complete(M, mask, 2, iters=2, rtol=1e-10, rng=0)
    assert result.status is Status.MAX_ITER
    r = np.where(mask, M - result.matrix, 0.0)
    Q = np.linalg.qr(result.U)[0]
    gradient = np.hypot(np.linalg.norm(r @ result.V), np.linalg.norm(r.T @ Q)) / np.linalg.norm(M[mask])
    np.testing.assert_allclose(result.residual, gradient, rtol=1e-10)
    np.testing.assert_allclose(result.fit, np.linalg.norm(r) / np.linalg.norm(M[mask]), rtol=1e-10)
    again = complete(M, mask, 2, init=Q, rtol=1e-10)
    assert again.converged
    seen: list[float] = []
    complete(M, mask, 2, rng=0, callback=lambda it: seen.append(float(it.fit)))
    assert seen[-1] < seen[0]


def test_bad_completions_are_refused() -> None:
    M, mask = np.ones((6, 5)), np.ones((6, 5), dtype=bool)
    wrong = M.copy()
    wrong[2, 2] = np.nan
    with pytest.raises(InputError, match="values contains NaN"):
        complete(wrong, mask, 1)
    with pytest.raises(BackendError, match="mask has dtype"):
        complete(M, mask.astype(float), 1)
    with pytest.raises(InputError, match="mask has shape"):
        complete(M, mask[:, :4], 1)
    with pytest.raises(InputError, match="rank is 6"):
        complete(M, mask, 6)
    with pytest.raises(InputError, match="observes nothing"):
        complete(M, np.zeros_like(mask), 1)
    with pytest.raises(InputError, match="fewer than the 18 unknowns"):
        complete(M, np.arange(30).reshape(6, 5) < 17, 2)
    with pytest.raises(InputError, match="init"):
        complete(M, mask, 1, init="zeros")
    with pytest.raises(BackendError, match="init is a float"):
        complete(M, mask, 1, init=0.5)
    with pytest.raises(InputError, match="init has shape"):
        complete(M, mask, 1, init=np.ones((5, 1)))


@settings(deadline=None, max_examples=20)
@given(m=st.integers(8, 30), n=st.integers(8, 30), k=st.integers(1, 2), seed=st.integers(0, 2**16))
def test_the_misfit_never_rises(m: int, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((m, n))
    mask = rng.random((m, n)) < 0.8
    fits: list[float] = []
    complete(M, mask, k, rng=seed, rtol=1e-2, iters=400, callback=lambda it: fits.append(float(it.fit)))
    assert np.all(np.diff(fits) <= 1e-12)


@pytest.mark.parametrize("sketched", [False, True])
@pytest.mark.parametrize("size", [1e-180, 1e160])
def test_completion_in_any_units(make: Any, sketched: bool, size: float) -> None:
    rng = np.random.default_rng(8)
    M = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    mask = rng.random(M.shape) < 0.6
    result = complete(make(size * M), make(mask), 2, sketched=sketched, rng=0)
    assert result.converged
    np.testing.assert_allclose(to_host(result.matrix) / size, M, atol=1e-4)

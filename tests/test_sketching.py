"""Sketches and what is built on them: known quantiles, orthogonality, tables of errors from independent runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, InputError
from xpsolve.backends.operators import LinearOperator
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.linear.sketching import sketch

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
    hits = np.count_nonzero(dense(sketch("sparse_sign", 12, 20000, like=np.ones(1), rng=7)), axis=1)
    assert np.all(np.abs(hits / 20000 - 8 / 12) < 4 * math.sqrt(8 / 12 * 4 / 12 / 20000))


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

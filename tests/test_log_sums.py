"""Log-sum-exps of a stored matrix plus a vector, against SciPy's and on every library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from xpsolve.backends import log_sums
from xpsolve.backends.log_sums import column_averages, column_log_sums, row_averages, row_log_sums
from xpsolve.backends.transfer import to_host


@settings(deadline=None, max_examples=80)
@given(
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    spread=st.sampled_from([0.1, 30.0, 3000.0]),
    tile=st.sampled_from([1, 7, 64, 32768]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 999),
)
def test_tiles_change_nothing(n: int, m: int, spread: float, tile: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    S, a, b = (spread * rng.standard_normal(shape).astype(dtype) for shape in ((n, m), n, m))
    v, w = rng.standard_normal((m, 2)).astype(dtype), rng.standard_normal(n).astype(dtype)
    wide = S.astype(float)
    close = {"rtol": 1e-5, "atol": 1e-4 * max(1.0, spread)} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-11}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_sums, "_TILE", tile)
        found = row_log_sums(S, b, xp=np)
        assert found.dtype == S.dtype
        np.testing.assert_allclose(found, logsumexp(wide + b, axis=1), **close)
        np.testing.assert_allclose(column_log_sums(S, a, xp=np), logsumexp(wide + a[:, None], axis=0), **close)
        for guess in (found + 1, np.zeros_like(found), found - 400, np.full_like(found, -np.inf)):
            for low in (float(S.min()), -np.inf):
                again = row_log_sums(S, b, xp=np, guess=guess, lowest=low)
                np.testing.assert_allclose(again, logsumexp(wide + b, axis=1), **close)
        sums = logsumexp(wide + a[:, None], axis=0)
        for guess in (sums - 1, 0 * sums, sums - 800, sums + 800):
            for low in (float(S.min()), -np.inf):
                again = column_log_sums(S, a, xp=np, guess=guess.astype(dtype), lowest=low)
                np.testing.assert_allclose(again, sums, **close)
        if spread < 3000 or dtype == "float64":
            np.testing.assert_allclose(
                row_averages(S, b, v, xp=np), softmax(wide + b, axis=1) @ v, rtol=1e-3, atol=1e-3
            )
            found = column_averages(S, a, w, xp=np)
            np.testing.assert_allclose(found, w @ softmax(wide + a[:, None], axis=0), rtol=1e-3, atol=1e-3)


def test_empty_lines_and_every_library(xp: Any, make: Any) -> None:
    S = np.asarray([[-np.inf, -np.inf, -np.inf], [0.0, -np.inf, -900.0], [1.0, -np.inf, -1e5]])
    a, b = np.asarray([0.0, -np.inf, 3.0]), np.asarray([0.5, 1.0, -np.inf])
    v = np.asarray([[1.0], [2.0], [4.0]])
    with np.errstate(divide="ignore"):
        rows, columns = logsumexp(S + b, axis=1), logsumexp(S + a[:, None], axis=0)
    np.testing.assert_allclose(to_host(row_log_sums(make(S), make(b), xp=xp)), rows)
    np.testing.assert_allclose(to_host(column_log_sums(make(S), make(a), xp=xp)), columns)
    np.testing.assert_allclose(to_host(row_averages(make(S), make(b), make(v), xp=xp))[:, 0], [0.0, 1.0, 1.0])
    np.testing.assert_allclose(to_host(column_averages(make(S), make(a), make(v[:, 0]), xp=xp)), [4.0, 0.0, 4.0])
    S[1, 1] = np.nan
    assert np.isnan(to_host(row_log_sums(make(S), make(b), xp=xp))[1])
    assert np.isnan(to_host(column_log_sums(make(S), make(a), xp=xp))[1])

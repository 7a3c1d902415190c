"""Sine and cosine transforms: against their matrices, on every library, axis, dtype, and length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xpsolve.backends.errors import BackendError, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.backends.transforms import dct2, dst1, idct2


def matrix(kind: str, n: int) -> np.ndarray:
    """The orthonormal matrix, from its definition."""
    j, k = np.arange(n)[None, :], np.arange(n)[:, None]
    if kind == "dst1":
        return np.sqrt(2 / (n + 1)) * np.sin(np.pi * (j + 1) * (k + 1) / (n + 1))
    C = np.sqrt(2 / n) * np.cos(np.pi * k * (2 * j + 1) / (2 * n))
    C[0] /= np.sqrt(2)
    return C if kind == "dct2" else C.T


TRANSFORMS = {"dst1": dst1, "dct2": dct2, "idct2": idct2}


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_matches_the_definition_on_every_axis(xp: Any, make: Any, kind: str, n: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, n, 3))
    for axis in (1, -2):
        out = TRANSFORMS[kind](make(x), axis, xp=xp)
        np.testing.assert_allclose(to_host(out), np.einsum("kj,ajb->akb", matrix(kind, n), x), atol=1e-13)
    out = TRANSFORMS[kind](make(x[0]), 0, xp=xp)
    np.testing.assert_allclose(to_host(out), matrix(kind, n) @ x[0], atol=1e-13)


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_dtype_stays(xp: Any, make: Any, kind: str) -> None:
    x = np.random.default_rng(1).standard_normal((9, 2)).astype(np.float32)
    out = TRANSFORMS[kind](make(x), 0, xp=xp)
    assert out.dtype == xp.float32
    np.testing.assert_allclose(to_host(out), matrix(kind, 9) @ x, atol=2e-6)
    z = x + 1j * x[::-1]
    out = TRANSFORMS[kind](make(z), 0, xp=xp)
    assert out.dtype == xp.complex64
    np.testing.assert_allclose(to_host(out), matrix(kind, 9) @ z, atol=2e-6)


def test_input_is_not_touched_and_inverses_invert(xp: Any, make: Any) -> None:
    x = np.random.default_rng(2).standard_normal(15)
    for forward, back in ((dst1, dst1), (dct2, idct2), (idct2, dct2)):
        mine = make(x)
        np.testing.assert_allclose(to_host(back(forward(mine, 0, xp=xp), 0, xp=xp)), x, atol=1e-14)
        np.testing.assert_array_equal(to_host(mine), x)


def test_bad_input(xp: Any, make: Any) -> None:
    with pytest.raises(InputError, match="axis"):
        dst1(make(np.ones(3)), 1, xp=xp)
    with pytest.raises(InputError, match="empty"):
        dct2(make(np.ones((0, 2))), 0, xp=xp)
    with pytest.raises(BackendError, match="dtype"):
        idct2(make(np.ones(3, dtype=np.int64)), 0, xp=xp)

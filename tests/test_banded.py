"""Products by diagonals: the same numbers to the last bit, and only where few diagonals hold the matrix."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sps
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.operators import as_operator, banded
from xpsolve.solvers.linear import cg, gmres


def stencil(n: int, offsets: list[int], rng: np.random.Generator, dtype: str = "float64") -> sps.csr_array:
    values = [rng.standard_normal(n) for _ in offsets]
    A = sps.dia_array((np.asarray(values), offsets), shape=(n, n)).tocsr()
    A.sum_duplicates()
    return A.astype(dtype) * (1 + 1j) if "complex" in dtype else A.astype(dtype)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 40),
    offsets=st.sets(st.integers(-6, 6), min_size=1, max_size=6),
    seed=st.integers(0, 999),
    dtype=st.sampled_from(["float32", "float64", "complex128"]),
)
def test_the_same_to_the_last_bit(n: int, offsets: set[int], seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    A = stencil(n, sorted(offsets), rng, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(banded, "_FEWEST", 0)
        D = banded.diagonals(A)
    v = rng.standard_normal(n).astype(dtype)
    if D is None:
        distinct = len(np.unique(A.indices - np.repeat(np.arange(n), np.diff(A.indptr))))
        assert A.nnz < n or distinct * n > 1.25 * A.nnz
    else:
        assert D.dtype == A.dtype
        assert np.array_equal(D @ v, A @ v)
        assert abs(D - A).max() == 0


def test_rectangles_and_what_is_left_as_it_is() -> None:
    rng = np.random.default_rng(0)
    wide = sps.csr_array(sps.diags_array([rng.random(6000), rng.random(6000)], offsets=[0, 3], shape=(6000, 6003)))
    D = banded.diagonals(wide)
    v = rng.standard_normal(6003)
    assert np.array_equal(D @ v, wide @ v)
    scattered = sps.random_array((300, 300), density=0.2, rng=rng, format="csr")
    assert banded.diagonals(scattered) is None  # as many diagonals as the matrix has
    twice = sps.csr_array((np.ones(20000), (np.arange(20000) % 10000, np.arange(20000) % 10000)), shape=(10000, 10000))
    doubled = sps.csr_array(
        (np.ones(20000), np.repeat(np.arange(10000), 2), np.arange(0, 20001, 2)), shape=(10000, 10000)
    )
    assert banded.diagonals(twice) is None or np.array_equal(
        banded.diagonals(twice) @ np.ones(10000), 2 * np.ones(10000)
    )
    assert banded.diagonals(doubled) is None  # an entry in two parts must not be lost


def test_solvers_take_the_same_steps() -> None:
    T = sps.diags_array([-np.ones(59), 2 * np.ones(60), -np.ones(59)], offsets=[-1, 0, 1])
    A = sps.csr_array(sps.kron(T, sps.eye_array(60)) + sps.kron(sps.eye_array(60), T))
    b = np.random.default_rng(1).standard_normal(3600)
    operator = as_operator(A, like=b, name="A")
    for _ in range(3 * banded._PRODUCTS):
        assert np.array_equal(operator @ b, A @ b)
    assert operator._matvec.A.format == "dia"
    for solver in (cg, gmres):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(banded, "_PRODUCTS", -1)  # never reached
            plain = solver(A, b, rtol=1e-9)
        fast = solver(A, b, rtol=1e-9)
        assert fast.n_iter == plain.n_iter
        assert np.array_equal(fast.x, plain.x)

"""LSQR and LSMR: SciPy's iterates and counts, honest ends, damping, columns, preconditioners, every library."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
import scipy.sparse.linalg as spla
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import ConvergenceWarning, InputError
from xpsolve.backends.operators import LinearOperator
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.solvers.linear import lsmr, lsqr
from xpsolve.solvers.result import Status

BOTH = pytest.mark.parametrize("solver", [lsqr, lsmr])


def tall(m: int, n: int, condition: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    U, V = np.linalg.qr(rng.standard_normal((m, n)))[0], np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (U * np.logspace(0, -np.log10(condition), n)) @ V.T


@BOTH
def test_every_library_finds_the_least_squares_solution(xp: Any, make: Any, solver: Any) -> None:
    A, B = tall(60, 20, 50.0), np.random.default_rng(1).standard_normal((60, 3))
    for b in (B[:, 0], B):
        result = solver(make(A), make(b), atol=1e-12, btol=1e-12, maxiter=200)
        assert result.converged
        assert type(result.x) is type(make(b))
        np.testing.assert_allclose(to_host(result.x), np.linalg.lstsq(A, b)[0], atol=1e-9)
        assert result.normal_norm < 1e-9
        np.testing.assert_allclose(result.residual_norm, np.linalg.norm(b - A @ to_host(result.x), axis=0).max())


@pytest.mark.parametrize(("solver", "theirs"), [(lsqr, spla.lsqr), (lsmr, spla.lsmr)])
@pytest.mark.parametrize("damp", [0.0, 0.1])
def test_scipys_counts(solver: Any, theirs: Any, damp: float) -> None:
    A, b = tall(400, 60, 1e3), np.random.default_rng(2).standard_normal(400)
    count = theirs(
        A,
        b,
        damp=damp,
        atol=1e-10,
        btol=1e-10,
        conlim=0.0,
        **{("iter_lim" if theirs is spla.lsqr else "maxiter"): 2000},
    )[2]
    result = solver(A, b, damp=damp, atol=1e-10, btol=1e-10, conlim=np.inf, maxiter=2000)
    assert abs(result.n_iter - count) <= max(2, 0.02 * count)
    exact = np.linalg.solve(A.T @ A + damp**2 * np.eye(60), A.T @ b) if damp else np.linalg.lstsq(A, b)[0]
    np.testing.assert_allclose(result.x, exact, atol=1e-6 * np.abs(exact).max())


@BOTH
def test_carried_norms_are_the_true_ones(solver: Any) -> None:
    A, b = tall(50, 12, 20.0), np.random.default_rng(3).standard_normal(50)
    seen: list[tuple[float, ...]] = []

    def look(it: Any) -> None:
        r = b - A @ it.x
        seen.append((float(it.rnorm), float(np.linalg.norm(r)), float(it.arnorm), float(np.linalg.norm(A.T @ r))))

    solver(A, b, atol=1e-10, btol=1e-10, callback=look)
    table = np.asarray(seen[:-1])
    np.testing.assert_allclose(table[:, 0], table[:, 1], rtol=1e-9)
    np.testing.assert_allclose(table[:, 2], table[:, 3], rtol=1e-5)
    column = 0 if solver is lsqr else 2
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(table[:, column]))


@BOTH
@pytest.mark.parametrize("complex_", [False, True])
def test_rank_deficient_problems_give_the_least_norm(solver: Any, complex_: bool) -> None:
    rng = np.random.default_rng(4)
    A = rng.standard_normal((30, 4)) @ rng.standard_normal((4, 12))
    b = rng.standard_normal(30)
    if complex_:
        A, b = A * np.exp(1j * rng.random((30, 12))), b + 1j * rng.standard_normal(30)
    result = solver(A, b, atol=1e-12, btol=1e-12, maxiter=300, conlim=np.inf)
    np.testing.assert_allclose(result.x, np.linalg.pinv(A) @ b, atol=1e-7)


@BOTH
def test_start_damping_and_preconditioner_agree(solver: Any) -> None:
    A, b = tall(80, 20, 1e4), np.random.default_rng(5).standard_normal(80)
    exact = np.linalg.solve(A.T @ A + 1e-4 * np.eye(20), A.T @ b)
    options = {"atol": 1e-12, "btol": 1e-12, "damp": 1e-2, "maxiter": 500}
    np.testing.assert_allclose(solver(A, b, **options).x, exact, atol=1e-6)
    np.testing.assert_allclose(solver(A, b, x0=np.ones(20), **options).x, exact, atol=1e-6)
    R = np.linalg.qr(np.concatenate([A, 1e-2 * np.eye(20)]), mode="r")
    helped = solver(A, b, M=np.linalg.inv(R), **options)
    assert helped.n_iter <= 3
    np.testing.assert_allclose(helped.x, exact, atol=1e-8)


@BOTH
def test_ends(solver: Any) -> None:
    A, b = tall(40, 10, 1e6), np.random.default_rng(6).standard_normal(40)
    with pytest.warns(ConvergenceWarning, match="conlim"):
        assert solver(A, b, atol=1e-14, btol=1e-14, conlim=1e2).status is Status.ILL_CONDITIONED
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        assert solver(A, b, maxiter=2).status is Status.MAX_ITER
    zero = solver(A, np.zeros(40))
    assert zero.converged
    assert not zero.x.any()
    assert solver(np.asarray([[2.0]]), np.asarray([4.0])).x.tolist() == [2.0]
    orthogonal = solver(np.asarray([[1.0], [0.0]]), np.asarray([0.0, 3.0]))  # A^H b = 0: zero is the solution
    assert orthogonal.converged
    assert orthogonal.x.tolist() == [0.0]

    def nan(v: np.ndarray) -> np.ndarray:
        return v * np.nan

    broken = LinearOperator((3, 3), nan, rmatvec=nan, dtype=np.float64)
    with pytest.warns(ConvergenceWarning):
        assert solver(broken, np.ones(3)).status is Status.NONFINITE


@BOTH
def test_bad_input_names_the_argument(solver: Any) -> None:
    A, b = np.ones((4, 2)), np.ones(4)
    for options, name in [
        ({"damp": -1.0}, "damp"), ({"atol": -1.0}, "atol"), ({"btol": -1.0}, "btol"), ({"conlim": 0.0}, "conlim"),
        ({"x0": np.ones(4)}, "x0"), ({"M": np.eye(4)}, "M"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=name):
            solver(A, b, **options)
    with pytest.raises(InputError, match="b has shape"):
        solver(A, np.ones(3))
    with pytest.raises(InputError, match="adjoint"):
        solver(LinearOperator((4, 2), lambda v: A @ v, dtype=np.float64), b)


@BOTH
def test_few_transfers_and_sparse(solver: Any) -> None:
    A = sps.random_array((200, 50), density=0.1, rng=0).tocsr()
    b = np.random.default_rng(7).standard_normal(200)
    with count_transfers() as transfers:
        result = solver(A, b, check_every=10, atol=1e-8, btol=1e-8)
    assert transfers.n <= result.n_iter / 10 + 7
    np.testing.assert_allclose(result.x, np.linalg.lstsq(A.toarray(), b)[0], atol=1e-5)


@BOTH
@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")
def test_float32_runs_say_the_truth(solver: Any) -> None:
    for seed in range(8):
        A = tall(100, 20, 10.0 ** (seed / 2), seed).astype(np.float32)
        b = np.random.default_rng(seed).standard_normal(100).astype(np.float32)
        result = solver(A, b, atol=1e-5, btol=1e-5, maxiter=300)
        assert result.x.dtype == np.float32
        r = b.astype(float) - A.astype(float) @ result.x.astype(float)
        np.testing.assert_allclose(result.residual_norm, np.linalg.norm(r), rtol=1e-4)
        if result.converged:
            normal = np.linalg.norm(A.astype(float).T @ r) / (np.linalg.norm(A) * np.linalg.norm(r))
            # ||A|| is estimated from below by what the bidiagonalisation has seen, at most n times the Frobenius norm.
            assert normal <= 1e-5 * np.sqrt(result.n_iter + 1)


@BOTH
@settings(deadline=None, max_examples=25)
@given(m=st.integers(1, 25), n=st.integers(1, 25), seed=st.integers(0, 2**16))
def test_any_shape(solver: Any, m: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((m, n)), rng.standard_normal(m)
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    A = (U * np.clip(s, 0.5 * s[0], None)) @ Vt
    result = solver(A, b, atol=1e-12, btol=1e-12, maxiter=20 * (m + n))
    np.testing.assert_allclose(result.x, np.linalg.lstsq(A, b)[0], atol=1e-7)


@pytest.mark.parametrize("solver", [lsqr, lsmr])
def test_data_whose_squares_underflow_are_not_called_fitted(make: Any, solver: Any) -> None:
    A = np.random.default_rng(0).standard_normal((20, 4))
    for dtype, size in ((np.float64, 1e-200), (np.float64, 1e-153), (np.float32, 1e-25)):
        b = make(np.full(20, size, dtype=dtype))
        with pytest.warns(ConvergenceWarning, match="precision is exhausted"):
            assert not solver(make(A.astype(dtype)), b).converged
    assert solver(make(A), make(np.zeros(20))).converged

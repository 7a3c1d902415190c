"""Kronecker, Toeplitz and kernel matrices, and Gaussian processes for PDEs: against dense truths, on every library."""

from __future__ import annotations

import warnings
from functools import reduce
from typing import Any

import numpy as np
import pytest
import scipy.linalg as sla
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, BreakdownError, ConvergenceWarning, InputError
from xpsolve.backends.pairs import Kernel, Pairs, cauchy, exponential, gaussian, laplace, matern, tophat
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.linear import cg
from xpsolve.solvers.linear.preconditioners import landmarks
from xpsolve.solvers.linear.structured import (
    GaussianProcess,
    _gp_plane,
    circulant_preconditioner,
    gp_pde,
    kernel_operator,
    kernel_ridge,
    kronecker,
    kronecker_sum,
    toeplitz,
)
from xpsolve.solvers.linear.structured._gp_model import lag_sums
from xpsolve.solvers.linear.structured.spectral_kernels import SpectralKernel
from xpsolve.solvers.result import Status


def spd(n: int, seed: int, complex_: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0.0)
    return G @ G.conj().T / n + np.eye(n)


def vectors(shape: tuple[int, ...], seed: int = 0, complex_: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0.0)


# --- Kronecker products and sums -------------------------------------------------------------------------------------


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shapes", [[(3, 4), (2, 5)], [(2, 3), (4, 1), (3, 2)], [(4, 3)]])
def test_kronecker_products_are_numpys(make: Any, shapes: list[tuple[int, int]], complex_: bool) -> None:
    factors = [vectors(s, i, complex_) for i, s in enumerate(shapes)]
    dense, P = reduce(np.kron, factors), kronecker([make(F) for F in factors])
    v, V = vectors((dense.shape[1],), 5, complex_), vectors((dense.shape[1], 3), 6, complex_)
    U = vectors((dense.shape[0], 2), 7, complex_)
    np.testing.assert_allclose(to_host(P @ make(v)), dense @ v, atol=1e-12)
    np.testing.assert_allclose(to_host(P @ make(V)), dense @ V, atol=1e-12)
    np.testing.assert_allclose(to_host(P.H @ make(U)), dense.conj().T @ U, atol=1e-12)
    np.testing.assert_allclose(to_host(P.T @ make(U)), dense.T @ U, atol=1e-12)
    P.check_adjoint(make(v))


@pytest.mark.parametrize("complex_", [False, True])
def test_kronecker_solves_determinants_and_roots(make: Any, complex_: bool) -> None:
    factors = [spd(n, n, complex_) for n in (3, 4, 2)]
    dense, P = reduce(np.kron, factors), kronecker([make(F) for F in factors])
    b = vectors((24, 2), 1, complex_)
    np.testing.assert_allclose(to_host(P.solve(make(b))), np.linalg.solve(dense, b), atol=1e-11)
    np.testing.assert_allclose(to_host(P.solve(make(b[:, 0]))), np.linalg.solve(dense, b[:, 0]), atol=1e-11)
    np.testing.assert_allclose(float(to_host(P.logdet()).real), np.linalg.slogdet(dense)[1], rtol=1e-12)
    np.testing.assert_allclose(to_host(P.diagonal()), np.diagonal(dense), rtol=1e-12)
    S = P.sqrt()
    np.testing.assert_allclose(to_host(S @ (S @ make(b))), dense @ b, atol=1e-11)
    A = vectors((5, 5), 9)
    general = kronecker([make(A), make(A.T + np.eye(5))])
    np.testing.assert_allclose(to_host(general @ general.solve(make(vectors((25,), 2)))), vectors((25,), 2), atol=1e-9)


def test_real_factors_meet_complex_vectors(make: Any) -> None:
    A, b = spd(4, 0), vectors((16,), 1, True)
    P, S = kronecker([make(A), make(A)]), kronecker_sum([make(A), make(A)])
    np.testing.assert_allclose(to_host(P.solve(make(b))), np.linalg.solve(np.kron(A, A), b), atol=1e-12)
    np.testing.assert_allclose(to_host(S @ S.solve(make(b))), b, atol=1e-12)


@pytest.mark.parametrize("complex_", [False, True])
def test_kronecker_sums(make: Any, complex_: bool) -> None:
    A, B, C = (spd(n, n, complex_) for n in (3, 4, 2))
    eye = np.eye
    dense = np.kron(np.kron(A, eye(4)), eye(2)) + np.kron(np.kron(eye(3), B), eye(2)) + np.kron(eye(12), C)
    P = kronecker_sum([make(F) for F in (A, B, C)])
    V = vectors((24, 2), 3, complex_)
    np.testing.assert_allclose(to_host(P @ make(V)), dense @ V, atol=1e-12)
    np.testing.assert_allclose(to_host(P.H @ make(V)), dense.conj().T @ V, atol=1e-12)
    np.testing.assert_allclose(to_host(P.diagonal()), np.diagonal(dense), rtol=1e-12)
    for shift in (0.0, 2.5, -1.3):
        moved = dense + shift * np.eye(24)
        np.testing.assert_allclose(to_host(P.solve(make(V), shift)), np.linalg.solve(moved, V), atol=1e-9)
        np.testing.assert_allclose(float(to_host(P.logdet(shift))), np.linalg.slogdet(moved)[1], rtol=1e-10)


def test_the_laplacian_of_a_square_has_its_sines() -> None:
    s = 15
    T = 2 * np.eye(s) - np.eye(s, k=1) - np.eye(s, k=-1)
    nodes = np.pi * np.arange(1, s + 1) / (s + 1)
    mode = np.outer(np.sin(3 * nodes), np.sin(5 * nodes)).ravel()
    value = 4 * np.sin(3 * np.pi / 32) ** 2 + 4 * np.sin(5 * np.pi / 32) ** 2
    np.testing.assert_allclose(kronecker_sum([T, T]).solve(mode), mode / value, atol=1e-13)


def test_kronecker_float32_stays(xp: Any, make: Any) -> None:
    F = make(spd(4, 0).astype(np.float32))
    b = make(vectors((16,)).astype(np.float32))
    P, S = kronecker([F, F]), kronecker_sum([F, F])
    for out in (P @ b, P.solve(b), P.sqrt() @ b, S @ b, S.solve(b, 1), P.logdet(), P.diagonal(), S.logdet()):
        assert out.dtype == xp.float32
    np.testing.assert_allclose(to_host(P @ P.solve(b)), to_host(b), atol=1e-4)


def test_kronecker_refusals() -> None:
    A = spd(3, 0)
    for bad, match in (
        ([], "factors"),
        (A, "factors"),
        ([A, A[0]], r"factors\[1\]"),
        ([A, A * np.nan], r"factors\[1\]"),
    ):
        with pytest.raises((InputError, BackendError), match=match):
            kronecker(bad)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"factors\[1\]"):
        kronecker([A, A.astype(np.float32)])
    with pytest.raises(InputError, match=r"factors\[1\]"):
        kronecker_sum([A, A[:2]])
    with pytest.raises(InputError, match="square"):
        kronecker([A, A[:2]]).solve(np.ones(6))
    with pytest.raises(BreakdownError, match=r"factors\[1\] is singular"):
        kronecker([A, np.ones((2, 2))]).solve(np.ones(6))
    with pytest.raises(InputError, match="positive"):
        kronecker([A, -A]).sqrt()
    with pytest.raises(InputError, match="symmetric"):
        kronecker_sum([np.triu(A)]).solve(np.ones(3))
    with pytest.raises(BreakdownError, match="shift"):
        kronecker_sum([A, -A]).solve(np.ones(9))
    with pytest.raises(InputError, match="b has shape"):
        kronecker([A, A]).solve(np.ones(8))
    # Rank one is positive semidefinite: the root exists.
    v = np.asarray([[1.0], [2.0]])
    np.testing.assert_allclose(kronecker([v @ v.T]).sqrt().factors[0], v @ v.T / np.sqrt(5), atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3), seed=st.integers(0, 2**16))
def test_any_sizes(sizes: list[int], seed: int) -> None:
    factors = [spd(n, seed + i) for i, n in enumerate(sizes)]
    dense = reduce(np.kron, factors)
    b = vectors((dense.shape[0],), seed)
    np.testing.assert_allclose(kronecker(factors).solve(b), np.linalg.solve(dense, b), atol=1e-10)


# --- Toeplitz --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("m", "n"), [(7, 7), (5, 9), (9, 4), (1, 1), (1, 6), (6, 1)])
def test_toeplitz_products(make: Any, m: int, n: int, complex_: bool) -> None:
    column, row = vectors((m,), 0, complex_), vectors((n,), 1, complex_)
    dense, T = sla.toeplitz(column, row), toeplitz(make(column), make(row))
    v, V, U = vectors((n,), 2, complex_), vectors((n, 3), 3, complex_), vectors((m, 2), 4, complex_)
    np.testing.assert_allclose(to_host(T @ make(v)), dense @ v, atol=1e-12)
    np.testing.assert_allclose(to_host(T @ make(V)), dense @ V, atol=1e-12)
    np.testing.assert_allclose(to_host(T.H @ make(U)), dense.conj().T @ U, atol=1e-12)
    np.testing.assert_allclose(to_host(T.T @ make(U)), dense.T @ U, atol=1e-12)
    np.testing.assert_allclose(to_host(T.to_array()), dense, atol=0)
    np.testing.assert_allclose(to_host(T.diagonal()), np.diagonal(dense), atol=0)
    T.check_adjoint(make(v))


def test_a_column_alone_is_hermitian(make: Any) -> None:
    column = np.concatenate([[3.0], vectors((5,), 1, True)])
    T = toeplitz(make(column))
    np.testing.assert_allclose(to_host(T.to_array()), sla.toeplitz(column), atol=0)
    assert "symmetric" in T.tags
    with pytest.raises(InputError, match=r"column\[0\]"):
        toeplitz(column * 1j)


def test_real_toeplitz_of_complex_vectors(make: Any) -> None:
    column, v = vectors((6,)), vectors((6, 2), 1, True)
    np.testing.assert_allclose(to_host(toeplitz(make(column)) @ make(v)), sla.toeplitz(column) @ v, atol=1e-12)
    with pytest.raises(InputError, match="dtype"):
        toeplitz(make(np.concatenate([[3.0], vectors((5,), 1, True)]))) @ make(vectors((6,)))


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("method", ["auto", "cg", "dense"])
def test_toeplitz_solves(make: Any, method: str, complex_: bool) -> None:
    n = 60
    column = (1.0 / (1.0 + np.arange(n)) ** 2).astype(complex if complex_ else float)
    if complex_:
        column = column * np.exp(0.3j * np.arange(n))
    b = vectors((n, 2), 1, complex_)
    x = toeplitz(make(column)).solve(make(b), method=method, rtol=1e-11)
    np.testing.assert_allclose(to_host(x), np.linalg.solve(sla.toeplitz(column), b), atol=1e-9)


def test_nonsymmetric_solves(make: Any) -> None:
    column, row = np.asarray([3.0, 1.0, 0.5, -0.2]), np.asarray([3.0, -1.0, 0.3, 0.1])
    b = vectors((4,))
    x = toeplitz(make(column), make(row)).solve(make(b))
    np.testing.assert_allclose(to_host(x), np.linalg.solve(sla.toeplitz(column, row), b), atol=1e-12)


@pytest.mark.parametrize("kind", ["chan", "strang"])
def test_circulant_preconditioners(make: Any, kind: str) -> None:
    n = 301
    column = 1.0 / (1.0 + np.arange(n)) ** 1.1
    b = vectors((n,))
    T, M = toeplitz(make(column)), circulant_preconditioner(make(column), kind=kind)
    plain, helped = cg(T, make(b), rtol=1e-9), cg(T, make(b), rtol=1e-9, M=M)
    assert helped.n_iter < 0.6 * plain.n_iter
    np.testing.assert_allclose(to_host(helped.x), sla.solve_toeplitz(column, b), atol=1e-6)
    # Chan's circulant is the nearest: its entries are the means of the wrapped diagonals.
    if kind == "chan":
        C = np.linalg.inv(to_host(M @ make(np.eye(n))))
        means = [np.mean(np.diagonal(np.roll(sla.toeplitz(column), -k, axis=0))) for k in range(n)]
        np.testing.assert_allclose(C[:, 0], means, atol=1e-10)


def test_a_circulant_is_its_own_preconditioner() -> None:
    for n in (8, 9):
        half = np.exp(-np.arange(n // 2 + 1.0))
        column = np.concatenate([half, half[1 : (n + 1) // 2][::-1]])
        for kind in ("chan", "strang"):
            assert cg(toeplitz(column), vectors((n,)), M=circulant_preconditioner(column, kind=kind)).n_iter <= 2


def test_toeplitz_float32(xp: Any, make: Any) -> None:
    column = make((1.0 / (1.0 + np.arange(40)) ** 2).astype(np.float32))
    b = make(vectors((40,)).astype(np.float32))
    T = toeplitz(column)
    for out in (T @ b, T.solve(b, rtol=1e-5), T.solve(b, method="cg", rtol=1e-5), circulant_preconditioner(column) @ b):
        assert out.dtype == xp.float32
    assert to_host(T.precise_residual(b, T.solve(b, rtol=1e-5))) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("complex_", [False, True])
def test_toeplitz_residuals_of_single_precision_are_those_of_double(make: Any, complex_: bool) -> None:
    narrow, wide = ("complex64", "complex128") if complex_ else ("float32", "float64")
    column = vectors((30,), 1, complex_).astype(narrow)
    column[0] = column[0].real
    x, T = vectors((30,), 2, complex_).astype(narrow), sla.toeplitz(column).astype(wide)
    b = (T @ x.astype(wide)).astype(narrow)
    truth = b.astype(wide) - T @ x.astype(wide)
    found = to_host(toeplitz(make(column)).precise_residual(make(b), make(x)))
    # In single precision the product alone would err by more than all of this residual.
    np.testing.assert_allclose(found, truth, atol=1e-6 * np.abs(truth).max())


def test_toeplitz_refusals(make: Any) -> None:
    with pytest.raises(InputError, match="column"):
        toeplitz(np.zeros((2, 2)))
    with pytest.raises(InputError, match="column"):
        toeplitz(np.zeros(0))
    with pytest.raises(BackendError, match="row"):
        toeplitz(np.zeros(2), np.zeros(2, np.float32))
    with pytest.raises(InputError, match="square"):
        toeplitz(np.ones(2), np.ones(3)).solve(np.ones(2))
    with pytest.raises(InputError, match="method"):
        toeplitz(np.ones(2)).solve(np.ones(2), method="fast")
    with pytest.raises(InputError, match="Hermitian"):
        toeplitz(np.ones(2), np.ones(2)).solve(np.ones(2), method="cg")
    with pytest.raises(BreakdownError, match="leading block"):
        toeplitz(np.asarray([0.0, 1.0])).solve(np.ones(2), method="levinson")
    np.testing.assert_allclose(toeplitz(np.asarray([0.0, 1.0])).solve(np.asarray([1.0, 2.0])), [2.0, 1.0])
    with pytest.raises(BreakdownError, match="singular"):
        toeplitz(make(np.ones(2))).solve(make(np.ones(2)), method="dense")
    with pytest.raises(InputError, match="chan"):
        circulant_preconditioner(np.asarray([1.0, 0.9, -0.9, -0.9]), kind="strang")
    with pytest.warns(ConvergenceWarning):
        toeplitz(1.0 / (1.0 + np.arange(50))).solve(vectors((50,)), method="cg", maxiter=1)


@settings(deadline=None, max_examples=30)
@given(m=st.integers(1, 40), n=st.integers(1, 40), seed=st.integers(0, 2**16))
def test_any_toeplitz(m: int, n: int, seed: int) -> None:
    column, row = vectors((m,), seed), vectors((n,), seed + 1)
    v = vectors((n,), seed + 2)
    np.testing.assert_allclose(toeplitz(column, row) @ v, sla.toeplitz(column, row) @ v, atol=1e-11)


# --- kernel matrices, ridge regression, Gaussian processes -----------------------------------------------------------


def cloud(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, 2))
    return x, np.sin(6 * x[:, 0]) * np.cos(5 * x[:, 1]) + 0.1 * rng.standard_normal(n)


def gram(x: np.ndarray, ell: float, z: np.ndarray | None = None) -> np.ndarray:
    z = x if z is None else z
    return np.exp(-np.sum((x[:, None, :] - z[None, :, :]) ** 2, axis=2) / (2 * ell**2))


def test_kernel_operators(make: Any) -> None:
    x, _ = cloud(50)
    A, dense = kernel_operator(make(x), gaussian(0.3), mu=0.2), gram(x, 0.3) + 0.2 * np.eye(50)
    V = vectors((50, 3))
    np.testing.assert_allclose(to_host(A @ make(V)), dense @ V, atol=1e-12)
    np.testing.assert_allclose(to_host(A.H @ make(V[:, 0])), dense @ V[:, 0], atol=1e-12)
    np.testing.assert_allclose(to_host(A.diagonal()), np.diagonal(dense), rtol=1e-12)
    assert A.tags == {"symmetric", "positive"}
    dot = kernel_operator(make(x), exponential("dot", -0.5))
    np.testing.assert_allclose(to_host(dot.diagonal()), np.exp(0.5 * np.sum(x**2, axis=1)), rtol=1e-12)
    assert dot.tags == {"symmetric"}
    assert kernel_operator(make(x), tophat(0.3), mu=1.0).tags == {"symmetric"}


@pytest.mark.parametrize("method", ["auto", "cholesky", "nystrom", "cg"])
def test_ridge_regression_is_the_dense_one(make: Any, method: str) -> None:
    x, y = cloud(120)
    Y = np.stack([y, 1e-5 * x[:, 0], np.zeros(120)], axis=1)
    fit = kernel_ridge(make(x), make(Y), gaussian(0.3), 1e-2, method=method, rtol=1e-10, rng=0)
    exact = np.linalg.solve(gram(x, 0.3) + 1e-2 * np.eye(120), Y)
    np.testing.assert_allclose(to_host(fit.coefficients), exact, rtol=1e-6, atol=1e-10)
    new = np.random.default_rng(3).random((7, 2))
    np.testing.assert_allclose(to_host(fit.predict(make(new))), gram(new, 0.3, x) @ exact, rtol=1e-7, atol=1e-10)
    assert fit.converged
    one = kernel_ridge(make(x), make(y), gaussian(0.3), 1e-2, method=method, rtol=1e-10, rng=0)
    np.testing.assert_allclose(to_host(one.coefficients), exact[:, 0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(to_host(fit.solve(make(Y[:, :1]))), exact[:, :1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kernel", [laplace(0.5), matern(0.5, 0.5), matern(0.5, 1.5), matern(0.5, 2.5), cauchy(0.5)])
def test_every_positive_kernel(kernel: Kernel) -> None:
    x, y = cloud(80)
    K = Pairs(x, x, kernel).sum(np.eye(80)) + 0.05 * np.eye(80)
    fit = kernel_ridge(x, y, kernel, 0.05, method="nystrom", rank=20, rng=1, rtol=1e-10)
    np.testing.assert_allclose(fit.coefficients, np.linalg.solve(K, y), atol=1e-7)


def test_the_preconditioner_saves_iterations() -> None:
    """kernel(.3, 1e-3) of n=1000: 256 iterations without, 10 with 50 Gaussian columns; landmarks need a few more."""
    x, y = cloud(1000)
    plain = kernel_ridge(x, y, gaussian(0.3), 1e-3, method="cg", rtol=1e-6)
    helped = kernel_ridge(x, y, gaussian(0.3), 1e-3, method="nystrom", rank=100, rng=0, rtol=1e-6)
    assert helped.rank == 100
    assert helped.n_iter <= 15 < 120 < plain.n_iter
    adaptive = kernel_ridge(x, y, gaussian(0.3), 1e-3, method="nystrom", rng=0, rtol=1e-6)
    assert 64 <= adaptive.rank <= 256
    np.testing.assert_allclose(plain.coefficients, helped.coefficients, atol=1e-3 * np.max(np.abs(plain.coefficients)))


def test_all_landmarks_invert_the_matrix(xp: Any, make: Any) -> None:
    x, y = cloud(40)
    M = landmarks(make(x), gaussian(0.5), 1e-3, rank=40, rng=0)
    A = kernel_operator(make(x), gaussian(0.5), mu=1e-3)
    assert cg(A, make(y), M=M, rtol=1e-6).n_iter <= 3
    U = to_host(M.vectors)
    np.testing.assert_allclose(U.T @ U, np.eye(40), atol=1e-10)


def test_float32_is_refined_to_its_rounding(xp: Any, make: Any) -> None:
    """One float32 solve of kernel(.1, 1e-3) stops near 1e-3; refined, the residual is that of the rounded solution."""
    x, y = (a.astype(np.float32) for a in cloud(300))
    fit = kernel_ridge(make(x), make(y), gaussian(0.1), 1e-3, method="nystrom", rank=150, rng=0, rtol=5e-5)
    assert fit.coefficients.dtype == xp.float32
    wide = gram(x.astype(float), 0.1) + 1e-3 * np.eye(300)
    truth = np.linalg.norm(y - wide @ to_host(fit.coefficients).astype(float))
    np.testing.assert_allclose(fit.residual, truth, rtol=1e-3)
    assert fit.converged
    assert truth <= 5e-5 * np.linalg.norm(y)
    with pytest.warns(ConvergenceWarning, match="float64"):
        impossible = kernel_ridge(make(x), make(y), gaussian(0.1), 1e-3, method="nystrom", rank=150, rng=0, rtol=1e-9)
    assert impossible.status is Status.STAGNATED


def test_limits_are_said() -> None:
    x, y = cloud(200)
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        fit = kernel_ridge(x, y, gaussian(0.1), 1e-6, method="cg", maxiter=3)
    assert fit.status is Status.MAX_ITER
    assert fit.n_iter == 3
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        fit = kernel_ridge(x.astype("f4"), y.astype("f4"), gaussian(0.1), 1e-6, method="cg", maxiter=3)
    assert fit.n_iter == 3


def test_one_point_and_equal_points(make: Any) -> None:
    fit = kernel_ridge(make([[0.5]]), make([2.0]), gaussian(1.0), 1.0, method="nystrom", rng=0)
    np.testing.assert_allclose(to_host(fit.coefficients), [1.0], rtol=1e-12)
    same = kernel_ridge(
        make(np.ones((5, 1))), make(np.ones(5)), gaussian(1.0), 1e-3, method="nystrom", rng=0, rtol=1e-9
    )
    np.testing.assert_allclose(to_host(same.coefficients), 1 / 5.001, rtol=1e-8)


def test_gaussian_processes(make: Any) -> None:
    x, y = cloud(60)
    new = np.concatenate([np.random.default_rng(3).random((70, 2)), [[9.0, 9.0]]])
    K, k = gram(x, 0.4) + 0.05 * np.eye(60), gram(x, 0.4, new)
    mean, variance = k.T @ np.linalg.solve(K, y), 2.0 * (1 - np.sum(k * np.linalg.solve(K, k), axis=0))
    for options in ({}, {"method": "nystrom", "rng": 0, "rtol": 1e-10}):
        process = GaussianProcess(gaussian(0.4), noise=0.1, amplitude=2.0, **options).fit(make(x), make(y))
        found = process.predict(make(new), variance=True)
        np.testing.assert_allclose(to_host(found[0]), mean, atol=1e-8)
        np.testing.assert_allclose(to_host(found[1]), variance, atol=1e-8)
        assert process.model.converged
    np.testing.assert_allclose(to_host(process.predict(make(new))), mean, atol=1e-8)


def test_kernel_refusals() -> None:
    x, y = cloud(5)
    with pytest.raises(InputError, match="y has shape"):
        kernel_ridge(x, y[:4], gaussian(1.0), 1.0)
    with pytest.raises(InputError, match="mu"):
        kernel_ridge(x, y, gaussian(1.0), 0.0)
    with pytest.raises(InputError, match="method"):
        kernel_ridge(x, y, gaussian(1.0), 1.0, method="magic")
    with pytest.raises(BackendError, match="y has dtype"):
        kernel_ridge(x, y.astype(np.float32), gaussian(1.0), 1.0)
    with pytest.raises(BackendError, match="kernel"):
        kernel_operator(x, "gaussian")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fit"):
        GaussianProcess(gaussian(1.0), noise=1.0).predict(x)
    with pytest.raises(InputError, match="noise"):
        GaussianProcess(gaussian(1.0), noise=-1.0)


# --- Gaussian processes for differential equations -------------------------------------------------------------------

TAU = 2 * np.pi


def relative(found: Any, truth: np.ndarray) -> float:
    return float(np.linalg.norm(to_host(found) - truth) / np.linalg.norm(truth))


def build(*args: Any, **options: Any) -> Any:
    """The model behind `gp_pde`, at the scale of a first guess."""
    from xpsolve.solvers.linear.structured.gp_pde import _model

    names = (
        "second",
        "first",
        "zeroth",
        "nonlinearity",
        "kernel",
        "components",
        "max_frequency",
        "weight",
        "jitter",
        "noise",
    )
    defaults = (1.0, 0.0, 0.0, None, "student", 5, 2.0, 200.0, 1e-6, (1e-4, 1e-2))
    model, _ = _model(*args, *(options.get(name, default) for name, default in zip(names, defaults, strict=True)))
    model.find_scale()
    return model


@pytest.mark.parametrize("kind", ["student", "gaussian"])
def test_spectral_kernels_and_their_derivatives(xp: Any, make: Any, kind: str) -> None:
    rng = np.random.default_rng(0)
    w, rho, mu = rng.uniform(0.5, 2, 4), rng.uniform(0.5, 2, 4), rng.uniform(0, 2, 4)
    t = np.linspace(0.0, 3.0, 200)

    def exact(t: np.ndarray, w: np.ndarray, rho: np.ndarray, mu: np.ndarray) -> np.ndarray:
        t = np.abs(t)[None, :]
        w, rho, mu = w[:, None], rho[:, None], mu[:, None]
        c = np.sqrt(5) * rho * t
        m = (1 + c + c**2 / 3) * np.exp(-c) if kind == "student" else np.exp(-rho * t**2)
        return np.sum(w * m * np.cos(TAU * mu * t), axis=0)

    kernel = SpectralKernel(kind, make(np.log(w)), make(np.log(rho)), make(mu), xp)
    np.testing.assert_allclose(to_host(kernel.value(make(-t))), exact(t, w, rho, mu), atol=1e-13)
    orders = [to_host(order) for order in kernel.tables(make(t)).orders]
    np.testing.assert_allclose(orders[0], exact(t, w, rho, mu), atol=1e-13)
    h = 1e-4
    shifted = [exact(t + k * h, w, rho, mu) for k in (-2, -1, 0, 1, 2)]
    first = (shifted[0] - 8 * shifted[1] + 8 * shifted[3] - shifted[4]) / (12 * h)
    second = (-shifted[0] + 16 * shifted[1] - 30 * shifted[2] + 16 * shifted[3] - shifted[4]) / (12 * h**2)
    np.testing.assert_allclose(orders[1][1:], first[1:], atol=1e-7)
    np.testing.assert_allclose(orders[2][1:], second[1:], atol=2e-5)
    np.testing.assert_allclose(orders[1][0], 0.0, atol=1e-12)


@pytest.mark.parametrize("kind", ["student", "gaussian"])
def test_spectral_gradients(kind: str) -> None:
    rng, t = np.random.default_rng(1), np.linspace(0.0, 3.0, 50)
    theta, d = rng.uniform(0.2, 1.0, 12), rng.standard_normal(12)
    cotangents = [rng.standard_normal(50) for _ in range(3)]
    import array_api_compat.numpy as xp

    def value(theta: np.ndarray) -> float:
        tables = SpectralKernel(kind, theta[:4], theta[4:8], theta[8:], xp).tables(t)
        return float(sum(c @ order for c, order in zip(cotangents, tables.orders, strict=True)))

    gradient = SpectralKernel(kind, theta[:4], theta[4:8], theta[8:], xp).tables(t).gradient(cotangents)
    difference = (value(theta + 1e-5 * d) - value(theta - 1e-5 * d)) / 2e-5
    np.testing.assert_allclose(gradient @ d, difference, rtol=1e-6)


def test_sums_over_diagonals(xp: Any, make: Any) -> None:
    P, Q = vectors((9, 3)), vectors((9, 3), 1)
    G = P @ Q.T
    below = np.asarray([np.trace(G, -k) for k in range(9)])
    above = np.asarray([0.0] + [np.trace(G, k) for k in range(1, 9)])
    even, odd = lag_sums(make(P), make(Q), xp)
    np.testing.assert_allclose(to_host(even), below + above, atol=1e-12)
    np.testing.assert_allclose(to_host(odd), below - above, atol=1e-12)


CASES = {
    "poisson": {},
    "gaussian": {"kernel": "gaussian"},
    "general": {"second": 1.5, "first": 0.7, "zeroth": 2.0},
    "allen-cahn": {"nonlinearity": lambda u: (u**3 - u, 3 * u**2 - 1)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dims", [1, 2])
def test_the_gradient_of_the_profiled_loss(monkeypatch: pytest.MonkeyPatch, case: str, dims: int) -> None:
    """Against central differences: 1e-6, with inner solves to rounding."""
    monkeypatch.setattr(_gp_plane, "_INNER_RTOL", 1e-13)
    monkeypatch.setattr(_gp_plane, "_INNER_MAXITER", 5000)
    monkeypatch.setattr(_gp_plane, "_INNER_STEPS", 40)
    rng = np.random.default_rng(2)
    x, y = np.linspace(0.0, 3.0, 24), np.linspace(-1.0, 1.0, 9)
    if dims == 1:
        model = build(x, 5 * np.sin(7 * x) + 0.1 * vectors((24,)), np.cos(x), **CASES[case])
    else:
        source = 5 * np.sin(7 * x)[:, None] * np.cos(3 * y) + 0.1 * vectors((24, 9))
        model = build((x, y), source, np.cos(x)[:, None] * y, **CASES[case])
    theta = model.start() + 0.1 * rng.standard_normal(model.start().size)
    gradient = model.gradient(model.profile(theta))
    Q = model.components
    blocks = [slice(i * Q, (i + 1) * Q) for i in range(3 * dims)]
    for block in [*blocks, slice(-2, -1), slice(-1, None), slice(None)]:
        d = np.zeros_like(theta)
        d[block] = rng.standard_normal(theta.size)[block]
        differences = []
        for h in (1e-3, 2e-3):
            differences.append((model.profile(theta + h * d).loss - model.profile(theta - h * d).loss) / (2 * h))
        # Richardson: the error of the differences falls to h^4.
        extrapolated = (4 * differences[0] - differences[1]) / 3
        np.testing.assert_allclose(gradient @ d, extrapolated, rtol=1e-6, atol=1e-6 * np.max(np.abs(gradient)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dims", [1, 2])
def test_the_profiled_solution_is_the_best(case: str, dims: int) -> None:
    x, y = np.linspace(0.0, 3.0, 24), np.linspace(-1.0, 1.0, 9)
    if dims == 1:
        model = build(x, 5 * np.sin(7 * x), np.cos(x), **CASES[case])
    else:
        model = build((x, y), 5 * np.sin(7 * x)[:, None] * np.cos(3 * y), np.cos(x)[:, None] * y, **CASES[case])
    theta = model.start()
    best = model.profile(theta)
    np.testing.assert_allclose(model.joint_loss(theta, best.u), best.loss, rtol=1e-6)
    for seed in range(5):
        for size in (1e-3, 1e-1):
            assert model.joint_loss(theta, best.u + size * vectors(best.u.shape, seed)) > best.loss


def sine(w: float, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.linspace(0.0, TAU, N)
    return x, -(w**2) * np.sin(w * x), np.sin(w * x)


@pytest.mark.parametrize("kernel", ["student", "gaussian"])
def test_sin_20_x(kernel: str) -> None:
    """The start at F=8 is above Nyquist, 7.88, which is said; the frequency 20 / 2 pi is found."""
    x, f, u = sine(20.0, 100)
    with pytest.warns(ConvergenceWarning, match="Nyquist"):
        solution = gp_pde(x, f, u, components=12, max_frequency=8.0, kernel=kernel)
    assert solution.converged
    assert relative(solution.u, u) <= 5e-3
    fine = np.linspace(0.0, TAU, 301)
    assert relative(solution.predict(fine), np.sin(20 * fine)) <= 5e-3
    assert solution.frequencies[0].max() <= 99 / (2 * TAU)
    assert solution.residual <= solution.tolerance
    assert solution.losses[-1] == solution.loss < solution.losses[0]


def test_libraries_agree(xp: Any, make: Any) -> None:
    x, f, u = sine(8.0, 60)
    solution = gp_pde(make(x), make(f), make(u), components=8, max_frequency=3.0)
    assert type(solution.u) is type(make(u))
    assert relative(solution.u, u) <= 5e-3
    assert relative(solution.predict(make(x)), u) <= 5e-3
    single = gp_pde(*(make(a.astype(np.float32)) for a in (x, f, u)), components=8, max_frequency=3.0)
    assert single.u.dtype == single.predict(make(x.astype(np.float32))).dtype == xp.float32
    assert relative(single.u, u) <= 5e-3


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ({"nonlinearity": lambda u: (u**3 - u, 3 * u**2 - 1)}, lambda u, du, ddu: ddu + u**3 - u),
        ({"first": 3.0, "zeroth": 2.0}, lambda u, du, ddu: ddu + 3 * du + 2 * u),
    ],
    ids=["allen-cahn", "convection"],
)
def test_other_equations(options: dict[str, Any], source: Any) -> None:
    x, ddu, u = sine(20.0, 120)
    solution = gp_pde(x, source(u, 20 * np.cos(20 * x), ddu), u, components=12, max_frequency=6.0, **options)
    assert relative(solution.u, u) <= 5e-3


def test_variable_coefficients_and_boundary_values() -> None:
    x = np.linspace(0.0, 3.0, 80)
    u, du, ddu = np.cos(9 * x) + x, -9 * np.sin(9 * x) + 1, -81 * np.cos(9 * x)
    f = (1 + x) * ddu + np.sin(x) * du - x**2 * u
    solution = gp_pde(x, f, u, second=1 + x, first=np.sin(x), zeroth=-(x**2), components=10, max_frequency=5.0)
    assert relative(solution.u, u) <= 5e-3
    assert solution.boundary_gap < 1e-3
    assert solution.equation_residual < 1e-2


def test_a_rectangle(make: Any) -> None:
    x, y = np.linspace(0.0, TAU, 30), np.linspace(0.0, 3.0, 18)
    u = np.sin(6 * x)[:, None] * np.cos(4 * y)
    solution = gp_pde((make(x), make(y)), make(-52 * u), make(u), components=6, max_frequency=(2.0, 1.5), rtol=3e-3)
    assert relative(solution.u, u) <= 1e-2
    fine_x, fine_y = np.linspace(0.2, 6.0, 31), np.linspace(0.1, 2.9, 23)
    exact = np.sin(6 * fine_x)[:, None] * np.cos(4 * fine_y)
    on_grid = to_host(solution.predict((make(fine_x), make(fine_y))))
    assert relative(on_grid, exact) <= 1e-2
    points = np.stack([fine_x[:23], fine_y], axis=1)
    np.testing.assert_allclose(to_host(solution.predict(make(points))), np.diagonal(on_grid), atol=1e-10)


def test_a_solution_of_another_size() -> None:
    x, f, u = sine(8.0, 60)
    for size in (1e-4, 1e5):
        solution = gp_pde(x, size * f, size * u, components=8, max_frequency=3.0)
        assert relative(solution.u, size * u) <= 5e-3


@pytest.mark.parametrize("level", [1e-3, 1e-2])
def test_a_noisy_source_with_known_noise(level: float) -> None:
    """Independent noise of a part of the source; the least noise allowed is the true one, several draws."""
    x, f, u = sine(20.0, 100)
    for seed in range(4):
        noisy = f + 400.0 * level * vectors((100,), seed)
        solution = gp_pde(x, noisy, u, components=12, max_frequency=6.0, noise=(level, 10 * level), rtol=1e-3)
        assert relative(solution.u, u) <= 2.5 * level


@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")
def test_limits_and_callbacks() -> None:
    x, f, u = sine(8.0, 60)
    seen: list[Any] = []

    def stop(iterate: Any) -> None:
        seen.append(iterate)
        if iterate.n_iter == 3:
            raise StopIteration

    options: dict[str, Any] = {"components": 8, "max_frequency": 3.0}
    stopped = gp_pde(x, f, u, callback=stop, **options)
    assert (stopped.status, stopped.n_iter) == (Status.STOPPED, 3)
    np.testing.assert_allclose(seen[-1].u, stopped.u)
    assert gp_pde(x, f, u, maxiter=2, **options).status is Status.MAX_ITER
    assert gp_pde(x, f, u, maxiter=0, **options).status is Status.MAX_ITER
    assert gp_pde(x, f, u, time_limit=1e-9, **options).status is Status.TIME_LIMIT

    def fail(iterate: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        gp_pde(x, f, u, callback=fail, **options)
    assert caught.value.result.status is Status.BREAKDOWN  # type: ignore[attr-defined]


def test_pde_refusals() -> None:
    x, f, u = sine(8.0, 60)
    with pytest.raises(InputError, match="not uniform"):
        gp_pde(x**2, f, u)
    with pytest.raises(InputError, match="increase"):
        gp_pde(-x, f, u)
    with pytest.raises(InputError, match="source has shape"):
        gp_pde(x, f[:-1], u)
    with pytest.raises(InputError, match="axes"):
        gp_pde((x, x, x), f, u)
    with pytest.raises(InputError, match="kernel"):
        gp_pde(x, f, u, kernel="rbf")
    with pytest.raises(InputError, match="one for each axis"):
        gp_pde(x, f, u, second=(1.0, 2.0))
    with pytest.raises(InputError, match="second has shape"):
        gp_pde((x, x), np.outer(f, u), np.outer(u, u), second=(x, x))
    with pytest.raises(BackendError, match="boundary"):
        gp_pde(x, f, u.astype(np.float32))
    for noise in ((1e-2, 1e-4), 1e-2, (0.0, 1e-2)):
        with pytest.raises(InputError, match="noise"):
            gp_pde(x, f, u, noise=noise)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 4"):
        gp_pde(x[:3], f[:3], u[:3])


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["student", "gaussian"])
def test_sin_100_x(kernel: str) -> None:
    x, f, u = sine(100.0, 400)
    with warnings.catch_warnings():
        # The last bits of BLAS decide whether the line search ends just before or just after the tolerance.
        warnings.simplefilter("ignore", ConvergenceWarning)
        solution = gp_pde(x, f, u, components=30, max_frequency=20.0, kernel=kernel)
    fine = np.linspace(0.0, TAU, 1201)
    assert solution.residual <= 2 * solution.tolerance
    assert relative(solution.u, u) <= 1e-3
    assert relative(solution.predict(fine), np.sin(100 * fine)) <= 1e-3


@pytest.mark.slow
def test_a_fast_product_on_a_square() -> None:
    x = np.linspace(0.0, TAU, 80)
    u = np.outer(np.sin(20 * x), np.sin(20 * x))
    solution = gp_pde((x, x), -800 * u, u, components=19, max_frequency=6.0)
    assert relative(solution.u, u) <= 2e-3
    fine = np.linspace(0.0, TAU, 200)
    assert relative(solution.predict((fine, fine)), np.outer(np.sin(20 * fine), np.sin(20 * fine))) <= 2e-3


@pytest.mark.parametrize("n", [3, 50])
@pytest.mark.parametrize("hermitian", [True, False])
def test_toeplitz_with_a_nearly_singular_leading_block(n: int, hermitian: bool) -> None:
    rng = np.random.default_rng(n)
    column, row = rng.standard_normal((2, n))
    column[0] = 1e-14
    T, b = toeplitz(column, None if hermitian else row), rng.standard_normal((n, 2))
    reference = np.linalg.solve(sla.toeplitz(column, column if hermitian else row), b)
    np.testing.assert_allclose(T.solve(b), reference, rtol=1e-9, atol=1e-9)
    with pytest.raises(BreakdownError, match="nearly singular"):
        T.solve(b, method="levinson")


@pytest.mark.parametrize("method", ["auto", "dense"])
def test_complex_toeplitz_with_a_real_right_hand_side(xp: Any, make: Any, method: str) -> None:
    column = np.asarray([4.0, 1.0j, 0.5])
    x = toeplitz(make(column)).solve(make(np.ones(3)), method=method)
    np.testing.assert_allclose(to_host(x), np.linalg.solve(sla.toeplitz(column), np.ones(3)), rtol=1e-7)


def test_further_solves_say_that_they_did_not_converge(make: Any) -> None:
    x = make(np.random.default_rng(0).random((100, 2)))
    with pytest.warns(ConvergenceWarning, match="kernel_ridge"):
        model = kernel_ridge(x, x[:, 0], gaussian(0.3), 1e-6, method="cg", maxiter=2)
    with pytest.warns(ConvergenceWarning, match="KernelRidge.solve: iteration limit"):
        model.solve(x[:, 1])
    process = GaussianProcess(gaussian(0.3), noise=1e-6, method="cg", maxiter=2)
    with pytest.warns(ConvergenceWarning):
        process.fit(x, x[:, 0])
    with pytest.warns(ConvergenceWarning, match="KernelRidge.solve"):
        process.predict(x[:3, :], variance=True)


@pytest.mark.parametrize("build", [kronecker, kronecker_sum])
def test_complex_factors_and_a_real_right_hand_side(make: Any, build: Any) -> None:
    F = np.asarray([[2.0, 1.0j], [-1.0j, 3.0]])
    eye = np.eye(2)
    dense = np.kron(F, F) if build is kronecker else np.kron(F, eye) + np.kron(eye, F)
    P, b = build([make(F), make(F)]), make(np.ones(4))
    np.testing.assert_allclose(to_host(P.solve(b)), np.linalg.solve(dense, np.ones(4)), atol=1e-13)
    with pytest.raises(InputError, match="complex128"):
        P @ b


def test_predictions_name_the_points() -> None:
    x = np.linspace(0.0, 1.0, 10)[:, None]
    process = GaussianProcess(gaussian(0.3), noise=1e-2).fit(x, x[:, 0])
    for points in (x[:, 0], np.ones((3, 2)), np.full((3, 1), np.nan), np.ones((3, 1), np.float32), np.ones((0, 1))):
        for variance in (False, True):
            with pytest.raises((InputError, BackendError), match="points"):
                process.predict(points, variance=variance)


def test_a_process_that_misses_the_boundary_values_is_no_solution() -> None:
    x = np.linspace(0.0, 2.0 * np.pi, 120)
    u = np.sin(x)
    messages = []
    for components in (5, 10, 20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            solution = gp_pde(
                x, u**3 - 2.0 * u, u, nonlinearity=lambda v: (v**3 - v, 3.0 * v**2 - 1.0), components=components
            )
        if solution.boundary_gap > 0.1:
            assert not solution.converged
            messages.append(solution.message)
    assert messages
    assert all("misses the boundary values by 0." in message for message in messages)


@pytest.mark.parametrize(("n", "options"), [(120, {"components": 10}), (100, {"components": 12, "max_frequency": 7.8})])
def test_an_error_hidden_between_the_points_is_found(n: int, options: dict[str, Any]) -> None:
    """Residual and boundary values are tiny whether the solution is right or a slow error hides behind a Nyquist wave."""
    for omega in (20.0, 25.0, 30.0):
        x, f, u = sine(omega, n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            solution = gp_pde(x, f, u, **options)
        error = relative(solution.u, u)
        assert error <= 1e-2 or not solution.converged
        if solution.between_points > 1e-2:
            assert not solution.converged
            assert "between the points" in solution.message
        # Nothing is made of waves that only the interpolation cannot follow.
        assert error > 1e-3 or solution.between_points == 0.0


def test_a_reaction_that_is_none_is_named(xp: Any, make: Any) -> None:
    x = make(np.linspace(0.0, 1.0, 20))
    for reaction in (lambda u: u, lambda u: (u, u, u)):
        with pytest.raises(InputError, match="nonlinearity returned"):
            gp_pde(x, x, 0.0 * x, nonlinearity=reaction, components=3, maxiter=2)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_ridge_in_any_units(make: Any, size: float) -> None:
    """float32 targets whose squares leave its range are fitted, and known to be."""
    rng = np.random.default_rng(2)
    x, y = rng.random((60, 2)), rng.standard_normal(60)
    plain = kernel_ridge(make(x.astype(np.float32)), make(y.astype(np.float32)), gaussian(0.3), 1e-1)
    single = make((size * y).astype(np.float32))
    scaled = kernel_ridge(make(x.astype(np.float32)), single, gaussian(0.3), 1e-1)
    assert scaled.converged
    np.testing.assert_allclose(
        to_host(scaled.coefficients).astype(float) / size, to_host(plain.coefficients), rtol=1e-4, atol=1e-5
    )

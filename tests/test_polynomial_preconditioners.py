"""Polynomial preconditioners and the gradient methods on them: identities, eigenvalue formulas, known counts, all libraries."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
import scipy.sparse.linalg as spla
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.operators import LinearOperator
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.solvers.linear import cg
from xpsolve.solvers.linear.preconditioners import (
    chebyshev_polynomial,
    elementary_symmetric,
    estimate_bounds,
    fast_gradient,
    krylov_gradient,
    neumann_polynomial,
    symmetric_polynomial,
)
from xpsolve.solvers.result import Status


def poisson(s: int) -> sps.csr_array:
    T = sps.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(s, s))
    return sps.csr_array(sps.kronsum(T, T))


def spd(values: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of given eigenvalues, and its eigenvectors."""
    n = len(values)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    A = (Q * np.asarray(values)) @ Q.T
    return 0.5 * (A + A.T), Q


def sigma(values: Any, tau: int) -> float:
    """The elementary symmetric polynomial, product by product."""
    return float(sum(math.prod(c) for c in combinations(values, tau)))


VALUES = [7.0, 4.0, 3.0, 1.5, 1.0, 0.4, 0.2]


@pytest.mark.parametrize("tau", range(7))
def test_the_identities(xp: Any, make: Any, tau: int) -> None:
    B, Q = spd(VALUES)
    P = to_host(symmetric_polynomial(make(B), tau) @ make(np.eye(7)))
    size = sigma(VALUES, tau)
    np.testing.assert_allclose(np.trace(P), (7 - tau) * size, rtol=1e-10)
    others = [sigma(VALUES[:i] + VALUES[i + 1 :], tau) for i in range(7)]
    np.testing.assert_allclose(np.diag(Q.T @ P @ Q), others, rtol=1e-10)
    np.testing.assert_allclose(P, (Q * np.asarray(others)) @ Q.T, atol=1e-10 * size)
    scaled = symmetric_polynomial(make(B), tau, normalized=True) @ make(np.eye(7))
    np.testing.assert_allclose(to_host(scaled), P / size, atol=1e-12)
    if tau == 6:
        np.testing.assert_allclose(P @ B, np.linalg.det(B) * np.eye(7), atol=1e-10 * np.linalg.norm(P))


@pytest.mark.parametrize("tau", [1, 2, 4])
def test_traces_serve_what_is_not_stored(xp: Any, make: Any, tau: int) -> None:
    B, _ = spd(VALUES)
    mine, b = make(B), make(np.arange(7.0))
    powers = [float(np.sum(np.asarray(VALUES) ** i)) for i in range(1, tau + 1)]
    np.testing.assert_allclose(
        elementary_symmetric(powers, tau), [sigma(VALUES, t) for t in range(tau + 1)], rtol=1e-12
    )
    hidden = LinearOperator((7, 7), lambda v: mine @ v, dtype=mine.dtype)
    P = symmetric_polynomial(hidden, tau, powers, like=b)
    np.testing.assert_allclose(to_host(P @ b), to_host(symmetric_polynomial(mine, tau) @ b), rtol=1e-11)
    with pytest.raises(InputError, match="traces is missing"):
        symmetric_polynomial(hidden, tau, like=b)
    with pytest.raises(InputError, match="expected"):
        symmetric_polynomial(hidden, tau, powers[:-1], like=b)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 9), seed=st.integers(0, 2**16), spread=st.floats(0.1, 1.0))
def test_conditioning_never_grows_and_keeps_the_paper_bound(n: int, seed: int, spread: float) -> None:
    values = np.sort(10 ** np.random.default_rng(seed).uniform(0, spread, n))[::-1]
    B = np.diag(values)
    numbers = []
    for tau in range(n):
        P = symmetric_polynomial(B, tau, normalized=True) @ np.eye(n)
        spectrum = np.diag(P) * values
        numbers.append(spectrum.max() / spectrum.min())
        assert numbers[-1] <= math.comb(n - 1, tau) * values[tau] / values[-1] * (1 + 1e-6)
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(numbers))
    np.testing.assert_allclose(numbers[-1], 1.0, rtol=1e-6)


def test_condition_numbers_of_the_notes() -> None:
    few = np.concatenate([[1e4, 5e3, 2e3], np.linspace(10, 1, 97)])
    for values, expected in (
        (few, [1e4, 4297, 1556, 437, 243, 166, 125]),
        (1 / np.arange(1, 101) ** 2, [1e4, 3884, 2017, 1222]),
    ):
        for tau, number in enumerate(expected):
            spectrum = (symmetric_polynomial(np.diag(values), tau, normalized=True) @ np.ones(100)) * values
            np.testing.assert_allclose(spectrum.max() / spectrum.min(), number, rtol=2e-3)


def test_float32_keeps_its_range(xp: Any, make: Any) -> None:
    B = make((1e6 * np.diag(np.arange(1.0, 41.0))).astype(np.float32))
    b = make(np.ones(40, dtype=np.float32))
    z = symmetric_polynomial(B, 7, normalized=True) @ b
    assert z.dtype == xp.float32
    assert bool(xp.all(xp.isfinite(z)))
    assert bool(xp.all(z > 0))


@pytest.mark.parametrize(
    ("degree", "low", "expected"), [(1, None, 98), (4, None, 75), (16, None, 23), (4, 30, 43), (8, 30, 28)]
)
def test_chebyshev_reference_counts(degree: int, low: int | None, expected: int) -> None:
    A, b = poisson(63), np.random.default_rng(0).standard_normal(63**2)
    high = 8 * np.cos(np.pi / 128) ** 2
    bounds = (8 * np.sin(np.pi / 128) ** 2, high) if low is None else (high / low, high)
    assert abs(cg(A, b, rtol=1e-8, M=chebyshev_polynomial(A, degree, bounds)).n_iter - expected) <= 1
    if low == 30:
        assert abs(cg(A, b, rtol=1e-8, M=chebyshev_polynomial(A, degree)).n_iter - expected) <= 2


def test_neumann_halves_the_iterations() -> None:
    A, b = poisson(63), np.random.default_rng(0).standard_normal(63**2)
    counts = {d: cg(A, b, rtol=1e-8, M=neumann_polynomial(A, d)).n_iter for d in (0, 1, 3)}
    assert abs(counts[0] - 191) <= 1
    assert counts[1] <= 117
    assert counts[3] <= 83
    assert spla.cg(A, b, rtol=1e-8, M=neumann_polynomial(A, 3))[1] == 0


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_polynomials_are_what_they_say(xp: Any, make: Any, degree: int) -> None:
    values = np.linspace(0.5, 6.0, 30)
    A, Q = spd(values)
    b = np.random.default_rng(1).standard_normal((30, 2))
    M = chebyshev_polynomial(make(A), degree, (0.5, 6.0))
    kind = np.polynomial.chebyshev.Chebyshev.basis(degree + 1)
    error = kind((6.5 - 2 * values) / 5.5) / kind(6.5 / 5.5)
    expected = (Q * ((1 - error) / values)) @ Q.T
    np.testing.assert_allclose(to_host(M @ make(b)), expected @ b, atol=1e-12)
    w = 0.3
    expected = (Q * ((1 - (1 - w * values) ** (degree + 1)) / values)) @ Q.T
    M = neumann_polynomial(make(A), degree, w)
    np.testing.assert_allclose(to_host(M @ make(b[:, 0].copy())), expected @ b[:, 0], atol=1e-12)
    assert {"symmetric", "positive"} <= M.tags
    small = make(A.astype(np.float32))
    assert (chebyshev_polynomial(small, degree) @ small[:, 0]).dtype == xp.float32


def test_one_point_interval_is_a_scaling() -> None:
    np.testing.assert_allclose(chebyshev_polynomial(4 * np.eye(3), 3, (4.0, 4.0)) @ np.ones(3), 0.25, rtol=1e-14)
    z = chebyshev_polynomial(np.asarray([[2.0]]), 2) @ np.ones(1)
    assert 0 < float(z[0]) < 1.0


def test_bounds_hold_and_are_close(xp: Any, make: Any) -> None:
    for seed in range(5):
        values = np.sort(np.random.default_rng(seed).uniform(-3.0, 5.0, 200))
        A, _ = spd(values, seed)
        low, high = estimate_bounds(make(A), rng=seed, steps=15)
        assert values[-1] <= high <= values[-1] + 0.5
        assert values[0] - 1e-9 <= low <= values[0] + 0.5
    low, high = estimate_bounds(make(np.diag([2.0, 2.0, 5.0])))
    np.testing.assert_allclose([low, high], [2.0, 5.0], rtol=1e-12)
    assert high >= 5.0
    low, high = estimate_bounds(make(3.0 * np.eye(1)))
    np.testing.assert_allclose([low, high], 3.0, rtol=1e-12)
    H = np.asarray([[2.0, 1j], [-1j, 2.0]])
    np.testing.assert_allclose(estimate_bounds(make(H)), [1.0, 3.0], rtol=1e-10)
    single = estimate_bounds(make(np.diag(np.linspace(1, 9, 80)).astype(np.float32)))
    assert 9.0 <= single[1] < 9.5
    assert estimate_bounds(make(np.zeros((3, 3)))) == (0.0, 0.0)


class Logistic:
    """The case of the notes: 1000 observations, 100 unknowns, a curvature bound with condition number 4115."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        Q = np.linalg.qr(rng.standard_normal((100, 100)))[0]
        scale = np.concatenate([[30, 20, 15, 10, 8], np.linspace(2, 0.5, 95)])
        self.A = (rng.standard_normal((1000, 100)) * scale) @ Q.T
        truth = ((rng.standard_normal(100) / scale) * 0.15) @ Q.T
        self.y = np.where(rng.random(1000) < 1 / (1 + np.exp(-self.A @ truth)), 1.0, -1.0)
        self.B = self.A.T @ self.A / 1000
        x = np.zeros(100)
        for _ in range(20):
            s = 1 / (1 + np.exp(-self.A @ x))
            x = x - np.linalg.solve((self.A * (s * (1 - s))[:, None]).T @ self.A / 1000, self.gradient(x))
        self.x, self.least, self.start = x, self.value(x), self.value(np.zeros(100))

    def value(self, x: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0.0, -self.y * (self.A @ x))))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return self.A.T @ (-self.y / (1 + np.exp(self.y * (self.A @ x)))) / 1000

    def until(self, iterate: Any) -> None:
        if self.value(iterate.x) - self.least <= 1e-6 * (self.start - self.least):
            raise StopIteration


@pytest.fixture(scope="module")
def logistic() -> Logistic:
    return Logistic()


@pytest.mark.parametrize(("tau", "most"), [(2, 330), (3, 145), (4, 60), (5, 48)])
def test_krylov_search_reference_counts(logistic: Logistic, tau: int, most: int) -> None:
    case = logistic
    result = krylov_gradient(case.gradient, case.B, np.zeros(100), 0.25, tau, rtol=0.0, callback=case.until)
    assert result.status is Status.STOPPED
    assert result.n_iter <= most
    assert result.evaluations == {"gradient": result.n_iter + 1, "matvec": (tau + 1) * result.n_iter}


@pytest.mark.parametrize(("tau", "expected"), [(2, 1420), (5, 655)])
def test_fast_gradient_reference_counts(logistic: Logistic, tau: int, expected: int) -> None:
    case = logistic
    P = symmetric_polynomial(case.B, tau)
    result = fast_gradient(case.gradient, case.B, np.zeros(100), 0.25, P, rtol=0.0, callback=case.until)
    assert abs(result.n_iter - expected) <= 5


def test_the_tested_gradient_is_that_of_the_answer(logistic: Logistic) -> None:
    case = logistic
    for solve in (krylov_gradient, fast_gradient):
        result = solve(case.gradient, case.B, np.zeros(100), 0.25, rtol=1e-3)
        assert result.converged
        np.testing.assert_allclose(result.gradient, case.gradient(result.x), rtol=1e-12)
        np.testing.assert_allclose(result.residual, np.linalg.norm(result.gradient), rtol=1e-12)
    sparse_looks = fast_gradient(case.gradient, case.B, np.zeros(100), 0.25, rtol=1e-3, check_every=50)
    assert sparse_looks.evaluations["gradient"] < 1.1 * sparse_looks.n_iter + 5
    assert sparse_looks.converged


def test_quadratics_on_every_library(xp: Any, make: Any) -> None:
    B, _ = spd(VALUES)
    c = np.arange(1.0, 8.0)
    mine, right = make(B), make(c)
    x0 = make(np.ones(7))
    result = krylov_gradient(lambda x: mine @ x - right, mine, x0, 1.0, tau=6, rtol=1e-9)
    assert result.n_iter <= 2
    assert type(result.x) is type(x0)
    np.testing.assert_allclose(to_host(result.x), np.linalg.solve(B, c), rtol=1e-7)
    np.testing.assert_array_equal(to_host(x0), np.ones(7))
    # P_{n-1} is the adjugate: one fast step of the right length solves a quadratic.
    P = symmetric_polynomial(mine, 6, normalized=True)
    result = fast_gradient(lambda x: mine @ x - right, mine, x0, 1.0, P, rtol=1e-7)
    assert result.n_iter <= 2
    np.testing.assert_allclose(to_host(result.x), np.linalg.solve(B, c), rtol=1e-5)
    small = make(B.astype(np.float32))
    low = krylov_gradient(lambda x: small @ x - small[:, 0], small, small[:, 1], 1.0, tau=3, rtol=1e-3)
    assert low.x.dtype == xp.float32


def test_an_exhausted_krylov_space_is_no_trouble() -> None:
    B = np.diag([4.0, 4.0, 1.0])
    result = krylov_gradient(lambda x: B @ x - np.asarray([4.0, 4.0, 0.0]), B, np.zeros(3), 1.0, tau=5, rtol=1e-12)
    assert result.n_iter <= 2
    np.testing.assert_allclose(result.x, [1.0, 1.0, 0.0], atol=1e-12)
    at_rest = krylov_gradient(lambda x: B @ x, B, np.zeros(3), 1.0)
    assert at_rest.converged
    assert at_rest.n_iter == 0


def test_steps_stay_on_the_device(logistic: Logistic) -> None:
    case = logistic
    with count_transfers() as transfers, pytest.warns(ConvergenceWarning):
        krylov_gradient(case.gradient, case.B, np.zeros(100), 0.25, rtol=0.0, maxiter=20, check_every=10)
    assert transfers.n <= 8


def test_bad_input() -> None:
    B = np.diag([2.0, 1.0])
    with pytest.raises(InputError, match="tau"):
        symmetric_polynomial(B, 2)
    with pytest.raises(InputError, match="positive definite"):
        symmetric_polynomial(-B, 1)
    with pytest.raises(InputError, match="traces"):
        symmetric_polynomial(B, 1, [-3.0])
    with pytest.raises(InputError, match="bounds"):
        chebyshev_polynomial(B, 2, (2.0, 1.0))
    with pytest.raises(InputError, match="bounds"):
        chebyshev_polynomial(B, 2, 3.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="degree"):
        neumann_polynomial(B, -1)
    with pytest.raises(InputError, match="omega"):
        neumann_polynomial(B, 1, 0.0)
    with pytest.raises(BackendError, match="like"):
        estimate_bounds(lambda v: v)
    with pytest.raises(InputError, match="L must be positive"):
        krylov_gradient(lambda x: x, B, np.zeros(2), 0.0)
    with pytest.raises(InputError, match="gradient"):
        krylov_gradient(lambda x: x[:1], B, np.zeros(2), 1.0)
    with pytest.raises(InputError, match="rtol"):
        fast_gradient(lambda x: x, B, np.ones(2), 1.0, rtol=-1.0)


@pytest.mark.parametrize("build", [chebyshev_polynomial, neumann_polynomial, symmetric_polynomial])
def test_a_real_matrix_and_complex_vectors(xp: Any, make: Any, build: Any) -> None:
    B = spd(VALUES)[0]
    M = build(make(B), 2)
    z = np.linspace(-1.0, 1.0, 7) + 1j * np.linspace(0.0, 3.0, 7) ** 2
    matrix = to_host(M @ make(np.eye(7)))
    np.testing.assert_allclose(to_host(M @ make(z)), matrix @ z, rtol=1e-12)
    assert cg(make(B), make(z), M=M, rtol=1e-10).converged


def test_a_bound_that_is_not_positive_definite(xp: Any, make: Any) -> None:
    c = make(np.ones(3))
    for B in (np.zeros((3, 3)), -np.eye(3)):
        bound = make(B)
        with pytest.warns(ConvergenceWarning, match="not positive definite"):
            result = krylov_gradient(lambda x, B=bound: B @ x - c * make(np.arange(3.0)), bound, make(np.zeros(3)), 1.0)
        assert result.status is Status.INDEFINITE
        assert bool(xp.all(xp.isfinite(result.x)))
    for B in (np.zeros((3, 3)), -np.eye(3)):
        for build in (chebyshev_polynomial, neumann_polynomial):
            with pytest.raises(InputError, match="A is not positive definite"):
                build(make(B), 2)
        with pytest.raises(InputError, match="B is not positive definite"):
            fast_gradient(lambda x: x - c, make(B), make(np.zeros(3)), 1.0)
    with pytest.raises(InputError, match="B or P is not positive definite"):
        fast_gradient(
            lambda x: x - c,
            make(np.eye(3)),
            make(np.zeros(3)),
            1.0,
            LinearOperator((3, 3), lambda v: -v, dtype=c.dtype),
        )
    with pytest.raises(BackendError, match="gradient returned a list"):
        krylov_gradient(lambda x: [1.0, 2.0, 3.0], make(np.eye(3)), make(np.zeros(3)), 1.0)

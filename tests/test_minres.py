"""MINRES: the smallest residual over the Krylov space, honest stopping, indefinite and complex systems, every library."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import ConvergenceWarning, InputError
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.solvers.linear import minres
from xpsolve.solvers.result import Status


def indefinite(n: int, seed: int = 0, condition: float = 50.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.logspace(0, np.log10(condition), n) * rng.choice([-1.0, 1.0], n)
    return (Q * values) @ Q.T


def poisson(s: int) -> sps.csr_array:
    T = sps.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(s, s))
    return sps.csr_array(sps.kron(T, sps.eye_array(s)) + sps.kron(sps.eye_array(s), T))


def krylov_minimum(A: np.ndarray, b: np.ndarray, steps: int) -> list[float]:
    """Smallest residual norms over the Krylov spaces, by orthogonal bases and least squares."""
    basis, norms = [b / np.linalg.norm(b)], [float(np.linalg.norm(b))]
    for _ in range(steps):
        Q = np.stack(basis, axis=1)
        y = np.linalg.lstsq(A @ Q, b, rcond=None)[0]
        norms.append(float(np.linalg.norm(b - A @ Q @ y)))
        w = A @ basis[-1]
        for _ in range(2):
            w = w - Q @ (Q.T @ w)
        basis.append(w / np.linalg.norm(w))
    return norms


def test_the_residuals_are_the_smallest_possible() -> None:
    A, b = indefinite(40), np.random.default_rng(1).standard_normal(40)
    history = minres(A, b, rtol=1e-9).history
    # Beyond, the short recurrence loses the orthogonality that the reference keeps.
    np.testing.assert_allclose(history[:21], krylov_minimum(A, b, 20), rtol=1e-9)
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(history))


def test_known_iteration_count() -> None:
    A, b = poisson(63), np.random.default_rng(0).standard_normal(63**2)
    result = minres(A, b, rtol=1e-8)
    assert abs(result.n_iter - 187) <= 2
    assert np.linalg.norm(b - A @ result.x) <= 1e-8 * np.linalg.norm(b)


def test_every_library_takes_as_many_steps(xp: Any, make: Any) -> None:
    A, b = indefinite(60), np.random.default_rng(2).standard_normal(60)
    result = minres(make(A), make(b), rtol=1e-10)
    assert type(result.x) is type(make(b))
    assert abs(result.n_iter - minres(A, b, rtol=1e-10).n_iter) <= 1
    np.testing.assert_allclose(to_host(result.x), np.linalg.solve(A, b), atol=1e-8)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_columns_stop_one_by_one(xp: Any, make: Any, preconditioned: bool) -> None:
    A, rng = indefinite(50), np.random.default_rng(3)
    B = rng.standard_normal((50, 4)) * np.asarray([1.0, 1e-6, 0.0, 1e3])
    M = make(np.diag(rng.uniform(0.5, 2.0, 50))) if preconditioned else None
    x = to_host(minres(make(A), make(B), rtol=1e-9, M=M).x)
    assert np.all(np.linalg.norm(B - A @ x, axis=0) <= 1e-9 * np.linalg.norm(B, axis=0) * (1 + 1e-9))
    assert np.all(x[:, 2] == 0)


def test_complex_hermitian() -> None:
    rng = np.random.default_rng(4)
    G = rng.standard_normal((30, 30)) + 1j * rng.standard_normal((30, 30))
    A, b = G + G.conj().T, rng.standard_normal(30) + 1j * rng.standard_normal(30)
    np.testing.assert_allclose(minres(A, b, rtol=1e-11).x, np.linalg.solve(A, b), atol=1e-8)


def test_a_preconditioner_helps_and_the_tested_norm_is_the_true_one() -> None:
    rng = np.random.default_rng(5)
    A = indefinite(80, condition=5.0)
    D = np.logspace(0, 1.5, 80)
    badly, b = D[:, None] * A * D[None, :], rng.standard_normal(80)
    M = np.diag(1 / D**2)
    plain, helped = minres(badly, b, rtol=1e-8, maxiter=4000), minres(badly, b, rtol=1e-8, M=M)
    assert helped.n_iter < plain.n_iter / 2
    np.testing.assert_allclose(helped.residual, np.linalg.norm(b - badly @ helped.x), rtol=1e-6)


def test_an_indefinite_preconditioner_is_said() -> None:
    with pytest.warns(ConvergenceWarning, match="preconditioner"):
        result = minres(indefinite(20), np.ones(20), M=np.diag(np.linspace(-1.0, 1.0, 20)))
    assert result.status is Status.INDEFINITE


@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")
def test_float32_runs_say_the_truth() -> None:
    seen = set()
    for seed in range(12):
        A = indefinite(150, seed, condition=10 ** np.random.default_rng(seed).uniform(0.5, 5)).astype(np.float32)
        b = np.random.default_rng(seed).standard_normal(150).astype(np.float32)
        result = minres(A, b, rtol=1e-5, maxiter=500)
        truth = np.linalg.norm(b.astype(float) - A.astype(float) @ result.x.astype(float))
        np.testing.assert_allclose(result.residual, truth, rtol=1e-5)
        assert result.converged == (truth <= result.tolerance * (1 + 1e-6))
        seen.add(result.converged)
    assert seen == {True, False}


def test_edges() -> None:
    assert minres(np.asarray([[-2.0]]), np.asarray([4.0])).x.tolist() == [-2.0]
    zero = minres(np.eye(3), np.zeros(3), x0=np.ones(3))
    assert zero.converged
    assert zero.x.tolist() == [0.0, 0.0, 0.0]
    exact = minres(np.eye(3), np.ones(3), x0=np.ones(3))
    assert exact.n_iter == 0
    # Singular and consistent: a solution of the range; singular and not: an honest residual.
    singular = np.diag([1.0, -2.0, 0.0])
    np.testing.assert_allclose(minres(singular, np.asarray([1.0, 2.0, 0.0])).x, [1.0, -1.0, 0.0], atol=1e-12)
    for b in (np.asarray([1.0, 2.0, 3.0]), np.asarray([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]).T):
        with pytest.warns(ConvergenceWarning, match="singular"):
            result = minres(singular, b)
        assert result.status is Status.SINGULAR
        np.testing.assert_allclose(np.linalg.norm(b - singular @ result.x, axis=0), b[2], rtol=1e-9)
    with pytest.raises(InputError, match="rtol"):
        minres(np.eye(2), np.ones(2), rtol=-1.0)


def test_few_transfers() -> None:
    A, b = indefinite(60), np.random.default_rng(6).standard_normal(60)
    with count_transfers() as transfers:
        result = minres(A, b, rtol=1e-8, check_every=10)
    assert transfers.n <= result.n_iter / 10 + 7


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 25), k=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_any_well_conditioned_system(n: int, k: int, seed: int) -> None:
    A, B = indefinite(n, seed, 20.0), np.random.default_rng(seed).standard_normal((n, k))
    np.testing.assert_allclose(minres(A, B, rtol=1e-11, maxiter=50 * n + 50).x, np.linalg.solve(A, B), atol=1e-8)

"""Conjugate gradients, and through them the loop: honesty, many right-hand sides, every way a run can end."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
import scipy.sparse.linalg as spla
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.problems import circulant, poisson2d, spd_with_condition
from xpsolve.solvers.linear import cg, deflated_cg
from xpsolve.solvers.ot import sinkhorn
from xpsolve.solvers.result import Status


def poisson(s: int) -> sps.csr_array:
    T = sps.diags_array([-np.ones(s - 1), 2 * np.ones(s), -np.ones(s - 1)], offsets=[-1, 0, 1])
    eye = sps.eye_array(s)
    return sps.csr_array(sps.kron(T, eye) + sps.kron(eye, T))


@pytest.mark.parametrize(("rtol", "expected"), [(1e-5, 149), (1e-8, 191), (1e-10, 223)])
def test_iteration_counts_are_scipys(rtol: float, expected: int) -> None:
    A, b = poisson(63), np.random.default_rng(0).standard_normal(63**2)
    count = 0

    def tick(_: Any) -> None:
        nonlocal count
        count += 1

    spla.cg(A, b, rtol=rtol, callback=tick)
    result = cg(A, b, rtol=rtol)
    assert abs(result.n_iter - count) <= 1
    assert abs(result.n_iter - expected) <= 1
    assert np.linalg.norm(b - A @ result.x) <= rtol * np.linalg.norm(b)


def test_same_count_on_every_library(xp: Any) -> None:
    A, b, _ = spd_with_condition(200, 1e3, xp=xp, rng=0)
    with count_transfers() as transfers:
        result = cg(A, b, rtol=1e-10, check_every=10)
    assert result.converged
    assert transfers.n <= result.n_iter / 10 + 12
    assert abs(cg(A, b, rtol=1e-10).n_iter - 229) <= 1
    assert type(result.x) is type(b)


def test_known_answers(xp: Any) -> None:
    A, b, x = poisson2d(31, xp=xp, mode=(2, 3))
    result = cg(A, b, rtol=1e-12)
    assert result.n_iter == 1
    np.testing.assert_allclose(to_host(result.x), to_host(x), rtol=1e-10, atol=1e-12)
    C, value = circulant(16, 0.1, xp=xp)
    np.testing.assert_allclose(sinkhorn(C, reg=0.1).value, value, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")
def test_float32_runs_say_the_truth_about_themselves() -> None:
    n, converged = 200, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        A = ((Q * np.logspace(0, rng.uniform(3, 5.5), n)) @ Q.T).astype(np.float32)
        b = rng.standard_normal(n).astype(np.float32)
        result = cg(A, b, rtol=1e-5, maxiter=600)
        truth = np.linalg.norm(b.astype(float) - A.astype(float) @ result.x.astype(float))
        assert result.x.dtype == np.float32
        np.testing.assert_allclose(result.residual, truth, rtol=1e-5)
        assert result.converged == (truth <= result.tolerance * (1 + 1e-6))
        assert result.converged or result.status in {Status.MAX_ITER, Status.STAGNATED}
        converged += result.converged
    assert 0 < converged < 40  # both kinds of run were seen


def test_many_right_hand_sides_stop_one_by_one(xp: Any, make: Any) -> None:
    rng = np.random.default_rng(1)
    A = np.asarray(poisson(12).todense())
    B = rng.standard_normal((144, 4)) * np.asarray([1.0, 1e-6, 0.0, 1e3])
    result = cg(make(A), make(B), rtol=1e-9)
    x = to_host(result.x)
    assert np.all(np.linalg.norm(B - A @ x, axis=0) <= 1e-9 * np.linalg.norm(B, axis=0) * (1 + 1e-9))
    assert np.all(x[:, 2] == 0)
    for j in (0, 3):
        np.testing.assert_allclose(x[:, j], cg(A, B[:, j], rtol=1e-9).x, atol=1e-8 * np.abs(x[:, j]).max())


def test_complex_hermitian() -> None:
    rng = np.random.default_rng(2)
    G = rng.standard_normal((30, 30)) + 1j * rng.standard_normal((30, 30))
    A, b = G @ G.conj().T + 30 * np.eye(30), rng.standard_normal(30) + 1j * rng.standard_normal(30)
    np.testing.assert_allclose(cg(A, b, rtol=1e-12).x, np.linalg.solve(A, b), atol=1e-10)


def test_preconditioner_and_start() -> None:
    A, b, x = spd_with_condition(60, 1e4, xp=np, rng=3)
    assert cg(A, b, M=np.linalg.inv(A), rtol=1e-8).n_iter <= 3
    assert cg(A, b, x0=x, rtol=1e-8).n_iter == 0
    zero = cg(A, np.zeros(60), x0=x)
    assert zero.converged
    assert zero.n_iter == 0
    assert not zero.x.any()
    assert cg(A, b, rtol=1e-8).to_scipy()[1] == 0


@pytest.mark.parametrize("columns", [1, 3])
def test_indefinite_is_said_and_leaves_the_last_good_iterate(columns: int) -> None:
    A, b, _ = spd_with_condition(40, 1e2, xp=np, rng=4)
    b = b if columns == 1 else np.stack([b] * columns, axis=1)
    with pytest.warns(ConvergenceWarning, match="positive definite"):
        result = cg(A - 3 * np.eye(40), b)
    assert result.status is Status.INDEFINITE
    assert np.isfinite(result.x).all()
    assert result.to_scipy()[1] == -1
    with pytest.raises(ConvergenceError):
        result.raise_for_status()
    with pytest.warns(ConvergenceWarning):
        assert cg(A, b, M=-np.eye(40)).status is Status.INDEFINITE


def test_nan_from_the_operator() -> None:
    calls = 0

    def broken(v: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return v * np.linspace(1, 9, 20) if calls < 4 else v * np.nan

    with pytest.warns(ConvergenceWarning):
        result = cg(broken, np.ones(20), rtol=1e-12)
    assert result.status is Status.NONFINITE
    assert np.isfinite(result.x).all()


def test_every_way_to_stop() -> None:
    A, b, _ = spd_with_condition(80, 1e4, xp=np, rng=5)

    def stop(iterate: Any) -> None:
        if iterate.n_iter == 5:
            raise StopIteration

    assert cg(A, b, callback=stop).status is Status.STOPPED

    def interrupt(iterate: Any) -> None:
        if iterate.n_iter == 4:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted"):
        result = cg(A, b, callback=interrupt)
    assert result.n_iter == 4
    np.testing.assert_allclose(result.residual, np.linalg.norm(b - A @ result.x), rtol=1e-12)

    def fail(iterate: Any) -> None:
        if iterate.n_iter == 3:
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        cg(A, b, callback=fail)
    assert caught.value.result.n_iter == 3  # type: ignore[attr-defined]

    with pytest.warns(ConvergenceWarning, match="maxiter"):
        result = cg(A, b, maxiter=7)
    assert result.n_iter == 7
    assert len(result.history) == 8
    with pytest.warns(ConvergenceWarning, match="time_limit"):
        assert cg(A, b, rtol=1e-14, time_limit=1e-9, callback=lambda _: time.sleep(0.001)).status is Status.TIME_LIMIT
    assert cg(A, b, progress=True).converged
    with pytest.warns(ConvergenceWarning):
        assert cg(A, b, maxiter=0).n_iter == 0


@pytest.mark.parametrize("kind", ["callable", "scipy", "sparse"])
def test_operators_of_others(kind: str) -> None:
    A, b = poisson(9), np.ones(81)
    given = {"callable": lambda v: A @ v, "scipy": spla.aslinearoperator(A), "sparse": A}[kind]
    np.testing.assert_allclose(cg(given, b, rtol=1e-12).x, spla.spsolve(A.tocsc(), b), rtol=1e-9)


def test_bad_input_names_the_argument() -> None:
    A, b = np.eye(3), np.ones(3)
    for args, options, name in [
        ((np.ones((3, 2)), b), {}, "A"),
        ((A, np.ones(4)), {}, "A"),
        ((A, b * np.nan), {}, "b"),
        ((np.full((3, 3), np.inf), b), {}, "A"),
        ((A, np.ones(3, dtype=int)), {}, "b"),
        ((A.astype(np.float32), b), {}, "A"),
        ((A, b), {"M": np.eye(2)}, "M"),
        ((A, b), {"x0": np.ones(2)}, "x0"),
        ((A, b), {"rtol": -1.0}, "rtol"),
        ((A, b), {"maxiter": 2.5}, "maxiter"),
        ((A, b), {"callback": 3}, "callback"),
        ((lambda v: v[:2], b), {}, "A"),
        (("A", b), {}, "A"),
    ]:
        with pytest.raises((BackendError, InputError), match=name):
            cg(*args, **options)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 30), seed=st.integers(0, 2**16), scale=st.floats(1e-6, 1e6))
def test_scaling(n: int, seed: int, scale: float) -> None:
    A, b, _ = spd_with_condition(n, 50.0, xp=np, rng=seed)
    x = cg(A, b, rtol=1e-10).x
    np.testing.assert_allclose(cg(scale * A, scale * b, rtol=1e-10).x, x, atol=1e-7 * np.abs(x).max())


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("solver", [cg, deflated_cg])
def test_rounding_between_two_looks_is_no_negative_curvature(
    xp: Any, make: Any, solver: Any, preconditioned: bool
) -> None:
    """A semidefinite matrix after convergence: the residual is rounding, along the null vector, its curvature of any sign."""
    for n in (4, 6, 8):
        for seed in range(10):
            rng = np.random.default_rng(seed)
            W = rng.random((n, n))
            L = np.diag((W + W.T).sum(axis=1)) - W - W.T
            b = L @ rng.standard_normal(n)
            M = make(np.diag(1 / np.diag(L))) if preconditioned else None
            result = solver(make(L), make(b), rtol=1e-8, check_every=10, M=M)
            assert result.converged
            np.testing.assert_allclose(L @ to_host(result.x), b, atol=1e-7 * np.linalg.norm(b))

"""Every Krylov method on SciPy's own cases and on one another: honest flags, known counts, columns, faults, every library."""

from __future__ import annotations

import warnings
from collections.abc import Callable
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
from xpsolve.problems import krylov_cases, spd_with_condition
from xpsolve.solvers.linear import (
    bicgstab,
    block_cg,
    cg,
    chebyshev,
    enlarged_cg,
    fgmres,
    flexible_cg,
    gmres,
    lsmr,
    lsqr,
    minres,
    mixed_cg,
    regularization_path,
    solve,
    tfqmr,
)
from xpsolve.solvers.linear.recycling import deflated_cg
from xpsolve.solvers.result import Status

Solver = Callable[..., Any]
ANY: dict[str, Solver] = {
    "gmres": gmres,
    "fgmres": lambda A, b, **options: fgmres(A, b, **({"M": lambda r: 1.0 * r} | options)),
    "bicgstab": bicgstab,
    "tfqmr": tfqmr,
}
HERMITIAN: dict[str, Solver] = {"minres": minres}
POSITIVE: dict[str, Solver] = {
    "cg": cg,
    "flexible_cg": lambda A, b, **options: flexible_cg(A, b, **({"M": lambda r: 1.0 * r} | options)),
}
ALL = ANY | HERMITIAN | POSITIVE


def poisson(s: int) -> sps.csr_array:
    T = sps.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(s, s))
    return sps.csr_array(sps.kron(T, sps.eye_array(s)) + sps.kron(sps.eye_array(s), T))


def spd(n: int, seed: int = 0, condition: float = 50.0) -> np.ndarray:
    return spd_with_condition(n, condition, xp=np, rng=seed)[0]


def count_of(solver: Solver, *args: Any, **options: Any) -> int:
    steps = 0

    def tick(_: Any) -> None:
        nonlocal steps
        steps += 1

    solver(*args, callback=tick, **options)
    return steps


# ---- SciPy's cases


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.filterwarnings("ignore::xpsolve.backends.errors.ConvergenceWarning")
def test_flags_are_honest_on_scipys_cases(name: str, dtype: str) -> None:
    rtol, solved = 1e-8 if dtype == "float64" else 1e-2, 0
    for case in krylov_cases(xp=np, dtype=getattr(np, dtype)):
        result = ALL[name](case.A, case.b, rtol=rtol)
        assert result.x.dtype == case.b.dtype
        assert np.isfinite(result.x).all()
        wide = case.A.astype(complex)
        truth = np.linalg.norm(case.b.astype(complex) - wide @ result.x.astype(complex))
        np.testing.assert_allclose(result.residual, truth, rtol=1e-3, atol=1e-6 * np.linalg.norm(case.b))
        assert result.converged == (truth <= 1.0001 * rtol * np.linalg.norm(case.b)), case.name
        solved += result.converged
        suits = name in ANY or (case.hermitian and (name in HERMITIAN or case.positive))
        # SciPy, too, excludes TFQMR from this one.
        suits = suits and (name, case.name) != ("tfqmr", "nonsymposdef")
        if suits and case.name not in {"sym-nonpd", "rand"}:
            assert result.converged, f"{name} on {case.name}: {result}"
        if name in {"minres", "cg"} and not case.hermitian:
            assert result.status is Status.NOT_SYMMETRIC
        if name == "flexible_cg" and case.hermitian and not case.positive and not result.converged:
            assert result.status is Status.INDEFINITE
        if case.name == "sym-nonpd" and name in {"bicgstab", "tfqmr"}:
            assert not result.converged  # the recurrences break down there, and must say so
        if case.name == "sym-nonpd" and name in {"minres", "gmres", "fgmres"}:
            assert result.converged
            assert result.n_iter == 3
    assert solved >= 3


def test_known_counts_on_a_grid() -> None:
    A, b = poisson(63), np.random.default_rng(0).standard_normal(63**2)
    for restart, expected in ((20, 667), (40, 384), (80, 313)):
        assert gmres(A, b, rtol=1e-8, restart=restart).n_iter == expected
        norms: list[float] = []
        spla.gmres(A, b, rtol=1e-8, restart=restart, maxiter=99, callback=norms.append, callback_type="pr_norm")
        assert abs(len(norms) - expected) <= 1
    theirs = count_of(spla.bicgstab, A, b, rtol=1e-8)
    assert abs(bicgstab(A, b, rtol=1e-8).n_iter - theirs) <= 0.02 * theirs
    theirs = count_of(spla.tfqmr, A, b, rtol=1e-8)
    assert abs(tfqmr(A, b, rtol=1e-8).n_iter - theirs) <= 0.02 * theirs
    edge = 8 * np.sin(np.pi / 128) ** 2
    assert chebyshev(A, b, rtol=1e-8, bounds=(edge, 8 - edge)).n_iter == 383


def test_minres_and_gmres_have_the_same_residuals() -> None:
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    A, b = (Q * np.linspace(1, 20, 200) * rng.choice([-1.0, 1.0], 200)) @ Q.T, rng.standard_normal(200)
    A = 0.5 * (A + A.T)
    first, second = minres(A, b, rtol=1e-6).history, gmres(A, b, rtol=1e-6, restart=200).history
    np.testing.assert_allclose(first[:60], second[:60], rtol=1e-10)


# ---- GMRES


def test_restarts_that_gain_nothing_are_said() -> None:
    shift, b = np.roll(np.eye(30), 1, axis=0), np.eye(30)[0]
    assert gmres(shift, b, restart=30).n_iter == 30
    for restart in (10, 29):
        with pytest.warns(ConvergenceWarning, match="restart"):
            assert gmres(shift, b, restart=restart).status is Status.STAGNATED


def test_singular_systems_are_said() -> None:
    A = np.diag([1.0, 2.0, 0.0])
    assert gmres(A, np.asarray([1.0, 1.0, 0.0])).converged
    with pytest.warns(ConvergenceWarning, match="singular"):
        result = gmres(A, np.ones(3))
    assert result.status is Status.SINGULAR
    np.testing.assert_allclose(result.residual, 1.0)


def test_gmres_residuals_fall_and_callbacks_see_the_iterate() -> None:
    A, b = poisson(9) + sps.diags_array([1.0], offsets=[1], shape=(81, 81)).tocsr(), np.arange(81.0)
    seen = []
    result = gmres(A, b, restart=7, rtol=1e-9, callback=lambda it: seen.append(np.linalg.norm(b - A @ it.x)))
    np.testing.assert_allclose(seen, result.history[: len(seen)], rtol=1e-6, atol=1e-7)
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(seen))


@pytest.mark.parametrize("check_every", [1, 4, 10, 17])
def test_looking_seldom_changes_no_answer(check_every: int) -> None:
    A, b = poisson(15), np.random.default_rng(1).standard_normal(225)
    result = gmres(A, b, restart=20, rtol=1e-9, check_every=check_every)
    assert result.converged
    plain = gmres(A, b, restart=20, rtol=1e-9)
    assert plain.n_iter <= result.n_iter < plain.n_iter + 2 * check_every
    np.testing.assert_allclose(result.x, plain.x, atol=1e-7)


# ---- every method, every library


@pytest.mark.parametrize("name", ALL)
def test_every_library_takes_as_many_steps(xp: Any, make: Any, name: str) -> None:
    A, B = spd(60, 0, 10.0), np.random.default_rng(2).standard_normal((60, 3))
    if name in ANY:
        A = A + np.triu(np.random.default_rng(3).standard_normal((60, 60))) / 20
    for b in (B[:, 0], B):
        with count_transfers() as transfers:
            result = ALL[name](make(A), make(b), rtol=1e-9, check_every=10)
        assert transfers.n <= -(-result.n_iter // 10) + 4
        one = ALL[name](make(A), make(b), rtol=1e-9)
        assert type(one.x) is type(make(b))
        assert tuple(one.x.shape) == b.shape
        assert abs(one.n_iter - ALL[name](A, b, rtol=1e-9).n_iter) <= 1
        np.testing.assert_allclose(to_host(one.x), np.linalg.solve(A, b), atol=1e-6)
        assert np.all(np.linalg.norm(b - A @ to_host(one.x), axis=0) <= 1.0001e-9 * np.linalg.norm(b, axis=0))


@pytest.mark.parametrize("name", ALL)
def test_columns_are_as_good_as_alone(name: str) -> None:
    A = spd(80, 4, 50.0)
    B = np.random.default_rng(5).standard_normal((80, 4)) * np.asarray([1.0, 1e-7, 0.0, 1e4])
    result = ALL[name](A, B, rtol=1e-8)
    assert np.all(np.linalg.norm(B - A @ result.x, axis=0) <= 1.0001e-8 * np.linalg.norm(B, axis=0))
    assert not result.x[:, 2].any()
    slowest = max(ALL[name](A, B[:, j], rtol=1e-8).n_iter for j in range(4))
    assert abs(result.n_iter - slowest) <= max(2, 0.1 * slowest)


@pytest.mark.parametrize("name", ALL)
def test_edges(name: str) -> None:
    solver = ALL[name]
    assert solver(np.asarray([[2.0]]), np.asarray([4.0])).x.tolist() == [2.0]
    zero = solver(np.eye(3), np.zeros(3), x0=np.ones(3))
    assert zero.converged
    assert zero.n_iter == 0
    assert not zero.x.any()
    start = np.ones(3)
    exact = solver(np.eye(3), np.ones(3), x0=start)
    assert exact.n_iter == 0
    assert start.tolist() == [1.0, 1.0, 1.0]
    A, b = spd(30, 6), np.ones(30)
    inverse = np.linalg.inv(A)
    assert solver(A, b, M=inverse, rtol=1e-8).evaluations["matvec"] <= 4
    x, info = solver(A, b, rtol=1e-8)
    assert info == 0
    np.testing.assert_allclose(A @ x, b, atol=1e-6)
    with pytest.warns(ConvergenceWarning):
        result = solver(A, b, rtol=1e-10, maxiter=1)
    assert result.status is Status.MAX_ITER
    assert tuple(result)[1] == 1


@pytest.mark.parametrize("name", ALL)
def test_every_tolerance_is_met(name: str) -> None:
    A, b = spd(25, 7, 10.0), np.random.default_rng(7).standard_normal(25)
    for rtol in (0.0, 1e-2, 1e-6, 1e-10):
        for atol in (0.0, 1e-3, 1e-8):
            if rtol == atol == 0.0:
                continue
            result = ALL[name](A, b, rtol=rtol, atol=atol)
            assert result.converged
            assert np.linalg.norm(b - A @ result.x) <= 1.00025 * max(atol, rtol * np.linalg.norm(b))


@pytest.mark.parametrize("name", ALL)
def test_nan_in_the_middle_leaves_the_last_good_iterate(name: str) -> None:
    D, calls = np.linspace(1.0, 40.0, 40), 0

    def broken(v: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return D * v if calls < 9 else v * np.nan

    with pytest.warns(ConvergenceWarning):
        result = ALL[name](broken, np.ones(40), rtol=1e-12)
    assert result.status is Status.NONFINITE
    assert np.isfinite(result.x).all()
    assert np.linalg.norm(1.0 - D * result.x) < np.sqrt(40)


@pytest.mark.parametrize("name", ALL)
def test_a_callback_that_raises_loses_nothing(name: str) -> None:
    A, b = spd(50, 8, 1e3), np.ones(50)

    def fail(it: Any) -> None:
        if it.n_iter == 3:
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        ALL[name](A, b, rtol=1e-10, callback=fail)
    result = caught.value.result  # type: ignore[attr-defined]
    np.testing.assert_allclose(result.residual, np.linalg.norm(b - A @ result.x), rtol=1e-8)


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=15)
@given(n=st.integers(1, 20), seed=st.integers(0, 2**16), scale=st.floats(1e-8, 1e8))
def test_scaling_changes_nothing(name: str, n: int, seed: int, scale: float) -> None:
    A, b = spd(n, seed, 20.0), np.random.default_rng(seed).standard_normal(n)
    x = ALL[name](A, b, rtol=1e-9).x
    np.testing.assert_allclose(ALL[name](scale * A, scale * b, rtol=1e-9).x, x, atol=1e-6 * np.abs(x).max())


# ---- what a method needs and does not get


@pytest.mark.parametrize("solver", [cg, minres, block_cg])
def test_an_operator_that_is_not_symmetric_is_found(solver: Solver) -> None:
    rng = np.random.default_rng(9)
    A, b = spd(200, 9), rng.standard_normal((200, 2))
    A += 0.01 * np.abs(A).mean() * np.triu(rng.standard_normal((200, 200)), 1)
    told = LinearOperator(
        (200, 200), lambda v: A @ v, matmat=lambda V: A @ V, dtype=A.dtype, tags={"symmetric", "positive"}
    )
    with pytest.warns(ConvergenceWarning, match="not symmetric"):
        result = solver(told, b)
    assert result.status is Status.NOT_SYMMETRIC
    assert tuple(result)[1] == -1
    lopsided = np.eye(200) + np.triu(rng.standard_normal((200, 200))) / 10
    with pytest.warns(ConvergenceWarning, match="preconditioner"):
        assert solver(spd(200, 9), b, M=lopsided).status is Status.NOT_SYMMETRIC


def test_inexact_operators_are_let_pass_and_named_when_they_fail() -> None:
    A, b = spd(80, 9, 20.0), np.random.default_rng(9).standard_normal(80)
    inner = 1e-7 * np.random.default_rng(10).standard_normal((80, 80)) * np.abs(A).max()
    assert cg(A + inner, b, rtol=1e-5).converged
    harder = spd(80, 9, 1e7)
    harder += 1e-5 * np.abs(harder).max() * np.triu(np.random.default_rng(11).standard_normal((80, 80)), 1)
    with pytest.warns(ConvergenceWarning, match="not symmetric"):
        result = cg(harder, b, rtol=1e-12, maxiter=300)
    assert result.status is Status.NOT_SYMMETRIC
    assert result.n_iter > 3  # it was let begin


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_rounding_is_not_taken_for_asymmetry(dtype: Any) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 400))
        G = rng.standard_normal((n, n)).astype(dtype)
        if dtype is np.complex128:
            G = G + 1j * rng.standard_normal((n, n))
        A = G @ G.conj().T + np.eye(n, dtype=dtype)
        result = cg(lambda v, A=A: A @ v, np.ones(n, dtype=dtype), rtol=1e-3, maxiter=3 * n + 10)
        assert result.status is not Status.NOT_SYMMETRIC


def test_the_wrong_bounds_of_chebyshev_are_said() -> None:
    A, b = np.diag(np.linspace(1.0, 10.0, 50)), np.ones(50)
    with pytest.warns(ConvergenceWarning, match="broke down"):
        result = chebyshev(A, b, bounds=(1.0, 8.0), rtol=1e-12)
    assert np.isfinite(result.x).all()
    assert result.residual <= np.linalg.norm(b)
    for bounds in [(2.0, 1.0), (0.0, 1.0), 3.0, (1.0, 2.0, 3.0)]:
        with pytest.raises(InputError, match="bounds"):
            chebyshev(A, b, bounds=bounds)  # type: ignore[arg-type]
    assert chebyshev(3.0 * np.eye(4), np.ones(4), bounds=(3.0, 3.0), rtol=1e-14).n_iter == 1


def test_varying_preconditioners_need_the_flexible_methods() -> None:
    A, b = poisson(31), np.random.default_rng(0).standard_normal(961)

    def inner(r: np.ndarray) -> np.ndarray:
        return cg(A, r, rtol=0.1).x

    assert flexible_cg(A, b, M=inner, rtol=1e-8).n_iter <= 10
    assert fgmres(A, b, M=inner, rtol=1e-8).n_iter <= 10
    rng = np.random.default_rng(1)

    def erratic(r: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cg(A, r, rtol=1e-14, maxiter=int(rng.integers(1, 12))).x

    short = flexible_cg(A, b, M=erratic, rtol=1e-8).n_iter
    long = flexible_cg(A, b, M=erratic, rtol=1e-8, window=5).n_iter
    assert long < short < 60


# ---- mixed precision


def test_mixed_precision_reaches_what_float32_cannot(xp: Any, make: Any) -> None:
    A, b = spd(120, 10, 1e2), np.random.default_rng(10).standard_normal(120)
    wide = cg(A, b, rtol=1e-12)
    result = mixed_cg(make(A), make(b), rtol=1e-12)
    assert result.converged
    assert result.x.dtype == make(b).dtype
    assert np.linalg.norm(b - A @ to_host(result.x)) <= 1.01e-12 * np.linalg.norm(b)
    assert result.n_iter <= 1.5 * wide.n_iter
    assert result.evaluations["matvec"] < result.evaluations["matvec_low"] / 4
    B = np.stack([b, 1e-5 * b[::-1], 0 * b], axis=1)
    many = to_host(mixed_cg(make(A), make(B), rtol=1e-11, check_every=5).x)
    assert np.all(np.linalg.norm(B - A @ many, axis=0) <= 1.01e-11 * np.linalg.norm(B, axis=0))


def test_mixed_precision_on_a_grid() -> None:
    A, b = poisson(63), np.random.default_rng(0).standard_normal(63**2)
    result = mixed_cg(A, b, rtol=1e-12, M=sps.eye_array(63**2, dtype=np.float32).tocsr() * np.float32(0.25))
    assert result.n_iter <= 1.25 * cg(A, b, rtol=1e-12).n_iter
    with pytest.raises(InputError, match="A_low"):
        mixed_cg(lambda v: A @ v, b)
    low = A.astype(np.float32)
    assert mixed_cg(lambda v: A @ v, b, A_low=lambda v: low @ v, rtol=1e-11).converged
    with pytest.warns(ConvergenceWarning, match="precision"):
        stuck = mixed_cg(spd(60, 0, 1e13), np.ones(60), rtol=1e-14)
    assert stuck.status in {Status.STAGNATED, Status.MAX_ITER}


# ---- block methods


def kernel(ell: float, mu: float) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).random((1000, 2))
    squares = ((X[:, None, :] - X[None, :, :]) ** 2).sum(-1)
    y = np.sin(6 * X[:, 0]) * np.cos(5 * X[:, 1]) + 0.1 * np.random.default_rng(0).standard_normal(1000)
    return np.exp(-squares / (2 * ell**2)) + mu * np.eye(1000), y


def test_exact_convergence_between_two_looks(xp: Any, make: Any) -> None:
    """A residual of zero must not divide by itself for the rest of a burst."""
    solvers: tuple[Any, ...] = (cg, minres, gmres, bicgstab, tfqmr, block_cg, lsqr, lsmr)
    for A in (np.eye(1), 2 * np.eye(6), np.diag([1.0, 1.0, 3.0, 3.0, 3.0, 3.0])):
        n = A.shape[0]
        for columns in ((n, 3), (n,)):
            b = np.arange(1.0, np.prod(columns) + 1).reshape(columns)
            if len(columns) == 2:
                b[:, 0] = 0.0
            for solver in solvers:
                if solver is block_cg and len(columns) == 1:
                    continue
                result = solver(make(A), make(b), check_every=10)
                x = to_host(result.x)
                assert result.converged
                np.testing.assert_allclose(A @ x, b, rtol=1e-5)
                assert len(columns) == 1 or not x[:, 0].any()


def test_block_counts_of_the_notes() -> None:
    K, y = kernel(0.1, 1e-3)
    for k, expected in ((16, 54), (64, 12)):
        B = np.random.default_rng(0).standard_normal((1000, k))
        result = block_cg(K, B, rtol=1e-8)
        assert abs(result.n_iter - expected) <= 1
        assert np.all(np.linalg.norm(B - K @ result.x, axis=0) <= 1.0001e-8 * np.linalg.norm(B, axis=0))
    assert enlarged_cg(K, y, t=16, rng=1, rtol=1e-8).n_iter <= 52
    assert enlarged_cg(K, y, t=16, mode="split", rtol=1e-8).n_iter <= 55


@pytest.mark.parametrize("preconditioned", [False, True])
def test_block_on_every_library(xp: Any, make: Any, preconditioned: bool) -> None:
    A, rng = spd(60, 11, 50.0), np.random.default_rng(11)
    B = rng.standard_normal((60, 3))
    B = np.stack([B[:, 0], B[:, 0], B[:, 1], B[:, 0] + B[:, 1], 0 * B[:, 0], 1e-6 * B[:, 2]], axis=1)
    M = make(np.diag(1 / np.diag(A))) if preconditioned else None
    result = block_cg(make(A), make(B), rtol=1e-9, M=M, check_every=1)
    x = to_host(result.x)
    assert result.n_iter <= 25  # three independent columns in 60 dimensions
    assert np.all(np.linalg.norm(B - A @ x, axis=0) <= 1.0001e-9 * np.linalg.norm(B, axis=0))
    assert not x[:, 4].any()
    np.testing.assert_allclose(x[:, 0], x[:, 1], rtol=1e-10)
    whole = block_cg(make(A), make(np.eye(60)), rtol=1e-8, check_every=1)
    assert whole.n_iter <= 2  # all directions at once
    one = enlarged_cg(make(A), make(B[:, 0]), t=6, rng=0, rtol=1e-9)
    np.testing.assert_allclose(to_host(one.x), np.linalg.solve(A, B[:, 0]), atol=1e-6)
    split = enlarged_cg(make(A), make(B[:, 0]), t=6, mode="split", rtol=1e-9)
    np.testing.assert_allclose(to_host(split.x), np.linalg.solve(A, B[:, 0]), atol=1e-6)


def test_a_block_finds_an_indefinite_matrix_on_every_library(xp: Any, make: Any) -> None:
    A, B = spd(40) - 3 * np.eye(40), np.random.default_rng(12).standard_normal((40, 3))
    with pytest.warns(ConvergenceWarning, match="positive definite"):
        result = block_cg(make(A), make(B))
    assert result.status is Status.INDEFINITE


def test_block_of_complex_and_indefinite() -> None:
    rng = np.random.default_rng(12)
    G = rng.standard_normal((40, 40)) + 1j * rng.standard_normal((40, 40))
    A, B = G @ G.conj().T + 5 * np.eye(40), rng.standard_normal((40, 3)) + 1j * rng.standard_normal((40, 3))
    np.testing.assert_allclose(block_cg(A, B, rtol=1e-11).x, np.linalg.solve(A, B), atol=1e-8)
    np.testing.assert_allclose(enlarged_cg(A, B[:, 0], t=4, rtol=1e-11).x, np.linalg.solve(A, B[:, 0]), atol=1e-8)
    path = regularization_path(A, B[:, 0], [0.0, 2.0], t=4, rtol=1e-10)
    np.testing.assert_allclose(path.x[:, 1], np.linalg.solve(A + 2 * np.eye(40), B[:, 0]), atol=1e-7)
    with pytest.warns(ConvergenceWarning, match="positive definite"):
        result = block_cg(spd(40) - 3 * np.eye(40), rng.standard_normal((40, 3)))
    assert result.status is Status.INDEFINITE
    with pytest.raises(InputError, match="B has shape"):
        block_cg(np.eye(3), np.ones(3))
    with pytest.raises(InputError, match="b has shape"):
        enlarged_cg(np.eye(3), np.ones((3, 1)))


def test_the_path_solves_every_shift(xp: Any, make: Any) -> None:
    A, b = spd(90, 13, 1e5) - np.eye(90), np.random.default_rng(13).standard_normal(90)
    shifts = [1.0, 1e-1, 1e-2, 1e-3]
    result = regularization_path(make(A), make(b), shifts, t=7, rng=0, rtol=1e-8)
    assert result.converged
    x = to_host(result.x)
    for j, mu in enumerate(shifts):
        np.testing.assert_allclose(
            np.linalg.norm(b - A @ x[:, j] - mu * x[:, j]), result.residual_norms[j], rtol=1e-2, atol=1e-9
        )
        assert result.residual_norms[j] <= 1.0001e-8 * np.linalg.norm(b)


def test_one_basis_for_the_path_of_the_notes() -> None:
    K, y = kernel(0.1, 0.0)
    result = regularization_path(K, y, [1e-1, 1e-2, 1e-3], rng=0, rtol=1e-8)
    assert result.n_iter <= 21
    # The same run estimates what the evidence of a Gaussian process needs.
    values = np.linalg.eigvalsh(K)
    for mu, (inverse, spread), (logdet, noise) in zip(result.shifts, result.trace_inverse, result.logdet, strict=True):
        assert abs(inverse - (1 / (values + mu)).sum()) <= 4 * spread
        assert spread < 0.1 * (1 / (values + mu)).sum()
        assert abs(logdet - np.log(values + mu).sum()) <= 4 * noise
        assert noise < 0.1 * abs(np.log(values + mu).sum())
    with pytest.raises(InputError, match="shifts"):
        regularization_path(K, y, [])


# ---- the choice


def test_solve_says_what_it_chose_and_why() -> None:
    rng = np.random.default_rng(14)
    A, b = spd(40, 14), rng.standard_normal(40)
    shifted = A - 10 * np.eye(40)
    shifted[0, 0] = -1.0
    for matrix, rhs, expected in [
        (A, b, "cg"),
        (A, rng.standard_normal((40, 5)), "block_cg"),
        (sps.csr_array(A), rng.standard_normal((40, 5)), "cg"),
        (shifted, b, "minres"),
        (A + np.triu(A), b, "gmres"),
        (rng.standard_normal((60, 40)), rng.standard_normal(60), "lsmr"),
        (LinearOperator((40, 40), lambda v: A @ v, dtype=A.dtype, tags={"symmetric", "positive"}), b, "cg"),
        (LinearOperator((40, 40), lambda v: A @ v, dtype=A.dtype, tags={"symmetric"}), b, "minres"),
        (lambda v: A @ v, b, "minres"),
    ]:
        result = solve(matrix, rhs, rtol=1e-8)
        assert result.method == expected
        assert result.why
        assert result.converged
    hidden = A - 5 * np.eye(40)
    hidden += np.diag(1.0 - np.minimum(np.diag(hidden), 1.0))
    if np.linalg.eigvalsh(hidden)[0] < 0:
        assert "negative curvature" in solve(hidden, b, rtol=1e-8).why
    assert solve(A, b, assume="symmetric").method == "minres"
    with pytest.raises(InputError, match="assume"):
        solve(A, b, assume="no such")
    with pytest.raises(InputError, match="not square"):
        solve(np.ones((3, 2)), np.ones(3), assume="general")


def test_preconditioners_and_operators_work_both_ways() -> None:
    A, b = poisson(12), np.ones(144)
    ours = LinearOperator((144, 144), lambda v: 0.25 * v, rmatvec=lambda v: 0.25 * v, dtype=np.float64)
    for theirs in (spla.cg, spla.gmres, spla.bicgstab, spla.minres):
        _, info = theirs(A, b, M=ours, rtol=1e-10)
        assert info == 0
    factor = spla.spilu(A.tocsc(), drop_tol=1e-4)
    inverse = spla.LinearOperator((144, 144), factor.solve)
    for name in ("gmres", "bicgstab", "tfqmr", "fgmres"):
        assert ALL[name](A, b, M=inverse, rtol=1e-10).n_iter < 12


@pytest.mark.parametrize("columns", [1, 3])
def test_complex_systems(xp: Any, make: Any, columns: int) -> None:
    rng = np.random.default_rng(15)
    G = rng.standard_normal((40, 40)) + 1j * rng.standard_normal((40, 40))
    B = rng.standard_normal((40, 3)) + 1j * rng.standard_normal((40, 3))
    B = B[:, 0] if columns == 1 else B
    definite = G @ G.conj().T / 40 + np.eye(40)
    low, high = np.linalg.eigvalsh(definite)[[0, -1]]
    bounded = {"chebyshev": lambda A, b, **options: chebyshev(A, b, bounds=(0.99 * low, 1.01 * high), **options)}
    general = definite + 0.3j * np.triu(G) / 40
    indefinite = G + G.conj().T
    for name, solver in (ALL | bounded | {"mixed_cg": mixed_cg}).items():
        A = general if name in ANY else indefinite if name == "minres" else definite
        result = solver(make(A), make(B), rtol=1e-9, maxiter=2000)
        assert result.converged, name
        assert np.all(np.linalg.norm(B - A @ to_host(result.x), axis=0) <= 1.0001e-9 * np.linalg.norm(B, axis=0)), name
    real = solve(make(definite.real), make(B), rtol=1e-9)  # real entries, complex vectors
    np.testing.assert_allclose(definite.real @ to_host(real.x), B, atol=1e-7)


@pytest.mark.parametrize("t", [1, 2, 3])
@pytest.mark.parametrize("shifts", [[1.0, 0.0], [0.0, 1.0]])
def test_the_path_does_not_call_a_singular_shift_solved(make: Any, t: int, shifts: list[float]) -> None:
    with pytest.warns(ConvergenceWarning, match="not positive definite"):
        path = regularization_path(make(np.zeros((3, 3))), make(np.ones(3)), shifts, t=t, rng=0)
    assert path.status is Status.INDEFINITE
    good = shifts.index(1.0)
    np.testing.assert_allclose(to_host(path.x)[:, good], 1.0)
    np.testing.assert_array_equal(to_host(path.x)[:, 1 - good], 0.0)
    assert path.residual_norms[good] < 1e-12
    assert path.residual == pytest.approx(3**0.5)


@pytest.mark.parametrize("k", [1, 4])
def test_block_methods_tell_nan_from_negative_curvature(xp: Any, make: Any, k: int) -> None:
    D, calls = make(np.diag(np.linspace(1.0, 100.0, 60))), []

    def spoiled(v: Any) -> Any:
        calls.append(1)
        return (D @ v) * (float("nan") if len(calls) > 4 else 1.0)

    A = LinearOperator((60, 60), spoiled, matmat=spoiled, dtype=D.dtype)
    rng = np.random.default_rng(0)
    with pytest.warns(ConvergenceWarning, match="NaN"):
        result = enlarged_cg(A, make(rng.standard_normal(60)), t=4, rtol=1e-12, rng=0)
    assert result.status is Status.NONFINITE
    calls.clear()
    with pytest.warns(ConvergenceWarning, match="NaN"):
        result = block_cg(A, make(rng.standard_normal((60, k))), rtol=1e-12)
    assert result.status is Status.NONFINITE
    assert bool(xp.all(xp.isfinite(result.x)))


@pytest.mark.parametrize("solver", [cg, minres, gmres, bicgstab, tfqmr])
def test_a_right_hand_side_whose_square_underflows_is_not_called_solved(make: Any, solver: Any) -> None:
    A = np.diag(np.linspace(1.0, 100.0, 20))
    for dtype, size in ((np.float64, 1e-200), (np.float64, 1e-155), (np.float32, 1e-25), (np.float32, 1e-18)):
        B = np.full(20, size, dtype=dtype)
        with pytest.warns(ConvergenceWarning, match="precision is exhausted"):
            assert not solver(make(A.astype(dtype)), make(B)).converged
    result = solver(make(A), make(np.zeros(20)))
    assert result.converged
    assert result.residual == 0.0


def test_looks_far_apart_on_small_systems(xp: Any, make: Any) -> None:
    """Ten steps on a few unknowns: the residual that is carried in single precision sinks far below the true one."""
    for n in (3, 6, 12, 20):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            W = rng.random((n, n))
            A = np.diag((W + W.T).sum(axis=1) + 1.0) - W - W.T
            b = rng.standard_normal(n)
            result = mixed_cg(make(A), make(b), rtol=1e-10, check_every=10, maxiter=60)
            assert result.converged
            np.testing.assert_allclose(A @ to_host(result.x), b, atol=1e-9 * np.linalg.norm(b))


NEEDS_POSITIVE_M: dict[str, Solver] = {
    "cg": cg,
    "minres": minres,
    "deflated_cg": deflated_cg,
    "block_cg": lambda A, b, **options: block_cg(A, b[:, None], **options),
    "mixed_cg": mixed_cg,
    "solve": lambda A, b, **options: solve(A, b, assume="positive", **options),
}


@pytest.mark.parametrize("name", NEEDS_POSITIVE_M)
@pytest.mark.parametrize("kind", ["alternating", "zero", "negative"])
def test_a_preconditioner_that_is_not_positive_definite_is_named(make: Any, name: str, kind: str) -> None:
    """Also one under which a residual has no length at all, so that nothing ever moves."""
    n = 40
    A = 2.0 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    signs = {"alternating": np.where(np.arange(n) % 2, -1.0, 1.0), "zero": np.zeros(n), "negative": -np.ones(n)}[kind]
    M = np.diag(signs).astype(np.float32 if name == "mixed_cg" else np.float64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = NEEDS_POSITIVE_M[name](make(A), make(np.ones(n)), M=make(M), rtol=1e-8)
    if result.converged:  # of the block methods a negative one changes no direction
        assert name == "block_cg"
        residual = np.linalg.norm(1.0 - A @ to_host(result.x)[:, 0])
        assert residual <= 1.01e-8 * n**0.5
    else:
        assert result.status is Status.INDEFINITE
        assert any("the preconditioner) is not positive definite" in str(w.message) for w in caught)
    assert bool(np.isfinite(to_host(result.x)).all())


def test_a_preconditioner_without_length_among_columns() -> None:
    b = np.stack([np.ones(30), np.arange(30.0)], axis=1)
    M = np.diag(np.where(np.arange(30) % 2, -1.0, 1.0))
    with pytest.warns(ConvergenceWarning, match="preconditioner"):
        result = cg(np.eye(30), b, M=M)
    assert result.status is Status.INDEFINITE
    assert result.n_iter <= 2


@pytest.mark.parametrize("name", ["cg", "mixed_cg", "deflated_cg", "block_cg"])
def test_looks_far_apart_on_semidefinite_systems(make: Any, name: str) -> None:
    """Between two looks a run goes on after it has converged: there the curvature is rounding, of any sign."""
    solver = {"cg": cg, "mixed_cg": mixed_cg, "deflated_cg": deflated_cg}.get(name)
    for n in (3, 8, 20):
        for seed in range(4):
            rng = np.random.default_rng(seed)
            W = rng.random((n, n))
            W = W + W.T
            A = np.diag(W.sum(axis=1)) - W
            B = A @ rng.standard_normal((n, 2))
            right, kept = (B[:, 0], make(B[:, 0])) if solver else (B, make(B))
            result = (solver or block_cg)(make(A), kept, rtol=1e-9, check_every=10)
            assert result.converged
            np.testing.assert_allclose(A @ to_host(result.x), right, atol=2e-9 * np.linalg.norm(right))

"""Block GCRO-DR: the invariants of its space, one column as `gcrodr`, dependent columns, honest ends, every library."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
import scipy.sparse as sps
from hypothesis import example, given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.problems import convection_diffusion_sequence, darcy_sequence, spd_with_condition
from xpsolve.solvers.linear import block_gcrodr, cg, deflated_cg, gcrodr, gmres, recycled_minres
from xpsolve.solvers.linear.preconditioners import ilu
from xpsolve.solvers.linear.recycling.block_arnoldi import BlockCycle
from xpsolve.solvers.linear.system import prepare
from xpsolve.solvers.result import Status


def poisson(s: int) -> sps.csr_array:
    T = sps.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(s, s))
    return sps.csr_array(sps.kron(T, sps.eye_array(s)) + sps.kron(sps.eye_array(s), T))


def general(n: int, seed: int = 0, complex_: bool = False) -> np.ndarray:
    """Nonsymmetric, with a few small eigenvalues that are worth keeping."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0.0)
    values = np.concatenate([np.logspace(-2, -1, n // 20), np.linspace(1.0, 5.0, n - n // 20)])
    X = np.eye(n) + 0.3 * X / np.linalg.norm(X, 2)
    return (X * values) @ np.linalg.inv(X)


def columns(n: int, p: int, seed: int = 1, complex_: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)) + (1j * rng.standard_normal((n, p)) if complex_ else 0.0)


def worst(A: Any, B: np.ndarray, x: np.ndarray) -> float:
    """Largest relative residual of a column, in float64; columns of zeros must be solved by zeros."""
    norms = np.linalg.norm(B, axis=0)
    residuals = np.linalg.norm(B - A @ x.astype(np.result_type(x, float)), axis=0)
    assert not np.any(residuals[norms == 0])
    return float((residuals / np.where(norms > 0, norms, 1.0)).max())


def assert_invariants(A: Any, kept: Any, tol: float = 1e-12) -> None:
    """``A U = C`` with orthonormal ``C``."""
    U, C = to_host(kept.U), to_host(kept.C)
    scale = np.linalg.norm(A if isinstance(A, np.ndarray) else A.toarray(), 2) * np.linalg.norm(U, axis=1).max()
    assert np.abs(A @ U.T - C.T).max() <= tol * max(scale, 1.0)
    np.testing.assert_allclose(C.conj() @ C.T, np.eye(kept.k), atol=10 * tol)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_against_a_direct_solution(complex_: bool, preconditioned: bool) -> None:
    A, kept = general(200, complex_=complex_), None
    M = np.linalg.inv(A + 0.3 * np.eye(200)) if preconditioned else None
    for seed in range(3):
        B = columns(200, 5, seed, complex_)
        result = block_gcrodr(A, B, rtol=1e-10, recycle=kept, M=M, m=60, k=12)
        assert result.converged
        assert worst(A, B, result.x) <= 1.0001e-10
        exact = np.linalg.solve(A, B)
        np.testing.assert_allclose(result.x, exact, atol=1e-7 * np.abs(exact).max())
        kept = result.recycle
        assert kept is not None
        assert_invariants(A, kept)


@pytest.mark.parametrize("M", [None, "ilu"])
def test_a_block_of_one_is_gcrodr(M: Any) -> None:
    sequence, kept, block_kept = convection_diffusion_sequence(30, 4, xp=np_xp), None, None
    for i, (_, b) in enumerate(sequence):
        A = sps.csc_array(sequence.matrix(i).to_scipy())
        inverse = None if M is None else ilu(A, drop_tol=0.05)
        single = gcrodr(A, b, rtol=1e-8, recycle=kept, M=inverse)
        block = block_gcrodr(A, b[:, None], rtol=1e-8, recycle=block_kept, M=inverse)
        assert abs(single.n_iter - block.n_iter) <= 1
        np.testing.assert_allclose(block.x[:, 0], single.x, rtol=1e-5, atol=1e-7 * np.abs(single.x).max())
        kept, block_kept = single.recycle, block.recycle


def cycle_of(A: np.ndarray, B: np.ndarray, vectors: int, rtol: float = 1e-8, space: Any = None) -> BlockCycle:
    system = prepare(A, B, x0=None, rtol=rtol, atol=0.0, M=None)
    return BlockCycle(system, np.zeros_like(B), B, space, vectors)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("deflated", [False, True])
def test_a_cycle_keeps_its_relations(complex_: bool, deflated: bool) -> None:
    """``A V = W G``, ``W`` orthonormal or zero, and the norms carried on the host are those of the residuals formed."""
    A, B = general(60, complex_=complex_), columns(60, 4, complex_=complex_)
    B[:, 2] = B[:, 0] - 2.0 * B[:, 1] + 1e-4 * columns(60, 1, 7)[:, 0]  # partly worth a direction of its own
    B[:, 3] = 1e6 * (B[:, 0] + 1e-9 * columns(60, 1, 8)[:, 0])  # not at all: below the tolerance
    space = None
    if deflated:
        C = np.linalg.qr(columns(60, 5, 9, complex_))[0].T
        space = np.linalg.solve(A, C.T).T, C
        B = B - C.T @ (C.conj() @ B)
    cycle = cycle_of(A, B, 90, space=space)
    assert cycle.q == 3
    kept, q = cycle.kept, cycle.q
    for j in range(1, cycle.m + 1):
        cycle.extend(j - 1)
        V, rows = cycle.V[: j * q], kept + (j + 1) * q
        np.testing.assert_allclose(A @ V.T, cycle.W[:rows].T @ cycle.G[:rows, : j * q], atol=1e-12)
        W = cycle.W[:rows]
        alive = np.abs(W).max(axis=1) > 0
        np.testing.assert_allclose(W.conj() @ W.T, np.diag(1.0 * alive), atol=1e-12)
        assert alive.sum() <= 60
        truth = np.linalg.norm(B - A @ cycle.form(j), axis=0)
        # What was left out of the block is in the norms, at right angles to the rest, which is almost true.
        allowed = 1e-6 * truth + 0.7 * cycle.small.left_out + 1e-13 * np.linalg.norm(B, axis=0)
        assert np.all(np.abs(cycle.norms(j) - truth) <= allowed)
    assert 0 < (cycle.small.left_out / np.linalg.norm(B, axis=0)).max() < 0.1 * 1e-8
    assert alive.sum() == 60  # the whole space, and not a direction more
    assert cycle.small.exhausted is not None


def test_invariant_directions_leave_the_cycle() -> None:
    A, B = np.diag(np.arange(1.0, 41.0)), np.zeros((40, 3))
    B[3, 0], B[[7, 9], 1], B[10:, 2] = 1.0, 1.0, 1.0
    cycle = cycle_of(A, B, 24)
    for j in range(4):
        cycle.extend(j)
    alive = (np.abs(cycle.V) > 0).any(axis=1).reshape(-1, 3).sum(axis=1)
    assert alive[:5].tolist() == [3, 2, 1, 1, 1]


def test_rounding_inside_the_space_is_no_direction() -> None:
    """Where sums are longer than the threshold expects, the second pass tells a direction from rounding."""
    cycle = cycle_of(general(60), columns(60, 4), 90)
    cycle.lost = 0.0
    for j in range(cycle.m):
        cycle.extend(j)
    alive = np.abs(cycle.W).max(axis=1) > 0
    assert alive.sum() == 60
    np.testing.assert_allclose(cycle.W @ cycle.W.T, np.diag(1.0 * alive), atol=1e-12)


def test_without_memory_it_is_restarted_block_gmres() -> None:
    """The residuals of a cycle are the smallest of the block Krylov space, formed here by its definition."""
    A, B = general(60), columns(60, 3)
    for steps in (1, 2, 4):
        K = np.concatenate([np.linalg.matrix_power(A, i) @ B for i in range(steps)], axis=1)
        best = [np.linalg.norm(b - A @ K @ np.linalg.lstsq(A @ K, b)[0]) for b in B.T]
        with pytest.warns(ConvergenceWarning):
            result = block_gcrodr(A, B, k=0, m=60, maxiter=steps, rtol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(B - A @ result.x, axis=0), best, rtol=1e-9)
    assert gmres(A, B[:, 0], restart=20, rtol=1e-8).n_iter == block_gcrodr(A, B[:, :1], k=0, m=20, rtol=1e-8).n_iter


def test_the_columns_help_each_other_and_the_space_helps_the_next() -> None:
    data, P, kept, passes, alone, first = darcy_sequence(30, 4, xp=np_xp), 6, None, [], [], []
    single = None
    for i in range(4):
        A, B = sps.csr_array(data.matrix(i).to_scipy()), columns(900, P, i)
        result = block_gcrodr(A, B, rtol=1e-8, recycle=kept)
        kept = result.recycle
        assert worst(A, B, result.x) <= 1.0001e-8
        passes.append(result.n_iter)
        first.append(block_gcrodr(A, B, rtol=1e-8).n_iter)
        for j in range(P):
            one = gcrodr(A, B[:, j], rtol=1e-8, recycle=single)
            single = one.recycle
            alone.append(one.n_iter)
    assert sum(passes[1:]) <= 0.75 * sum(first[1:])  # warm against cold
    assert sum(passes) <= sum(alone) / P  # passes over the matrix: no more than one of the columns alone
    # The same system again: no more steps than at first, and the images need no product.
    again = block_gcrodr(A, B, rtol=1e-8, recycle=kept)
    assert again.n_iter <= passes[-1]
    assert again.evaluations["matvec"] <= P * (again.n_iter + 6) + 1


def test_dependent_and_zero_columns_cost_nothing() -> None:
    A, B = poisson(20), columns(400, 2)
    wide = np.concatenate([B, B[:, :1], B @ np.asarray([[2.0], [-3.0]]), np.zeros((400, 1)), 1e-9 * B[:, 1:]], axis=1)
    narrow, result = (block_gcrodr(A, X, rtol=1e-8, m=60, k=12) for X in (B, wide))
    assert worst(A, wide, result.x) <= 1.0001e-8
    assert abs(result.n_iter - narrow.n_iter) <= 3
    # Two columns are multiplied in a step, of six: what is more are the residuals recomputed.
    assert result.evaluations["matvec"] <= 2 * result.n_iter + 6 * (2 + result.n_iter // 20)
    np.testing.assert_allclose(result.x[:, 2], result.x[:, 0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(1e9 * result.x[:, 5], result.x[:, 1], rtol=1e-5, atol=1e-5)
    assert not result.x[:, 4].any()
    nothing = block_gcrodr(A, np.zeros((400, 3)), x0=np.ones((400, 3)))
    assert nothing.converged
    assert nothing.n_iter == 0
    assert not nothing.x.any()


def test_columns_that_become_dependent_within_a_cycle() -> None:
    """Residuals in invariant spaces of dimension one and two: the block loses a direction at each of the first steps."""
    A = np.diag(np.arange(1.0, 41.0))
    B = np.zeros((40, 3))
    B[3, 0], B[[7, 9], 1] = 1.0, 1.0
    B[:, 2] = 1.0
    result = block_gcrodr(A, B, rtol=1e-10, m=80, k=4)
    assert result.converged
    np.testing.assert_allclose(result.x, B / np.arange(1.0, 41.0)[:, None], atol=1e-8)
    alone = block_gcrodr(A, B[:, 2:], rtol=1e-10, m=80, k=4).n_iter
    assert result.n_iter <= alone


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("p", [1, 4, 9])
def test_more_columns_than_rows(n: int, p: int) -> None:
    A, B = general(n) + 2 * np.eye(n), columns(n, p)
    result = block_gcrodr(A, B, rtol=1e-10)
    assert result.converged
    assert result.n_iter <= max(1, -(-n // p) + 1)
    np.testing.assert_allclose(result.x, np.linalg.solve(A, B), rtol=1e-7, atol=1e-9)
    assert block_gcrodr(A, B[:, ::-1].copy(), rtol=1e-10, recycle=result.recycle).converged


def test_float32_is_kept_and_honest() -> None:
    A, _, _ = spd_with_condition(100, 100.0, xp=np, rng=5, dtype=np.float32)
    B, kept = columns(100, 4).astype(np.float32), None
    for seed in range(3):
        B = columns(100, 4, seed).astype(np.float32)
        result = block_gcrodr(A, B, rtol=1e-4, recycle=kept, m=40, k=8)
        kept = result.recycle
        assert result.converged
        assert result.x.dtype == kept.U.dtype == np.float32
        assert worst(A.astype(float), B.astype(float), result.x) <= 1.001e-4
    with pytest.warns(ConvergenceWarning):
        deep = block_gcrodr(A, B, rtol=1e-9)
    assert deep.status is Status.STAGNATED
    assert np.isfinite(deep.x).all()
    assert deep.n_iter < 500


def test_no_false_claim_of_convergence() -> None:
    """Ill-conditioned float32 systems: converged only where the residual, recomputed in float64, says so."""
    claims = 0
    for seed in range(12):
        A, _, _ = spd_with_condition(60, 10.0 ** (1 + seed % 6), xp=np, rng=seed, dtype=np.float32)
        B = columns(60, 3, seed).astype(np.float32)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *a, **k: None)
            result = block_gcrodr(A, B, rtol=1e-5, m=30, k=6, maxiter=200)
        if result.converged:
            claims += 1
            assert worst(A.astype(float), B.astype(float), result.x) <= 1.01e-5
        else:
            assert result.residual > result.tolerance
    assert claims >= 3


def test_singular_operators_are_said() -> None:
    with pytest.warns(ConvergenceWarning, match="singular"):
        result = block_gcrodr(np.diag([1.0, 2.0, 0.0]), np.ones((3, 2)) * np.asarray([1.0, 5.0]))
    assert result.status is Status.SINGULAR
    with pytest.warns(ConvergenceWarning, match="singular"):
        assert block_gcrodr(np.zeros((4, 4)), np.eye(4)[:, :2]).status is Status.SINGULAR
    # One column lies in the range, the other does not: the first is solved all the same.
    A, B = np.diag(np.append(np.linspace(1.0, 3.0, 30), 0.0)), columns(31, 2)
    B[-1] = 0.0, 1.0
    for options in ({}, {"m": 62, "k": 0}, {"m": 31, "k": 4}):
        with pytest.warns(ConvergenceWarning):
            result = block_gcrodr(A, B, rtol=1e-8, **options)
        assert result.status in (Status.SINGULAR, Status.STAGNATED)
        assert np.linalg.norm(B[:, 0] - A @ result.x[:, 0]) <= 1.01e-8 * np.linalg.norm(B[:, 0])
        # What no x can take away is left of the other, and its iterate has not run off into the null space.
        assert 1.0 <= np.linalg.norm(B[:, 1] - A @ result.x[:, 1]) <= 1.03 * np.linalg.norm(B[:, 1])
    # Both do, and the singular operator is no obstacle.
    B[-1] = 0.0
    assert block_gcrodr(A, B, rtol=1e-8).converged
    # The shift of a cycle: no progress before the space is whole.
    shift = np.roll(np.eye(30), 1, axis=0)
    with pytest.warns(ConvergenceWarning):
        assert block_gcrodr(shift, np.eye(30)[:, :1], m=10, k=0).status is Status.STAGNATED
    assert block_gcrodr(shift, np.eye(30)[:, :1], m=30, k=0).n_iter == 30


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("good", [0, 1, 7])
def test_an_operator_that_breaks(value: float, good: int) -> None:
    A, B, calls = general(60), columns(60, 3), 0

    def broken(V: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        with np.errstate(invalid="ignore"):
            return A @ V if calls <= 3 * good else V * value

    with pytest.warns(ConvergenceWarning), np.errstate(invalid="ignore"):
        result = block_gcrodr(broken, B, rtol=1e-10, m=12, k=3)
    assert result.status is Status.NONFINITE
    assert np.isfinite(result.x).all()
    assert result.recycle is None or np.isfinite(result.recycle.U).all()


def test_limits_callbacks_and_looks() -> None:
    A, B, seen = poisson(20), columns(400, 3), []
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        cut = block_gcrodr(A, B, maxiter=5, rtol=1e-10)
    assert cut.n_iter == 5
    weights = np.linalg.norm(B, axis=0).max() / np.linalg.norm(B, axis=0)
    np.testing.assert_allclose(cut.residual, (np.linalg.norm(B - A @ cut.x, axis=0) * weights).max())

    def watch(it: Any) -> None:
        seen.append((it.n_iter, it.residual, np.linalg.norm(B - A @ it.x, axis=0)))

    result = block_gcrodr(A, B, rtol=1e-8, callback=watch, m=40, k=9)
    for _, carried, truth in seen[:-1]:
        np.testing.assert_allclose(carried, (truth * weights).max(), rtol=1e-4)
    assert [step for step, _, _ in seen] == list(range(result.n_iter))
    rare = block_gcrodr(A, B, rtol=1e-8, check_every=7, m=40, k=9)
    assert worst(A, B, rare.x) <= 1.0001e-8
    assert result.n_iter <= rare.n_iter <= result.n_iter + 6
    start = block_gcrodr(A, B, rtol=1e-10).x
    assert block_gcrodr(A, B, x0=start, rtol=1e-8).n_iter == 0
    assert block_gcrodr(A, B, x0=start + 1e-3, rtol=1e-8).converged
    bound = block_gcrodr(A, B * np.asarray([1.0, 1e-6, 1.0]), rtol=0.0, atol=1e-5)
    assert (np.linalg.norm(B * np.asarray([1.0, 1e-6, 1.0]) - A @ bound.x, axis=0) <= 1.0001e-5).all()


def test_the_space_passes_between_solvers() -> None:
    A, B = poisson(25), columns(625, 24)
    cold = gcrodr(A, B[:, 0], rtol=1e-8)
    block_cold = block_gcrodr(A, B, rtol=1e-8)
    for solver, options in ((gcrodr, {}), (deflated_cg, {}), (recycled_minres, {})):
        plain = solver(A, B[:, 0], rtol=1e-8, **options)
        warm = solver(A, B[:, 1], rtol=1e-8, recycle=block_cold.recycle, **options)
        assert warm.n_iter <= 0.8 * plain.n_iter
        # The memory is not thrown away for a single column's sake.
        assert warm.recycle is not None
        assert solver(A, B[:, 2], rtol=1e-8, recycle=warm.recycle, **options).converged
        back = block_gcrodr(A, B, rtol=1e-8, recycle=plain.recycle)
        assert back.n_iter < block_cold.n_iter
        assert back.recycle is not None
        assert worst(A, B, back.x) <= 1.0001e-8
    assert block_gcrodr(A, B[:, :1], rtol=1e-8, recycle=cold.recycle).n_iter <= 0.8 * cold.n_iter


def test_a_space_that_does_harm_is_dropped() -> None:
    rng = np.random.default_rng(3)
    A = np.diag(np.linspace(1.0, 2.0, 300))
    first = block_gcrodr(A, columns(300, 3), rtol=1e-6)
    hard = general(300) + np.diag(rng.uniform(0.0, 3.0, 300))
    second = block_gcrodr(hard, columns(300, 3), rtol=1e-6, recycle=first.recycle)
    assert second.converged
    assert second.n_iter > 1.25 * first.n_iter
    assert second.recycle is None


def test_preconditioners_that_vary() -> None:
    P, d = poisson(25), np.random.default_rng(2).uniform(0.0, 0.02, 625)
    A, kept = P + sps.diags_array(d), None
    calls = 0

    def varying(R: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return cg(P, R, rtol=0.3 / (1 + calls % 3)).x

    for seed in range(2):
        B = columns(625, 3, seed)
        result = block_gcrodr(A, B, M=varying, rtol=1e-9, recycle=kept, m=24, k=6)
        kept = result.recycle
        assert result.converged
        assert worst(A, B, result.x) <= 1.0001e-9
        assert_invariants(A, kept)
    assert result.n_iter < block_gcrodr(A, B, rtol=1e-9, m=24, k=6).n_iter / 2


def test_every_library(xp: Any, make: Any) -> None:
    A = general(120)
    counts: dict[bool, list[int]] = {False: [], True: []}
    for there in (False, True):
        convert = make if there else np.asarray
        kept, matrix = None, convert(A)
        for seed in range(2):
            B = columns(120, 3, seed)
            with count_transfers() as transfers:
                result = block_gcrodr(matrix, convert(B), recycle=kept, rtol=1e-8, m=30, k=6, check_every=8)
            kept = result.recycle
            assert worst(A, B, to_host(result.x)) <= 1.0001e-8
            counts[there].append(result.n_iter)
        assert type(kept.U) is type(matrix)
        # A look every eight steps, and two transfers a cycle of eight: the residuals' directions, and what renews the space.
        assert transfers.n <= 8 + (1 + 3) * (result.n_iter / 8 + 1)
        assert_invariants(A, kept)
    assert np.abs(np.subtract(counts[True], counts[False])).max() <= 2
    assert counts[True][1] < counts[True][0]


def test_every_library_complex_and_float32(xp: Any, make: Any) -> None:
    A, B = general(50, complex_=True), columns(50, 3, complex_=True)
    result = block_gcrodr(make(A), make(B), rtol=1e-8, m=18, k=4, M=make(np.linalg.inv(A + 0.5 * np.eye(50))))
    assert worst(A, B, to_host(result.x)) <= 1.0001e-8
    A32, B32 = (general(50) + 2 * np.eye(50)).astype(np.float32), columns(50, 3).astype(np.float32)
    single = block_gcrodr(make(A32), make(B32), rtol=1e-4, m=18, k=4)
    assert single.x.dtype == xp.float32
    assert worst(A32.astype(float), B32.astype(float), to_host(single.x)) <= 1.001e-4
    again = block_gcrodr(make(A32), make(B32), rtol=1e-4, m=18, k=4, recycle=single.recycle)
    assert again.n_iter <= single.n_iter


def test_inputs_are_not_modified_and_bad_ones_refused() -> None:
    A, B = general(40), columns(40, 3)
    x0, first = np.ones((40, 3)), block_gcrodr(A, B, rtol=1e-6)
    copies = [a.copy() for a in (A, B, x0, first.recycle.U, first.recycle.C)]
    block_gcrodr(A, B, x0=x0, recycle=first.recycle, rtol=1e-9)
    for a, b in zip(copies, (A, B, x0, first.recycle.U, first.recycle.C), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="B has shape"):
        block_gcrodr(A, B[:, 0])
    for wrong, error, match in [
        (block_gcrodr(A[:30, :30], B[:30], rtol=1e-3).recycle, InputError, "recycle is for systems"),
        ("space", BackendError, "recycle is a str"),
        (block_gcrodr(A.astype(np.float32), B.astype(np.float32), rtol=1e-3).recycle, BackendError, "dtype"),
    ]:
        with pytest.raises(error, match=match):
            block_gcrodr(A, B, recycle=wrong)


@settings(deadline=None, max_examples=60)
@example(n=2, p=1, rank=2, m=2, k=1, complex_=False, seed=3289)  # the space alone solves the second system
@given(
    n=st.integers(1, 30),
    p=st.integers(1, 8),
    rank=st.integers(0, 8),
    m=st.integers(2, 40),
    k=st.integers(0, 12),
    complex_=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_shape(n: int, p: int, rank: int, m: int, k: int, complex_: bool, seed: int) -> None:
    """A matrix of dominant Hermitian part, for which every cycle makes progress; columns of any rank; then again, warm."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0.0)
    A = A / max(np.linalg.norm(A, 2), 1e-3) + 1.5 * np.eye(n)
    kept = None
    for turn in range(2):
        B = columns(n, rank, seed + turn, complex_) @ rng.standard_normal((rank, p))
        result = block_gcrodr(A, B, rtol=1e-8, m=m, k=k, recycle=kept, maxiter=500)
        assert result.converged
        assert worst(A, B, result.x) <= 1.0001e-8
        kept = result.recycle
        if kept is not None:
            assert_invariants(A, kept, 1e-11)

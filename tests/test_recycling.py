"""Solvers that remember: the invariants of what they keep, the gains known from the literature, orders, batches, faults."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
import scipy.sparse as sps
import scipy.sparse.linalg as spla
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, ConvergenceWarning, InputError
from xpsolve.backends.operators import FivePoint, LinearOperator
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.problems import (
    LinearSequence,
    convection_diffusion_sequence,
    darcy_sequence,
    helmholtz_sequence,
    poisson_sequence,
    published_darcy_sequence,
    spd_with_condition,
    thermal_sequence,
    two_parameter_darcy_sequence,
)
from xpsolve.solvers.linear import (
    cg,
    deflated_cg,
    gcrodr,
    gmres,
    minres,
    order_fft,
    order_greedy,
    recycled_minres,
    solve_diffusion,
    solve_sequence,
)
from xpsolve.solvers.result import Status

REMEMBER = {"gcrodr": gcrodr, "deflated_cg": deflated_cg, "recycled_minres": recycled_minres}
FAMILIES = [
    darcy_sequence,
    two_parameter_darcy_sequence,
    published_darcy_sequence,
    helmholtz_sequence,
    convection_diffusion_sequence,
    poisson_sequence,
    thermal_sequence,
]


def poisson(s: int) -> sps.csr_array:
    T = sps.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(s, s))
    return sps.csr_array(sps.kron(T, sps.eye_array(s)) + sps.kron(sps.eye_array(s), T))


# ---- GCRO-DR


def test_with_nothing_to_recycle_it_is_deflated_restarting() -> None:
    A, b = poisson(63), np.random.default_rng(0).standard_normal(63**2)
    assert gcrodr(A, b, rtol=1e-8).n_iter == 192  # conjugate gradients, which are optimal, need 191
    assert gcrodr(A, b, rtol=1e-8, k=0).n_iter == gmres(A, b, rtol=1e-8, restart=40).n_iter


def test_the_same_matrix_is_learnt() -> None:
    A, rng, kept, counts = poisson(31), np.random.default_rng(5), None, []
    for _ in range(8):
        result = gcrodr(A, rng.standard_normal(961), rtol=1e-8, recycle=kept)
        kept = result.recycle
        assert kept is not None
        counts.append(result.n_iter)
        np.testing.assert_allclose(A @ kept.U.T, kept.C.T, atol=1e-12)
        np.testing.assert_allclose(kept.C @ kept.C.T, np.eye(kept.k), atol=1e-13)
        assert result.evaluations["matvec"] <= result.n_iter + 8  # images of the same operator cost nothing
    assert counts[0] == 98
    assert counts[-1] <= 46
    vectors = np.linalg.eigh(A.toarray())[1][:, :10]
    assert np.linalg.svd(vectors.T @ np.linalg.qr(kept.U.T)[0])[1].min() >= 0.999


def test_complex_systems_and_preconditioners_that_vary() -> None:
    rng = np.random.default_rng(1)
    A = (rng.standard_normal((300, 300)) + 1j * rng.standard_normal((300, 300))) / 300**0.5 + 2.2 * np.eye(300)
    kept = None
    for _ in range(3):
        b = rng.standard_normal(300) + 1j * rng.standard_normal(300)
        result = gcrodr(A, b, m=20, k=8, recycle=kept, rtol=1e-9)
        kept = result.recycle
        assert np.linalg.norm(b - A @ result.x) <= 1.0001e-9 * np.linalg.norm(b)
        np.testing.assert_allclose(A @ kept.U.T, kept.C.T, atol=1e-12)
    P = poisson(31)
    d = np.random.default_rng(2).uniform(0.5, 2.0, 961)

    def varying(r: np.ndarray) -> np.ndarray:
        return cg(P, r, rtol=0.1).x * 1.0

    first = gcrodr(P + sps.diags_array(d), np.ones(961), M=varying, rtol=1e-9)
    assert first.converged
    assert gcrodr(P, d, M=varying, recycle=first.recycle, rtol=1e-9).converged


def test_the_images_are_renewed_when_the_operator_is_not_the_same() -> None:
    A, b = poisson(20).copy(), np.random.default_rng(3).standard_normal(400)
    first = gcrodr(A, b, rtol=1e-8)
    A.data[:] *= 1.5  # changed in place: the same object, another operator
    A.setdiag(A.diagonal() + 0.3)
    second = gcrodr(A, b, rtol=1e-8, recycle=first.recycle)
    assert np.linalg.norm(b - A @ second.x) <= 1.0001e-8 * np.linalg.norm(b)
    np.testing.assert_allclose(A @ second.recycle.U.T, second.recycle.C.T, atol=1e-12)
    assert second.evaluations["matvec"] >= second.n_iter + first.recycle.k


@pytest.mark.parametrize("name", REMEMBER)
def test_every_library(xp: Any, make: Any, name: str) -> None:
    Q = np.linalg.qr(np.random.default_rng(4).standard_normal((120, 120)))[0]
    A = (Q * np.concatenate([np.logspace(-2, -1, 6), np.linspace(1.0, 5.0, 114)])) @ Q.T
    A = 0.5 * (A + A.T)
    B = np.random.default_rng(4).standard_normal((120, 2))
    counts: dict[bool, list[int]] = {False: [], True: []}
    for there in (False, True):
        convert = make if there else np.asarray
        kept, matrix = None, convert(A)
        for j in range(2):
            with count_transfers() as transfers:
                result = REMEMBER[name](
                    matrix,
                    convert(B[:, j]),
                    recycle=kept,
                    rtol=1e-8,
                    check_every=5,
                    **({"m": 20, "k": 5} if name == "gcrodr" else {"k": 6, "ell": 12}),
                )
            assert transfers.n <= -(-result.n_iter // 5) + 3
            kept = result.recycle
            x = to_host(result.x)
            assert np.linalg.norm(B[:, j] - A @ x) <= 1.0001e-8 * np.linalg.norm(B[:, j])
            counts[there].append(result.n_iter)
        assert type(kept.U) is type(matrix)
    assert np.abs(np.subtract(counts[True], counts[False])).max() <= 5
    assert counts[True][1] < counts[True][0]


@pytest.mark.parametrize("name", REMEMBER)
@pytest.mark.parametrize("origin", REMEMBER)
def test_memories_are_true_and_pass_between_solvers(origin: str, name: str) -> None:
    A, rng = np.diag(np.linspace(1.0, 1000.0, 200)), np.random.default_rng(0)
    B = rng.standard_normal((200, 3))
    kept = None
    for j in range(2):
        kept = REMEMBER[origin](A, B[:, j], recycle=kept, rtol=1e-9).recycle
        off = np.linalg.norm(A @ kept.U.T - kept.C.T, axis=0) / np.linalg.norm(kept.C, axis=1)
        assert off.max() < 1e-10  # also where the Lanczos vectors have lost their orthogonality
    with_memory, without = (REMEMBER[name](A, B[:, 2], recycle=space, rtol=1e-8) for space in (kept, None))
    assert with_memory.converged
    assert with_memory.n_iter < without.n_iter
    assert with_memory.evaluations["matvec"] <= with_memory.n_iter + 12  # the images are not made again


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    n=st.integers(1, 6),
    names=st.lists(st.sampled_from(sorted(REMEMBER)), min_size=2, max_size=4),
    dtype=st.sampled_from(["float32", "float64", "complex128"]),
    seed=st.integers(0, 999),
)
def test_small_systems_pass_on_no_more_than_they_have(n: int, names: list[str], dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = ((Q * np.logspace(0, 4, n)) @ Q.T).astype(dtype)
    A = 0.5 * (A + A.T)
    kept, tolerance = None, 1e-3 if dtype == "float32" else 1e-8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name in names:
            b = rng.standard_normal(n).astype(dtype)
            result = REMEMBER[name](A, b, recycle=kept, rtol=tolerance, maxiter=60)
            assert np.isfinite(result.x).all()
            assert not result.converged or np.linalg.norm(b - A @ result.x) <= 1.2 * tolerance * np.linalg.norm(b)
            kept = result.recycle
            assert kept is None or kept.k <= n


@pytest.mark.parametrize("name", REMEMBER)
def test_what_is_reported_is_of_the_iterate(name: str) -> None:
    A, rng = np.diag(np.linspace(1.0, 1000.0, 300)), np.random.default_rng(0)
    B = rng.standard_normal((300, 2))
    first = REMEMBER[name](A, B[:, 0], rtol=1e-8)
    for limit in (3, 17, 40):
        with pytest.warns(ConvergenceWarning):
            result = REMEMBER[name](A, B[:, 1], recycle=first.recycle, rtol=1e-10, maxiter=limit)
        assert result.residual == pytest.approx(np.linalg.norm(B[:, 1] - A @ result.x), rel=1e-10)
    with pytest.warns(ConvergenceWarning):
        tight = REMEMBER[name](A, B[:, 1], recycle=first.recycle, rtol=1e-17, maxiter=400)
    assert tight.residual == pytest.approx(np.linalg.norm(B[:, 1] - A @ tight.x), rel=1e-6)
    assert tight.residual < 1e-12 * np.linalg.norm(B[:, 1])
    products = 0

    def failing(v: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return A @ v * (np.nan if products > first.recycle.k + 30 else 1.0)

    with pytest.warns(ConvergenceWarning):
        broken = REMEMBER[name](failing, B[:, 1], recycle=first.recycle, rtol=1e-10)
    assert broken.status is Status.NONFINITE
    assert np.isfinite(broken.x).all()


@pytest.mark.parametrize("name", REMEMBER)
def test_float32_is_kept_and_honest(name: str) -> None:
    A, b, _ = spd_with_condition(100, 100.0, xp=np, rng=5, dtype=np.float32)
    first = REMEMBER[name](A, b, rtol=1e-4)
    assert first.x.dtype == np.float32
    assert first.recycle.U.dtype == np.float32
    second = REMEMBER[name](A, b[::-1].copy(), rtol=1e-4, recycle=first.recycle)
    truth = np.linalg.norm(b[::-1].astype(float) - A.astype(float) @ second.x)
    np.testing.assert_allclose(second.residual, truth, rtol=1e-3)
    assert second.converged


@pytest.mark.parametrize("name", REMEMBER)
def test_edges_and_faults(name: str) -> None:
    solver = REMEMBER[name]
    assert solver(np.asarray([[2.0]]), np.asarray([4.0])).x.tolist() == [2.0]
    zero = solver(np.eye(4), np.zeros(4), x0=np.ones(4))
    assert zero.converged
    assert not zero.x.any()
    A, b, x = spd_with_condition(60, 1e3, xp=np, rng=6)
    assert solver(A, b, x0=x, rtol=1e-8).n_iter == 0
    first = solver(A, b, rtol=1e-8)
    again = solver(A, b, rtol=1e-8, recycle=first.recycle)
    assert again.n_iter <= 1.3 * first.n_iter  # a spectrum without a part worth keeping
    for wrong, error, match in [
        (solver(np.diag(np.arange(1.0, 31.0)), np.ones(30)).recycle, InputError, "recycle is for systems"),
        ("space", BackendError, "recycle is a str"),
        (solver(A.astype(np.float32), b.astype(np.float32), rtol=1e-3).recycle, BackendError, "dtype"),
    ]:
        with pytest.raises(error, match=match):
            solver(A, b, recycle=wrong)
    with pytest.raises(InputError, match="b has shape"):
        solver(A, np.ones((60, 2)))
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        cut = solver(A, b, maxiter=3, rtol=1e-10)
    assert cut.n_iter == 3
    np.testing.assert_allclose(cut.residual, np.linalg.norm(b - A @ cut.x))
    calls = 0

    def broken(v: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return A @ v if calls < 12 else v * np.nan

    with pytest.warns(ConvergenceWarning):
        result = solver(broken, b, rtol=1e-10)
    assert result.status is Status.NONFINITE
    assert np.isfinite(result.x).all()
    assert result.recycle is None or np.isfinite(result.recycle.U).all()


@pytest.mark.parametrize("name", ["deflated_cg", "recycled_minres"])
def test_asymmetry_is_found(name: str) -> None:
    with pytest.warns(ConvergenceWarning, match="not symmetric"):
        result = REMEMBER[name](np.eye(50) + np.triu(np.ones((50, 50))), np.ones(50))
    assert result.status is Status.NOT_SYMMETRIC


def test_singular_and_indefinite_are_said() -> None:
    with pytest.warns(ConvergenceWarning, match="singular"):
        assert gcrodr(np.diag([1.0, 2.0, 0.0]), np.ones(3)).status is Status.SINGULAR
    with pytest.warns(ConvergenceWarning, match="positive definite"):
        assert deflated_cg(np.diag(np.linspace(-3.0, 9.0, 40)), np.ones(40)).status is Status.INDEFINITE


def test_exact_eigenvectors_are_deflated() -> None:
    A = np.diag(np.concatenate([np.logspace(-3, -1, 10), np.linspace(1.0, 2.0, 90)]))
    b = np.ones(100)
    plain = cg(A, b, rtol=1e-10).n_iter
    kept = None
    for seed in range(6):
        result = deflated_cg(
            A, np.random.default_rng(seed).standard_normal(100), k=10, ell=60, recycle=kept, rtol=1e-12
        )
        kept = result.recycle
    rest = cg(np.diag(np.linspace(1.0, 2.0, 90)), np.ones(90), rtol=1e-10).n_iter
    deflated = deflated_cg(A, b, k=10, recycle=kept, rtol=1e-10).n_iter
    assert deflated <= rest + 2 < plain / 2


# ---- sequences


def mean(sequence: LinearSequence, order: str = "given", **options: Any) -> float:
    done = solve_sequence(sequence, sequence.parameters, order=order, **options)
    assert done.converged
    assert sorted(done.order) == list(range(len(sequence)))
    for (A, b), result in zip(sequence, done.results, strict=True):
        assert np.linalg.norm(b - A @ result.x) <= 1.0001 * options["rtol"] * np.linalg.norm(b)
    return done.matvecs / len(sequence)


def test_gains_of_the_literature() -> None:
    """Products per system, those of renewed images included (full size: 30 to 40 systems)."""
    darcy = darcy_sequence(50, 12, xp=np_xp)
    plain = np.mean([gmres(A, b, restart=40, rtol=1e-5).n_iter for A, b in darcy])
    assert mean(darcy, rtol=1e-5) <= 0.45 * plain
    assert mean(darcy, method="deflated_cg", rtol=1e-5) <= 0.75 * mean(darcy, method="cg", rtol=1e-5)
    waves = helmholtz_sequence(8.0, 50, 8, xp=np_xp)
    assert mean(waves, method="recycled_minres", rtol=1e-5) <= 0.6 * mean(waves, method="minres", rtol=1e-5)
    published = published_darcy_sequence(50, 4, xp=np_xp)
    plain = np.mean([gmres(A, b, restart=40, rtol=1e-5).n_iter for A, b in published])
    assert mean(published, rtol=1e-5) <= 0.09 * plain


def test_sorting_helps_smooth_families_only() -> None:
    smooth = two_parameter_darcy_sequence(30, 30, xp=np_xp)
    assert mean(smooth, "greedy", rtol=1e-8) <= 0.92 * mean(smooth, rtol=1e-8)
    turning = convection_diffusion_sequence(30, 30, xp=np_xp)
    assert mean(turning, "greedy", rtol=1e-8) <= 0.95 * mean(turning, rtol=1e-8)
    rough = darcy_sequence(30, 20, xp=np_xp)
    assert mean(rough, "greedy", rtol=1e-8) <= 1.02 * mean(rough, rtol=1e-8)
    assert mean(rough, "fft", rtol=1e-8) <= 1.02 * mean(rough, rtol=1e-8)


def test_drivers_take_and_refuse() -> None:
    sequence = poisson_sequence(12, 4, xp=np_xp)
    systems = list(sequence)
    for method in ("gcrodr", "deflated_cg", "recycled_minres", "cg", "minres", "gmres"):
        done = solve_sequence(systems, method=method, rtol=1e-9)
        for (A, b), result in zip(systems, done.results, strict=True):
            np.testing.assert_allclose(A @ result.x, b, atol=1e-7)
        assert done[2] is done.results[2]
        assert "4 of 4" in repr(done)
    jacobi = solve_sequence(
        sequence, order=[3, 1, 0, 2], preconditioner=lambda A: LinearOperator(A.shape, lambda r: r / 4.0, dtype=A.dtype)
    )
    assert jacobi.order == (3, 1, 0, 2)
    onward = solve_sequence(systems, rtol=1e-8, recycle=solve_sequence(systems, rtol=1e-8).recycle)
    assert onward[0].n_iter < solve_sequence(systems, rtol=1e-8)[0].n_iter
    assert len(solve_sequence([])) == 0
    for arguments, match in [
        ({"method": "no such"}, "method"),
        ({"order": "no such"}, "order"),
        ({"order": [0, 0, 1, 2]}, "permutation"),
        ({"params": np.ones((3, 1))}, "params"),
    ]:
        with pytest.raises(InputError, match=match):
            solve_sequence(systems, **({"params": np.ones((4, 1))} | arguments))
    with pytest.raises(BackendError, match=r"systems\[0\]"):
        solve_sequence([np.eye(3)])


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 30), seed=st.integers(0, 2**16))
def test_orders_are_permutations(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    P = rng.standard_normal((count, 16, 16))
    order = order_greedy(P)
    assert sorted(order) == list(range(count))
    assert order[0] == 0
    left = set(range(count))
    for here, there in pairwise(order):
        left.remove(here)
        assert np.linalg.norm(P[here] - P[there]) <= min(np.linalg.norm(P[here] - P[j]) for j in left) * (1 + 1e-9)
    assert sorted(order_fft(P, group=7)) == list(range(count))


def test_orders_follow_a_curve(xp: Any, make: Any) -> None:
    t = np.concatenate([[0.0], np.random.default_rng(0).permutation(np.arange(1, 40)) / 40.0])
    curve = np.stack([np.cos(t), np.sin(t)], axis=1)
    assert t[order_greedy(make(curve))].tolist() == sorted(t)
    assert order_greedy(make(np.zeros(3)), make(np.asarray([0.0, 2.0, 1.0]))) == [0, 2, 1]
    x = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    fields = np.sin(x[None, :, None] + t[:, None, None]) * np.cos(x)[None, None, :]
    assert t[order_fft(make(fields))].tolist() == sorted(t)
    long = (
        np.random.default_rng(1).uniform(size=(300, 1, 1)) * fields[0]
        + np.random.default_rng(2).uniform(size=(300, 1, 1)) * fields[9]
    )
    path = [
        float(np.linalg.norm(np.diff(long[order], axis=0), axis=(1, 2)).sum())
        for order in (range(300), order_fft(make(long), group=60, dimensions=2))
    ]
    assert path[1] < path[0] / 4


# ---- the families, and batches of diffusion problems


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_the_same_everywhere(xp: Any, make: Any, family: Any) -> None:
    there, here = family(s=9, count=3, xp=xp), family(s=9, count=3, xp=np_xp)
    v = np.random.default_rng(0).standard_normal(here.rhs[0].size)
    V = np.random.default_rng(0).standard_normal((here.rhs[0].size, 2))
    for i, ((A, b), (A0, b0)) in enumerate(zip(there, here, strict=True)):
        np.testing.assert_allclose(to_host(b), b0, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(to_host(A @ make(v)), A0 @ v, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(to_host(A @ make(V)), A0 @ V, rtol=1e-12, atol=1e-12)
        dense = here.matrix(i).to_scipy().toarray()
        np.testing.assert_allclose(to_host(A.diagonal()), np.diag(dense), rtol=1e-12)
        A.check_adjoint(b)
        np.testing.assert_allclose(here.matrix(i).T.to_scipy().toarray(), dense.T, atol=1e-13)
        assert here.matrices.symmetric == bool(np.allclose(dense, dense.T, atol=1e-13))
        if here.matrices.positive:
            assert np.linalg.eigvalsh(dense)[0] > 0
    assert there.same_matrix == (family in (poisson_sequence, thermal_sequence))
    assert len(there) == 3


def test_families_mean_what_they_say() -> None:
    constant = FivePoint.diffusion(np.full((11, 11), 3.0)).to_scipy()
    np.testing.assert_allclose(constant.toarray(), 3.0 * poisson(9).toarray())
    # A solution known in closed form: u = x (1 - x) y (1 - y) on a grid where second differences are exact.
    s, h = 9, 0.1
    x = h * np.arange(1, s + 1)
    u = (x * (1 - x))[:, None] * (x * (1 - x))[None, :]
    f = h**2 * 2.0 * ((x * (1 - x))[None, :] + (x * (1 - x))[:, None])
    np.testing.assert_allclose(poisson(9) @ u.ravel(), f.ravel(), atol=1e-14)
    np.testing.assert_allclose(solve_diffusion(np.ones((1, 11, 11)), f, rtol=1e-12).x[0], u, atol=1e-13)
    # No inflow, no outflow: the temperature of the held edge everywhere.
    block = thermal_sequence(20, 1, xp=np_xp)
    held = block.rhs[0].copy()
    held[:, 1:] = 0.0
    temperature = spla.spsolve(block.matrix(0).to_scipy().tocsc(), held.ravel()).reshape(held.shape)
    inside = temperature != 0.0
    np.testing.assert_allclose(temperature[inside], held[0, 0] / 2.0, rtol=1e-9)
    assert 0 < (~inside).sum() < inside.sum() / 10  # the slot
    # Harmonic boundary values: u = x y solves the Poisson equation without a source.
    helm = helmholtz_sequence(8.0, 12, 2, xp=np_xp)
    assert np.linalg.eigvalsh(helm.matrix(0).to_scipy().toarray())[0] < 0


def test_batches_of_diffusion_problems(xp: Any, make: Any) -> None:
    data = darcy_sequence(20, 7, xp=xp)
    host = darcy_sequence(20, 7, xp=np_xp)
    for options in ({}, {"lanes": 2}, {"lanes": 7, "check_every": 4}):
        with count_transfers() as transfers:
            result = solve_diffusion(data.field, data.rhs, rtol=1e-10, **options)
        assert result.converged
        assert type(result.x) is type(data.field)
        for i in range(7):
            exact = spla.spsolve(host.matrix(i).to_scipy().tocsc(), host.rhs[i].ravel())
            np.testing.assert_allclose(to_host(result.x)[i].ravel(), exact, rtol=1e-7, atol=1e-9 * exact.max())
    assert transfers.n <= result.n_iter / 4 + 7
    flat = solve_diffusion(make(np.full((2, 9, 12), 2.0)), make(np.ones((7, 10))), rtol=1e-12)
    assert flat.n_iter == 1  # a constant coefficient is solved by the preconditioner


def test_a_batch_refuses_and_reports() -> None:
    a, f = np.ones((2, 6, 6)), np.ones((4, 4))
    for arguments, match in [
        ((a * np.asarray([1.0, -1.0])[:, None, None], f), "positive"),
        ((a, np.ones((3, 4))), "f has shape"),
        ((a[:, :2], f), "a has shape"),
        ((a * np.nan, f), "a contains"),
    ]:
        with pytest.raises(InputError, match=match):
            solve_diffusion(*arguments)
    rough = np.exp(3 * np.random.default_rng(0).standard_normal((3, 12, 12)))
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        result = solve_diffusion(rough, np.ones((10, 10)), maxiter=2, rtol=1e-10)
    assert result.status is Status.MAX_ITER
    zero = solve_diffusion(a, 0.0 * f)
    assert zero.converged
    assert not zero.x.any()
    mixed = np.stack([f, 0.0 * f])
    assert solve_diffusion(a, mixed, rtol=1e-9).converged
    single = solve_diffusion((rough**0.2).astype(np.float32), np.ones((10, 10), dtype=np.float32), rtol=1e-4)
    assert single.x.dtype == np.float32


def test_minres_and_recycled_minres_agree_without_memory() -> None:
    A, b = np.diag(np.linspace(-5.0, 20.0, 150)) + 0.1, np.ones(150)
    assert abs(recycled_minres(A, b, rtol=1e-9).n_iter - minres(A, b, rtol=1e-9).n_iter) <= 2


@pytest.mark.parametrize("method", ["gcrodr", "deflated_cg", "recycled_minres", "gmres", "minres", "cg"])
def test_an_interrupt_ends_the_sequence(method: str) -> None:
    data = two_parameter_darcy_sequence(12, 4, xp=np_xp)
    calls = []

    def interrupt(iterate: Any) -> None:
        calls.append(iterate.n_iter)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted"):
        done = solve_sequence(data, method=method, callback=interrupt, rtol=1e-8)
    assert len(calls) == 3
    assert [result.status for result in done.results] == [Status.INTERRUPTED] * 4
    assert all(not np.any(result.x) for result in done.results[1:])
    assert done[1].residual == pytest.approx(np.linalg.norm(data.rhs[1]))


def test_the_driver_names_what_it_refuses() -> None:
    data = two_parameter_darcy_sequence(5, 3, xp=np_xp)
    for order in (5, None, [0, "one", 2], [0, 0, 1], "sorted"):
        with pytest.raises(InputError, match="order"):
            solve_sequence(data, data.parameters, order=order)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="systems"):
        solve_sequence(None)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="params"):
        solve_sequence(data, [1.0, 2.0, 3.0])  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="preconditioner"):
        solve_sequence(data, preconditioner=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="preconditioner"):
        solve_sequence(data, preconditioner=lambda A: A, method="recycled_minres")


def test_an_error_in_the_callback_of_a_batch_brings_all_problems(make: Any) -> None:
    a = np.exp(np.random.default_rng(0).standard_normal((3, 12, 12)))
    seen = []

    def fail(iterate: Any) -> None:
        seen.append(iterate.n_iter)
        if seen.count(0) == 2 and iterate.n_iter == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        solve_diffusion(make(a), make(np.ones((10, 10))), lanes=1, callback=fail, rtol=1e-8)
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.status is Status.BREAKDOWN
    x, reference = to_host(result.x), solve_diffusion(a, np.ones((10, 10)), rtol=1e-10).x
    np.testing.assert_allclose(x[0], reference[0], rtol=1e-5)
    assert np.any(x[1])
    assert not np.any(x[2])

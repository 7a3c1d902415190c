"""Preconditioners of grids (fast Poisson, multigrid): against dense inverses and known iteration counts, on every library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
import scipy.sparse.linalg as spla
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, InputError
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.linear import cg
from xpsolve.solvers.linear.preconditioners import fast_poisson, multigrid


def line(s: int, kind: str) -> np.ndarray:
    """The second difference of ``s`` points with each kind of end."""
    T = 2.0 * np.eye(s) - np.eye(s, k=1) - np.eye(s, k=-1)
    if kind == "neumann":
        T[0, 0] -= 1.0
        T[-1, -1] -= 1.0
    if kind == "periodic":
        T = 2.0 * np.eye(s) - np.roll(np.eye(s), 1, 0) - np.roll(np.eye(s), -1, 0)
    return T


def laplacian(shape: tuple[int, ...], kind: str = "dirichlet") -> np.ndarray:
    n = int(np.prod(shape))
    A = np.zeros((n, n))
    for axis, s in enumerate(shape):
        before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
        A += np.kron(np.kron(np.eye(before), line(s, kind)), np.eye(after))
    return A


def poisson(s: int, d: int = 2) -> sps.csr_array:
    T = sps.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(s, s))
    A = T
    for _ in range(d - 1):
        A = sps.kronsum(T, A)
    return sps.csr_array(A)


def darcy(a: np.ndarray) -> np.ndarray:
    """-div(a grad) from nodes with their boundary, entry by entry."""
    s, t = a.shape[0] - 2, a.shape[1] - 2
    A = np.zeros((s * t, s * t))
    for i in range(s):
        for j in range(t):
            for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                p, q = a[i + 1, j + 1], a[i + 1 + di, j + 1 + dj]
                face = 2 * p * q / (p + q)
                A[i * t + j, i * t + j] += face
                if 0 <= i + di < s and 0 <= j + dj < t:
                    A[i * t + j, (i + di) * t + j + dj] -= face
    return A


def smooth(s: int) -> np.ndarray:
    x = np.linspace(0.0, 1.0, s + 2)
    return np.exp(0.7 * np.cos(np.pi * x)[:, None] + 0.5 * np.cos(2 * np.pi * x)[None, :])


def rhs(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n)


def test_reference_counts() -> None:
    A, b = poisson(63), rhs(63**2)
    assert cg(A, b, rtol=1e-8, M=fast_poisson((63, 63), like=b)).n_iter == 1
    assert cg(A, b, rtol=1e-8, M=multigrid((63, 63), like=b)).n_iter == 7
    assert cg(A, b, rtol=1e-8, M=multigrid((63, 63), like=b, pre=1, post=1)).n_iter == 9


@pytest.mark.parametrize("s", [127, 255])
def test_the_counts_do_not_grow_with_the_grid(s: int) -> None:
    A, b = poisson(s), rhs(s * s)
    result = cg(A, b, rtol=1e-8, M=multigrid((s, s), like=b))
    assert result.n_iter == 7
    assert np.linalg.norm(b - A @ result.x) <= 1e-8 * np.linalg.norm(b)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("shape", [(1,), (6,), (4, 5), (3, 1), (2, 3, 4)])
def test_fast_poisson_is_the_pseudo_inverse(xp: Any, make: Any, shape: tuple[int, ...], boundary: str) -> None:
    P = np.linalg.pinv(laplacian(shape, boundary), rcond=1e-10)
    rng = np.random.default_rng(1)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5), (np.complex128, 1e-12)):
        for size in ((len(P),), (len(P), 3)):
            b = (rng.standard_normal(size) + (1j if dtype == np.complex128 else 0) * rng.standard_normal(size)).astype(
                dtype
            )
            M = fast_poisson(shape, like=make(b), boundary=boundary)
            assert M.dtype == (xp.float32 if dtype == np.float32 else xp.float64)
            z = M @ make(b)
            assert z.dtype == make(b).dtype
            np.testing.assert_allclose(to_host(z), P @ b, atol=tolerance * max(1.0, np.abs(P).sum(1).max()))


def test_fast_poisson_with_a_coefficient(xp: Any, make: Any) -> None:
    counts = []
    for s in (20, 40):
        a = smooth(s)
        A, b = darcy(a), np.full(s * s, 1.0 / (s + 1) ** 2)
        M = fast_poisson((s, s), like=make(b), coefficient=make(a[1:-1, 1:-1].copy()))
        result = cg(make(A), make(b), rtol=1e-8, M=M)
        np.testing.assert_allclose(to_host(result.x), np.linalg.solve(A, b), rtol=1e-6)
        counts.append(result.n_iter)
    assert max(counts) <= 10
    assert counts[1] <= counts[0] + 1
    # A constant coefficient is a scaled Laplacian: one step.
    M = fast_poisson((9, 9), like=make(b), coefficient=make(np.full((9, 9), 3.0)))
    v = rhs(81)
    np.testing.assert_allclose(to_host(M @ make(v)), np.linalg.solve(3.0 * laplacian((9, 9)), v), atol=1e-12)


def test_singular_poisson_problems_are_solved_up_to_a_constant() -> None:
    s = 24
    for kind in ("neumann", "periodic"):
        A = laplacian((s, s), kind)
        b = rhs(s * s)
        b -= b.mean()
        result = cg(A, b, rtol=1e-9, M=fast_poisson((s, s), like=b, boundary=kind))
        assert result.n_iter <= 2
        np.testing.assert_allclose(result.x, np.linalg.pinv(A, rcond=1e-10) @ b, atol=1e-7)


@pytest.mark.parametrize(("shape", "pre", "post"), [((7,), 2, 2), ((127,), 1, 1), ((31, 15), 2, 2), ((15, 7, 7), 1, 1)])
def test_the_cycle_is_symmetric_and_positive(xp: Any, make: Any, shape: tuple[int, ...], pre: int, post: int) -> None:
    n = int(np.prod(shape))
    M = multigrid(shape, like=make(np.ones(1)), pre=pre, post=post)
    dense = to_host(M @ make(np.eye(n)))
    np.testing.assert_allclose(dense, dense.T, atol=1e-13 * np.abs(dense).max())
    values = np.linalg.eigvals(dense @ laplacian(shape)).real
    assert values.min() > 0.3
    assert values.max() < 1 + 1e-10
    assert {"symmetric", "positive"} <= M.tags


def test_unequal_sweeps_have_their_adjoint() -> None:
    like = np.ones(1)
    M = multigrid((15, 15), like=like, pre=2, post=1)
    M.check_adjoint(like)
    assert not M.tags
    dense = M @ np.eye(225)
    assert np.abs(dense - dense.T).max() > 1e-6
    no_pre = multigrid((15, 15), like=like, pre=0, post=2)
    no_pre.check_adjoint(like)


def test_the_cycle_contracts_alone() -> None:
    A, M = poisson(127), multigrid((127, 127), like=np.ones(1))
    x, b = np.zeros(127**2), rhs(127**2)
    norms = []
    for _ in range(8):
        r = b - A @ x
        norms.append(np.linalg.norm(r))
        x = x + M @ r
    assert max(np.asarray(norms[3:]) / np.asarray(norms[2:-1])) < 0.2


def test_multigrid_on_every_library(xp: Any, make: Any) -> None:
    b = rhs(31 * 31)
    expected = multigrid((31, 31), like=b) @ b
    np.testing.assert_allclose(to_host(multigrid((31, 31), like=make(b)) @ make(b)), expected, atol=1e-13)
    small = b.astype(np.float32)
    before = make(small)
    z = multigrid((31, 31), like=before) @ before
    assert z.dtype == xp.float32
    np.testing.assert_allclose(to_host(z), expected, atol=1e-4)
    np.testing.assert_array_equal(to_host(before), small)
    both = np.stack([b, 2 * b[::-1]], axis=1)
    M = multigrid((31, 31), like=make(b))
    np.testing.assert_allclose(to_host(M @ make(both))[:, 1], to_host(M @ make(both[:, 1].copy())), atol=1e-13)
    z = M @ make(b + 2j * b)
    np.testing.assert_allclose(to_host(z), (1 + 2j) * expected, atol=1e-12)


def test_multigrid_with_a_coefficient(xp: Any, make: Any) -> None:
    counts = []
    for s in (15, 31):
        a = smooth(s)
        A, b = darcy(a), rhs(s * s)
        M = multigrid((s, s), like=make(b), coefficient=make(a))
        result = cg(make(A), make(b), rtol=1e-8, M=M)
        np.testing.assert_allclose(to_host(result.x), np.linalg.solve(A, b), atol=1e-6)
        counts.append(result.n_iter)
    assert max(counts) <= 9
    # Inner nodes alone: the border repeats them. The coarsest grid shows it: its inverse is exact.
    a = np.random.default_rng(3).uniform(0.5, 2.0, (7, 7))
    M = multigrid((7, 7), like=make(a), coefficient=make(a))
    both = make(rhs(98).reshape(49, 2).copy())
    expected = np.linalg.solve(darcy(np.pad(a, 1, mode="edge")), to_host(both))
    np.testing.assert_allclose(to_host(M @ both), expected, atol=1e-12)
    constant = multigrid((31, 31), like=make(b), coefficient=make(np.full((33, 33), 5.0)))
    np.testing.assert_allclose(5 * to_host(constant @ make(b)), multigrid((31, 31), like=b) @ b, atol=1e-12)


def test_scipy_takes_them() -> None:
    A, b = poisson(31), rhs(31 * 31)
    for M in (multigrid((31, 31), like=b), fast_poisson((31, 31), like=b)):
        x, info = spla.cg(A, b, rtol=1e-10, M=M)
        assert info == 0
        np.testing.assert_allclose(x, spla.spsolve(A.tocsc(), b), atol=1e-7)
        assert spla.gmres(A, b, rtol=1e-10, M=M, maxiter=40)[1] == 0


@settings(deadline=None, max_examples=20)
@given(k=st.integers(1, 6), m=st.integers(1, 6), seed=st.integers(0, 999))
def test_any_grid(k: int, m: int, seed: int) -> None:
    shape = (2**k - 1, 2**m - 1)
    b = np.random.default_rng(seed).standard_normal(shape[0] * shape[1])
    A = poisson(shape[0], 1), poisson(shape[1], 1)
    L = sps.csr_array(sps.kronsum(A[1], A[0]))
    assert cg(L, b, rtol=1e-8, M=multigrid(shape, like=b)).n_iter <= 9


def test_bad_input() -> None:
    b = np.ones(9)
    with pytest.raises(InputError, match="shape is"):
        multigrid((8, 7), like=b)
    with pytest.raises(InputError, match="shape"):
        fast_poisson((2, 2, 2, 2), like=b)
    with pytest.raises(InputError, match="thin"):
        multigrid((1, 4095), like=b)
    with pytest.raises(InputError, match="pre and post"):
        multigrid((7, 7), like=b, pre=0, post=0)
    with pytest.raises(InputError, match="weight"):
        multigrid((7, 7), like=b, weight=1.5)
    with pytest.raises(InputError, match="boundary"):
        fast_poisson((3, 3), like=b, boundary="robin")
    with pytest.raises(InputError, match="coefficient"):
        fast_poisson((3, 3), like=b, coefficient=-np.ones((3, 3)))
    with pytest.raises(InputError, match="coefficient has shape"):
        multigrid((3, 3), like=b, coefficient=np.ones((4, 4)))
    with pytest.raises(BackendError, match="coefficient has dtype"):
        multigrid((3, 3), like=b, coefficient=np.ones((3, 3), dtype=np.float32))
    with pytest.raises(InputError, match="cannot be applied"):
        fast_poisson((3, 3), like=b) @ np.ones(8)

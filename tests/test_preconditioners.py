"""Preconditioners made of a matrix's entries: known iteration counts, symmetry, closed forms, and every library."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
import scipy.sparse.linalg as spla
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, BreakdownError, InputError, MissingDependencyError
from xpsolve.backends.operators import LinearOperator
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.linear import cg, gmres
from xpsolve.solvers.linear.preconditioners import (
    amg,
    block_jacobi,
    ic0,
    ilu,
    jacobi,
    nystrom,
    rpcholesky,
    ssor,
)

incomplete = importlib.import_module("xpsolve.solvers.linear.preconditioners.incomplete")


def poisson(s: int) -> sps.csr_array:
    T = sps.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(s, s))
    return sps.csr_array(sps.kronsum(T, T))


def kernel(ell: float, n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).random((n, 2))
    gaps = np.sum((X[:, None, :] - X[None, :, :]) ** 2, axis=-1)
    y = np.sin(6 * X[:, 0]) * np.cos(5 * X[:, 1]) + 0.1 * np.random.default_rng(1).standard_normal(n)
    return np.exp(-gaps / (2 * ell**2)), y


def rhs(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n)


def spd(n: int, seed: int = 0, complex_: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if complex_ else 0.0)
    return G @ G.conj().T + n * np.diag(rng.uniform(0.5, 5.0, n))


def sparse_spd(n: int, seed: int = 0, complex_: bool = False) -> sps.csr_array:
    rng = np.random.default_rng(seed)
    G = sps.random_array((n, n), density=0.1, rng=rng, format="csr")
    if complex_:
        G = G + 1j * sps.random_array((n, n), density=0.1, rng=rng, format="csr")
    A = G + G.conj().T
    return sps.csr_array(A + sps.diags_array(np.asarray(abs(A).sum(axis=1)).ravel() + 0.1))


def assert_symmetric(M: LinearOperator, seed: int = 7) -> None:
    rng = np.random.default_rng(seed)
    complex_ = np.dtype(M.dtype).kind == "c"
    u, v = (rng.standard_normal(M.shape[0]) + (1j * rng.standard_normal(M.shape[0]) if complex_ else 0) for _ in "uv")
    left, right = np.vdot(u, M @ v), np.vdot(M @ u, v)
    assert abs(left - right) <= 1e-13 * np.linalg.norm(u) * np.linalg.norm(M @ v)
    assert np.vdot(v, M @ v).real > 0
    assert {"symmetric", "positive"} <= M.tags


REFERENCE = [
    ("none", lambda A: None, 191),
    ("jacobi", jacobi, 191),
    ("rows", lambda A: jacobi(A, scale="rows"), 191),
    ("lines", lambda A: block_jacobi(A, 63), 153),
    ("ssor 1", ssor, 74),
    ("ssor 1.5", lambda A: ssor(A, 1.5), 46),
    ("ssor 1.8", lambda A: ssor(A, 1.8), 33),
    ("ic0", ic0, 63),
]


@pytest.mark.parametrize(("build", "expected"), [row[1:] for row in REFERENCE], ids=[row[0] for row in REFERENCE])
def test_reference_counts(build: Any, expected: int) -> None:
    A, b = poisson(63), rhs(63**2)
    M = build(A)
    result = cg(A, b, rtol=1e-8, M=M)
    assert abs(result.n_iter - expected) <= 1
    if M is not None:
        assert_symmetric(M)
        x, info = spla.cg(A, b, rtol=1e-8, M=M)
        assert info == 0
        np.testing.assert_allclose(x, result.x, atol=1e-4 * np.abs(x).max())


@pytest.mark.parametrize(
    ("ell", "mu", "rank", "most"), [(0.3, 1e-1, 50, 4), (0.3, 1e-3, 50, 10), (0.3, 1e-3, 100, 2), (0.1, 1e-1, 200, 6)]
)
def test_kernel_reference_counts(ell: float, mu: float, rank: int, most: int) -> None:
    K, y = kernel(ell)
    A = K + mu * np.eye(len(y))
    for build in (nystrom, rpcholesky):
        M = build(K, mu, rank, rng=0)
        assert_symmetric(M)
        result = cg(A, y, rtol=1e-8, M=M)
        assert result.n_iter <= most + 1
        assert spla.cg(A, y, rtol=1e-8, M=M)[1] == 0
    # The rank that is too small for the spectrum does not do it: the counts above are no accident.
    assert cg(A, y, rtol=1e-8, M=nystrom(K, mu, 20, rng=0)).n_iter > 2 * most


def test_jacobi(xp: Any, make: Any) -> None:
    A = spd(6)
    b = make(np.stack([rhs(6), np.ones(6)], axis=1))
    np.testing.assert_allclose(to_host(jacobi(make(A)) @ b), to_host(b) / np.diag(A)[:, None], rtol=1e-14)
    rows = jacobi(make(-A), scale="rows") @ b
    np.testing.assert_allclose(to_host(rows), to_host(b) / np.abs(A).sum(1)[:, None], rtol=1e-14)
    small = make(A.astype(np.float32))
    assert (jacobi(small) @ small[:, 1]).dtype == xp.float32
    H = spd(5, complex_=True)
    M = jacobi(make(H))
    assert {"symmetric", "positive"} <= M.tags
    np.testing.assert_allclose(to_host(M @ make(H[:, 1].copy())), H[:, 1] / np.diag(H), rtol=1e-13)
    skew = jacobi(make(H * 1j))
    assert not skew.tags
    skew.check_adjoint(make(H[:, 0].copy()))
    assert "positive" not in jacobi(make(-A)).tags
    known = LinearOperator((6, 6), lambda v: v, dtype=b.dtype, diagonal=lambda: make(np.arange(1.0, 7.0)))
    np.testing.assert_allclose(to_host(jacobi(known, like=b) @ make(np.ones(6))), 1 / np.arange(1.0, 7.0))


def test_a_singular_block_is_found_on_every_library(xp: Any, make: Any) -> None:
    A = spd(6)
    A[2:4, 2:4] = 1.0
    for dtype in ("float32", "float64", "complex128"):
        with pytest.raises(BreakdownError, match="a diagonal block of A is singular"):
            block_jacobi(make(A.astype(dtype)), 2)


@pytest.mark.parametrize("q", [1, 2, 3, 7, 20])
def test_block_jacobi_is_the_inverse_of_the_blocks(xp: Any, make: Any, q: int) -> None:
    for A in (spd(7), np.random.default_rng(2).standard_normal((7, 7)), spd(7, complex_=True)):
        blocks = np.where(np.arange(7)[:, None] // q == np.arange(7)[None, :] // q, A, 0.0)
        M = block_jacobi(make(A), q)
        np.testing.assert_allclose(to_host(M @ make(np.eye(7, dtype=A.dtype))), np.linalg.inv(blocks), atol=1e-11)
        v = make(A[:, 0].copy())
        np.testing.assert_allclose(to_host(M @ v), np.linalg.solve(blocks, A[:, 0]), atol=1e-11)
        M.check_adjoint(v)
        assert ("symmetric" in M.tags) == bool(np.allclose(blocks, blocks.conj().T))
    assert "positive" not in block_jacobi(make(-spd(6)), q).tags
    z = block_jacobi(make(spd(7).astype(np.float32)), q) @ make(np.ones(7, dtype=np.float32))
    assert z.dtype == xp.float32


def test_sparse_blocks_equal_dense_ones() -> None:
    torch = pytest.importorskip("torch")
    A = sparse_spd(23) + sps.csr_array(([0.5], ([3], [2])), shape=(23, 23))
    expected = block_jacobi(A.toarray(), 5) @ np.eye(23)
    for matrix in (A, A.tocsc(), A.tocoo()):
        np.testing.assert_allclose(block_jacobi(matrix, 5) @ np.eye(23), expected, atol=1e-14)
    with warnings.catch_warnings():  # torch says once a process that its CSR tensors are young
        warnings.simplefilter("ignore")
        csr = torch.as_tensor(A.toarray()).to_sparse_csr()
    np.testing.assert_allclose(
        (block_jacobi(csr, 5) @ torch.eye(23, dtype=torch.float64)).numpy(), expected, atol=1e-14
    )
    np.testing.assert_allclose(
        (jacobi(csr, scale="rows") @ torch.ones(23, dtype=torch.float64)).numpy(),
        jacobi(A, scale="rows") @ np.ones(23),
        rtol=1e-14,
    )


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("hermitian", [False, True])
def test_ssor_is_its_formula(complex_: bool, hermitian: bool) -> None:
    A = sparse_spd(20, complex_=complex_)
    if not hermitian:
        A = sps.csr_array(A + sps.triu(A, 1))
    dense, w = A.toarray(), 1.3
    D, L, U = np.diag(np.diag(dense)), np.tril(dense, -1), np.triu(dense, 1)
    expected = w * (2 - w) * np.linalg.inv(D + w * U) @ D @ np.linalg.inv(D + w * L)
    M = ssor(A, w)
    np.testing.assert_allclose(M @ np.eye(20, dtype=A.dtype), expected, atol=1e-13)
    M.check_adjoint(np.ones(20, dtype=A.dtype))
    assert ("symmetric" in M.tags) == hermitian
    np.testing.assert_allclose(ssor(dense, w) @ (rhs(20) + 1j), expected @ (rhs(20) + 1j), atol=1e-13)
    small = A.astype(np.complex64 if complex_ else np.float32)
    z = ssor(small, w) @ rhs(20).astype(small.dtype)
    assert z.dtype == small.dtype
    np.testing.assert_allclose(z, expected @ rhs(20), atol=1e-5)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_incomplete_cholesky(monkeypatch: pytest.MonkeyPatch, complex_: bool, compiled: bool) -> None:
    if compiled:
        pytest.importorskip("numba")
        monkeypatch.setattr(incomplete, "_WORTH_COMPILING", 0)
    A = sparse_spd(30, complex_=complex_)
    M = ic0(A)
    assert_symmetric(M)
    # L L^H equals A on its pattern, and a full pattern gives the whole factorisation.
    product = np.linalg.inv(M @ np.eye(30, dtype=A.dtype))
    pattern = A.toarray() != 0
    np.testing.assert_allclose(product[pattern], A.toarray()[pattern], atol=1e-12)
    full = spd(12, complex_=complex_)
    np.testing.assert_allclose(ic0(full) @ full, np.eye(12), atol=1e-12)


def test_incomplete_cholesky_shifts_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    # Kershaw's matrix: positive definite, and its incomplete factorisation breaks down.
    A = np.asarray([[3.0, -2.0, 0.0, 2.0], [-2.0, 3.0, -2.0, 0.0], [0.0, -2.0, 3.0, -2.0], [2.0, 0.0, -2.0, 3.0]])
    assert np.linalg.eigvalsh(A).min() > 0
    M = ic0(sps.csr_array(A))
    assert np.linalg.eigvalsh(M @ np.eye(4)).min() > 0
    assert cg(A, np.ones(4), rtol=1e-10, M=M).n_iter <= 4
    with pytest.raises(InputError, match="Hermitian"):
        ic0(A + np.triu(A, 1))
    with pytest.raises(InputError, match="positive"):
        ic0(-A)
    with pytest.raises(BreakdownError, match="pivots"):
        ic0(np.asarray([[1e-9, 1e3], [1e3, 1e-9]]))
    monkeypatch.setattr(incomplete, "_WORTH_COMPILING", 0)
    monkeypatch.setitem(sys.modules, "numba", None)
    incomplete._compiled.cache_clear()
    np.testing.assert_array_equal(ic0(poisson(6)) @ rhs(36), M_of_lists(poisson(6), rhs(36)))
    incomplete._compiled.cache_clear()


def M_of_lists(A: sps.csr_array, v: np.ndarray) -> np.ndarray:
    lower = sps.csr_array(sps.tril(A))
    values = lower.data.tolist()
    assert incomplete.ic0_rows(lower.indptr.tolist(), lower.indices.tolist(), values)
    L = sps.csc_array(sps.csr_array((values, lower.indices, lower.indptr)))
    factor = spla.splu(L, permc_spec="NATURAL", diag_pivot_thresh=0.0)
    return np.asarray(factor.solve(factor.solve(v), "H"))


def test_ilu_serves_gmres_and_says_it_is_not_symmetric() -> None:
    A = poisson(30) + 0.3 * sps.diags_array([-1.0, 1.0], offsets=[-1, 1], shape=(900, 900)).tocsr()
    M = ilu(A, drop_tol=1e-3, fill_factor=10)
    assert not M.tags
    M.check_adjoint(np.ones(900))
    counts = []
    for inverse in (None, M):
        seen: list[float] = []
        assert (
            spla.gmres(A, rhs(900), rtol=1e-8, M=inverse, restart=60, callback=seen.append, callback_type="pr_norm")[1]
            == 0
        )
        counts.append(len(seen))
    assert counts[1] < counts[0] / 4
    exact = ilu(A, drop_tol=0.0, fill_factor=100)
    np.testing.assert_allclose(exact @ (A @ rhs(900)), rhs(900), atol=1e-10)
    np.testing.assert_allclose(exact @ (A @ (1j * rhs(900))), 1j * rhs(900), atol=1e-10)
    with pytest.raises(BreakdownError, match="singular"):
        ilu(np.zeros((3, 3)) + np.diag([1.0, 0.0, 1.0]))


class DeviceArray:
    """As much of a CuPy array as the incomplete factorisations touch; NumPy cannot read it."""

    __array__ = None

    def __init__(self, a: np.ndarray) -> None:
        self.a, self.dtype, self.shape, self.ndim = a, a.dtype, a.shape, a.ndim

    real = property(lambda self: DeviceArray(self.a.real))
    imag = property(lambda self: DeviceArray(self.a.imag))

    def astype(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self.a.astype(dtype))

    def __add__(self, other: DeviceArray) -> DeviceArray:
        return DeviceArray(self.a + other.a)

    def __rmul__(self, factor: complex) -> DeviceArray:
        return DeviceArray((factor * self.a).astype(np.result_type(self.a.dtype, np.complex64)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("build", [ic0, ilu])
def test_factors_of_a_device_matrix_stay_there(monkeypatch: pytest.MonkeyPatch, build: Any, dtype: str) -> None:
    """What CuPy is asked for, checked by a stand-in: the matrix is read once, vectors never; see the test on a GPU below."""
    host = sparse_spd(30, complex_=dtype.startswith("complex")).astype(dtype)
    reads: list[str] = []

    class Matrix:
        __module__ = "cupyx.scipy.sparse"
        shape, dtype = host.shape, host.dtype

        def get(self) -> sps.csr_array:
            reads.append("matrix")
            return host

    class SuperLU:
        __module__ = "cupyx.scipy.sparse.linalg"

        def __init__(self, factor: Any) -> None:
            assert isinstance(factor, spla.SuperLU)
            self.factor = factor

        def solve(self, rhs: DeviceArray, trans: str = "N") -> DeviceArray:
            assert isinstance(rhs, DeviceArray)
            assert rhs.dtype == host.dtype  # CuPy would convert, and complain of complex values
            assert trans in ("N", "T", "H")
            return DeviceArray(self.factor.solve(np.asfortranarray(rhs.a), trans))

    linalg = types.ModuleType("cupyx.scipy.sparse.linalg")
    linalg.SuperLU = SuperLU  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse.linalg", linalg)
    for name in ("cupyx", "cupyx.scipy", "cupyx.scipy.sparse"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    there, here = build(Matrix()), build(host)
    assert reads == ["matrix"]
    assert there.tags == here.tags
    for v in (
        rhs(30).astype(dtype),
        np.stack([rhs(30), rhs(30)[::-1]], axis=1).astype(dtype),
        1j * rhs(30).astype(dtype),
    ):
        for M, N in ((there, here), (there.H, here.H)):
            np.testing.assert_array_equal((M @ DeviceArray(v)).a, N @ v)
    with pytest.raises(BackendError, match="vectors of CuPy"):
        there @ rhs(30).astype(dtype)
    with pytest.raises(BackendError, match="vectors of NumPy"):
        here @ DeviceArray(rhs(30).astype(dtype))
    assert reads == ["matrix"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("build", [ic0, ilu])
def test_factors_on_a_gpu(build: Any, dtype: str) -> None:
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    import cupyx.scipy.sparse as device_sparse

    turn = sps.diags_array(np.exp(1j * np.arange(400.0) if dtype.startswith("complex") else np.zeros(400)))
    host = sps.csr_array(turn.conj() @ poisson(20) @ turn).astype(dtype)
    matrix = device_sparse.csr_matrix(sps.csr_matrix(host))
    there, here = build(matrix), build(host)
    tol = 1e-4 if dtype in ("float32", "complex64") else 1e-11
    for v in (rhs(400).astype(dtype), np.stack([rhs(400), rhs(400)[::-1]], axis=1).astype(dtype)):
        for M, N in ((there, here), (there.H, here.H)):
            z = M @ cupy.asarray(v)
            assert isinstance(z, cupy.ndarray)
            assert z.dtype == v.dtype
            np.testing.assert_allclose(z.get(), N @ v, rtol=tol, atol=tol)
    b = rhs(400).astype(dtype)
    solver = cg if build is ic0 else gmres
    ours, theirs = solver(matrix, cupy.asarray(b), M=there, rtol=1e-4), solver(host, b, M=here, rtol=1e-4)
    assert ours.converged
    assert abs(ours.n_iter - theirs.n_iter) <= 10  # a GPU looks every ten steps
    np.testing.assert_allclose(
        (build(cupy.asarray(host.toarray())) @ cupy.asarray(b)).get(), here @ b, rtol=tol, atol=tol
    )


@pytest.mark.parametrize("complex_", [False, True])
def test_low_rank_kernels_are_caught_whole(xp: Any, make: Any, complex_: bool) -> None:
    rng = np.random.default_rng(4)
    G = rng.standard_normal((40, 6)) + (1j * rng.standard_normal((40, 6)) if complex_ else 0.0)
    K, mu = G @ G.conj().T, 0.1
    b = rng.standard_normal(40) + (1j * rng.standard_normal(40) if complex_ else 0.0)
    for build in (nystrom, rpcholesky):
        M = build(make(K), mu, 8, rng=0)
        np.testing.assert_allclose(to_host(M @ make(b)), np.linalg.solve(K + mu * np.eye(40), b), atol=1e-6)
        assert cg(make(K + mu * np.eye(40)), make(b), rtol=1e-8, M=M).n_iter <= 3
        U = to_host(M.vectors)
        np.testing.assert_allclose(U.conj().T @ U, np.eye(U.shape[1]), atol=1e-12)
        two = to_host(M @ make(np.stack([b, 2 * b], axis=1)))
        np.testing.assert_allclose(two[:, 1], 2 * two[:, 0], rtol=1e-10)
    # The pivots' columns are reproduced, and it stops where nothing is left instead of dividing by rounding.
    assert len(M.pivots) <= 8
    assert len(set(M.pivots)) == len(M.pivots)
    F = to_host(M.factor)
    np.testing.assert_allclose((F @ F.conj().T)[:, list(M.pivots)], K[:, list(M.pivots)], atol=1e-10)


def test_the_trace_stop_keeps_numbers_finite(xp: Any, make: Any) -> None:
    K, _ = kernel(0.3, 150)
    for dtype, rank in ((np.float64, 150), (np.float32, 150)):
        M = rpcholesky(make(K.astype(dtype)), 1e-3, rank, rng=1)
        assert len(M.pivots) < 150
        z = M @ make(np.ones(150, dtype=dtype))
        assert z.dtype == getattr(xp, np.dtype(dtype).name)
        assert bool(xp.all(xp.isfinite(z)))
        z = nystrom(make(K.astype(dtype)), 1e-3, rank, rng=1) @ make(np.ones(150, dtype=dtype))
        assert bool(xp.all(xp.isfinite(z)))


def test_a_kernel_can_be_columns_or_an_operator(xp: Any, make: Any) -> None:
    K, _ = kernel(0.2, 60)
    K = K * np.linspace(0.5, 2.0, 60)[:, None] * np.linspace(0.5, 2.0, 60)[None, :]
    mine, diag = make(K), make(np.diag(K).copy())
    expected = rpcholesky(mine, 1e-2, 20, rng=3)
    asked: list[int] = []

    def column(i: int) -> Any:
        asked.append(i)
        return mine[:, i]

    lazy = rpcholesky(column, 1e-2, 20, diag=diag, rng=3)
    assert lazy.pivots == expected.pivots == tuple(asked)
    operator = LinearOperator((60, 60), lambda v: mine @ v, dtype=mine.dtype)
    assert rpcholesky(operator, 1e-2, 20, diag=diag, rng=3).pivots == expected.pivots
    z = nystrom(operator, 1e-2, 20, rng=3, like=diag) @ diag
    np.testing.assert_allclose(to_host(z), to_host(nystrom(mine, 1e-2, 20, rng=3) @ diag), rtol=1e-9)
    with pytest.raises(InputError, match="diag"):
        rpcholesky(column, 1e-2, 20)
    with pytest.raises(BackendError, match="like"):
        nystrom(operator, 1e-2, 20)


def test_the_trace_falls_and_large_columns_are_drawn_first() -> None:
    K, _ = kernel(0.1, 200)
    traces = [np.trace(K - F @ F.T) for F in (rpcholesky(K, 1.0, rank, rng=5).factor for rank in (5, 20, 80))]
    assert 0 <= traces[2] < traces[1] < traces[0] < np.trace(K)
    spiked = np.diag(np.asarray([1e-12, 1.0, 1e-12, 1e6, 1e-12]))
    assert rpcholesky(spiked, 1.0, 1, rng=0).pivots == (3,)
    assert rpcholesky(np.zeros((4, 4)), 0.5, 3).pivots == ()
    np.testing.assert_allclose(rpcholesky(np.zeros((4, 4)), 0.5, 3) @ np.ones(4), 2.0)
    np.testing.assert_allclose(nystrom(np.zeros((4, 4)), 0.5, 3) @ np.ones(4), 2.0)


def test_an_entry_without_weight_may_be_drawn(xp: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums formed in parallel are not monotone, so rounding may pick a pivot a second time: it explains nothing more."""
    K, draws = spd(8), iter([2, 2, 5])
    module = sys.modules["xpsolve.solvers.linear.preconditioners.rpcholesky"]
    monkeypatch.setattr(module, "host_index", lambda _: next(draws))
    F = to_host(rpcholesky(make(K), 1.0, 3, rng=0).factor)
    # The columns of pivots are explained whole.
    np.testing.assert_allclose((F @ F.T)[:, [2, 5]], K[:, [2, 5]], atol=1e-12)


def test_adaptive_rank(xp: Any, make: Any) -> None:
    K, _ = kernel(0.2, 300)
    M = nystrom(make(K), 1e-3, 5, rng=0, adaptive=True)
    assert M.eigenvalues.shape[0] in (40, 80, 150)
    assert float(M.eigenvalues[-1]) <= 1e-2
    assert nystrom(make(K), 1e-3, 5, rng=0, adaptive=True, max_rank=12).eigenvalues.shape[0] == 12
    U = to_host(M.vectors)
    np.testing.assert_allclose(U.T @ U, np.eye(U.shape[1]), atol=1e-12)
    approximation = U * to_host(M.eigenvalues) @ U.T
    assert np.linalg.eigvalsh(K - approximation).min() > -1e-9
    assert np.linalg.norm(K - approximation, 2) < 0.1


def test_amg() -> None:
    pytest.importorskip("pyamg")
    A, b = poisson(63), rhs(63**2)
    for kind, most in (("ruge_stuben", 6), ("smoothed_aggregation", 9)):
        M = amg(A, kind=kind)
        assert_symmetric(M)
        result = cg(A, b, rtol=1e-8, M=M)
        assert result.n_iter <= most
        both = M @ np.stack([b, b[::-1]], axis=1)
        np.testing.assert_allclose(both[:, 1], M @ b[::-1].copy(), atol=1e-12)
        assert spla.cg(A, b, rtol=1e-8, M=M)[1] == 0
    M = amg(A, near_nullspace=np.ones((63**2, 1)))
    assert cg(A, b, rtol=1e-8, M=M).n_iter <= 9
    with pytest.raises(InputError, match="near_nullspace"):
        amg(A, near_nullspace=np.ones((3, 1)))
    with pytest.raises(InputError, match="near_nullspace"):
        amg(A, kind="ruge_stuben", near_nullspace=np.ones((63**2, 1)))
    with pytest.raises(InputError, match="kind"):
        amg(A, kind="classical")


def test_amg_without_pyamg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(MissingDependencyError, match=r"xpsolve\[amg\]"):
        amg(poisson(5))


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 30), seed=st.integers(0, 2**16), q=st.integers(1, 8))
def test_any_matrix_of_dominant_diagonal(n: int, seed: int, q: int) -> None:
    A = sparse_spd(n, seed)
    b = np.random.default_rng(seed).standard_normal(n)
    x = np.linalg.solve(A.toarray(), b)
    for M in (jacobi(A), block_jacobi(A, q), ssor(A, 1.2), ic0(A)):
        np.testing.assert_allclose(cg(A, b, rtol=1e-10, M=M, maxiter=20 * n + 20).x, x, atol=1e-6 * np.abs(x).max())


def test_bad_input() -> None:
    singular = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    for build in (jacobi, ssor, ic0):
        with pytest.raises(InputError, match="diagonal"):
            build(singular)
    np.testing.assert_allclose(jacobi(singular, scale="rows") @ np.ones(2), 1.0)
    with pytest.raises(BreakdownError, match="block"):
        block_jacobi(singular, 1)
    with pytest.raises(InputError, match="block_size"):
        block_jacobi(np.eye(3), 0)
    with pytest.raises(InputError, match="scale"):
        jacobi(np.eye(2), scale="columns")
    with pytest.raises(InputError, match="omega"):
        ssor(np.eye(2), 2.0)
    with pytest.raises(InputError, match="NaN"):
        ic0(np.asarray([[1.0, np.nan], [np.nan, 1.0]]))
    for build in (ssor, ic0, ilu):
        with pytest.raises(BackendError, match="host"):
            build(lambda v: v)
        with pytest.raises(InputError, match="square"):
            build(np.ones((2, 3)))
    with pytest.raises(BackendError, match="like"):
        jacobi(lambda v: v)
    with pytest.raises(InputError, match="diagonal"):
        jacobi(lambda v: v, like=np.ones(3))
    for build in (nystrom, rpcholesky):
        with pytest.raises(InputError, match="mu"):
            build(np.eye(3), 0.0)
        with pytest.raises(InputError, match="rank"):
            build(np.eye(3), 1.0, 0)
    with pytest.raises(InputError, match="negative"):
        rpcholesky(-np.eye(3), 1.0)
    with pytest.raises(BreakdownError, match="semidefinite"):
        nystrom(-np.eye(3), 1.0, 2)

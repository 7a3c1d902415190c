"""What only CuPy does: its sparse formats, its operators, the fused kernel and the looks of a GPU, exact against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
from xpsolve.backends.errors import BackendError
from xpsolve.backends.operators import adapters, as_operator
from xpsolve.backends.pairs import Pairs, exponential, gaussian
from xpsolve.backends.transfer import count_transfers, to_host
from xpsolve.solvers import ot
from xpsolve.solvers.linear import cg, gmres, mixed_cg
from xpsolve.solvers.linear.preconditioners import block_jacobi, jacobi
from xpsolve.solvers.linear.sketching import sketch

RNG = np.random.default_rng(3)
COMPLEX = ("complex64", "complex128")


@pytest.fixture
def cupy() -> Any:
    module = pytest.importorskip("cupy")
    if not module.cuda.is_available():
        pytest.skip("no CUDA device")
    return module


def lopsided(n: int, m: int, dtype: str) -> np.ndarray:
    """A sparse matrix as an array; its entries are of both signs, and nothing is symmetric."""
    A = RNG.standard_normal((n, m)) + (1j * RNG.standard_normal((n, m)) if dtype in COMPLEX else 0.0)
    return np.where(RNG.random((n, m)) < 0.3, A, 0.0).astype(dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dia"])
def test_sparse_formats(cupy: Any, kind: str, dtype: str) -> None:
    import cupyx.scipy.sparse as device_sparse

    host = lopsided(20, 20, dtype) + 3 * np.eye(20, dtype=dtype)
    matrix = getattr(device_sparse, f"{kind}_matrix")(getattr(sps, f"{kind}_matrix")(host))
    v, V = lopsided(20, 1, dtype)[:, 0], lopsided(20, 3, dtype)
    A = as_operator(matrix, like=cupy.asarray(v))
    tol = 1e-5 if dtype in ("float32", "complex64") else 1e-13
    for x in (v, V):
        for product, expected in ((A @ cupy.asarray(x), host @ x), (A.H @ cupy.asarray(x), host.conj().T @ x)):
            assert isinstance(product, cupy.ndarray)
            assert product.dtype == host.dtype
            np.testing.assert_allclose(product.get(), expected, atol=tol)
    np.testing.assert_array_equal(A.diagonal().get(), np.diag(host))
    weights = jacobi(matrix, scale="rows") @ cupy.ones(20, dtype=dtype)
    np.testing.assert_allclose(weights.get(), 1 / np.abs(host).sum(axis=1), rtol=1e-5)


@pytest.mark.gpu
def test_solvers_of_a_sparse_matrix(cupy: Any) -> None:
    import cupyx.scipy.sparse as device_sparse

    T = sps.diags_array([-np.ones(29), 2.5 * np.ones(30), -np.ones(29)], offsets=[-1, 0, 1]).tocsr()
    b = RNG.standard_normal(30)
    expected = np.linalg.solve(T.toarray(), b)
    # Out of order, and with duplicates: their sum is the entry.
    coo = T.tocoo()
    order = RNG.permutation(coo.nnz)
    twice = [cupy.asarray(np.concatenate([part[order], part[order]])) for part in (coo.row, coo.col)]
    data = cupy.asarray(np.concatenate([coo.data[order], coo.data[order]]) / 2)
    for matrix in (
        device_sparse.csr_matrix(sps.csr_matrix(T)),
        device_sparse.coo_matrix((data, tuple(twice)), shape=(30, 30)),
    ):
        M = block_jacobi(matrix, 7)
        np.testing.assert_allclose((M @ cupy.asarray(b)).get(), block_jacobi(T, 7) @ b, rtol=1e-12, atol=1e-12)
        for solver in (cg, gmres, mixed_cg):
            result = solver(matrix, cupy.asarray(b), rtol=1e-10, M=M if solver is not mixed_cg else None)
            assert result.converged
            np.testing.assert_allclose(result.x.get(), expected, atol=1e-8)


@pytest.mark.gpu
def test_operators_of_cupy(cupy: Any) -> None:
    from cupyx.scipy.sparse.linalg import LinearOperator

    host = lopsided(8, 8, "float64")
    matrix, v = cupy.asarray(host), RNG.standard_normal(8)
    theirs = LinearOperator((8, 8), lambda x: matrix @ x, rmatvec=lambda x: matrix.T @ x, dtype="float64")
    A = as_operator(theirs, like=cupy.asarray(v))
    np.testing.assert_allclose((A @ cupy.asarray(v)).get(), host @ v, atol=1e-13)
    np.testing.assert_allclose((A.H @ cupy.asarray(v)).get(), host.T @ v, atol=1e-13)
    with pytest.raises(BackendError, match="works on CuPy arrays, the vector is numpy"):
        as_operator(theirs, like=v)


class TheirOperator:
    """What as_operator sees of an operator of CuPy."""

    __module__ = "cupyx.scipy.sparse.linalg._interface"
    shape, dtype = (3, 3), np.dtype("float64")

    def matvec(self, v: Any) -> Any:
        return 2.0 * v


def test_operators_of_cupy_meet_its_vectors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="works on CuPy arrays, the vector is numpy"):
        as_operator(TheirOperator(), like=np.ones(3))
    monkeypatch.setattr(adapters, "is_cupy", lambda _: True)
    assert (as_operator(TheirOperator(), like=np.ones(3)) @ np.ones(3)).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("kind", ["csr", "csc", "dia", "coo"])
def test_matrices_of_cupy_are_multiplied_by_rows(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    host, conversions = lopsided(6, 6, "float64"), []

    class Matrix:
        __module__ = f"cupyx.scipy.sparse._{kind}"
        format, shape, dtype, nnz, data = kind, (6, 6), host.dtype, 36, host.reshape(-1)

        def tocsr(self) -> Any:
            conversions.append(kind)
            return sps.csr_array(host)

        def __matmul__(self, v: Any) -> Any:
            return host @ v

    monkeypatch.setattr(adapters, "is_cupy", lambda _: True)
    monkeypatch.setattr(adapters, "library", lambda _: "cupy")
    A, v = as_operator(Matrix(), like=np.ones(6)), np.arange(6.0)
    for _ in range(3):
        np.testing.assert_allclose(A @ v, host @ v, atol=1e-14)
    assert len(conversions) == (kind != "csr")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("kind", ["sparse_sign", "countsketch", "fjlt"])
def test_sparse_sketches(cupy: Any, kind: str, dtype: str) -> None:
    V = lopsided(50, 4, dtype)
    here, there = (sketch(kind, 20, 50, like=like, rng=5) for like in (V, cupy.asarray(V)))
    tol = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose((there @ cupy.asarray(V)).get(), here @ V, atol=tol)
    np.testing.assert_allclose((there.H @ cupy.asarray(V[:20])).get(), here.H @ V[:20], atol=tol)
    np.testing.assert_allclose((there @ cupy.asarray(V[:, 0])).get(), here @ V[:, 0], atol=tol)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["newton", "sns", "kernel_sinkhorn", "cloud_newton"])
def test_sparse_plans(cupy: Any, solver: str, dtype: str) -> None:
    x, y = (RNG.random((60, 2)).astype(dtype) for _ in range(2))
    cost = ((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2)
    options: dict[str, Any] = {"reg": 0.002, "tol": 1e-3 if dtype == "float32" else 1e-8, "maxiter": 3000}
    solve = getattr(ot, solver)
    if solver == "cloud_newton":
        here = solve(ot.PointCloud(x, y), **options)
        there = solve(ot.PointCloud(cupy.asarray(x), cupy.asarray(y)), **options)
    else:
        here, there = solve(cost, **options), solve(cupy.asarray(cost), **options)
    assert there.converged
    assert isinstance(there.f, cupy.ndarray)
    np.testing.assert_allclose(there.value, here.value, rtol=1e-3 if dtype == "float32" else 1e-8)
    columns = to_host(there.plan.H @ cupy.ones(60, dtype=dtype))
    np.testing.assert_allclose(columns, np.full(60, 1 / 60), atol=2e-3 if dtype == "float32" else 1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "dot"])
def test_corners_of_the_fused_kernel(cupy: Any, metric: str, dtype: str) -> None:
    """More columns than one launch takes, rows of no mass, pairs left out, parts that end within a tile, a scale out of range."""
    tol = 1e-11 if dtype == "float64" else 1e-4
    for n, m, d in ((1, 1, 1), (3, 700, 8), (300, 257, 2)):
        x, y = (RNG.random((k, d)).astype(dtype) for k in (n, m))
        v, b = RNG.standard_normal((m, 17)).astype(dtype), RNG.standard_normal(m).astype(dtype)
        b[::2] = -np.inf
        here, there = (
            Pairs(f(x), f(y), exponential(metric, 2.0), engine=engine)
            for f, engine in ((np.asarray, "numpy"), (cupy.asarray, "cupy-fused"))
        )
        np.testing.assert_allclose(there.sum(cupy.asarray(v)).get(), here.sum(v), atol=tol * m)
        for masses in (b, np.full(m, -np.inf, dtype=dtype)):
            values, logs = there.softmax_sum(cupy.asarray(v), cupy.asarray(masses))
            expected, expected_logs = here.softmax_sum(v, masses)
            np.testing.assert_allclose(values.get(), expected, atol=10 * tol)
            np.testing.assert_allclose(logs.get(), expected_logs, atol=tol)
    z = RNG.random((40, 3)).astype(dtype)
    here, there = (
        Pairs(p, p, exponential(metric, 1.0), engine=engine, exclude_self=True)
        for p, engine in ((z, "numpy"), (cupy.asarray(z), "cupy-fused"))
    )
    one = np.ones((40, 1), dtype=dtype)
    np.testing.assert_allclose(there.sum(cupy.asarray(one)).get(), here.sum(one), atol=40 * tol)
    np.testing.assert_allclose(there.logsumexp().get(), here.logsumexp(), atol=tol)


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["cupy", "cupy-fused", "array"])
def test_a_scale_beyond_single_precision(cupy: Any, engine: str) -> None:
    x = (1e-17 * RNG.random((20, 2))).astype("float32")
    K = Pairs(cupy.asarray(x), cupy.asarray(x), gaussian(1e-17), engine=engine)
    wide = x.astype(float) * 1e17
    exact = np.exp(-0.5 * ((wide[:, None, :] - wide[None, :, :]) ** 2).sum(axis=2))
    np.testing.assert_allclose(K.sum(cupy.ones(20, dtype="float32")).get(), exact.sum(axis=1), rtol=1e-4)


@pytest.mark.gpu
def test_a_gpu_is_asked_every_ten_iterations(cupy: Any) -> None:
    G = RNG.standard_normal((80, 80))
    A, b = G @ G.T + np.eye(80), RNG.standard_normal(80)
    with count_transfers() as transfers:
        result = cg(cupy.asarray(A), cupy.asarray(b), rtol=1e-8)
    assert result.converged
    assert result.n_iter % 10 == 0
    assert transfers.n <= result.n_iter / 10 + 8
    np.testing.assert_allclose(result.x.get(), np.linalg.solve(A, b), atol=1e-5)

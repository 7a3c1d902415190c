"""Operators: every adapter against the dense product, the algebra of operators, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from xpsolve.backends.errors import BackendError, BreakdownError, InputError
from xpsolve.backends.operators import LinearOperator, as_operator
from xpsolve.backends.transfer import to_host

DTYPES = ["float32", "float64", "complex128"]


def matrix(dtype: str, shape: tuple[int, int] = (5, 4), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if dtype.startswith("c") else 0)
    A[np.abs(A) < 0.4] = 0.0
    return A.astype(dtype)


def check(op: LinearOperator, A: np.ndarray, make: Callable[..., Any] = np.asarray) -> None:
    """Compare every action of ``op`` with the dense matrix."""
    tol = {"rtol": 1e-4, "atol": 1e-5} if A.dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    u, v = matrix(A.dtype.name, (A.shape[0], 3), 1), matrix(A.dtype.name, (A.shape[1], 3), 2)
    for act, dense, columns in [(op, A, v), (op.H, A.conj().T, u), (op.T, A.T, u), (op.H.H, A, v), (op.T.T, A, v)]:
        assert act.shape == dense.shape
        for w in (columns, columns[:, 0].copy()):
            product = act @ make(w)
            assert type(product) is type(make(w))
            assert to_host(product).dtype == A.dtype
            np.testing.assert_allclose(to_host(product), dense @ w, **tol)
    assert to_host(op @ make(v[:, :0].copy())).shape == (A.shape[0], 0)
    op.check_adjoint(make(v[:, 0].copy()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_arrays(xp: Any, make: Any, dtype: str) -> None:
    A = matrix(dtype)
    check(as_operator(make(A), like=make(np.ones(4, dtype=dtype)), square=False), A, make)
    one = A[:1, :1].copy()
    check(as_operator(make(one), like=make(np.ones(1, dtype=dtype))), one, make)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "kind", [sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array, sp.coo_array, sp.dia_array]
)
def test_scipy_sparse(kind: Any, dtype: str) -> None:
    A = matrix(dtype)
    check(as_operator(kind(A), like=np.ones(4, dtype=dtype), square=False), A)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_torch_csr(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    A = matrix(dtype)
    op = as_operator(torch.tensor(A).to_sparse_csr(), like=torch.ones(4, dtype=getattr(torch, dtype)), square=False)
    check(op, A, lambda a: torch.tensor(a))
    with pytest.raises(BackendError, match="to_sparse_csr"):
        as_operator(torch.tensor(A).to_sparse_coo(), like=torch.ones(4, dtype=getattr(torch, dtype)), square=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scipy_operators(dtype: str) -> None:
    A = matrix(dtype)
    check(as_operator(spla.aslinearoperator(A), like=np.ones(4, dtype=dtype), square=False), A)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_pylops(dtype: str) -> None:
    pylops = pytest.importorskip("pylops")
    A = matrix(dtype)
    check(as_operator(pylops.MatrixMult(A, dtype=dtype), like=np.ones(4, dtype=dtype), square=False), A)


def test_a_function_is_a_square_operator(xp: Any, make: Any) -> None:
    op = as_operator(lambda v: 2.0 * v, like=make(np.ones(3)))
    assert op.shape == (3, 3)
    assert to_host(op @ make(np.eye(3))).tolist() == (2.0 * np.eye(3)).tolist()
    with pytest.raises(InputError, match="adjoint"):
        _ = op.H


@pytest.mark.parametrize("dtype", DTYPES)
def test_algebra(xp: Any, make: Any, dtype: str) -> None:
    A, B = matrix(dtype), matrix(dtype, (4, 5), 3)
    like = make(np.ones(4, dtype=dtype))
    a, b = as_operator(make(A), like=like, square=False), as_operator(make(B), like=like, square=False)
    check(a @ b, A @ B, make)
    check(b @ a, B @ A, make)
    check(a + a, A + A, make)
    check(a - 0.5 * a, A - (0.5 * A).astype(dtype), make)
    check(-a, -A, make)
    check(a / 4, A / A.dtype.type(4), make)
    check(np.float32(2) * a, A * A.dtype.type(2), make)
    if dtype == "complex128":
        check((1 + 2j) * a, (1 + 2j) * A, make)
    with pytest.raises(InputError, match="compose"):
        _ = a @ a
    with pytest.raises(InputError, match="add"):
        _ = a + b
    with pytest.raises(BackendError, match="@"):
        _ = a * make(np.ones(4, dtype=dtype))


def test_tags_survive_only_where_they_hold() -> None:
    op = LinearOperator((2, 2), lambda v: v, dtype=np.float64, tags={"symmetric", "positive"})
    assert (2 * op).tags == {"symmetric", "positive"}
    assert (-op).tags == {"symmetric"}
    assert (1j * op).tags == frozenset()
    assert (op + op).tags == {"symmetric", "positive"}
    assert (op @ op).tags == frozenset()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_wrong_adjoint_is_found(dtype: str) -> None:
    A = matrix(dtype, (4, 4))
    wrong = LinearOperator((4, 4), lambda v: A @ v, rmatvec=lambda u: A @ u, dtype=A.dtype)
    with pytest.raises(BreakdownError, match="adjoint"):
        wrong.check_adjoint(np.ones(4, dtype=dtype))
    if dtype == "complex128":
        unconjugated = LinearOperator((4, 4), lambda v: A @ v, rmatvec=lambda u: A.T @ u, dtype=A.dtype)
        with pytest.raises(BreakdownError, match="adjoint"):
            unconjugated.check_adjoint(np.ones(4, dtype=dtype))


def test_residuals_of_float32_systems_are_formed_in_float64(xp: Any, make: Any) -> None:
    rng = np.random.default_rng(4)
    A = rng.standard_normal((300, 300)).astype(np.float32)
    x = rng.standard_normal(300).astype(np.float32)
    b = (A.astype(float) @ x).astype(np.float32)
    residual = to_host(as_operator(make(A), like=make(b)).precise_residual(make(b), make(x)))
    exact = b - A.astype(float) @ x
    np.testing.assert_allclose(residual, exact, rtol=1e-6, atol=1e-12)


def returning(out: Any) -> LinearOperator:
    return LinearOperator((3, 3), lambda v: out, dtype=np.float64, name="my operator")


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.ones(4), InputError),
        (np.ones(3, dtype="float32"), InputError),
        ([1.0, 2.0, 3.0], BackendError),
        (None, BackendError),
    ],
)
def test_what_an_operator_returns_is_checked(out: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="my operator"):
        _ = returning(out) @ np.ones(3)


def test_bad_operators_are_refused() -> None:
    torch = pytest.importorskip("torch")
    b = np.ones(3)
    for bad, error, said in [
        (np.ones((3, 4)), InputError, r"A has shape \(3, 4\)"),
        (np.ones((2, 2)), InputError, r"expected \(3, 3\)"),
        (np.ones(3), InputError, "2-d"),
        (np.ones((3, 3), dtype="float32"), BackendError, "float32"),
        (np.full((3, 3), np.nan), InputError, "NaN|finite"),
        (sp.csr_matrix(np.full((3, 3), np.inf)), InputError, "NaN|finite"),
        (torch.ones((3, 3), dtype=torch.float64), BackendError, "torch"),
        ("A", BackendError, "str"),
    ]:
        with pytest.raises(error, match=said):
            as_operator(bad, like=b)
    with pytest.raises(BackendError, match="sparse matrix of numpy"):
        as_operator(sp.eye(3, format="csr"), like=torch.ones(3, dtype=torch.float64))
    with pytest.raises(InputError, match=r"cannot be applied to shape \(4,\)"):
        _ = as_operator(np.eye(3), like=b) @ np.ones(4)
    with pytest.raises(InputError, match="shape"):
        LinearOperator((3,), lambda v: v, dtype=np.float64)
    with pytest.raises(InputError, match="non-negative"):
        LinearOperator((-1, 2), lambda v: v, dtype=np.float64)

"""Linear operators: every adapter against the dense product, the algebra, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
import scipy.sparse.linalg as spla
from xpsolve.backends.errors import BackendError, BreakdownError, InputError
from xpsolve.backends.operators import LinearOperator, as_operator
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.linear import cg

# torch says once a process that its CSR tensors are young, and that it does not check them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Sparse CSR tensor support is in beta:UserWarning",
    "ignore:Sparse invariant checks:UserWarning",
    "ignore:the matrix subclass:PendingDeprecationWarning",
)

DTYPES = ("float32", "float64", "complex64", "complex128")
SHAPES = ((5, 5), (6, 4), (1, 1))


def matrix(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Random entries, about a third of them zero."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if "complex" in dtype else 0.0)
    return (a * (rng.random(shape) < 0.7)).astype(dtype)


def close(got: Any, want: np.ndarray) -> None:
    got = to_host(got)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    atol = 50 * np.finfo(want.dtype).eps * max(1.0, float(np.abs(want).max(initial=0.0)))
    np.testing.assert_allclose(got, want, rtol=0, atol=atol)


def assert_acts_like(op: LinearOperator, A: np.ndarray, make: Callable[[Any], Any], dtype: str | None = None) -> None:
    """``op``, its adjoint and its transpose act on one and several columns as the dense ``A`` does."""
    m, n = A.shape
    dtype = dtype or A.dtype.name
    assert op.shape == (m, n)
    for acting, dense in ((op, A), (op.H, A.conj().T), (op.T, A.T), (op.H.H, A), (op.T.T, A), (op.H.T, A.conj())):
        assert acting.shape == dense.shape
        for columns in ((), (1,), (3,), (0,)):
            v = (matrix((dense.shape[1], *columns), dtype, seed=1) + np.ones(1, dtype)).astype(dtype)
            close(acting @ make(v), dense @ v)


# ---- adapters


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dense(xp: Any, make: Any, dtype: str, shape: tuple[int, int]) -> None:
    A = matrix(shape, dtype)
    op = as_operator(make(A), like=make(np.ones(shape[1], dtype)), square=False)
    assert_acts_like(op, A, make)
    op.check_adjoint(make(np.ones(1, dtype)))


def numpy_kinds() -> dict[str, Callable[[np.ndarray], Any]]:
    arrays = {f.__name__: f for f in (sps.csr_array, sps.csc_array, sps.coo_array, sps.lil_array, sps.dok_array)}
    matrices = {f.__name__: f for f in (sps.csr_matrix, sps.csc_matrix, sps.coo_matrix, sps.dia_matrix)}

    def plain(A: np.ndarray) -> spla.LinearOperator:
        return spla.LinearOperator(
            A.shape, matvec=lambda v: A @ v, rmatvec=lambda u: A.conj().T @ u, dtype=A.dtype
        )  # columns one by one

    def pylops(A: np.ndarray) -> Any:
        return pytest.importorskip("pylops").MatrixMult(A, dtype=A.dtype)

    return {
        **arrays,
        **matrices,
        "aslinearoperator": spla.aslinearoperator,
        "LinearOperator": plain,
        "pylops": pylops,
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", numpy_kinds())
def test_sparse_matrices_and_operators_on_numpy(kind: str, dtype: str, shape: tuple[int, int]) -> None:
    A = matrix(shape, dtype)
    op = as_operator(numpy_kinds()[kind](A), like=np.ones(shape[1], dtype), square=False)
    assert_acts_like(op, A, np.asarray)


def torch_csr(A: np.ndarray) -> Any:
    torch = pytest.importorskip("torch")
    csr = sps.csr_array(A)
    return torch.sparse_csr_tensor(
        *(torch.asarray(a.copy()) for a in (csr.indptr, csr.indices, csr.data)), size=A.shape
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_csr(dtype: str, shape: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    A = matrix(shape, dtype)
    op = as_operator(torch_csr(A), like=torch.ones(shape[1], dtype=getattr(torch, dtype)), square=False)
    assert_acts_like(op, A, lambda v: torch.asarray(np.ascontiguousarray(v)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_entries_act_on_complex_vectors(xp: Any, make: Any, dtype: str) -> None:
    wide = {"float32": "complex64", "float64": "complex128"}[dtype]
    A = matrix((5, 5), dtype)
    kinds = {"numpy": [np.asarray, sps.csr_array], "torch": [make, torch_csr]}
    for kind in kinds.get(xp.__name__.rsplit(".", 1)[-1], [make]):
        op = as_operator(kind(A), like=make(np.ones(5, wide)))
        assert_acts_like(op, A.astype(wide), make, wide)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_callable(xp: Any, make: Any, dtype: str) -> None:
    A = matrix((4, 4), dtype)
    dense = make(A)
    op = as_operator(lambda v: dense @ v, like=make(np.ones(4, dtype)))
    for columns in ((), (3,), (0,)):
        v = matrix((4, *columns), dtype, seed=1)
        close(op @ make(v), A @ v)
    with pytest.raises(InputError, match=r"A has no adjoint; pass rmatvec"):
        _ = op.H
    with pytest.raises(InputError, match="no adjoint"):
        _ = (2.0 * op + op @ op).H


def test_operator_of_no_columns_and_one_row(xp: Any, make: Any) -> None:
    op = LinearOperator((1, 3), lambda v: xp.sum(v, keepdims=True), dtype=xp.float64)
    assert (op @ make(np.ones((3, 0)))).shape == (1, 0)
    close(op @ make(np.ones((3, 2))), np.full((1, 2), 3.0))


# ---- algebra


@pytest.mark.parametrize("dtype", DTYPES)
def test_algebra(xp: Any, make: Any, dtype: str) -> None:
    A, B, S = matrix((5, 4), dtype), matrix((4, 6), dtype, 1), matrix((5, 4), dtype, 2)
    like = make(np.ones(5, dtype))
    a, b, s = (as_operator(make(M), like=like, name=name, square=False) for M, name in ((A, "A"), (B, "B"), (S, "S")))
    real = np.dtype(dtype).type(0).real.dtype.type  # keeps the products below in the dtype under test
    for op, dense in [
        (a @ b, A @ B),
        ((a @ b).H, (A @ B).conj().T),
        (b.H @ a.H, (A @ B).conj().T),
        (a + s, A + S),
        (a - s, A - S),
        (-a, -A),
        (3 * a, A * real(3)),
        (a * 0.5, A * real(0.5)),
        (a / 4, A / real(4)),
        ((a - 2 * s) @ b, (A - S * real(2)) @ B),
        ((a / 3).T, A.T / real(3)),
    ]:
        assert_acts_like(op, dense, make)
    assert (a @ b).name == "A @ B"


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_multiples(xp: Any, make: Any, dtype: str) -> None:
    A = matrix((5, 4), dtype)
    a = as_operator(make(A), like=make(np.ones(4, dtype)), square=False)
    z = np.dtype(dtype).type(0.5 - 2j)
    assert_acts_like((0.5 - 2j) * a, z * A, make)
    assert_acts_like(a / (0.5 - 2j), A / z, make)
    assert_acts_like((a * 1j).H, (A * np.dtype(dtype).type(1j)).conj().T, make)
    (1j * a).check_adjoint(make(np.ones(1, dtype)))


def test_numbers_of_every_kind_keep_float32(make: Any, xp: Any) -> None:
    A = matrix((4, 4), "float32")
    a = as_operator(make(A), like=make(np.ones(4, np.float32)))
    for number in (
        2,
        True,
        2.0,
        np.float32(2),
        np.float64(2),
        np.int64(2),
        np.asarray(2.0),
        make(np.asarray(2.0)),
        2 + 0j,
    ):
        close((a * number) @ make(np.ones(4, np.float32)), A.sum(axis=1) * np.float32(complex(number).real))
    close((np.float64(2) * a) @ make(np.ones(4, np.float32)), A.sum(axis=1) * np.float32(2))
    close((np.asarray(2.0) * a) @ make(np.ones(4, np.float32)), A.sum(axis=1) * np.float32(2))


@pytest.mark.parametrize(
    ("factor", "error"),
    [
        (np.ones(4), BackendError),
        ([2.0], BackendError),
        ("2", BackendError),
        (None, BackendError),
        (np.nan, InputError),
        (np.inf, InputError),
    ],
    ids=repr,
)
def test_multiples_by_something_else(factor: Any, error: type[Exception]) -> None:
    a = as_operator(np.eye(4), like=np.ones(4))
    for multiply in (lambda: a * factor, lambda: factor * a, lambda: a / factor):
        with pytest.raises(error, match=r"^A can be multiplied"):
            multiply()


def test_operators_are_not_multiplied_by_star_nor_divided_by_zero() -> None:
    a = as_operator(np.eye(4), like=np.ones(4))
    with pytest.raises(BackendError, match="@"):
        a * a
    with pytest.raises(InputError, match="zero"):
        a / 0
    for other in (np.eye(4), 1.0, as_operator(np.eye(3), like=np.ones(3))):
        with pytest.raises(InputError, match=r"(?s)cannot add .* to LinearOperator\(A, shape=\(4, 4\)"):
            a + other
        with pytest.raises(InputError, match=r"(?s)cannot subtract .* from LinearOperator\(A, shape=\(4, 4\)"):
            a - other
    with pytest.raises(TypeError):
        np.ones(4) @ a


def test_tags_follow_the_algebra() -> None:
    a = LinearOperator((2, 2), lambda v: v, dtype=complex, rmatvec=lambda v: v, tags=["symmetric", "positive"])
    assert (2 * a).tags == (a + a).tags == a.H.tags == a.T.tags == {"symmetric", "positive"}
    assert (-a).tags == (a - a).tags == (0 * a).tags == {"symmetric"}
    assert (1j * a).tags == (a @ a).tags == frozenset()


def test_transpose_takes_several_columns_at_once() -> None:
    A, calls = matrix((5, 4), "complex128"), []

    def rmatmat(U: np.ndarray) -> np.ndarray:
        calls.append(U.shape)
        return A.conj().T @ U

    op = LinearOperator((5, 4), A.__matmul__, rmatvec=rmatmat, matmat=A.__matmul__, rmatmat=rmatmat, dtype=complex)
    U = matrix((5, 3), "complex128", 1)
    close(op.T @ U, A.T @ U)
    assert calls == [(5, 3)]


# ---- check_adjoint and precise residuals


@pytest.mark.parametrize("dtype", DTYPES)
def test_check_adjoint(xp: Any, make: Any, dtype: str) -> None:
    A = matrix((6, 4), dtype)
    like, dense = make(np.ones(1, dtype)), make(A)

    def checked(adjoint: np.ndarray) -> None:
        back = make(np.ascontiguousarray(adjoint))
        LinearOperator((6, 4), dense.__matmul__, rmatvec=back.__matmul__, dtype=dense.dtype).check_adjoint(like)

    checked(A.conj().T)
    wrong = [1.01 * A.T.conj(), -A.T.conj(), A.T.conj() + np.eye(4, 6)]
    if "complex" in dtype:
        wrong += [A.T, 1j * A.T.conj()]
    for adjoint in wrong:
        with pytest.raises(BreakdownError, match="rmatvec of A is not the adjoint"):
            checked(adjoint.astype(dtype))


def test_check_adjoint_sees_a_forgotten_conjugate_of_the_vector() -> None:
    """A map that is right for real vectors and wrong for complex ones."""
    A = matrix((4, 4), "complex128")
    op = LinearOperator((4, 4), A.__matmul__, rmatvec=lambda u: A.conj().T @ u.conj(), dtype=complex)
    with pytest.raises(BreakdownError):
        op.check_adjoint(np.ones(1, complex))
    taken = LinearOperator((4, 4), lambda v: A @ v.conj(), rmatvec=lambda u: A.conj().T @ u, dtype=complex)
    with pytest.raises(BreakdownError):
        taken.check_adjoint(np.ones(1, complex))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("columns", [(), (3,)])
def test_precise_residual_of_single_precision(xp: Any, make: Any, dtype: str, columns: tuple[int, ...]) -> None:
    """``b - A x`` that cancels to 1e-6 of ``b`` is right to single precision, not to 1e-6 of it."""
    A, x = matrix((40, 40), dtype), matrix((40, *columns), dtype, 1)
    wide = np.complex128 if dtype == "complex64" else np.float64
    b = (A.astype(wide) @ x.astype(wide) * (1 + 1e-6)).astype(dtype)
    truth = b.astype(wide) - A.astype(wide) @ x.astype(wide)
    made: list[Any] = [make(A)]
    if xp.__name__.endswith("numpy"):
        made += [sps.csr_array(A), sps.coo_matrix(A), sps.dia_array(A)]
    if xp.__name__.endswith("torch"):
        made += [torch_csr(A)]
    single = np.abs(b - A @ x - truth).max()
    for given in made:
        op = as_operator(given, like=make(b))
        for acting, factor in (
            (op, 1.0),
            (2.0 * op, 2.0),
            (op + op, 2.0),
            (op @ as_operator(make(np.eye(40, dtype=dtype)), like=make(b)), 1.0),
        ):
            residual = to_host(acting.precise_residual(make(b * np.float32(factor)), make(x)))
            assert residual.dtype == dtype
            error = np.abs(residual / factor - truth).max()
            assert error <= 1e-6 * np.abs(truth).max() < single


def test_residual_without_stored_entries_is_the_plain_one(xp: Any, make: Any) -> None:
    op = as_operator(lambda v: 2.0 * v, like=make(np.ones(3)))
    close(op.precise_residual(make(np.full(3, 7.0)), make(np.ones(3))), np.full(3, 5.0))


def test_complex_right_hand_side_of_a_single_precision_real_matrix(xp: Any, make: Any) -> None:
    """The recomputed residual must not lose the imaginary part."""
    A = np.diag(np.arange(1.0, 6.0)).astype(np.float32)
    b = matrix((5,), "complex64") + np.ones(5, np.complex64)
    result = cg(make(A), make(b), rtol=1e-6)
    np.testing.assert_allclose(to_host(result.x), b / np.diag(A), rtol=1e-5)


# ---- what is refused


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda v: v[:2], InputError, r"K returned shape \(2,\) .* expected shape \(3,\)"),
        (lambda v: v[:, None], InputError, r"K returned shape \(3, 1\)"),
        (lambda v: v.astype(np.float32), InputError, "K returned .* dtype float32 .* dtype float64"),
        (lambda v: v.tolist(), BackendError, r"K returned a list, expected an array of shape \(3,\)"),
        (lambda v: None, BackendError, "K returned a NoneType"),
        (lambda v: np.asmatrix(v), BackendError, "K returned a matrix"),
    ],
)
def test_wrong_return_is_refused_with_the_name(action: Any, error: type[Exception], words: str) -> None:
    op = LinearOperator((3, 3), action, rmatvec=action, dtype=np.float64, name="K")
    with pytest.raises(error, match=words):
        op @ np.ones(3)
    with pytest.raises(error, match=words.replace("K ", r"K\.H ", 1)):
        op.H @ np.ones(3)


def test_wrong_return_for_several_columns_is_refused() -> None:
    op = LinearOperator((3, 3), lambda v: v, matmat=lambda V: V[:, :1], dtype=np.float64, name="K")
    with pytest.raises(InputError, match=r"K returned shape \(3, 1\) .* shape \(3, 2\)"):
        op @ np.ones((3, 2))


def test_wrong_argument_of_a_product() -> None:
    op = as_operator(np.ones((3, 4)), like=np.ones(4), square=False)
    with pytest.raises(InputError, match=re.escape("A of shape (3, 4) cannot be applied to shape (3,)")):
        op @ np.ones(3)
    with pytest.raises(InputError, match=re.escape("shape (2, 2, 2)")):
        op @ np.ones((2, 2, 2))
    for other in ([1.0] * 4, None, 2.0, sps.eye_array(4)):
        with pytest.raises(BackendError, match="A can be applied to arrays"):
            op @ other
    with pytest.raises(InputError, match=re.escape("(3, 4) and (3, 4)")):
        op @ op


def test_matrices_that_do_not_fit(xp: Any, make: Any) -> None:
    like, other = make(np.ones(4)), ("numpy" if xp.__name__.endswith("torch") else "torch")
    foreign = pytest.importorskip(other).ones((4, 4))
    for A, error, words in [
        (foreign, BackendError, "several libraries in one call: K is"),
        (make(np.eye(4, dtype=np.float32)), BackendError, "K has dtype .*float32, the vector .*float64"),
        (make(np.eye(4, dtype=np.complex128)), BackendError, "K has dtype .*complex128, the vector .*float64"),
        (make(np.eye(4, dtype=np.int64)), BackendError, "K has dtype .*int64"),
        (make(np.ones((4, 3))), InputError, r"K has shape \(4, 3\), expected \(4, 4\)"),
        (make(np.ones(4)), InputError, r"K has shape \(4,\)"),
        (make(np.diag([1.0, np.nan, 1.0, 1.0])), InputError, "K contains NaN"),
        ([[1.0]], BackendError, "K is a list"),
    ]:
        with pytest.raises(error, match=words):
            as_operator(A, like=like, name="K")


def test_sparse_matrices_that_do_not_fit(xp: Any, make: Any) -> None:
    like = make(np.ones(4))
    wrong = [(torch_csr(np.eye(4)), "torch"), (sps.eye_array(4, format="csr"), "scipy"), (sps.eye_array(4), "scipy")]
    refused = 0
    for A, home in wrong:
        if xp.__name__.endswith(home.replace("scipy", "numpy")):
            assert as_operator(A, like=like).shape == (4, 4)
            continue
        refused += 1
        with pytest.raises(BackendError, match=f"K is a sparse matrix of {home}, the vector is"):
            as_operator(A, like=like, name="K")
    assert refused
    if not xp.__name__.endswith("numpy"):
        with pytest.raises(BackendError, match=r"K is a scipy.* operator and works on NumPy arrays"):
            as_operator(spla.aslinearoperator(np.eye(4)), like=like, name="K")


@pytest.mark.parametrize(
    ("A", "error", "words"),
    [
        (sps.csr_array(np.eye(4, dtype=np.float32)), BackendError, "K has dtype float32, the vector float64"),
        (sps.lil_array(np.diag([1.0, np.inf, 1.0, 1.0])), InputError, "K contains NaN"),
        (sps.coo_array(np.ones(4)), InputError, r"K has shape \(4,\), expected a 2-d"),
        (spla.aslinearoperator(np.eye(4, dtype=complex)), BackendError, "K has dtype complex128"),
        (spla.aslinearoperator(np.eye(3)), InputError, r"K has shape \(3, 3\), expected \(4, 4\)"),
    ],
    ids=["csr float32", "lil inf", "1-d", "complex operator", "small operator"],
)
def test_scipy_containers_that_do_not_fit(A: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        as_operator(A, like=np.ones(4), name="K")


def test_torch_layouts() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(BackendError, match=r"K has layout torch\.sparse_coo; convert it with \.to_sparse_csr"):
        as_operator(torch.eye(4).to_sparse_coo(), like=torch.ones(4), name="K")


@pytest.mark.parametrize("what", ["matvec", "rmatvec", "matmat", "rmatmat", "precise_matvec"])
def test_actions_must_be_callable(what: str) -> None:
    with pytest.raises(BackendError, match=rf"^{what} must be callable, got int"):
        LinearOperator((3, 3), **({"matvec": lambda v: v} | {what: 3}), dtype=np.float64)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="matvec must be callable, got None"):
        LinearOperator((3, 3), None, dtype=np.float64)  # type: ignore[arg-type]

"""The layer below the solvers: the same answer, the same errors and the same device on every library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xpsolve.backends import scatter
from xpsolve.backends.errors import BackendError, BreakdownError, InputError
from xpsolve.backends.linalg import cho_solve, cholesky, solve_triangular
from xpsolve.backends.namespace import array_namespace, device, library
from xpsolve.backends.random import Sampler
from xpsolve.backends.scatter import segment_sum
from xpsolve.backends.special import erf, gammaln, logsumexp, softmax
from xpsolve.backends.transfer import count_transfers, from_host, host_bool, host_float, to_host

Make = Callable[..., Any]
DTYPES = ["float32", "float64", "complex64", "complex128"]


def random_array(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        a = a + 1j * rng.standard_normal(shape)
    return a.astype(dtype)


def well_conditioned(n: int, dtype: str) -> np.ndarray:
    a = random_array((n, n), dtype)
    return (a @ a.conj().T + n * np.eye(n)).astype(dtype)


def assert_matches(actual: Any, desired: np.ndarray, like: Any, rtol: float | None = None) -> None:
    """Equal up to rounding, and of the library, dtype and device of ``like``."""
    assert type(actual) is type(like)
    assert actual.dtype == like.dtype
    assert device(actual) == device(like)
    host = to_host(actual)
    assert host.shape == desired.shape
    rtol = 200 * float(np.finfo(host.dtype).eps) if rtol is None else rtol
    np.testing.assert_allclose(
        host, desired, rtol=rtol, atol=rtol * max(1.0, float(np.max(np.abs(desired), initial=0)))
    )


# ---- linear algebra


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (1, 1), (5,), (5, 3), (5, 0)])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
def test_solve_triangular(
    xp: Any, make: Make, dtype: str, shape: tuple[int, ...], lower: bool, transpose: bool
) -> None:
    n = shape[0]
    full = well_conditioned(n, dtype)  # its other triangle must not be read
    b = random_array(shape, dtype, seed=1)
    expected = scipy.linalg.solve_triangular(full, b, lower=lower, trans="C" if transpose else "N")
    right = make(b)
    actual = solve_triangular(make(full), right, lower=lower, xp=xp, transpose=transpose)
    assert_matches(actual, expected, right)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 6])
def test_cholesky_and_cho_solve(xp: Any, make: Make, dtype: str, n: int) -> None:
    a = well_conditioned(n, dtype)
    matrix = make(a)
    L = cholesky(matrix, xp=xp)
    assert_matches(L, scipy.linalg.cholesky(a, lower=True), matrix)
    for shape in [(n,), (n, 2)]:
        b = make(random_array(shape, dtype, seed=2))
        assert_matches(cho_solve(L, b, xp=xp), scipy.linalg.solve(a, to_host(b), assume_a="pos"), b)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("bad", ["indefinite", "zero", "nan", "infinite", "late"])
def test_cholesky_breaks_down_alike(xp: Any, make: Make, dtype: str, bad: str) -> None:
    a = well_conditioned(4, dtype)
    if bad == "indefinite":
        a = -a
    elif bad == "zero":
        a = np.zeros_like(a)
    elif bad == "late":
        a[3, 3] = -1
    else:
        a[1, 1] = np.nan if bad == "nan" else np.inf
    with pytest.raises(BreakdownError, match="not positive definite"):
        cholesky(make(a), xp=xp)


def test_cholesky_takes_one_transfer(xp: Any, make: Make) -> None:
    a = make(well_conditioned(3, "float64"))
    with count_transfers() as transfers:
        L = cholesky(a, xp=xp)
        cho_solve(L, a, xp=xp)
    assert transfers.n == 1


def test_other_errors_are_no_breakdown() -> None:
    from xpsolve.backends import linalg

    with pytest.raises(RuntimeError, match="out of memory"), linalg._breakdown("not this"):
        raise RuntimeError("out of memory")


def test_singular_triangle(xp: Any, make: Make) -> None:
    """NumPy and the generic route find the zero; torch and CuPy return what is not finite, as documented."""
    singular, b = make(np.asarray([[0.0, 0.0], [1.0, 1.0]])), make(np.ones(2))
    if library(xp) in {"torch", "cupy"}:
        assert not np.isfinite(to_host(solve_triangular(singular, b, lower=True, xp=xp))).all()
    else:
        with pytest.raises(BreakdownError, match="L is singular"):
            solve_triangular(singular, b, lower=True, xp=xp)


def test_linalg_names_bad_input(xp: Any, make: Make) -> None:
    square, b = make(np.eye(3)), make(np.ones(3))
    with pytest.raises(InputError, match=r"L has shape \(2, 3\), expected a square"):
        solve_triangular(make(np.ones((2, 3))), b, lower=True, xp=xp)
    with pytest.raises(InputError, match=r"A has shape \(3,\)"):
        cholesky(b, xp=xp)
    with pytest.raises(InputError, match=r"b has shape \(2,\), expected 3 rows"):
        cho_solve(square, make(np.ones(2)), xp=xp)
    with pytest.raises(BackendError, match=r"b has dtype .*float32"):
        cho_solve(square, make(np.ones(3, dtype=np.float32)), xp=xp)
    with pytest.raises(BackendError, match=r"A has dtype .*int64"):
        cholesky(make(np.eye(3, dtype=np.int64)), xp=xp)


# ---- sums over groups


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(0, 40),
    k=st.integers(1, 12),
    r=st.sampled_from([None, 0, 1, 3]),
    dtype=st.sampled_from(DTYPES),
    ids_dtype=st.sampled_from(["int64", "int32", "uint8"]),
    block=st.sampled_from([1, 50, 2**20]),
    seed=st.integers(0, 2**16),
)
def test_segment_sum_is_add_at(
    xp: Any, make: Make, n: int, k: int, r: int | None, dtype: str, ids_dtype: str, block: int, seed: int
) -> None:
    data = random_array((n,) if r is None else (n, r), dtype, seed)
    ids = np.random.default_rng(seed).integers(0, k, n).astype(ids_dtype)
    expected = np.zeros((k, *data.shape[1:]), dtype=np.complex128 if data.dtype.kind == "c" else np.float64)
    np.add.at(expected, ids, data)
    rows = xp.reshape(make(data), data.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scatter, "_BLOCK", block)
        actual = segment_sum(rows, make(ids), k, xp=xp)
    assert_matches(actual, expected, rows)


def test_segment_sum_of_nothing(xp: Any, make: Make) -> None:
    none, ids = make(np.zeros(0)), make(np.zeros(0, dtype=np.int64))
    assert to_host(segment_sum(none, ids, 3, xp=xp)).tolist() == [0.0, 0.0, 0.0]
    assert tuple(segment_sum(none, ids, 0, xp=xp).shape) == (0,)


def test_segment_sum_keeps_a_nan_in_its_segment(xp: Any, make: Make) -> None:
    data = make(np.asarray([1.0, np.nan, np.inf, 2.0]))
    out = to_host(segment_sum(data, make(np.asarray([0, 1, 2, 0])), 4, xp=xp))
    np.testing.assert_array_equal(out, [3.0, np.nan, np.inf, 0.0])


def test_segment_sum_leaves_its_input_alone(xp: Any, make: Make) -> None:
    data, ids = make(np.ones((3, 2))), make(np.asarray([0, 1, 0]))
    segment_sum(data, ids, 2, xp=xp)
    assert to_host(data).tolist() == [[1.0, 1.0]] * 3
    assert to_host(ids).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("data", "ids", "k", "error", "message"),
    [
        (np.ones(3), np.asarray([0, 1, 3]), 3, InputError, r"ids has entries outside 0 \.\. 2"),
        (np.ones(3), np.asarray([0, -1, 1]), 3, InputError, "ids has entries outside"),
        (np.ones(1), np.asarray([0]), 0, InputError, "ids has entries outside"),
        (np.ones(3), np.ones(3), 3, InputError, "ids has dtype .*float64, expected integers"),
        (np.ones(3), np.ones(3, dtype=bool), 3, InputError, "ids has dtype .*bool"),
        (np.ones(3), np.asarray([0, 1]), 3, InputError, r"ids has shape \(2,\), expected \(3,\)"),
        (np.ones(3), np.zeros((3, 1), dtype=np.int64), 3, InputError, r"ids has shape \(3, 1\)"),
        (np.ones((1, 1, 1)), np.asarray([0]), 1, InputError, r"data has shape \(1, 1, 1\)"),
        (np.ones(1), np.asarray([0]), -1, InputError, "k must be at least 0"),
        (np.ones(1), np.asarray([0]), 1.5, BackendError, "k must be an integer"),
        (np.asarray([1]), np.asarray([0]), 1, BackendError, "data has dtype .*int64"),
    ],
)
def test_segment_sum_names_bad_input(
    xp: Any, make: Make, data: np.ndarray, ids: np.ndarray, k: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        segment_sum(make(data), make(ids), k, xp=xp)


# ---- special functions

ERF_POINTS = [1e-300, 1e-8, 0.46875, 0.46876, 0.5, 1.0, 2.4999, 2.5, 3.9999, 4.0, 5.0, 5.9, 6.0, 30.0, np.inf]
GAMMALN_POINTS = [1e-300, 1e-10, 0.5, 1.0, 1 + 1e-9, 1.5, 2.0, 2 - 1e-9, 2.7, 7.999999, 8.0, 10.0, 171.0, 1e10, 1e300]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf_against_mpmath(xp: Any, make: Make, dtype: str) -> None:
    points = np.asarray([0.0, *ERF_POINTS, *(-p for p in ERF_POINTS)]).astype(dtype)
    expected = np.asarray([float(mpmath.erf(float(p))) for p in points])
    x = make(points)
    eps = float(np.finfo(dtype).eps)
    actual = erf(x, xp=xp)
    assert actual.dtype == x.dtype
    np.testing.assert_allclose(to_host(actual), expected, rtol=4 * eps, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gammaln_against_mpmath(xp: Any, make: Make, dtype: str) -> None:
    limit = float(np.finfo(dtype).max) / 1e3
    points = np.asarray([p for p in GAMMALN_POINTS if 1 / limit < p < limit]).astype(dtype)
    with mpmath.workdps(40):
        expected = np.asarray([float(mpmath.loggamma(mpmath.mpf(float(p))).real) for p in points])
    x = make(points)
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    actual = gammaln(x, xp=xp)
    assert actual.dtype == x.dtype
    np.testing.assert_allclose(to_host(actual), expected, rtol=tolerance, atol=tolerance)
    assert to_host(gammaln(make(np.asarray([np.inf])), xp=xp)).tolist() == [np.inf]


def test_special_functions_pass_nan_on(xp: Any, make: Make) -> None:
    x = make(np.asarray([np.nan, 1.0]))
    assert np.isnan(to_host(erf(x, xp=xp))).tolist() == [True, False]
    assert np.isnan(to_host(gammaln(x, xp=xp))).tolist() == [True, False]
    assert np.isnan(to_host(softmax(x, axis=0, xp=xp))).any()
    assert np.isnan(to_host(logsumexp(x, axis=0, xp=xp)))


@pytest.mark.parametrize("function", [erf, gammaln, lambda x, xp: softmax(x, axis=0, xp=xp)])
def test_special_functions_refuse_integers(xp: Any, make: Make, function: Callable[..., Any]) -> None:
    with pytest.raises(BackendError, match=r"x has dtype .*int64"):
        function(make(np.asarray([1, 2])), xp=xp)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_and_logsumexp(xp: Any, make: Make, dtype: str, axis: int) -> None:
    a = (1000 + 10 * random_array((4, 3), "float64")).astype(dtype)
    a[1, 2] = -np.inf
    x = make(a)
    assert_matches(softmax(x, axis=axis, xp=xp), scipy.special.softmax(a.astype(float), axis=axis), x, rtol=None)
    assert_matches(logsumexp(x, axis=axis, xp=xp), scipy.special.logsumexp(a.astype(float), axis=axis), x)


def test_slices_of_minus_infinity(xp: Any, make: Make) -> None:
    x = make(np.asarray([[-np.inf, -np.inf], [0.0, -np.inf]]))
    assert to_host(softmax(x, axis=1, xp=xp)).tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert to_host(logsumexp(x, axis=1, xp=xp)).tolist() == [-np.inf, 0.0]


# ---- seeded sampling

DRAWS = {
    "normal": lambda s: s.normal((7, 2)),
    "uniform": lambda s: s.uniform((5,), -2.0, 3.0),
    "integers": lambda s: s.integers(-4, 9, (6,)),
    "permutation": lambda s: s.permutation(11),
    "choice": lambda s: s.choice(20, 6),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sampler_streams_are_the_same_everywhere(xp: Any, dtype: str) -> None:
    here, plain = Sampler(7, xp=xp, dtype=getattr(xp, dtype)), Sampler(7, xp=np, dtype=np.dtype(dtype))
    for name, draw in DRAWS.items():  # one stream: each draw continues where the one before stopped
        mine, reference = to_host(draw(here)), draw(plain)
        assert mine.dtype == reference.dtype == (dtype if name in {"normal", "uniform"} else np.int64)
        np.testing.assert_array_equal(mine, reference)


def test_sampler_draws_what_it_says() -> None:
    s = Sampler(0, xp=np)
    assert sorted(s.permutation(5).tolist()) == [0, 1, 2, 3, 4]
    assert len(set(s.choice(9, 9).tolist())) == 9
    assert set(s.integers(2, 4, (100,)).tolist()) == {2, 3}
    u = s.uniform((1000,), 2.0, 3.0)
    assert 2.0 <= u.min() < u.max() < 3.0


@pytest.mark.parametrize("kind", ["generator", "seed_sequence", "bit_generator"])
def test_sampler_takes_all_kinds_of_seed(kind: str) -> None:
    seeds = {
        "generator": np.random.default_rng(3),
        "seed_sequence": np.random.SeedSequence(3),
        "bit_generator": np.random.PCG64(3),
    }
    expected = Sampler(3, xp=np).normal((4,))
    np.testing.assert_array_equal(Sampler(seeds[kind], xp=np).normal((4,)), expected)


# ---- which library


def test_mixed_libraries_are_named() -> None:
    strict, torch = pytest.importorskip("array_api_strict"), pytest.importorskip("torch")
    arrays = {"numpy": np.ones(2), "array_api_strict": strict.ones(2), "torch": torch.ones(2)}
    for one, a in arrays.items():
        for other, b in arrays.items():
            if one != other:
                with pytest.raises(BackendError, match=f"A is {one}, b is {other}"):
                    array_namespace(A=a, n=3, M=None, b=b)


class _Coo:
    """Stands for pydata's sparse arrays, which do have a namespace."""

    __module__ = "sparse.numba_backend._coo.core"

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return np


NOT_ARRAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "matrix": (lambda: np.asmatrix(np.eye(2)), "np.matrix is not supported"),
    "masked": (lambda: np.ma.masked_array(np.ones(2), [True, False]), "masked arrays are not supported"),
    "object": (lambda: np.asarray([1, None]), "its dtype is object"),
    "text": (lambda: np.asarray(["a"]), "its dtype is <U1"),
    "list": (lambda: [1.0, 2.0], "convert it to an array first"),
    "tuple": (lambda: (1.0, 2.0), "convert it to an array first"),
    "scipy sparse": (lambda: scipy.sparse.eye_array(2), "sparse containers"),
    "scipy sparse matrix": (lambda: scipy.sparse.csr_matrix(np.eye(2)), "sparse containers"),
    "pydata sparse": (lambda: _Coo(), "sparse containers"),
    "text scalar": (lambda: "abc", "expected an array"),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("kind", NOT_ARRAYS)
def test_what_is_no_array_is_refused(kind: str) -> None:
    build, message = NOT_ARRAYS[kind]
    with pytest.raises(BackendError, match=message) as caught:
        array_namespace(A=np.eye(2), b=build())
    assert str(caught.value).startswith("b is a ")


def test_torch_sparse_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(BackendError, match="sparse containers"):
        array_namespace(A=torch.eye(2).to_sparse())


def test_no_array_at_all() -> None:
    with pytest.raises(BackendError, match="no array among the arguments x, y"):
        array_namespace(x=None, y=1.0)


# ---- transfers


def test_transfers_are_counted(xp: Any, make: Make) -> None:
    x = make(np.asarray([1.0, 2.0]))
    with count_transfers() as transfers:
        assert host_float(xp.sum(x)) == 3.0
        assert transfers.n == 1
        assert host_bool(xp.all(x > 0)) is True
        assert transfers.n == 2
        host = to_host(x)
        np.testing.assert_array_equal(host, [1.0, 2.0])
        assert transfers.n == (2 if library(xp) == "numpy" else 3)  # NumPy arrays are on the host already
        back = from_host(host, like=x, xp=xp)
        assert transfers.n == (2 if library(xp) == "numpy" else 3)  # the way in waits for nothing
    assert_matches(back, host, x)
    host_float(xp.sum(x))
    assert transfers.n == (2 if library(xp) == "numpy" else 3), "counted after the end"


def test_counts_nest() -> None:
    """Counters that happen to agree are still two counters."""
    one = np.asarray(1.0)
    with count_transfers() as outer:
        with count_transfers() as inner:
            host_float(one)
        assert (outer.n, inner.n) == (1, 1)
        host_float(one)
        assert (outer.n, inner.n) == (2, 1)
        with count_transfers() as second:
            host_float(one)
    assert (outer.n, inner.n, second.n) == (3, 1, 1)


def test_a_counter_ends_with_an_error() -> None:
    with pytest.raises(KeyError), count_transfers() as transfers:
        raise KeyError
    host_float(np.asarray(1.0))
    assert transfers.n == 0


@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "int64", "bool"])
def test_round_trip_keeps_dtype(xp: Any, make: Make, dtype: str) -> None:
    a = np.asarray([[0, 1], [2, 3]]).astype(dtype)
    like = make(np.ones(1))
    there = from_host(a, like=like, xp=xp)
    assert type(there) is type(like)
    back = to_host(there)
    assert back.dtype == a.dtype
    np.testing.assert_array_equal(back, a)


def test_to_host_of_torch_views() -> None:
    """Tensors that wait for a gradient, or for a conjugation, have no direct NumPy view."""
    torch = pytest.importorskip("torch")
    z = torch.asarray([1 + 2j, 3 - 1j])
    np.testing.assert_array_equal(to_host(z.conj()), [1 - 2j, 3 + 1j])
    np.testing.assert_array_equal(to_host(z.conj().imag), [-2.0, 1.0])
    np.testing.assert_array_equal(to_host(torch.ones(2, requires_grad=True)), [1.0, 1.0])


# ---- devices: array_api_strict has several, and mixes none


@pytest.fixture
def strict() -> Any:
    return pytest.importorskip("array_api_strict")


def test_mixed_devices_are_named(strict: Any) -> None:
    here = strict.ones(2)
    there = strict.ones(2, device=strict.Device("device1"))
    with pytest.raises(BackendError, match=r"A on .*CPU_DEVICE.*, b on .*device1.*; move them to one device"):
        array_namespace(A=here, b=there)


@pytest.mark.parametrize(("name", "dtype"), [("device1", "float64"), ("device1", "float32"), ("no_float64", "float32")])
def test_results_stay_on_the_device(strict: Any, name: str, dtype: str) -> None:
    where = strict.Device(name)

    def put(a: np.ndarray) -> Any:
        return strict.asarray(a, dtype=getattr(strict, a.dtype.name), device=where)

    a, b = put(well_conditioned(3, dtype)), put(random_array((3,), dtype))
    L = cholesky(a, xp=strict)
    ids = put(np.asarray([0, 1, 0]))
    results = {
        "cholesky": L,
        "solve_triangular": solve_triangular(L, b, lower=True, xp=strict, transpose=True),
        "cho_solve": cho_solve(L, b, xp=strict),
        "segment_sum": segment_sum(a, ids, 2, xp=strict),
        "logsumexp": logsumexp(a, axis=0, xp=strict),
        "softmax": softmax(a, axis=0, xp=strict),
        "gammaln": gammaln(strict.abs(b), xp=strict),
        "erf": erf(b, xp=strict),
        "Sampler": Sampler(0, xp=strict, dtype=b.dtype, device=where).normal((2,)),
        "from_host": from_host(np.ones(2, dtype=dtype), like=b, xp=strict),
    }
    assert {key for key, value in results.items() if value.device != where} == set()
    assert {key for key, value in results.items() if value.dtype != b.dtype} == set()
    assert Sampler(0, xp=strict, device=where).permutation(3).device == where
    assert all(isinstance(to_host(value), np.ndarray) for value in results.values())

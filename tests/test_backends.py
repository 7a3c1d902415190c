"""The small rooms of the backend layer: linear algebra, segment sums, special functions, sampling, namespaces, transfers."""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import mpmath
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, BreakdownError, InputError
from xpsolve.backends.linalg import cho_solve, cholesky, solve_triangular
from xpsolve.backends.namespace import array_namespace
from xpsolve.backends.random import Sampler
from xpsolve.backends.scatter import segment_sum
from xpsolve.backends.special import _erf, _gammaln, erf, gammaln, logsumexp, softmax
from xpsolve.backends.transfer import count_transfers, from_host, host_bool, host_float, to_host

# -- linear algebra --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("n", [1, 7])
def test_triangular_solves_and_factors(xp: Any, make: Any, n: int, dtype: str) -> None:
    rng = np.random.default_rng(n)
    G = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if dtype.startswith("c") else 0)
    H = (G @ G.conj().T + n * np.eye(n)).astype(dtype)
    tol = 1e-4 if dtype == "float32" else 1e-12
    L = cholesky(make(H), xp=xp)
    host = to_host(L)
    assert host.dtype == dtype
    np.testing.assert_allclose(host @ host.conj().T, H, rtol=tol, atol=tol)
    for b in (rng.standard_normal(n).astype(dtype), rng.standard_normal((n, 3)).astype(dtype)):
        for matrix, lower in ((host, True), (host.conj().T.copy(), False)):
            for adjoint in (False, True):
                z = solve_triangular(make(matrix), make(b), lower=lower, adjoint=adjoint, xp=xp)
                assert type(z) is type(make(b))
                A = matrix.conj().T if adjoint else matrix
                np.testing.assert_allclose(A @ to_host(z), b, rtol=tol, atol=tol)
        np.testing.assert_allclose(H @ to_host(cho_solve(L, make(b), xp=xp)), b, rtol=tol, atol=10 * tol)


def test_a_triangular_solve_ignores_the_other_triangle(xp: Any, make: Any) -> None:
    A = np.asarray([[2.0, 7.0], [1.0, 1.0]])
    z = solve_triangular(make(A), make(np.asarray([2.0, 3.0])), lower=True, xp=xp)
    np.testing.assert_allclose(to_host(z), [1.0, 2.0])


@pytest.mark.parametrize("bad", [[[1.0, 2.0], [2.0, 1.0]], [[0.0]], [[-1.0]]])
def test_an_indefinite_matrix_breaks_down_the_same_way_everywhere(xp: Any, make: Any, bad: Any) -> None:
    with pytest.raises(BreakdownError, match="positive definite"):
        cholesky(make(np.asarray(bad)), xp=xp)


def test_linear_algebra_names_what_is_wrong(xp: Any, make: Any) -> None:
    square, b = make(np.eye(3)), make(np.ones(3))
    for L, rhs, name, error in [
        (make(np.ones((3, 2))), b, "L", InputError),
        (make(np.ones(3)), b, "L", InputError),
        (make(np.eye(3, dtype=np.int64)), b, "L", BackendError),
        (square, make(np.ones(4)), "b", InputError),
        (square, make(np.ones((3, 1, 1))), "b", InputError),
        (square, make(np.ones(3, dtype="float32")), "b", BackendError),
    ]:
        with pytest.raises(error, match=rf"\b{name}\b"):
            solve_triangular(L, rhs, lower=True, xp=xp)
    for A, error in [(make(np.ones((3, 2))), InputError), (make(np.eye(3, dtype=np.int64)), BackendError)]:
        with pytest.raises(error, match=r"\bA\b"):
            cholesky(A, xp=xp)
    with pytest.raises(BreakdownError):
        cholesky(make(np.full((2, 2), np.nan)), xp=xp)
    for function in (erf, gammaln):
        with pytest.raises(BackendError, match=r"\bx\b"):
            function(make(np.ones(2, dtype=np.int64)), xp=xp)
    for function in (softmax, logsumexp):
        with pytest.raises(BackendError, match=r"\bx\b"):
            function(make(np.ones(2, dtype=np.int64)), axis=0, xp=xp)


# -- segment sums ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 60), k=st.integers(1, 9), r=st.integers(1, 3), seed=st.integers(0, 2**16))
@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch"])
def test_segment_sum_is_scatter_add(name: str, n: int, k: int, r: int, seed: int) -> None:
    xp = array_api_compat.array_namespace(pytest.importorskip(name).zeros(1))
    rng = np.random.default_rng(seed)
    data, ids = rng.standard_normal((n, r)), rng.integers(0, k, n)
    expected = np.zeros((k, r))
    np.add.at(expected, ids, data)
    out = segment_sum(xp.asarray(data), xp.asarray(ids), k, xp=xp)
    np.testing.assert_allclose(to_host(out), expected, atol=1e-12)
    one = segment_sum(xp.asarray(data[:, 0].copy()), xp.asarray(ids), k, xp=xp)
    np.testing.assert_allclose(to_host(one), expected[:, 0], atol=1e-12)


def test_segment_sum_of_complex_and_float32(xp: Any, make: Any) -> None:
    ids = make(np.asarray([1, 1, 0]))
    out = to_host(segment_sum(make(np.asarray([1 + 2j, 3j, 5.0])), ids, 3, xp=xp))
    assert out.tolist() == [5.0, 1 + 5j, 0.0]
    assert to_host(segment_sum(make(np.ones(3, dtype="float32")), ids, 2, xp=xp)).dtype == np.float32


def test_segment_sum_names_what_is_wrong() -> None:
    xp, data, ids = array_namespace(x=np.ones(1)), np.ones(3), np.asarray([0, 1, 2])
    for bad, k, error in [
        (ids.astype(float), 3, BackendError),
        (ids[:2], 3, InputError),
        (ids, 2, InputError),
        (ids - 1, 3, InputError),
    ]:
        with pytest.raises(error, match="ids"):
            segment_sum(data, bad, k, xp=xp)
    with pytest.raises(InputError, match="k"):
        segment_sum(data, ids, -1, xp=xp)
    with pytest.raises(InputError, match="data"):
        segment_sum(np.ones((3, 1, 1)), ids, 3, xp=xp)


# -- special functions -----------------------------------------------------------------------------------------------

ERF = [-30.0, -2.0, -1e-300, 0.0, 1e-8, 0.5, 1.0, 2.9999, 3.0, 3.5, 5.0, 6.0, 40.0, math.inf]
GAMMALN = [1e-300, 1e-10, 0.3, 0.5, 1.0, 1 + 1e-9, 1.5, 2.0, 3.25, 7.999, 8.0, 10.0, 171.0, 1e10, 1e300]


def test_erf_and_gammaln_against_mpmath(xp: Any, make: Any) -> None:
    expected = [float(mpmath.erf(x)) for x in ERF]
    np.testing.assert_allclose(to_host(erf(make(np.asarray(ERF)), xp=xp)), expected, rtol=2e-15)
    expected = [float(mpmath.loggamma(x)) for x in GAMMALN]
    np.testing.assert_allclose(to_host(gammaln(make(np.asarray(GAMMALN)), xp=xp)), expected, rtol=2e-15, atol=2e-14)


def test_generic_formulas_keep_float32() -> None:
    xp = pytest.importorskip("array_api_strict")
    for generic, native, points in ((_erf, mpmath.erf, ERF[:-1]), (_gammaln, mpmath.loggamma, GAMMALN[1:-2])):
        x = np.asarray(points, dtype=np.float32)
        out = to_host(generic(xp.asarray(x), xp))
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, [float(native(float(t))) for t in x], rtol=1e-6, atol=5e-6)


def test_softmax_and_logsumexp_of_nothing(xp: Any, make: Any) -> None:
    x = np.asarray([[-math.inf, -math.inf], [1e4, 1e4 + 1.0]])
    weights = to_host(softmax(make(x), axis=1, xp=xp))
    assert weights[0].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(weights[1], [1 / (1 + math.e), math.e / (1 + math.e)], rtol=1e-12)
    np.testing.assert_allclose(to_host(logsumexp(make(x), axis=1, xp=xp)), [-math.inf, 1e4 + math.log(1 + math.e)])


# -- sampling --------------------------------------------------------------------------------------------------------


def test_one_seed_is_one_stream_on_every_library(xp: Any) -> None:
    ours, host = Sampler(7, xp=xp), Sampler(7, xp=array_namespace(x=np.ones(1)))
    for draw in ("normal", "uniform"):
        assert np.array_equal(to_host(getattr(ours, draw)((3, 2))), getattr(host, draw)((3, 2)))
    assert np.array_equal(to_host(ours.integers(0, 9, (5,))), host.integers(0, 9, (5,)))
    assert np.array_equal(to_host(ours.permutation(6)), host.permutation(6))
    assert np.array_equal(to_host(ours.choice(9, 4)), host.choice(9, 4))
    assert Sampler(np.random.default_rng(1), xp=xp, dtype=xp.float32).normal((2,)).dtype == xp.float32


# -- namespaces, devices, transfers ----------------------------------------------------------------------------------


def test_libraries_do_not_mix_and_the_message_names_both() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(BackendError, match=r"x is numpy, y is torch"):
        array_namespace(x=np.ones(2), y=torch.ones(2))


@pytest.mark.parametrize(
    "bad",
    [[1.0, 2.0], (1.0,), np.matrix([[1.0]]), np.ma.masked_array([1.0]), scipy.sparse.eye(3), "x", np.float64(1.0)],
    ids=lambda a: type(a).__name__,
)
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_what_is_no_array_is_refused_by_name(bad: Any) -> None:
    with pytest.raises(BackendError, match="points"):
        array_namespace(points=bad)


def test_devices_do_not_mix_and_results_stay_on_theirs() -> None:
    strict = pytest.importorskip("array_api_strict")
    here, there = strict.Device("CPU_DEVICE"), strict.Device("device1")
    a, b = strict.asarray([[4.0]], device=here), strict.asarray([[4.0]], device=there)
    with pytest.raises(BackendError, match=r"different devices.*device1"):
        array_namespace(a=a, b=b)
    results = [
        cholesky(b, xp=strict),
        solve_triangular(b, b, lower=True, xp=strict),
        segment_sum(b, strict.asarray([0], device=there), 1, xp=strict),
        erf(b, xp=strict),
        gammaln(b, xp=strict),
        softmax(b, axis=1, xp=strict),
        Sampler(0, xp=strict, device=there).normal((2,)),
        from_host(np.ones(2), like=b, xp=strict),
    ]
    assert all(array_api_compat.device(r) == there for r in results)


def test_transfers_are_counted_and_counts_nest(xp: Any, make: Any) -> None:
    x = make(np.asarray(1.5))
    with count_transfers() as outer:
        assert host_float(x) == 1.5
        with count_transfers() as inner:
            assert host_bool(x > 1.0)
            to_host(make(np.ones(2)))
        host_float(x)
    # What is on the host already need not move.
    moved = 0 if array_api_compat.is_numpy_namespace(xp) else 1
    assert inner.n == 1 + moved
    assert outer.n == inner.n + 2

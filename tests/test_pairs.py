"""Reductions over pairs: one table of formulas, checked on every engine against direct float64 differences."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xpsolve.backends.errors import BackendError, InputError
from xpsolve.backends.pairs import (
    Kernel,
    Pairs,
    biweight,
    cauchy,
    epanechnikov,
    exponential,
    gaussian,
    kernel_sum,
    laplace,
    logsumexp,
    matern,
    nearest,
    tophat,
    triangle,
    triweight,
)
from xpsolve.backends.transfer import to_host

KERNELS = {
    "gaussian": gaussian(0.3),
    "laplace": laplace(0.4),
    "matern12": matern(0.4, 0.5),
    "matern32": matern(0.4, 1.5),
    "matern52": matern(0.4, 2.5),
    "cauchy": cauchy(0.3),
    "epanechnikov": epanechnikov(0.7),
    "biweight": biweight(0.7),
    "triweight": triweight(0.7),
    "triangle": triangle(0.7),
    "tophat": tophat(0.5),
    "attention": exponential("dot", -2.0),
    "cost": exponential("cityblock", 3.0),
    "user": exponential(lambda x, y: abs(x[:, 0][:, None] - y[:, 0][None, :]), 2.0),
}


def direct(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> np.ndarray:
    """The kernel matrix by direct differences in float64, written without the package's profiles."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    difference = x[:, None, :] - y[None, :, :]
    metric = kernel.metric
    if callable(metric):
        t = metric(x, y)
    elif metric == "dot":
        t = x @ y.T
    elif metric == "cityblock":
        t = np.abs(difference).sum(axis=2)
    else:
        t = (difference**2).sum(axis=2)
        t = np.sqrt(t) if metric == "euclidean" else t
    t = t * kernel.scale
    inside = np.maximum(1 - t, 0)
    return {
        "exp": lambda: np.exp(-t),
        "matern32": lambda: (1 + t) * np.exp(-t),
        "matern52": lambda: (1 + t + t**2 / 3) * np.exp(-t),
        "cauchy": lambda: 1 / (1 + t),
        "tophat": lambda: np.where(t < 1, 1.0, 0.0),
        "triangle": lambda: inside,
        "biweight": lambda: inside**2,
        "triweight": lambda: inside**3,
    }[kernel.profile]()


def log_sum(K: np.ndarray, b: np.ndarray) -> np.ndarray:
    top = b[np.isfinite(b)].max()
    with np.errstate(divide="ignore"):
        return np.log(K @ np.exp(b - top)) + top


@pytest.fixture
def cloud() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    x, y = rng.random((130, 3)), rng.random((201, 3))
    y[:5] = x[:5]  # coincident points
    b = rng.standard_normal(201)
    b[7] = -math.inf
    return x, y, rng.standard_normal((201, 2)), b


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("engine", ["auto", "numpy", "array", "stored", "torch", "numba", "dask"])
def test_every_engine_agrees_with_direct_differences(
    engine: str, kernel: Kernel, dtype: str, cloud: tuple[np.ndarray, ...]
) -> None:
    x, y, v, b = (a.astype(dtype) for a in cloud)
    if engine in ("torch", "numba", "dask"):
        pytest.importorskip(engine)
    K = direct(x, y, kernel)
    if kernel.profile == "tophat" and dtype == "float32":
        K = (K > 0).astype(float)
    tol = 1e-12 if dtype == "float64" else 2e-5
    p = Pairs(x, y, kernel, engine=engine)
    result = p.sum(v)
    assert result.dtype == v.dtype
    np.testing.assert_allclose(result, K @ v.astype(float), atol=tol * np.abs(K).sum(axis=1).max())
    np.testing.assert_allclose(p.sum(v[:, 0]), result[:, 0], atol=tol * np.abs(result).max())
    expected = log_sum(K, b.astype(float))
    np.testing.assert_allclose(p.logsumexp(b), expected, atol=5 * tol)
    finite = np.where(np.isfinite(expected), expected, 0.0).astype(dtype)
    np.testing.assert_allclose(p.logsumexp(b, guess=finite + 0.25), expected, atol=5 * tol)
    np.testing.assert_allclose(p.logsumexp(b, guess=finite + 500.0), expected, atol=5 * tol)
    average, logs = p.softmax_sum(v, b)
    weights = K * np.exp(b.astype(float))
    np.testing.assert_allclose(average, weights @ v / weights.sum(axis=1)[:, None], atol=20 * tol)
    np.testing.assert_allclose(logs, expected, atol=5 * tol)
    u = np.linspace(-1, 1, x.shape[0]).astype(dtype)
    np.testing.assert_allclose(p.T.sum(u), K.T @ u, atol=tol * np.abs(K).sum(axis=0).max())


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "dot"])
@pytest.mark.parametrize("engine", ["numpy", "array", "numba"])
def test_nearest(engine: str, metric: str, cloud: tuple[np.ndarray, ...]) -> None:
    if engine == "numba":
        pytest.importorskip("numba")
    x, y, _, _ = cloud
    indices, values = nearest(x, y, 4, metric, engine=engine)
    t = -np.log(direct(x, y, exponential(metric, -1.0 if metric == "dot" else 1.0)))
    order = np.argsort(t, axis=1)[:, :4]
    sign = -1 if metric == "dot" else 1
    np.testing.assert_allclose(values, sign * np.take_along_axis(t, order, axis=1), atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(t, np.asarray(indices), axis=1), sign * values, atol=1e-12)
    alone, _ = Pairs(x, x, gaussian(1.0), engine=engine, exclude_self=True).nearest(1)
    assert not np.any(alone[:, 0] == np.arange(x.shape[0]))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("kernel", ["gaussian", "laplace", "matern12", "cauchy", "attention"])
@pytest.mark.parametrize("engine", ["auto", "cupy", "cupy-fused", "array", "stored"])
def test_engines_of_a_gpu(engine: str, kernel: str, d: int, dtype: str) -> None:
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    rng = np.random.default_rng(13)
    x, y = (rng.random((n, d)).astype(dtype) / math.sqrt(d) for n in (700, 5000))
    v, b = rng.standard_normal((5000, 9)).astype(dtype), rng.standard_normal(5000).astype(dtype)
    K = direct(x, y, KERNELS[kernel])
    p = Pairs(cupy.asarray(x), cupy.asarray(y), KERNELS[kernel], engine=engine)
    tol = 1e-12 if dtype == "float64" else 2e-5
    result = p.sum(cupy.asarray(v))
    assert isinstance(result, cupy.ndarray)
    np.testing.assert_allclose(result.get(), K @ v, atol=tol * np.abs(K).sum(axis=1).max())
    expected = log_sum(K, b.astype(float))
    np.testing.assert_allclose(p.logsumexp(cupy.asarray(b)).get(), expected, atol=5 * tol)
    np.testing.assert_allclose(
        p.logsumexp(cupy.asarray(b), guess=cupy.asarray(expected.astype(dtype))).get(), expected, atol=5 * tol
    )
    average, _ = p.softmax_sum(cupy.asarray(v), cupy.asarray(b))
    weights = K * np.exp(b.astype(float))
    np.testing.assert_allclose(average.get(), weights @ v / weights.sum(axis=1)[:, None], atol=20 * tol)
    indices, _ = p.nearest(3)
    assert indices.shape == (700, 3)


def test_every_library(xp: Any, make: Any, cloud: tuple[np.ndarray, ...]) -> None:
    x, y, v, b = cloud
    p = Pairs(make(x), make(y), gaussian(0.3))
    K = direct(x, y, gaussian(0.3))
    result = p.sum(make(v))
    assert type(result) is type(make(v))
    np.testing.assert_allclose(to_host(result), K @ v, atol=1e-11)
    np.testing.assert_allclose(to_host(p.logsumexp(make(b))), log_sum(K, b), atol=1e-12)
    np.testing.assert_allclose(to_host(p.operator() @ make(v[:, 0])), K @ v[:, 0], atol=1e-11)
    indices, _ = p.nearest(1)
    assert to_host(indices)[:5, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("engine", ["numpy", "array", "stored"])
@pytest.mark.parametrize(("s", "theta"), [(4.0, 1.000006974684712418), (0.25, 2.000013949369424836)])
def test_lattice_sums_are_theta_functions(engine: str, s: float, theta: float) -> None:
    line = np.arange(-12.0, 13.0)
    grid = np.stack([g.ravel() for g in np.meshgrid(line, line)], axis=1)
    result = kernel_sum(
        np.zeros((1, 2)), grid, np.ones(len(grid)), exponential("sqeuclidean", math.pi * s), engine=engine
    )
    np.testing.assert_allclose(result, theta**2, rtol=1e-14)


@pytest.mark.parametrize("engine", ["numpy", "array"])
def test_a_common_offset_costs_no_digits(engine: str) -> None:
    rng = np.random.default_rng(1)
    x = (rng.random((200, 3)) + 1e4).astype(np.float32)
    v = np.ones(200, dtype=np.float32)
    K = direct(x, x, gaussian(0.2))
    np.testing.assert_allclose(kernel_sum(x, x, v, gaussian(0.2), engine=engine), K.sum(axis=1), rtol=2e-5)


def test_float32_forms_exponents_in_float64_when_it_must() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.random((300, 3)).astype(np.float32), rng.random((400, 3)).astype(np.float32)
    b = np.zeros(400, dtype=np.float32)
    expected = log_sum(direct(x, y, gaussian(0.01)), b.astype(float))
    mixed = np.abs(logsumexp(x, y, gaussian(0.01), engine="numpy") - expected)
    single = np.abs(logsumexp(x, y, gaussian(0.01), engine="numpy", precision="single") - expected)
    scale = np.maximum(1, np.abs(expected))
    assert Pairs(x, y, gaussian(0.01)).plan().mixed
    assert not Pairs(x, y, gaussian(0.5)).plan().mixed
    assert (mixed / scale).max() < 3e-7 < (single / scale).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinite_potentials_warn_of_nothing(dtype: str) -> None:
    # A product of BLAS multiplies what pads its blocks, too: 0 * -inf raises a flag although no entry is wrong.
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, m, d = (int(k) for k in rng.integers(1, (61, 61, 5)))
        x, y = rng.normal(size=(n, d)).astype(dtype), rng.normal(size=(m, d)).astype(dtype)
        b = np.where(np.arange(m) % 3 == 1, -math.inf, 0.0).astype(dtype)
        p = Pairs(x, y, gaussian(1.0), engine="numpy", check_finite=False)
        logs = p.logsumexp(b)
        assert np.isfinite(logs).all()
        np.testing.assert_allclose(p.logsumexp(b, guess=logs), logs, atol=1e-5)


@pytest.mark.parametrize("engine", ["numpy", "array", "stored"])
def test_rows_without_mass_and_empty_sets(engine: str) -> None:
    x, y = np.asarray([[0.0], [100.0]]), np.asarray([[0.0], [1.0]])
    none = np.full(2, -math.inf)
    p = Pairs(x, y, gaussian(1.0), engine=engine)
    assert p.logsumexp(none).tolist() == [-math.inf, -math.inf]
    assert p.softmax_sum(np.ones((2, 3)), none)[0].tolist() == [[0.0] * 3] * 2
    # The far row underflows in a sum and keeps its logarithm.
    assert p.sum(np.ones(2))[1] == 0.0
    np.testing.assert_allclose(p.logsumexp()[1], -0.5 * 99.0**2, rtol=1e-14)
    assert Pairs(x, y, epanechnikov(1.5), engine=engine).logsumexp()[1] == -math.inf
    empty = Pairs(x, np.zeros((0, 1)), gaussian(1.0), engine=engine)
    assert empty.sum(np.zeros(0)).tolist() == [0.0, 0.0]
    assert empty.logsumexp().tolist() == [-math.inf, -math.inf]
    assert Pairs(np.zeros((0, 1)), y, gaussian(1.0), engine=engine).sum(np.ones((2, 3))).shape == (0, 3)


@pytest.mark.parametrize("kernel", ["gaussian", "cauchy", "matern32", "laplace", "attention"])
@pytest.mark.parametrize("engine", ["numpy", "array", "stored", "numba"])
def test_exclude_self_across_tiles(engine: str, kernel: str) -> None:
    if engine == "numba":
        pytest.importorskip("numba")
    n = 1100  # several tiles a side for every engine, and no multiple of any
    rng = np.random.default_rng(3)
    x, v, b = rng.random((n, 2)), rng.random((n, 2)), rng.standard_normal(n)
    K = direct(x, x, KERNELS[kernel])
    np.fill_diagonal(K, 0.0)
    p = Pairs(x, x, KERNELS[kernel], engine=engine, exclude_self=True)
    np.testing.assert_allclose(p.sum(v), K @ v, rtol=1e-12)
    np.testing.assert_allclose(p.sum(v[:, 0]), K @ v[:, 0], rtol=1e-12)
    expected = np.log(K @ np.exp(b))
    np.testing.assert_allclose(p.logsumexp(b), expected, rtol=1e-12)
    np.testing.assert_allclose(p.logsumexp(b, guess=expected + 900.0), expected, rtol=1e-12)
    np.testing.assert_allclose(p.softmax_sum(v, b)[0], (K * np.exp(b)) @ v / np.exp(expected)[:, None], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("d", [1, 2, 4, 5, 9, 40, 128, 130])
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (130, 1025), (7, 2100)])
def test_numba_at_every_shape(shape: tuple[int, int], d: int, dtype: str) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(9)
    m, kernel = shape[1], gaussian(0.4 * math.sqrt(d))
    x, y = (rng.random((k, d)).astype(dtype) for k in shape)
    v, b = rng.standard_normal((m, 20)).astype(dtype), rng.standard_normal(m).astype(dtype)
    K = direct(x, y, kernel)
    p = Pairs(x, y, kernel, engine="numba")
    tol = 1e-13 if dtype == "float64" else 3e-6
    for columns in (v, v[:, :3], v[:, 0]):
        np.testing.assert_allclose(p.sum(columns), K @ columns.astype(float), atol=tol * m)
    np.testing.assert_allclose(p.logsumexp(b), log_sum(K, b.astype(float)), atol=10 * tol)
    matrix = np.empty(shape, dtype=dtype)
    p._for("sum").fill(matrix)
    np.testing.assert_allclose(matrix, K, atol=tol)


@pytest.mark.parametrize("kernel", ["gaussian", "matern32", "cauchy"])
def test_numba_hands_many_columns_to_blas(kernel: str, cloud: tuple[np.ndarray, ...]) -> None:
    pytest.importorskip("numba")
    x, y, _, b = cloud
    v, K = np.random.default_rng(12).standard_normal((201, 40)), direct(x, y, KERNELS[kernel])
    p = Pairs(x, y, KERNELS[kernel], engine="numba")
    np.testing.assert_allclose(p.sum(v), K @ v, atol=1e-11)
    weights = K * np.exp(b)
    np.testing.assert_allclose(p.softmax_sum(v, b)[0], weights @ v / weights.sum(axis=1)[:, None], atol=1e-11)


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_a_running_maximum_that_rises_late(engine: str) -> None:
    # The mass of a row lies in its last columns, a thousand orders of magnitude above the first.
    if engine == "numba":
        pytest.importorskip("numba")
    y = np.linspace(0.0, 1.0, 3000)[:, None]
    b = 3000.0 * np.linspace(0.0, 1.0, 3000)
    b[:600] = -math.inf
    x = np.asarray([[0.0], [0.5]])
    exponent = b - 0.5 * (x - y.T) ** 2
    p = Pairs(x, y, gaussian(1.0), engine=engine)
    top = exponent.max(axis=1)
    expected = top + np.log(np.exp(exponent - top[:, None]).sum(axis=1))
    np.testing.assert_allclose(p.logsumexp(b), expected, rtol=1e-13)
    weights = np.exp(exponent - expected[:, None])
    np.testing.assert_allclose(p.softmax_sum(y, b)[0], weights @ y, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_compiled_exponential_is_right_to_rounding(dtype: str) -> None:
    pytest.importorskip("numba")
    from numba import njit
    from xpsolve.backends.pairs.engines.exp_numba import exp2

    @njit
    def each(t):  # type: ignore[no-untyped-def]
        out = np.empty_like(t)
        for i in range(t.size):
            out[i] = exp2(t[i])
        return out

    info = np.finfo(dtype)
    t = np.linspace(info.minexp, info.maxexp - 1e-3, 200_003).astype(dtype)
    exact = np.exp2(t.astype(np.longdouble))
    assert np.max(np.abs(each(t) / exact - 1)) < 1.01 * info.eps
    edge = np.asarray([-math.inf, info.minexp - 1.0, 0.0, info.maxexp, 1e30, math.inf], dtype=dtype)
    assert each(edge).tolist() == [0.0, 0.0, 1.0, math.inf, math.inf, math.inf]


@pytest.mark.parametrize("unit", [1e-25, 1e25])
@pytest.mark.parametrize("engine", ["numpy", "array", "numba"])
def test_units_beyond_the_squares_of_float32(engine: str, unit: float) -> None:
    if engine == "numba":
        pytest.importorskip("numba")
    x = np.random.default_rng(14).random((40, 2))
    K, ones = direct(x, x, gaussian(0.5)), np.ones(40, dtype="float32")
    p = Pairs((unit * x).astype("float32"), (unit * x).astype("float32"), gaussian(0.5 * unit), engine=engine)
    np.testing.assert_allclose(p.sum(ones), K.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(p.logsumexp(), np.log(K.sum(axis=1)), rtol=1e-5)


@pytest.mark.parametrize("engine", ["numpy", "array", "numba"])
def test_small_bandwidths_in_float32_keep_their_digits(engine: str) -> None:
    if engine == "numba":
        pytest.importorskip("numba")
    rng = np.random.default_rng(10)
    x, y = (rng.random((200, 3)).astype("float32") for _ in range(2))
    y[:100] = x[:100] + 1e-3 * rng.standard_normal((100, 3)).astype("float32")
    p = Pairs(x, y, gaussian(1e-3), engine=engine)
    K = direct(x, y, gaussian(1e-3))
    np.testing.assert_allclose(p.sum(np.ones(200, dtype="float32"))[:100], K.sum(axis=1)[:100], rtol=3e-6, atol=1e-30)


def test_torch_tensors_on_the_host_use_its_engines_and_keep_their_gradients(cloud: tuple[np.ndarray, ...]) -> None:
    torch = pytest.importorskip("torch")
    x, y, v, b = cloud
    tx, ty, tv, tb = (torch.from_numpy(a.copy()) for a in cloud)
    kernel = gaussian(0.3)
    K = direct(x, y, kernel)
    for engine in ("auto", "numpy", "torch", "stored", "numba"):
        if engine == "numba":
            pytest.importorskip("numba")
        p = Pairs(tx, ty, kernel, engine=engine)
        result = p.sum(tv)
        assert isinstance(result, torch.Tensor)
        np.testing.assert_allclose(result.numpy(), K @ v, atol=1e-11)
        np.testing.assert_allclose(p.logsumexp(tb).numpy(), log_sum(K, b), atol=1e-12)
        assert p.nearest(2)[0].dtype == torch.int64
    assert Pairs(tx, ty, kernel, passes=1).plan().engine != "array"

    # A gradient is asked of the weights, then of the points: central differences are the truth.
    weights = tv[:, 0].clone().requires_grad_()
    p = Pairs(tx, ty, kernel, passes=1)
    p.sum(weights).sum().backward()
    np.testing.assert_allclose(weights.grad.numpy(), K.sum(axis=0), rtol=1e-12)
    moved = tx[:3].clone().requires_grad_()
    assert Pairs(moved, ty, kernel).plan("logsumexp").engine == "array"
    Pairs(moved, ty, kernel).logsumexp(tb).sum().backward()
    step = np.zeros_like(x[:3])
    step[1, 2] = 1e-6
    ends = [log_sum(direct(x[:3] + s * step, y, kernel), b).sum() for s in (1, -1)]
    np.testing.assert_allclose(moved.grad.numpy()[1, 2], (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_threads_do_not_change_a_bit() -> None:
    rng = np.random.default_rng(4)
    x, y, v = rng.random((3000, 3)), rng.random((1500, 3)), rng.standard_normal(1500)
    one, two = (kernel_sum(x, y, v, gaussian(0.2), engine="numpy", threads=t) for t in (1, 2))
    assert np.array_equal(one, two)


def test_memory_stays_a_tile() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.random((4000, 3)).astype(np.float32), rng.random((20000, 3)).astype(np.float32)
    p = Pairs(x, y, gaussian(0.3), engine="numpy", threads=1)
    tracemalloc.start()
    p.logsumexp()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_the_planner_stores_what_is_reused_and_says_so() -> None:
    x = np.random.default_rng(6).random((100, 2))
    assert Pairs(x, x, gaussian(1.0)).plan().engine == "stored"
    assert Pairs(x, x, gaussian(1.0), passes=1).plan().engine != "stored"
    assert Pairs(x, x, gaussian(1.0), memory=1000).plan().engine != "stored"
    assert "stored" in str(Pairs(x, x, gaussian(1.0)).plan())
    with pytest.raises(InputError, match="engine"):
        Pairs(x, x, gaussian(1.0), engine="quick")


def test_many_pairs_find_an_engine_that_runs() -> None:
    x = np.random.default_rng(8).random((1500, 2))
    result = kernel_sum(x, x, np.ones(1500), gaussian(0.3), threads=1)
    np.testing.assert_allclose(result, direct(x, x, gaussian(0.3)).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("d", [2, 20])
def test_compiled_neighbours_at_an_offset_and_with_ties(d: int, dtype: str) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(11)
    x = rng.integers(0, 3, (50, d)).astype(dtype) + 1e4  # a lattice: many equal distances
    y = rng.integers(0, 3, (2100, d)).astype(dtype) + 1e4
    exact = ((x[:, None].astype(float) - y[None].astype(float)) ** 2).sum(axis=2)
    order = np.argsort(exact, axis=1, kind="stable")[:, :7]
    indices, values = nearest(x, y, 7, engine="numba")
    assert np.array_equal(indices, order)
    assert np.array_equal(values, np.take_along_axis(exact, order, axis=1).astype(dtype))


@pytest.mark.parametrize("engine", ["numpy", "array", "numba"])
def test_no_point_has_no_neighbours(engine: str) -> None:
    if engine == "numba":
        pytest.importorskip("numba")
    indices, values = nearest(np.zeros((0, 2)), np.ones((4, 2)), 3, engine=engine)
    assert indices.shape == values.shape == (0, 3)


def test_operator_is_symmetric_and_positive() -> None:
    rng = np.random.default_rng(7)
    x, u, v = rng.random((80, 3)), rng.standard_normal(80), rng.standard_normal(80)
    K = Pairs(x, x, gaussian(0.4)).operator()
    np.testing.assert_allclose(v @ (K @ u), u @ (K @ v), rtol=1e-12)
    assert u @ (K @ u) > 0


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 40), m=st.integers(1, 40), d=st.integers(1, 5), h=st.floats(0.05, 20.0), seed=st.integers(0, 2**16)
)
def test_shift_and_consistency(n: int, m: int, d: int, h: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, w = rng.standard_normal((n, d)), rng.standard_normal((m, d)), rng.random(m) + 0.1
    p = Pairs(x, y, gaussian(h), engine="numpy")
    logs = p.logsumexp(np.log(w))
    np.testing.assert_allclose(np.exp(logs), p.sum(w), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(p.logsumexp(np.log(w) + 1e4), logs + 1e4, rtol=1e-12)


def test_bad_input_names_the_argument() -> None:
    x = np.ones((3, 2))
    for bad, name in [(np.ones(3), "x"), (np.ones((3, 2), dtype=int), "x"), (x * np.nan, "x"), ([[1.0, 2.0]], "x")]:
        with pytest.raises((BackendError, InputError), match=name):
            Pairs(bad, x, gaussian(1.0))
    with pytest.raises(InputError, match="y"):
        Pairs(x, np.ones((3, 3)), gaussian(1.0))
    with pytest.raises(InputError, match="bandwidth"):
        gaussian(-1.0)
    with pytest.raises(InputError, match="v has shape"):
        Pairs(x, x, gaussian(1.0)).sum(np.ones(4))
    with pytest.raises(InputError, match="k is"):
        Pairs(x, x, gaussian(1.0)).nearest(9)

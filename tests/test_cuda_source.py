"""The CUDA kernels without a GPU: compiled as C++ with a thread for each CUDA thread, under the Python that launches them."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import pytest
from xpsolve.backends.pairs import Kernel, exponential, gaussian
from xpsolve.backends.pairs.engines import cupy_fused, cupy_tiles
from xpsolve.backends.pairs.engines.gemm_tiles import GemmTiles, TileMath
from xpsolve.backends.pairs.problem import PairProblem

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

_CUDA = r"""
#include <barrier>
#include <cmath>
#include <thread>
#include <vector>
#define __global__
#define __device__
#define __shared__ static
struct Index { unsigned x, y; };
static Index blockIdx, gridDim;
static thread_local Index threadIdx;
static std::barrier<> *rendezvous;
static void __syncthreads() { rendezvous->arrive_and_wait(); }
"""
_LAUNCH = r"""
extern "C" void launch(unsigned gx, unsigned gy, const REAL *x, const REAL *y, const REAL *c, const REAL *v, double *out,
                       REAL *tops, long long n, long long m, double scale, double lowest)
{
    gridDim = {gx, gy};
    for (unsigned by = 0; by < gy; ++by)
        for (unsigned bx = 0; bx < gx; ++bx) {
            blockIdx = {bx, by};
            std::barrier<> all(TILE);
            rendezvous = &all;
            std::vector<std::thread> threads;
            for (unsigned t = 0; t < TILE; ++t)
                threads.emplace_back([=] {
                    threadIdx = {t, 0};
                    if (tops) pair_online(x, y, c, v, out, tops, n, m, (REAL)scale, (REAL)lowest);
                    else pair_sum(x, y, c, v, out, n, m, (REAL)scale);
                });
            for (auto &thread : threads) thread.join();
        }
}
"""
_TILE = 16


class Emulated:
    """What `cupy.RawKernel` is to the engine: a callable of grid, block and arguments."""

    def __init__(self, folder: Path, name: str, defined: dict[str, Any]) -> None:
        key = "-".join(map(str, [name, *defined.values()]))
        source, library = folder / f"{key}.cpp", folder / f"{key}.so"
        kernels = files("xpsolve.backends.pairs.engines").joinpath("cupy_fused.cu").read_text(encoding="utf-8")
        source.write_text(_CUDA + kernels + _LAUNCH, encoding="utf-8")
        flags = [f"-D{k}={v}" for k, v in defined.items()]
        command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", *flags, str(source), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True)
        self.launch = ctypes.CDLL(str(library)).launch

    def __call__(self, grid: tuple[int, int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        assert block == (_TILE,)
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        n, m, *scalars = [a for a in arguments if not isinstance(a, np.ndarray)]
        assert all(a.flags.c_contiguous for a in arrays)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays] + [None] * (6 - len(arrays))
        numbers = [ctypes.c_double(s) for s in scalars] + [ctypes.c_double(0)] * (2 - len(scalars))
        sizes = [ctypes.c_uint(g) for g in grid]
        self.launch(*sizes, *pointers, ctypes.c_longlong(n), ctypes.c_longlong(m), *numbers)


class OnHost(cupy_fused.CupyFused):
    """The engine with NumPy in the place of CuPy."""

    def __init__(self, problem: PairProblem) -> None:
        GemmTiles.__init__(self, problem)
        self.lib, self.math = np, TileMath()
        self._divide()

    def _device(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()


@pytest.fixture
def _emulation(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cuda")

    @cache
    def compiled(name: str, real: str, d: int, r: int, metric: int, exclude_self: bool) -> Emulated:
        real = {"float32": "float", "float64": "double"}[real]
        defined = {"REAL": real, "D": d, "R": r, "TILE": _TILE, "METRIC": metric, "SELF": int(exclude_self)}
        return Emulated(folder, name, defined)

    monkeypatch.setattr(cupy_fused, "_compiled", compiled)
    monkeypatch.setattr(cupy_fused, "_TILE", _TILE)
    monkeypatch.setattr(cupy_fused, "_THREADS", 200)
    monkeypatch.setattr(cupy_fused, "_MOST_COLUMNS", 2)


def matrix(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> np.ndarray:
    difference = x[:, None].astype(float) - y[None].astype(float)
    t = {
        "sqeuclidean": (difference**2).sum(axis=2),
        "euclidean": np.sqrt((difference**2).sum(axis=2)),
        "cityblock": np.abs(difference).sum(axis=2),
        "dot": x.astype(float) @ y.T.astype(float),
    }[str(kernel.metric)]
    return np.exp(-kernel.scale * t)


@pytest.mark.parametrize(
    ("kernel", "dtype", "exclude_self"),
    [
        (gaussian(0.3), "float64", False),
        (gaussian(0.3), "float32", True),
        (exponential("euclidean", 4.0), "float64", True),
        (exponential("cityblock", 3.0), "float32", False),
        (exponential("dot", -2.0), "float64", False),
    ],
)
@pytest.mark.usefixtures("_emulation")
def test_the_fused_kernels_agree_with_direct_sums(kernel: Kernel, dtype: str, exclude_self: bool) -> None:
    rng = np.random.default_rng(0)
    n, m = (45, 45) if exclude_self else (37, 53)
    x = rng.random((n, 3)).astype(dtype)
    y = x if exclude_self else rng.random((m, 3)).astype(dtype)
    v, b = rng.standard_normal((m, 3)).astype(dtype), 40 * rng.standard_normal(m).astype(dtype)
    b[:20] = -np.inf
    K = matrix(x, y, kernel)
    if exclude_self:
        np.fill_diagonal(K, 0.0)
    xp = array_api_compat.array_namespace(x)
    engine = OnHost(PairProblem(x, y, kernel, xp, exclude_self=exclude_self))
    assert engine.parts > 1
    tol = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(engine.sum(v), K @ v, atol=tol * m)
    weights = K * np.exp(b.astype(float) - b.max())
    values, logs = engine.softmax_sum(b, v)
    assert values.dtype == logs.dtype == dtype
    np.testing.assert_allclose(logs, np.log(weights.sum(axis=1)) + b.max(), rtol=tol)
    np.testing.assert_allclose(values, weights @ v / weights.sum(axis=1)[:, None], atol=10 * tol)
    np.testing.assert_allclose(engine.logsumexp(b), logs)
    nothing = np.full(m, -np.inf, dtype=dtype)
    values, logs = engine.softmax_sum(nothing, v)
    assert np.all(values == 0)
    assert np.all(logs == -np.inf)


def test_the_gemm_tiles_of_a_gpu_run_at_their_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_tiles.CupyTiles, "side", 32)
    rng = np.random.default_rng(1)
    x, y, v = rng.random((70, 20)), rng.random((95, 20)), rng.random((95, 2))
    engine = object.__new__(cupy_tiles.CupyTiles)
    GemmTiles.__init__(engine, PairProblem(x, y, gaussian(1.0), array_api_compat.array_namespace(x)))
    engine.bm = engine.bn = engine.side
    K = matrix(x, y, gaussian(1.0))
    np.testing.assert_allclose(engine.sum(v), K @ v, rtol=1e-12)
    np.testing.assert_allclose(engine.logsumexp(np.zeros(95)), np.log(K.sum(axis=1)), rtol=1e-12)
    # A metric without a product goes by the tiles of differences.
    other = object.__new__(cupy_tiles.CupyTiles)
    kernel = exponential("cityblock", 0.3)
    GemmTiles.__init__(other, PairProblem(x, y, kernel, array_api_compat.array_namespace(x)))
    np.testing.assert_allclose(other.sum(v), matrix(x, y, kernel) @ v, rtol=1e-12)

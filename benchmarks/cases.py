"""The one table of cases: what pytest-benchmark times and what the report's family "pairs" shows.

A case is a problem at a size with several implementations: ``xpsolve`` and ``peer:<name>``. An implementation is a
function of the case's data that imports what it needs (an ImportError means: peer not installed), does its set-up, and
returns the callable to be timed. Every answer is compared with one reference, so that a fast wrong answer cannot win.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Data = dict[str, Any]
Prepared = Callable[[], Any]
Implementation = Callable[[Data], Prepared]


@dataclass(frozen=True, eq=False)
class Case:
    """A problem at a size, its implementations, and how wrong they may be."""

    family: str
    problem: str
    size: str
    make: Callable[[], Data]
    implementations: dict[str, Implementation]
    tolerance: float
    error: Callable[[Data, Any], float]
    quick: bool = False

    @property
    def group(self) -> str:
        """Name of the comparison: one per problem and size."""
        return f"{self.family}: {self.problem} [{self.size}]"

    def data(self) -> Data:
        """The case's data and reference answer, made once."""
        return _cached(self)


@lru_cache(maxsize=4)
def _cached(case: Case) -> Data:
    return case.make()


def host(a: Any) -> np.ndarray:
    """Any library's array on the host."""
    from xpsolve.backends.transfer import to_host

    return to_host(a)


def to_backend(a: np.ndarray, backend: str) -> Any:
    """A NumPy array as an array of the chosen backend, on the GPU where that backend has one."""
    if backend == "torch":
        import torch

        return torch.as_tensor(a, device="cuda" if torch.cuda.is_available() else "cpu")
    if backend == "cupy":
        import cupy

        return cupy.asarray(a)
    return a


def synchronised(run: Prepared, backend: str) -> Prepared:
    """``run`` followed by a wait for the device, so that queued work is inside the measured time."""
    if backend == "cupy":
        import cupy

        return lambda: (run(), cupy.cuda.get_current_stream().synchronize())[0]
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return lambda: (run(), torch.cuda.synchronize())[0]
    return run


def relative_error(reference: np.ndarray, answer: Any) -> float:
    """Largest deviation relative to the largest entry of the reference."""
    wrong = np.abs(np.asarray(host(answer), dtype=np.float64).reshape(reference.shape) - reference)
    return float(wrong.max() / np.abs(reference).max())


# -- pairs -----------------------------------------------------------------------------------------------------------


def points(n: int, d: int, dtype: str) -> Data:
    """The standard problem: uniform points in the unit cube, a Gaussian whose width grows with sqrt(d)."""
    rng = np.random.default_rng(0)
    x, y = rng.random((n, d)), rng.random((n, d))
    v = rng.standard_normal(n)
    bandwidth = float(np.sqrt(0.25**2 * d / 3))
    return {"x": x.astype(dtype), "y": y.astype(dtype), "v": v.astype(dtype), "h": bandwidth, "backend": "numpy"}


def _exact(data: Data, rows: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Kernel sum and log-sum-exp of the first rows in float64 from SciPy's direct differences."""
    from scipy.spatial.distance import cdist
    from scipy.special import logsumexp

    exponent = -0.5 / data["h"] ** 2 * cdist(data["x"][:rows].astype("f8"), data["y"].astype("f8"), "sqeuclidean")
    return np.exp(exponent) @ data["v"].astype("f8"), logsumexp(exponent, axis=1)


def _pairs_data(n: int, d: int, dtype: str) -> Data:
    data = points(n, d, dtype)
    data["sum"], data["lse"] = _exact(data)
    return data


def ours(reduction: str, **options: Any) -> Implementation:
    """xpsolve's kernel sum or log-sum-exp with the planner's engine, one thread."""

    def prepare(data: Data) -> Prepared:
        from xpsolve.backends.pairs import Pairs, gaussian

        x, y, v = (to_backend(data[name], data["backend"]) for name in "xyv")
        # Set-up is part of the price: a one-off sum pays it each time.
        run = {
            "sum": lambda: Pairs(x, y, gaussian(data["h"]), threads=1, **options).sum(v),
            "lse": lambda: Pairs(x, y, gaussian(data["h"]), threads=1, **options).logsumexp(),
        }[reduction]
        return synchronised(run, data["backend"])

    return prepare


def pykeops(reduction: str) -> Implementation:
    """PyKeOps LazyTensor; points scaled beforehand so that the formula is as short as it can be."""

    def prepare(data: Data) -> Prepared:
        import os

        os.environ.setdefault("KEOPS_VERBOSE", "0")
        from pykeops.numpy import LazyTensor

        factor = data["x"].dtype.type(np.sqrt(0.5) / data["h"])
        x, y, v = data["x"] * factor, data["y"] * factor, data["v"][:, None].copy()

        def run() -> np.ndarray:
            squares = ((LazyTensor(x[:, None, :]) - LazyTensor(y[None, :, :])) ** 2).sum(-1)
            answer = (-squares).exp() @ v if reduction == "sum" else (-squares).logsumexp(axis=1)
            return np.asarray(answer).ravel()

        return run

    return prepare


def jax_blocks(data: Data) -> Prepared:
    """``exp(x_block @ Y.T) @ v`` over blocks of 128 rows with augmented columns, jitted."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    dtype, scale = data["x"].dtype, 0.5 / data["h"] ** 2
    centre = data["y"].mean(axis=0)
    x, y = data["x"] - centre, data["y"] - centre
    column = np.ones((x.shape[0], 1), dtype)
    left = np.concatenate([2 * scale * x, -scale * (x * x).sum(1, keepdims=True), column], axis=1).astype(dtype)
    right = np.concatenate([y, column, -scale * (y * y).sum(1, keepdims=True)], axis=1).astype(dtype)
    blocks, right_t, v = jnp.asarray(left.reshape(-1, 128, left.shape[1])), jnp.asarray(right).T, jnp.asarray(data["v"])
    run = jax.jit(lambda b, yt, w: jax.lax.map(lambda xb: jnp.exp(xb @ yt) @ w, b).reshape(-1))
    return lambda: np.asarray(run(blocks, right_t, v).block_until_ready())


def sklearn_rbf(data: Data) -> Prepared:
    """scikit-learn's stored kernel matrix times the vector."""
    from sklearn.metrics.pairwise import rbf_kernel

    return lambda: rbf_kernel(data["x"], data["y"], gamma=0.5 / data["h"] ** 2) @ data["v"]


def scipy_lse(data: Data) -> Prepared:
    """SciPy: stored squared distances, then ``logsumexp``."""
    from scipy.spatial.distance import cdist
    from scipy.special import logsumexp

    return lambda: logsumexp(-0.5 / data["h"] ** 2 * cdist(data["x"], data["y"], "sqeuclidean"), axis=1)


def ours_nearest(**options: Any) -> Implementation:
    """xpsolve's exact nearest neighbours, one thread."""

    def prepare(data: Data) -> Prepared:
        from xpsolve.backends.pairs import nearest

        x, y = (to_backend(data[name], data["backend"]) for name in "xy")
        return synchronised(lambda: nearest(x, y, 10, threads=1, **options)[1], data["backend"])

    return prepare


def sklearn_nearest(data: Data) -> Prepared:
    """scikit-learn's brute-force neighbours (exact)."""
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=10, algorithm="brute", n_jobs=1).fit(data["y"])
    return lambda: model.kneighbors(data["x"])[0] ** 2


def scipy_nearest(data: Data) -> Prepared:
    """SciPy's k-d tree, built outside the timing."""
    from scipy.spatial import cKDTree

    tree = cKDTree(data["y"])
    return lambda: tree.query(data["x"], k=10)[0] ** 2


def _nearest_data(n: int, d: int, dtype: str) -> Data:
    from scipy.spatial import cKDTree

    data = points(n, d, dtype)
    data["near"] = cKDTree(data["y"].astype("f8")).query(data["x"][:256].astype("f8"), k=10)[0] ** 2
    return data


def _rows_error(name: str) -> Callable[[Data, Any], float]:
    return lambda data, answer: relative_error(data[name], host(answer)[: data[name].shape[0]])


def _pairs_cases() -> list[Case]:
    sums = {
        "xpsolve": ours("sum", passes=1),
        "xpsolve, numpy": ours("sum", engine="numpy"),
        "xpsolve, numba": ours("sum", engine="numba"),
        "peer:pykeops": pykeops("sum"),
        "peer:jax": jax_blocks,
        "peer:sklearn": sklearn_rbf,
    }
    lses = {
        "xpsolve": ours("lse", passes=1),
        "xpsolve, numpy": ours("lse", engine="numpy"),
        "xpsolve, numba": ours("lse", engine="numba"),
        "peer:pykeops": pykeops("lse"),
        "peer:scipy": scipy_lse,
    }
    near = {
        "xpsolve": ours_nearest(),
        "xpsolve, numpy": ours_nearest(engine="numpy"),
        "xpsolve, numba": ours_nearest(engine="numba"),
        "peer:sklearn": sklearn_nearest,
        "peer:scipy-kdtree": scipy_nearest,
    }
    cases = []
    for d in (3, 16, 64):
        for dtype, tolerance in (("float32", 2e-5), ("float64", 1e-12)):
            size, quick = f"4096x4096, d={d}, {dtype}", d != 64 and dtype == "float32"
            make = lambda d=d, dtype=dtype: _pairs_data(4096, d, dtype)  # noqa: E731
            cases.append(Case("pairs", "Gaussian sum", size, make, sums, tolerance, _rows_error("sum"), quick))
            if d != 64:
                lse_quick = quick and d == 3
                cases.append(Case("pairs", "log-sum-exp", size, make, lses, tolerance, _rows_error("lse"), lse_quick))
    for d in (3, 16):
        make = lambda d=d: _nearest_data(4096, d, "float32")  # noqa: E731
        size = f"4096x4096, d={d}, k=10, float32"
        cases.append(Case("pairs", "nearest", size, make, near, 2e-5, _rows_error("near"), d == 16))
    return cases


def all_cases() -> list[Case]:
    """Every case of every family."""
    from .cases_linear import linear_cases
    from .cases_solvers import solver_cases

    return _pairs_cases() + linear_cases() + solver_cases()


def cases_of(family: str, quick: bool = False) -> list[Case]:
    """The cases of one family; the quick ones only, if asked."""
    return [case for case in all_cases() if case.family == family and (case.quick or not quick)]

"""Colour transfer between two photographs: 20,000 pixels a side, no cost matrix in memory."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_images
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.ot import PointCloud, TransportResult, sinkhorn

BLUR, TOL = 0.05, 1e-3
#: Over-relaxation of our run; 1.5, 1.6, 1.7 and 1.8 took 51, 42, 33 and 23 iterations.
OMEGA = 1.8
PIXELS = 20_000
#: As the peers are held to (`machine.limit_threads`).
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


def run(quick: bool, backend: str) -> dict[str, Any]:
    """Run the job; ``backend`` is ``"numpy"``, ``"torch"`` or ``"cupy"``."""
    xp = importlib.import_module(f"array_api_compat.{backend}")
    photographs = [image / np.float32(255) for image in load_sample_images().images]
    x, y = clouds(photographs, PIXELS)
    cloud = PointCloud(xp.asarray(x), xp.asarray(y), "half_sqeuclidean", threads=THREADS)
    seconds, result = _clocked(lambda: sinkhorn(cloud, reg=BLUR**2, tol=TOL, omega=OMEGA))
    table = [_row(PIXELS, "xpsolve", seconds, 1.0, result.residual, result.n_iter, "")]
    size = 2_000 if quick else PIXELS
    table += _peers(*clouds(photographs, size), full=not quick)

    picture = photographs[0][:: 4 if quick else 2, :: 4 if quick else 2]
    recoloured = to_host(result.transport(xp.asarray(picture.reshape(-1, 3).copy()))).reshape(picture.shape)
    return {
        "title": "Colour transfer between two photographs",
        "table": table,
        "figures": [
            (
                "From left to right: a photograph, the colours wanted, and the photograph in those colours",
                _pictures(picture, photographs[1], recoloured),
            ),
            ("L1 violation of the marginals against iterations; dashed, the tolerance", _curve(result)),
        ],
        "text": (
            f"{PIXELS} random pixels of each photograph in float32, cost |x-y|^2 / 2, regularisation {BLUR}^2, until the L1 "
            f"violation of both marginals is below {TOL}. Errors are that violation, of every implementation measured by the "
            f"same code. Seconds are wall time of one run; threads of every library: {THREADS}. GeomLoss runs "
            "a fixed annealing schedule and does not stop at a tolerance."
        ),
        "plan": cloud.pairs(cloud.x, BLUR**2, passes=None).plan("logsumexp").describe(),
    }


def clouds(photographs: list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """``size`` random pixels of each photograph."""
    rng = np.random.default_rng(0)
    pixels = [image.reshape(-1, 3) for image in photographs]
    x, y = (p[rng.choice(len(p), size, replace=False)] for p in pixels)
    return x, y


def _peers(x: np.ndarray, y: np.ndarray, *, full: bool) -> list[dict[str, Any]]:
    cloud, n = PointCloud(x, y, "half_sqeuclidean", threads=THREADS), len(x)
    ours, result = _clocked(lambda: sinkhorn(cloud, reg=BLUR**2, tol=TOL, omega=OMEGA))
    rows = [] if full else [_row(n, "xpsolve", ours, 1.0, result.residual, result.n_iter, "the size of the peers")]
    if importlib.util.find_spec("geomloss") and importlib.util.find_spec("torch"):
        online = full and bool(importlib.util.find_spec("pykeops"))
        # The schedule's ratio is GeomLoss's only handle on accuracy; at full size the finer one would take an hour.
        rows += [_geomloss(x, y, cloud, ours, online=online, scaling=s) for s in ((0.9,) if full else (0.9, 0.99))]
    else:
        rows.append(_row(n, "peer:geomloss", None, None, None, None, "not installed"))
    if importlib.util.find_spec("ot"):
        rows.append(_pot(x, y, cloud, ours, iterations=1000))
    else:
        rows.append(_row(n, "peer:POT", None, None, None, None, "not installed"))
    return rows


def _geomloss(
    x: np.ndarray, y: np.ndarray, cloud: PointCloud, ours: float, *, online: bool, scaling: float
) -> dict[str, Any]:
    import torch
    from geomloss import SamplesLoss

    backend = "online" if online else "tensorized"
    loss = SamplesLoss("sinkhorn", p=2, blur=BLUR, scaling=scaling, debias=False, potentials=True, backend=backend)
    tx, ty = torch.from_numpy(x.copy()), torch.from_numpy(y.copy())
    if online:
        loss(tx[:100], ty[:100])  # compiles the formula
    seconds, (f, g) = _clocked(lambda: loss(tx, ty))
    error = _violation(cloud, f.detach().numpy().ravel(), g.detach().numpy().ravel())
    return _row(len(x), "peer:geomloss", seconds, seconds / ours, error, None, f"{backend}, scaling {scaling}")


def _pot(x: np.ndarray, y: np.ndarray, cloud: PointCloud, ours: float, *, iterations: int) -> dict[str, Any]:
    import warnings

    import ot

    n = len(x)
    a = np.full(n, 1 / n)

    def solve() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            C = 0.5 * ot.dist(x.astype(np.float64), y.astype(np.float64))
            return ot.sinkhorn(a, a, C, BLUR**2, numItermax=iterations, stopThr=TOL / n**0.5, log=True)[1]

    seconds, log = _clocked(solve)
    f, g = (BLUR**2 * np.log(np.maximum(log[k] * n, 1e-300)) for k in ("u", "v"))
    error = _violation(cloud, f.astype(np.float32), g.astype(np.float32))
    return _row(
        n, "peer:POT", seconds, seconds / ours, error, log["niter"], f"stored matrix, at most {iterations} iterations"
    )


def _violation(cloud: PointCloud, f: np.ndarray, g: np.ndarray) -> float:
    """L1 violation of both marginals by the plan of potentials in the KL gauge."""
    (n, m), kernel = cloud.shape, cloud.kernel(BLUR**2)
    F, G = f / np.float32(BLUR**2) - np.float32(np.log(n)), g / np.float32(BLUR**2) - np.float32(np.log(m))
    rows, columns = np.exp(F + kernel.rows(G, None)), np.exp(G + kernel.columns(F, None))
    return float(np.abs(rows - 1 / n).sum() + np.abs(columns - 1 / m).sum())


def _clocked(run: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def _row(
    n: int, impl: str, seconds: float | None, ratio: float | None, error: float | None, iterations: Any, note: str
) -> dict[str, Any]:
    return {
        "problem": "colour transfer", "size": f"{n} x {n}", "impl": impl, "seconds": seconds, "ratio": ratio,
        "error": error, "iterations": iterations, "note": note,
    }  # fmt: skip


def _pictures(source: np.ndarray, target: np.ndarray, recoloured: np.ndarray) -> Figure:
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    for axes, image in zip(figure.subplots(1, 3), (source, target, recoloured), strict=True):
        axes.imshow(np.clip(image, 0, 1))
        axes.set_axis_off()
    return figure


def _curve(result: TransportResult) -> Figure:
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(result.history)
    axes.axhline(result.tolerance, color="0.6", linestyle="--")
    axes.set(xlabel="iteration", ylabel="L1 violation of the marginals")
    return figure

"""Densities of handwritten digits: a map in two dimensions, novelty scores in sixteen, and the peers."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import scipy.stats
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity
from xpsolve.backends.transfer import to_host
from xpsolve.solvers.kde import GaussianKDE, loo_bandwidth

from ..timing import interleaved

DIM = 16


def run(quick: bool, backend: str) -> dict[str, Any]:
    """Run the job; ``backend`` is ``"numpy"``, ``"torch"`` or ``"cupy"``."""
    xp = importlib.import_module(f"array_api_compat.{backend}")
    images, labels = load_digits(return_X_y=True)
    scores = PCA(DIM, random_state=0).fit_transform(images)
    if quick:
        scores, images, labels = scores[::2], images[::2], labels[::2]
    search = loo_bandwidth(xp.asarray(scores))
    table = _peer_rows(scores, images / 16.0, xp, 2 if quick else 5)
    auc = _novelty(scores, labels, xp, [0, 1, 8] if quick else list(range(10)))
    scott = float(GaussianKDE(xp.asarray(scores)).loo_log_likelihood())
    mean = {name: float(np.mean([row[name] for row in auc.values()])) for name in ("scott", "loo")}
    text = (
        f"{len(scores)} digits, {DIM} principal components. Leave-one-out bandwidth: factor {search.factor:.4f} of the "
        f"sample standard deviation (Scott {len(scores) ** (-1 / (DIM + 4)):.4f}), {search.n_iter} evaluations, mean "
        f"leave-one-out log-likelihood {search.log_likelihood:.3f} (Scott {scott:.3f}). Novelty: a class is left out, "
        "the others are estimated from half of their digits, and minus the log-density ranks the rest; mean area under "
        f"the ROC curve over {len(auc)} classes {mean['scott']:.4f} with Scott's bandwidth, {mean['loo']:.4f} with "
        "leave-one-out. In the table, error is the largest absolute error of the log-density "
        "against the direct float64 formula; ratio is the time over "
        "that of xpsolve in float64 on the same problem."
    )
    kde = GaussianKDE(xp.asarray(scores), bandwidth=search.covariance)
    return {
        "title": "Densities and novelty of handwritten digits",
        "table": table,
        "figures": [
            ("Density of the digits in the plane of the first two principal components", _map(scores, labels, xp)),
            ("Area under the ROC curve when one digit is left out of the training data", _bars(auc)),
            ("Leave-one-out log-likelihood against the factor of the sample covariance", _curve(scores, search, xp)),
        ],
        "text": text,
        "plan": kde.plan(xp.asarray(scores)).describe(),
    }


def direct_log_density(x: np.ndarray, y: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """The formula by differences in float64: the truth that everybody is compared with."""
    n, d = x.shape
    root = np.linalg.cholesky(covariance)
    u, v = np.linalg.solve(root, x.T).T, np.linalg.solve(root, y.T).T
    out = np.empty(len(y))
    for i, row in enumerate(v):
        t = -0.5 * ((u - row) ** 2).sum(1)
        out[i] = t.max() + math.log(np.exp(t - t.max()).sum())
    return out - math.log(n) - np.log(np.diag(root)).sum() - 0.5 * d * math.log(2 * math.pi)


def _peer_rows(scores: np.ndarray, pixels: np.ndarray, xp: Any, repeats: int) -> list[dict[str, Any]]:
    half = len(scores) // 2
    rows: list[dict[str, Any]] = []
    for problem, points, bandwidth in [
        ("Scott's covariance", scores, "scott"),
        ("Scott's covariance", scores[:, :2], "scott"),
        ("scalar bandwidth", scores[:, :2], 2.0),
        ("scalar bandwidth", scores, 8.0),
        ("scalar bandwidth, pixels", pixels, 0.5),
    ]:
        x, y = np.ascontiguousarray(points[:half]), np.ascontiguousarray(points[half:])
        d = x.shape[1]
        ours = {
            f"xpsolve {dtype}": (GaussianKDE(_to(x, xp, dtype), bandwidth=bandwidth), _to(y, xp, dtype))
            for dtype in ("float64", "float32")
        }
        calls = {name: (lambda kde=kde, q=q: to_host(kde.log_density(q))) for name, (kde, q) in ours.items()}
        if bandwidth == "scott":
            scipy_kde = scipy.stats.gaussian_kde(x.T)
            calls["peer:scipy gaussian_kde.logpdf"] = lambda kde=scipy_kde, q=y: kde.logpdf(q.T)
            covariance = scipy_kde.covariance
        else:
            tree = KernelDensity(bandwidth=bandwidth).fit(x)
            calls["peer:sklearn KernelDensity.score_samples"] = lambda kde=tree, q=y: kde.score_samples(q)
            covariance = bandwidth**2 * np.eye(d)
        truth = direct_log_density(x, y, covariance)
        timed = interleaved(calls, repeats)
        base = timed["xpsolve float64"][0]
        rows += [
            {
                "problem": f"log-density, {problem}",
                "size": f"{len(x)} x {len(y)}, d={d}",
                "impl": name,
                "seconds": seconds,
                "ratio": seconds / base,
                "error": float(np.max(np.abs(np.asarray(value, dtype=float) - truth))),
                "iterations": None,
                "note": "",
            }
            for name, (seconds, value) in timed.items()
        ]
    return rows


def _to(a: np.ndarray, xp: Any, dtype: str) -> Any:
    return xp.asarray(a.astype(dtype))


def _novelty(scores: np.ndarray, labels: np.ndarray, xp: Any, classes: list[int]) -> dict[int, dict[str, float]]:
    out = {}
    for left_out in classes:
        train = (labels != left_out) & (np.arange(len(labels)) % 4 < 2)
        test = ~train
        found = {}
        for rule in ("scott", "loo"):
            kde = GaussianKDE(xp.asarray(scores[train]), bandwidth=rule)
            novelty = -to_host(kde.log_density(xp.asarray(scores[test])))
            found[rule] = float(roc_auc_score(labels[test] == left_out, novelty))
        out[left_out] = found
    return out


def _map(scores: np.ndarray, labels: np.ndarray, xp: Any) -> Figure:
    plane = np.ascontiguousarray(scores[:, :2])
    low, high = plane.min(0) - 5, plane.max(0) + 5
    a, b = np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120)
    grid = np.stack(np.meshgrid(a, b), axis=-1)
    kde = GaussianKDE(xp.asarray(plane), bandwidth="loo")
    density = to_host(kde.density(xp.asarray(grid.reshape(-1, 2)))).reshape(120, 120)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    filled = axes.contourf(a, b, density, levels=14, cmap="Greys")
    dots = axes.scatter(plane[:, 0], plane[:, 1], c=labels, cmap="tab10", s=5)
    figure.colorbar(filled, ax=axes, label="density")
    axes.legend(*dots.legend_elements(), title="digit", fontsize="x-small", loc="upper right")
    axes.set(xlabel="first principal component", ylabel="second principal component")
    return figure


def _bars(auc: dict[int, dict[str, float]]) -> Figure:
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(auc))
    for shift, rule in ((-0.2, "scott"), (0.2, "loo")):
        axes.bar(place + shift, [row[rule] for row in auc.values()], 0.4, label=rule)
    axes.set(xlabel="digit left out", ylabel="area under the ROC curve", ylim=(0.5, 1.0), xticks=place)
    axes.set_xticklabels([str(k) for k in auc])
    axes.legend(loc="lower right", title="bandwidth")
    return figure


def _curve(scores: np.ndarray, search: Any, xp: Any) -> Figure:
    x, base = xp.asarray(scores), search.covariance / search.factor**2
    factors = search.factor * np.geomspace(0.5, 2.5, 15)
    values = [float(GaussianKDE(x, bandwidth=base * float(f) ** 2).loo_log_likelihood()) for f in factors]
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(factors, values, label="leave-one-out likelihood")
    axes.plot(search.factor, search.log_likelihood, "o", label="found by the search")
    axes.axvline(len(scores) ** (-1 / (DIM + 4)), linestyle=":", label="Scott")
    axes.set(xlabel="factor of the sample covariance's root", ylabel="nats per digit")
    axes.legend()
    return figure

"""Figures 21 to 25: the Newton solvers of entropic transport on stored costs, beside Sinkhorn, regot's SSNS and POT."""

from __future__ import annotations

from typing import Any

import numpy as np

Instance = tuple[Any, Any, Any]


def uniform(n: int) -> Any:
    return np.full(n, 1 / n)


def lap(n: int, seed: int = 0) -> Instance:
    """A random assignment problem."""
    return np.random.default_rng(seed).uniform(size=(n, n)), uniform(n), uniform(n)


def dig(k: int, p: int, i: int = 0, j: int = 1, floor: float = 0.0) -> Instance:
    """Two digit images, each pixel enlarged to k x k; |.|^2 or L1 cost on the pixel grid."""
    from sklearn.datasets import load_digits

    images = load_digits().images
    a, b = (np.kron(images[index], np.ones((k, k))).ravel() for index in (i, j))
    a, b = (w + (floor or 0.01 * w.mean()) for w in (a, b))
    s = 8 * k
    grid = np.stack(np.meshgrid(np.arange(s), np.arange(s), indexing="ij"), axis=-1).reshape(-1, 2).astype(float)
    gaps = np.abs(grid[:, None] - grid)
    C = (gaps**p).sum(axis=2)
    return C / C.max(), a / a.sum(), b / b.sum()


def cloud(n: int, d: int = 2, p: int = 2, seed: int = 0, gaussian: bool = False) -> Instance:
    """Two uniform clouds, or a Gaussian and a shifted narrow one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) if gaussian else rng.uniform(size=(n, d))
    y = 0.5 * rng.normal(size=(n, d)) + 1 if gaussian else rng.uniform(size=(n, d))
    C = ((x[:, None] - y) ** 2).sum(axis=2)
    C = C if p == 2 else np.sqrt(C)
    return C / C.max(), uniform(n), uniform(n)


def robustness_set(n: int = 300, seed: int = 5) -> dict[str, Instance]:
    """Ten problems that between them break most solvers at weak regularisation."""
    rng = np.random.default_rng(seed)
    C = rng.uniform(size=(n, n))
    a, b = rng.uniform(0.1, 1, n), rng.uniform(0.1, 1, n)
    other = np.random.default_rng(7)
    R = other.uniform(size=(200, 350))
    ra, rb = other.dirichlet(np.full(200, 0.3)) + 1e-9, other.dirichlet(np.full(350, 0.3)) + 1e-9
    x = np.linspace(0, 1, 300)
    ha, hb = np.exp(-((x - 0.2) ** 2) / 0.005) + 1e-6, np.exp(-((x - 0.8) ** 2) / 0.002) + 1e-6
    return {
        "lap": lap(n, seed),
        "randmarg": (C, a / a.sum(), b / b.sum()),
        "cloud p=2": cloud(n, 2, 2, seed),
        "cloud p=1": cloud(n, 2, 1, seed),
        "Gaussian d=10": cloud(n, 10, 2, seed, gaussian=True),
        "digits 3 8 p=2": dig(2, 2, 3, 8),
        "digits 3 8 p=1": dig(2, 1, 3, 8),
        "rectangular": (R, ra / ra.sum(), rb / rb.sum()),
        "histograms": ((x[:, None] - x) ** 2, ha / ha.sum(), hb / hb.sum()),
        "digits 0 4, floor 1e-8": dig(1, 2, 0, 4, floor=1e-8),
    }

"""Cases of the families ot and kde (see `cases` for what a case is)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .cases import Case, Data, Prepared, host, relative_error


def _transport(n: int) -> Data:
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(0)
    cost = cdist(rng.random((n, 2)), rng.random((n, 2)) ** 2, "sqeuclidean")
    return {"cost": cost, "a": np.full(n, 1 / n), "reg": 0.02}


def _xpsolve_sinkhorn(data: Data) -> Prepared:
    from xpsolve.solvers.ot import sinkhorn

    def run() -> np.ndarray:
        result = sinkhorn(data["cost"], data["a"], data["a"], reg=data["reg"], tol=1e-6)
        # Potentials in the KL gauge: the weights stand outside the exponential.
        weights = data["a"][:, None] * data["a"][None, :]
        return weights * np.exp((host(result.f)[:, None] + host(result.g)[None, :] - data["cost"]) / data["reg"])

    return run


def _pot_sinkhorn(data: Data) -> Prepared:
    import ot

    return lambda: ot.sinkhorn(
        data["a"], data["a"], data["cost"], data["reg"], method="sinkhorn_log", stopThr=1e-6, numItermax=10000
    )


def _plan_error(data: Data, plan: Any) -> float:
    """L1 violation of both marginals by the plan."""
    plan = np.asarray(plan)
    return float(np.abs(plan.sum(1) - data["a"]).sum() + np.abs(plan.sum(0) - data["a"]).sum())


def _density(n: int, d: int) -> Data:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, d))
    from scipy.special import logsumexp

    h = n ** (-1 / (d + 4))
    squares = ((y[:256, None, :] - x[None, :, :]) ** 2).sum(-1)
    norm = 0.5 * d * np.log(2 * np.pi) + d * np.log(h) + np.log(n)
    return {"x": x, "y": y, "h": h, "log_density": logsumexp(-0.5 * squares / h**2, axis=1) - norm}


def _xpsolve_kde(data: Data) -> Prepared:
    from xpsolve.solvers.kde import GaussianKDE

    return lambda: GaussianKDE(data["x"], bandwidth=data["h"]).log_density(data["y"])


def _sklearn_kde(data: Data) -> Prepared:
    from sklearn.neighbors import KernelDensity

    return lambda: KernelDensity(bandwidth=data["h"]).fit(data["x"]).score_samples(data["y"])


def _density_error(data: Data, answer: Any) -> float:
    return relative_error(data["log_density"], host(answer)[:256])


def _quiet(prepare: Any) -> Any:
    """Peers may warn about what they like; a run that does not converge shows in its error."""

    def quiet(data: Data) -> Prepared:
        run = prepare(data)

        def silent() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return run()

        return silent

    return quiet


def solver_cases() -> list[Case]:
    """Cases of the families ot and kde."""
    transport = {"xpsolve": _xpsolve_sinkhorn, "peer:pot": _quiet(_pot_sinkhorn)}
    kde = {"xpsolve": _xpsolve_kde, "peer:sklearn": _sklearn_kde}
    return [
        Case(
            "ot",
            "Sinkhorn, log domain",
            "500x500, float64",
            lambda: _transport(500),
            transport,
            1e-5,
            _plan_error,
            True,
        ),
        Case(
            "ot", "Sinkhorn, log domain", "2000x2000, float64", lambda: _transport(2000), transport, 5e-5, _plan_error
        ),
        Case(
            "kde", "log-density", "2000x2000, d=2, float64", lambda: _density(2000, 2), kde, 1e-6, _density_error, True
        ),
        Case("kde", "log-density", "4000x4000, d=8, float64", lambda: _density(4000, 8), kde, 1e-6, _density_error),
    ]

"""Figures 26 and 27 of the transport family: what over-relaxation saves, and Newton's method without the matrix."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Iterator
from typing import Any

import array_api_compat.numpy as npx
from xpsolve.problems import cloud, digits_pair, uniform_clouds
from xpsolve.solvers.ot import PointCloud, sinkhorn
from xpsolve.solvers.ot.cloud_newton import cloud_newton

from .timing import interleaved

TOL = 1e-9


def figure_26(repeats: int, longest: int = 3000) -> Iterator[dict[str, Any]]:
    """Iterations of self-tuned over-relaxation over those of plain Sinkhorn, to the same error in the same log domain."""
    from .figures import row

    digits, points = digits_pair(2, 3, xp=npx), cloud(500, 2, xp=npx)
    for problem, weak in ((digits, 400), (digits, 1200), (points, 1000)):
        found = {}
        for name, more in {
            "plain": {}, "tuned": {"omega": "auto"}, "1.8": {"omega": 1.8}, "anderson": {"acceleration": "anderson"}
        }.items():  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = sinkhorn(
                    problem.cost, problem.a, problem.b, reg=1 / weak, tol=TOL, maxiter=longest, **more
                )
        counts = ", ".join(f"{name} {r.n_iter}{'' if r.converged else '+'}" for name, r in found.items())
        yield row(
            26, f"over-relaxed / plain iterations, {problem.name}, 1/reg={weak}",
            found["tuned"].n_iter / found["plain"].n_iter if found["tuned"].converged else None, "<= 0.1667",
            error=found["tuned"].residual, peer_error=found["plain"].residual, note=counts,
        )  # fmt: skip


def figure_27(repeats: int, n: int = 4000, reg: float = 1e-3) -> Iterator[dict[str, Any]]:
    """Passes over all pairs, peak memory and time of the matrix-free Newton method on uniform points in the unit square."""
    from .figures import row

    cost = PointCloud(*uniform_clouds(n, n, 2, xp=npx), threads=1)

    def run() -> Any:
        return cloud_newton(cost, reg=reg, tol=TOL)

    seconds, result = interleaved({"xpsolve": run}, repeats)["xpsolve"]
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1] / (8 * n * n)
    tracemalloc.stop()
    passes = result.evaluations["passes"]
    note = f"{result.status.name}: {dict(result.evaluations)}, {seconds:.2f} s of CPU time, the subsample's included"
    what = f"matrix-free Newton, n={n}, d=2, reg={reg:g}, error {TOL:g}"
    yield row(
        27, f"{what}: passes", float(passes) if result.converged else None, "<= 25", error=result.residual, note=note
    )
    yield row(27, f"{what}: peak memory / float64 matrix", peak, "<= 0.15", error=result.residual)

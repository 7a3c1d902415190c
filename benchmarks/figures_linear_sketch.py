"""Sketched least squares (the least-squares half of figure 18): backward errors against Householder QR, time against LAPACK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
from xpsolve.solvers.linear.sketching import lstsq_sketched

from .timing import interleaved

# (condition, residual) of the hard problems, from the paper on the stability of sketched solvers.
HARD = [(1e6, 1e-3), (1e10, 1e-12), (1e12, 1e-12), (1e12, 1e-3)]
_SHAPE = (40_000, 600)


def hard_least_squares(m: int, n: int, condition: float, residual: float, seed: int = 1) -> tuple[Any, Any, Any]:
    """``A``, ``b`` and the exact solution: singular values even in the logarithm, a residual of known norm."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((m, n + 1)))[0]
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = (U[:, :n] * np.logspace(0, -np.log10(condition), n)) @ V.T
    x = rng.standard_normal(n)
    x /= np.linalg.norm(x)
    return A, A @ x + residual * U[:, n], x


def backward_error(A: Any, b: Any, x: Any) -> float:
    """Estimate of Karlson and Walden of the smallest change of ``A`` for which ``x`` is exact, by a full SVD."""
    _, sigma, Vh = np.linalg.svd(A, full_matrices=False)
    r = b - A @ x
    return float(np.linalg.norm(Vh @ (A.T @ r) / np.sqrt((np.linalg.norm(x) * sigma) ** 2 + np.linalg.norm(r) ** 2)))


def figure_18(repeats: int, shape: tuple[int, int] = _SHAPE) -> Iterator[dict[str, Any]]:
    """Rows of figure 18: stability on the hard problems, and the time of the fastest method at ``shape``."""
    from .figures import row

    for condition, residual in HARD:
        A, b, _ = hard_least_squares(4000, 50, condition, residual)
        Q, R = np.linalg.qr(A)
        peer = backward_error(A, b, scipy.linalg.solve_triangular(R, Q.T @ b))
        # The worst of some sketches: one lucky draw proves nothing.
        runs = [lstsq_sketched(A, b, rng=seed) for seed in range(5)]
        worst = max(backward_error(A, b, run.x) for run in runs)
        unconverged = sum(not run.converged for run in runs)
        what = f"backward error, sketched least squares / Householder QR, condition {condition:.0e}, residual {residual:.0e}"
        note = f"{unconverged} of {len(runs)} runs not converged" if unconverged else ""
        yield row(18, what, worst / peer, "<= 10", error=worst, peer_error=peer, note=note)

    m, n = shape
    rng = np.random.default_rng(0)
    scales = np.logspace(0, -4, n)
    A, b = rng.standard_normal((m, n)) * scales, rng.standard_normal(m)
    times = interleaved(
        {
            "precondition": lambda: lstsq_sketched(A, b, method="precondition", rng=1).x,
            "fossils": lambda: lstsq_sketched(A, b, rng=1).x,
            "scipy": lambda: scipy.linalg.lstsq(A, b)[0],
        },
        min(repeats, 3),
    )
    Q, R = np.linalg.qr(A)
    truth = scipy.linalg.solve_triangular(R, Q.T @ b)

    def off(x: Any) -> float:
        return float(np.linalg.norm((x - truth) * scales) / np.linalg.norm(truth * scales))

    for method, target in (("precondition", "<= 0.8"), ("fossils", "")):
        yield row(18, f"least squares {m} x {n}, xpsolve ({method}) / scipy.linalg.lstsq", times[method][0] / times["scipy"][0],
            target, error=off(times[method][1]), peer_error=off(times["scipy"][1]),
        )  # fmt: skip

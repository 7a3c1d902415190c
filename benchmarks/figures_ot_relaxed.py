"""Figure 26, the parts of divergence and unbalanced transport: iterations of the self term, Newton steps at a weak relaxation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from xpsolve.solvers.ot.self_transport import self_transport
from xpsolve.solvers.ot.unbalanced import unbalanced

from .timing import interleaved

Row = dict[str, Any]


def figure_26(repeats: int, n: int = 300) -> Iterator[Row]:
    """Counts, and the time beside that of Sinkhorn with the translation step."""
    from .figures import row

    x = np.random.default_rng(0).random((n, 2))
    C = ((x[:, None] - x) ** 2).sum(axis=2)
    for reg in (0.1, 0.01, 0.001):
        result = self_transport(C, reg=reg, tol=1e-12)
        what = f"self term to 1e-12, reg={reg:g}: iterations"
        yield row(26, what, result.n_iter if result.converged else None, "<= 40", error=result.residual)
    rng = np.random.default_rng(1)
    X, a = rng.normal(size=(60, 3)), rng.uniform(0.5, 1, 60)
    Y, b = rng.normal(size=(50, 3)) + 0.5, rng.uniform(0.5, 1, 50)
    costs, a, b = ((X[:, None] - Y) ** 2).sum(axis=2), 1.3 * a / a.sum(), b / b.sum()
    options: dict[str, Any] = {"reg": 0.1, "reg_a": 100.0, "reg_b": 100.0, "tol": 1e-10}
    times = interleaved(
        {
            method: lambda method=method: unbalanced(costs, a, b, method=method, **options)
            for method in ("newton", "sinkhorn")
        },
        repeats,
    )
    seconds, result = times["newton"]
    what = "unbalanced, r=100, eps=0.1, to 1e-10: Newton steps"
    steps = result.evaluations["newton"] if result.converged else None
    yield row(26, what, steps, "<= 20", error=result.residual, seconds=seconds)
    slow, plain = times["sinkhorn"]
    note = f"{plain.n_iter} iterations of Sinkhorn, {result.evaluations['passes']} exponential passes of Newton"
    yield row(
        26,
        "unbalanced, r=100, eps=0.1, to 1e-10: Sinkhorn / Newton, time",
        slow / seconds,
        error=result.residual,
        peer_error=plain.residual,
        note=note,
    )

"""Exact transport as a linear programme, by HiGHS (Huangfu and Hall 2018) through SciPy on the host."""

from __future__ import annotations

import math
from typing import Any

from ...backends.errors import InputError

# What SciPy's linprog says where it found no feasible point.
_INFEASIBLE = 2


def program(C: Any, a: Any, b: Any) -> tuple[Any, Any, Any, Any, Any]:
    """The linear program by HiGHS, forbidden pairs left out."""
    import numpy as np
    import scipy.sparse as sps
    from scipy.optimize import linprog

    n, m = C.shape
    rows, columns = np.nonzero(np.isfinite(C))
    k = rows.size
    matrix = sps.csr_array(
        (np.ones(2 * k), (np.concatenate([rows, n + columns]), np.tile(np.arange(k), 2))), shape=(n + m, k)
    )
    a, b = a.astype("float64"), b.astype("float64")
    # HiGHS has absolute tolerances: the program it sees has costs in [0, 1] and weights of mean about one.
    costs, mass, size = C[rows, columns], float(a.sum()), max(n, m)
    low = float(costs.min()) if k else 0.0
    span = float(costs.max()) - low if k else 0.0
    span = span if span > 0 else 1.0
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    right = np.concatenate([a / mass, b / b.sum()]) * size
    # The presolve compares sums without a tolerance and may miss a plan by rounding alone; the solver itself does not.
    for presolve in (True, False):
        answer = linprog(
            (costs - low) / span,
            A_eq=matrix,
            b_eq=right,
            bounds=(0, None),
            method="highs",
            options=options | {"presolve": presolve},
        )
        if answer.status != _INFEASIBLE:
            break
    if answer.x is None or answer.status != 0:
        raise InputError(f"cost leaves no plan with the marginals a and b, or the program failed: {answer.message}")
    plan, dual, kept = answer.x * (mass / size), span * answer.eqlin.marginals, answer.x > 0
    dual[:n] += low
    # A feasible pair again after rounding, and finite where a point takes no part.
    g = np.where(b > 0, dual[n:], -math.inf)
    f = (C - g[None, :]).min(axis=1)
    f = np.where(np.isfinite(f), f, dual[:n])
    g = np.where(b > 0, g, np.where(np.isfinite(C), C - f[:, None], math.inf).min(axis=0))
    return rows[kept], columns[kept], plan[kept], f, g

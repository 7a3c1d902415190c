"""Exact transport between as many sources as targets, all of equal weight: an assignment, through SciPy on the host.

Crouse (2016) for the assignment; its potentials by Bellman and Ford's shortest paths.
"""

from __future__ import annotations

from typing import Any

from ...backends.errors import InputError


def assignment(C: Any, mass: float) -> tuple[Any, Any, Any, Any, Any]:
    """SciPy's assignment, and potentials by shortest paths over the assigned pairs."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    try:
        rows, columns = linear_sum_assignment(C)
    except ValueError as err:
        raise InputError("cost forbids so many pairs that no assignment is left") from err
    n = C.shape[0]
    matched = C[rows, columns]
    # f_i - f_k <= C[i, s(k)] - C[k, s(k)]: Bellman and Ford's relaxation, which ends within n rounds.
    slack = C[:, columns] - matched[None, :]
    least = 1e-14 * np.abs(C[np.isfinite(C)]).max()
    f = np.zeros(n)
    for _ in range(n):
        new = np.minimum(f, (slack + f[None, :]).min(axis=1))
        done = bool(np.all(new >= f - least))
        f = new
        if done:
            break
    g = np.empty(n)
    g[columns] = matched - f
    return rows, columns, np.full(n, mass), f, g

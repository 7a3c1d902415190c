"""Feasible plans and certified bounds: what an entropic solution says about the unregularised problem.

A nearly feasible plan becomes feasible by scaling rows and columns down and adding a matrix of rank one (Altschuler, Weed,
Rigollet 2017). Its cost bounds the transport cost from above; potentials made feasible by two c-transforms bound it from below.
"""

from __future__ import annotations

import math
from typing import Any

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace
from ...backends.transfer import host_float
from ...backends.validation import check_array, check_weights
from .plan_tiles import tiles, widened
from .problem import check_equal_sums, finite, log_weights, shrinkage
from .result import TransportResult


def round_to_polytope(P: Array, a: Array, b: Array) -> Array:
    """The plan ``R`` near ``P`` with marginals ``a`` and ``b``: ``|R - P|_1 <= 2 (|P 1 - a|_1 + |P^T 1 - b|_1)``.

    Parameters
    ----------
    P : array (n, m)
        Non-negative.
    a, b : array (n,), (m,)
        Non-negative weights of equal sums.

    Returns
    -------
    array (n, m)
        Non-negative, with marginals ``a`` and ``b`` up to rounding.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    References
    ----------
    J. Altschuler, J. Weed, P. Rigollet, Near-linear time approximation algorithms for optimal transport via Sinkhorn
    iteration, 2017, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.rounding import round_to_polytope
    >>> half = np.full(2, 0.5)
    >>> round_to_polytope(np.asarray([[0.5, 0.1], [0.0, 0.3]]), half, half).round(4).tolist()
    [[0.4167, 0.0833], [0.0833, 0.4167]]
    """
    xp = array_namespace(P=P, a=a, b=b)
    check_array(P, "P", xp, ndim=2)
    if host_float(xp.min(P)) < 0:
        raise InputError("P has negative entries; a plan must be non-negative")
    check_weights(a, "a", xp, n=P.shape[0], dtype=P.dtype)
    check_weights(b, "b", xp, n=P.shape[1], dtype=P.dtype)
    check_equal_sums(host_float(xp.sum(a)), host_float(xp.sum(b)), a, xp)
    P = P * shrinkage(a, xp.sum(P, axis=1), xp)[:, None]
    P = P * shrinkage(b, xp.sum(P, axis=0), xp)[None, :]
    # Rounding may leave -1e-20 where nothing is missing.
    missing_a, missing_b = xp.maximum(a - xp.sum(P, axis=1), 0.0), xp.maximum(b - xp.sum(P, axis=0), 0.0)
    total = xp.sum(missing_a)
    return P + missing_a[:, None] * (missing_b / xp.where(total > 0, total, 1.0))[None, :]


def bounds(result: TransportResult) -> tuple[float, float]:
    """Lower and upper bound of the unregularised transport cost ``min <C, P>``, from a balanced entropic result.

    Parameters
    ----------
    result : TransportResult
        Of any balanced solver, converged or not.

    Returns
    -------
    (float, float)
        The value of a feasible dual pair, and the cost of a feasible plan; infinite where forbidden pairs stand in the way.

    Notes
    -----
    Five passes over the pairs, in tiles of bounded memory; float32 problems are bounded in float64. At convergence the upper
    bound exceeds the cost by at most ``reg * min(H(a), H(b))``, ``H`` being the entropy; both tighten as ``reg`` falls.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import sinkhorn
    >>> from xpsolve.solvers.ot.rounding import bounds
    >>> C = np.asarray([[0.0, 1.0], [1.0, 0.5]])
    >>> lower, upper = bounds(sinkhorn(C, reg=0.1))
    >>> bool(lower <= 0.25 <= upper), round(upper - lower, 3)
    (True, 0.0)
    """
    if not isinstance(result, TransportResult):
        raise InputError(f"result must be a TransportResult, got {type(result).__name__}")
    if hasattr(result, "reg_a"):
        raise InputError("result must be of balanced transport: with free marginals there is no such bound")
    if not result.reg > 0:
        raise InputError("result is exact already: its value and dual_value are the bounds")
    result = widened(result)
    geometry, xp = result.geometry, result.geometry.xp
    a, b, f, g = result.a, result.b, result.f, result.g
    # In float32 the sums are equal to 1e-7 only; a plan needs equal ones.
    b = b * (xp.sum(a) / xp.sum(b))
    F, G = log_weights(a, xp) + finite(f, xp) / result.reg, log_weights(b, xp) + finite(g, xp) / result.reg
    return _lower(geometry, a, b, g, xp), _upper(geometry, a, b, F, G, result.reg, xp)


def _upper(geometry: Any, a: Array, b: Array, F: Array, G: Array, reg: float, xp: Namespace) -> float:
    """Cost of the rounded plan, by its row sums, column sums, row sums again, and one pass over the costs."""
    kernel = geometry.kernel(reg)
    x = shrinkage(a, xp.exp(F + kernel.rows(G, None)), xp)
    F = F + log_weights(x, xp)
    columns = xp.exp(G + kernel.columns(F, None))
    y = shrinkage(b, columns, xp)
    G = G + log_weights(y, xp)
    missing_a = xp.maximum(a - xp.exp(F + kernel.rows(G, None)), 0.0)
    missing_b = xp.maximum(b - columns * y, 0.0)
    total = host_float(xp.sum(missing_a))
    scale = missing_b / (total if total > 0 else 1.0)
    parts = []
    for i, j, C, logs in tiles(geometry, reg):
        P = xp.exp(F[i:j, None] + G[None, :] + logs) + missing_a[i:j, None] * scale[None, :]
        parts.append(xp.sum(xp.where(P > 0, P * xp.where(P > 0, C, 0.0), 0.0)))
    return host_float(xp.sum(xp.stack(parts)))


def _lower(geometry: Any, a: Array, b: Array, g: Array, xp: Namespace) -> float:
    """``<a, f> + <b, g>`` after ``f_i = min_j C_ij - g_j`` and ``g_j = min_i C_ij - f_i`` over the points with weight."""
    # Where a point has no weight its potential may be as low as it likes.
    g = xp.where(b > 0, finite(g, xp), -math.inf)
    parts, best = [], None
    for i, j, C, _ in tiles(geometry, 1.0):
        f = xp.min(C - g[None, :], axis=1)
        parts.append(f)
        f = xp.where((a[i:j] > 0) & xp.isfinite(f), f, -math.inf)
        low = xp.min(C - f[:, None], axis=0)
        best = low if best is None else xp.minimum(best, low)
    f = xp.concat(parts, axis=0)
    value = xp.sum(xp.where(a > 0, a * xp.where(a > 0, f, 0.0), 0.0))
    return host_float(value + xp.sum(xp.where(b > 0, b * xp.where(b > 0, best, 0.0), 0.0)))

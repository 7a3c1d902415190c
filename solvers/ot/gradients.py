"""Gradients of the value of entropic transport by the envelope theorem: no unrolling, no linear solve.

At the optimum the value changes only through what the problem is made of: by the cost as the plan, by the weights as the
potentials (Feydy et al. 2019, "Interpolating between optimal transport and MMD using Sinkhorn divergences").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...backends.errors import InputError
from ...backends.namespace import Array, array_namespace
from ...backends.scatter import segment_sum
from ...backends.transfer import host_bool, host_float
from .exact_result import ExactResult
from .geometry import PointCloud
from .plan_tiles import differentiable_cloud, pair_gradients, plan_tiles, tile_dtype
from .problem import finite
from .result import TransportResult
from .unbalanced_problem import UnbalancedResult, kl_divergence

_NAMES = ("a", "b", "cost", "x", "y", "reg")
_RELAXATIONS = ("reg_a", "reg_b")


def gradients(result: TransportResult, wrt: str | Sequence[str] | None = None) -> dict[str, Array]:
    """Derivatives of ``result.value``, the minimum of ``<C, P> + reg sum P log(P / a b^T)`` over the plans.

    ``dV/da = f``, ``dV/db = g``, ``dV/dC = P``, ``dV/dx_i = sum_j P_ij dc(x_i, y_j)/dx_i``,
    ``dV/dreg = sum P log(P / a b^T)``.

    Parameters
    ----------
    result : TransportResult
        Converged: errors of the gradients are of the order of its residual. Of an `ExactResult` (where ``reg`` has no meaning)
        they are one-sided where the optimal plan or the potentials are not unique. Of an `UnbalancedResult` they are those of
        its own value: ``dV/da = grad_a()``, ``dV/dreg = KL(P | a b^T)``, ``dV/dreg_a = KL(P 1 | a)``, the others as above.
    wrt : str or sequence of str, optional
        Any of ``"a"``, ``"b"``, ``"reg"``; of a cost matrix ``"cost"``; of a `PointCloud` ``"x"``, ``"y"``. Default all of
        these but ``"cost"``, whose gradient is the whole plan and is formed only when asked for. Of unbalanced transport also
        ``"reg_a"`` and ``"reg_b"`` where they are finite.

    Returns
    -------
    dict of str to array
        Each in the shape, dtype and library of what it is the derivative by; ``"reg"`` is 0-d.

    Raises
    ------
    InputError
        A name that is unknown or has no meaning for the cost, or a cost whose derivative is not known (a user's function).

    Notes
    -----
    In balanced transport weights of equal sums leave the two gradients a common constant, ``(f + s, g - s)``; it is chosen so that
    ``<a, f> = <b, g>``. They hold for changes that keep the total mass, as on the simplex: subtract the mean for the
    component along it. Where a weight is zero the gradient is that of its growth from zero.

    Costs ``|x-y|^2`` need one pass over the pairs for ``"x"`` and one for ``"y"``, ``|x-y|`` and the city block cost one
    pass in tiles for both; nothing of size n x m is stored. The derivative of ``|x-y|`` at coincident points, and of
    the city block cost at equal coordinates, is taken as 0.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import PointCloud, sinkhorn
    >>> from xpsolve.solvers.ot.gradients import gradients
    >>> x = np.asarray([[0.0], [1.0]])
    >>> gradients(sinkhorn(PointCloud(x, x + 3.0), reg=0.25), "x")["x"].round(2).tolist()
    [[-3.02], [-2.98]]
    """
    names = check_names(wrt, result)
    xp, dtype = result.geometry.xp, result.f.dtype
    found: dict[str, Array] = {}
    if isinstance(result, UnbalancedResult):
        found |= {name: _RELAXED[name](result) for name in names if name in _RELAXED}
    elif "a" in names or "b" in names:
        found["a"], found["b"] = centred_potentials(result)
    points = set(names) & {"x", "y"}
    if isinstance(result, ExactResult):
        if "cost" in names:
            found["cost"] = result.entries()
        found |= _by_entries(result) if points else {}
        return {name: found[name] for name in names}
    if "cost" in names:
        found |= pair_gradients(result, None, {"cost"})
    if points and differentiable_cloud(result.geometry).metric == "sqeuclidean":
        found |= _by_averages(result, points)
    else:
        found |= pair_gradients(result, None, points)
    if "reg" in names and "reg" not in found:
        found["reg"] = information(result)
    # NumPy makes scalars of 0-d arrays.
    return {name: xp.asarray(found[name], dtype=dtype) for name in names}


def check_names(wrt: str | Sequence[str] | None, result: TransportResult) -> tuple[str, ...]:
    """The names that are asked for; all but ``"cost"`` by default."""
    if not isinstance(result, TransportResult):
        raise InputError(f"result must be the result of a transport solver, got {type(result).__name__}")
    relaxed = _finite_relaxations(result)
    cloud = isinstance(result.geometry, PointCloud)
    if wrt is None:
        known = isinstance(result.geometry, PointCloud) and not callable(result.geometry.metric)
        points, reg = ("x", "y") if known else (), () if isinstance(result, ExactResult) else ("reg",)
        return ("a", "b", *points, *reg, *relaxed)
    if not isinstance(wrt, str) and not isinstance(wrt, Sequence | set | frozenset):
        raise InputError(f"wrt must be a name or several, got {type(wrt).__name__}")
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name == "reg" and isinstance(result, ExactResult):
            raise InputError("wrt names 'reg', but an exact plan has no regularisation")
        if name in _RELAXATIONS and name not in relaxed:
            raise InputError(f"wrt names {name!r}, but no marginal is relaxed by a finite {name}")
        if name not in (*_NAMES, *_RELAXATIONS):
            raise InputError(f"wrt names {name!r}, expected some of {', '.join(map(repr, _NAMES))}")
        if name in ("x", "y"):
            differentiable_cloud(result.geometry)
        if name == "cost" and cloud:
            raise InputError("wrt names 'cost', but the costs of a PointCloud are not stored; ask for 'x' and 'y'")
    return names


def _finite_relaxations(result: TransportResult) -> tuple[str, ...]:
    return tuple(name for name in _RELAXATIONS if math.isfinite(getattr(result, name, math.inf)))


# What the value of unbalanced transport has of its own.
_RELAXED: dict[str, Callable[[UnbalancedResult], Array]] = {
    "a": UnbalancedResult.grad_a,
    "b": UnbalancedResult.grad_b,
    "reg": lambda result: information(result) - (result.mass - _mass(result.a) * _mass(result.b)),
    "reg_a": lambda result: kl_divergence(result.marginals()[0], result.a, result.geometry.xp),
    "reg_b": lambda result: kl_divergence(result.marginals()[1], result.b, result.geometry.xp),
}


def _mass(w: Array) -> float:
    return host_float(array_namespace(w=w).sum(w))


def centred_potentials(result: TransportResult) -> tuple[Array, Array]:
    """``f`` and ``g`` with ``<a, f> = <b, g>``, continued to points without weight by their soft c-transform."""
    xp, reg = result.geometry.xp, result.reg
    f, g = finite(result.f, xp), finite(result.g, xp)
    shift = 0.5 * (xp.sum(result.b * g) - xp.sum(result.a * f)) / xp.sum(result.a)
    if isinstance(result, ExactResult):
        # Its potentials are continued already.
        return f + shift, g - shift
    (F, G), empty_a, empty_b = result.scaled(), result.a == 0, result.b == 0
    if host_bool(xp.any(empty_a) | xp.any(empty_b)):
        kernel = result.geometry.kernel(reg)
        # The potentials of the others reach every point; a point that none can reach has an infinite one.
        f, g = xp.where(empty_a, -reg * kernel.rows(G, None), f), xp.where(empty_b, -reg * kernel.columns(F, None), g)
    return f + shift, g - shift


def information(result: TransportResult) -> Array:
    """``sum P log(P / a b^T)``, 0-d: the mean of ``(f + g - C) / reg``."""
    geometry, xp = result.geometry, result.geometry.xp
    f, g = finite(result.f, xp), finite(result.g, xp)
    # The three are large where the regularisation is weak and their sum is not: it is formed before any sum over points.
    if isinstance(geometry, PointCloud) and geometry.metric == "sqeuclidean":
        rows, costs, partners = result.row_means(geometry)
        return xp.sum(rows * (f + partners - costs)) / result.reg
    f, g = (xp.astype(potential, tile_dtype(geometry), copy=False) for potential in (f, g))
    parts = []
    for tile, plan in plan_tiles(result):
        logs = f[tile.start : tile.stop][:, None] + g[None, :] - tile.cost
        parts.append(xp.sum(plan * xp.where(plan > 0, logs, 0.0)))
    return xp.sum(xp.stack(parts)) / result.reg


def _by_averages(result: TransportResult, points: set[str]) -> dict[str, Array]:
    """``2 r_i (x_i - mean of its partners)``, and the same of the target: one pass each."""
    cloud, xp, (F, G) = result.geometry, result.geometry.xp, result.scaled()
    assert isinstance(cloud, PointCloud)
    found, pairs = {}, cloud.pairs(cloud.x, result.reg, passes=len(points))
    for name, here, there, own, other, reduction in (
        ("x", cloud.x, cloud.y, F, G, pairs),
        ("y", cloud.y, cloud.x, G, F, pairs.T),
    ):
        if name in points:
            # About the common centre the means lose no digits to a large offset.
            centre = xp.mean(there, axis=0)
            partners, logs = reduction.softmax_sum(there - centre, other)
            found[name] = 2.0 * cloud.factor * xp.exp(own + logs)[:, None] * (here - centre - partners)
    return found


def _by_entries(result: ExactResult) -> dict[str, Array]:
    """Sums of ``P_ij dc(x_i, y_j)/dx_i`` over the stored entries of an exact plan, and the same of the target."""
    cloud, xp = differentiable_cloud(result.geometry), result.geometry.xp
    difference = xp.take(cloud.x, result.rows, axis=0) - xp.take(cloud.y, result.columns, axis=0)
    if cloud.metric == "sqeuclidean":
        slope = 2.0 * difference
    elif cloud.metric == "cityblock":
        slope = xp.sign(difference)
    else:
        # Zero lies in the subdifferential of |x - y| at coincident points.
        length = xp.linalg.vector_norm(difference, axis=1)[:, None]
        slope = difference / xp.where(length > 0, length, 1.0)
    change = cloud.factor * result.weights[:, None] * slope
    n, m = cloud.shape
    return {
        "x": segment_sum(change, result.rows, n, xp=xp, trusted=True),
        "y": -segment_sum(change, result.columns, m, xp=xp, trusted=True),
    }

"""Whether the process of a PDE is between the points of its grid what it is on them.

The equation is asked for on the grid only. A component just below the Nyquist frequency can vanish there in all that is
asked for and leave room for a slow error of the solution; halfway between the points it cannot hide.
"""

from __future__ import annotations

import math

from ....backends.namespace import Array
from ....backends.transfer import to_host
from ._gp_model import STRAIGHT, Model, Solution

# Points of the two interpolations whose difference is the error to be expected of them.
_FEWER, _MORE = 12, 16
# A difference that so far exceeds this error is the process' own.
_PLAIN = 10.0


def between_points(model: Model, s: Solution) -> float:
    """How far the process' second derivatives halfway between grid points are from what those on the grid interpolate to.

    The root mean square difference relative to that of the derivatives themselves, the largest over the axes; zero where the
    error of the interpolation explains it (waves near the Nyquist frequency) or the grid is too short for one.
    """
    xp, found = model.xp, 0.0
    for axis, n in enumerate(model.shape):
        if n < _MORE + 2:
            continue
        on_grid, middle = model.curvature(s, axis), model.curvature_between(s, axis)
        inner = slice(_MORE // 2 - 1, n - _MORE // 2)
        best = _interpolated(on_grid, _MORE)
        trim = (_MORE - _FEWER) // 2
        rough = _interpolated(on_grid, _FEWER)[trim:-trim, ...]
        facts = [xp.mean(a * a) ** 0.5 for a in (s.u, on_grid, middle[inner, ...] - best, rough - best)]
        size, curvature, differ, expected = (float(fact) for fact in to_host(xp.stack(facts)))
        bent = curvature * model.steps[axis] ** 2 > STRAIGHT * size
        if bent and not differ <= _PLAIN * expected:
            found = max(found, differ / curvature)
    return found


def _interpolated(values: Array, points: int) -> Array:
    """Values (n, ...) halfway between the points of a uniform grid, by the polynomial through the ``points`` nearest."""
    n, total = values.shape[0], None
    for i in range(points):
        at = i - 0.5 * (points - 1)
        others = [j - 0.5 * (points - 1) for j in range(points) if j != i]
        part = math.prod(-x / (at - x) for x in others) * values[i : n - points + 1 + i, ...]
        total = part if total is None else total + part
    return total

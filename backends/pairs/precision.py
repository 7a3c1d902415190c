"""What float32 can carry: centring, and when exponents must be formed in float64."""

from __future__ import annotations

from ..namespace import Array, Namespace, has_float64
from ..transfer import host_float
from .kernels import Kernel
from .problem import PairProblem

# Relative error of a float32 kernel value above which exponents are formed in float64 (1.3 to 1.6 times the time).
_TARGET = 1e-5
_EPS32 = 6e-8


def needs_mixed(x: Array, y: Array, kernel: Kernel, xp: Namespace) -> bool:
    """Whether float32 exponents would lose more than the target: their error is about ``eps * scale * R^2``.

    ``R`` is the radius of the points about their centre. Euclidean distances are square roots of an expansion, so their
    error near zero is only the square root of that: they are always formed in float64.
    """
    if x.dtype != xp.float32 or not has_float64(x, xp) or 0 in (x.shape[0], y.shape[0], x.shape[1]):
        return False
    if kernel.metric == "euclidean":
        return True
    if kernel.metric != "sqeuclidean":
        return False
    wide = xp.float64
    centre = xp.mean(xp.astype(y, wide), axis=0)
    radii = xp.stack([xp.max(xp.sum((xp.astype(p, wide) - centre) ** 2, axis=1)) for p in (x, y)])
    return 2 * _EPS32 * kernel.scale * host_float(xp.max(radii)) > _TARGET


def centred(problem: PairProblem) -> tuple[Array, Array]:
    """The points about their common centre, in float64 when the problem is mixed.

    Squared distances do not change, but the expansion |x|^2 + |y|^2 - 2 x.y no longer cancels at large offsets. Metrics
    that are not invariant under translation (a dot product, a user's function) are left where they are.
    """
    x, y, xp = problem.x, problem.y, problem.xp
    wide = xp.float64 if has_float64(x, xp) else x.dtype
    work = wide if problem.mixed else x.dtype
    if problem.kernel.metric not in ("sqeuclidean", "euclidean", "cityblock") or 0 in (y.shape[0], y.shape[1]):
        return xp.astype(x, work, copy=False), xp.astype(y, work, copy=False)
    centre = xp.mean(xp.astype(y, wide), axis=0)
    return xp.astype(xp.astype(x, wide) - centre, work), xp.astype(xp.astype(y, wide) - centre, work)

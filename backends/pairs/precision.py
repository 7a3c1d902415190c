"""What a precision can carry: centring, and when distances must not come from a product of the points."""

from __future__ import annotations

from typing import Any

from ..namespace import Array, Namespace, finfo_eps, has_float64, wide_dtype
from ..transfer import host_float
from .kernels import Kernel
from .problem import PairProblem

# Relative error of a kernel value above which |x|^2 + |y|^2 - 2 x.y will not do: float32 then forms exponents in float64 (1.3
# to 1.6 times the time), float64 takes direct differences (d times the passes).
_TARGET = {"float32": 1e-5, "float64": 1e-11}


def expansion_loses(x: Array, y: Array, kernel: Kernel, xp: Namespace) -> bool:
    """Whether distances by one product lose more than the target: the error of an exponent is about ``eps * scale * R^2``.

    ``R`` is the radius of the points about their centre. Euclidean distances are square roots of an expansion, so their
    error near zero is only the square root of that: they are never expanded.
    """
    if kernel.metric == "euclidean":
        return True
    if kernel.metric != "sqeuclidean" or 0 in (x.shape[0], y.shape[0], x.shape[1]):
        return False
    # An estimate: the precision of the data will do, once the centre is right.
    centre = xp.astype(xp.sum(y, axis=0, dtype=wide_dtype(x, xp)) / y.shape[0], x.dtype)
    radius = host_float(xp.max(xp.stack([_radius(p - centre, xp) for p in (x, y)])))
    target = _TARGET["float32" if x.dtype == xp.float32 else "float64"]
    return finfo_eps(x.dtype, xp) * kernel.scale * radius * radius > target


def _radius(moved: Array, xp: Namespace) -> Array:
    """The largest norm of a row; divided first, so that no square overflows."""
    top = xp.max(xp.abs(moved))
    scaled = moved / xp.where(top > 0, top, 1.0)
    return top * xp.sqrt(xp.max(xp.sum(scaled * scaled, axis=1)))


def out_of_range(kernel: Kernel, dtype: Any, xp: Namespace) -> bool:
    """Whether squares of distances that matter to the kernel would over- or underflow float32."""
    return bool(dtype == xp.float32) and not 1e-30 <= abs(kernel.scale) <= 1e30


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
    centre = xp.sum(y, axis=0, dtype=wide) / y.shape[0]
    x, y = (xp.astype(p, wide, copy=False) - centre for p in (x, y))
    return xp.astype(x, work, copy=False), xp.astype(y, work, copy=False)

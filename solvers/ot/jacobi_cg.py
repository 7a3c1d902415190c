"""The conjugate gradients of the Newton methods on stored plans: preconditioned by a diagonal, judged by the norm of marginals.

`solvers.linear.cg` stops by the 2-norm; here a step is solved in the L1 norm by which it is judged, and its host is asked once a
look for everything.
"""

from __future__ import annotations

from collections.abc import Callable

from ...backends.namespace import Array, Namespace, is_gpu
from ...backends.transfer import to_host
from ...backends.validation import unwarned

# Iterations between two looks on a GPU, where each is a synchronisation.
_LOOK = 10


def jacobi_cg(
    apply: Callable[[Array], Array],
    scale: Array,
    b: Array,
    goal: float,
    maxiter: int,
    *,
    xp: Namespace,
    check_every: int | None = None,
) -> tuple[Array, int]:
    """CG for a semidefinite system, preconditioned by the diagonal ``scale``, until the L1 residual is at most ``goal``.

    Stops at a direction without curvature: what rounding leaves of the null space. Between looks the iterate then stays.

    Returns
    -------
    x : array
        The iterate.
    n_iter : int
        Iterations done.
    """
    check_every = check_every or (_LOOK if is_gpu(b) else 1)
    residual, x = b, xp.zeros_like(b)
    p = scale * residual
    rho = xp.sum(residual * p)
    ok = rho == rho
    with unwarned():
        for i in range(1, maxiter + 1):
            q = apply(p)
            curvature = xp.sum(p * q)
            ok = ok & (curvature > 0)
            alpha = xp.where(ok, rho / curvature, 0.0)
            x = x + alpha * p
            residual = residual - alpha * q
            if i == 1 or i % check_every == 0:
                good, size = to_host(xp.stack([xp.astype(ok, b.dtype), xp.sum(xp.abs(residual))]))
                if not good or size <= goal:
                    return x, i
            z = scale * residual
            rho, old = xp.sum(residual * z), rho
            p = z + xp.where(ok, rho / old, 0.0) * p
    return x, maxiter

"""Sinkhorn-Newton-Sparse (Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao and Ying, ICLR 2024).

Some Sinkhorn iterations, then Newton steps on the concave Lyapunov function ``<a, F> + <b, G> - reg sum P`` of both
potentials, the Hessian ``[[diag(P 1), P], [P^T, diag(P^T 1)]] / reg`` with only the large entries of its blocks ``P`` kept.
"""

from __future__ import annotations

import math

from ...backends.namespace import Array
from ...backends.transfer import host_float
from ...backends.validation import check_count, unwarned
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ..result import Status
from .autograd import bare, detached, with_gradient
from .geometry import Dense
from .jacobi_cg import jacobi_cg
from .kept import Kept, error_tied, largest
from .kernel_sinkhorn import Scaling, ScalingState
from .problem import prepare
from .relaxation import Relaxation
from .result import TransportResult
from .support import Support, support


def sns(
    cost: Array | Dense,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    n_sinkhorn: int = 20,
    keep: int | None = None,
    maxiter: int = 220,
    x0: tuple[Array, Array] | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> TransportResult:
    """Sinkhorn-Newton-Sparse for a stored cost: ``min <C, P> + reg KL(P | a b^T)`` with marginals ``a`` and ``b``.

    Superlinear once Sinkhorn has come near and the optimal plan is sparse: random assignment, squared distances. Where it
    is not (costs with many optimal plans, very small ``reg``), `newton` is the method.

    Parameters
    ----------
    cost : array (n, m)
        A cost matrix; plus infinity forbids a pair.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform. Zero weights are legal.
    reg : float
        Regularisation in the units of the cost, the inverse of the paper's ``eta``.
    tol : float, optional
        Bound on the L1 violation of both marginals, relative to the mass; default 1e-6, in float32 1e-4.
    n_sinkhorn : int
        Sinkhorn iterations before the first Newton step: 20 in the paper, 700 for costs with many optimal plans.
    keep : int, optional
        Entries of the plan kept in the Hessian, per row on average: the largest of the whole plan, as published. Default: all
        entries above ``min(error, 1e-2) a_i / m``, a threshold that follows the error, so the steps are those of the full
        Hessian.
    maxiter : int
        Most iterations, Sinkhorn's among them.
    x0 : (f, g) or an earlier result, optional
        Potentials to start from.
    callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    TransportResult
        ``evaluations`` counts ``exp_passes``, ``newton`` steps, ``cg`` iterations and the entries ``kept`` at the last step.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The marginals are not within ``tol``.

    References
    ----------
    X. Tang, M. Shavlovsky, H. Rahmanian, E. Tardini, K. K. Thekumparampil, T. Xiao, L. Ying, Accelerating Sinkhorn
    algorithm with sparse Newton iterations, ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.sns import sns
    >>> C = np.random.default_rng(0).random((100, 100))
    >>> result = sns(C, reg=1 / 300, tol=1e-12, keep=8)
    >>> result.converged, result.evaluations["newton"] < 12
    (True, True)
    """
    given = cost, a, b, reg
    (cost, a, b), reg = detached(cost, a, b), bare(reg)
    problem = prepare(cost, a, b, reg=reg, tol=tol)
    n_sinkhorn = check_count(n_sinkhorn, "n_sinkhorn", minimum=0)
    keep = None if keep is None else check_count(keep, "keep")
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    method = _Sparse(support(problem), n_sinkhorn, keep)

    def finish(outcome: Outcome[ScalingState]) -> TransportResult:
        F, G = method.part.full(*method.potentials(outcome.state))
        return problem.result(F, G, method="sns", evaluations=method.counts(), **outcome.fields())

    start = method.start(x0, Relaxation.of(1.0))
    outcome = iterate(method, start, tolerance=problem.tolerance, options=options, on_device=problem.a, finish=finish)
    result = finish(outcome)
    warn_unless_converged(result, "sns")
    return with_gradient(result, *given)


_ARMIJO, _LEAST_STEP = 1e-4, 1e-8


class _Sparse(Scaling):
    """A Newton iterate is a state of the scaling iteration whose scalings are one."""

    broken = Status.STAGNATED

    def __init__(self, part: Support, n_sinkhorn: int, keep: int | None) -> None:
        super().__init__(part)
        self.n_sinkhorn, self.keep = n_sinkhorn, keep
        self.newtons = self.cg = self.kept = 0
        self.failed: ScalingState | None = None
        self.stored: Array | None = None

    def step(self, state: ScalingState) -> ScalingState:
        if state.relaxation.n < self.n_sinkhorn:
            return super().step(state)
        if self.stored is not state.F or host_float(self.xp.max(self.xp.abs(state.u - 1))) != 0:
            state = self.absorbed(state)
        self.newtons += 1
        xp, F, G = self.xp, state.F, state.G
        x, y = self.direction(state)
        gain = host_float(xp.sum((self.a - state.rows) * x) + xp.sum((self.b - state.columns) * y))
        value = self.value(state)
        slack = 1e-14 * (abs(value) + host_float(xp.sum(self.a * xp.abs(F)) + xp.sum(self.b * xp.abs(G))))
        t = 1.0
        while t > _LEAST_STEP:
            new = self.absorbed(state._replace(F=F + t * x, G=G + t * y, u=state.u, v=state.v))
            if self.value(new) >= value + _ARMIJO * t * gain - slack:
                return new._replace(relaxation=state.relaxation.seen())
            t *= 0.5
        self.failed = self.absorbed(state)
        return self.failed

    def absorbed(self, state: ScalingState) -> ScalingState:
        with unwarned():
            new = super().absorbed(state)
        self.stored = new.F
        return new

    def value(self, state: ScalingState) -> float:
        """The Lyapunov function over ``reg``."""
        xp = self.xp
        with unwarned():
            value = host_float(xp.sum(self.a * state.F) + xp.sum(self.b * state.G) - xp.sum(state.rows))
        return value if math.isfinite(value) else -math.inf

    def direction(self, state: ScalingState) -> tuple[Array, Array]:
        """The sparse Newton system, its second block eliminated: CG on the Schur complement needs a tenth of the steps."""
        xp, P = self.xp, self.tiles.E
        r, c = state.rows, state.columns
        error = host_float(self.error(state)) / self.mass
        n = P.shape[0]
        mask = error_tied(P, self.a, error, xp) if self.keep is None else largest(P, self.keep * n, xp)
        S = Kept(P, mask, r.dtype, xp)
        self.kept = S.count
        gx, gy = self.a - r, self.b - c
        b = gx - S.rows(gy / c)
        scale = xp.maximum(r - S.squares(1 / c), 1e-12 * xp.max(r) * xp.ones_like(r))

        def apply(p: Array) -> Array:
            return r * p - S.rows(S.columns(p) / c)

        goal = max(min(1e-2, error), 1e-6) * host_float(xp.sum(xp.abs(b)))
        x, done = jacobi_cg(apply, 1 / scale, b, goal, 1000, xp=xp)
        self.cg += done
        return x, (gy - S.columns(x)) / c

    def error(self, state: ScalingState) -> Array:
        xp = self.xp
        if state is self.failed:
            return -xp.ones_like(self.a[0])
        violation = xp.sum(xp.abs(state.u * state.rows - self.a)) + xp.sum(xp.abs(state.v * state.columns - self.b))
        return (violation + self.part.lost) * self.mass

    def counts(self) -> dict[str, int]:
        return {"exp_passes": self.tiles.passes, "newton": self.newtons, "cg": self.cg, "kept": self.kept}

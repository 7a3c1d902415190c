"""Sinkhorn's iteration on scalings of a stored kernel, stabilised by absorption (Schmitzer 2019), over-relaxed by itself.

The kernel ``K = exp((F + G - C) / reg)`` is frozen and only ``u``, ``v`` of the plan ``diag(u) K diag(v)`` are iterated: two
matrix-vector products instead of two passes of exponentials. When the scalings grow they are absorbed into ``F`` and ``G``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ...backends.namespace import Array
from ...backends.transfer import host_float
from ...backends.validation import unwarned
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from .autograd import bare, detached, with_gradient
from .geometry import Dense
from .problem import prepare
from .relaxation import MOST_BEYOND, Relaxation
from .result import TransportResult
from .support import Support, support
from .tiles import Tiles


def kernel_sinkhorn(
    cost: Array | Dense,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: float,
    tol: float | None = None,
    maxiter: int = 10_000,
    x0: tuple[Array, Array] | None = None,
    omega: float | str = "auto",
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> TransportResult:
    """Sinkhorn on a stored cost with a frozen kernel: ``min <C, P> + reg KL(P | a b^T)`` with marginals ``a`` and ``b``.

    The iterates are those of `sinkhorn`, an iteration costs two matrix-vector products, about a fiftieth on a CPU. Memory:
    twice the cost matrix.

    Parameters
    ----------
    cost : array (n, m)
        A cost matrix; plus infinity forbids a pair.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform. Zero weights are legal.
    reg : float
        Regularisation in the units of the cost.
    tol : float, optional
        Bound on the L1 violation of both marginals, relative to the mass; default 1e-6, in float32 1e-4.
    maxiter : int
        Most iterations.
    x0 : (f, g) or an earlier result, optional
        Potentials to start from.
    omega : float or "auto"
        Over-relaxation in [1, 2); 1 is Sinkhorn's own step, ``"auto"`` tunes it by the observed rate.
    callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    TransportResult
        ``evaluations`` counts ``exp_passes`` (absorptions and the final check among them) and ``matvec``.

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
    B. Schmitzer, Stabilized sparse scaling algorithms for entropy regularized transport problems, 2019.
    A. Thibault, L. Chizat, C. Dossal, N. Papadakis, Overrelaxed Sinkhorn-Knopp algorithm for regularized optimal transport, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot.kernel_sinkhorn import kernel_sinkhorn
    >>> C = np.asarray([[0.0, 1.0], [1.0, 0.0]])
    >>> result = kernel_sinkhorn(C, reg=0.5)
    >>> (result.plan @ np.eye(2)).round(4).tolist()
    [[0.4404, 0.0596], [0.0596, 0.4404]]
    """
    given = cost, a, b, reg
    (cost, a, b), reg = detached(cost, a, b), bare(reg)
    problem = prepare(cost, a, b, reg=reg, tol=tol)
    relaxation = Relaxation.of(omega)
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    method = Scaling(support(problem))
    method.keep_best = relaxation != Relaxation.of(1.0)

    def finish(outcome: Outcome[ScalingState]) -> TransportResult:
        F, G = method.part.full(*method.potentials(outcome.state))
        return problem.result(F, G, method="kernel_sinkhorn", evaluations=method.counts(), **outcome.fields())

    start = method.start(x0, relaxation)
    outcome = iterate(method, start, tolerance=problem.tolerance, options=options, on_device=problem.a, finish=finish)
    result = finish(outcome)
    warn_unless_converged(result, "kernel_sinkhorn")
    return with_gradient(result, *given)


_ABSORB_EVERY = 10


class ScalingState(NamedTuple):
    """Scaled potentials are ``F + log u`` and ``G + log v``; ``rows = K v`` and ``columns = K^T u``."""

    F: Array
    G: Array
    u: Array
    v: Array
    rows: Array
    columns: Array
    relaxation: Relaxation


class Scaling:
    """The iteration on scalings; `sns` begins with it."""

    # A relaxed iteration is not monotone.
    keep_best = False

    def __init__(self, part: Support) -> None:
        self.part, self.xp, self.a, self.b = part, part.xp, part.a, part.b
        self.reg, self.mass = part.problem.reg, part.problem.mass
        self.tiles = Tiles(part.C, part.a.dtype, part.xp)
        self.tau = 20.0 if part.C.dtype == self.xp.float32 else 50.0
        self.trusted = math.exp(2.0 * self.tau)
        self.matvecs = 0

    def start(self, x0: tuple[Array, Array] | None, relaxation: Relaxation) -> ScalingState:
        xp = self.xp
        G = xp.log(self.b) if x0 is None else self.part.start(x0)[1]
        # One row update in the log domain: no row of the kernel is empty.
        F = self.tiles.fill_rows(self.a, G * self.reg, self.reg) / self.reg
        u, v = xp.ones_like(F), xp.ones_like(G)
        state = ScalingState(F, G, u, v, self.rows(v), self.columns(u), relaxation)
        # Columns far from every row ask for large factors at once: they are absorbed before the count begins.
        for _ in range(50):
            v = self.b / state.columns
            state = state._replace(v=v, rows=self.rows(v))
            if self.size(state) <= self.tau:
                break
            state = self.absorbed(state)
        return state

    def rows(self, v: Array) -> Array:
        self.matvecs += 1
        return self.tiles.rows(v)

    def columns(self, u: Array) -> Array:
        self.matvecs += 1
        return self.tiles.columns(u)

    def step(self, state: ScalingState) -> ScalingState:
        relaxation = state.relaxation
        omega = relaxation.omega
        with unwarned():
            if omega == 1.0:
                u = self.a / state.rows
                columns = self.columns(u)
                v = self.b / columns
            else:
                u = self.relaxed(self.a / state.rows, state.u, omega)
                columns = self.columns(u)
                v = self.relaxed(self.b / columns, state.v, omega)
            rows = self.rows(v)
        new = ScalingState(state.F, state.G, u, v, rows, columns, relaxation)
        new = new._replace(relaxation=relaxation.seen(host_float(self.error(new)) if relaxation.due else None))
        if new.relaxation.n % _ABSORB_EVERY == 0 and self.size(new) > self.tau:
            new = self.absorbed(new)
        return new

    def relaxed(self, exact: Array, old: Array, omega: float) -> Array:
        """``exact (exact / old)^(omega - 1)``, the second factor bounded: no overflow, and no host need look."""
        xp = self.xp
        beyond = (exact / old) ** (omega - 1.0)
        return exact * xp.minimum(xp.maximum(beyond, 1.0 / MOST_BEYOND), MOST_BEYOND)

    def size(self, state: ScalingState) -> float:
        """The largest logarithm of a scaling."""
        xp = self.xp
        with unwarned():
            logs = xp.maximum(xp.max(xp.abs(xp.log(state.u))), xp.max(xp.abs(xp.log(state.v))))
        return host_float(logs)

    def absorbed(self, state: ScalingState) -> ScalingState:
        """The same potentials with scalings of one and a kernel of their own."""
        xp = self.xp
        F, G = self.logs(state)
        self.tiles.fill(F * self.reg, G * self.reg, self.reg)
        u, v = xp.ones_like(F), xp.ones_like(G)
        return ScalingState(F, G, u, v, self.rows(v), self.columns(u), state.relaxation)

    def logs(self, state: ScalingState) -> tuple[Array, Array]:
        return state.F + self.xp.log(state.u), state.G + self.xp.log(state.v)

    def error(self, state: ScalingState) -> Array:
        xp = self.xp
        violation = xp.sum(xp.abs(state.u * state.rows - self.a))
        if state.relaxation.tuned or state.relaxation.omega != 1.0:
            # Also where the factor has just been taken back: the columns of this state are still those of a relaxed step.
            violation = violation + xp.sum(xp.abs(state.v * state.columns - self.b))
            # Small entries of the kernel are clamped and its sums then wrong: scalings that large hide the truth until they
            # are absorbed, and what they claim must not pass for the best state.
            hidden = xp.max(state.u) * xp.max(state.v) > self.trusted
            violation = xp.where(hidden, xp.maximum(violation, 2.0), violation)
        return (violation + self.part.lost) * self.mass

    def verify(self, state: ScalingState) -> tuple[ScalingState, float]:
        xp = self.xp
        F, G = self.potentials(state)
        with unwarned():
            self.tiles.fill(F * self.reg, G * self.reg, self.reg)
            u, v = xp.ones_like(F), xp.ones_like(G)
            new = ScalingState(F, G, u, v, self.rows(v), self.columns(u), state.relaxation)
            truth = host_float(xp.sum(xp.abs(new.rows - self.a)) + xp.sum(xp.abs(new.columns - self.b)))
        return new, (truth + self.part.lost) * self.mass

    def potentials(self, state: ScalingState) -> tuple[Array, Array]:
        """Scaled potentials as the caller will see them: rounded to float32 where that is the input's dtype."""
        return self.part.returned(*self.logs(state))

    def counts(self) -> dict[str, int]:
        """What was done."""
        return {"exp_passes": self.tiles.passes, "matvec": self.matvecs}

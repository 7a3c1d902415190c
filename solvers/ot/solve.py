"""One call for balanced entropic transport: the method follows from the size of the problem and the strength of the entropy."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from ...backends.errors import ConvergenceWarning
from ...backends.namespace import Array
from ...backends.validation import check_callable, check_choice, check_count, check_scalar
from ..iterate import Callback, Iterate, warn_unless_converged
from ..result import Status
from .autograd import bare, detached, with_gradient
from .cloud_newton import cloud_newton
from .geometry import Dense, Geometry, PointCloud
from .grid import Grid
from .kernel_sinkhorn import kernel_sinkhorn
from .newton import newton
from .plan_tiles import cost_matrix
from .problem import Problem, prepare
from .result import TransportResult
from .sinkhorn import sinkhorn
from .sns import sns

_METHODS: dict[str, Callable[..., TransportResult]] = {
    "sinkhorn": sinkhorn,
    "kernel_sinkhorn": kernel_sinkhorn,
    "newton": newton,
    "sns": sns,
    "cloud_newton": cloud_newton,
}
# Largest cost over regularisation beyond which plain iterations are hopeless from the outset.
_WEAK = 2000.0
# Iterations that kernel Sinkhorn is given before Newton's method takes over, and twice as many where their rate says that they
# will do. Newton's costs as much as 40 to 160 of them, and half of that from where they end: no guess costs much more than the
# better method.
_PATIENCE = 60
# After so many the marginals violated by more than this part of the mass say that they will not be enough. Also the
# iterations over which a rate is taken.
_GLANCE, _FAR = 20, 0.15
# Newton's method begins where kernel Sinkhorn ended if the marginals are violated by less: from afar its annealing is shorter.
_NEAR = 0.03
# Bytes of the two matrices that Newton's method keeps.
_MEMORY = 2e9


def solve(
    cost: Array | Geometry,
    a: Array | None = None,
    b: Array | None = None,
    *,
    reg: Any,
    method: str = "auto",
    tol: float | None = None,
    x0: Any = None,
    memory: float = _MEMORY,
    **options: Any,
) -> TransportResult:
    """Entropic optimal transport ``min <C, P> + reg KL(P | a b^T)`` by the method that fits.

    Parameters
    ----------
    cost : array (n, m), PointCloud or Grid
        A cost matrix, or where the cost lives.
    a, b : array (n,), (m,), optional
        Non-negative weights of equal sums; default uniform.
    reg : float
        Regularisation in the units of the cost.
    method : {"auto", "sinkhorn", "kernel_sinkhorn", "newton", "sns", "cloud_newton"}
        The solver; ``"auto"`` chooses and says in ``result.method`` and ``result.why`` what and why.
    tol : float, optional
        Bound on the L1 violation of both marginals, relative to the mass; default 1e-6, in float32 1e-4.
    x0 : (f, g) or TransportResult, optional
        Potentials to start from.
    memory : float
        Bytes that ``"auto"`` may take for the cost of a point cloud and the plan; beyond them nothing is stored.
    **options
        Of the chosen solver: ``maxiter``, ``callback``, ``check_every``, ``progress``, ``time_limit``.

    Returns
    -------
    TransportResult
        Potentials, value, the plan as an operator, and the transport of points. Where a torch input (cost, points,
        weights or ``reg``) requires grad, ``value`` is a tensor that carries it.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The marginals are not within ``tol``.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import solve
    >>> C = np.random.default_rng(0).random((50, 60))
    >>> strong, weak = solve(C, reg=0.5), solve(C, reg=1e-5, tol=1e-9)
    >>> strong.method, weak.method, weak.converged
    ('kernel_sinkhorn', 'newton', True)
    """
    check_choice(method, "method", ("auto", *_METHODS))
    memory = check_scalar(memory, "memory", non_negative=True)
    given = cost, a, b, reg
    cost, a, b = detached(cost, a, b)
    reg = check_scalar(bare(reg), "reg", positive=True)
    options = {"x0": x0, "tol": tol} | options
    if method == "auto":
        result = _chosen(cost, a, b, reg, memory, options)
    else:
        result = dataclasses.replace(_METHODS[method](cost, a, b, reg=reg, **options), why=f'method="{method}"')
    return with_gradient(result, *given)


def _chosen(
    cost: Array | Geometry, a: Array | None, b: Array | None, reg: float, memory: float, options: dict[str, Any]
) -> TransportResult:
    problem = prepare(cost, a, b, reg=reg, tol=options["tol"])
    geometry, (n, m) = problem.geometry, problem.geometry.shape
    if isinstance(geometry, Grid):
        result = sinkhorn(geometry, a, b, reg=reg, **({"omega": "auto"} | options))
        return dataclasses.replace(result, why="the cost is separable on a grid")
    if isinstance(geometry, Dense):
        return _stored(geometry, a, b, problem, options)
    size = 4 if geometry.like.dtype == problem.xp.float32 else 8
    if 2 * n * m * size > memory:
        return _unstored(geometry, a, b, reg, options)
    result = _stored(Dense(cost_matrix(geometry)), a, b, problem, options)
    return dataclasses.replace(result, geometry=geometry)


def _stored(
    geometry: Dense, a: Array | None, b: Array | None, problem: Problem, options: dict[str, Any]
) -> TransportResult:
    """Kernel Sinkhorn while it is quick, Newton's method where it is not."""
    reg = problem.reg
    ratio = geometry.largest() / reg
    if ratio > _WEAK:
        result = newton(geometry, a, b, reg=reg, **options)
        return dataclasses.replace(result, why=f"the largest cost is {ratio:.0f} times the regularisation")
    began, maxiter = time.perf_counter(), options.get("maxiter")
    few = 2 * _PATIENCE if maxiter is None else min(2 * _PATIENCE, check_count(maxiter, "maxiter", minimum=0))
    check_callable(options.get("callback"), "callback")
    glance = _Glance(options.get("callback"), problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        first = kernel_sinkhorn(geometry, a, b, reg=reg, **(options | {"maxiter": few, "callback": glance}))
    unfinished = first.status in {Status.MAX_ITER, Status.STAGNATED}
    if not glance.hopeless and (not unfinished or few == maxiter):
        why = f"the largest cost is {ratio:.0f} times the regularisation, not above {_WEAK:.0f}"
        warn_unless_converged(first, "solve")
        return dataclasses.replace(first, why=why)
    if first.residual <= _NEAR * problem.mass:
        options = options | {"x0": first}
    if (limit := options.get("time_limit")) is not None:
        # What is left, if only for a first look.
        options = options | {"time_limit": max(limit - (time.perf_counter() - began), 1e-9)}
    result = newton(geometry, a, b, reg=reg, **options)
    why = f"{first.n_iter} iterations of kernel Sinkhorn were not enough"
    spent = Counter(first.evaluations) + Counter(result.evaluations)
    return dataclasses.replace(result, why=why, evaluations=dict(spent))


class _Glance:
    """The user's callback, and two looks whether kernel Sinkhorn is worth its patience."""

    def __init__(self, callback: Callback | None, problem: Problem) -> None:
        self.callback, self.far, self.tolerance = callback, _FAR * problem.mass, problem.tolerance
        self.looks: list[tuple[int, float]] = []
        self.hopeless = False

    def __call__(self, iterate: Iterate) -> None:
        if self.callback is not None:
            self.callback(iterate)
        n, error = iterate.n_iter, iterate.residual
        last = self.looks[-1][0] if self.looks else 0
        if last < _GLANCE <= n:
            self.hopeless = error > self.far
        if last < _PATIENCE <= n:
            self.hopeless = self.hopeless or self.projected(n, error) > 2 * _PATIENCE
        self.looks.append((n, error))
        if self.hopeless:
            raise StopIteration

    def projected(self, n: int, error: float) -> float:
        """The iterations that the rate of the last ones promises in all."""
        earlier = [look for look in self.looks if look[0] <= n - _GLANCE]
        if not earlier or not 0.0 < error < earlier[-1][1]:
            return math.inf
        rate = math.log(error / earlier[-1][1]) / (n - earlier[-1][0])
        return n + math.log(self.tolerance / error) / rate


def _unstored(
    cloud: PointCloud, a: Array | None, b: Array | None, reg: float, options: dict[str, Any]
) -> TransportResult:
    """Sparse Newton on the cloud; where its plan is dense, over-relaxed Sinkhorn."""
    why = "the cost matrix does not fit the memory allowed"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = cloud_newton(cloud, a, b, reg=reg, **options)
    if result.converged or result.status in {Status.STOPPED, Status.INTERRUPTED, Status.TIME_LIMIT}:
        warn_unless_converged(result, "solve")
        return dataclasses.replace(result, why=why)
    again = sinkhorn(cloud, a, b, reg=reg, **(options | {"x0": (result.f, result.g), "omega": "auto"}))
    return dataclasses.replace(again, why=f"{why}, and Newton's method did not converge")

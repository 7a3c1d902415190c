"""Entropic Wasserstein barycenters on a fixed support by iterative Bregman projections, plain or debiased.

On a fixed support (Benamou et al. 2015) each iteration applies the kernel ``exp(-C / reg)`` twice per measure, on a grid axis by
axis. The debiased barycenter (Janati, Cuturi, Gramfort 2020) removes the blur that the entropy adds: a deconvolution. Its finest
details are hardly seen through the kernel, so the rates of plain iterations crowd at one and they creep; Anderson acceleration
(Walker and Ni 2011) is what makes both converge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device, finfo_eps
from ...backends.transfer import host_bool, host_float
from ...backends.validation import check_array, check_choice, check_scalar, check_weights, unwarned
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from .anderson import Anderson
from .problem import log_weights
from .separable import SeparableKernel
from .words import TransportOutcome

_DOMAINS = ("auto", "kernel", "log")
# Iterates that the acceleration combines.
_MEMORY = 10
# Logarithm of the least mass, beside the largest, that its measure of an iterate tells apart.
_DEPTH = 60.0


def barycenter(
    A: Array,
    cost: Array | Sequence[Array],
    weights: Array | None = None,
    *,
    reg: float,
    debiased: bool = False,
    domain: str = "auto",
    acceleration: str | None = "anderson",
    tol: float | None = None,
    maxiter: int = 10_000,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> BarycenterResult:
    """Entropic barycenter of ``K`` measures on one support: ``min_p sum_k w_k OT_reg(A_k, p)``.

    Parameters
    ----------
    A : array (K, n) or (K, n_1, ..., n_d)
        The measures, one a row (or image): non-negative, of equal sums. Zeros are legal.
    cost : array (n, n) or sequence of arrays (n_1, n_1), ..., (n_d, n_d)
        Cost from the points of the barycenter (rows) to those of the measures; for images one cost an axis, whose sum it is:
        see `grid_costs`.
    weights : array (K,), optional
        Non-negative weights ``w``, scaled to sum one; default equal.
    reg : float
        Regularisation in the units of the cost.
    debiased : bool
        Remove the blur of the entropy, so that the barycenter of equal measures is that measure. Needs a symmetric cost. This
        is a deconvolution: details of the measures finer than the kernel ``exp(-C / reg)`` hardly change the residual, and may
        be far from theirs when it is within ``tol``. Take ``reg`` no larger than the details that matter.
    domain : {"auto", "kernel", "log"}
        Apply the kernel itself, faster, or on logarithms, which any ``reg`` allows; ``"auto"`` goes over to logarithms
        wherever a product of the kernel underflows.
    acceleration : {"anderson", None}
        Anderson acceleration of the logarithms of the scalings, weighted by the mass of the barycenter, with a memory of ten
        iterates (that many copies of ``A``, twice); None for plain iterations.
    tol : float, optional
        Bound on ``sum_k w_k |P_k 1 - p|_1``, relative to the mass (debiased: plus the same for the correction);
        default 1e-8, debiased 1e-6, in float32 1e-4.
    maxiter : int
        Most iterations.
    callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    BarycenterResult
        ``p`` of the shape of one measure.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The marginals do not agree within ``tol``.

    References
    ----------
    J.-D. Benamou et al., Iterative Bregman projections for regularized transportation problems, 2015. J. Solomon et al.,
    Convolutional Wasserstein distances, 2015. H. Janati, M. Cuturi, A. Gramfort, Debiased Sinkhorn barycenters, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.ot import barycenter, grid_costs
    >>> A = np.asarray([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    >>> (C,) = grid_costs((5,), like=A)
    >>> barycenter(A, C, reg=0.01).p.round(3).tolist()
    [0.0, 0.002, 0.996, 0.002, 0.0]
    """
    separable = isinstance(cost, list | tuple)
    factors: list[Any] = list(cost) if separable else [cost]
    xp = array_namespace(
        A=A, weights=weights, **{f"cost[{i}]" if separable else "cost": C for i, C in enumerate(factors)}
    )
    check_array(A, "A", xp)
    shape = tuple(A.shape[1:])
    if len(shape) != len(factors):
        raise InputError(
            f"A has shape {tuple(A.shape)}, expected {len(factors) + 1} dimensions: measures, then one an axis of cost"
        )
    for i, (C, n) in enumerate(zip(factors, shape, strict=True)):
        check_array(C, f"cost[{i}]" if separable else "cost", xp, shape=(n, n), dtype=A.dtype)
    reg = check_scalar(reg, "reg", positive=True)
    check_choice(domain, "domain", _DOMAINS)
    if acceleration is not None:
        check_choice(acceleration, "acceleration", ("anderson",))
    count = A.shape[0]
    if weights is None:
        w = xp.full((count,), 1.0 / count, dtype=A.dtype, device=device(A))
    else:
        w = check_weights(weights, "weights", xp, n=count, dtype=A.dtype)
        w = w / xp.sum(w)
    mass = _mass(A, xp)
    single = A.dtype == xp.float32
    tol = (1e-4 if single else 1e-6 if debiased else 1e-8) if tol is None else check_scalar(tol, "tol", positive=True)
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    kernel = SeparableKernel(factors, reg, domain, xp)
    method = _Projections(A, kernel, w, debiased, acceleration is not None, xp)

    def finish(outcome: Outcome[_State]) -> BarycenterResult:
        log_p = outcome.state.log_p
        counts = {"kernel": kernel.applications}
        return BarycenterResult(
            p=xp.exp(log_p), reg=reg, debiased=debiased, domain=kernel.domain, evaluations=counts, **outcome.fields()
        )

    outcome = iterate(method, method.start(), tolerance=tol * mass, options=options, on_device=A, finish=finish)
    result = finish(outcome)
    warn_unless_converged(result, "barycenter")
    return result


@dataclass(frozen=True, kw_only=True, repr=False)
class BarycenterResult(TransportOutcome):
    """A barycenter on a fixed support.

    Attributes
    ----------
    p : array (n,) or (n_1, ..., n_d)
        The barycenter.
    reg : float
        The regularisation.
    debiased : bool
        Whether the blur of the entropy was removed.
    domain : str
        ``"kernel"``, or ``"log"`` if logarithms were needed.
    residual : float
        ``sum_k w_k |P_k 1 - p|_1``, recomputed (debiased: plus the same for the correction).
    """

    p: Array
    reg: float
    debiased: bool
    domain: str


def _mass(A: Array, xp: Namespace) -> float:
    """The common sum of the measures."""
    if host_float(xp.min(A)) < 0:
        raise InputError("A has negative entries; measures must be non-negative")
    sums = xp.sum(xp.reshape(A, (A.shape[0], -1)), axis=1)
    mass = host_float(xp.max(sums))
    if not mass > 0:
        raise InputError("A sums to zero; each measure needs some mass")
    if host_bool(xp.any(mass - sums > 1e3 * finfo_eps(A.dtype, xp) * mass)):
        raise InputError("A holds measures of different sums; divide each by its own")
    return mass


class _State(NamedTuple):
    """Logarithms of the scalings ``u_k``, of the correction ``d``, and what the last look found: ``p`` and its violation."""

    log_u: Array
    log_d: Array
    log_p: Array
    next_u: Array
    next_d: Array
    violation: Array


class _Projections:
    """``v = A / K'u``, ``log p = log d + sum w log(K v)``, ``u = p / K v``; the correction solves ``d K d = p``."""

    # Accelerated errors may rise again.
    keep_best = True

    def __init__(
        self, A: Array, kernel: SeparableKernel, w: Array, debiased: bool, accelerated: bool, xp: Namespace
    ) -> None:
        self.log_A, self.debiased, self.xp = log_weights(A, xp), debiased, xp
        self.w = xp.reshape(w, (-1,) + (1,) * (A.ndim - 1))
        self.kernel = kernel
        self.anderson = Anderson(_MEMORY, xp) if accelerated else None

    def start(self) -> _State:
        zero = self.xp.zeros_like(self.log_A)
        return self.look(zero, zero[0, ...])

    def look(self, log_u: Array, log_d: Array) -> _State:
        """The state of these logarithms; where a kernel underflows it is not finite, and the loop sees it."""
        with unwarned():
            return self._look(log_u, log_d)

    def _look(self, log_u: Array, log_d: Array) -> _State:
        xp = self.xp
        back = self.kernel.apply(log_u, transposed=True)
        log_v = xp.where(self.log_A > -math.inf, self.log_A - back, -math.inf)
        Kv = self.kernel.apply(log_v)
        # A measure of weight zero does not take part; and 0 * -inf is no number.
        log_p = log_d + xp.sum(xp.where(self.w > 0, self.w * xp.where(self.w > 0, Kv, 0.0), 0.0), axis=0)
        p = xp.exp(log_p)
        violation = xp.sum(self.w * xp.abs(xp.exp(log_u + Kv) - p[None, ...]))
        next_d = log_d
        if self.debiased:
            Kd = self.kernel.apply(log_d[None, ...])[0, ...]
            violation = violation + xp.sum(xp.abs(xp.exp(log_d + Kd) - p))
            next_d = 0.5 * (log_d + log_p - Kd)
        return _State(log_u, log_d, log_p, log_p[None, ...] - Kv, next_d, violation)

    def step(self, state: _State) -> _State:
        if self.anderson is None:
            return self.look(state.next_u, state.next_d)
        xp = self.xp
        x, image = self.flat(state.log_u, state.log_d), self.flat(state.next_u, state.next_d)
        # Logarithms far out, where there is no mass, change most and matter least; squares of weights below are slow subnormals.
        p = xp.exp(0.5 * xp.maximum(state.log_p, xp.max(state.log_p) - _DEPTH))
        weight = self.flat(xp.sqrt(self.w) * p[None, ...], p)
        both = xp.isfinite(x) & xp.isfinite(image)
        mixed = self.anderson.next(xp.where(both, x, 0.0), xp.where(both, image, 0.0), weight)
        mixed = xp.where(both, mixed, image)
        size = math.prod(state.log_u.shape)
        return self.look(
            xp.reshape(mixed[:size], state.log_u.shape),
            xp.reshape(mixed[size:], state.log_d.shape) if self.debiased else state.log_d,
        )

    def flat(self, u: Array, d: Array) -> Array:
        """The unknowns as one vector."""
        u = self.xp.reshape(u, (-1,))
        return self.xp.concat([u, self.xp.reshape(d, (-1,))]) if self.debiased else u

    def error(self, state: _State) -> Array:
        return state.violation

    def verify(self, state: _State) -> tuple[_State, float]:
        state = self.look(state.log_u, state.log_d)
        return state, host_float(state.violation)

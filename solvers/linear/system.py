"""What every Krylov method shares: the checked system, the bound that each column must meet, and the run to its result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, overload

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device, finfo_eps
from ...backends.operators import LinearOperator, as_operator
from ...backends.operators.adapters import Pending
from ...backends.transfer import to_host
from ...backends.validation import check_array, check_scalar, unwarned
from ..iterate import LoopOptions, Outcome, iterate
from ..result import LinearResult, Status


@dataclass(frozen=True, eq=False)
class System:
    """``A x = b`` with its tolerances.

    Attributes
    ----------
    A, M : LinearOperator
        The operator and the approximation of its inverse (or None).
    b, x : array (n,) or (n, k)
        Right-hand sides and starting points.
    r : array like b
        Residuals of the starting points.
    tolerance : float
        The largest bound of a column; what a weighted norm is tested against.
    weights : array () or (k,)
        Factors that make the tolerance of every column the largest one.
    host_weights : tuple of float
        The same on the host, one for each column.
    xp : namespace
        Of all arrays.
    asymmetry : float
        How far from Hermitian `prepare` found ``A`` or ``M``, as a part of its size (it looks only where a method needs it).
    answer : ndarray or None
        What the method had asked to read, on the host.
    vanishing : bool
        Whether a column's bound is so small that the squares of such residuals underflow: no norm can be trusted there.
    hermitian : bool
        Whether the method needs a Hermitian ``A`` and a Hermitian positive definite ``M``.
    """

    A: LinearOperator
    M: LinearOperator | None
    b: Array
    x: Array
    r: Array
    tolerance: float
    weights: Array
    xp: Namespace
    host_weights: tuple[float, ...] = (1.0,)
    asymmetry: float = 0.0
    answer: Any = None
    vanishing: bool = False
    hermitian: bool = False

    @property
    def asymmetric(self) -> bool:
        """Whether ``A`` or ``M`` is so far from Hermitian that no inexactness explains it."""
        return bool(self.asymmetry > max(_PLAIN, _ROUNDED * finfo_eps(self.b.dtype, self.xp) ** 0.5))

    @cached_property
    def complex(self) -> bool:
        """Whether the vectors are; asked once, not at each inner product."""
        return bool(self.xp.isdtype(self.b.dtype, "complex floating"))

    @property
    def columns(self) -> int:
        """Products with vectors that one product with ``A`` stands for."""
        return 1 if self.b.ndim == 1 else int(self.b.shape[1])

    def precondition(self, r: Array) -> Array:
        """``M r``, or ``r`` itself."""
        return r if self.M is None else self.M @ r

    def dot(self, u: Array, v: Array) -> Array:
        """Inner products ``u_j^H v_j`` of the columns, () or (k,)."""
        xp = self.xp
        if not self.complex:
            return u @ v if u.ndim == 1 else xp.sum(u * v, axis=0)
        return xp.sum(xp.conj(u) * v, axis=0)

    def real_dot(self, u: Array, v: Array) -> Array:
        """The real part of `dot`: all of it where the operator is Hermitian."""
        product = self.dot(u, v)
        return self.xp.real(product) if self.complex else product

    def norm(self, u: Array) -> Array:
        """Euclidean norms of the columns."""
        return self.real_dot(u, u) ** 0.5

    def energy(self, rz: Array, size: Array) -> Array:
        """``<r, M r>``, and -1 where it is zero though ``r`` (of ``size``) is not: no positive definite ``M`` does that, and a
        recurrence that divides by it stands still."""
        return self.xp.where((rz == 0) & (size > 0), -1.0, rz)

    def worst(self, norms: Array) -> Array:
        """The one number that is tested against ``tolerance``, from the residual norms of the columns."""
        return norms * self.weights if norms.ndim == 0 else self.xp.max(norms * self.weights)

    def active(self, norms: Array) -> Array:
        """Which columns have not yet converged."""
        return norms * self.weights > self.tolerance

    def moving(self, norms: Array) -> Array:
        """Which columns are above half of the tolerance. Below it a run waits to be looked at: on what rounding leaves of a
        residual the curvature of a semidefinite matrix has any sign."""
        return norms * self.weights > 0.5 * self.tolerance

    def preconditioner_indefinite(self) -> bool:
        """Whether the diagonal of ``M``, or ``<r, M r>`` of a starting residual, proves that ``M`` is not positive definite."""
        if not self.hermitian or self.M is None:
            return False
        xp, r = self.xp, self.r
        energy = self.energy(self.real_dot(r, self.M @ r), self.norm(r))
        least = [xp.min(energy)]
        if self.M.knows_diagonal:
            diagonal = self.M.diagonal()
            diagonal = xp.real(diagonal) if xp.isdtype(diagonal.dtype, "complex floating") else diagonal
            least.append(xp.astype(xp.min(xp.where(diagonal == 0, -1.0, diagonal)), energy.dtype))
        return bool(min(to_host(xp.stack(least))) < 0)

    def true_residual(self, x: Array) -> Array:
        """``b - A x`` recomputed, in float64 where the entries of ``A`` are stored."""
        return self.A.precise_residual(self.b, x)


def prepare(
    A: Any,
    b: Array,
    *,
    x0: Array | None,
    rtol: float,
    atol: float,
    M: Any,
    hermitian: bool = False,
    name: str = "b",
    ask: Callable[[LinearOperator, Array], Array] | None = None,
) -> System:
    """Check the arguments that every solver of ``A x = b`` shares; errors name them (``name`` is the right-hand side's).

    With ``hermitian`` two products with ``A`` (and ``M``) look whether they are. All that must be known on the host is
    read in one transfer, with the real vector that ``ask`` makes of the operator and ``b``.
    """
    xp = array_namespace(**{name: b, "x0": x0})
    check_array(b, name, xp, ndim=(1, 2), allow_complex=True, finite=False)
    rtol, atol = check_scalar(rtol, "rtol", non_negative=True), check_scalar(atol, "atol", non_negative=True)
    pending = [(name, xp.all(xp.isfinite(b)))]
    operator = as_operator(A, like=b, name="A", vector=name, pending=pending)
    inverse = None if M is None else as_operator(M, like=b, name="M", vector=name, pending=pending)
    if x0 is not None:
        check_array(x0, "x0", xp, shape=tuple(b.shape), dtype=b.dtype, allow_complex=True, finite=False)
        pending.append(("x0", xp.all(xp.isfinite(x0))))
    probed = [op for op in (operator, inverse) if op is not None] if hermitian else []
    with unwarned():
        sizes = xp.abs(b)
        norms = xp.sqrt(xp.sum(sizes**2, axis=0))
        bounds = xp.maximum(rtol * norms, xp.full_like(norms, atol))
        largest = xp.max(bounds)
        facts = [largest, *(asymmetry(op, b, xp) for op in probed)]
        asked = [] if ask is None else [ask(operator, b)]
        small = (bounds < float(xp.finfo(norms.dtype).smallest_normal) ** 0.5) & (xp.max(sizes, axis=0) > 0)
        vanishing = xp.any(small & ((bounds > 0) | (norms == 0)))
    facts += [xp.astype(fact, norms.dtype) for fact in (*(fact for _, fact in pending), vanishing)]
    read = to_host(xp.concat([xp.stack(facts), xp.reshape(bounds, (-1,)), *asked]))
    known = len(facts) + math.prod(bounds.shape)
    host = [float(fact) for fact in read[:known]]
    for (name, _), finite in zip(pending, host[1 + len(probed) :], strict=False):
        if not finite:
            raise InputError(f"{name} contains NaN or infinite values")
    found = max((value for value in host[1 : 1 + len(probed)] if value >= 0), default=0.0)
    # A zero column is solved by zero, whatever x0 says; its bound of zero must not divide.
    x = xp.zeros_like(b) if x0 is None else xp.where(norms > 0, x0, xp.zeros_like(b))
    weights = xp.where(bounds > 0, largest / xp.where(bounds > 0, bounds, 1.0), 1.0)
    r = b if x0 is None else b - operator @ x
    host_weights = tuple(host[0] / bound if bound > 0 else 1.0 for bound in host[len(facts) :])
    answer = read[known:] if asked else None
    vanished = bool(host[len(facts) - 1])
    return System(operator, inverse, b, x, r, host[0], weights, xp, host_weights, found, answer, vanished, hermitian)


def check_pending(pending: Pending, xp: Namespace, fact: Array | None = None) -> float:
    """Read in one transfer whether all arguments are finite, and a number; the error names the first that is not."""
    flags = [flag for _, flag in pending]
    if fact is not None:
        flags = [*(xp.astype(flag, fact.dtype) for flag in flags), fact]
    host = to_host(xp.stack(flags))
    for (name, _), finite in zip(pending, host, strict=False):
        if not finite:
            raise InputError(f"{name} contains NaN or infinite values")
    return float(host[-1])


def asymmetry(A: LinearOperator, like: Array, xp: Namespace) -> Array:
    """About ``||A - A^H|| / (2 ||A||)``, from the products with two fixed vectors without structure."""
    n = like.shape[0]
    real = xp.real(like).dtype if xp.isdtype(like.dtype, "complex floating") else like.dtype
    grid = xp.arange(n, dtype=real, device=device(like))
    u, v = xp.sin(12.9898 * grid + 1.0), xp.sin(78.233 * grid * (1.0 + 0.1 * xp.cos(grid)) + 2.0)
    if xp.isdtype(like.dtype, "complex floating"):
        # A complex factor on one of them would cancel: both need phases that vary.
        u, v = u + 1j * xp.cos(37.719 * grid), v + 1j * xp.cos(93.989 * grid)
        u, v = xp.astype(u, like.dtype), xp.astype(v, like.dtype)
    if like.ndim == 1:
        au, av = A @ u, A @ v
    else:
        both = A @ xp.stack([u, v], axis=1)
        au, av = both[:, 0], both[:, 1]
    conj = xp.conj if xp.isdtype(like.dtype, "complex floating") else lambda w: w
    difference = xp.abs(xp.sum(conj(u) * av) - xp.sum(conj(au) * v))

    def norm(w: Array) -> Array:
        return xp.sqrt(xp.sum(xp.abs(w) ** 2))

    size = norm(u) * norm(av) + norm(au) * norm(v)
    return difference * n**0.5 / xp.where(size > 0, size, 1.0)


# An asymmetry that is plain, and in units of sqrt(eps) one that float32 sums cannot make. Less may be the inexactness of an
# operator that is itself an iteration (a Schur complement, say): a Hermitian method works with it, up to a point.
_PLAIN, _ROUNDED = 1e-3, 30.0


Built = TypeVar("Built", bound=LinearResult)


@overload
def run(
    method: Any, system: System, *, maxiter: int | None, build: Callable[[Outcome[Any]], Built], **options: Any
) -> Built: ...


@overload
def run(method: Any, system: System, *, maxiter: int | None, **options: Any) -> LinearResult: ...


def run(
    method: Any,
    system: System,
    *,
    maxiter: int | None,
    build: Callable[[Outcome[Any]], Any] | None = None,
    **options: Any,
) -> Any:
    """Run ``method`` on ``system`` to a `LinearResult`, or to what ``build`` makes of the outcome.

    The options are those of `LoopOptions`. States have ``x``; the method counts its ``matvecs``.
    """
    limits = LoopOptions(maxiter=10 * system.b.shape[0] if maxiter is None else maxiter, **options)

    def finish(outcome: Outcome[Any]) -> Any:
        if build is not None:
            return build(outcome)
        return LinearResult(x=outcome.state.x, evaluations={"matvec": method.matvecs}, **outcome.fields())

    start = method.start(system.x, system.r)
    if system.asymmetric:
        residual = float(to_host(system.worst(system.norm(system.r))))
        ended = Status.CONVERGED if residual <= system.tolerance else Status.NOT_SYMMETRIC
        return finish(Outcome(start, ended, 0, residual, system.tolerance, (residual,)))
    outcome = iterate(method, start, tolerance=system.tolerance, options=limits, on_device=system.b, finish=finish)
    suspect = system.asymmetry > finfo_eps(system.b.dtype, system.xp) ** 0.5
    if suspect and outcome.status in {Status.STAGNATED, Status.MAX_ITER, Status.INDEFINITE}:
        outcome = replace(outcome, status=Status.NOT_SYMMETRIC)
    # Where a method did not see it by itself.
    if outcome.status in {Status.STAGNATED, Status.MAX_ITER, Status.SINGULAR} and system.preconditioner_indefinite():
        outcome = replace(outcome, status=Status.INDEFINITE)
    if system.vanishing and outcome.status is Status.CONVERGED:
        outcome = replace(outcome, status=Status.STAGNATED)
    return finish(outcome)

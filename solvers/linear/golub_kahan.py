"""What LSQR and LSMR share: the checked problem, Golub and Kahan's bidiagonalisation, and the two tests that end them.

``min ||A x - b||^2 + damp^2 ||x||^2`` is solved as the undamped problem of ``[A; damp I]`` and ``[b; 0]``: so a start and a
restart from the recomputed residual mean the same with and without damping.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...backends.errors import InputError
from ...backends.linalg import real_dtype
from ...backends.namespace import Array, Namespace, array_namespace, device, finfo_eps
from ...backends.operators import LinearOperator, as_operator
from ...backends.transfer import to_host
from ...backends.validation import check_array, check_scalar, unwarned
from ..iterate import LoopOptions, Outcome, iterate
from ..result import LinearResult, Status
from .system import System, check_pending


@dataclass(frozen=True, kw_only=True, repr=False)
class LeastSquaresResult(LinearResult):
    """Solution ``x`` of a least-squares problem; ``residual`` is the tested ratio, at most 1 when converged.

    Attributes
    ----------
    residual_norm : float
        The largest recomputed ``||b - A x||`` of a column (with damping that of ``[A; damp I]``).
    normal_norm : float
        The largest recomputed ``||A^H (b - A x)||``, which vanishes at a least-squares solution.
    """

    residual_norm: float
    normal_norm: float


@dataclass(frozen=True)
class Limits:
    """The tolerances of Paige and Saunders."""

    atol: float
    btol: float
    conlim: float


def prepare_least_squares(
    A: Any, b: Array, *, x0: Array | None, damp: float, atol: float, btol: float, conlim: float, M: Any
) -> tuple[System, Limits]:
    """Check the arguments that LSQR and LSMR share; errors name them."""
    xp = array_namespace(b=b, x0=x0)
    check_array(b, "b", xp, ndim=(1, 2), allow_complex=True, finite=False)
    damp = check_scalar(damp, "damp", non_negative=True)
    limits = Limits(
        check_scalar(atol, "atol", non_negative=True),
        check_scalar(btol, "btol", non_negative=True),
        check_scalar(conlim, "conlim", positive=True, finite=False),
    )
    pending = [("b", xp.all(xp.isfinite(b)))]
    operator = as_operator(A, like=b, name="A", square=False, pending=pending)
    m, n = operator.shape
    if m != b.shape[0]:
        raise InputError(f"b has shape {tuple(b.shape)}, expected {m} rows as A has")
    if operator._rmatvec is None:
        raise InputError("A has no adjoint, which least squares need; pass a LinearOperator with rmatvec")
    shape = (n, *b.shape[1:])
    x = xp.zeros(shape, dtype=b.dtype, device=device(b))
    if x0 is not None:
        x = check_array(x0, "x0", xp, shape=shape, dtype=b.dtype, allow_complex=True, finite=False)
        pending.append(("x0", xp.all(xp.isfinite(x0))))
    inverse = None
    if M is not None:
        inverse = as_operator(M, like=x, name="M", square=False, pending=pending)
        if inverse.shape != (n, n):
            raise InputError(f"M has shape {inverse.shape}, expected ({n}, {n})")
        if inverse._rmatvec is None:
            raise InputError("M has no adjoint, which least squares need; pass a LinearOperator with rmatvec")
    with unwarned():
        sizes = xp.abs(b)
        norms = xp.sqrt(xp.sum(sizes**2, axis=0))
        small = (limits.btol * norms < float(xp.finfo(norms.dtype).smallest_normal) ** 0.5) & (
            xp.max(sizes, axis=0) > 0
        )
        vanishing = xp.any(small if limits.btol else small & (norms == 0))
    vanished = bool(check_pending(pending, xp, xp.astype(vanishing, norms.dtype)))
    if damp:
        operator, b = damped(operator, damp, xp), xp.concat([b, xp.zeros_like(x)], axis=0)
    r = b if x0 is None else b - operator @ x
    weights = xp.ones(b.shape[1:], dtype=real_dtype(x.dtype, xp), device=device(b))
    return System(operator, inverse, b, x, r, 1.0, weights, xp, vanishing=vanished), limits


def damped(A: LinearOperator, damp: float, xp: Namespace) -> LinearOperator:
    """``[A; damp I]``."""
    m, n = A.shape
    precise = A._precise_matvec

    def apply(v: Array) -> Array:
        return xp.concat([A @ v, damp * v], axis=0)

    def adjoint(u: Array) -> Array:
        return A.H @ u[:m, ...] + damp * u[m:, ...]

    def wide(v: Array) -> Array:
        assert precise is not None
        top = precise(v)
        return xp.concat([top, damp * xp.astype(v, top.dtype)], axis=0)

    return LinearOperator(
        (m + n, n),
        apply,
        matmat=apply,
        rmatvec=adjoint,
        rmatmat=adjoint,
        dtype=A.dtype,
        precise_matvec=None if precise is None else wide,
        name="[A; damp I]",
    )


class GolubKahan:
    """``A M V = U B``: the recurrence, and the tests on ``||r||`` and ``||M^H A^H r||``.

    A subclass brings `begin` and `step` for its own scalars and vectors; its states have ``x``, ``rnorm``, ``arnorm``,
    ``anorm2`` and ``cond``.
    """

    broken = Status.ILL_CONDITIONED

    def __init__(self, system: System, limits: Limits) -> None:
        self.system, self.limits, self.xp, self.matvecs = system, limits, system.xp, 0
        operator = system.A if system.M is None else system.A @ system.M
        self.A, self.AH, self.adjoint = operator, operator.H, system.A.H
        self.bnorm = system.norm(system.b)
        self.tiny = finfo_eps(system.b.dtype, system.xp)
        # The iterate that was verified last, with its recomputed norms on the host.
        self.verified: tuple[Any, float, float] | None = None

    def normalised(self, u: Array) -> tuple[Array, Array]:
        """``u / ||u||`` and ``||u||``; zero columns stay zero."""
        size = self.system.norm(u)
        return u / self.xp.where(size > 0, size, 1.0), size

    def bidiagonalise(self, u: Array, v: Array, alpha: Array) -> tuple[Array, Array, Array, Array]:
        """The next ``u, v, alpha, beta`` of ``beta u' = A v - alpha u``, ``alpha' v' = A^H u' - beta v``."""
        u, beta = self.normalised(self.A @ v - alpha * u)
        v, alpha = self.normalised(self.AH @ u - beta * v)
        self.matvecs += 2 * self.system.columns
        return u, v, alpha, beta

    def lift(self, t: Array) -> Array:
        """The unknown of the problem from that of the preconditioned one."""
        return self.system.precondition(t)

    def ratios(self, rnorm: Array, arnorm: Array, anorm: Array, xnorm: Array) -> Array:
        """Of each column: how far it is from passing the nearer of its two tests, 1 at the threshold."""
        xp, limits = self.xp, self.limits
        small = limits.btol * self.bnorm + limits.atol * anorm * xnorm
        normal = limits.atol * anorm * rnorm
        # What cannot be resolved in this precision counts as reached: ||A^H r|| of a consistent system is rounding.
        infinite = xp.full_like(rnorm, float("inf"))
        first = xp.where(small > 0, rnorm / xp.where(small > 0, small, 1.0), infinite)
        second = xp.where(normal > 0, arnorm / xp.where(normal > 0, normal, 1.0), infinite)
        return xp.where((rnorm == 0) | (arnorm == 0), 0.0, xp.minimum(first, second))

    def error(self, state: Any) -> Array:
        xp = self.xp
        ratio = xp.max(
            self.ratios(state.rnorm, state.arnorm, xp.sqrt(state.anorm2), self.system.norm(state.t) + state.offset)
        )
        # Beyond conlim the answer would be rounding; the sign says so.
        return xp.where((xp.max(state.cond) > self.limits.conlim) & (ratio > 1.0), -1.0, ratio)

    def begin(self, base: Array, r: Array, anorm2: Array) -> Any:
        """The state whose bidiagonalisation begins with the residual ``r`` of ``base``."""
        raise NotImplementedError

    def step(self, state: Any) -> Any:
        """One step of the bidiagonalisation and of the method's recurrence."""
        raise NotImplementedError

    def start(self, x: Array, r: Array) -> Any:
        zero = self.xp.zeros_like(self.bnorm)
        return self.begin(x, r, zero)

    def measure(self, x: Array) -> tuple[Array, Array, Array]:
        """The recomputed ``r`` and the norms of ``r`` and ``A^H r`` (of ``M^H A^H r`` with a preconditioner)."""
        r = self.system.true_residual(x)
        gradient = self.adjoint @ r
        if self.system.M is not None:
            gradient = self.system.M.H @ gradient
        self.matvecs += 2 * self.system.columns
        return r, self.system.norm(r), self.system.norm(gradient)

    def verify(self, state: Any) -> tuple[Any, float]:
        """Recompute ``r = b - A x`` and ``A^H r``, and bidiagonalise again from there."""
        x = state.x
        r, rnorm, arnorm = self.measure(x)
        anorm2 = self.xp.where(state.anorm2 > 0, state.anorm2, (arnorm / self.xp.where(rnorm > 0, rnorm, 1.0)) ** 2)
        fresh = self.begin(x, r, anorm2)
        ratio = self.ratios(rnorm, arnorm, self.xp.sqrt(anorm2), self.system.norm(x))
        facts = to_host(self.xp.stack([self.xp.max(fact) for fact in (ratio, rnorm, arnorm)]))
        self.verified = fresh, float(facts[1]), float(facts[2])
        return fresh, float(facts[0])

    def run(self, *, maxiter: int | None, **options: Any) -> LeastSquaresResult:
        """Iterate to the result."""
        system = self.system
        limits = LoopOptions(maxiter=2 * system.A.shape[1] if maxiter is None else maxiter, **options)

        def finish(outcome: Outcome[Any]) -> LeastSquaresResult:
            if system.vanishing and outcome.status is Status.CONVERGED:
                outcome = replace(outcome, status=Status.STAGNATED)
            if self.verified is None or self.verified[0] is not outcome.state:
                self.verify(outcome.state)
            assert self.verified is not None
            return LeastSquaresResult(
                x=outcome.state.x,
                residual_norm=self.verified[1],
                normal_norm=self.verified[2],
                evaluations={"matvec": self.matvecs},
                **outcome.fields(),
            )

        start = self.start(system.x, system.r)
        return finish(iterate(self, start, tolerance=1.0, options=limits, on_device=system.b, finish=finish))

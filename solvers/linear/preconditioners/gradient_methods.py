"""Gradient methods preconditioned by polynomials of a curvature bound (Doikov and Rodomanov, ICML 2023).

For ``min f`` with ``mu B <= Hess f <= L B``: the search over all polynomials of a degree in the Krylov space of each
gradient, and the fast gradient method with one fixed symmetric polynomial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ....backends.errors import BackendError, BreakdownError, InputError
from ....backends.linalg import factoring
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, is_array
from ....backends.operators import LinearOperator, as_operator
from ....backends.transfer import host_float
from ....backends.validation import check_array, check_callable, check_count, check_scalar
from ...iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ...result import Result
from .polynomial import estimate_bounds

Gradient = Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True, repr=False)
class GradientResult(Result):
    """Minimiser ``x`` and its ``gradient``; ``residual`` is the norm of the gradient."""

    x: Array
    gradient: Array


def krylov_gradient(
    gradient: Gradient,
    B: Any,
    x0: Array,
    L: float,
    tau: int = 4,
    *,
    rtol: float = 1e-6,
    atol: float = 0.0,
    maxiter: int = 1000,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> GradientResult:
    """Minimise a convex function whose Hessian is at most ``L B``, each step by the best polynomial of degree ``tau`` in ``B``.

    Parameters
    ----------
    gradient : callable
        ``x (n,) -> grad f(x) (n,)``.
    B : array (n, n), sparse matrix, LinearOperator or callable
        Symmetric positive definite; for ``f(x) = mean_i phi(a_i^T x)`` it is ``A^T A / m``.
    x0 : array (n,)
        Starting point, real; not modified. Decides library, dtype and device.
    L : float
        ``Hess f <= L B``: the largest second derivative of ``phi`` (1/4 for the logistic loss).
    tau : int
        Degree; ``tau + 1`` products with ``B`` per step. Zero is the gradient method with the best step length.
    rtol, atol : float
        Converged when ``||grad f(x)|| <= max(rtol ||grad f(x0)||, atol)``.
    maxiter, callback, check_every, progress, time_limit
        See `LoopOptions`; the callback's iterate has ``x`` and ``g``.

    Returns
    -------
    GradientResult
        ``x`` and ``gradient``; ``evaluations`` counts gradients and products.

    Raises
    ------
    InputError, BackendError
        Bad arguments; the message names them.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached.

    Notes
    -----
    ``x+ = x - K a / L`` with an orthonormal basis ``K`` of ``span{g, B g, ..., B^tau g}`` and
    ``(K^T B K) a = K^T g``: the polynomial ``p`` of degree ``tau`` that minimises the bound
    ``-<g, p(B) g> + <B p(B) g, p(B) g> / 2``. The powers themselves lose their rank at ``tau = 4`` in double precision.
    It is at least as good as the method with any fixed polynomial, and cuts the ``tau`` largest eigenvalues without
    knowing them.

    References
    ----------
    N. Doikov, A. Rodomanov, Polynomial preconditioning for gradient methods, ICML 2023, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import krylov_gradient
    >>> B, c = np.diag(np.asarray([100.0, 10.0, 1.0])), np.ones(3)
    >>> krylov_gradient(lambda x: B @ x - c, B, np.zeros(3), 1.0, tau=2).x.round(6).tolist()
    [0.01, 0.1, 1.0]
    """
    operator, xp = _checked(gradient, B, x0)
    method = _Krylov(gradient, operator, check_scalar(L, "L", positive=True), check_count(tau, "tau", minimum=0), xp)
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    return _run(method, x0, rtol, atol, options, "krylov_gradient")


def fast_gradient(
    gradient: Gradient,
    B: Any,
    x0: Array,
    L: float,
    P: LinearOperator | None = None,
    *,
    beta: float | None = None,
    rtol: float = 1e-6,
    atol: float = 0.0,
    maxiter: int = 10000,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> GradientResult:
    """Nesterov's fast gradient method in the norm of ``P^{-1}``, for a convex function whose Hessian is at most ``L B``.

    Parameters
    ----------
    gradient, B, x0, L
        As of `krylov_gradient`.
    P : LinearOperator, optional
        Symmetric positive definite, e.g. `symmetric_polynomial` of ``B``; default the identity.
    beta : float, optional
        Bound of the largest eigenvalue of ``P B``; default by Lanczos (`estimate_bounds`), for ``P`` a polynomial in ``B``.
    rtol, atol, maxiter, callback, check_every, progress, time_limit
        As of `krylov_gradient`.

    Returns
    -------
    GradientResult
        As of `krylov_gradient`; one gradient and one product with ``P`` per step, and one gradient more for each look at
        the tested norm (see ``check_every``).

    Raises
    ------
    InputError, BackendError
        Bad arguments; the message names them.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached.

    Notes
    -----
    ``a^2 L beta = S + a``, ``y = (S x + a v) / (S + a)``, ``v -= a P grad f(y)``, ``x = (S x + a v) / (S + a)``,
    ``S += a``. Then ``f(x_k) - f* <= 2 L beta ||x_0 - x*||^2 / k^2`` in the norm of ``P^{-1}``.

    References
    ----------
    Y. Nesterov, Lectures on convex optimization, 2018, section 2.2.
    N. Doikov, A. Rodomanov, Polynomial preconditioning for gradient methods, ICML 2023, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.preconditioners import fast_gradient, symmetric_polynomial
    >>> B, c = np.diag(np.asarray([100.0, 10.0, 1.0])), np.ones(3)
    >>> P = symmetric_polynomial(B, 2)
    >>> fast_gradient(lambda x: B @ x - c, B, np.zeros(3), 1.0, P).x.round(4).tolist()
    [0.01, 0.1, 1.0]
    """
    operator, xp = _checked(gradient, B, x0)
    scale = check_scalar(L, "L", positive=True)
    inverse = None if P is None else as_operator(P, like=x0, name="P", vector="x0")
    if beta is None:
        beta = estimate_bounds(operator if inverse is None else inverse @ operator, like=x0)[1]
        if not beta > 0:
            product = "B is" if inverse is None else "B or P is"
            raise InputError(f"{product} not positive definite: the largest eigenvalue found is {beta:.3g}")
    method = _Fast(gradient, inverse, scale * check_scalar(beta, "beta", positive=True), xp)
    options = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    return _run(method, x0, rtol, atol, options, "fast_gradient")


class _State(NamedTuple):
    """``x`` the iterate and ``g`` its gradient; of the fast method also the averaged point ``v`` and the sum ``S``, and
    ``g`` is its last direction until a state is verified; of the other whether a curvature of ``B`` was not positive."""

    x: Array
    g: Array
    v: Array
    total: float
    broken: Any = False


class _Descent:
    """What both methods share: the tested gradient is computed at the iterate itself, so it is already the truth."""

    def __init__(self, gradient: Gradient, xp: Namespace) -> None:
        self.gradient, self.xp = gradient, xp
        self.counts = {"gradient": 0, "matvec": 0}

    def evaluate(self, x: Array) -> Array:
        self.counts["gradient"] += 1
        g = self.gradient(x)
        if not is_array(g):
            raise BackendError(f"gradient returned a {type(g).__name__}, expected an array of shape {tuple(x.shape)}")
        return check_array(g, "gradient", self.xp, shape=tuple(x.shape), dtype=x.dtype, finite=False)

    def error(self, state: _State) -> Array:
        norm = self.xp.linalg.vector_norm(state.g)
        return norm if state.broken is False else self.xp.where(state.broken, -self.xp.ones_like(norm), norm)

    def verify(self, state: _State) -> tuple[_State, float]:
        return state, host_float(self.error(state))


class _Krylov(_Descent):
    def __init__(self, gradient: Gradient, B: LinearOperator, L: float, tau: int, xp: Namespace) -> None:
        super().__init__(gradient, xp)
        self.B, self.L, self.tau = B, L, tau

    def step(self, state: _State) -> _State:
        xp, g = self.xp, state.g
        size, n = self.tau + 1, g.shape[0]
        basis = xp.zeros((size, n), dtype=g.dtype, device=device(g))
        images = xp.zeros((size, n), dtype=g.dtype, device=device(g))
        lost = 100.0 * finfo_eps(g.dtype, xp)
        w, before = g, xp.linalg.vector_norm(g)
        kept = []
        for j in range(size):
            for _ in range(2 if j else 0):
                seen = basis[:j, :]
                w = w - (seen @ w) @ seen
            norm = xp.linalg.vector_norm(w)
            # An exhausted space: a vector of rounding is replaced by zero, and takes no part.
            alive = norm > lost * before
            basis[j, :] = xp.where(alive, w / xp.where(alive, norm, xp.ones_like(norm)), xp.zeros_like(w))
            kept.append(alive)
            w = self.B @ basis[j, :]
            images[j, :] = w
            before = xp.linalg.vector_norm(w)
        self.counts["matvec"] += size
        gram = basis @ images.T
        dead = xp.astype(~xp.stack(kept), g.dtype)
        gram = 0.5 * (gram + gram.T) + dead[:, None] * xp.eye(size, dtype=g.dtype, device=device(g))
        curvatures = xp.linalg.diagonal(gram)
        # Beyond rounding; of a matrix of zeros all are.
        least = -lost * xp.max(xp.abs(curvatures))
        broken = ~xp.all(curvatures > least) & xp.all(xp.isfinite(gram))
        try:
            with factoring("", xp):
                a = xp.linalg.solve(gram, (basis @ g)[:, None])[:, 0]
        except BreakdownError:
            return state._replace(broken=broken | True)
        x = state.x - (a @ basis) * (1.0 / self.L)
        return _State(x, self.evaluate(x), x, 0.0, broken)


class _Fast(_Descent):
    def __init__(self, gradient: Gradient, P: LinearOperator | None, bound: float, xp: Namespace) -> None:
        super().__init__(gradient, xp)
        self.P, self.bound = P, bound

    def step(self, state: _State) -> _State:
        x, v, total = state.x, state.v, state.total
        # The positive root of a^2 bound = total + a.
        a = (1.0 + (1.0 + 4.0 * self.bound * total) ** 0.5) / (2.0 * self.bound)
        share = a / (total + a)
        g = self.evaluate((1.0 - share) * x + share * v)
        if self.P is not None:
            g = self.P @ g
            self.counts["matvec"] += 1
        v = v - a * g
        return _State((1.0 - share) * x + share * v, g, v, total + a)

    # The steps need gradients between x and v: the one at x is computed only when somebody looks.

    def error(self, state: _State) -> Array:
        return self.xp.linalg.vector_norm(self.evaluate(state.x))

    def verify(self, state: _State) -> tuple[_State, float]:
        g = self.evaluate(state.x)
        return state._replace(g=g), host_float(self.xp.linalg.vector_norm(g))


def _checked(gradient: Gradient, B: Any, x0: Array) -> tuple[LinearOperator, Namespace]:
    if gradient is None:
        raise InputError("gradient is None, expected a function x -> grad f(x)")
    check_callable(gradient, "gradient")
    xp = array_namespace(x0=x0)
    check_array(x0, "x0", xp, ndim=1)
    return as_operator(B, like=x0, name="B", vector="x0"), xp


def _run(method: Any, x0: Array, rtol: float, atol: float, options: LoopOptions, name: str) -> GradientResult:
    rtol, atol = check_scalar(rtol, "rtol", non_negative=True), check_scalar(atol, "atol", non_negative=True)
    g = method.evaluate(x0)
    start = _State(x0, g, x0, 0.0)
    tolerance = max(rtol * host_float(method.xp.linalg.vector_norm(g)), atol)

    def finish(outcome: Outcome[_State]) -> GradientResult:
        state = outcome.state
        return GradientResult(x=state.x, gradient=state.g, evaluations=dict(method.counts), **outcome.fields())

    result = finish(iterate(method, start, tolerance=tolerance, options=options, on_device=x0, finish=finish))
    warn_unless_converged(result, name)
    return result

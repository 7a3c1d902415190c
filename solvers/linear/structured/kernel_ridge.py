"""Kernel ridge regression on many points: ``(K + mu I) a = y`` without the matrix.

Conjugate gradients with the Nystrom preconditioner of Frangella, Tropp, Udell (2023); float32 systems are solved in float32
inside a refinement whose residuals are float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ....backends.errors import ConvergenceWarning
from ....backends.linalg import cho_solve, cholesky
from ....backends.namespace import Array, Namespace, array_namespace, device, wide_dtype
from ....backends.operators import LinearOperator
from ....backends.pairs import Kernel, Pairs
from ....backends.transfer import host_float
from ....backends.validation import check_array, check_choice, check_count, check_scalar
from ...iterate import Callback, warn_unless_converged
from ...result import Result, Status
from ..cg import cg
from ..norms import column_norms
from ..preconditioners import landmarks
from .kernel import kernel_operator

# Points up to which a stored matrix and its Cholesky factor are faster than iterations.
_DENSE_UP_TO = 2000
# How far one float32 solve of the refinement is trusted, and how many may follow each other.
_INNER_RTOL, _REFINEMENTS = 1e-3, 12


def kernel_ridge(
    x: Array,
    y: Array,
    kernel: Kernel,
    mu: float,
    *,
    method: str = "auto",
    rank: int | None = None,
    rtol: float = 1e-5,
    maxiter: int = 1000,
    rng: Any = None,
    engine: str = "auto",
    callback: Callback | None = None,
    time_limit: float | None = None,
) -> KernelRidge:
    """Minimise ``|K a - y|^2 + mu a^T K a``: solve ``(K + mu I) a = y``.

    Parameters
    ----------
    x : array (n, d)
        Training points, float32 or float64.
    y : array (n,) or (n, k)
        Targets, of the dtype of ``x``; several share each product.
    kernel : Kernel
        A positive definite kernel of `backends.pairs`: `gaussian`, `laplace`, `matern`, `cauchy`.
    mu : float
        Positive regularisation: the noise variance in units of the prior variance of a Gaussian process.
    method : {"auto", "cholesky", "nystrom", "cg"}
        ``"cholesky"`` stores the matrix, in float64; ``"nystrom"`` and ``"cg"`` iterate, with and without the preconditioner.
        ``"auto"``: Cholesky up to 2000 points, else Nystrom.
    rank : int, optional
        Columns of the preconditioner. By default doubled from 64 until no eigenvalue above ``10 mu`` is left out, at most
        1024.
    rtol : float
        Stop when ``|(K + mu I) a_j - y_j| <= rtol |y_j|`` for each column.
    maxiter : int
        Most iterations, counted over all refinements.
    rng : None, int, Generator
        Which points are the landmarks of the preconditioner.
    engine : str
        Engine of the reductions, see `Pairs`.
    callback, time_limit
        See `LoopOptions`; they act on each inner solve.

    Returns
    -------
    KernelRidge
        Coefficients and `predict`; ``residual`` is ``|(K + mu I) a - y|`` of the returned coefficients, in float64.

    Raises
    ------
    BackendError, InputError
        Bad points, targets, kernel or options; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached.

    Notes
    -----
    O(n^2 d) operations an iteration and O(n (d + rank)) memory. A float32 system is solved in float32 again and again for
    its float64 residual: one such solve alone stops near ``eps |K| / mu``.

    References
    ----------
    Z. Frangella, J. A. Tropp, M. Udell, Randomized Nystrom preconditioning, SIAM J. Matrix Anal. Appl. 44, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.backends.pairs import gaussian
    >>> from xpsolve.solvers.linear.structured import kernel_ridge
    >>> x = np.linspace(0.0, 6.0, 200)[:, None]
    >>> model = kernel_ridge(x, np.sin(x[:, 0]), gaussian(0.5), 1e-4)
    >>> model.predict(np.asarray([[1.5], [3.0]])).round(3).tolist()
    [0.998, 0.141]
    """
    xp = array_namespace(x=x, y=y)
    check_array(x, "x", xp, ndim=2)
    check_array(y, "y", xp, ndim=(1, 2), shape=(x.shape[0], *y.shape[1:]), dtype=x.dtype)
    mu = check_scalar(mu, "mu", positive=True)
    rtol = check_scalar(rtol, "rtol", non_negative=True)
    check_choice(method, "method", ("auto", "cholesky", "nystrom", "cg"))
    check_count(maxiter, "maxiter", minimum=0)
    if rank is not None:
        check_count(rank, "rank")
    A = kernel_operator(x, kernel, mu=mu, engine=engine)
    if method == "auto":
        method = "cholesky" if x.shape[0] <= _DENSE_UP_TO else "nystrom"
    if method == "cholesky":
        fit = _direct(A, x, y, kernel, mu, rtol, xp)
        warn_unless_converged(fit, "kernel_ridge")
        return fit
    M = landmarks(x, kernel, mu, rank=rank, rng=rng) if method == "nystrom" else None
    used = 0 if M is None else int(M.eigenvalues.shape[0])
    limits = {"callback": callback, "time_limit": time_limit}
    fields = _refined(A, M, y, rtol, maxiter, limits, xp)

    def solve(b: Array) -> Array:
        more = _refined(A, M, b, rtol, maxiter, {"time_limit": time_limit}, xp)
        solved: Array = more.pop("coefficients")
        warn_unless_converged(Result(**more), "KernelRidge.solve")
        return solved

    fit = KernelRidge(points=x, kernel=kernel, method=method, rank=used, _solve=solve, **fields)
    warn_unless_converged(fit, "kernel_ridge")
    return fit


@dataclass(frozen=True, kw_only=True, repr=False)
class KernelRidge(Result):
    """A fitted kernel ridge regression.

    Attributes
    ----------
    coefficients : array (n,) or (n, k)
        ``a`` with ``(K + mu I) a = y``, in the dtype of ``y``.
    points : array (n, d)
        The training points.
    kernel : Kernel
        The kernel.
    method : str
        ``"cholesky"``, ``"nystrom"`` or ``"cg"``.
    rank : int
        Rank of the preconditioner; 0 if there is none.
    """

    coefficients: Array
    points: Array
    kernel: Kernel
    method: str
    rank: int
    _solve: Callable[[Array], Array] = field(repr=False)

    def predict(self, points: Array) -> Array:
        """``sum_j k(points_i, x_j) a_j``: (p,) or (p, k) for ``points`` (p, d)."""
        xp = array_namespace(points=points, x=self.points)
        check_array(points, "points", xp, shape=(None, self.points.shape[1]), dtype=self.points.dtype)
        return Pairs(points, self.points, self.kernel, passes=1).sum(self.coefficients)

    def solve(self, b: Array) -> Array:
        """``(K + mu I)^{-1} b`` for more right-hand sides (n,) or (n, k), with the same factor or preconditioner.

        The limits are those of the fit; a `ConvergenceWarning` says where one was met.
        """
        xp = array_namespace(points=self.points, b=b)
        check_array(b, "b", xp, shape=(self.points.shape[0], *b.shape[1:]), ndim=(1, 2), dtype=self.points.dtype)
        return self._solve(b)


def _direct(
    A: LinearOperator, x: Array, y: Array, kernel: Kernel, mu: float, rtol: float, xp: Namespace
) -> KernelRidge:
    wide = wide_dtype(x, xp)
    points, eye = xp.astype(x, wide), xp.eye(x.shape[0], dtype=wide, device=device(x))
    K = Pairs(points, points, kernel, passes=1).sum(eye)
    L = cholesky((K + K.T) / 2.0 + mu * eye, xp=xp)

    def solve(b: Array) -> Array:
        return xp.astype(cho_solve(L, xp.astype(b, wide), xp=xp), x.dtype)

    coefficients = solve(y)
    residual, tolerance = _worst(_residual(A, y, coefficients, xp), y, rtol, xp)
    status = Status.CONVERGED if residual <= tolerance else Status.STAGNATED
    return KernelRidge(
        status=status, n_iter=0, residual=residual, tolerance=tolerance, history=(residual,), evaluations={"matvec": 1},
        coefficients=coefficients, points=x, kernel=kernel, method="cholesky", rank=0, _solve=solve,
    )  # fmt: skip


def _refined(
    A: LinearOperator,
    M: LinearOperator | None,
    y: Array,
    rtol: float,
    maxiter: int,
    limits: dict[str, Any],
    xp: Namespace,
) -> dict[str, Any]:
    """Conjugate gradients, repeated on the wide residual while that gains: the fields of the result."""
    wide = wide_dtype(y, xp)
    single = y.dtype != wide
    total, r = xp.zeros_like(xp.astype(y, wide)), xp.astype(y, wide)
    residual, tolerance = _worst(r, y, rtol, xp)
    history, iterations, products, status = [residual], 0, 0, Status.MAX_ITER
    for _ in range(_REFINEMENTS if single else 1):
        goal, size = rtol, column_norms(r, xp)
        if single:
            # Each column in units of its own residual: a small one must not lose its digits to a large one.
            size = xp.where(size > 0, size, xp.ones_like(size))
            goal = max(_INNER_RTOL, min(0.5, 0.3 * tolerance / max(residual, 1e-300)))
        else:
            # So is one whose squares are near the ends of the range.
            far = float(xp.finfo(wide).max) ** 0.4
            size = xp.where((size > 0) & ((size < 1.0 / far) | (size > far)), size, xp.ones_like(size))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            inner = cg(A, xp.astype(r / size, y.dtype), M=M, rtol=goal, maxiter=maxiter - iterations, **limits)
        iterations, products = iterations + inner.n_iter, products + inner.evaluations["matvec"]
        total = total + xp.astype(inner.x, wide) * size
        r = _residual(A, y, total, xp)
        before, (residual, _) = residual, _worst(r, y, rtol, xp)
        history += [residual] if single else inner.history[1:]
        status = Status.CONVERGED if residual <= tolerance else inner.status
        if status is not inner.status or inner.status not in {Status.CONVERGED, Status.STAGNATED}:
            break
        if residual > tolerance:
            status = Status.MAX_ITER if iterations >= maxiter else Status.STAGNATED
        if residual <= tolerance or iterations >= maxiter or residual > 0.5 * before:
            break
    coefficients = xp.astype(total, y.dtype)
    if single:
        # What is returned is rounded to float32, and that is what the residual must speak of.
        residual, _ = _worst(_residual(A, y, coefficients, xp), y, rtol, xp)
        if status is Status.CONVERGED and not residual <= tolerance:
            status = Status.STAGNATED
    return {
        "coefficients": coefficients, "status": status, "n_iter": iterations, "residual": residual,
        "tolerance": tolerance, "history": tuple(history), "evaluations": {"matvec": products},
    }  # fmt: skip


def _residual(A: LinearOperator, y: Array, a: Array, xp: Namespace) -> Array:
    """``y - A a`` in the widest dtype; ``a`` may be wider than ``A``."""
    if A._precise_matvec is None:
        return y - A @ a
    wide: Array = A._precise_matvec(a)
    return xp.astype(y, wide.dtype) - wide


def _worst(r: Array, y: Array, rtol: float, xp: Namespace) -> tuple[float, float]:
    """The largest residual of a column in units of its tolerance, times the largest tolerance; and that tolerance."""
    bounds, residuals = rtol * column_norms(xp.astype(y, r.dtype), xp), column_norms(r, xp)
    tolerance = host_float(xp.max(bounds))
    weights = xp.where(bounds > 0, tolerance / xp.where(bounds > 0, bounds, 1.0), 1.0)
    worst = host_float(xp.max(residuals * weights))
    return (worst if math.isfinite(worst) else math.inf), tolerance

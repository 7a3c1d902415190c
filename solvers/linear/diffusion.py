"""Many diffusion problems on one grid at once: conjugate gradients in lanes, preconditioned by a fast Poisson solver.

``-div(a grad u) = f`` for a batch of coefficients, as data sets for neural operators need them. The preconditioner
``a^{-1/2} L^{-1} a^{-1/2}`` (Concus and Golub 1973) makes the number of iterations independent of the mesh; every array has a
lane for each problem, and a lane that has converged stands still.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ...backends.errors import InputError
from ...backends.namespace import Array, Namespace, array_namespace, device, is_gpu
from ...backends.operators import FivePoint
from ...backends.transfer import host_float, to_host
from ...backends.transforms import dst1
from ...backends.validation import check_array, check_count, check_scalar, unwarned
from ..iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ..result import LinearResult, Status

# Up to this many points along an axis the transform is a product with its matrix: BLAS beats an FFT of twice the length.
_MATRIX = 100
# Values of one array of a batch that keep a core's cache warm.
_CACHED = 2**15


def solve_diffusion(
    a: Array,
    f: Array,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int = 1000,
    lanes: int | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve ``-div(a grad u) = f / h^2``, ``u = 0`` on the boundary, for a batch of coefficients on one grid.

    Parameters
    ----------
    a : array (N, p + 2, q + 2)
        Positive coefficients at the nodes, boundary included; see `FivePoint.diffusion` for the equations.
    f : array (N, p, q) or (p, q)
        Right-hand sides at the inner nodes, multiplied by ``h^2``; one of them may serve all problems.
    rtol, atol : float
        Problem ``i`` has converged when ``||f_i - A_i u_i|| <= max(rtol ||f_i||, atol)``.
    maxiter : int
        Most iterations.
    lanes : int, optional
        Problems solved at once; by default all on a GPU, and as many as fit a core's cache on the host.
    callback, check_every, progress, time_limit
        See `LoopOptions`; they hold for each batch of lanes.

    Returns
    -------
    LinearResult
        ``x`` (N, p, q); ``n_iter`` is the largest of a batch, ``residual`` the largest ``||r_i|| tau / tau_i`` of a problem
        whose bound is ``tau_i``, ``tau`` the largest bound.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        A problem has not reached its tolerance; the result holds the last iterates.

    Notes
    -----
    The number of iterations grows with the variation of ``log a`` on small scales, not with the number of points; for jumps of
    a factor of 100 between neighbours use `preconditioners.amg`, problem by problem.

    References
    ----------
    P. Concus, G. H. Golub, Use of fast direct methods for the efficient numerical solution of nonseparable elliptic equations,
    1973.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from xpsolve.problems import darcy_sequence
    >>> from xpsolve.solvers.linear import solve_diffusion
    >>> data = darcy_sequence(20, 5, xp=xp)
    >>> result = solve_diffusion(data.field, data.rhs, rtol=1e-8)
    >>> result.x.shape, result.n_iter < 15
    ((5, 20, 20), True)
    """
    xp = array_namespace(a=a, f=f)
    check_array(a, "a", xp, ndim=3, finite=False)
    if min(a.shape[1:]) < 3:
        raise InputError(f"a has shape {tuple(a.shape)}, expected (N, p + 2, q + 2) with the boundary")
    count, p, q = a.shape[0], a.shape[1] - 2, a.shape[2] - 2
    check_array(f, "f", xp, ndim=(2, 3), shape=(p, q) if f.ndim == 2 else (count, p, q), dtype=a.dtype, finite=False)
    rtol, atol = check_scalar(rtol, "rtol", non_negative=True), check_scalar(atol, "atol", non_negative=True)
    limits = LoopOptions(
        maxiter=maxiter, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )
    if lanes is None:
        lanes = count if is_gpu(a) else max(1, _CACHED // (p * q))
    check_count(lanes, "lanes")
    rhs = xp.broadcast_to(f, (count, p, q))
    bounds, host = _bounds(a, f, rtol, atol, count, xp)
    parts: list[LinearResult] = []
    for first in range(0, count, lanes):
        batch = slice(first, min(first + lanes, count))
        try:
            parts.append(_solve_batch(a[batch, ...], rhs[batch, ...], bounds[batch, ...], max(host[batch]), limits, xp))
        except Exception as err:
            if isinstance(partial := getattr(err, "result", None), LinearResult):
                err.result = _together([*parts, partial], rhs, xp)  # type: ignore[attr-defined]
            raise
        if parts[-1].status in {Status.STOPPED, Status.INTERRUPTED, Status.TIME_LIMIT}:
            break
    result = _together(parts, rhs, xp)
    warn_unless_converged(result, "solve_diffusion")
    return result


def _together(parts: list[LinearResult], rhs: Array, xp: Namespace) -> LinearResult:
    """One result of the batches, zero where none was begun; the worst of them speaks for all."""
    done = xp.concat([part.x for part in parts], axis=0)
    if done.shape[0] < rhs.shape[0]:
        done = xp.concat([done, xp.zeros_like(rhs[done.shape[0] :, ...])], axis=0)
    worst = max(parts, key=lambda part: (not part.converged, part.residual / (part.tolerance or 1.0)))
    return LinearResult(
        x=done, status=worst.status, n_iter=max(part.n_iter for part in parts), residual=worst.residual,
        tolerance=worst.tolerance, history=worst.history,
        evaluations={"matvec": sum(part.evaluations["matvec"] for part in parts)},
    )  # fmt: skip


def _bounds(a: Array, f: Array, rtol: float, atol: float, count: int, xp: Namespace) -> tuple[Array, list[float]]:
    """What the residual of each problem must meet, (N, 1, 1) and on the host, and whether the entries are what they must be.

    All is read in one transfer.
    """
    with unwarned():
        norms = xp.sqrt(xp.sum(f * f, axis=(-2, -1), keepdims=True))
        bounds = xp.broadcast_to(xp.maximum(rtol * norms, xp.full_like(norms, atol)), (count, 1, 1))
        facts = xp.stack([xp.all(xp.isfinite(a)), xp.all(a > 0), xp.all(xp.isfinite(f))])
    read = to_host(xp.concat([xp.astype(facts, a.dtype), xp.reshape(bounds, (-1,))]))
    for holds, what in zip(
        read,
        (
            "a contains NaN or infinite values",
            "a has entries that are not positive; a diffusion coefficient must be",
            "f contains NaN or infinite values",
        ),
        strict=False,
    ):
        if not holds:
            raise InputError(what)
    return bounds, [float(bound) for bound in read[3:]]


def _solve_batch(
    a: Array, f: Array, bounds: Array, tolerance: float, limits: LoopOptions, xp: Namespace
) -> LinearResult:
    weights = xp.where(bounds > 0, tolerance / xp.where(bounds > 0, bounds, 1.0), 1.0)
    method = _Lanes(a, f, weights, tolerance, xp)

    def finish(outcome: Outcome[Any]) -> LinearResult:
        return LinearResult(x=outcome.state.x, evaluations={"matvec": method.matvecs}, **outcome.fields())

    start = method.start(xp.zeros_like(f), f)
    return finish(iterate(method, start, tolerance=tolerance, options=limits, on_device=a, finish=finish))


class _State(NamedTuple):
    """As of `cg`, with a lane for each problem: vectors (N, p, q), scalars (N, 1, 1)."""

    x: Array
    r: Array
    p: Array
    rz: Array
    rr: Array


class _Lanes:
    def __init__(self, a: Array, f: Array, weights: Array, tolerance: float, xp: Any) -> None:
        self.A, self.f, self.weights, self.tolerance, self.xp = FivePoint.diffusion(a), f, weights, tolerance, xp
        self.scale = 1.0 / xp.sqrt(a[:, 1:-1, 1:-1])
        self.matvecs = 0
        rows, columns = int(f.shape[1]), int(f.shape[2])
        self.sines = None
        if max(rows, columns) <= _MATRIX:
            self.sines = (self.matrix(rows), self.matrix(columns))
        self.inverse = 1.0 / (self.eigenvalues(rows)[:, None] + self.eigenvalues(columns)[None, :])

    def eigenvalues(self, n: int) -> Array:
        """Of ``tridiag(-1, 2, -1)``."""
        i = self.xp.arange(1, n + 1, dtype=self.f.dtype, device=device(self.f))
        return 4.0 * self.xp.sin(i * (math.pi / (2 * (n + 1)))) ** 2

    def matrix(self, n: int) -> Array:
        """Its eigenvectors."""
        return dst1(self.xp.eye(n, dtype=self.f.dtype, device=device(self.f)), 0, xp=self.xp)

    def precondition(self, r: Array) -> Array:
        """``a^{-1/2} L^{-1} a^{-1/2} r``."""
        xp = self.xp
        u = r * self.scale
        if self.sines is not None:
            left, right = self.sines
            u = xp.matmul(left, xp.matmul(u, right)) * self.inverse
            return xp.matmul(left, xp.matmul(u, right)) * self.scale
        u = dst1(dst1(u, 1, xp=xp), 2, xp=xp) * self.inverse
        return dst1(dst1(u, 1, xp=xp), 2, xp=xp) * self.scale

    def inner(self, u: Array, v: Array) -> Array:
        """Inner products of the lanes."""
        lanes = u.shape[0]
        return self.xp.matmul(self.xp.reshape(u, (lanes, 1, -1)), self.xp.reshape(v, (lanes, -1, 1)))

    def start(self, x: Array, r: Array) -> _State:
        z = self.precondition(r)
        return _State(x, r, z, self.inner(r, z), self.inner(r, r))

    def step(self, state: _State) -> _State:
        xp = self.xp
        x, r, p, rz, rr = state
        active = xp.sqrt(rr) * self.weights > self.tolerance
        q = self.A.apply(p)
        self.matvecs += int(p.shape[0])
        curvature = self.inner(p, q)
        good = active & (curvature != 0)
        alpha = xp.where(good, rz / xp.where(good, curvature, 1.0), 0.0)
        x = x + alpha * p
        r = r - alpha * q
        z = self.precondition(r)
        new = self.inner(r, z)
        beta = xp.where(good, new / xp.where(good, rz, 1.0), 0.0)
        return _State(x, r, xp.where(active, z + beta * p, p), new, self.inner(r, r))

    def error(self, state: _State) -> Array:
        return self.xp.max(self.xp.sqrt(state.rr) * self.weights)

    def verify(self, state: _State) -> tuple[_State, float]:
        """Recompute ``f - A u`` and restart the directions from it."""
        self.matvecs += int(self.f.shape[0])
        r = self.f - self.A.apply(state.x)
        rr = self.inner(r, r)
        worst = host_float(self.error(state._replace(rr=rr)))
        return (state._replace(r=r, rr=rr) if worst <= self.tolerance else self.start(state.x, r)), worst

"""The whole regularisation path from one Krylov basis: ``(A + mu I) x = b`` for many ``mu`` at the price of the hardest.

Krylov spaces do not change when the matrix is shifted. One block Lanczos basis, fully reorthogonalised and begun with ``b`` and
random vectors, gives ``x_mu = Q (T + mu I)^{-1} Q^H b`` for every shift, with its residual norm for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ....backends.errors import InputError
from ....backends.linalg import adjoint
from ....backends.namespace import Array, device
from ....backends.random import Sampler
from ....backends.transfer import from_host, to_host, to_host_together
from ....backends.validation import check_count, check_scalar
from ...iterate import Callback, Outcome, warn_unless_converged
from ...result import LinearResult, Status
from ..system import System, prepare, run


@dataclass(frozen=True, kw_only=True, repr=False)
class PathResult(LinearResult):
    """Solutions ``x`` (n, p), one column for each shift.

    Attributes
    ----------
    shifts : tuple of float
        The shifts ``mu``.
    residual_norms : tuple of float
        The recomputed ``||b - (A + mu I) x||``.
    trace_inverse, logdet : tuple of (float, float)
        Estimates of ``tr (A + mu I)^{-1}`` and ``log det (A + mu I)``, each with its standard error, from the random vectors
        of the basis: with ``b^H x`` all that the evidence of a Gaussian process needs. Empty when ``t < 3``.
    """

    shifts: tuple[float, ...]
    residual_norms: tuple[float, ...]
    trace_inverse: tuple[tuple[float, float], ...] = ()
    logdet: tuple[tuple[float, float], ...] = ()


def regularization_path(
    A: Any,
    b: Array,
    shifts: Sequence[float],
    *,
    t: int = 16,
    rng: Any = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> PathResult:
    """Solve ``(A + mu I) x = b`` for a Hermitian ``A`` and all ``mu`` of ``shifts``.

    Parameters
    ----------
    A : array (n, n), sparse matrix, LinearOperator or callable
        Hermitian, ``A + mu I`` positive definite for each shift.
    b : array (n,)
        The right-hand side.
    shifts : sequence of float
        The values of ``mu``.
    t : int
        Vectors that begin the space: ``b`` and ``t - 1`` Gaussian ones.
    rng : None, int or Generator
        Of the Gaussian vectors (SPEC 7).
    rtol, atol : float
        Each shift has converged when ``||b - (A + mu I) x|| <= max(rtol ||b||, atol)``.
    maxiter : int, optional
        Most passes over ``A``, default as many as exhaust the space, ``ceil(n / t)``.
    callback, check_every, progress, time_limit
        See `LoopOptions`.

    Returns
    -------
    PathResult
        ``residual`` is the largest recomputed residual norm of a shift.

    Raises
    ------
    BackendError, InputError
        Bad dtype, library, shape or value; the message names the argument.

    Warns
    -----
    ConvergenceWarning
        A shift has not reached the tolerance; the result holds the best solutions of the space, and zero for a shift that
        makes the matrix singular there.

    Notes
    -----
    Keeps ``t`` vectors for each pass, and orthogonalises against all of them. The full basis is what makes small shifts cheap:
    conjugate gradients lose it and need many times more products. The same basis gives the quadratic forms of its random
    vectors (Lanczos quadrature), and so the traces.

    References
    ----------
    T. Chen, C. Huber, E. Lin, H. Zaid, Preconditioning without a preconditioner, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear import regularization_path
    >>> path = regularization_path(np.diag([1.0, 2.0, 3.0]), np.ones(3), [1.0, 7.0], rtol=1e-10)
    >>> path.x[0].round(6).tolist()
    [0.5, 0.125]
    """
    system = prepare(A, b, x0=None, rtol=rtol, atol=atol, M=None, hermitian=True)
    if b.ndim != 1:
        raise InputError(f"b has shape {tuple(b.shape)}, expected (n,)")
    if not hasattr(shifts, "__len__") or not len(shifts):
        raise InputError(f"shifts is {shifts!r}, expected a sequence of numbers")
    values = [check_scalar(mu, "shifts") for mu in shifts]
    n = b.shape[0]
    t = min(check_count(t, "t"), n)
    method = _Path(system, values, t, rng)

    def build(outcome: Outcome[Any]) -> PathResult:
        x, passes = outcome.state.x, outcome.state.passes
        norms = method.true_norms(passes, x)
        status = outcome.status
        if method.singular and status in {Status.MAX_ITER, Status.STAGNATED}:
            status = Status.INDEFINITE
        return PathResult(
            x=x,
            shifts=tuple(values),
            residual_norms=tuple(norms),
            trace_inverse=method.traces(passes, lambda value: 1.0 / value),
            logdet=method.traces(passes, math.log),
            evaluations={"matvec": method.matvecs},
            **(outcome.fields() | {"status": status, "residual": _largest(norms)}),
        )

    result: PathResult = run(
        method, system, maxiter=-(-n // t) if maxiter is None else maxiter, callback=callback, check_every=check_every,
        progress=progress, time_limit=time_limit, build=build,
    )  # fmt: skip
    warn_unless_converged(result, "regularization_path")
    return result


def _largest(norms: list[float]) -> float:
    """NaN if one of them is, which Python's own would pass over."""
    return math.nan if any(math.isnan(norm) for norm in norms) else max(norms)


class _State(NamedTuple):
    """``passes`` blocks of the basis are complete; ``x`` is formed when asked for."""

    method: _Path
    passes: int

    @property
    def x(self) -> Array:
        """The iterates."""
        return self.method.form(self.passes)


class _Path:
    def __init__(self, system: System, shifts: list[float], t: int, rng: Any) -> None:
        self.system, self.shifts, self.xp, self.matvecs = system, shifts, system.xp, 0
        xp, b = system.xp, system.b
        complex_ = xp.isdtype(b.dtype, "complex floating")
        real = xp.real(b).dtype if complex_ else b.dtype
        extra = Sampler(rng, xp=xp, dtype=real, device=device(b)).normal((b.shape[0], t - 1))
        Q, R = xp.linalg.qr(xp.concat([b[:, None], xp.astype(extra, b.dtype)], axis=1))
        self.blocks, self.begun = [Q], R
        self.diagonal: list[Array] = []
        self.below: list[Array] = []
        self.host_diagonal: list[Any] = []
        self.host_below: list[Any] = []
        self.host_begun: Any = None
        self.measured: tuple[int, list[float]] | None = None
        self.singular = False

    def start(self, x: Array, r: Array) -> _State:
        """Nothing of the space yet; the path begins from zero."""
        return _State(self, 0)

    def step(self, state: _State) -> _State:
        """One pass over ``A``, orthogonalised twice against the whole basis."""
        q = state.passes
        Q, n = self.blocks[q], self.system.b.shape[0]
        W = self.system.A @ Q
        self.matvecs += Q.shape[1]
        T = None
        for _ in range(2):
            for block in reversed(self.blocks[: q + 1]):
                components = adjoint(block, self.xp) @ W
                if block is Q:
                    T = components if T is None else T + components
                W = W - block @ components
        # The space may be nearly exhausted: no more vectors than the whole has.
        width = min(W.shape[1], n - sum(block.shape[1] for block in self.blocks[: q + 1]))
        if width == W.shape[1]:
            Q, R = self.xp.linalg.qr(W)
        else:
            U, s, Vh = self.xp.linalg.svd(W, full_matrices=False)
            # Triangular again, for the band.
            turn, R = self.xp.linalg.qr(self.xp.astype(s[:width], W.dtype)[:, None] * Vh[:width, :])
            Q = U[:, :width] @ turn
        self.blocks.append(Q)
        self.diagonal.append(T)
        self.below.append(R)
        return _State(self, q + 1)

    def read(self, passes: int) -> None:
        """Bring what is not yet on the host, in one transfer."""
        known = len(self.host_diagonal)
        begun = [self.begun] if self.host_begun is None else []
        if not begun and known >= passes:
            return
        host = to_host_together(*begun, *self.diagonal[known:passes], *self.below[known:passes], xp=self.xp)
        if begun:
            self.host_begun = host.pop(0)
        count = len(host) // 2
        self.host_diagonal += host[:count]
        self.host_below += host[count:]

    def coefficients(self, passes: int) -> tuple[Any, list[float]]:
        """``(T + mu I)^{-1} Q^H b`` for each shift, on the host, and the residual norms that follow from them."""
        import numpy as np
        from scipy.linalg import solve_banded

        self.read(passes)
        first = self.host_begun[:, 0]
        t, beta = first.shape[0], float(np.linalg.norm(first))
        if passes == 0:
            return np.zeros((0, len(self.shifts))), [beta] * len(self.shifts)
        sizes = [block.shape[0] for block in self.host_diagonal[:passes]]
        m, starts = sum(sizes), np.cumsum([0, *sizes])
        # Block tridiagonal, with a triangle below the diagonal: t entries on either side of it.
        kind = np.result_type(first.dtype, np.float64)
        bands = np.zeros((2 * t + 1, m), dtype=kind)

        def put(block: Any, row: int, column: int) -> None:
            i, j = np.indices(block.shape)
            i, j = i + row, j + column
            inside = abs(i - j) <= t
            bands[(t + i - j)[inside], j[inside]] = block[inside]

        for q in range(passes):
            block = self.host_diagonal[q]
            put(0.5 * (block + block.conj().T), starts[q], starts[q])
            if q + 1 < passes:
                put(self.host_below[q], starts[q + 1], starts[q])
                put(self.host_below[q].conj().T, starts[q], starts[q + 1])
        rhs = np.zeros(m, dtype=kind)
        rhs[:t] = first
        out, norms = np.zeros((m, len(self.shifts)), dtype=kind), []
        last, finite = self.host_below[passes - 1], bool(np.all(np.isfinite(bands)))
        self.singular = False
        for index, mu in enumerate(self.shifts):
            shifted = bands.copy()
            shifted[t] += mu
            try:
                with np.errstate(all="ignore"):
                    y = solve_banded((t, t), shifted, rhs, check_finite=False)
                regular = bool(np.all(np.isfinite(y)))
            except np.linalg.LinAlgError:
                regular = False
            if finite and not regular:
                # The shift is minus an eigenvalue: zero is the answer, and the others go on.
                self.singular = True
                norms.append(beta)
                continue
            out[:, index] = y
            norms.append(float(np.linalg.norm(last @ y[m - sizes[-1] :])))
        return out, norms

    def traces(self, passes: int, f: Callable[[float], float]) -> tuple[tuple[float, float], ...]:
        """``tr f(A + mu I)`` for each shift from the random vectors of the basis, with standard errors."""
        import numpy as np

        self.read(passes)
        R = self.host_begun
        probes = R.shape[1] - 1
        if passes == 0 or probes < 2:
            return ()
        starts = np.cumsum([0, *(block.shape[0] for block in self.host_diagonal[:passes])])
        T = np.zeros((starts[-1], starts[-1]), dtype=np.result_type(R.dtype, np.float64))
        for q in range(passes):
            here = slice(starts[q], starts[q + 1])
            T[here, here] = self.host_diagonal[q]
            if q + 1 < passes:
                T[starts[q + 1] : starts[q + 2], here] = self.host_below[q]
        values, vectors = np.linalg.eigh(T)  # of the lower triangle
        weights = np.abs(vectors[: R.shape[0], :].conj().T @ R[:, 1:]) ** 2
        found = []
        for mu in self.shifts:
            if values[0] + mu <= 0:
                found.append((math.nan, math.nan))
                continue
            forms = np.asarray([f(float(value) + mu) for value in values]) @ weights
            found.append((float(forms.mean()), float(forms.std(ddof=1) / math.sqrt(probes))))
        return tuple(found)

    def form(self, passes: int) -> Array:
        y, _ = self.coefficients(passes)
        xp, b = self.xp, self.system.b
        x = xp.zeros((b.shape[0], len(self.shifts)), dtype=b.dtype, device=device(b))
        row = 0
        for block in self.blocks[:passes]:
            part = xp.astype(from_host(y[row : row + block.shape[1]], like=b, xp=xp), b.dtype)
            x = x + block @ part
            row += block.shape[1]
        return x

    def error(self, state: _State) -> float:
        return _largest(self.coefficients(state.passes)[1])

    def true_norms(self, passes: int, x: Array) -> list[float]:
        """The recomputed residual norms of the iterate ``x`` after so many passes."""
        if self.measured is not None and self.measured[0] == passes:
            return self.measured[1]
        xp, system = self.xp, self.system
        shifts = xp.asarray(self.shifts, dtype=x.dtype, device=device(x))
        b = xp.zeros_like(x) + system.b[:, None]
        r = system.A.precise_residual(b - x * shifts[None, :], x)
        self.matvecs += len(self.shifts)
        self.measured = passes, [float(norm) for norm in to_host(system.norm(r))]
        return self.measured[1]

    def verify(self, state: _State) -> tuple[_State, float]:
        """The recomputed truth; the basis goes on, for it cannot be restarted from one residual of many."""
        return state, _largest(self.true_norms(state.passes, state.x))

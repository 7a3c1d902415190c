"""Low-rank matrix completion by alternating least squares, exact or sketched.

With one factor fixed the other is found row by row from small least-squares problems, all solved in one batch. The sketched
form (Gu, Song, Yin, Zhang 2024) hashes the observed rows of each problem to a few, and mends the answer by preconditioned
gradient steps on the full problem: the cost falls from ``m n k^2`` to ``m n k``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ....backends.errors import BackendError, InputError
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, is_array
from ....backends.random import Sampler
from ....backends.transfer import host_float
from ....backends.validation import check_array, check_choice, check_count, check_scalar
from ...iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ...result import Result
from ..norms import column_norms
from .operators import sketch
from .randomized_svd import randomized_svd

# Numbers of one block of sketched problems: 32 MB in float64.
_BLOCK = 2**22


@dataclass(frozen=True, kw_only=True, repr=False)
class CompletionResult(Result):
    """Factors ``U`` (m, k) and ``V`` (n, k, orthonormal) of the completed matrix ``U V^T``.

    Attributes
    ----------
    fit : float
        ``||P(U V^T - M)||_F / ||P(M)||_F`` on the observed entries; small for exact data, the noise level for noisy ones.
    """

    U: Array
    V: Array
    fit: float

    @property
    def matrix(self) -> Array:
        """``U V^T``."""
        return self.U @ self.V.T


def complete(
    values: Array,
    mask: Array,
    rank: int,
    *,
    iters: int = 100,
    rtol: float = 1e-6,
    rng: Any = None,
    init: str | Array = "svd",
    sketched: bool = False,
    corrections: int = 1,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> CompletionResult:
    """Find ``U V^T`` of rank ``rank`` near the observed entries: minimise ``||P(U V^T - M)||_F^2``.

    Parameters
    ----------
    values : array (m, n)
        The entries of ``M``; what stands where ``mask`` is false is not read and may be NaN.
    mask : boolean array (m, n)
        Which entries are observed.
    rank : int
        Rank ``k`` of the completion.
    iters : int
        Most sweeps over both factors.
    rtol : float
        Converged when the gradient, for orthonormal factors, is at most ``rtol ||P(M)||_F``: a stationary point. Whether it
        fits is told by ``fit``, and that it is the right matrix no observed entry can tell.
    rng : None, int or Generator
        Seed or generator of the start and of the sketches.
    init : {"svd", "random"} or array (m, k)
        ``"svd"``: leading left singular vectors of the zero-filled matrix. A random start can be far slower, or end
        at another stationary point.
    sketched : bool
        Solve each problem on ``4 k`` hashed rows, then ``corrections`` preconditioned steepest-descent steps; one is
        nearly as good as the exact solution.
    corrections : int
        Steps after a sketched solution.
    callback, check_every, progress, time_limit
        See `LoopOptions`; the callback's iterate has ``U``, ``V`` and ``fit``.

    Returns
    -------
    CompletionResult
        Factors, ``fit``, and ``residual``, the relative gradient.

    Raises
    ------
    InputError
        Shapes that do not agree, NaN among the observed, nothing observed, or fewer observed entries than the
        ``k (m + n - k)`` unknowns.
    BackendError
        A mask that is not boolean, wrong dtypes or libraries.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached in ``iters`` sweeps.

    Notes
    -----
    Exact recovery needs incoherent factors and a few times ``k (m + n - k)`` entries; the error then falls by a constant
    factor a sweep, the faster the more is observed.

    References
    ----------
    Y. Gu, Z. Song, J. Yin, L. Zhang, Low rank matrix completion via robust alternating minimization in nearly linear time,
    2024.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.sketching import complete
    >>> M = np.outer(np.arange(1.0, 6.0), np.arange(1.0, 7.0))
    >>> mask = np.ones((5, 6), dtype=bool)
    >>> mask[1, 2] = mask[4, 5] = False
    >>> complete(np.where(mask, M, np.nan), mask, 1).matrix[4, 5].round(3).item()
    30.0
    """
    xp = array_namespace(values=values, mask=mask, init=init if not isinstance(init, str) else None)
    check_array(values, "values", xp, ndim=2, finite=False)
    if not xp.isdtype(mask.dtype, "bool"):
        raise BackendError(f"mask has dtype {mask.dtype}, expected booleans")
    if tuple(mask.shape) != tuple(values.shape):
        raise InputError(f"mask has shape {tuple(mask.shape)}, values {tuple(values.shape)}; they must agree")
    m, n = values.shape
    k = check_count(rank, "rank")
    if k > min(m, n):
        raise InputError(f"rank is {k}, but values has shape {(m, n)}")
    rtol = check_scalar(rtol, "rtol", non_negative=True)
    check_count(corrections, "corrections", minimum=0)
    data = xp.where(mask, values, xp.zeros_like(values))
    norm = host_float(column_norms(xp.reshape(data, (-1,)), xp))
    if not norm < float("inf"):
        raise InputError("values contains NaN or infinite values where mask is true")
    observed = int(host_float(xp.sum(xp.astype(mask, xp.int64))))
    if observed == 0:
        raise InputError("mask observes nothing")
    if observed < k * (m + n - k):
        raise InputError(
            f"mask observes {observed} entries, fewer than the {k * (m + n - k)} unknowns of rank {k}; lower the rank"
        )
    draws = Sampler(rng, xp=xp, dtype=values.dtype, device=device(values))
    method = _Alternating(data, xp.astype(mask, values.dtype), k, norm, sketched, corrections, draws, xp)
    options = LoopOptions(
        maxiter=check_count(iters, "iters", minimum=0), callback=callback, check_every=check_every,
        progress=progress, time_limit=time_limit,
    )  # fmt: skip

    def finish(outcome: Outcome[_State]) -> CompletionResult:
        state = outcome.state
        return CompletionResult(U=state.U, V=state.V, fit=host_float(state.fit), **outcome.fields())

    start = method.start(_initial(init, data, k, draws, xp))
    result = finish(iterate(method, start, tolerance=rtol, options=options, on_device=values, finish=finish))
    warn_unless_converged(result, "complete")
    return result


def _initial(init: str | Array, data: Array, k: int, draws: Sampler, xp: Namespace) -> Array:
    if isinstance(init, str):
        if check_choice(init, "init", ("svd", "random")) == "svd":
            return randomized_svd(data, k, power=4, rng=draws.generator).U
        start = draws.normal((data.shape[0], k))
    elif not is_array(init):
        raise BackendError(f"init is a {type(init).__name__}, expected 'svd', 'random' or an array")
    else:
        start = check_array(init, "init", xp, shape=(data.shape[0], k), dtype=data.dtype)
    return xp.linalg.qr(start, mode="reduced")[0]


class _State(NamedTuple):
    """Factors (``V`` orthonormal), the orthonormal basis ``Q`` of ``U``, the relative gradient and misfit."""

    U: Array
    V: Array
    Q: Array
    gradient: Array
    fit: Array


class _Alternating:
    """Sweeps over both factors; the residual is recomputed in each."""

    def __init__(
        self, data: Array, weights: Array, k: int, norm: float, sketched: bool, corrections: int,
        draws: Sampler, xp: Namespace,
    ) -> None:  # fmt: skip
        self.data, self.weights, self.k, self.norm, self.xp = data, weights, k, norm, xp
        self.sketched, self.corrections, self.draws = sketched, corrections, draws
        # The basis is orthonormal: a shift of rounding size keeps problems with too few rows regular, and moves no other.
        self.shift = finfo_eps(data.dtype, xp) * xp.eye(k, dtype=data.dtype, device=device(data))

    def start(self, Q: Array) -> _State:
        """The best second factor for the basis ``Q`` of the first."""
        V, R = self.xp.linalg.qr(self.solve(Q, self.data, self.weights), mode="reduced")
        return self.measured(Q @ R.T, V)

    def step(self, s: _State) -> _State:
        """One sweep."""
        V = self.xp.linalg.qr(self.solve(s.Q, self.data, self.weights), mode="reduced")[0]
        return self.measured(self.solve(V, self.data.T, self.weights.T), V)

    def measured(self, U: Array, V: Array) -> _State:
        """The state of these factors, with its gradient from the residual itself."""
        xp = self.xp
        Q = xp.linalg.qr(U, mode="reduced")[0]
        r = self.weights * (self.data - U @ V.T)
        r = r / (self.norm or 1.0)
        norms = [xp.linalg.vector_norm(part) for part in (r @ V, r.T @ Q, r)]
        return _State(U, V, Q, xp.sqrt(norms[0] ** 2 + norms[1] ** 2), norms[2])

    def error(self, s: _State) -> Array:
        """The relative gradient."""
        return s.gradient

    def verify(self, s: _State) -> tuple[_State, float]:
        """Each state already holds the truth."""
        return s, host_float(s.gradient)

    def solve(self, Q: Array, data: Array, weights: Array) -> Array:
        """Row ``j`` minimises ``||w_j (Q x - data_j)||``: (m, k) basis, (m, n) data, (n, k) answer."""
        if self.sketched and data.shape[0] > 4 * self.k:
            return self.solve_sketched(Q, data, weights)
        xp, (m, k) = self.xp, Q.shape
        squares = xp.reshape(Q[:, :, None] * Q[:, None, :], (m, k * k))
        gram = xp.reshape(weights.T @ squares, (-1, k, k)) + self.shift
        return self.batched(gram, data.T @ Q)

    def batched(self, gram: Array, right: Array) -> Array:
        """``gram_j^{-1} right_j``."""
        return self.xp.linalg.solve(gram, right[:, :, None])[:, :, 0]

    def solve_sketched(self, Q: Array, data: Array, weights: Array) -> Array:
        """The same from ``4 k`` hashed rows of each problem, then steepest descent on all rows, preconditioned by them."""
        xp, (m, k), n = self.xp, Q.shape, data.shape[1]
        S = sketch("countsketch", 4 * k, m, like=Q, rng=self.draws.generator)
        target = S @ data
        width = max(1, _BLOCK // (m * k))
        grams, rights = [], []
        for j in range(0, n, width):
            stop = min(j + width, n)
            rows = xp.reshape(weights[:, j:stop][:, :, None] * Q[:, None, :], (m, -1))
            small = xp.permute_dims(xp.reshape(S @ rows, (4 * k, stop - j, k)), (1, 2, 0))
            grams.append(small @ xp.matrix_transpose(small))
            rights.append((small @ target[:, j:stop].T[:, :, None])[:, :, 0])
        gram = xp.concat(grams, axis=0) + self.shift
        x = self.batched(gram, xp.concat(rights, axis=0))
        for _ in range(self.corrections):
            g = (data - weights * (Q @ x.T)).T @ Q
            p = self.batched(gram, g)
            # In units of the data, whose squares may be out of range.
            g, unit = g / (self.norm or 1.0), p / (self.norm or 1.0)
            along = xp.sum((weights * (Q @ unit.T)) ** 2, axis=0)
            x = x + (xp.sum(g * unit, axis=1) / xp.where(along > 0, along, 1.0))[:, None] * p
        return x

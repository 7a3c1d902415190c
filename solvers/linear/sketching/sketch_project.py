"""Sketch-and-project: step by step the nearest point that satisfies a random part of a consistent system.

``x + A^H S (S^H A A^H S)^+ S^H (b - A x)`` with a random block of rows (randomised block Kaczmarz; Needell and Tropp 2014) or
a gaussian ``S`` (Gower and Richtarik 2015). The distance to the solution never rises, and falls at a known rate: as an inner
solver of an inexact Newton method (Hong, Na, Mahoney, Kolar 2023) it can be left at any look.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from ....backends.errors import BackendError, InputError
from ....backends.linalg import adjoint, real_dtype
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, is_array
from ....backends.operators import LinearOperator, as_operator
from ....backends.random import Sampler
from ....backends.transfer import host_float, to_host
from ....backends.validation import check_array, check_callable, check_choice, check_count, check_scalar
from ...iterate import Callback, Iterate, LoopOptions, Outcome, iterate, warn_unless_converged
from ...result import LinearResult, Status
from ..norms import column_norms

# Random block numbers drawn at a time.
_DRAWS = 256


def sketch_project(
    A: Any,
    b: Array,
    *,
    block: int = 64,
    kind: str = "rows",
    rtol: float = 1e-5,
    atol: float = 0.0,
    accept: Callable[[Array, Array], bool] | None = None,
    maxiter: int | None = None,
    x0: Array | None = None,
    rng: Any = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LinearResult:
    """Solve a consistent system ``A x = b`` of any shape by projections on random parts of it.

    **What it costs.** One sweep (``m / block`` steps) reads ``A`` once, as one step of `minres` or `cg` does, and shrinks the
    squared error by about ``exp(-m (sigma_min / ||A||_F)^2)``, somewhat more with large blocks: the number of sweeps grows
    with the *square* of the condition number, where MINRES needs the first power and CG its root. Seen on symmetric indefinite
    systems of order 600 at ``rtol=1e-3``: condition 10, 92 sweeps against 57 products of MINRES; condition 100, more than
    2000 against 298. Where the system fits in memory and is square, take MINRES. This is for tall or wide systems of which
    only some rows can be touched at a time, for redundant ones, and for outer methods to which any iterate will do
    whose distance to the solution has surely shrunk.

    Parameters
    ----------
    A : array (m, n), or for ``kind="gaussian"`` also a sparse matrix or LinearOperator with adjoint
        The matrix; ``"rows"`` keeps a permuted copy of it and one ``(block, block)`` inverse per block.
    b : array (m,) or (m, k)
        Right-hand sides in the range of ``A``; otherwise the iterates do not settle, and the status says so.
    block : int
        Rows projected on at once; 1 is the Kaczmarz method with rows drawn by their squared norms.
    kind : {"rows", "gaussian"}
        Blocks of a random partition, drawn by their squared Frobenius norms; or a fresh gaussian sketch each step, which
        costs a product with ``block`` columns for the rate of the row blocks.
    rtol, atol : float
        Converged when ``||b_j - A x_j|| <= max(rtol ||b_j||, atol)`` for each column; of an inexact Newton method ``rtol``
        is the forcing term.
    accept : callable, optional
        ``accept(x, r)`` is asked at each look, with ``r = b - A x``; true ends the run as converged. A Newton method asks
        here whether its merit function descends along ``x``, so that the tolerance follows from what is needed: the
        result's ``tolerance`` is then the residual that was accepted.
    maxiter : int, optional
        Most steps; default those of 200 sweeps.
    x0 : array, optional
        Starting point; from the default, zero, the solution of least norm is reached.
    rng : None, int or Generator
        Seed or generator.
    callback, check_every, progress, time_limit
        See `LoopOptions`. ``check_every`` is by default one sweep, as a look costs a product with ``A``.

    Returns
    -------
    LinearResult
        ``x`` (n,) or (n, k), ``residual`` as in `cg`.

    Raises
    ------
    InputError, BackendError
        NaN, shapes, dtypes or libraries that do not fit, an operator with ``kind="rows"``.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached, for instance as the system is inconsistent.

    Notes
    -----
    ``E ||x_i - x||^2 <= (1 - lambda)^i ||x_0 - x||^2`` with ``lambda`` the smallest non-zero eigenvalue of the mean
    projector; for ``block=1``, ``lambda = sigma_min^2 / ||A||_F^2``.

    References
    ----------
    R. M. Gower, P. Richtarik, Randomized iterative methods for linear systems, 2015. D. Needell, J. A. Tropp, Paved with
    good intentions: analysis of a randomized block Kaczmarz method, 2014. I. Hong, S. Na, M. W. Mahoney, M. Kolar,
    Constrained optimization via exact augmented Lagrangian and randomized iterative sketching, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.sketching import sketch_project
    >>> A = np.asarray([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    >>> sketch_project(A, A @ np.ones(2), block=2, rtol=1e-10, rng=0).x.round(6).tolist()
    [1.0, 1.0]
    """
    kind = check_choice(kind, "kind", ("rows", "gaussian"))
    xp = array_namespace(b=b, A=A, x0=x0) if is_array(A) else array_namespace(b=b, x0=x0)
    check_array(b, "b", xp, ndim=(1, 2), allow_complex=True)
    if kind == "rows" and not is_array(A):
        raise BackendError(f"A is a {type(A).__name__}, but kind='rows' needs a dense array; take kind='gaussian'")
    operator = as_operator(A, like=b, name="A", square=False)
    m, n = operator.shape
    if m != b.shape[0]:
        raise InputError(f"A has shape {operator.shape}, expected {b.shape[0]} rows as b has")
    if n == 0:
        raise InputError(f"A has shape {operator.shape}, expected at least one column")
    if operator._rmatvec is None:
        raise InputError("A has no adjoint, which projections need; pass a LinearOperator with rmatvec")
    rtol, atol = check_scalar(rtol, "rtol", non_negative=True), check_scalar(atol, "atol", non_negative=True)
    check_callable(accept, "accept")
    check_callable(callback, "callback")
    block = min(check_count(block, "block"), m)
    shape = (n, *b.shape[1:])
    start = xp.zeros(shape, dtype=b.dtype, device=device(b))
    if x0 is not None:
        start = check_array(x0, "x0", xp, shape=shape, dtype=b.dtype, allow_complex=True)
    norms = column_norms(b, xp)
    start = xp.where(norms > 0, start, xp.zeros_like(start))  # a zero column is solved by zero, whatever x0 says
    bounds = xp.maximum(rtol * norms, xp.full_like(norms, atol))
    tolerance = host_float(xp.max(bounds))
    weights = xp.where(bounds > 0, tolerance / xp.where(bounds > 0, bounds, 1.0), 1.0)
    draws = Sampler(rng, xp=xp, dtype=real_dtype(b.dtype, xp), device=device(b))
    method: _Projection
    if kind == "rows":
        dense = A if A.dtype == b.dtype else xp.astype(A, b.dtype)
        method = _RowBlocks(operator, b, weights, block, draws, dense)
    else:
        method = _Gaussian(operator, b, weights, block, draws)
    method.keep_best = accept is None
    sweep = math.ceil(m / block)
    accepted = False

    def looked(at: Iterate) -> None:
        nonlocal accepted
        if callback is not None:
            callback(at)
        if accept is not None and accept(at.x, method.residual(at.x)):
            accepted = True
            raise StopIteration

    options = LoopOptions(
        maxiter=200 * sweep if maxiter is None else maxiter, callback=looked,
        check_every=sweep if check_every is None else check_every,
        progress=progress, time_limit=time_limit,
    )  # fmt: skip

    def finish(outcome: Outcome[_State]) -> LinearResult:
        if accepted:
            allowed = max(outcome.tolerance, outcome.residual)
            outcome = replace(outcome, status=Status.CONVERGED, tolerance=allowed)
        return LinearResult(x=outcome.state.x, evaluations={"projection": method.steps}, **outcome.fields())

    result = finish(iterate(method, _State(start), tolerance=tolerance, options=options, on_device=b, finish=finish))
    warn_unless_converged(result, "sketch_project")
    return result


class _State(NamedTuple):
    """The iterate."""

    x: Array


class _Projection:
    """What both kinds share: the true residual, and the projection on a sampled part."""

    keep_best = True

    def __init__(self, A: LinearOperator, b: Array, weights: Array, block: int, draws: Sampler) -> None:
        self.A, self.b, self.weights, self.block, self.draws, self.xp = A, b, weights, block, draws, draws.xp
        self.steps = 0

    def sample(self) -> tuple[Array, Array, Array]:
        """A random part: ``S^H A``, ``S^H b`` and ``(S^H A A^H S)^+``."""
        raise NotImplementedError

    def step(self, s: _State) -> _State:
        """Project on a random part."""
        self.steps += 1
        rows, right, inverse = self.sample()
        return _State(s.x + adjoint(rows, self.xp) @ (inverse @ (right - rows @ s.x)))

    def residual(self, x: Array) -> Array:
        """``b - A x``."""
        return self.b - self.A @ x

    def error(self, s: _State) -> Array:
        """The residual norm of the worst column; no cheaper quantity tells how far the iterate is."""
        return self.xp.max(column_norms(self.residual(s.x), self.xp) * self.weights)

    def verify(self, s: _State) -> tuple[_State, float]:
        """The same in float64 where that is possible."""
        return s, host_float(self.xp.max(column_norms(self.A.precise_residual(self.b, s.x), self.xp) * self.weights))

    def pseudo_inverse(self, gram: Array) -> Array:
        """Of one or many small Gram matrices; dependent rows count once, rows of zeros not at all."""
        xp = self.xp
        values, vectors = xp.linalg.eigh(gram)
        floor = self.block * finfo_eps(gram.dtype, xp) * values[..., -1:]
        kept = values > floor
        inverse = xp.where(kept, 1.0 / xp.where(kept, values, xp.ones_like(values)), xp.zeros_like(values))
        back = xp.matrix_transpose(vectors)
        if xp.isdtype(gram.dtype, "complex floating"):
            back = xp.conj(back)
        return (vectors * xp.astype(inverse, gram.dtype)[..., None, :]) @ back


def _unit(rows: Array, xp: Namespace) -> Array:
    """The largest entry: equations in units of it are the same ones, and their Gram matrix is in range."""
    size = xp.max(xp.abs(rows))
    return xp.where(size > 0, size, 1.0)


class _RowBlocks(_Projection):
    """Blocks of a random partition of the rows; all small inverses are made in one batch."""

    def __init__(self, A: LinearOperator, b: Array, weights: Array, block: int, draws: Sampler, dense: Array) -> None:
        import numpy as np

        super().__init__(A, b, weights, block, draws)
        xp, (m, n) = self.xp, dense.shape
        order = draws.permutation(m)
        count = math.ceil(m / block)
        missing = count * block - m
        unit = _unit(dense, xp)
        rows, right = xp.take(dense, order, axis=0) / unit, xp.take(b, order, axis=0) / unit
        if missing:  # the last block is filled with equations 0 = 0
            rows = xp.concat([rows, xp.zeros((missing, n), dtype=b.dtype, device=device(b))], axis=0)
            right = xp.concat([right, xp.zeros((missing, *b.shape[1:]), dtype=b.dtype, device=device(b))], axis=0)
        self.rows = xp.reshape(rows, (count, block, n))
        self.right = xp.reshape(right, (count, block, *b.shape[1:]))
        transposed = xp.matrix_transpose(self.rows)
        if xp.isdtype(b.dtype, "complex floating"):
            transposed = xp.conj(transposed)
        gram = self.rows @ transposed
        self.inverses = self.pseudo_inverse(gram)
        shares = to_host(xp.sum(xp.abs(self.rows) ** 2, axis=(1, 2))).astype(float)
        total = shares.sum()
        self.chance = shares / total if total > 0 else np.full(count, 1 / count)
        self.chosen: list[int] = []

    def sample(self) -> tuple[Array, Array, Array]:
        """One block of the partition."""
        if not self.chosen:
            self.chosen = self.draws.generator.choice(self.chance.size, _DRAWS, p=self.chance).tolist()
        i = self.chosen.pop()
        return self.rows[i, ...], self.right[i, ...], self.inverses[i, ...]


class _Gaussian(_Projection):
    """A fresh gaussian sketch of all rows each step."""

    def sample(self) -> tuple[Array, Array, Array]:
        """``S^H A`` by the adjoint of ``A``."""
        xp = self.xp
        S = self.draws.normal((self.A.shape[0], self.block))
        S = S if S.dtype == self.b.dtype else xp.astype(S, self.b.dtype)
        rows = adjoint(self.A.H @ S, xp)
        unit = _unit(rows, xp)
        rows, right = rows / unit, (S.T @ self.b) / unit
        return rows, right, self.pseudo_inverse(rows @ adjoint(rows, xp))

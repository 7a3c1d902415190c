"""Overdetermined least squares by sketching: the triangular factor of ``S A`` preconditions products with ``A``.

The default is FOSSILS (Epperly, Meier, Nakatsukasa 2024), as backward stable as Householder QR; sketch-and-precondition
(Rokhlin and Tygert 2008; Avron, Maymounkov, Toledo 2010), iterative sketching with momentum (Epperly 2024) and plain
sketch-and-solve are the other methods. All start from the sketch-and-solve solution: from zero the preconditioned methods
are unstable (Meier et al. 2024). The tested quantity is an estimate of the backward error of the recomputed residual.
"""

from __future__ import annotations

import math
from typing import Any

from ....backends.errors import InputError
from ....backends.namespace import Array, Namespace, array_namespace, device, finfo_eps, is_array
from ....backends.operators import LinearOperator, as_operator
from ....backends.operators.adapters import Pending
from ....backends.validation import check_array, check_choice, check_count, check_scalar
from ...iterate import Callback, LoopOptions, Outcome, iterate, warn_unless_converged
from ..golub_kahan import LeastSquaresResult, damped
from .factor import SketchedFactor, factorize
from .fossils import Fossils
from .iterative import IterativeSketching
from .operators import KINDS
from .operators import sketch as random_sketch
from .preconditioned import SketchAndPrecondition
from .sketch_and_solve import SketchAndSolve

# Columns of an operator that are formed at a time when it is sketched.
_COLUMNS_AT_ONCE = 64
METHODS = {
    "fossils": Fossils,
    "precondition": SketchAndPrecondition,
    "iterative": IterativeSketching,
    "solve": SketchAndSolve,
}


def lstsq_sketched(
    A: Any,
    b: Array,
    *,
    method: str = "fossils",
    sketch: str = "sparse_sign",
    d: int | None = None,
    damp: float = 0.0,
    rtol: float | None = None,
    maxiter: int | None = None,
    rng: Any = None,
    callback: Callback | None = None,
    check_every: int | None = None,
    progress: bool = False,
    time_limit: float | None = None,
) -> LeastSquaresResult:
    """Minimise ``||A x - b||^2 + damp^2 ||x||^2`` for ``A`` with many more rows than columns and full column rank.

    Parameters
    ----------
    A : array (m, n), sparse matrix or LinearOperator with adjoint
        ``m > n``; a dense array of the dtype of ``b`` is used as it is.
    b : array (m,) or (m, k)
        Right-hand sides.
    method : {"fossils", "precondition", "iterative", "solve"}
        ``"fossils"``: refinement passes of a heavy-ball iteration; backward stable. ``"precondition"``: LSQR on
        ``A R^{-1}``, started again from the recomputed residual while that gains; needs no bound on the distortion of the
        sketch. ``"iterative"``: heavy ball on ``x`` itself, only forward stable: with a residual that is not small it stops
        short of a small backward error from condition 1e5 or so, and says so. ``"solve"``: the sketched problem alone, whose
        residual is about ``n / 2(d - n)`` above the smallest; it is not refined, and tested only if ``rtol`` is given.
    sketch : str
        Kind of sketch, see `sketch`. With ``method="solve"`` only a dense kind (``"gaussian"``, ``"srht"``) bounds the
        error of *every* coefficient: ``||x' - x||_inf <= (eps / sqrt(n)) ||A x - b|| ||A^+||`` with
        ``d = eps^-2 n log^3(m)`` rows; a sparse kind can put one outlier of the residual on one coefficient.
    d : int, optional
        Rows of the sketch, more than ``n``. Default ``12 n + 256`` for sparse kinds, two thirds of it for
        ``"precondition"``, half for dense kinds; at most ``m / 2`` where that leaves ``4 n + 256``. Where ``d >= m``
        the factor of ``A`` itself is used.
    damp : float
        Tikhonov regularisation.
    rtol : float, optional
        Bound on the estimated backward error relative to ``||A||_F``: ``x`` solves exactly a problem with
        ``A + dA``, ``||dA||_F <= rtol ||A||_F`` (up to a small factor). Default eps; 50 eps for ``"iterative"``.
    maxiter : int, optional
        Most steps, of two products each.
    rng : None, int or Generator
        Seed or generator of the sketch.
    callback, check_every, progress, time_limit
        See `LoopOptions`; the callback's iterate has ``x``, the point of the last recomputed residual.

    Returns
    -------
    LeastSquaresResult
        ``x`` (n,) or (n, k); ``residual`` is the largest estimated backward error over the columns, relative to
        ``||A||_F``; like ``residual_norm`` and ``normal_norm`` it is of the recomputed ``r = b - A x`` (with damping of the
        stacked problem).

    Raises
    ------
    InputError, BackendError
        Not more rows than columns, NaN, wrong shapes, dtypes or libraries, or units in which ``A^H b`` leaves the range of
        the dtype.
    BreakdownError
        ``A`` is rank deficient in working precision; ``damp > 0`` makes the problem definite.

    Warns
    -----
    ConvergenceWarning
        The tolerance was not reached.

    Notes
    -----
    The estimate of Karlson and Walden, ``||(||x||^2 A^H A + ||r||^2 I)^{-1/2} A^H r||``, with the sketched factor in place
    of ``A``, is within a factor ``sqrt(2)`` times the distortion of the sketch of the true backward error. Each step shrinks
    the error by about ``sqrt(n / d)`` whatever the condition of ``A``; columns need no scaling, as a QR factor does not
    depend on it. On a CPU the crossover with dense LAPACK drivers lies
    near ``n = 200``.

    References
    ----------
    E. N. Epperly, M. Meier, Y. Nakatsukasa, Fast randomized least-squares solvers can be just as accurate and stable as
    classical direct solvers, 2024. M. Meier et al., Are sketch-and-precondition least squares solvers numerically stable?,
    2024. Z. Song, M. Ye, J. Yin, L. Zhang, A nearly-optimal bound for fast regression with l-infinity guarantee, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from xpsolve.solvers.linear.sketching import lstsq_sketched
    >>> A = np.random.default_rng(0).standard_normal((4000, 3))
    >>> lstsq_sketched(A, A @ np.asarray([1.0, 2.0, 3.0]), rng=0).x.round(6).tolist()
    [1.0, 2.0, 3.0]
    """
    method, kind = check_choice(method, "method", METHODS), check_choice(sketch, "sketch", KINDS)
    xp = array_namespace(b=b, A=A) if is_array(A) else array_namespace(b=b)
    check_array(b, "b", xp, ndim=(1, 2), allow_complex=True, finite=False)
    pending = [("b", xp.all(xp.isfinite(b)))]
    operator = as_operator(A, like=b, name="A", square=False, pending=pending)
    m, n = operator.shape
    if m != b.shape[0]:
        raise InputError(f"A has shape {operator.shape}, expected {b.shape[0]} rows as b has")
    if operator._rmatvec is None:
        raise InputError("A has no adjoint, which least squares need; pass a LinearOperator with rmatvec")
    if m <= n or n == 0:
        raise InputError(f"A has shape {operator.shape}, expected more rows than columns; pass A with n < m")
    damp = check_scalar(damp, "damp", non_negative=True)
    rows = _default_rows(method, kind, m, n) if d is None else check_count(d, "d")
    if rows <= n:
        raise InputError(f"d is {rows}, expected more rows than the {n} columns of A")
    eps = finfo_eps(b.dtype, xp)
    if rtol is None:
        rtol = {"iterative": 50.0 * eps, "solve": math.inf}.get(method, eps)
    else:
        rtol = check_scalar(rtol, "rtol", non_negative=True)
    dense = A if is_array(A) and A.dtype == b.dtype else None
    factor = _sketched(dense, operator, b, kind, rows, damp, rng, xp, pending)
    if damp > 0:
        zeros = xp.zeros((n, *b.shape[1:]), dtype=b.dtype, device=device(b))
        dense = None
        operator, b = damped(operator, damp, xp), xp.concat([b, zeros], axis=0)
    run = METHODS[method](operator, b, factor, xp, dense)
    rate = max(factor.distortion, 0.1)
    limit = 20 + 4 * math.ceil(math.log(eps) / math.log(rate)) if maxiter is None else maxiter
    options = LoopOptions(
        maxiter=limit, callback=callback, check_every=check_every, progress=progress, time_limit=time_limit
    )

    def finish(outcome: Outcome[Any]) -> LeastSquaresResult:
        state = outcome.state
        residual_norm, normal_norm = state.norms or run.read(state.at)[1]
        return LeastSquaresResult(
            x=state.at.x,
            residual_norm=residual_norm,
            normal_norm=normal_norm,
            evaluations={"matvec": run.matvecs},
            **outcome.fields(),
        )

    start = run.start(factor.x0)
    result = finish(iterate(run, start, tolerance=rtol, options=options, on_device=b, finish=finish))
    warn_unless_converged(result, "lstsq_sketched")
    return result


def _distortion(d: int, n: int) -> float:
    """``sqrt(n/d)`` and two standard deviations: the heavy ball diverges if the singular values reach much further."""
    return min((math.sqrt(n) + 2.0) / math.sqrt(d), 0.95)


def _default_rows(method: str, kind: str, m: int, n: int) -> int:
    """Enough rows for a rate near 0.3 (0.35 where cheaper steps are less dear than a larger factor)."""
    rows = 12 * n + 256
    if kind in {"gaussian", "srht"}:
        rows //= 2
    elif method == "precondition":
        rows = rows * 2 // 3
    # Of a matrix not much longer than that half the rows still make a good preconditioner.
    half = m // 2
    return min(rows, half) if half >= 4 * n + 256 else rows


def _sketched(
    A: Array | None, operator: LinearOperator, b: Array, kind: str, d: int, damp: float, rng: Any, xp: Namespace,
    pending: Pending,
) -> SketchedFactor:  # fmt: skip
    """Factor of the sketched problem; only ``A`` and ``b`` are sketched, the rows of ``damp`` are kept as they are."""
    m, n = operator.shape
    columns = b if b.ndim == 2 else b[:, None]
    if d >= m:  # nothing to gain: the factor of A itself
        SA, Sb, distortion = _columns_through(None, A, operator, b, xp), columns, 0.0
    else:
        S = random_sketch(kind, d, m, like=b, rng=rng)
        SA, Sb, distortion = _columns_through(S, A, operator, b, xp), S @ columns, _distortion(d, n)
    if not any(name == "A" for name, _ in pending):  # an operator, whose entries nobody has seen
        pending.append(("A", xp.all(xp.isfinite(SA))))
    if damp > 0:
        SA = xp.concat([SA, damp * xp.eye(n, dtype=b.dtype, device=device(b))], axis=0)
        Sb = xp.concat([Sb, xp.zeros((n, columns.shape[1]), dtype=b.dtype, device=device(b))], axis=0)
    return factorize(SA, Sb, distortion, single=b.ndim == 1, pending=pending, xp=xp)


def _columns_through(
    S: LinearOperator | None, A: Array | None, operator: LinearOperator, b: Array, xp: Namespace
) -> Array:
    """``S A`` as a dense array; an operator is formed a few columns at a time."""
    if A is not None:
        return A if S is None else S @ A
    n = operator.shape[1]
    parts = []
    for start in range(0, n, _COLUMNS_AT_ONCE):
        width = min(_COLUMNS_AT_ONCE, n - start)
        part = operator @ xp.eye(n, width, k=-start, dtype=b.dtype, device=device(b))
        parts.append(part if S is None else S @ part)
    return xp.concat(parts, axis=1)

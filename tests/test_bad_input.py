"""Functions x bad inputs: a clear error naming the argument before any work starts, and inputs never modified."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sps
from xpsolve import kde, linear, operators, ot, pairs
from xpsolve.backends.errors import BackendError, InputError
from xpsolve.solvers.linear import preconditioners

Args = dict[str, Any]

RNG = np.random.default_rng(0)
X, Y = RNG.random((6, 2)), RNG.random((5, 2))
V, V6 = RNG.random(5), RNG.random(6)
A = np.diag(np.arange(1.0, 5.0))
B = RNG.random(4)
TALL = np.concatenate([A, np.eye(4)[:2]])
COST = RNG.random((6, 5))
P, Q = np.full(6, 1 / 6), np.full(5, 1 / 5)
SQUARE = ((X[:, None] - X) ** 2).sum(axis=2)
SOLVED = ot.sinkhorn(COST, P, Q, reg=0.5, tol=1e-10)
RESULT = ((3.0, InputError), (None, InputError), (ot.solve_exact(COST, P, Q), InputError))


# ---- what can be wrong with an array: how it is spoilt, and the error that must follow


def _torch(a: np.ndarray) -> Any:
    return pytest.importorskip("torch").asarray(a.copy())


def _with(a: np.ndarray, value: float) -> np.ndarray:
    out = a.copy()
    out.flat[-1] = value
    return out


DEFECTS: dict[str, tuple[Callable[[np.ndarray], Any], type[Exception]]] = {
    "nan": (lambda a: _with(a, np.nan), InputError),
    "inf": (lambda a: _with(a, np.inf), InputError),
    "minus inf": (lambda a: _with(a, -np.inf), InputError),
    "negative": (lambda a: _with(a, -0.1), InputError),
    "all zero": (lambda a: np.zeros_like(a), InputError),
    "empty": (lambda a: a[:0], InputError),
    "too short": (lambda a: a[:-1], InputError),
    "too many dimensions": (lambda a: a[None, None], InputError),
    "no dimension": (lambda a: np.asarray(a.flat[0]), InputError),
    "columns": (lambda a: a[:, :-1], InputError),
    "integer": (lambda a: (10 * a).astype(int), BackendError),
    "bool": (lambda a: a > 0.5, BackendError),
    "float16": (lambda a: a.astype(np.float16), BackendError),
    "object": (lambda a: a.astype(object), BackendError),
    "list": (lambda a: a.tolist(), BackendError),
    "matrix": (lambda a: np.asmatrix(a), BackendError),
    "masked": (lambda a: np.ma.masked_less(a, 0.5), BackendError),
    "string": (lambda _: "abc", BackendError),
    "other library": (_torch, BackendError),
    "twice as heavy": (lambda a: 2.0 * a, InputError),
    "other precision": (lambda a: a.astype(np.float64 if a.dtype == np.float32 else np.float32), BackendError),
}
KIND = ("integer", "object", "list", "masked", "string")  # not an array of numbers to compute with
FINITE = ("nan", "inf", "minus inf")
RELATIVE = ("other library", "other precision", "too short", "columns", "twice as heavy")
LONE = (*KIND, *FINITE)  # an array that comes alone
BESIDE = (*LONE, "other library", "other precision")  # one that must fit others
WEIGHTS = (*BESIDE, "negative", "all zero", "empty", "too short", "too many dimensions")
BALANCED = (*WEIGHTS, "twice as heavy")

POSITIVE = ((0.0, InputError), (-1.0, InputError), (np.nan, InputError), ("a", BackendError), (None, BackendError))
TOLERANCE = ((-1.0, InputError), (np.nan, InputError), ("a", BackendError))
RELAXED = ((0.5, InputError), (2.0, InputError), (np.nan, InputError), ("no such rule", InputError))
SCHEDULE = (([1.0, -1.0], InputError), ("no such schedule", InputError))
WRT = (("no such input", InputError), (["cost", "x"], InputError), (3, InputError))
COUNT = ((-1, InputError), (1.5, BackendError), (True, BackendError), ("a", BackendError))
LOOP: dict[str, Any] = {
    "maxiter": COUNT,
    "check_every": (*COUNT, (0, InputError)),
    "time_limit": ((0.0, InputError), (-1.0, InputError), ("a", BackendError)),
    "callback": ((3, BackendError),),
}


INVERSE = ("other library", "other precision", "integer", "too short", "columns", "string")
MATRIX = ("too short", "columns", "too many dimensions")  # beside BESIDE or LONE: what else a square matrix may be
RIGHT = (*BESIDE, "empty", "too short", "too many dimensions", "no dimension")
# Plus infinity is a legal cost: it forbids the pair.
COSTS = (*(d for d in BESIDE if d != "inf"), "empty", "too many dimensions", "too short", "columns")
SEVERAL = ("object", "list", "masked", "string", "other library", "other precision", "too short", "columns")
# Potentials are infinite where a weight is zero.
POTENTIAL = (*KIND, "other library", "other precision", "empty", "too short", "too many dimensions", "no dimension")


@dataclass(frozen=True)
class Entry:
    """One public function: a good call, the defects each array may have, bad values of the options."""

    name: str
    call: Callable[..., Any]
    good: Args
    arrays: dict[str, tuple[str, ...]]
    options: dict[str, tuple[tuple[Any, type[Exception]], ...]] = field(default_factory=dict)


def _pairs(method: str) -> Callable[..., Any]:
    def call(x: Any, y: Any, kernel: Any = None, **rest: Any) -> Any:
        made = {k: rest.pop(k) for k in ("engine", "passes", "threads", "precision", "memory") if k in rest}
        p = pairs.Pairs(x, y, pairs.gaussian(0.5) if kernel is None else kernel, **made)
        return getattr(p, method)(**rest)

    return call


POINTS = (*BESIDE, "too many dimensions", "no dimension", "columns")
XY: dict[str, tuple[str, ...]] = {"x": POINTS, "y": POINTS}
ENGINE: dict[str, Any] = {
    "engine": (("no such engine", InputError),),
    "precision": (("no such precision", InputError),),
    "threads": ((0, InputError), (1.5, BackendError)),
    "passes": ((0, InputError), (1.5, BackendError)),
    "memory": ((-1.0, InputError), ("a", BackendError)),
}
VECTOR = (*BESIDE, "too short", "empty", "too many dimensions", "no dimension")
# A weight of zero is a log-weight of minus infinity, so that alone is legal.
LOGWEIGHTS = tuple(d for d in VECTOR if d != "minus inf")

TABLE = [
    Entry("Pairs.sum", _pairs("sum"), {"x": X, "y": Y, "v": V}, {**XY, "v": VECTOR}, ENGINE),
    Entry("Pairs.logsumexp", _pairs("logsumexp"), {"x": X, "y": Y, "b": V}, {**XY, "b": LOGWEIGHTS}),
    Entry(
        "Pairs.softmax_sum",
        _pairs("softmax_sum"),
        {"x": X, "y": Y, "v": V, "b": V},
        {**XY, "v": VECTOR, "b": LOGWEIGHTS},
    ),
    Entry(
        "Pairs.nearest",
        _pairs("nearest"),
        {"x": X, "y": Y, "k": 2},
        XY,
        {"k": (*COUNT, (0, InputError), (6, InputError))},
    ),
    Entry(
        "kernel_sum",
        lambda x, y, v: pairs.kernel_sum(x, y, v, pairs.gaussian(0.5)),
        {"x": X, "y": Y, "v": V},
        {**XY, "v": VECTOR},
    ),
    Entry(
        "logsumexp",
        lambda x, y, b: pairs.logsumexp(x, y, pairs.gaussian(0.5), b=b),
        {"x": X, "y": Y, "b": V},
        {**XY, "b": LOGWEIGHTS},
    ),
    Entry(
        "nearest",
        pairs.nearest,
        {"x": X, "y": Y, "k": 2},
        XY,
        {"k": COUNT, "metric": (("no such metric", InputError),)},
    ),
    *(
        Entry(f.__name__, f, {"bandwidth": 1.0}, {}, {"bandwidth": POSITIVE})
        for f in (pairs.gaussian, pairs.laplace, pairs.matern, pairs.cauchy, pairs.epanechnikov)
    ),
    *(
        Entry(f.__name__, f, {"bandwidth": 1.0}, {}, {"bandwidth": POSITIVE})
        for f in (pairs.biweight, pairs.triweight, pairs.triangle, pairs.tophat)
    ),
    Entry(
        "exponential",
        pairs.exponential,
        {"metric": "euclidean", "scale": 1.0},
        {},
        {"scale": POSITIVE, "metric": (("no such metric", InputError),)},
    ),
    # Of every method for A x = b: the extra arguments it needs, and the bad values of its own options.
    *(
        entry
        for solve, inverse, more, options in (
            (linear.cg, np.eye(4), {}, {}),
            (linear.minres, np.eye(4), {}, {}),
            (linear.gmres, np.eye(4), {}, {"restart": (*COUNT, (0, InputError))}),
            (linear.bicgstab, np.eye(4), {}, {}),
            (linear.tfqmr, np.eye(4), {}, {}),
            (linear.fgmres, np.eye(4), {"M": np.eye(4)}, {"restart": (*COUNT, (0, InputError))}),
            (linear.flexible_cg, np.eye(4), {"M": np.eye(4)}, {"window": (*COUNT, (0, InputError))}),
            (
                linear.chebyshev,
                np.eye(4),
                {"bounds": (1.0, 4.0)},
                {"bounds": ((3.0, InputError), ((4.0, 1.0), InputError), ((0.0, 4.0), InputError))},
            ),
            (linear.mixed_cg, np.eye(4, dtype=np.float32), {}, {"delta": (*POSITIVE, (1.0, InputError))}),
            (
                linear.enlarged_cg,
                None,
                {"t": 2},
                {"t": (*COUNT, (0, InputError)), "mode": (("no such mode", InputError),)},
            ),
            (linear.solve, np.eye(4), {}, {"assume": (("no such kind", InputError),)}),
        )
        for entry in (
            Entry(
                solve.__name__,
                solve,
                {"A": A, "b": B, "x0": np.zeros(4)} | more,
                {
                    "A": (*BESIDE, *MATRIX),
                    "b": RIGHT,
                    "x0": (*BESIDE, "empty", "too short", "too many dimensions"),
                },
                {"rtol": TOLERANCE, "atol": TOLERANCE, **LOOP, **options},
            ),
            *(
                [Entry(f"{solve.__name__}, M", solve, {"A": A, "b": B} | more | {"M": inverse}, {"M": INVERSE})]
                if inverse is not None
                else []
            ),
        )
    ),
    Entry(
        "block_cg",
        linear.block_cg,
        {"A": A, "B": np.eye(4)[:, :2], "x0": np.zeros((4, 2))},
        {
            "A": (*BESIDE, *MATRIX),
            "B": RIGHT,
            "x0": (*BESIDE, "empty", "too short", "too many dimensions", "columns"),
        },
        {"rtol": TOLERANCE, "atol": TOLERANCE, "rank_tol": TOLERANCE, **LOOP},
    ),
    Entry(
        "block_cg, M",
        linear.block_cg,
        {"A": A, "B": np.eye(4)[:, :2], "M": np.eye(4)},
        {"M": INVERSE},
    ),
    Entry(
        "block_gcrodr",
        linear.block_gcrodr,
        {"A": A, "B": np.eye(4)[:, :2], "x0": np.zeros((4, 2))},
        {
            "A": (*BESIDE, *MATRIX),
            "B": RIGHT,
            "x0": (*BESIDE, "empty", "too short", "too many dimensions", "columns"),
        },
        {
            "rtol": TOLERANCE,
            "atol": TOLERANCE,
            "m": (*COUNT, (1, InputError)),
            "k": COUNT,
            "recycle": (("space", BackendError), (3, BackendError)),
            **LOOP,
        },
    ),
    Entry(
        "block_gcrodr, M",
        linear.block_gcrodr,
        {"A": A, "B": np.eye(4)[:, :2], "M": np.eye(4)},
        {"M": INVERSE},
    ),
    Entry(
        "regularization_path",
        linear.regularization_path,
        {"A": A, "b": B, "shifts": [1.0, 0.1], "t": 2},
        {"A": (*BESIDE, *MATRIX), "b": RIGHT},
        {
            "shifts": (([], InputError), ([np.nan], InputError), (["a"], BackendError), (3.0, InputError)),
            "t": (*COUNT, (0, InputError)),
            "rtol": TOLERANCE,
            "atol": TOLERANCE,
            **LOOP,
        },
    ),
    *(
        entry
        for solve in (linear.lsqr, linear.lsmr)
        for entry in (
            Entry(
                solve.__name__,
                solve,
                {"A": TALL, "b": V6, "x0": np.zeros(4)},
                {
                    "A": (*BESIDE, "too short", "columns", "too many dimensions"),
                    "b": RIGHT,
                    "x0": (*BESIDE, "empty", "too short", "too many dimensions"),
                },
                {
                    "atol": TOLERANCE,
                    "btol": TOLERANCE,
                    "damp": TOLERANCE,
                    "conlim": POSITIVE,
                    **LOOP,
                },
            ),
            Entry(
                f"{solve.__name__}, M",
                solve,
                {"A": TALL, "b": V6, "M": np.eye(4)},
                {"M": INVERSE},
            ),
        )
    ),
    # ---- preconditioners: of a matrix, of a grid, of a kernel matrix
    *(
        Entry(
            build.__name__,
            build,
            {"A": A} | more,
            # A diagonal of integers has an inverse in the default precision.
            {"A": tuple(d for d in (*LONE, *MATRIX) if (build, d) != (preconditioners.jacobi, "integer"))},
            options,
        )
        for build, more, options in (
            (preconditioners.jacobi, {}, {"scale": (("no such scale", InputError),)}),
            (preconditioners.block_jacobi, {"block_size": 2}, {"block_size": (*COUNT, (0, InputError))}),
            (
                preconditioners.chebyshev_polynomial,
                {},
                {"degree": COUNT, "bounds": ((3.0, InputError), ((4.0, 1.0), InputError))},
            ),
            (preconditioners.neumann_polynomial, {}, {"degree": COUNT, "omega": POSITIVE[:4]}),
            (preconditioners.estimate_bounds, {}, {"steps": (*COUNT, (0, InputError))}),
        )
    ),
    Entry(
        "symmetric_polynomial",
        preconditioners.symmetric_polynomial,
        {"B": A, "tau": 2},
        {"B": (*LONE, *MATRIX)},
        {"tau": COUNT},
    ),
    *(
        Entry(
            build.__name__,
            build,
            {"K": A, "mu": 0.1, "rank": 2},
            {"K": (*LONE, *MATRIX)},
            {"mu": TOLERANCE, "rank": (*COUNT, (0, InputError))},
        )
        for build in (preconditioners.nystrom, preconditioners.rpcholesky)
    ),
    *(
        Entry(
            build.__name__,
            lambda like, shape=(1, 3), build=build, **rest: build(shape, like=like, **rest),
            {"like": V6[:3]},
            {"like": KIND},
            {"shape": ((3, InputError), ((0, 3), InputError), ((2.5, 3), BackendError), ("a", InputError))} | options,
        )
        for build, options in (
            (preconditioners.multigrid, {"pre": COUNT, "post": COUNT, "weight": POSITIVE[:4]}),
            (preconditioners.fast_poisson, {"boundary": (("no such boundary", InputError),)}),
        )
    ),
    *(
        Entry(
            build.__name__,
            lambda B, x0, build=build, L=4.0, **rest: build(lambda x: x - 1.0, B, x0, L, **rest),
            {"B": A, "x0": np.zeros(4)},
            {"B": (*BESIDE, *MATRIX), "x0": (*BESIDE, "empty", "too short", "too many dimensions", "no dimension")},
            {"L": POSITIVE, "rtol": TOLERANCE, "atol": TOLERANCE, **LOOP, **options},
        )
        for build, options in (
            (preconditioners.krylov_gradient, {"tau": COUNT}),
            (preconditioners.fast_gradient, {"beta": POSITIVE[:4]}),
        )
    ),
    # Every balanced solver of a stored cost refuses alike.
    *(
        Entry(
            name,
            lambda cost, a, b, x0, name=name, **rest: getattr(ot, name)(cost, a, b, x0=(x0, b), **rest),
            {"cost": COST, "a": P, "b": Q, "x0": np.zeros(6), "reg": 0.5},
            {"x0": POTENTIAL, "cost": COSTS, "a": BALANCED, "b": BALANCED},
            {"reg": POSITIVE, "tol": TOLERANCE, **LOOP, **options},
        )
        for name, options in (
            (
                "sinkhorn",
                {"omega": RELAXED, "acceleration": (("no such", InputError),), "schedule": SCHEDULE},
            ),
            ("kernel_sinkhorn", {"omega": RELAXED}),
            ("newton", {}),
            ("sns", {"keep": (*COUNT, (0, InputError)), "n_sinkhorn": COUNT}),
            (
                "solve",
                {"method": (("no such method", InputError),), "memory": TOLERANCE},
            ),
        )
    ),
    *(
        Entry(
            f"{name}, points",
            lambda x, y, a, b, x0, name=name, cost="sqeuclidean", **rest: getattr(ot, name)(
                ot.PointCloud(x, y, cost=cost), a, b, x0=(x0, b), **rest
            ),
            {"x": X, "y": Y, "a": P, "b": Q, "x0": np.zeros(6), "reg": 0.5},
            {"x0": POTENTIAL, "x": (*POINTS, "empty"), "y": (*POINTS, "empty"), "a": BALANCED, "b": BALANCED},
            {"reg": POSITIVE, "tol": TOLERANCE, "cost": (("no such cost", InputError),), **LOOP} | options,
        )
        for name, options in (
            ("sinkhorn", {"coarse": (("no such", InputError),)}),
            (
                "cloud_newton",
                {
                    "coarse": (("no such", InputError),),
                    "cap": (*COUNT, (0, InputError)),
                    "check_every": LOOP["check_every"],
                },
            ),
            ("solve", {"method": (("no such method", InputError),)}),
        )
    ),
    Entry(
        "Grid",
        lambda like, shape=(2, 3), **rest: ot.Grid(shape, like=like, **rest),
        {"like": P},
        {"like": KIND},
        {
            "shape": ((6, InputError), ((), InputError), ((2, 3, 1, 1), InputError), ((2.5, 2), BackendError)),
            "p": POSITIVE,
            "scale": (*POSITIVE[:4], ((1.0, 2.0, 3.0), InputError)),
        },
    ),
    # ---- relaxed marginals, one measure onto itself, debiased values
    Entry(
        "unbalanced",
        lambda cost, a, b, x0, **rest: ot.unbalanced(cost, a, b, x0=(x0, b), **rest),
        {"cost": COST, "a": 2 * P, "b": Q, "x0": np.zeros(6), "reg": 0.5, "reg_a": 1.0, "reg_b": 1.0},
        {"x0": POTENTIAL, "cost": COSTS, "a": WEIGHTS, "b": WEIGHTS},
        {
            "reg": POSITIVE,
            "reg_a": POSITIVE,
            "reg_b": POSITIVE,
            "tol": TOLERANCE,
            "method": (("no such method", InputError),),
            **LOOP,
        },
    ),
    Entry(
        "unbalanced, points",
        lambda x, y, **rest: ot.unbalanced(ot.PointCloud(x, y), **rest),
        {"x": X, "y": Y, "a": 2 * P, "b": Q, "reg": 0.5, "reg_a": 1.0, "reg_b": 1.0},
        {"x": (*POINTS, "empty"), "y": (*POINTS, "empty"), "a": WEIGHTS, "b": WEIGHTS},
    ),
    Entry(
        "self_transport",
        ot.self_transport,
        {"cost": SQUARE, "a": P, "x0": np.zeros(6), "reg": 0.5},
        {"x0": POTENTIAL, "cost": COSTS, "a": WEIGHTS},
        {"reg": POSITIVE, "tol": TOLERANCE, **LOOP},
    ),
    Entry(
        "sinkhorn_divergence",
        ot.sinkhorn_divergence,
        {"x": X, "y": Y, "a": P, "b": Q, "reg": 0.5},
        {"x": (*POINTS, "empty"), "y": (*POINTS, "empty"), "a": BALANCED, "b": BALANCED},
        {
            "reg": POSITIVE,
            "tol": TOLERANCE,
            "cost": (("no such cost", InputError),),
            **{name: LOOP[name] for name in ("maxiter", "time_limit")},
        },
    ),
    Entry(
        "sinkhorn_divergence_from_costs",
        ot.sinkhorn_divergence_from_costs,
        {"C_xy": COST, "C_xx": SQUARE, "C_yy": SQUARE[:5, :5].copy(), "a": P, "b": Q, "reg": 0.5},
        {"C_xy": COSTS, "C_xx": COSTS, "C_yy": COSTS, "a": BALANCED, "b": BALANCED},
        {"reg": POSITIVE, "tol": TOLERANCE},
    ),
    # ---- many at once, means
    Entry(
        "sinkhorn_batch",
        ot.sinkhorn_batch,
        {"cost": COST, "A": np.stack([P, P], axis=1), "B": np.stack([Q, Q], axis=1), "reg": 0.5},
        {"cost": COSTS, "A": (*BALANCED, "no dimension"), "B": (*BALANCED, "no dimension")},
        {"reg": POSITIVE, "tol": TOLERANCE, **LOOP},
    ),
    Entry(
        "barycenter",
        ot.barycenter,
        {"A": np.stack([P, P[::-1]]), "cost": SQUARE, "weights": np.asarray([0.3, 0.7]), "reg": 0.5},
        {
            "A": (*(d for d in WEIGHTS if d != "too short"), "no dimension", "columns"),
            "cost": COSTS,
            "weights": WEIGHTS,
        },
        {"reg": POSITIVE, "tol": TOLERANCE, "domain": (("no such domain", InputError),), **LOOP},
    ),
    Entry(
        "barycenter, axes",
        lambda A, cost, **rest: ot.barycenter(A, [cost, np.eye(3)], **rest),
        {"A": np.full((2, 2, 3), 1 / 6), "cost": np.eye(2), "reg": 0.5},
        {"A": (*(d for d in BALANCED if d not in ("too short", "twice as heavy")), "columns"), "cost": COSTS},
    ),
    Entry(
        "free_support_barycenter",
        lambda ys, bs, x0, **rest: ot.free_support_barycenter([ys, ys], [bs, bs], x0=x0, **rest),
        {"ys": X, "bs": P, "x0": Y[:3].copy(), "a": np.full(3, 1 / 3), "reg": 0.5},
        {
            "ys": (
                *LONE,
                "other library",
                "other precision",
                "too many dimensions",
                "no dimension",
                "empty",
                "columns",
            ),
            "bs": BALANCED,
            "x0": (*LONE, "other library", "too many dimensions", "no dimension", "empty"),
            "a": BALANCED,
        },
        {
            "reg": POSITIVE,
            "tol": TOLERANCE,
            "inner_tol": TOLERANCE,
            "inner_maxiter": COUNT,
            "weights": (([1.0], InputError), ([0.0, 0.0], InputError), ([1.0, -1.0], InputError), ("ab", BackendError)),
            **{name: LOOP[name] for name in ("maxiter", "time_limit", "callback")},
        },
    ),
    # ---- no entropy, and what follows from a result
    Entry(
        "solve_exact",
        ot.solve_exact,
        {"cost": COST, "a": P, "b": Q},
        {"cost": COSTS, "a": BALANCED, "b": BALANCED},
        {"method": (("no such method", InputError),)},
    ),
    Entry(
        "transport_1d",
        ot.transport_1d,
        {"x": V6, "y": V, "a": P, "b": Q},
        {
            "x": (*BESIDE, "empty", "too many dimensions", "no dimension"),
            "y": (*BESIDE, "empty", "too many dimensions", "no dimension"),
            "a": BALANCED,
            "b": BALANCED,
        },
        {"p": (*POSITIVE[:4], (0.5, InputError))},
    ),
    Entry(
        "round_to_polytope",
        ot.round_to_polytope,
        {"P": np.outer(P, Q), "a": P, "b": Q},
        {
            "P": (*BESIDE, "negative", "empty", "too short", "columns", "too many dimensions", "no dimension"),
            "a": BALANCED,
            "b": BALANCED,
        },
    ),
    *(
        Entry(f.__name__, f, {"result": SOLVED}, {}, options)
        for f, options in (
            (ot.bounds, {"result": ((3.0, InputError), (None, InputError))}),
            (ot.gradients, {"wrt": WRT, "result": RESULT[:2]}),
            (lambda result, **rest: ot.plan_vjp(result, COST, **rest), {"result": RESULT}),
            (lambda result, **rest: ot.potentials_vjp(result, V6, V, **rest), {"result": RESULT}),
            (ot.sharp_cost, {"wrt": WRT, "result": RESULT, "rtol": TOLERANCE, "maxiter": COUNT}),
        )
    ),
    Entry(
        "plan_vjp",
        lambda W, **rest: ot.plan_vjp(SOLVED, W, **rest),
        {"W": COST},
        # A list would be a pair of vectors.
        {
            "W": (
                *(d for d in BESIDE if d != "list"),
                "empty",
                "too short",
                "columns",
                "too many dimensions",
                "no dimension",
            )
        },
        {"wrt": WRT, "rtol": TOLERANCE, "maxiter": COUNT},
    ),
    Entry(
        "plan_vjp, two vectors",
        lambda W, **rest: ot.plan_vjp(SOLVED, (W, Q), **rest),
        {"W": P},
        {"W": (*BESIDE, "empty", "too short", "too many dimensions", "no dimension")},
    ),
    *(
        Entry(
            f"potentials_vjp, {name}",
            lambda **given: ot.potentials_vjp(SOLVED, **({"u": V6 - V6.mean(), "v": V - V.mean()} | given)),
            {name: w - w.mean()},
            {name: (*BESIDE, "empty", "too short", "too many dimensions", "no dimension")},
            {"wrt": WRT, "rtol": TOLERANCE, "maxiter": COUNT},
        )
        for name, w in (("u", V6), ("v", V))
    ),
    Entry(
        "GaussianKDE",
        lambda x, **rest: kde.GaussianKDE(x, **rest),
        {"x": X, "weights": P},
        {"x": (*BESIDE, "empty", "too many dimensions", "no dimension"), "weights": WEIGHTS},
        {"bandwidth": (*POSITIVE[:3], ("no such rule", InputError)), "engine": (("no such engine", InputError),)},
    ),
    *(
        Entry(
            f"GaussianKDE.{method}",
            lambda y, method=method: getattr(kde.GaussianKDE(X, bandwidth=0.5), method)(y),
            {"y": Y},
            {"y": (*BESIDE, "too many dimensions", "no dimension", "columns")},
        )
        for method in ("log_density", "density", "gradient")
    ),
]


def _param(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=name)


BAD_ARRAYS = [
    _param(f"{entry.name}-{name}-{defect}", entry, name, defect)
    for entry in TABLE
    for name, defects in entry.arrays.items()
    for defect in defects
]
BAD_OPTIONS = [
    _param(f"{entry.name}-{name}={value!r}", entry, name, value, error)
    for entry in TABLE
    for name, values in entry.options.items()
    for value, error in values
]


def copies(args: Args) -> Args:
    return {name: a.copy() if isinstance(a, np.ndarray) else a for name, a in args.items()}


def assert_same(args: Args, before: Args) -> None:
    for name, a in args.items():
        if isinstance(a, np.ndarray):
            assert a.dtype == before[name].dtype, name
            np.testing.assert_array_equal(a, before[name], err_msg=f"{name} was modified")


def raises(entry: Entry, args: Args, error: type[Exception], *names: str) -> None:
    before = copies(args)
    with pytest.raises(error) as caught:
        entry.call(**args)
    named = any(re.search(rf"\b{re.escape(name)}\b", str(caught.value)) for name in names)
    assert named, f"the message does not name {' or '.join(names)}: {caught.value}"
    assert_same(args, before)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_good_input_is_accepted_and_kept(entry: Entry) -> None:
    args = copies(entry.good)
    for a in args.values():
        if isinstance(a, np.ndarray):
            a.flags.writeable = False
    entry.call(**args)
    assert_same(args, entry.good)


@pytest.mark.parametrize(("entry", "name", "defect"), BAD_ARRAYS)
def test_bad_array(entry: Entry, name: str, defect: str) -> None:
    spoil, error = DEFECTS[defect]
    # Of two arrays that do not fit each other, the error may name either.
    names = [name, *entry.arrays] if defect in RELATIVE else [name]
    raises(entry, copies(entry.good) | {name: spoil(entry.good[name])}, error, *names)


@pytest.mark.parametrize(("entry", "name", "value", "error"), BAD_OPTIONS)
def test_bad_option(entry: Entry, name: str, value: Any, error: type[Exception]) -> None:
    raises(entry, copies(entry.good) | {name: value}, error, name)


@pytest.mark.parametrize("entry", [_param(f"{e.name}-devices", e) for e in TABLE if len(e.arrays) > 1])
def test_arrays_on_two_devices_are_refused(entry: Entry) -> None:
    strict = pytest.importorskip("array_api_strict")
    last = list(entry.arrays)[-1]
    args = {
        name: strict.asarray(a, device=strict.Device("device1" if name == last else "CPU_DEVICE"))
        if isinstance(a, np.ndarray)
        else a
        for name, a in entry.good.items()
    }
    with pytest.raises(BackendError, match=rf"\b{last}\b"):
        entry.call(**args)


# ---- operators that misbehave

BAD_OPERATORS = {
    "returns a longer vector": (lambda v: np.concatenate([v, v]), InputError),
    "returns a column": (lambda v: v[:, None], InputError),
    "returns a number": (lambda v: float(v[0]), BackendError),
    "returns None": (lambda _: None, BackendError),
    "returns a list": (lambda v: v.tolist(), BackendError),
    "returns float32": (lambda v: v.astype(np.float32), InputError),
    "returns integers": (lambda v: v.astype(int), InputError),
    "returns a tensor": (lambda v: _torch(v), InputError),
}


@pytest.mark.parametrize("solve", [linear.cg, linear.minres, linear.gmres, linear.bicgstab, linear.tfqmr, linear.solve])
@pytest.mark.parametrize("what", BAD_OPERATORS)
def test_operator_that_returns_something_else(what: str, solve: Callable[..., Any]) -> None:
    matvec, error = BAD_OPERATORS[what]
    b = B.copy()
    with pytest.raises(error, match=r"\bA\b"):
        solve(matvec, b)
    np.testing.assert_array_equal(b, B)


@pytest.mark.parametrize(
    ("a", "error"),
    [
        pytest.param(sps.csr_array(np.ones((4, 3))), InputError, id="sparse, not square"),
        pytest.param(sps.csr_array(np.eye(5)), InputError, id="sparse, another size"),
        pytest.param(sps.csr_array(np.eye(4, dtype=int)), BackendError, id="sparse, integer"),
        pytest.param(np.eye(5), InputError, id="dense, another size"),
        pytest.param("matrix", BackendError, id="string"),
        pytest.param(None, BackendError, id="None"),
        pytest.param(3.0, BackendError, id="number"),
    ],
)
def test_matrix_that_does_not_fit(a: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\bA\b"):
        linear.cg(a, B)


@pytest.mark.parametrize("shape", [(4,), (4, -1), (4, 4, 4), (4.0, 4), "ab"])
def test_operator_of_no_shape(shape: Any) -> None:
    with pytest.raises((InputError, BackendError), match=r"\bshape\b"):
        operators.LinearOperator(shape, lambda v: v, dtype=np.float64)


def test_operator_applied_to_the_wrong_length() -> None:
    operator = operators.as_operator(A, like=B, name="A")
    with pytest.raises(InputError):
        operator @ np.ones(3)

"""Who solves what in `compare_ot`: every balanced solver of this package and of its peers, on matrices, points and grids.

A solver is a function of a problem and a limit of iterations that does its set-up (imports, memory order, compilation) and
returns the callable to be timed; an ImportError means that the peer is not installed. Peers are brought to our gauge: a result
is a plan, or the potentials of ``a_i b_j exp((f_i + g_j - C_ij) / reg)``. Tolerances of peers are set so that their own stopping
rule, whatever its norm, is at least as strict as ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from xpsolve.solvers.ot import Grid, PointCloud, kernel_sinkhorn, newton, sinkhorn, solve

from .compare_ot_problems import Answer, Prepare, Problem, Run, Solver

# ---- ours


def _ours(method: Callable[..., Any], where: Callable[[Problem], Any] | None = None, **options: Any) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        cost = problem.C if where is None else where(problem)

        def run() -> Answer:
            result = method(
                cost, problem.a, problem.b, reg=problem.reg, tol=problem.wanted, maxiter=limit,
                time_limit=seconds, **options,
            )  # fmt: skip
            note = f"{result.method}, {result.why}" if result.why and "method=" not in result.why else ""
            note += "" if result.converged else f" {result.status.name}"
            return Answer(f=result.f, g=result.g, iterations=result.n_iter, note=note.strip())

        return run

    return prepare


def _cloud(problem: Problem) -> Any:
    return PointCloud(problem.x, problem.y, threads=1)


def _grid(problem: Problem) -> Any:
    p = 2 if "p2" in problem.name else 1
    return Grid(problem.sides, p=p, scale=problem.spacing, like=problem.a)


# ---- POT


def _pot(name: str) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        import ot

        # POT tests the 2-norm of one marginal; this bounds its L1 norm.
        stop = problem.wanted / math.sqrt(len(problem.b))

        def run() -> Answer:
            plan, log = getattr(ot.bregman, name)(
                problem.a, problem.b, problem.C, problem.reg, numItermax=limit, stopThr=stop, log=True
            )
            # It counts from zero.
            return Answer(plan, iterations=log.get("niter", log.get("n_iter")) + 1)

        return run

    return prepare


def _pot_lazy(problem: Problem, limit: int, seconds: float) -> Run:
    import ot

    def run() -> Answer:
        f, g, _ = ot.bregman.empirical_sinkhorn(
            problem.x, problem.y, problem.reg, problem.a, problem.b, numIterMax=limit, isLazy=True, batchSize=500,
            stopThr=problem.wanted / math.sqrt(len(problem.b)), log=True,
        )  # fmt: skip
        return Answer(f=problem.reg * (f - np.log(problem.a)), g=problem.reg * (g - np.log(problem.b)))

    return run


# ---- regot


def _regot(name: str) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        import regot

        # It reads columns, and tests the 2-norm of both marginals together.
        M, (n, m) = np.asfortranarray(problem.C), problem.C.shape
        method, tol = getattr(regot, name), problem.wanted / math.sqrt(n + m)

        def run() -> Answer:
            result = method(M, problem.a, problem.b, problem.reg, tol=tol, max_iter=limit)
            return Answer(result.plan, iterations=result.niter)

        return run

    return prepare


# ---- GeomLoss: schedules of a number of steps, and no stopping at a tolerance


def geomloss_stored(problem: Problem, limit: int, seconds: float) -> Run:
    """``geomloss.ot.solve``; potentials in our gauge."""
    from geomloss import ot

    reach = None if problem.reg_a == math.inf else problem.reg_a

    def run() -> Answer:
        result = ot.solve(problem.C, reg=problem.reg, a=problem.a, b=problem.b, unbalanced=reach, max_iter=limit)
        return Answer(f=np.asarray(result.potential_a), g=np.asarray(result.potential_b), note=f"{limit} steps")

    return run


def _geomloss_cloud(backend: str) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        if backend == "online":
            import pykeops  # noqa: F401
        loss, tensors, note = samples_loss(problem, limit, backend=backend, debias=False, potentials=True)
        x, y = tensors[1], tensors[3]
        loss(x[:50], y[:50])  # compiles the formula

        def run() -> Answer:
            # Its cost is |x - y|^2 / 2.
            f, g = (2 * p.detach().numpy().ravel() for p in loss(*tensors))
            return Answer(f=f, g=g, note=note)

        return run

    return prepare


def samples_loss(problem: Problem, steps: int, **options: Any) -> tuple[Any, tuple[Any, ...], str]:
    """A ``SamplesLoss`` whose schedule takes about ``steps`` steps, and its arguments; its ``blur^2`` is half our ``reg``."""
    import torch
    from geomloss import SamplesLoss

    both = np.concatenate([problem.x, problem.y])
    diameter = float(np.linalg.norm(both.max(axis=0) - both.min(axis=0)))
    blur = math.sqrt(problem.reg / 2)
    scaling = min((blur / diameter) ** (1 / steps), 1 - 1e-9)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(v)) for v in (problem.a, problem.x, problem.b, problem.y))
    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, diameter=diameter, **options)
    return loss, tensors, f"{steps} steps, scaling {scaling:.3g}"


# ---- OTT: float64 inside a context of its own, compiled before the clock starts


@contextmanager
def wide() -> Iterator[Any]:
    """JAX in float64, here only."""
    import jax

    with jax.enable_x64(True):
        yield jax


def ott(geometry: Callable[[Problem], Any], momentum: bool = False, absorbed: bool = False) -> Prepare:
    """OTT's Sinkhorn in the log domain on a geometry; its stopping rule is the L1 violation of one marginal.

    Its plan is ``exp((f + g - C) / reg)``, the entropy gauge: ``absorbed`` says that the geometry's cost holds the weights, which
    makes it ours. With relaxed marginals that is another problem unless the weights are in the cost.
    """

    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        with wide():
            from ott.problems.linear import linear_problem
            from ott.solvers.linear import acceleration, sinkhorn

            faster = acceleration.Momentum(start=50) if momentum else None
            method = sinkhorn.Sinkhorn(
                threshold=problem.wanted * 0.5, max_iterations=limit, inner_iterations=10, momentum=faster
            )
            taus = [1.0 if r == math.inf else r / (r + problem.reg) for r in (problem.reg_a, problem.reg_b)]
            full = linear_problem.LinearProblem(geometry(problem), problem.a, problem.b, *taus)
            compiled = _compiled(method, full)

        def run() -> Answer:
            with wide():
                f, g, iterations = (np.asarray(v) for v in compiled(full))
            if not absorbed:
                f, g = f - problem.reg * np.log(problem.a), g - problem.reg * np.log(problem.b)
            return Answer(f=f, g=g, iterations=int(iterations), note="float64 switched on")

        return run

    return prepare


_COMPILED: dict[Any, Any] = {}


def _compiled(method: Any, problem: Any) -> Any:
    """The compiled solver of problems of this shape: as one argument, so that the cost is no constant."""
    import jax

    leaves, tree = jax.tree_util.tree_flatten(problem)
    key = (tree, tuple(getattr(leaf, "shape", ()) for leaf in leaves), method.max_iterations, method.threshold,
           method.momentum.start, problem.tau_a == 1.0)  # fmt: skip
    if key not in _COMPILED:

        def run(problem: Any) -> Any:
            out = method(problem)
            return out.f, out.g, out.n_iters

        _COMPILED[key] = jax.jit(run).lower(problem).compile()
    return _COMPILED[key]


def _ott_stored(problem: Problem) -> Any:
    from ott.geometry import geometry

    return geometry.Geometry(cost_matrix=np.asarray(problem.C), epsilon=problem.reg)


def ott_absorbed(problem: Problem) -> Any:
    """A geometry of a cost matrix that holds the weights."""
    from ott.geometry import geometry

    weights = np.log(problem.a)[:, None] + np.log(problem.b)
    return geometry.Geometry(cost_matrix=problem.C - problem.reg * weights, epsilon=problem.reg)


def _ott_cloud(rows: int | None) -> Callable[[Problem], Any]:
    def geometry(problem: Problem) -> Any:
        from ott.geometry import pointcloud

        return pointcloud.PointCloud(problem.x, problem.y, epsilon=problem.reg, batch_size=rows)

    return geometry


def _ott_grid(problem: Problem) -> Any:
    return ott_lines(
        [np.arange(s) * problem.spacing for s in problem.sides], 2 if "p2" in problem.name else 1, problem.reg
    )


def ott_lines(lines: list[Any], p: int, reg: float) -> Any:
    """OTT's grid with the cost ``|s - t|^p`` along each axis; its squared Euclidean cost fails on grids, half the square works."""
    from ott.geometry import costs, grid

    factor = p ** (1 / p)
    return grid.Grid(x=[line[:, None] * factor for line in lines], cost_fns=[costs.PNormP(p)] * len(lines), epsilon=reg)


def _geomloss_grid(problem: Problem, limit: int, seconds: float) -> Run:
    from geomloss import ot

    def run() -> Answer:
        result = ot.solve_grid(problem.a.reshape(problem.sides)[None], problem.b.reshape(problem.sides)[None])
        return Answer(f=np.asarray(result.potential_a).ravel(), g=np.asarray(result.potential_b).ravel())

    return run


# ---- who does what


@cache
def stored_solvers() -> tuple[Solver, ...]:
    """Solvers of a cost matrix.

    Of regot, block coordinate descent is left out, which is Sinkhorn in the log domain; and its APDAGD, its dual L-BFGS and its
    older sparse Newton method, which reached 1e-9 on none of the quick problems.
    """
    regot = {f"peer:regot {name}": _regot(f"sinkhorn_{name}") for name in ("ssns", "splr", "newton")}
    pot = {f"peer:POT {name}": _pot(name) for name in ("sinkhorn_knopp", "sinkhorn_log", "sinkhorn_stabilized")}
    return (
        Solver("xpsolve", _ours(solve)),
        Solver("xpsolve, newton", _ours(newton)),
        Solver("xpsolve, kernel_sinkhorn", _ours(kernel_sinkhorn)),
        Solver("xpsolve, sinkhorn tuned", _ours(sinkhorn, omega="auto")),
        *(Solver(name, prepare, 20 if name.endswith("log") else 100) for name, prepare in pot.items()),
        *(Solver(name, prepare, 5, 20_000) for name, prepare in regot.items()),
        Solver("peer:GeomLoss", geomloss_stored, 10, 20_000),
        Solver("peer:OTT", ott(_ott_stored), 100, 100_000),
        Solver("peer:OTT, momentum", ott(_ott_stored, momentum=True), 100, 100_000),
    )


@cache
def cloud_solvers() -> tuple[Solver, ...]:
    """Solvers of points without the matrix, and GeomLoss's with it."""
    return (
        Solver("xpsolve", _ours(solve, _cloud, memory=0.0)),
        Solver("xpsolve, matrix allowed", _ours(solve, _cloud)),
        Solver("xpsolve, sinkhorn tuned", _ours(sinkhorn, _cloud, omega="auto")),
        Solver("peer:POT, lazy", _pot_lazy, 20, 100_000),
        Solver("peer:GeomLoss, KeOps", _geomloss_cloud("online"), 10, 20_000),
        Solver("peer:GeomLoss, matrix", _geomloss_cloud("tensorized"), 10, 20_000),
        Solver("peer:OTT, batches", ott(_ott_cloud(100)), 50, 100_000),
        Solver("peer:OTT, matrix", ott(_ott_cloud(None)), 50, 100_000),
    )


@cache
def grid_solvers() -> tuple[Solver, ...]:
    """Solvers that use the separable cost; POT has that for barycenters only."""
    return (
        Solver("xpsolve", _ours(solve, _grid)),
        Solver("xpsolve, plain sinkhorn", _ours(sinkhorn, _grid)),
        Solver("peer:GeomLoss, solve_grid", _geomloss_grid),
        Solver("peer:OTT", ott(_ott_grid), 50, 100_000),
        Solver("peer:OTT, momentum", ott(_ott_grid, momentum=True), 50, 100_000),
    )

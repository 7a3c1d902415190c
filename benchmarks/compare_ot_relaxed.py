"""The rest of `compare_ot`: relaxed marginals, Sinkhorn divergences and barycenters, in ours and in the peers' hands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import array_api_compat.numpy as npx
import numpy as np
from xpsolve.problems import cloud, digits_pair, gaussian_histograms
from xpsolve.solvers.ot import (
    barycenter,
    grid_costs,
    sinkhorn,
    sinkhorn_divergence,
    sinkhorn_divergence_from_costs,
    solve,
    unbalanced,
)
from xpsolve.solvers.ot import newton as newton_solver

from .compare_ot_problems import Answer, Prepare, Problem, Run, Solver
from .compare_ot_solvers import geomloss_stored, ott, ott_absorbed, ott_lines, samples_loss, wide

# ---- relaxed marginals


def relaxed(quick: bool) -> Iterator[Problem]:
    """Clouds of masses 1.3 and 1; the error is that of both optimality conditions."""
    p = cloud(60 if quick else 500, xp=npx)
    for price in (0.1,) if quick else (0.1, 1.0, 10.0):
        yield Problem("unbalanced", p.name, p.cost, 1.3 * p.a, p.b, 0.01, 1e-9, p.x, p.y, reg_a=price, reg_b=price)


def _ours_relaxed(method: str) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        def run() -> Answer:
            result = unbalanced(
                problem.C, problem.a, problem.b, reg=problem.reg, reg_a=problem.reg_a, reg_b=problem.reg_b,
                method=method, tol=problem.wanted, maxiter=limit, time_limit=seconds,
            )  # fmt: skip
            return Answer(f=result.f, g=result.g, iterations=result.n_iter, note=result.method)

        return run

    return prepare


def _pot_relaxed(method: str) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        import ot

        def run() -> Answer:
            # It tests the change of its scalings, which a contraction by r / (r + reg) makes so much smaller than the error.
            stop = 0.1 * problem.wanted * problem.reg / (problem.reg + problem.reg_a)
            _, log = ot.unbalanced.sinkhorn_unbalanced(
                problem.a, problem.b, problem.C, problem.reg, problem.reg_a, method=method, reg_type="kl",
                numItermax=limit, stopThr=stop, log=True,
            )  # fmt: skip
            return Answer(f=problem.reg * log["logu"], g=problem.reg * log["logv"], iterations=len(log["err"]))

        return run

    return prepare


@cache
def relaxed_solvers() -> tuple[Solver, ...]:
    """Solvers with a KL relaxation of both marginals."""
    return (
        Solver("xpsolve", _ours_relaxed("auto")),
        Solver("xpsolve, sinkhorn", _ours_relaxed("sinkhorn")),
        Solver("peer:POT sinkhorn", _pot_relaxed("sinkhorn")),
        Solver("peer:POT translation invariant", _pot_relaxed("sinkhorn_translation_invariant")),
        Solver("peer:GeomLoss", geomloss_stored, 10, 20_000),
        Solver("peer:OTT", ott(ott_absorbed, absorbed=True), 100, 100_000),
    )


# ---- Sinkhorn divergences


@dataclass(frozen=True, eq=False)
class Valued(Problem):
    """A problem whose answer is a number: the error is relative to the truth."""

    truth: float = 1.0

    def error(self, answer: Answer) -> float:
        """Relative error of the number found."""
        return abs(answer.found - self.truth) / abs(self.truth)


def _squares(x: Any, y: Any) -> Any:
    return ((x[:, None] - y) ** 2).sum(axis=2)


def divergences(quick: bool) -> Iterator[Problem]:
    """A cloud and its translate by ``t``, whose divergence is exactly ``|t|^2``; and two clouds, solved to rounding before."""
    n = 60 if quick else 500
    p = cloud(n, 3, normalise=False, xp=npx)
    t = np.asarray([0.3, 0.2, -0.1])
    for reg in (0.1,) if quick else (0.1, 0.01):
        moved = p.x + t
        yield Valued(
            "divergence", "cloud, translated", _squares(p.x, moved), p.a, p.b, reg, 1e-6, p.x, moved,
            truth=float((t**2).sum()),
        )  # fmt: skip
        costs = (p.cost, _squares(p.x, p.x), _squares(p.y, p.y))
        truth = sinkhorn_divergence_from_costs(*costs, p.a, p.b, reg=reg, tol=1e-12, solver=newton_solver).value
        yield Valued("divergence", "two clouds", p.cost, p.a, p.b, reg, 1e-6, p.x, p.y, truth=truth)


def _ours_divergence(solver: Callable[..., Any]) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        def run() -> Answer:
            result = sinkhorn_divergence(
                problem.x, problem.y, problem.a, problem.b, reg=problem.reg, tol=1e-6, maxiter=limit,
                time_limit=seconds, solver=solver, threads=1,
            )  # fmt: skip
            return Answer(found=float(result.value))

        return run

    return prepare


def _pot_divergence(problem: Problem, limit: int, seconds: float) -> Run:
    import ot

    def run() -> Answer:
        result = ot.solve_sample(
            problem.x, problem.y, problem.a, problem.b, reg=problem.reg, reg_type="KL", debias=True,
            max_iter=limit, tol=1e-9,
        )  # fmt: skip
        return Answer(found=float(result.value), note=f"at most {limit} iterations")

    return run


def _geomloss_divergence(problem: Problem, limit: int, seconds: float) -> Run:
    loss, tensors, note = samples_loss(problem, limit, backend="tensorized", debias=True)
    return lambda: Answer(found=2 * float(loss(*tensors)), note=note)


def _ott_divergence(problem: Problem, limit: int, seconds: float) -> Run:
    with wide() as jax:
        from ott.geometry import pointcloud
        from ott.tools import sinkhorn_divergence as tool

        def divergence(x: Any, y: Any, a: Any, b: Any) -> Any:
            return tool.sinkhorn_divergence(
                pointcloud.PointCloud, x, y, a=a, b=b, epsilon=problem.reg,
                solve_kwargs={"threshold": 1e-6, "max_iterations": limit},
            )[0]  # fmt: skip

        compiled = jax.jit(divergence).lower(problem.x, problem.y, problem.a, problem.b).compile()

    def run() -> Answer:
        with wide():
            value = float(compiled(problem.x, problem.y, problem.a, problem.b))
        return Answer(found=value, note=f"at most {limit} iterations, float64 switched on")

    return run


@cache
def divergence_solvers() -> tuple[Solver, ...]:
    """Debiased values of ``|x - y|^2`` in the KL gauge."""
    return (
        Solver("xpsolve", _ours_divergence(solve)),
        Solver("xpsolve, sinkhorn", _ours_divergence(sinkhorn)),
        Solver("peer:POT solve_sample", _pot_divergence, 50, 100_000),
        Solver("peer:GeomLoss", _geomloss_divergence, 10, 20_000),
        Solver("peer:OTT", _ott_divergence, 50, 100_000),
    )


# ---- barycenters


@dataclass(frozen=True, eq=False)
class Mean(Problem):
    """Measures (K, n) or (K, s, s), and the barycenter that ours converges to: the error is the L1 distance to that."""

    measures: Any = None
    debiased: bool = False
    truth: Any = None

    @property
    def size(self) -> str:
        """Measures, shape and regularisation."""
        return " x ".join(map(str, self.measures.shape)) + f", reg {self.reg:.3g}"

    def error(self, answer: Answer) -> float:
        """L1 distance of the histogram found, scaled to the mass of the measures."""
        p = np.asarray(answer.found, float).ravel()
        error = np.abs(p - self.truth.ravel()).sum()
        return float(error) if np.isfinite(error) else math.inf


def _axes(A: Any) -> list[Any]:
    return grid_costs(A.shape[1:], like=A)


def means(quick: bool) -> Iterator[Problem]:
    """Two Gaussians on a line, with the entropy's blur and without, and three images of digits."""
    n = 60 if quick else 300
    pair = gaussian_histograms(0.1, n, xp=npx)
    line = np.stack([pair.a, pair.b])
    images = np.stack([digits_pair(2, 1 if quick else 4, images=k, xp=npx).a for k in ((0, 1), (10, 1), (20, 1))])
    side = math.isqrt(images.shape[1])
    images = images.reshape(-1, side, side)
    # Debiased barycenters of digits creep: no solver here comes to an end, and there is no truth to compare with.
    for name, A, reg, debiased in (("Gaussians", line, 2e-3, False), ("Gaussians, debiased", line, 2e-3, True),
                                   ("digits", images, 4e-3, False)):  # fmt: skip
        truth = barycenter(A, _axes(A), reg=reg, debiased=debiased, tol=1e-8 if debiased else 1e-11).p
        empty = np.empty((0, 0))
        yield Mean("barycenter", name, empty, A[0], A[1], reg, 1e-5, measures=A, debiased=debiased, truth=truth)


def _ours_mean(domain: str) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        A = problem.measures
        # The rule stops on the agreement of the marginals; the distance to the limit is somewhat larger.
        tol = problem.wanted / 100

        def run() -> Answer:
            result = barycenter(
                A, _axes(A), reg=problem.reg, debiased=problem.debiased, domain=domain, tol=tol,
                maxiter=limit, time_limit=seconds,
            )  # fmt: skip
            return Answer(found=result.p, iterations=result.n_iter)

        return run

    return prepare


def _pot_mean(method: str) -> Prepare:
    def prepare(problem: Problem, limit: int, seconds: float) -> Run:
        import ot

        A = problem.measures
        options = {"method": method, "numItermax": limit, "stopThr": problem.wanted / 100, "log": True}
        tail = "_debiased" if problem.debiased else ""

        def run() -> Answer:
            if A.ndim == 3:
                p, log = getattr(ot.bregman, f"convolutional_barycenter2d{tail}")(A, problem.reg, **options)
            else:
                p, log = getattr(ot.bregman, f"barycenter{tail}")(A.T, _axes(A)[0], problem.reg, **options)
            return Answer(found=np.asarray(p), iterations=log["niter"] + 1)

        return run

    return prepare


def _ott_mean(problem: Problem, limit: int, seconds: float) -> Run:
    with wide():
        from ott.geometry import geometry
        from ott.problems.linear import barycenter_problem
        from ott.solvers.linear import discrete_barycenter

        A = problem.measures
        method = discrete_barycenter.FixedBarycenter(
            threshold=problem.wanted / 100, max_iterations=limit, debiased=problem.debiased
        )
        if A.ndim == 3:
            space = ott_lines([np.linspace(0.0, 1.0, s) for s in A.shape[1:]], 2, problem.reg)
        else:
            space = geometry.Geometry(cost_matrix=_axes(A)[0], epsilon=problem.reg)
        full = barycenter_problem.FixedBarycenterProblem(space, A.reshape(A.shape[0], -1))
        method(full)  # compiles

    def run() -> Answer:
        with wide():
            return Answer(found=np.asarray(method(full).histogram), note="float64 switched on")

    return run


@cache
def mean_solvers() -> tuple[Solver, ...]:
    """Barycenters on a fixed support."""
    return (
        Solver("xpsolve", _ours_mean("auto")),
        Solver("xpsolve, log domain", _ours_mean("log")),
        Solver("peer:POT sinkhorn", _pot_mean("sinkhorn")),
        Solver("peer:POT sinkhorn_log", _pot_mean("sinkhorn_log"), 20),
        Solver("peer:OTT", _ott_mean, 50, 100_000),
    )

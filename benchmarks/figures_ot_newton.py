"""Figures 21 to 25: the Newton solvers of entropic transport on stored costs, beside Sinkhorn, regot's SSNS and POT."""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import array_api_compat.numpy as npx
import numpy as np
from xpsolve.problems import TransportProblem, cloud, digits_pair, lap, robustness_set
from xpsolve.solvers.ot.kernel_sinkhorn import kernel_sinkhorn
from xpsolve.solvers.ot.newton import newton
from xpsolve.solvers.ot.sns import sns
from xpsolve.solvers.ot.solve import solve

from .timing import interleaved

Row = dict[str, Any]
ETAS = (50.0, 1e3, 1e4, 1e5)


def digits(p: int, scale: int) -> TransportProblem:
    """The first two images of scikit-learn's digits."""
    return digits_pair(p, scale, xp=npx)


def violation(P: Any, a: Any, b: Any) -> float:
    """``|P 1 - a|_1 + |P^T 1 - b|_1``."""
    return float(np.abs(P.sum(axis=1) - a).sum() + np.abs(P.sum(axis=0) - b).sum())


def ssns(problem: TransportProblem, eta: float, max_iter: int = 300, tol: float = 1e-9) -> Callable[[], Any] | None:
    """regot's sparse Newton method, its Fortran-ordered cost made beforehand; None where it is not installed.

    It stops on the 2-norm of the gradient, which is laxer than the L1 norm asked of our solvers.
    """
    if not importlib.util.find_spec("regot"):
        return None
    regot = importlib.import_module("regot")
    M = np.asfortranarray(problem.cost)
    return lambda: regot.sinkhorn_ssns(M, problem.a, problem.b, 1 / eta, tol=tol, max_iter=max_iter)


def figure_21(repeats: int) -> Iterator[Row]:
    """Sinkhorn-Newton-Sparse as published on random assignment: Newton steps, and plain Sinkhorn beside it."""
    from .figures import row

    for seed in range(3):
        problem = lap(500, seed, xp=npx)
        for keep in (8, None):
            result = sns(problem.cost, problem.a, problem.b, reg=1 / 1200, tol=1e-12, keep=keep)
            what = f"SNS Newton steps to 1e-12, lap500 seed {seed}, {keep or 'error-tied'} entries per row"
            steps = result.evaluations["newton"] if result.converged else math.inf
            yield row(21, what, steps, "<= 10", error=result.residual)
        if seed == 0:
            plain = kernel_sinkhorn(problem.cost, reg=1 / 1200, tol=1e-12, omega=1.0, maxiter=100_000)
            note = f"{plain.n_iter} iterations against {result.n_iter}, 20 of them Sinkhorn's"
            what = "plain Sinkhorn iterations / SNS iterations of both stages, lap500 seed 0"
            yield row(21, what, plain.n_iter / result.n_iter, ">= 1000", error=plain.residual, note=note)


def figure_22(repeats: int) -> Iterator[Row]:
    """The robustness set: how many of 40 reach 1e-9, and the time of all; regot's SSNS beside it."""
    from .figures import row

    solved, seconds, worst, slowest = 0, 0.0, 0.0, ""
    peer_solved, peer_seconds, longest = 0, 0.0, 0.0
    failures: dict[str, int] = {}
    for problem in robustness_set(xp=npx):
        C, a, b = problem.cost, problem.a, problem.b
        for eta in ETAS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                start = time.process_time()
                result = solve(C, a, b, reg=1 / eta, tol=1e-9)
                spent = time.process_time() - start
            seconds, solved = seconds + spent, solved + result.converged
            worst = max(worst, result.residual)
            if spent > longest:
                longest, slowest = spent, f"{problem.name} at {eta:g}: {spent:.2f} s"
            peer = ssns(problem, eta, max_iter=500, tol=1e-10)
            if peer is not None:
                start = time.process_time()
                try:
                    plan = np.asarray(peer().plan)
                    peer_solved += violation(plan, a, b) <= 2e-9
                except Exception as err:
                    failures[type(err).__name__] = failures.get(type(err).__name__, 0) + 1
                peer_seconds += time.process_time() - start
    note = f"slowest {slowest}"
    yield row(22, "robustness set: problems of 40 at 1e-9", solved, ">= 40", error=worst, note=note)
    yield row(22, "robustness set: seconds in all", seconds, "<= 15")
    if peer_seconds:
        yield row(
            22,
            "robustness set, regot SSNS: problems of 40 below 2e-9",
            peer_solved,
            note=f"{peer_seconds:.1f} s in all; raised: {failures or None}",
        )


def figure_23(repeats: int) -> Iterator[Row]:
    """Against regot's SSNS at error 1e-9: share of its time."""
    from .figures import row

    problems = {
        "dig576p1, 1200": (digits(1, 3), 1200.0),
        "dig1024p1, 1200": (digits(1, 4), 1200.0),
        "cloud1000, 1000": (cloud(1000, xp=npx), 1000.0),
        "cloud1000, 5000": (cloud(1000, xp=npx), 5000.0),
        "cloud2000, 1000": (cloud(2000, xp=npx), 1000.0),
    }
    logs = []
    for name, (problem, eta) in problems.items():
        peer = ssns(problem, eta)
        if peer is None:
            yield row(23, f"newton / regot SSNS, {name}", None, note="regot is not installed")
            continue
        C, a, b = problem.cost, problem.a, problem.b

        def ours(C: Any = C, a: Any = a, b: Any = b, eta: float = eta) -> Any:
            return newton(C, a, b, reg=1 / eta, tol=1e-9)

        times = interleaved({"ours": ours, "regot": peer}, repeats)
        ratio = times["ours"][0] / times["regot"][0]
        logs.append(math.log(ratio))
        theirs = times["regot"][1]
        error, peer_error = times["ours"][1].residual, violation(np.asarray(theirs.plan), a, b)
        note = f"{theirs.niter} iterations of regot"
        more = {"error": error, "peer_error": peer_error, "seconds": times["ours"][0], "note": note}
        yield row(23, f"newton / regot SSNS, {name}", ratio, "<= 0.6", **more)
    if logs:
        yield row(23, "newton / regot SSNS, geometric mean", math.exp(sum(logs) / len(logs)), "<= 0.35")


def figure_24(repeats: int) -> Iterator[Row]:
    """The work of newton on dig576p1 at 1200."""
    from .figures import row

    problem = digits(1, 3)
    result = newton(problem.cost, problem.a, problem.b, reg=1 / 1200, tol=1e-9)
    counts = result.evaluations
    yield row(24, "newton on dig576p1, 1200: Newton steps", counts["newton"], "<= 35", error=result.residual)
    note = f"{counts['evaluations']} evaluations of the semi-dual, {counts['cg']} CG iterations"
    yield row(24, "newton on dig576p1, 1200: exp passes", counts["exp_passes"], "<= 80", note=note)


def figure_25(repeats: int) -> Iterator[Row]:
    """Against POT's ot.sinkhorn; POT stops on a 2-norm of one marginal, so the errors reached stand beside the ratio."""
    from .figures import row

    if not importlib.util.find_spec("ot"):
        yield row(25, "ot.sinkhorn / xpsolve", None, note="POT is not installed")
        return
    ot = importlib.import_module("ot")
    problems = {
        "lap500, 1200": (lap(500, xp=npx), 1200.0, ">= 40", newton),
        "dig576p2, 1200": (digits(2, 3), 1200.0, ">= 4", newton),
        "lap500, 100": (lap(500, xp=npx), 100.0, ">= 0.667", solve),
        "dig576p2, 100": (digits(2, 3), 100.0, ">= 0.667", solve),
        "cloud1000, 100": (cloud(1000, xp=npx), 100.0, ">= 0.667", solve),
    }
    for name, (problem, eta, target, solver) in problems.items():
        C, a, b = problem.cost, problem.a, problem.b

        def ours(C: Any = C, a: Any = a, b: Any = b, eta: float = eta, solver: Any = solver) -> Any:
            return solver(C, a, b, reg=1 / eta, tol=1e-9)

        def pot(C: Any = C, a: Any = a, b: Any = b, eta: float = eta) -> Any:
            return ot.sinkhorn(a, b, C, 1 / eta, stopThr=1e-9 / math.sqrt(len(b)), numItermax=100_000)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            times = interleaved({"ours": ours, "pot": pot}, repeats)
        more = {"error": times["ours"][1].residual, "peer_error": violation(times["pot"][1], a, b)}
        what = f"ot.sinkhorn / {solver.__name__}, {name}"
        yield row(25, what, times["pot"][0] / times["ours"][0], target, seconds=times["ours"][0], **more)

"""Figures 21 to 25: the Newton solvers of entropic transport on stored costs, beside Sinkhorn, regot's SSNS and POT."""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from xpsolve.solvers.ot.kernel_sinkhorn import kernel_sinkhorn
from xpsolve.solvers.ot.newton import newton
from xpsolve.solvers.ot.sns import sns
from xpsolve.solvers.ot.solve import solve

from .timing import interleaved

Row = dict[str, Any]
Instance = tuple[Any, Any, Any]
ETAS = (50.0, 1e3, 1e4, 1e5)


def uniform(n: int) -> Any:
    return np.full(n, 1 / n)


def lap(n: int, seed: int = 0) -> Instance:
    """A random assignment problem."""
    return np.random.default_rng(seed).uniform(size=(n, n)), uniform(n), uniform(n)


def dig(k: int, p: int, i: int = 0, j: int = 1, floor: float = 0.0) -> Instance:
    """Two digit images, each pixel enlarged to k x k; |.|^2 or L1 cost on the pixel grid."""
    from sklearn.datasets import load_digits

    images = load_digits().images
    a, b = (np.kron(images[index], np.ones((k, k))).ravel() for index in (i, j))
    a, b = (w + (floor or 0.01 * w.mean()) for w in (a, b))
    s = 8 * k
    grid = np.stack(np.meshgrid(np.arange(s), np.arange(s), indexing="ij"), axis=-1).reshape(-1, 2).astype(float)
    gaps = np.abs(grid[:, None] - grid)
    C = (gaps**p).sum(axis=2)
    return C / C.max(), a / a.sum(), b / b.sum()


def cloud(n: int, d: int = 2, p: int = 2, seed: int = 0, gaussian: bool = False) -> Instance:
    """Two uniform clouds, or a Gaussian and a shifted narrow one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) if gaussian else rng.uniform(size=(n, d))
    y = 0.5 * rng.normal(size=(n, d)) + 1 if gaussian else rng.uniform(size=(n, d))
    C = ((x[:, None] - y) ** 2).sum(axis=2)
    C = C if p == 2 else np.sqrt(C)
    return C / C.max(), uniform(n), uniform(n)


def robustness_set(n: int = 300, seed: int = 5) -> dict[str, Instance]:
    """Ten problems that between them break most solvers at weak regularisation."""
    rng = np.random.default_rng(seed)
    C = rng.uniform(size=(n, n))
    a, b = rng.uniform(0.1, 1, n), rng.uniform(0.1, 1, n)
    other = np.random.default_rng(7)
    R = other.uniform(size=(200, 350))
    ra, rb = other.dirichlet(np.full(200, 0.3)) + 1e-9, other.dirichlet(np.full(350, 0.3)) + 1e-9
    x = np.linspace(0, 1, 300)
    ha, hb = np.exp(-((x - 0.2) ** 2) / 0.005) + 1e-6, np.exp(-((x - 0.8) ** 2) / 0.002) + 1e-6
    return {
        "lap": lap(n, seed),
        "randmarg": (C, a / a.sum(), b / b.sum()),
        "cloud p=2": cloud(n, 2, 2, seed),
        "cloud p=1": cloud(n, 2, 1, seed),
        "Gaussian d=10": cloud(n, 10, 2, seed, gaussian=True),
        "digits 3 8 p=2": dig(2, 2, 3, 8),
        "digits 3 8 p=1": dig(2, 1, 3, 8),
        "rectangular": (R, ra / ra.sum(), rb / rb.sum()),
        "histograms": ((x[:, None] - x) ** 2, ha / ha.sum(), hb / hb.sum()),
        "digits 0 4, floor 1e-8": dig(1, 2, 0, 4, floor=1e-8),
    }


def violation(P: Any, a: Any, b: Any) -> float:
    """``|P 1 - a|_1 + |P^T 1 - b|_1``."""
    return float(np.abs(P.sum(axis=1) - a).sum() + np.abs(P.sum(axis=0) - b).sum())


def ssns(instance: Instance, eta: float, max_iter: int = 300, tol: float = 1e-9) -> Callable[[], Any] | None:
    """regot's sparse Newton method, its Fortran-ordered cost made beforehand; None where it is not installed.

    It stops on the 2-norm of the gradient, which is laxer than the L1 norm asked of our solvers.
    """
    if not importlib.util.find_spec("regot"):
        return None
    regot = importlib.import_module("regot")
    C, a, b = instance
    M = np.asfortranarray(C)
    return lambda: regot.sinkhorn_ssns(M, a, b, 1 / eta, tol=tol, max_iter=max_iter)


def figure_21(repeats: int) -> Iterator[Row]:
    """Sinkhorn-Newton-Sparse as published on random assignment: Newton steps, and plain Sinkhorn beside it."""
    from .figures import row

    for seed in range(3):
        C, a, b = lap(500, seed)
        for keep in (8, None):
            result = sns(C, a, b, reg=1 / 1200, tol=1e-12, keep=keep)
            what = f"SNS Newton steps to 1e-12, lap500 seed {seed}, {keep or 'error-tied'} entries per row"
            steps = result.evaluations["newton"] if result.converged else math.inf
            yield row(21, what, steps, "<= 10", error=result.residual)
        if seed == 0:
            plain = kernel_sinkhorn(C, a, b, reg=1 / 1200, tol=1e-12, omega=1.0, maxiter=100_000)
            note = f"{plain.n_iter} iterations against {result.n_iter}, 20 of them Sinkhorn's"
            what = "plain Sinkhorn iterations / SNS iterations of both stages, lap500 seed 0"
            yield row(21, what, plain.n_iter / result.n_iter, ">= 1000", error=plain.residual, note=note)


def figure_22(repeats: int) -> Iterator[Row]:
    """The robustness set: how many of 40 reach 1e-9, and the time of all; regot's SSNS beside it."""
    from .figures import row

    solved, seconds, worst, slowest = 0, 0.0, 0.0, ""
    peer_solved, peer_seconds, longest = 0, 0.0, 0.0
    failures: dict[str, int] = {}
    for name, instance in robustness_set().items():
        C, a, b = instance
        for eta in ETAS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                start = time.process_time()
                result = solve(C, a, b, reg=1 / eta, tol=1e-9)
                spent = time.process_time() - start
            seconds, solved = seconds + spent, solved + result.converged
            worst = max(worst, result.residual)
            if spent > longest:
                longest, slowest = spent, f"{name} at {eta:g}: {spent:.2f} s"
            peer = ssns(instance, eta, max_iter=500, tol=1e-10)
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
        "dig576p1, 1200": (dig(3, 1), 1200.0),
        "dig1024p1, 1200": (dig(4, 1), 1200.0),
        "cloud1000, 1000": (cloud(1000), 1000.0),
        "cloud1000, 5000": (cloud(1000), 5000.0),
        "cloud2000, 1000": (cloud(2000), 1000.0),
    }
    logs = []
    for name, (instance, eta) in problems.items():
        peer = ssns(instance, eta)
        if peer is None:
            yield row(23, f"newton / regot SSNS, {name}", None, note="regot is not installed")
            continue
        C, a, b = instance

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

    C, a, b = dig(3, 1)
    result = newton(C, a, b, reg=1 / 1200, tol=1e-9)
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
        "lap500, 1200": (lap(500), 1200.0, ">= 40", newton),
        "dig576p2, 1200": (dig(3, 2), 1200.0, ">= 4", newton),
        "lap500, 100": (lap(500), 100.0, ">= 0.667", solve),
        "dig576p2, 100": (dig(3, 2), 100.0, ">= 0.667", solve),
        "cloud1000, 100": (cloud(1000), 100.0, ">= 0.667", solve),
    }
    for name, ((C, a, b), eta, target, solver) in problems.items():

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

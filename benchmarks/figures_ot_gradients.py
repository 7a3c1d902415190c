"""Figure 28 (8 of the transport family): gradients against central differences, and what float32 reaches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import array_api_compat.numpy as npx
import numpy as np
from xpsolve.problems import digits_pair
from xpsolve.solvers.ot import PointCloud, TransportResult, sinkhorn
from xpsolve.solvers.ot.gradients import gradients
from xpsolve.solvers.ot.implicit import plan_vjp, potentials_vjp, sharp_cost

Row = dict[str, Any]
Problem = dict[str, Any]
_METRICS = ("sqeuclidean", "half_sqeuclidean", "euclidean", "cityblock")


def _clouds(metric: str) -> Problem:
    rng = np.random.default_rng(0)
    a, b = rng.random(9) + 0.1, rng.random(12) + 0.1
    points = {"x": rng.random((9, 2)), "y": rng.random((12, 2)), "metric": metric}
    return points | {"a": a / a.sum(), "b": b / b.sum(), "reg": 0.1}


def _solve(problem: Problem, **options: Any) -> TransportResult:
    cost = problem["cost"] if "cost" in problem else PointCloud(problem["x"], problem["y"], problem["metric"])
    options = {"tol": 1e-13, "maxiter": 20_000} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sinkhorn(cost, problem["a"], problem["b"], reg=float(problem["reg"]), **options)


def _losses(problem: Problem) -> dict[str, tuple[Callable[[TransportResult], float], Callable[..., dict[str, Any]]]]:
    """Functions of a result, each with its derivatives by name."""
    rng = np.random.default_rng(1)
    u, v = rng.standard_normal(problem["a"].shape[0]), rng.standard_normal(problem["b"].shape[0])

    def potentials(r: TransportResult) -> float:
        shift = 0.5 * (r.b @ r.g - r.a @ r.f) / r.a.sum()
        return float(u @ (r.f + shift) + v @ (r.g - shift))

    return {
        "value": (lambda r: r.value, gradients),
        "plan": (lambda r: float(u @ (r.plan @ v)), lambda r, wrt: plan_vjp(r, (u, v), wrt)),
        "potentials": (potentials, lambda r, wrt: potentials_vjp(r, u, v, wrt)),
        "sharp cost": (lambda r: r.transport_cost, lambda r, wrt: sharp_cost(r, wrt).gradients),
    }


def _along(problem: Problem, name: str, directions: int) -> Iterator[np.ndarray]:
    """Steps of unit size by one argument; those of weights keep their sum."""
    rng = np.random.default_rng(2)
    at = np.asarray(problem[name], dtype=float)
    for _ in range(directions if at.ndim else 1):
        step = rng.standard_normal(at.shape) if at.ndim else np.ones(())
        if name in ("a", "b"):
            # In proportion to the weights, which stay positive.
            step = at * (step - at @ step)
        yield step / (np.abs(step).max() or 1.0)


def worst_difference(
    problem: Problem, kind: str, names: tuple[str, ...], h: float, directions: int = 4, **options: Any
) -> float:
    """Largest difference of a derivative and the central difference along random directions, over the larger of 1 and it."""
    loss, derivative = _losses(problem)[kind]
    found = derivative(_solve(problem, **options), names)
    worst = 0.0
    for name in names:
        size = h * (float(np.max(problem[name])) if name in ("a", "b", "reg") else 1.0)
        for step in _along(problem, name, directions):
            ends = [loss(_solve(problem | {name: problem[name] + sign * size * step}, **options)) for sign in (1, -1)]
            measured = (ends[0] - ends[1]) / (2 * size)
            worst = max(worst, abs(float(np.sum(found[name] * step)) - measured) / max(1.0, abs(measured)))
    return worst


def figure_28(repeats: int) -> Iterator[Row]:
    """Every gradient against central differences; error and cost of a float32 run."""
    from .figures import row

    kinds = ("value", "plan", "potentials", "sharp cost")
    for metric in _METRICS:
        problem = _clouds(metric)
        for kind in kinds:
            error = worst_difference(problem, kind, ("x", "y", "a", "b", "reg"), 1e-5)
            yield row(
                28, f"gradients of the {kind} against central differences, cloud 9 x 12, {metric}", error, "<= 1e-6"
            )
    stored = _clouds("euclidean")
    C = np.sqrt(((stored.pop("x")[:, None] - stored.pop("y")) ** 2).sum(axis=2))
    for kind in kinds:
        error = worst_difference(stored | {"cost": C}, kind, ("cost", "a", "b", "reg"), 1e-5)
        yield row(28, f"gradients of the {kind} against central differences, matrix 9 x 12", error, "<= 1e-6")
    pair = digits_pair(p=2, scale=3, xp=npx)
    problem = {"cost": pair.cost, "a": pair.a, "b": pair.b, "reg": 1 / 1200}
    for kind in ("value", "sharp cost"):
        error = worst_difference(problem, kind, ("a", "b", "reg"), 1e-4, directions=1, tol=1e-12, omega=1.85)
        yield row(28, f"gradients of the {kind} against central differences, dig576p2 (1/eps=1200)", error, "<= 1e-6")
    yield from _single(problem)


def _single(problem: Problem) -> Iterator[Row]:
    """float32 against float64; its error and cost are those of its potentials, evaluated in float64."""
    from .figures import row

    double = _solve(problem, tol=1e-11, omega=1.85)
    inputs = {name: problem[name].astype(np.float32) for name in ("cost", "a", "b")}
    single = _solve(problem | inputs, tol=4e-6, omega=1.85)
    exponents = (single.f.astype(float)[:, None] + single.g.astype(float) - problem["cost"]) / problem["reg"]
    plan = problem["a"][:, None] * problem["b"] * np.exp(exponents)
    error = np.abs(plan.sum(axis=1) - problem["a"]).sum() + np.abs(plan.sum(axis=0) - problem["b"]).sum()
    note = f"{single.method}, {single.n_iter} iterations, {single.status.name}; it reports {single.residual:.2e}"
    yield row(28, "float32: L1 error of both marginals, dig576p2 (1/eps=1200)", float(error), "<= 5e-6", note=note)
    cost = abs(single.transport_cost - double.transport_cost)
    note = f"of {double.transport_cost:.9f}"
    yield row(28, "float32: cost against float64, dig576p2 (1/eps=1200)", cost, "<= 1e-6", note=note)

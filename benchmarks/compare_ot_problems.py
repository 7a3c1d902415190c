"""The balanced problems of `compare_ot`, what a solver answers, and the one error that all answers are judged by."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import array_api_compat.numpy as npx
import numpy as np
from xpsolve.problems import TransportProblem, cloud, digits_pair, lap, robustness_set


class Answer(NamedTuple):
    """What a solver found: a plan or potentials in the KL gauge, or a number or a histogram where that is asked."""

    plan: Any = None
    f: Any = None
    g: Any = None
    found: Any = None
    iterations: int | None = None
    note: str = ""


Run = Callable[[], Answer]
Prepare = Callable[..., Run]


@dataclass(frozen=True, eq=False)
class Problem:
    """One problem at one regularisation, and the L1 violation asked for, over the mass."""

    family: str
    name: str
    C: Any
    a: Any
    b: Any
    reg: float
    wanted: float
    x: Any = None
    y: Any = None
    sides: tuple[int, ...] = ()
    spacing: float = 1.0
    reg_a: float = math.inf
    reg_b: float = math.inf

    @property
    def size(self) -> str:
        """Shape and regularisation, as the tables show them."""
        relaxed = "" if self.reg_a == math.inf else f", relaxation {self.reg_a:g}"
        return f"{self.C.shape[0]} x {self.C.shape[1]}, reg {self.reg:.3g}{relaxed}"

    def error(self, answer: Answer) -> float:
        """`violation` of the answer."""
        plan, f, g = answer.plan, answer.f, answer.g
        if plan is None:
            plan = plan_of(self.C, self.a, self.b, np.asarray(f, float), np.asarray(g, float), self.reg)
        return violation(np.asarray(plan), self.a, self.b, f, g, self.reg_a, self.reg_b)


def plan_of(C: Any, a: Any, b: Any, f: Any, g: Any, reg: float) -> Any:
    """The plan of potentials in the KL gauge, in float64."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return np.exp((f / reg + np.log(a))[:, None] + (g / reg + np.log(b)) - C / reg)


def violation(
    plan: Any, a: Any, b: Any, f: Any = None, g: Any = None, reg_a: float = math.inf, reg_b: float = math.inf
) -> float:
    """The error of every row: ``|P 1 - a exp(-f / reg_a)|_1 + |P^T 1 - b exp(-g / reg_b)|_1`` over the mean mass, in float64.

    For hard marginals, the violation of the constraints. Not finite counts as infinite.
    """
    mean = 0.5 * (a.sum() + b.sum())
    with np.errstate(over="ignore", invalid="ignore"):
        rows = a if reg_a == math.inf else a * np.exp(-np.asarray(f, float) / reg_a)
        columns = b if reg_b == math.inf else b * np.exp(-np.asarray(g, float) / reg_b)
        error = (np.abs(plan.sum(axis=1) - rows).sum() + np.abs(plan.sum(axis=0) - columns).sum()) / mean
    return float(error) if np.isfinite(error) else math.inf


@dataclass(frozen=True)
class Solver:
    """A column of the comparison; ``first`` and ``most`` bound the limits of iterations that are tried (see `compare_ot`)."""

    name: str
    prepare: Prepare
    first: int = 100
    most: int = 1_000_000

    @property
    def ours(self) -> bool:
        """It belongs to this package: it stops at a time limit instead of an iteration limit."""
        return self.name.startswith("xpsolve")


@contextmanager
def quiet() -> Iterator[None]:
    """Peers warn about what they like, and so do we: what a run reached shows in its error."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


# ---- problems


def _problem(family: str, p: TransportProblem, reg: float, wanted: float, **more: Any) -> Problem:
    return Problem(family, p.name, p.cost, p.a, p.b, reg, wanted, p.x, p.y, **more)


def stored(quick: bool) -> Iterator[Problem]:
    """Cost matrices of maximum one: random assignment, digits under two costs, clouds."""
    small = quick or None
    for make, weak in (
        (partial(lap, 100 if small else 500), (100, 1200)),
        (partial(digits_pair, 2, 1 if small else 3), (100, 1200)),
        (partial(digits_pair, 1, 1 if small else 3), (100, 1200)),
        (partial(cloud, 100 if small else 1000), (100, 1000, 5000)),
    ):
        problem = make(xp=npx)
        for w in weak[:1] if quick else weak:
            yield _problem("stored", problem, 1 / w, 1e-9)


def clouds(quick: bool) -> Iterator[Problem]:
    """Uniform points in the unit square and cube, costs ``|x - y|^2`` that no solver that can do without may store."""
    for d, regs in ((2, (1e-2, 1e-3)), (3, (1e-2, 2e-3))):
        problem = cloud(100 if quick else 1500, d, normalise=False, xp=npx)
        for reg in regs[:1] if quick else regs:
            yield _problem("cloud", problem, reg, 1e-6)


def grids(quick: bool) -> Iterator[Problem]:
    """Digits as images: the cost is a sum over the axes."""
    for p, weak in ((2, (100, 1200)), (1, (100,))):
        problem = digits_pair(p, 1 if quick else 4, xp=npx)
        side = math.isqrt(problem.cost.shape[0])
        for w in weak[:1] if quick else weak:
            yield _problem(
                "grid", problem, 1 / w, 1e-9, sides=(side, side), spacing=problem.scale ** (-1 / p)
            )  # fmt: skip


def robust(quick: bool) -> Iterator[Problem]:
    """The robustness set at four regularisations."""
    chosen = robustness_set(xp=npx)
    for problem in chosen[-1:] if quick else chosen:
        for w in (50, 1e3, 1e4, 1e5):
            yield _problem("robustness", problem, 1 / w, 1e-9)

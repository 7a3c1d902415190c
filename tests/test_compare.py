"""The comparison with other libraries: equal problems in equal gauges, one error for all, and rows for what fails."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import array_api_compat.numpy as npx
import numpy as np
import pytest
from xpsolve.problems import cloud
from xpsolve.solvers.ot import newton, unbalanced

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import __main__ as command
from benchmarks import compare_ot, compare_ot_problems, compare_ot_relaxed, compare_ot_solvers
from benchmarks.compare_ot_problems import Answer, Problem, Solver, plan_of, quiet

# GeomLoss with KeOps compiles for many seconds, its solver of grids is not finished, and OTT's batches do not run with every
# JAX: the comparison has rows that say so.
CLOUDS = [solver for solver in compare_ot_solvers.cloud_solvers() if not solver.name.endswith(("KeOps", "batches"))]
GRIDS = [solver for solver in compare_ot_solvers.grid_solvers() if "solve_grid" not in solver.name]


@pytest.fixture
def easy() -> Problem:
    """Uneven weights and different shapes, so that a gauge that is off by the weights shows."""
    rng = np.random.default_rng(0)
    p = cloud(20, xp=npx)
    a, b = rng.random(20) + 0.1, rng.random(15) + 0.1
    C = ((p.x[:, None] - p.y[:15]) ** 2).sum(axis=2)
    return Problem("stored", "easy", C, a / a.sum(), b / b.sum(), 0.2, 1e-8, p.x, p.y[:15].copy())


def answer(solver: Solver, problem: Problem, limit: int) -> Answer:
    try:
        with quiet():
            return solver.prepare(problem, limit, 5.0)()
    except ImportError as err:
        pytest.skip(f"not installed: {err}")


def plan(problem: Problem, found: Answer) -> np.ndarray:
    if found.plan is not None:
        return np.asarray(found.plan)
    return plan_of(problem.C, problem.a, problem.b, np.asarray(found.f), np.asarray(found.g), problem.reg)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", compare_ot_solvers.stored_solvers(), ids=lambda s: s.name)
def test_plans_on_a_cost_matrix_agree(solver: Solver, easy: Problem) -> None:
    exact = newton(easy.C, easy.a, easy.b, reg=easy.reg, tol=1e-12).dense_plan()
    found = answer(solver, easy, 500)
    # GeomLoss walks through its schedule and stops; a wrong gauge is wrong by a tenth and more.
    tolerance = 5e-3 if "GeomLoss" in solver.name else 1e-7
    assert np.abs(plan(easy, found) - exact).sum() <= tolerance
    assert easy.error(found) <= tolerance


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", CLOUDS, ids=lambda s: s.name)
def test_plans_between_points_agree(solver: Solver, easy: Problem) -> None:
    exact = newton(easy.C, easy.a, easy.b, reg=easy.reg, tol=1e-12).dense_plan()
    tolerance = 5e-3 if "GeomLoss" in solver.name else 1e-7
    assert np.abs(plan(easy, answer(solver, easy, 500)) - exact).sum() <= tolerance


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", GRIDS, ids=lambda s: s.name)
def test_plans_on_a_grid_agree(solver: Solver) -> None:
    for problem in compare_ot_problems.grids(True):
        exact = newton(problem.C, problem.a, problem.b, reg=problem.reg, tol=1e-12).dense_plan()
        assert np.abs(plan(problem, answer(solver, problem, 10_000)) - exact).sum() <= 1e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", compare_ot_relaxed.relaxed_solvers(), ids=lambda s: s.name)
def test_relaxed_plans_agree(solver: Solver, easy: Problem) -> None:
    problem = replace(easy, a=1.3 * easy.a, reg_a=0.5, reg_b=0.5)
    options: dict[str, Any] = {"reg": problem.reg, "reg_a": 0.5, "reg_b": 0.5, "tol": 1e-12}
    exact = unbalanced(problem.C, problem.a, problem.b, **options).plan @ np.eye(15)
    found = answer(solver, problem, 500)
    tolerance = 5e-3 if "GeomLoss" in solver.name else 1e-7
    assert np.abs(plan(problem, found) - exact).sum() <= tolerance
    assert problem.error(found) <= tolerance


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", compare_ot_relaxed.divergence_solvers(), ids=lambda s: s.name)
def test_divergences_agree(solver: Solver) -> None:
    for problem in compare_ot_relaxed.divergences(True):
        assert problem.error(answer(solver, problem, 500)) <= 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("solver", compare_ot_relaxed.mean_solvers(), ids=lambda s: s.name)
def test_barycenters_agree(solver: Solver) -> None:
    plain, debiased = list(compare_ot_relaxed.means(True))[:2]
    assert plain.error(answer(solver, plain, 1000)) <= 1e-6
    # OTT's debiased barycenter is another one; POT's is ours.
    if "OTT" not in solver.name:
        assert debiased.error(answer(solver, debiased, 1000)) <= 1e-4


def test_the_error_counts_both_marginals_over_the_mass() -> None:
    P = np.asarray([[0.3, 0.1], [0.0, 0.6]])
    assert compare_ot_problems.violation(P, P.sum(axis=1), P.sum(axis=0)) <= 1e-15
    off = compare_ot_problems.violation(2 * P, 2 * P.sum(axis=1), P.sum(axis=0))
    assert off == pytest.approx(1.0 / 1.5)
    assert compare_ot_problems.violation(P * np.nan, P.sum(axis=1), P.sum(axis=0)) == np.inf
    relaxed = compare_ot_problems.violation(
        P, P.sum(axis=1) * np.e, P.sum(axis=0), np.full(2, 2.0), np.zeros(2), 2.0, 1.0
    )
    assert relaxed <= 1e-15


def test_cells_say_what_happened(easy: Problem) -> None:
    good = newton(easy.C, easy.a, easy.b, reg=easy.reg, tol=1e-10)

    def arrives(problem: Problem, limit: int, seconds: float) -> Any:
        shift = 0.0 if limit >= 1000 else 0.1
        return lambda: Answer(f=good.f + shift, g=good.g, iterations=min(limit, 700))

    def missing(problem: Problem, limit: int, seconds: float) -> Any:
        raise ModuleNotFoundError("No module named 'peer'")

    def breaks(problem: Problem, limit: int, seconds: float) -> Any:
        raise ValueError("no")

    def gives_up(problem: Problem, limit: int, seconds: float) -> Any:
        return lambda: Answer(f=good.f + 0.1, g=good.g, iterations=7)

    solvers = [
        Solver("xpsolve", gives_up),
        Solver("peer:late", arrives),
        Solver("peer:absent", missing),
        Solver("peer:broken", breaks),
        Solver("peer:idle", gives_up),
    ]
    ours, late, absent, broken, idle = compare_ot.race(easy, solvers, 5.0)
    assert not ours["reached"]
    assert late["reached"]
    # What we missed and a peer reached is a loss, though there is no ratio.
    assert late["verdict"] == "loss"
    assert late["ratio"] is None
    assert late["limit"] >= 1000
    assert "not installed" in absent["note"]
    assert "ValueError: no" in broken["note"]
    assert "stopped by itself" in idle["note"]
    assert not idle["reached"]


def test_limits_grow_and_are_round() -> None:
    assert [compare_ot._rounded(x) for x in (10, 10.1, 21, 100, 3001, 700)] == [10, 20, 30, 100, 5000, 1000]


@pytest.mark.filterwarnings("ignore")
def test_the_command_writes_page_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense(problem: Problem, limit: int, seconds: float) -> Any:
        return lambda: Answer(plan=problem.C * np.nan, iterations=1)

    two = (Solver("xpsolve", compare_ot_solvers._ours(newton)), Solver("peer:nonsense", nonsense))
    monkeypatch.setattr(compare_ot_solvers, "stored_solvers", lambda: two)
    monkeypatch.setitem(compare_ot.FAMILIES, "stored", (*compare_ot.FAMILIES["stored"][:2], lambda: two, 1.0, "Text."))
    monkeypatch.setattr(command, "limit_threads", lambda _: None)
    monkeypatch.setattr(command, "pin_to_one_core", lambda: None)
    out, results = tmp_path / "page", tmp_path / "rows.json"
    command.main(
        ["compare", "--quick", "--seconds", "0.2", "--families", "stored,robustness", "--out", str(out), "--results",
         str(results)]
    )  # fmt: skip
    content = json.loads(results.read_text(encoding="utf-8"))
    assert {"cpu", "commit", "versions"} <= content["machine"].keys()
    assert {row["impl"] for row in content["rows"]} == {solver.name for solver in two}
    assert {row["family"] for row in content["rows"]} == {"stored", "robustness"}
    assert all(row["reached"] for row in content["rows"] if row["impl"] == "xpsolve")
    assert all(row["error"] is None and "not finite" in row["note"] for row in content["rows"] if not row["reached"])
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Transport on a cost matrix" in page
    assert "data:image/png;base64," in page
    assert "4 of 4 at 1e-09" in (out / "report.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        command.main(["compare", "--families", "no such"])

"""Every family of transport problems in every hand that can do it: ``python -m benchmarks compare``.

A cell is one solver on one problem: seconds of process CPU time on one thread, the error of its answer by one function of ours
in float64 (`compare_ot_problems.violation`), its iterations, and whether it reached the error asked for. A cell that does not
arrive gets between one and two times a number of seconds: our solvers have a time limit of twice that number, and a peer, which
has none, is called with a limit of iterations that grows from call to call until it arrives, stops by itself, or its last call
took that long; the seconds are those of its last call. Loading, compiling and reordering of memory are outside the clock. A
peer that is missing or raises is a row that says so.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from . import compare_ot_problems as problems_of
from . import compare_ot_relaxed as more
from . import compare_ot_solvers as solvers_of
from .compare_ot_problems import Answer, Problem, Run, Solver, quiet
from .machine import describe
from .report import complete, write

Row = dict[str, Any]
# Rounding of the potentials: a solver that stops at the tolerance has reached it.
SLACK = 1.05
CLOCK = (
    "Seconds are CPU time of the process on one core, of the run that reached the error wanted, or of the last run where none did; "
    "loading and compiling are outside. The errors of all solvers are measured by one function in float64."
)

FAMILIES: dict[str, tuple[str, Callable[[bool], Iterator[Problem]], Callable[[], tuple[Solver, ...]], float, str]] = {
    "stored": (
        "Transport on a cost matrix", problems_of.stored, solvers_of.stored_solvers, 1.0,
        "Costs of maximum one, float64. The error is the L1 violation of both marginals.",
    ),
    "cloud": (
        "Transport between points, nothing stored", problems_of.clouds, solvers_of.cloud_solvers, 1.5,
        "Uniform points, cost |x-y|^2, float64; rows that say matrix store it. The error is the L1 violation of both marginals.",
    ),
    "grid": (
        "Transport between images", problems_of.grids, solvers_of.grid_solvers, 1.5,
        "Digits of 32 x 32 pixels (quick: 8 x 8), the cost a sum over the axes (POT has none); error: L1, both marginals.",
    ),
    "unbalanced": (
        "Unbalanced transport (KL)", more.relaxed, more.relaxed_solvers, 1.0,
        "Clouds of masses 1.3 and 1. The error is the L1 violation of the optimality conditions on both marginals over the mass.",
    ),
    "divergence": (
        "Sinkhorn divergences", more.divergences, more.divergence_solvers, 1.0,
        "The error is that of the value, relative; the truth is a formula for the translated cloud, else our value to rounding.",
    ),
    "barycenter": (
        "Barycenters on a fixed support", more.means, more.mean_solvers, 1.0,
        "The error is the L1 distance to the barycenter that our solver converges to, with which the peers agree.",
    ),
}  # fmt: skip


def run_comparison(
    families: Iterable[str], *, quick: bool = False, seconds: float = 1.0, out: str | Path = "report/compare",
    results: str | Path | None = None,
) -> Path:  # fmt: skip
    """Run the families (and ``"robustness"``), write page, Markdown and JSON into ``out``; returns the page.

    Parameters
    ----------
    families : iterable of str
        Names of `FAMILIES`, and ``"robustness"``.
    quick : bool
        One small problem a family: to see that everything runs.
    seconds : float
        For a cell that does not arrive (see above); some families have a multiple, the robustness set a third.
    out, results
        Folder of the page; file for the bare rows.
    """
    from tqdm import tqdm

    start, sections, rows = time.perf_counter(), [], []
    with tqdm(list(families), unit="family") as bar:
        for family in bar:
            bar.set_description(family)
            begun = time.perf_counter()
            section = robustness(quick, seconds / 3) if family == "robustness" else compare(family, quick, seconds)
            rows += section.pop("rows")
            sections.append(section | {"wall_seconds": round(time.perf_counter() - begun, 1)})
    machine, wall = describe(), round(time.perf_counter() - start, 1)
    if results is not None:
        # JSON knows no infinity: an answer that is not finite has no error, and a note.
        plain = [
            row if row["error"] != math.inf else row | {"error": None, "note": f"not finite; {row['note']}"}
            for row in rows
        ]
        clock = "process CPU time, one core; see benchmarks/compare_ot.py"
        content = {"machine": machine, "clock": clock, "seconds_a_cell": seconds, "quick": quick, "rows": plain}
        Path(results).parent.mkdir(parents=True, exist_ok=True)
        Path(results).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    content = {
        "title": "Optimal transport beside other libraries", "clock": CLOCK, "machine": machine, "backend": "numpy",
        "quick": quick, "seconds": wall, "sections": sections,
    }  # fmt: skip
    return write(content, Path(out))


def compare(family: str, quick: bool, seconds: float) -> dict[str, Any]:
    """The section of one family."""
    title, problems, solvers, share, text = FAMILIES[family]
    warm(problems, solvers())
    rows = [row for problem in problems(quick) for row in race(problem, solvers(), share * seconds)]
    text += (
        f" A cell that does not arrive gets {share * seconds:g} to {2 * share * seconds:g} s. The ratio stands where both sides "
        "reached the error wanted; a peer that reached it where xpsolve did not is a loss without a ratio."
    )
    return _section(family, title, text, rows)


def warm(problems: Callable[[bool], Iterator[Problem]], solvers: Iterable[Solver]) -> None:
    """Every solver once on a small problem, so that what is loaded at a first call is loaded."""
    problem = next(problems(True))
    for solver in solvers:
        with quiet(), contextlib.suppress(Exception):
            solver.prepare(problem, 10, 1.0)()


def race(problem: Problem, solvers: Iterable[Solver], seconds: float) -> list[Row]:
    """One row per solver; the first is ours, and the ratios are to its time."""
    rows = [measure(problem, solver, seconds) for solver in solvers]
    ours = rows[0]
    for row in rows[1:]:
        if row["reached"] and ours["reached"]:
            row["ratio"] = row["seconds"] / ours["seconds"]
        elif row["reached"] and row["impl"].startswith("peer:"):
            row["verdict"] = "loss"
            row["note"] = f"xpsolve missed this error. {row['note']}"
    return rows


def measure(problem: Problem, solver: Solver, seconds: float) -> Row:
    """One cell: limits of iterations grow until the error is reached or the time is used up."""
    row: Row = {
        "family": problem.family, "problem": problem.name, "size": problem.size, "impl": solver.name, "seconds": None,
        "ratio": None, "error": None, "wanted": problem.wanted, "reached": False, "iterations": None, "note": "",
    }  # fmt: skip
    limit = solver.most if solver.ours else min(solver.first, solver.most)
    spent, answer, failure = math.inf, Answer(), ""
    while True:
        try:
            with quiet():
                run = solver.prepare(problem, limit, 2 * seconds)
                spent, answer = clocked(run)
                error = problem.error(answer)
        except ImportError as err:
            return row | {"note": f"not installed ({err})"}
        except Exception as err:
            failure = f"failed with at most {limit} iterations: {type(err).__name__}: {str(err)[:120]}"
            break
        reached = error <= SLACK * problem.wanted
        row |= {"seconds": spent, "error": error, "iterations": answer.iterations, "reached": reached, "limit": limit}
        by_itself = answer.iterations is not None and answer.iterations < limit
        if reached or by_itself or solver.ours or limit >= solver.most or spent >= seconds:
            break
        limit = min(_rounded(limit * min(seconds / spent, 30.0)), solver.most)
    if not failure and spent < seconds / 8:
        with quiet():
            row["seconds"] = min(clocked(run)[0] for _ in range(3))
    row["note"] = _note(row, answer, failure)
    return row


def clocked(run: Run) -> tuple[float, Answer]:
    """Process CPU time of one call, and what it returned."""
    start = time.process_time()
    answer = run()
    return time.process_time() - start, answer


def _rounded(limit: float) -> int:
    """1, 2, 3 or 5 and zeros, at least ``limit``: some peers compile for each, and some count in tens."""
    unit = 10 ** int(math.log10(limit))
    return next(k for k in (1, 2, 3, 5, 10) if k * unit >= limit) * unit


def _note(row: Row, answer: Answer, failure: str) -> str:
    words = [answer.note] if answer.note else []
    if failure:
        words.append(failure if row["seconds"] is None else f"the answer before it {failure}")
    elif not row["reached"]:
        how = ""
        if not row["impl"].startswith("xpsolve"):
            stopped = row["iterations"] is not None and row["iterations"] < row["limit"]
            how = ", stopped by itself" if stopped else f" with at most {row['limit']} iterations"
        words.append(f"missed {row['wanted']:g}{how}")
    return "; ".join(words)


def robustness(quick: bool, seconds: float) -> dict[str, Any]:
    """The robustness set: one line a solver in the table, one cell a problem and solver in the picture and the text."""
    solvers = solvers_of.stored_solvers()
    warm(problems_of.robust, solvers)
    problems = list(problems_of.robust(quick))
    rows = [row for problem in problems for row in race(problem, solvers, seconds)]
    of = {solver.name: [row for row in rows if row["impl"] == solver.name] for solver in solvers}
    table = []
    for name, found in of.items():
        reached = sum(row["reached"] for row in found)
        timed = [row["seconds"] for row in found if row["seconds"] is not None]
        note = f"{reached} of {len(found)} at {problems[0].wanted:g}"
        raised = [row["note"] for row in found if "failed" in row["note"]]
        note += f"; {len(raised)} raised" if raised else ""
        missing = found[0]["note"] if not timed else ""
        table.append(
            {"problem": "robustness set", "size": f"{len(found)} problems", "impl": name,
             "seconds": sum(timed) if timed else None, "error": max((row["error"] for row in found if timed and
             row["error"] is not None), default=None), "note": missing or note}
        )  # fmt: skip
    text = (
        f"Ten problems at four regularisations. A cell that does not arrive gets {seconds:.2g} to {2 * seconds:.2g} s. The seconds "
        "of the table are those of all cells, reached or not, the error is the worst of them. In the picture and the text below "
        "a cell gives the seconds where the error was reached."
    )
    names = [f"{p.name}, 1/reg={1 / p.reg:g}" for p in problems]
    cells = [[_cell(of[s.name][i]) for s in solvers] for i in range(len(problems))]
    section = _section("robustness", "Robustness", text, table)
    return section | {
        "rows": rows,
        "figures": [
            (
                "Green: seconds to the error wanted. Orange, in brackets: the error that was reached instead. Yellow: no answer",
                _picture(names, of),
            )
        ],
        "plan": _text(names, [s.name for s in solvers], cells),
        "plan_title": "Robustness set: seconds, or in brackets the error that was reached instead",
    }


def _cell(row: Row) -> str:
    if row["seconds"] is None:
        return "failed" if "failed" in row["note"] else "absent"
    return f"{row['seconds']:.2g}" if row["reached"] else f"({row['error']:.0e})"


def _text(names: list[str], columns: list[str], cells: list[list[str]]) -> str:
    """A plain table: solvers by number, for their names are long."""
    head = "".join(f"{k:>10}" for k in range(1, len(columns) + 1))
    lines = [f"{k:>3}  {name}" for k, name in enumerate(columns, 1)] + ["", " " * 30 + head]
    lines += [f"{name:30}" + "".join(f"{cell:>10}" for cell in line) for name, line in zip(names, cells, strict=True)]
    return "\n".join(lines)


def _picture(names: list[str], of: dict[str, list[Row]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 0.75 * len(of), 1.5 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    shades = [
        [1.0 if row["reached"] else 0.5 if row["seconds"] is None else 0.0 for row in rows] for rows in of.values()
    ]
    axes.imshow(list(zip(*shades, strict=True)), cmap="RdYlGn", vmin=-0.6, vmax=1.6, aspect="auto")
    for column, rows in enumerate(of.values()):
        for line, row in enumerate(rows):
            axes.text(column, line, _cell(row), ha="center", va="center", fontsize=6)
    axes.set_xticks(range(len(of)), [name.removeprefix("peer:") for name in of], rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    return figure


def _section(family: str, title: str, text: str, rows: list[Row]) -> dict[str, Any]:
    return {
        "family": family, "title": title, "text": text, "table": [complete(row) for row in rows], "figures": [],
        "plan": "", "traceback": "", "rows": rows,
    }  # fmt: skip

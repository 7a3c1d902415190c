"""The report: run the families' jobs, and write what came out as one HTML page, a Markdown table and JSON."""

from __future__ import annotations

import base64
import io
import json
import math
import time
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from .machine import describe

FAMILIES = ("pairs", "linear", "ot", "kde")
COLUMNS = ("problem", "size", "impl", "seconds", "ratio", "error", "iterations", "note")
# What the head of the page says of its seconds; a section that measures otherwise says so.
CLOCK = (
    "Seconds are CPU time of the process, the smallest of several runs in turn with the peers', unless a section says otherwise; "
    "every row carries the error of its own answer."
)
TITLES = {
    "pairs": "Reductions over pairs",
    "linear": "Linear systems",
    "ot": "Optimal transport",
    "kde": "Kernel densities",
}

Job = Callable[..., dict[str, Any]]
Row = dict[str, Any]


def run_report(
    families: Iterable[str] = FAMILIES,
    *,
    backend: str = "numpy",
    quick: bool = False,
    out: str | Path = "report",
    jobs: dict[str, Job] | None = None,
) -> Path:
    """Run the jobs of ``families`` and write ``index.html``, ``report.md`` and ``report.json`` into ``out``.

    A job that raises becomes a row that says so: a report is written whatever happens.
    """
    from tqdm import tqdm

    start, sections = time.perf_counter(), []
    with tqdm(list(families), unit="family") as bar:
        for family in bar:
            bar.set_description(family)
            sections.append(run_job(family, quick, backend, (jobs or {}).get(family)))
    content = {
        "title": "xpsolve report",
        "clock": CLOCK,
        "machine": describe(),
        "backend": backend,
        "quick": quick,
        "seconds": round(time.perf_counter() - start, 1),
        "sections": sections,
    }
    return write(content, Path(out))


def run_job(family: str, quick: bool, backend: str, job: Job | None = None) -> dict[str, Any]:
    """The section of one family; an error in the job becomes its only row."""
    start = time.perf_counter()
    try:
        job = job or (run_pairs if family == "pairs" else import_module(f".jobs.{family}", __package__).run)
        section = {"title": TITLES.get(family, family), "figures": [], "text": "", "plan": "", "table": []} | {
            "traceback": ""
        }
        section |= job(quick, backend)
    except Exception as err:
        note = f"failed: {type(err).__name__}: {err}"
        section = {
            "title": TITLES.get(family, family),
            "table": [{"problem": family, "size": "", "impl": "xpsolve", "note": note}],
            "figures": [],
            "text": "",
            "plan": "",
            "traceback": traceback.format_exc(),
        }
    section["family"] = family
    section["table"] = [complete(row) for row in section["table"]]
    section["wall_seconds"] = round(time.perf_counter() - start, 1)
    return section


def complete(row: Row) -> Row:
    """A row with every column, and the verdict on its ratio (peer's time over ours: above 1 we win)."""
    full = {name: row.get(name) for name in COLUMNS}
    full["note"] = full["note"] or ""
    ratio = full["ratio"]
    if ratio is not None and not (math.isfinite(ratio) and ratio > 0):
        ratio = full["ratio"] = None
    peer = str(full["impl"]).startswith("peer:")
    full["verdict"] = "" if ratio is None or not peer else "win" if ratio > 1.05 else "loss" if ratio < 0.95 else "even"
    # A peer may have solved what we did not: a loss that has no ratio.
    full["verdict"] = row.get("verdict") or full["verdict"]
    if full["seconds"] is None and not full["verdict"]:
        full["verdict"] = "failed" if str(full["note"]).startswith("failed") else "absent"
    return full


def run_pairs(quick: bool, backend: str) -> dict[str, Any]:
    """The family "pairs": the table of `cases`, every implementation interleaved with ours."""
    from xpsolve.backends.pairs import Pairs, gaussian

    from .cases import cases_of, to_backend

    rows: list[Row] = []
    plans = {}
    for case in cases_of("pairs", quick):
        rows += measure_case(case, backend, repeats=3 if quick else 7)
        if "sum" in case.problem and "h" in case.data():
            data = case.data()
            x, y = to_backend(data["x"], backend), to_backend(data["y"], backend)
            plans[case.size] = Pairs(x, y, gaussian(data["h"]), threads=1, passes=1).plan().describe()
    text = (
        "Errors are relative to the largest entry of a direct float64 computation. Times exclude the first call (compilation); "
        "the note gives it when it is long. Rows named xpsolve with an engine are ours with that engine forced."
    )
    plan = "\n".join(f"{size}: {words}" for size, words in plans.items())
    return {"title": TITLES["pairs"], "table": rows, "figures": [], "text": text, "plan": plan}


def measure_case(case: Any, backend: str, repeats: int) -> list[Row]:
    """One row per implementation of ``case``; a peer that is missing or raises is a row that says so."""
    from .timing import interleaved

    data = case.data() | {"backend": backend}
    ready, rows = {}, {}
    for name, prepare in case.implementations.items():
        if name.startswith("xpsolve, ") and backend != "numpy":
            continue  # an engine for NumPy arrays
        row = rows[name] = {"problem": case.problem, "size": case.size, "impl": name, "note": ""}
        start = time.perf_counter()
        try:
            run = prepare(data)
            run()
        except ImportError as err:
            row["note"] = f"{'failed' if name == 'xpsolve' else 'not installed'} ({err})"
        except Exception as err:
            row["note"] = f"failed: {type(err).__name__}: {err}"
        else:
            ready[name] = run
            first = time.perf_counter() - start
            row["note"] = f"first call {first:.1f} s" if first > 1 else ""
    measured = interleaved(ready, repeats) if ready else {}
    base = measured.get("xpsolve", (None, None))[0]
    for name, (seconds, answer) in measured.items():
        try:
            error = case.error(data, answer)
        except Exception as err:
            rows[name]["note"], error = f"answer of the wrong kind: {err}", math.inf
        rows[name] |= {"seconds": seconds, "ratio": seconds / base if base else None, "error": error}
        if not error <= case.tolerance:
            rows[name]["note"] += f" WRONG: error above {case.tolerance:g}"
            if name == "xpsolve":  # the time of a wrong answer is nothing to compare with
                rows[name]["verdict"], base = "failed", None
    return list(rows.values())


# -- writing ---------------------------------------------------------------------------------------------------------


def write(content: dict[str, Any], out: Path) -> Path:
    """Write the three files; returns the path of the page."""
    out.mkdir(parents=True, exist_ok=True)
    plain = content | {
        "sections": [
            {key: value for key, value in section.items() if key != "figures"} for section in content["sections"]
        ]
    }
    (out / "report.json").write_text(json.dumps(plain, indent=1, default=_plain) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(content), encoding="utf-8")
    page = out / "index.html"
    page.write_text(html(content), encoding="utf-8")
    return page


def _plain(value: Any) -> Any:
    """NumPy scalars and whatever else JSON does not know."""
    return value.item() if hasattr(value, "item") else str(value)


def markdown(content: dict[str, Any]) -> str:
    """The tables as Markdown."""
    machine = content["machine"]
    lines = [
        f"# {content['title']}",
        "",
        f"{machine['device']}, cores: {machine['cores']}, threads: {machine['threads']}, commit {machine['commit']}.",
        f"{machine['date']}, backend {content['backend']}{', quick' if content['quick'] else ''}.",
        "",
        "The ratio is the row's time over that of the row xpsolve: of a peer, above 1 xpsolve is faster, below 1 it loses.",
        content["clock"],
    ]
    for section in content["sections"]:
        lines += ["", f"## {section['title']}", ""]
        lines += [str(section["text"]), ""] if section["text"] else []
        lines += ["| " + " | ".join(COLUMNS) + " | verdict |", "|" + " --- |" * (len(COLUMNS) + 1)]
        for row in section["table"]:
            cells = [show(row[name]) for name in COLUMNS] + [row["verdict"].upper()]
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
        if section["plan"]:
            lines += ["", "```text", str(section["plan"]), "```"]
    lines += ["", "Versions: " + ", ".join(f"{name} {v}" for name, v in machine["versions"].items()), ""]
    return "\n".join(lines)


def show(value: Any) -> str:
    """A cell: three digits for numbers, nothing for nothing."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) or hasattr(value, "dtype") else str(value)


def html(content: dict[str, Any]) -> str:
    """The self-contained page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["show"] = show
    sections = [
        section | {"chart": chart(section["table"]), "pictures": [(c, picture(f)) for c, f in section["figures"]]}
        for section in content["sections"]
    ]
    verdicts = [row["verdict"] for section in sections for row in section["table"]]
    count = {word: verdicts.count(word) for word in ("win", "loss", "even", "absent", "failed")}
    return environment.get_template("template.html").render(content | {"sections": sections, "count": count})


def picture(figure: Any) -> str:
    """A matplotlib figure as a data URI (PNG)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def chart(table: list[Row]) -> str:
    """Ratios to the peers as bars around 1 on a logarithmic axis (inline SVG); losses in red."""
    from matplotlib.figure import Figure

    rows = [row for row in table if row["verdict"] in {"win", "loss", "even"} and row["ratio"] is not None]
    if not rows:
        return ""
    figure = Figure(figsize=(9, 0.6 + 0.3 * len(rows)))
    axes = figure.subplots()
    colours = {"win": "#2a7f62", "loss": "#c0392b", "even": "#8a8f98"}
    logs = [math.log10(row["ratio"]) for row in rows]
    axes.barh(range(len(rows)), logs, color=[colours[row["verdict"]] for row in rows], height=0.7)
    axes.axvline(0, color="#333", linewidth=1)
    for place, (row, value) in enumerate(zip(rows, logs, strict=True)):
        axes.annotate(
            f"{row['ratio']:.2g}x", (value, place), xytext=(4 if value >= 0 else -4, 0), textcoords="offset points",
            va="center", ha="left" if value >= 0 else "right", fontsize=8,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [f"{r['problem']}, {r['size']}: {r['impl'].removeprefix('peer:')}" for r in rows],
                    fontsize=8)  # fmt: skip
    axes.invert_yaxis()
    low, high = min(0.0, *logs) - 0.35, max(0.0, *logs) + 0.35
    axes.set_xlim(low, high)
    ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000) if low <= math.log10(t) <= high]
    axes.set_xticks([math.log10(t) for t in ticks], [f"{t:g}" for t in ticks])
    axes.set_xlabel("peer's time / xpsolve's time (above 1: xpsolve is faster)", fontsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]

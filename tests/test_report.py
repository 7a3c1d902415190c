"""The report is written whatever the jobs do, and says what happened."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report


def _job(quick: bool, backend: str) -> dict[str, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 0.1])
    rows = [
        {
            "problem": "p",
            "size": "n=3",
            "impl": "xpsolve",
            "seconds": 0.5,
            "ratio": 1.0,
            "error": 1e-9,
            "iterations": 7,
        },
        {"problem": "p", "size": "n=3", "impl": "peer:fast", "seconds": 0.25, "ratio": 0.5, "error": 2e-9},
        {"problem": "p", "size": "n=3", "impl": "peer:slow", "seconds": 5.0, "ratio": 10.0, "error": 3e-9},
        {"problem": "p", "size": "n=3", "impl": "peer:gone", "note": "not installed (No module named 'gone')"},
    ]
    return {
        "title": "Fake <job>",
        "table": rows,
        "figures": [("a curve", figure)],
        "text": "One.\n\nTwo.",
        "plan": "tiles",
    }


def _failing(quick: bool, backend: str) -> dict[str, Any]:
    raise RuntimeError("the <disk> is full")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    page = report.run_report(["linear", "kde"], quick=True, out=out, jobs={"linear": _job, "kde": _failing})
    assert page == out / "index.html"
    return out


def test_page_is_self_contained_and_shows_losses(written: Path) -> None:
    page = (written / "index.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "<svg" in page
    assert "(loss)" in page
    assert "not installed" in page
    assert "Fake &lt;job&gt;" in page
    assert "RuntimeError: the &lt;disk&gt; is full" in page
    assert "<script" not in page
    assert 'src="http' not in page


def test_json_holds_every_row_and_the_machine(written: Path) -> None:
    content = json.loads((written / "report.json").read_text(encoding="utf-8"))
    first, second = content["sections"]
    assert [row["verdict"] for row in first["table"]] == ["", "loss", "win", "absent"]
    assert first["plan"] == "tiles"
    assert "failed: RuntimeError" in second["table"][0]["note"]
    assert {"cpu", "commit", "versions"} <= content["machine"].keys()
    assert content["machine"]["versions"]["numpy"]


def test_markdown_names_losses(written: Path) -> None:
    text = (written / "report.md").read_text(encoding="utf-8")
    assert "| LOSS |" in text
    assert "| ABSENT |" in text
    assert "| FAILED |" in text


def test_a_peer_that_is_missing_or_fails_is_a_row() -> None:
    pytest.importorskip("benchmarks.timing")
    import numpy as np

    from benchmarks.cases import Case

    def missing(data: dict[str, Any]) -> Any:
        raise ModuleNotFoundError("No module named 'peer'")

    def broken(data: dict[str, Any]) -> Any:
        raise ValueError("no")

    implementations = {
        "xpsolve": lambda data: lambda: np.ones(2),
        "peer:wrong": lambda data: lambda: np.zeros(2),
        "peer:missing": missing,
        "peer:broken": broken,
    }
    error = lambda data, answer: float(np.max(np.abs(answer - 1)))  # noqa: E731
    case = Case("pairs", "ones", "2", dict, implementations, 1e-6, error)
    ours, wrong, absent, failed = (report.complete(row) for row in report.measure_case(case, "numpy", repeats=2))
    assert ours["error"] == 0
    assert "WRONG" in wrong["note"]
    assert (absent["verdict"], failed["verdict"]) == ("absent", "failed")
    assert "not installed" in absent["note"]
    assert "ValueError: no" in failed["note"]


def test_a_wrong_answer_of_ours_wins_nothing() -> None:
    from benchmarks.cases import Case

    implementations = {"xpsolve": lambda data: lambda: 0.0, "peer:right": lambda data: lambda: 1.0}
    case = Case("pairs", "one", "1", dict, implementations, 1e-6, lambda data, answer: abs(answer - 1))
    ours, peer = (report.complete(row) for row in report.measure_case(case, "numpy", repeats=1))
    assert (ours["verdict"], peer["verdict"], peer["ratio"]) == ("failed", "", None)


def test_case_table_has_ids_and_unique_groups() -> None:
    from benchmarks.cases import all_cases

    cases = all_cases()
    assert len({case.group for case in cases}) == len(cases)
    for case in cases:
        first, *peers = case.implementations
        assert first == "xpsolve"
        assert peers
        assert all(name.startswith(("peer:", "xpsolve, ")) for name in peers)
    assert {case.family for case in cases if case.quick} == set(report.FAMILIES)

"""The figures' command line and bookkeeping: what is measured by hand elsewhere must at least add up."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import __main__ as command
from benchmarks import figures, figures_linear, figures_strict
from benchmarks.figures_linear_precond import poisson


def test_every_family_has_its_figures() -> None:
    numbers = [n for of in command.FIGURE_FAMILIES.values() for n in of]
    assert sorted(numbers) == sorted(figures.FIGURES)
    for n, modules in figures._OTHERS.items():
        for module in modules:
            assert hasattr(importlib.import_module(f"benchmarks.{module}"), f"figure_{n}")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], [n for of in command.FIGURE_FAMILIES.values() for n in of]),
        (["--families", "linear"], list(command.FIGURE_FAMILIES["linear"])),
        (["--families", "ground", "--only", "20,5"], [20, 5]),
        (["--families", "no such"], None),
        (["--only", "99"], None),
    ],
)
def test_families_and_numbers_are_chosen(
    arguments: list[str], wanted: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    monkeypatch.setattr(figures, "run_figures", lambda numbers, out, repeats: seen.append(numbers))
    monkeypatch.setattr(command, "limit_threads", lambda _: None)
    monkeypatch.setattr(command, "pin_to_one_core", lambda: None)
    if wanted is None:
        with pytest.raises(SystemExit):
            command.main(["figures", *arguments])
        assert not seen
    else:
        command.main(["figures", *arguments])
        assert seen == [wanted]


def test_a_tally_counts_false_claims_only() -> None:
    tally = figures_linear.Tally()
    for claimed, ratio, suits in ((True, 1.0, True), (True, 1.02, True), (True, np.nan, False), (False, 9.0, True)):
        tally.add("s", claimed, ratio, suits)
    assert (tally.runs, tally.claims, tally.solved, tally.false, tally.outside) == (4, 3, 1, 2, 1)
    assert tally.worst == np.inf
    assert tally.note().startswith("solved 1 of 4")


def test_counts_of_scipy_are_those_of_the_notes() -> None:
    A, b = poisson(31)
    assert figures_linear.scipy_count("cg", A, b, 1e-8, 1000) == (98, True)
    assert figures_linear.scipy_count("gmres", A, b, 1e-8, 10, restart=5) == (10, False)
    steps: list[Any] = []
    from scipy.sparse.linalg import bicgstab

    bicgstab(A, b, rtol=1e-8, callback=steps.append)
    assert 0 <= figures_linear.scipy_count("bicgstab", A, b, 1e-8, 1000)[0] - len(steps) <= 1


def test_the_diffusion_matrix_is_one() -> None:
    plain = figures_linear.darcy(np.ones((9, 9)))
    np.testing.assert_allclose(plain.toarray(), poisson(7)[0].toarray())
    a = np.exp(np.random.default_rng(0).standard_normal((9, 9)))
    A = figures_linear.darcy(a).toarray()
    np.testing.assert_allclose(A, A.T)
    inner = np.zeros((7, 7), dtype=bool)
    inner[1:-1, 1:-1] = True
    np.testing.assert_allclose(A.sum(axis=1)[inner.ravel()], 0.0, atol=1e-13)
    assert np.linalg.eigvalsh(A)[0] > 0
    between = 2 * a[3, 3] * a[3, 4] / (a[3, 3] + a[3, 4])
    np.testing.assert_allclose(A[2 * 7 + 2, 2 * 7 + 3], -between)


def test_the_strict_library_takes_as_many_steps() -> None:
    pytest.importorskip("array_api_strict")
    rows = list(figures_strict.figure_20(1))
    assert len(rows) >= 50
    assert all(row["met"] for row in rows)

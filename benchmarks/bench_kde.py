"""pytest-benchmark cases of the family kde: ``python -m pytest benchmarks/bench_kde.py``."""

from __future__ import annotations

from typing import Any

import pytest

from .cases import Case, cases_of

PAIRS = [(case, name) for case in cases_of("kde") for name in case.implementations]


@pytest.mark.parametrize(("case", "implementation"), PAIRS, ids=[f"{c.problem}[{c.size}]-{name}" for c, name in PAIRS])
def test_kde(measure: Any, case: Case, implementation: str) -> None:
    """Time and accuracy of one implementation."""
    measure(case, implementation)

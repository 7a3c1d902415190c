"""pytest-benchmark cases of the family linear: ``python -m pytest benchmarks/bench_linear.py``."""

from __future__ import annotations

from typing import Any

import pytest

from .cases import Case, cases_of

PAIRS = [(case, name) for case in cases_of("linear") for name in case.implementations]


@pytest.mark.parametrize(("case", "implementation"), PAIRS, ids=[f"{c.problem}[{c.size}]-{name}" for c, name in PAIRS])
def test_linear(measure: Any, case: Case, implementation: str) -> None:
    """Time and accuracy of one implementation."""
    measure(case, implementation)

"""One thread for everybody, before NumPy is imported, and the one body of every benchmark case."""

from __future__ import annotations

from typing import Any

import pytest

from .machine import limit_threads, pin_to_one_core

limit_threads(1)
# Libraries that start threads of their own share that one core.
pin_to_one_core()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of peers are not failures of ours."""
    for item in items:
        if item.path.name.startswith("bench_"):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture
def measure(benchmark: Any) -> Any:
    """Time one implementation of one case and assert its accuracy in the same test."""

    def run(case: Any, implementation: str) -> None:
        try:
            timed = case.implementations[implementation](case.data())
        except ImportError as err:
            pytest.skip(f"{implementation} is not installed: {err}")
        benchmark.group = case.group
        answer = benchmark.pedantic(timed, rounds=7, iterations=1, warmup_rounds=2)
        error = case.error(case.data(), answer)
        benchmark.extra_info.update(family=case.family, size=case.size, impl=implementation, error=error)
        assert error <= case.tolerance

    return run

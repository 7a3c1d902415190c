"""Comparisons that survive a noisy machine: competitors in turn, CPU time of the process, the minimum of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def interleaved(
    runs: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, tuple[float, Any]]:
    """Call every run ``repeats`` times in turn, after one call that is not counted.

    Returns
    -------
    dict
        Name to (seconds of its fastest call, its last result).
    """
    results = {name: run() for name, run in runs.items()}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            start = clock()
            results[name] = run()
            best[name] = min(best[name], clock() - start)
    return {name: (best[name], results[name]) for name in runs}

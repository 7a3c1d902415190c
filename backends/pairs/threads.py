"""Threads over rows, with BLAS kept to one thread each so that the two do not fight for the cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


def default_threads() -> int:
    """``OMP_NUM_THREADS`` if set, else the processors this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _controller() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


@contextmanager
def _single_threaded_blas() -> Iterator[None]:
    controller = _controller()
    if controller is None:
        yield
        return
    with controller.limit(limits=1, user_api="blas"):
        yield


def over_rows(work: Callable[[int, int], None], n: int, *, step: int, threads: int) -> None:
    """Call ``work(start, stop)`` over row ranges of a multiple of ``step`` rows.

    Without threadpoolctl there is one worker: several would each start BLAS's own threads.
    """
    workers = min(threads, max(1, -(-n // step)))
    if workers == 1 or _controller() is None:
        if threads == 1:
            with _single_threaded_blas():
                work(0, n)
        else:
            work(0, n)
        return
    chunk = -(-n // (4 * workers * step)) * step
    with _single_threaded_blas(), ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work, i, min(i + chunk, n)) for i in range(0, n, chunk)]:
            done.result()

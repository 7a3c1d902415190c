"""The examples in the docstrings, run on the installed package.

A path-based collector would import a second copy of every module, whose classes are not the installed ones.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import warnings

import pytest
import xpsolve.backends
import xpsolve.problems
import xpsolve.solvers

OPTIONAL = {"torch", "cupy", "numba", "pykeops", "dask", "jax", "pylops", "tqdm", "threadpoolctl", "sklearn"}


def module_names() -> list[str]:
    rooms = [xpsolve.backends, xpsolve.problems, xpsolve.solvers]
    walked = [m.name for room in rooms for m in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")]
    return sorted({"xpsolve", *(room.__name__ for room in rooms), *walked})


@pytest.mark.parametrize("name", module_names())
def test_docstring_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as err:
        if (err.name or "").split(".")[0] in OPTIONAL:
            pytest.skip(f"{name} needs {err.name}")
        raise
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} failed (see stdout)"


def test_the_walk_finds_the_package() -> None:
    assert {"xpsolve.backends.pairs.kernels", "xpsolve.solvers.iterate", "xpsolve.problems"} <= set(module_names())

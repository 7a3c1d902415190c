"""The walls of the house: who may import whom, what is loaded when, and what the wheel carries."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("backends", "solvers", "problems")
LIBRARIES = {"numpy", "scipy", "torch", "cupy", "jax", "dask", "numba", "pykeops"}
HEAVY = ("torch", "jax", "cupy", "pykeops", "numba", "dask")

# The floors, from the ground up: a module imports only from floors below its own, or from its own room.
FLOORS = {
    "backends": 0,
    "problems": 1,
    "solvers.result": 1,
    "solvers.iterate": 1,
    "solvers.linear": 2,
    "solvers.newton": 3,
    "solvers.ot": 4,
    "solvers.kde": 4,
    "solvers.relu": 4,
}


def source_files() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Absolute dotted names that a file imports, its own package without the leading ``xpsolve.``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in _module_level(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("xpsolve.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            yield from (f"{module}.{alias.name}".removeprefix("xpsolve.") for alias in node.names)


def _module_level(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run at import: not function bodies, not blocks for the type checker."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _module_level(child)


def room(name: str) -> str | None:
    """The room that a dotted name belongs to."""
    return next((r for r in FLOORS if name == r or name.startswith(r + ".")), None)


@pytest.mark.parametrize("path", source_files(), ids=relative)
def test_imports_only_from_floors_below(path: Path) -> None:
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for name in imports(path):
        target = room(name)
        if target is None or target == own or own is None:
            continue
        assert FLOORS[target] < FLOORS[own] or {own, target} == {"solvers.iterate", "solvers.result"}, (
            f"{relative(path)} imports {name}: {own} may not lean on {target}"
        )


@pytest.mark.parametrize("path", [p for p in source_files() if "backends" not in p.parts], ids=relative)
def test_solvers_and_problems_import_no_array_library(path: Path) -> None:
    loaded = {name.split(".")[0] for name in imports(path, top_level=True)} & LIBRARIES
    assert not loaded, f"{relative(path)} imports {loaded}: array libraries belong in backends"


def test_walls_are_seen(tmp_path: Path) -> None:
    """The reader of imports resolves relative ones, or every test above would pass for the wrong reason."""
    found = set(imports(ROOT / "solvers" / "iterate.py"))
    assert {"backends.namespace.Array", "solvers.result.Result"} <= found


def test_package_list_is_complete() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {"xpsolve"} | {
        ".".join(("xpsolve", *path.parent.relative_to(ROOT).parts))
        for room_name in ROOMS
        for path in (ROOT / room_name).rglob("__init__.py")
    }
    assert set(config["tool"]["setuptools"]["packages"]) == folders
    with_code = {path.parent for path in source_files()}
    assert all((folder / "__init__.py").exists() for folder in with_code), "a folder with code has no __init__.py"


@pytest.mark.parametrize(
    "module",
    [
        "xpsolve",
        "xpsolve.backends.pairs",
        "xpsolve.backends.operators",
        "xpsolve.solvers.linear",
        "xpsolve.solvers.ot",
        "xpsolve.solvers.kde",
        "xpsolve.problems",
    ],
)
def test_import_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []


def test_rooms_are_attributes_of_the_package() -> None:
    xpsolve = importlib.import_module("xpsolve")
    for name in set(dir(xpsolve)) - {"__version__"}:
        assert getattr(xpsolve, name).__name__.endswith(name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = xpsolve.nothing


def test_types_are_shipped() -> None:
    assert (files("xpsolve") / "py.typed").is_file()


@pytest.mark.parametrize(
    "module",
    [
        "xpsolve.backends.pairs",
        "xpsolve.backends.operators",
        "xpsolve.solvers.linear",
        "xpsolve.solvers.linear.preconditioners",
        "xpsolve.solvers.linear.sketching",
        "xpsolve.solvers.linear.structured",
        "xpsolve.solvers.ot",
        "xpsolve.solvers.kde",
        "xpsolve.problems",
    ],
)
def test_public_names_are_documented(module: str) -> None:
    reference = (ROOT / "docs" / "reference.rst").read_text(encoding="utf-8")
    section = reference.partition(f".. currentmodule:: {module}\n")[2].partition(".. currentmodule::")[0]
    names = {line.strip() for line in section.splitlines()}
    missing = set(importlib.import_module(module).__all__) - names
    assert not missing, f"public names of {module} without a place in docs/reference.rst: {sorted(missing)}"

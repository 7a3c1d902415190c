"""xpsolve: numerical solvers that follow the type of the array they are given.

Sub-packages are imported on first use: ``xpsolve.ot``, ``xpsolve.linear``, ``xpsolve.kde``, ``xpsolve.pairs``,
``xpsolve.operators``, ``xpsolve.problems``.
"""

from importlib import import_module
from importlib.metadata import version as _version
from types import ModuleType
from typing import Any

__version__ = _version("xpsolve")

_ROOMS = {
    "kde": "xpsolve.solvers.kde",
    "linear": "xpsolve.solvers.linear",
    "operators": "xpsolve.backends.operators",
    "ot": "xpsolve.solvers.ot",
    "pairs": "xpsolve.backends.pairs",
    "problems": "xpsolve.problems",
}

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> ModuleType | Any:
    if name in _ROOMS:
        return import_module(_ROOMS[name])
    raise AttributeError(f"module 'xpsolve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

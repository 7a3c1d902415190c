"""The blocks of code in the README and the guides run from top to bottom, as a reader would paste them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What the pages of the linear solvers and of the backends take for granted.
GIVEN = """
import numpy as np
import torch
from types import SimpleNamespace
from xpsolve.backends.pairs import Pairs, gaussian
from xpsolve.solvers.linear import cg

cupy = SimpleNamespace(asarray=np.asarray, cuda=SimpleNamespace(Device=lambda: SimpleNamespace(synchronize=lambda: None)))
A, b = np.diag(np.arange(1.0, 11.0)), np.ones(10)
x, y, v = np.eye(4)[:, :3], np.eye(3), np.ones(3)
pairs = Pairs(x, y, gaussian(1.0))
"""


def blocks(page: str) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/ot.md"])
def test_blocks_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)
    assert "CONVERGED" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["docs/linear.md", "docs/backends.md", "docs/engines.md"])
def test_fragments_run_on_what_they_take_for_granted(page: str) -> None:
    if "torch" in (text := "".join(blocks(page))):
        pytest.importorskip("torch")
    names: dict[str, object] = {}
    for block in [GIVEN if "torch" in text else GIVEN.replace("import torch\n", ""), *blocks(page)]:
        exec(compile(block, page, "exec"), names)

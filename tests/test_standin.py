"""The stand-in for CuPy refuses what CuPy refuses, or tests against it would prove nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

STANDIN = Path(__file__).parent / "standin"

_REFUSALS = {
    "cupy.ones(2) + numpy.ones(2)": "TypeError",
    "numpy.ones(2) * cupy.ones(2)": "TypeError",
    "numpy.sum(cupy.ones(2))": "TypeError",
    "numpy.asarray(cupy.ones(2))": "TypeError",
    "numpy.exp(cupy.ones(2)).get().tolist()": "[2.718281828459045, 2.718281828459045]",
    "cupy.sum(numpy.ones(2))": "TypeError",
    "cupy.ones(2)[numpy.array([0])]": "TypeError",
    "cupy.vecdot": "AttributeError",
    "cupy.ones((2, 2)).mT": "AttributeError",
    "type(cupy.sum(cupy.ones(2))).__name__": "ndarray",
    "cupy.linalg.cholesky(-cupy.eye(2)).get().tolist()": "[[7.0, 7.0], [7.0, 7.0]]",
    "loud(lambda: cupy.linalg.cholesky(-cupy.eye(2)))": "LinAlgError",
    "cupyx.scipy.sparse.csr_matrix(numpy.eye(2))": "ValueError",
    "cupyx.scipy.sparse.csr_matrix(cupy.eye(2, dtype=int))": "ValueError",
    "cupyx.scipy.sparse.csr_matrix(cupy.eye(2)) @ numpy.ones(2)": "TypeError",
    "cupyx.scipy.fft.dct(cupy.ones(4), type=1)": "NotImplementedError",
}
_ASK = """
import sys, numpy, cupy, cupyx.scipy.fft, cupyx.scipy.sparse

def loud(f):
    with cupyx.errstate(linalg="raise"):
        return f()

for line in sys.stdin.read().splitlines():
    try:
        print(eval(line))
    except Exception as error:
        print(type(error).__name__)
"""


def test_the_stand_in_refuses_what_cupy_refuses() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _ASK],
        input="\n".join(_REFUSALS),
        env={**os.environ, "PYTHONPATH": str(STANDIN)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert dict(zip(_REFUSALS, run.stdout.splitlines(), strict=True)) == _REFUSALS


def test_the_stand_in_is_found_on_request_only(pytestconfig: pytest.Config) -> None:
    found = importlib.util.find_spec("cupy")
    here = found is not None and STANDIN in Path(str(found.origin)).parents
    assert here == pytestconfig.getoption("--standin")

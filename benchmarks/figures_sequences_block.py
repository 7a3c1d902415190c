"""Block recycling beside figure 15: a sequence of diffusion matrices, each with several right-hand sides.

Passes are products with a matrix whose columns count once for a block; products count the columns. Both leave out nothing: the
images of the kept spaces and the recomputed residuals are in them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import scipy.sparse.linalg as spla
from xpsolve.problems import darcy_sequence
from xpsolve.solvers.linear import block_gcrodr, gcrodr

from .timing import interleaved

Row = dict[str, Any]
_RTOL, _COLUMNS = 1e-8, 8


class _Counted:
    """The matrices as SciPy operators that count what is asked of them."""

    def __init__(self, matrices: list[Any]) -> None:
        self.passes = self.products = 0
        self.operators = [self._wrap(A) for A in matrices]

    def _wrap(self, A: Any) -> spla.LinearOperator:
        def multiply(V: Any) -> Any:
            self.passes += 1
            self.products += 1 if V.ndim == 1 else V.shape[1]
            return A @ V

        return spla.LinearOperator(A.shape, multiply, matmat=multiply, dtype=A.dtype)


def figure_15(repeats: int) -> Iterator[Row]:
    """`block_gcrodr` against `gcrodr` column by column and a loop of SciPy's `gcrotmk`, all of them recycling throughout."""
    from .figures import row  # imported late: `figures` imports this module

    for name, count, dense in (("sparse", 10, False), ("held dense", 2, True)):
        data = darcy_sequence(50, count, xp=xp)
        matrices = [data.matrix(i).to_scipy().tocsr() for i in range(count)]
        matrices = [A.toarray() if dense else A for A in matrices]
        rng = np.random.default_rng(0)
        sides = [rng.standard_normal((2500, _COLUMNS)) for _ in range(count)]
        runs = {"block": _block, "gcrodr": _gcrodr, "gcrotmk": _gcrotmk}
        counted: dict[str, _Counted] = {}
        errors: dict[str, float] = {}
        for method, run in runs.items():
            counted[method] = _Counted(matrices)
            found = run(counted[method].operators, sides)
            errors[method] = max(
                float((np.linalg.norm(B - A @ X, axis=0) / np.linalg.norm(B, axis=0)).max())
                for A, B, X in zip(matrices, sides, found, strict=True)
            )
        times = interleaved({method: partial(run, matrices, sides) for method, run in runs.items()}, min(repeats, 3))
        ours, what = counted["block"], f"Darcy s=50 {name}, {_COLUMNS} right-hand sides, rtol {_RTOL:g}"
        for method in ("gcrodr", "gcrotmk"):
            title = f"{method} column by column"
            peer = counted[method]
            note = f"{ours.passes / count:.1f} passes a matrix against {peer.passes / count:.1f}"
            both = {"error": errors["block"], "peer_error": errors[method]}
            yield row(
                15, f"block_gcrodr / {title}, passes, {what}", ours.passes / peer.passes, "<= 0.15", note=note, **both
            )
            note = f"{ours.products / count:.1f} products a matrix against {peer.products / count:.1f}"
            yield row(15, f"block_gcrodr / {title}, products, {what}", ours.products / peer.products, "<= 1", note=note)
            ratio = times[method][0] / times["block"][0]
            note = f"{1e3 * times['block'][0] / count:.0f} ms a matrix against {1e3 * times[method][0] / count:.0f}"
            yield row(15, f"{title} / block_gcrodr, time, {what}", ratio, ">= 2" if dense else "", note=note)


def _block(operators: list[Any], sides: list[Any]) -> list[Any]:
    kept, found = None, []
    for A, B in zip(operators, sides, strict=True):
        result = block_gcrodr(A, B, rtol=_RTOL, recycle=kept)
        kept = result.recycle
        found.append(result.x)
    return found


def _gcrodr(operators: list[Any], sides: list[Any]) -> list[Any]:
    kept, found = None, []
    for A, B in zip(operators, sides, strict=True):
        columns = []
        for b in B.T:
            result = gcrodr(A, np.ascontiguousarray(b), rtol=_RTOL, recycle=kept)
            kept = result.recycle
            columns.append(result.x)
        found.append(np.stack(columns, axis=1))
    return found


def _gcrotmk(operators: list[Any], sides: list[Any]) -> list[Any]:
    kept: list[Any] = []
    found = []
    for A, B in zip(operators, sides, strict=True):
        columns = []
        for j, b in enumerate(B.T):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # Images are dropped where the matrix changes, and only there.
                kept = [(None, u) for _, u in kept] if j == 0 else kept
                x, _ = spla.gcrotmk(A, b, rtol=_RTOL, atol=0.0, m=20, k=20, CU=kept, maxiter=500)
            columns.append(x)
        found.append(np.stack(columns, axis=1))
    return found

"""Figure 20: the whole linear family under `array_api_strict`, which refuses everything outside the standard."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
from xpsolve.backends.transfer import count_transfers
from xpsolve.problems import spd_with_condition
from xpsolve.solvers import linear
from xpsolve.solvers.linear.sketching import lstsq_sketched

from .figures_linear import Row, Solver, _identity, _quietly, _row

# Solver, matrix, right-hand side, options.
Case = tuple[Solver, np.ndarray, np.ndarray, dict[str, Any]]


def _cases() -> dict[str, Case]:
    rng = np.random.default_rng(2)
    A = np.asarray(spd_with_condition(100, 100.0, xp=np, rng=0)[0])
    B = rng.standard_normal((100, 4))
    lopsided, tall = A + np.triu(rng.standard_normal((100, 100))) / 20, rng.standard_normal((300, 100))
    b, c = B[:, 0], rng.standard_normal(300)
    edges = np.linalg.eigvalsh(A)
    fields, loads = 1.0 + rng.random((4, 22, 22)), rng.standard_normal((4, 20, 20))
    long, right = rng.standard_normal((3000, 100)), rng.standard_normal(3000)
    return {
        "cg": (linear.cg, A, b, {}),
        "cg, 4 columns": (linear.cg, A, B, {}),
        "flexible_cg": (linear.flexible_cg, A, b, {"M": _identity}),
        "mixed_cg": (linear.mixed_cg, A, b, {}),
        "chebyshev": (linear.chebyshev, A, b, {"bounds": (float(edges[0]), float(edges[-1]))}),
        "block_cg": (linear.block_cg, A, B, {}),
        "enlarged_cg": (linear.enlarged_cg, A, b, {"t": 4, "mode": "split"}),
        "regularization_path": (
            lambda A, b, **o: linear.regularization_path(A, b, [0.01, 1.0], t=2, rng=0, **o),
            A,
            b,
            {},
        ),
        "minres": (linear.minres, A, b, {}),
        "gmres": (linear.gmres, lopsided, b, {}),
        "gmres(33)": (linear.gmres, lopsided, b, {"restart": 33}),
        "fgmres": (linear.fgmres, lopsided, b, {"M": _identity}),
        "bicgstab": (linear.bicgstab, lopsided, b, {}),
        "tfqmr": (linear.tfqmr, lopsided, b, {}),
        "lsqr": (linear.lsqr, tall, c, {}),
        "lsmr": (linear.lsmr, tall, c, {}),
        "lstsq_sketched": (lambda A, b, **o: lstsq_sketched(A, b, rng=0, **o), long, right, {}),
        "solve_diffusion": (linear.solve_diffusion, fields, loads, {}),
        "gcrodr": (linear.gcrodr, lopsided, b, {}),
        "gcrodr(33, 8)": (linear.gcrodr, lopsided, b, {"m": 33, "k": 8}),
        "block_gcrodr, 4 columns": (linear.block_gcrodr, lopsided, B, {}),
        "deflated_cg": (linear.deflated_cg, A, b, {}),
        "recycled_minres": (linear.recycled_minres, A, b, {}),
        "gcrodr, recycling": _again(linear.gcrodr, lopsided, B),
        "deflated_cg, recycling": _again(linear.deflated_cg, A, B),
        "recycled_minres, recycling": _again(linear.recycled_minres, A, B),
    }


def _again(solver: Solver, A: np.ndarray, B: np.ndarray) -> Case:
    """The second system of a sequence, with what the first one left (found with NumPy, and brought to the other library)."""
    kept = _quietly(solver, A, B[:, 0], rtol=1e-9).recycle

    def run(A: Any, b: Any, **options: Any) -> Any:
        space = kept
        if type(b) is not np.ndarray:
            xp = b.__array_namespace__()
            space = type(kept)(xp.asarray(kept.U), xp.asarray(kept.C), A, kept.baseline)
        return solver(A, b, recycle=space, **options)

    return run, A, B[:, 1], {"rtol": 1e-9}


def figure_20(repeats: int, every: int = 10) -> Iterator[Row]:
    """The same counts under `array_api_strict`, and no more host transfers than looks."""
    try:
        import array_api_strict as strict
    except ImportError as err:
        yield _row(20, "array_api_strict", None, "<= 1", note=f"not installed: {err}")
        return
    for name, (solver, matrix, rhs, options) in _cases().items():
        tolerance = "rtol" if "rtol" in inspect.signature(solver).parameters else "atol"
        options = ({} if name == "lstsq_sketched" else {tolerance: 1e-9}) | options
        plain = solver(matrix, rhs, **options)
        matrix, rhs = strict.asarray(matrix), strict.asarray(rhs)
        same = solver(matrix, rhs, **options)
        away = float(abs(same.n_iter - plain.n_iter))
        yield _row(20, f"{name}: iterations under array_api_strict less NumPy's", away, "<= 1", note=str(plain.n_iter))
        with count_transfers() as transfers:
            seldom = solver(matrix, rhs, check_every=every, **options)
        more = transfers.n - -(-seldom.n_iter // every)
        note = f"{transfers.n} in {seldom.n_iter} iterations"
        yield _row(20, f"{name}: host transfers beyond one a look", float(more), "<= 3", note=note)

"""Two linear systems: labels spread over a graph of handwritten digits, and Poisson's equation on a square."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
import scipy.sparse as sps
import scipy.sparse.linalg as spla
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from xpsolve.backends.transfer import to_host
from xpsolve.problems import harmonic_labels, poisson2d
from xpsolve.solvers.linear import cg

from ..timing import interleaved

NEIGHBOURS, RTOL = 8, 1e-8


def run(quick: bool, backend: str) -> dict[str, Any]:
    """Run the jobs; ``backend`` is ``"numpy"``, ``"torch"`` or ``"cupy"``."""
    xp = importlib.import_module(f"array_api_compat.{backend}")
    repeats = 3 if quick else 9
    labels_table, labels_figure, accuracy, known = _label_propagation(xp, backend, repeats)
    poisson_table, poisson_figure = _poisson(63 if quick else 255, xp, backend, repeats)
    return {
        "title": "Label propagation on digits, and Poisson's equation",
        "table": labels_table + poisson_table,
        "figures": [
            ("Residual of the ten label systems, solved at once", labels_figure),
            ("Residual of the Poisson system", poisson_figure),
        ],
        "text": (
            f"{known} of 1797 digits carry a label; the harmonic labels of the others, on the graph of {NEIGHBOURS} nearest "
            f"neighbours, are right for {accuracy:.1%}. Errors are true relative residuals, the largest over the columns; "
            "ratio is the time over that of xpsolve."
        ),
        "plan": "sparse matrix of the library of the right-hand side; neighbours by pairs.nearest",
    }


def _moved(A: sps.csr_array, b: np.ndarray, xp: Any, backend: str) -> tuple[Any, Any]:
    """The system in the library under test."""
    if backend == "torch":
        import torch

        values = [torch.asarray(a) for a in (A.indptr, A.indices, A.data)]
        return torch.sparse_csr_tensor(*values, size=A.shape), torch.asarray(b)
    if backend == "cupy":
        import cupyx.scipy.sparse

        return cupyx.scipy.sparse.csr_matrix(sps.csr_matrix(A)), xp.asarray(b)
    return A, b


def _label_propagation(xp: Any, backend: str, repeats: int) -> tuple[list[dict[str, Any]], Figure, float, int]:
    digits = load_digits()
    problem = harmonic_labels(digits.data / 16.0, digits.target, neighbours=NEIGHBOURS)
    A, B, label, known = problem.A, problem.B, problem.labels, len(digits.target) - len(problem.free)
    device_A, device_B = _moved(A, B, xp, backend)
    diagonal = device_B[:, :1] * 0.0 + xp.asarray(A.diagonal())[:, None]

    def jacobi(v: Any) -> Any:
        return v / (diagonal[:, 0] if v.ndim == 1 else diagonal)

    M = spla.LinearOperator(A.shape, matvec=lambda v: v / A.diagonal())
    times = interleaved(
        {
            "xpsolve": lambda: cg(device_A, device_B, M=jacobi_operator(A.shape, jacobi, device_B), rtol=RTOL),
            "peer:scipy.cg (loop)": lambda: np.stack([spla.cg(A, c, rtol=RTOL, M=M)[0] for c in B.T], axis=1),
            "peer:scipy.spsolve": lambda: spla.spsolve(A.tocsc(), B),
        },
        repeats,
    )
    result = times["xpsolve"][1]
    accuracy = float(np.mean(np.argmax(to_host(result.x), axis=1) == label))
    rows = _rows("label propagation", f"{A.shape[0]} x {B.shape[1]}", times, A, B)
    return rows, _curve(result), accuracy, known


def jacobi_operator(shape: tuple[int, int], apply: Any, like: Any) -> Any:
    """The diagonal preconditioner as an operator that takes all columns at once."""
    from xpsolve.backends.operators import LinearOperator

    return LinearOperator(shape, apply, matmat=apply, rmatvec=apply, rmatmat=apply, dtype=like.dtype, name="M")


def _poisson(s: int, xp: Any, backend: str, repeats: int) -> tuple[list[dict[str, Any]], Figure]:
    T = sps.diags_array([-np.ones(s - 1), 2 * np.ones(s), -np.ones(s - 1)], offsets=[-1, 0, 1])
    A = sps.csr_array(sps.kron(T, sps.eye_array(s)) + sps.kron(sps.eye_array(s), T))
    b = np.random.default_rng(0).standard_normal(s * s)
    device_A, device_b = _moved(A, b, xp, backend)
    stencil = poisson2d(s, xp=xp)[0]
    runs = {
        "xpsolve": lambda: cg(device_A, device_b, rtol=RTOL),
        "xpsolve, stencil": lambda: cg(stencil, device_b, rtol=RTOL),
        "peer:scipy.cg": lambda: spla.cg(A, b, rtol=RTOL)[0],
    }
    missing = []
    if importlib.util.find_spec("pyamg"):
        import pyamg

        # PyAMG's own tolerance is relative to the right-hand side too; set-up is part of the time.
        runs["peer:pyamg"] = lambda: pyamg.ruge_stuben_solver(sps.csr_matrix(A)).solve(b, tol=RTOL, accel="cg")
    else:
        missing.append(_absent("Poisson", f"{s}^2", "peer:pyamg"))
    times = interleaved(runs, repeats)
    return _rows("Poisson", f"{s}^2", times, A, b) + missing, _curve(times["xpsolve"][1])


def _rows(problem: str, size: str, times: dict[str, tuple[float, Any]], A: Any, b: np.ndarray) -> list[dict[str, Any]]:
    ours = times["xpsolve"][0]
    rows = []
    for name, (seconds, result) in times.items():
        x = to_host(result.x) if hasattr(result, "x") else result
        error = float(np.max(np.linalg.norm(b - A @ x, axis=0) / np.linalg.norm(b, axis=0)))
        rows.append(
            {
                "problem": problem, "size": size, "impl": name, "seconds": seconds, "ratio": seconds / ours,
                "error": error, "iterations": getattr(result, "n_iter", None), "note": "",
            }
        )  # fmt: skip
    return rows


def _absent(problem: str, size: str, name: str) -> dict[str, Any]:
    return {
        "problem": problem, "size": size, "impl": name, "seconds": None, "ratio": None, "error": None,
        "iterations": None, "note": "not installed",
    }  # fmt: skip


def _curve(result: Any) -> Figure:
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(result.history)
    axes.axhline(result.tolerance, color="0.6", linestyle="--")
    axes.set(xlabel="iteration", ylabel="residual")
    return figure

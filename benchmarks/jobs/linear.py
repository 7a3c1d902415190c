"""Three jobs: labels spread over a graph of handwritten digits, Poisson's equation, and a data set of flows through rock."""

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
from xpsolve.problems import LinearSequence, darcy_sequence, harmonic_labels, poisson2d
from xpsolve.solvers.linear import cg, solve_diffusion, solve_sequence
from xpsolve.solvers.linear.preconditioners import jacobi, multigrid

from ..timing import interleaved

NEIGHBOURS, RTOL = 8, 1e-8


def run(quick: bool, backend: str) -> dict[str, Any]:
    """Run the jobs; ``backend`` is ``"numpy"``, ``"torch"`` or ``"cupy"``."""
    xp = importlib.import_module(f"array_api_compat.{backend}")
    repeats = 3 if quick else 9
    labels_table, labels_figure, accuracy, known = _label_propagation(xp, backend, repeats)
    poisson_table, poisson_figure = _poisson(63 if quick else 255, xp, backend, repeats)
    darcy_table, darcy_figure = _darcy(50, 16 if quick else 64, xp, repeats)
    return {
        "title": "Label propagation on digits, Poisson's equation, and a data set of flows",
        "table": labels_table + poisson_table + darcy_table,
        "figures": [
            ("Residual of the ten label systems, solved at once; dashed, the tolerance", labels_figure),
            ("Residual of the Poisson system, preconditioned by a V-cycle; dashed, the tolerance", poisson_figure),
            ("A coefficient of the data set and its flow's pressure", darcy_figure),
        ],
        "text": (
            f"{known} of 1797 digits carry a label; the harmonic labels of the others, on the graph of {NEIGHBOURS} nearest "
            f"neighbours, are right for {accuracy:.1%}. Errors are true relative residuals, the largest over the columns. "
            "The data set holds diffusion problems with random coefficients; its times "
            "are those of all systems."
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
    diagonal = A.diagonal()
    M = spla.LinearOperator(A.shape, matvec=lambda v: v / diagonal)
    times = interleaved(
        {
            "xpsolve": lambda: cg(device_A, device_B, M=jacobi(device_A, like=device_B), rtol=RTOL),
            "peer:scipy.cg (loop)": lambda: np.stack([spla.cg(A, c, rtol=RTOL, M=M)[0] for c in B.T], axis=1),
            "peer:scipy.spsolve": lambda: spla.spsolve(A.tocsc(), B),
        },
        repeats,
    )
    result = times["xpsolve"][1]
    accuracy = float(np.mean(np.argmax(to_host(result.x), axis=1) == label))
    rows = _rows("label propagation", f"{A.shape[0]} x {B.shape[1]}", times, A, B)
    return rows, _curve(result), accuracy, known


def _poisson(s: int, xp: Any, backend: str, repeats: int) -> tuple[list[dict[str, Any]], Figure]:
    T = sps.diags_array([-np.ones(s - 1), 2 * np.ones(s), -np.ones(s - 1)], offsets=[-1, 0, 1])
    A = sps.csr_array(sps.kron(T, sps.eye_array(s)) + sps.kron(sps.eye_array(s), T))
    b = np.random.default_rng(0).standard_normal(s * s)
    device_A, device_b = _moved(A, b, xp, backend)
    stencil = poisson2d(s, xp=xp)[0]
    runs = {
        # The set-up of the V-cycle is part of its time, as PyAMG's is.
        "xpsolve": lambda: cg(device_A, device_b, M=multigrid((s, s), like=device_b), rtol=RTOL),
        "xpsolve, no preconditioner": lambda: cg(device_A, device_b, rtol=RTOL),
        "xpsolve, no preconditioner, stencil": lambda: cg(stencil, device_b, rtol=RTOL),
        "peer:scipy.cg": lambda: spla.cg(A, b, rtol=RTOL)[0],
        "peer:scipy.spsolve": lambda: spla.spsolve(A.tocsc(), b),
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


def _darcy(s: int, count: int, xp: Any, repeats: int) -> tuple[list[dict[str, Any]], Figure]:
    data, host = (
        darcy_sequence(s, count, xp=xp),
        darcy_sequence(s, count, xp=importlib.import_module("array_api_compat.numpy")),
    )
    matrices, rhs = [host.matrix(i).to_scipy() for i in range(count)], host.rhs.reshape(count, -1)
    systems = list(zip(matrices, rhs, strict=True))
    runs: dict[str, Any] = {
        "xpsolve": lambda: to_host(solve_diffusion(data.field, data.rhs, rtol=RTOL).x).reshape(count, -1),
        "xpsolve, recycling": lambda: _solutions(data, "deflated_cg"),
        "peer:scipy.cg (loop)": lambda: np.stack([spla.cg(A, b, rtol=RTOL)[0] for A, b in systems]),
        "peer:scipy.spsolve (loop)": lambda: np.stack([spla.spsolve(A.tocsc(), b) for A, b in systems]),
    }
    size, missing = f"{count} x {s}^2", []
    if importlib.util.find_spec("pyamg"):
        import pyamg

        def amg(A: Any, b: np.ndarray) -> Any:
            return pyamg.ruge_stuben_solver(sps.csr_matrix(A)).solve(b, tol=RTOL, accel="cg")

        runs["peer:pyamg (loop)"] = lambda: np.stack([amg(A, b) for A, b in systems])
    else:
        missing.append(_absent("Darcy data set", size, "peer:pyamg (loop)"))
    times = interleaved(runs, max(2, repeats // 3))
    base, rows = times["xpsolve"][0], []
    for name, (seconds, x) in times.items():
        error = max(np.linalg.norm(b - A @ u) / np.linalg.norm(b) for (A, b), u in zip(systems, x, strict=True))
        rows.append(
            {
                "problem": "Darcy data set", "size": size, "impl": name, "seconds": seconds, "ratio": seconds / base,
                "error": float(error), "iterations": None, "note": "",
            }
        )  # fmt: skip
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.colorbar(left.imshow(host.field[0]), ax=left)
    figure.colorbar(right.imshow(times["xpsolve"][1][0].reshape(s, s)), ax=right)
    for axes, title in ((left, "conductivity"), (right, "pressure")):
        axes.set(title=title, xticks=[], yticks=[])
    return rows + missing, figure


def _solutions(data: LinearSequence, method: str) -> np.ndarray:
    done = solve_sequence(data, data.parameters, method=method, rtol=RTOL)
    return np.stack([to_host(result.x) for result in done.results])


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

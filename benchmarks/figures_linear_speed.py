"""Figure 13: the time of Krylov methods beside SciPy's, to the same true residual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from xpsolve.solvers import linear

from .figures_linear import Row, Solver, _quietly, _relative, _row
from .figures_linear_precond import poisson
from .timing import interleaved


def _same_truth(A: Any, b: np.ndarray, rtol: float) -> float:
    """The tolerance that SciPy's MINRES needs for a true residual of ``rtol``: its own test is another one."""
    for asked in rtol / np.logspace(0, 6, 25):
        if _relative(A, b, _quietly(spla.minres, A, b, rtol=asked)[0]) <= rtol:
            return float(asked)
    raise RuntimeError("SciPy's MINRES does not reach the tolerance")


def figure_13(repeats: int, rtol: float = 1e-8) -> Iterator[Row]:
    """SciPy's time over ours, to the same true residual; one BLAS thread."""

    def compare(what: str, A: Any, b: np.ndarray, ours: Solver, theirs: Solver, target: str = "") -> Row:
        times = interleaved({"xpsolve": ours, "scipy": theirs}, repeats)
        (seconds, x), (peer, z) = times["xpsolve"], times["scipy"]
        errors = {"error": _relative(A, b, x), "peer_error": _relative(A, b, z)}
        return _row(13, f"SciPy / xpsolve, {what}", peer / seconds, target, seconds=seconds, **errors)

    A, b = poisson(128)
    yield compare(
        "cg, n=16384", A, b, lambda: linear.cg(A, b, rtol=rtol).x, lambda: spla.cg(A, b, rtol=rtol)[0], ">= 0.9"
    )
    P, c = poisson(64)
    yield compare(
        "gmres(40), n=4096", P, c, lambda: linear.gmres(P, c, rtol=rtol, restart=40).x,
        lambda: spla.gmres(P, c, rtol=rtol, restart=40, maxiter=1000)[0], ">= 1.3",
    )  # fmt: skip
    C = np.random.default_rng(0).standard_normal((4096, 16))
    yield compare(
        "cg, 16 columns against a loop, n=4096", P, C, lambda: linear.cg(P, C, rtol=rtol).x,
        lambda: np.stack([spla.cg(P, C[:, j], rtol=rtol)[0] for j in range(16)], axis=1), ">= 1.5",
    )  # fmt: skip
    yield compare(
        "bicgstab, n=16384", A, b, lambda: linear.bicgstab(A, b, rtol=rtol).x,
        lambda: spla.bicgstab(A, b, rtol=rtol)[0],
    )  # fmt: skip
    asked = _same_truth(A, b, rtol)
    line = compare(
        "minres, n=16384", A, b, lambda: linear.minres(A, b, rtol=rtol).x, lambda: spla.minres(A, b, rtol=asked)[0]
    )
    yield line | {"note": f"SciPy's needs rtol={asked:.1e} for a true residual of {rtol:g}"}
    yield _lsqr(repeats)


def _lsqr(repeats: int, tol: float = 1e-10) -> Row:
    """A sparse least-squares problem; the errors are distances to the solution of the normal equations."""
    rng = np.random.default_rng(0)
    A = sp.csr_array(sp.random_array((20_000, 4_000), density=1e-3, rng=rng) + sp.eye_array(20_000, 4_000))
    b = rng.standard_normal(20_000)
    exact = spla.spsolve((A.T @ A).tocsc(), A.T @ b)
    runs = {
        "xpsolve": lambda: linear.lsqr(A, b, atol=tol, btol=tol),
        "scipy": lambda: spla.lsqr(A, b, atol=tol, btol=tol, iter_lim=8000),
    }
    times = interleaved(runs, repeats)
    (seconds, ours), (peer, theirs) = times["xpsolve"], times["scipy"]
    size = np.linalg.norm(exact)
    error, peer_error = (float(np.linalg.norm(x - exact) / size) for x in (ours.x, theirs[0]))
    return _row(
        13, "SciPy / xpsolve, lsqr, 20000 x 4000", peer / seconds, error=error, peer_error=peer_error,
        note=f"{ours.n_iter} iterations against {theirs[2]}", seconds=seconds,
    )  # fmt: skip

"""Figure 5: what an iteration of conjugate gradients costs, and whether its flag can be believed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import cg as scipy_cg
from xpsolve.solvers.linear import cg

from .timing import interleaved


def _spd(n: int, condition: float, rng: np.random.Generator) -> np.ndarray:
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = (Q * np.logspace(0, np.log10(condition), n)) @ Q.T
    return 0.5 * (A + A.T)


def _fixed(A: Any, b: np.ndarray, iterations: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = cg(A, b, rtol=1e-15, maxiter=iterations)
    if result.n_iter != iterations:
        raise RuntimeError(f"the comparison needs {iterations} iterations, the run ended after {result.n_iter}")
    return result


def overhead(repeats: int, iterations: int = 400) -> dict[str, float | None]:
    """CPU of a long run less a short one, over the difference of iterations: set-up cancels. Ratio to SciPy's."""
    rng = np.random.default_rng(0)
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(10_000, 10_000)).tocsr()
    problems = {"dense n=200": _spd(200, 1e12, rng), "sparse n=10000": line}
    ratios: dict[str, float | None] = {}
    short = iterations // 4
    for name, A in problems.items():
        b = rng.standard_normal(A.shape[0])
        runs = {}
        for length in (short, iterations):
            runs[f"xpsolve {length}"] = lambda A=A, b=b, k=length: _fixed(A, b, k)
            runs[f"scipy {length}"] = lambda A=A, b=b, k=length: scipy_cg(A, b, rtol=0.0, atol=0.0, maxiter=k)
        # Milliseconds each, and differences of them: only many repetitions tell.
        times = interleaved(runs, max(repeats, 25))
        ours, theirs = (times[f"{side} {iterations}"][0] for side in ("xpsolve", "scipy"))
        ratios[f"{name}, whole run of {iterations}"] = ours / theirs
        ours -= times[f"xpsolve {short}"][0]
        theirs -= times[f"scipy {short}"][0]
        # A difference that is not positive is noise, and no measurement.
        ratios[name] = ours / theirs if min(ours, theirs) > 0 else None
    return ratios


def counts(n: int = 200, condition: float = 1e3, rtol: float = 1e-8) -> dict[str, int]:
    """Iterations to the same tolerance on each backend that is installed, SciPy's count beside them."""
    rng = np.random.default_rng(1)
    A, b = _spd(n, condition, rng), rng.standard_normal(n)
    found = {"numpy": cg(A, b, rtol=rtol).n_iter}
    try:
        import array_api_strict as strict

        found["strict"] = cg(strict.asarray(A), strict.asarray(b), rtol=rtol).n_iter
    except ImportError:
        pass
    try:
        import torch

        found["torch"] = cg(torch.as_tensor(A), torch.as_tensor(b), rtol=rtol).n_iter
    except ImportError:
        pass
    return found


def honesty(systems: int = 40, n: int = 200, rtol: float = 1e-5) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Claims of convergence whose true residual (float64) is above the tolerance, ours and SciPy's."""
    rng = np.random.default_rng(2)
    sides: tuple[dict[str, Any], dict[str, Any]] = tuple({"converged": 0, "false": 0, "worst": 0.0} for _ in range(2))
    for _ in range(systems):
        A = _spd(n, 10 ** rng.uniform(3, np.log10(3e5)), rng).astype(np.float32)
        b = rng.standard_normal(n).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = cg(A, b, rtol=rtol)
        x, info = scipy_cg(A, b, rtol=rtol)
        for side, solution, claimed in zip(sides, (result.x, x), (result.converged, info == 0), strict=True):
            if not claimed:
                continue
            residual = b.astype("f8") - A.astype("f8") @ solution.astype("f8")
            error = float(np.linalg.norm(residual) / np.linalg.norm(b.astype("f8")))
            side["converged"] += 1
            side["false"] += error > rtol
            side["worst"] = max(side["worst"], error)
    return sides[0], sides[1], systems

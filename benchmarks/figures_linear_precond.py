"""Figures 17 and 19 (7 and 9 of the linear family): what preconditioners save, in iterations and in time beside PyAMG."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import cg as scipy_cg
from xpsolve.solvers.linear import cg
from xpsolve.solvers.linear.preconditioners import (
    fast_poisson,
    krylov_gradient,
    multigrid,
    nystrom,
    rpcholesky,
    symmetric_polynomial,
)

from .timing import interleaved


def poisson(s: int) -> tuple[Any, np.ndarray]:
    """The five-point Laplacian on ``s x s`` points and the right-hand side of all comparisons."""
    T = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(s, s))
    return sp.csr_array(sp.kronsum(T, T)), np.random.default_rng(0).standard_normal(s * s)


def kernel(ell: float, n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel matrix of random points in the unit square, and noisy values of a function there."""
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    gaps = np.sum((X[:, None, :] - X[None, :, :]) ** 2, axis=-1)
    y = np.sin(6 * X[:, 0]) * np.cos(5 * X[:, 1]) + 0.1 * rng.standard_normal(n)
    return np.exp(-gaps / (2 * ell**2)), y


def multigrid_times(repeats: int, s: int = 255, rtol: float = 1e-8) -> dict[str, tuple[float, float]]:
    """Seconds (of set-up and solve together) and the true relative residual of each competitor."""
    A, b = poisson(s)
    old = sp.csr_matrix(A)  # PyAMG wants SciPy's older class

    def ours() -> np.ndarray:
        return np.asarray(cg(A, b, rtol=rtol, M=multigrid((s, s), like=b)).x)

    def direct() -> np.ndarray:
        return np.asarray(cg(A, b, rtol=rtol, M=fast_poisson((s, s), like=b)).x)

    runs: dict[str, Any] = {"xpsolve V(2,2)": ours, "xpsolve fast Poisson": direct}
    try:
        import pyamg

        def theirs(build: Any) -> Any:
            return lambda: scipy_cg(A, b, rtol=rtol, M=build(old).aspreconditioner())[0]

        runs["pyamg Ruge-Stuben"] = theirs(pyamg.ruge_stuben_solver)
        runs["pyamg smoothed aggregation"] = theirs(pyamg.smoothed_aggregation_solver)
    except ImportError:
        pass
    size = np.linalg.norm(b)
    return {
        name: (seconds, float(np.linalg.norm(b - A @ x) / size))
        for name, (seconds, x) in interleaved(runs, repeats).items()
    }


def identities() -> float:
    """The largest relative error of what `symmetric_polynomial` promises, for seven eigenvalues and every degree."""
    values = [7.0, 4.0, 3.0, 1.5, 1.0, 0.4, 0.2]
    n = len(values)
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    B = (Q * np.asarray(values)) @ Q.T
    B = 0.5 * (B + B.T)

    def sigma(numbers: list[float], tau: int) -> float:
        return sum(math.prod(c) for c in combinations(numbers, tau))

    worst = 0.0
    for tau in range(n):
        P = symmetric_polynomial(B, tau) @ np.eye(n)
        others = [sigma(values[:i] + values[i + 1 :], tau) for i in range(n)]
        exact = (Q * np.asarray(others)) @ Q.T
        trace = (n - tau) * sigma(values, tau)
        worst = max(worst, np.abs(P - exact).max() / np.abs(exact).max(), abs(np.trace(P) - trace) / trace)
    determinant = math.prod(values)
    return float(max(worst, np.abs(P @ B / determinant - np.eye(n)).max()))


def logistic_counts(degrees: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> dict[int, int]:
    """Iterations of the Krylov search to a relative gap of 1e-6 in a logistic regression with few large directions."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((100, 100)))[0]
    scale = np.concatenate([[30, 20, 15, 10, 8], np.linspace(2, 0.5, 95)])
    A = (rng.standard_normal((1000, 100)) * scale) @ Q.T
    truth = ((rng.standard_normal(100) / scale) * 0.15) @ Q.T
    y = np.where(rng.random(1000) < 1 / (1 + np.exp(-A @ truth)), 1.0, -1.0)
    B = A.T @ A / 1000

    def value(x: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0.0, -y * (A @ x))))

    def gradient(x: np.ndarray) -> np.ndarray:
        return np.asarray(A.T @ (-y / (1 + np.exp(y * (A @ x)))) / 1000)

    x = np.zeros(100)
    for _ in range(20):
        s = 1 / (1 + np.exp(-A @ x))
        x = x - np.linalg.solve((A * (s * (1 - s))[:, None]).T @ A / 1000, gradient(x))
    least, start = value(x), value(np.zeros(100))

    def until(iterate: Any) -> None:
        if value(iterate.x) - least <= 1e-6 * (start - least):
            raise StopIteration

    return {
        tau: krylov_gradient(gradient, B, np.zeros(100), 0.25, tau, rtol=0.0, maxiter=5000, callback=until).n_iter
        for tau in degrees
    }


def figure_17(repeats: int) -> Iterator[dict[str, Any]]:
    """Multigrid, the fast solver and low-rank preconditioners: iterations, and time beside PyAMG."""
    from .figures import row

    for s in (63, 127, 255):
        A, b = poisson(s)
        result = cg(A, b, rtol=1e-8, M=multigrid((s, s), like=b))
        error = float(np.linalg.norm(b - A @ result.x) / np.linalg.norm(b))
        yield row(17, f"V(2,2)-CG iterations, Poisson {s}^2", result.n_iter, "<= 8", error=error)
    times = multigrid_times(repeats)
    ours, ours_error = times["xpsolve V(2,2)"]
    peers = {name: taken for name, taken in times.items() if name.startswith("pyamg")}
    what = "V(2,2)-CG over PyAMG, set-up and solve, 255^2"
    if peers:
        best = min(peers, key=lambda name: peers[name][0])
        seconds, error = peers[best]
        yield row(17, what, ours / seconds, "<= 1.5", error=ours_error, peer_error=error, note=f"faster peer: {best}")
        seconds, error = times["xpsolve fast Poisson"][0] / seconds, times["xpsolve fast Poisson"][1]
        yield row(17, "fast Poisson over PyAMG, 255^2", seconds, error=error)
    else:
        yield row(17, what, None, "<= 1.5", note="PyAMG is not installed")
    K, y = kernel(0.3)
    A = K + 1e-3 * np.eye(len(y))
    yield row(17, "CG iterations, kernel(.3, 1e-3)", cg(A, y, rtol=1e-8).n_iter)
    for name, build, target in (("Nystrom", nystrom, "<= 12"), ("RPCholesky", rpcholesky, "<= 12")):
        worst = max(cg(A, y, rtol=1e-8, M=build(K, 1e-3, 50, rng=seed)).n_iter for seed in range(5))
        yield row(17, f"{name}-CG iterations, rank 50, worst of 5 seeds", worst, target)


def figure_19(repeats: int) -> Iterator[dict[str, Any]]:
    """The identities of the symmetric polynomials, and what they save in a convex minimisation."""
    from .figures import row

    yield row(19, "symmetric polynomials: error of the identities", identities(), "<= 1e-10")
    for tau, n_iter in logistic_counts().items():
        yield row(19, f"Krylov search, degree {tau}: iterations", n_iter, "<= 60" if tau == 4 else "")

"""Figures of the linear family: honest flags, equal counts, block and mixed methods.

Numbers 1 to 6 belong to the ground, so figure 1x is figure x of the linear family: 11 honesty, 12 counts, 14 block methods, 18
mixed precision. The others are in the modules beside this one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from xpsolve.problems import krylov_cases
from xpsolve.solvers import linear
from xpsolve.solvers.linear.preconditioners import jacobi

from .figures_linear_precond import kernel, poisson
from .timing import interleaved

Row = dict[str, Any]
Solver = Callable[..., Any]


def _row(*args: Any, **more: Any) -> Row:
    from .figures import row  # imported late: `figures` imports this module

    return row(*args, **more)


def _identity(r: Any) -> Any:
    return 1.0 * r


def _quietly(solver: Solver, *args: Any, **options: Any) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return solver(*args, **options)


def _relative(A: Any, b: np.ndarray, x: np.ndarray) -> float:
    """The largest relative residual of the columns, in double precision whatever the solver worked in."""
    wide = np.result_type(b.dtype, np.float64)
    b = b.astype(wide)
    residual = np.linalg.norm(b - A.astype(wide) @ x.astype(wide), axis=0)
    return float(np.max(residual / np.linalg.norm(b, axis=0)))


# ---- 11: honesty


@dataclass
class Tally:
    """Of one solver over all systems; ``worst`` is the largest true residual behind a claim, over the tolerance."""

    runs: int = 0
    claims: int = 0
    solved: int = 0
    false: int = 0
    outside: int = 0
    raised: int = 0
    worst: float = 0.0
    misled: list[str] = field(default_factory=list)

    def add(self, name: str, claimed: bool, ratio: float, suits: bool) -> None:
        self.runs += 1
        if not claimed:
            return
        self.claims += 1
        self.worst = max(self.worst, ratio if np.isfinite(ratio) else np.inf)
        if ratio <= 1.01:
            self.solved += 1
            return
        self.false += 1
        self.outside += not suits
        self.misled.append(name)

    def note(self) -> str:
        text = f"solved {self.solved} of {self.runs}"
        if self.raised:
            text += f", raised {self.raised}"
        if self.false:
            text += f"; {self.outside} of the false ones on matrices the method is not for; {', '.join(self.misled)}"
        return text


def _block(A: Any, b: np.ndarray, **options: Any) -> Any:
    return linear.block_cg(A, np.stack([b, b[::-1]], axis=1), **options)


# Name: solver, and what the matrix must be for it.
OURS: dict[str, tuple[Solver, str]] = {
    "cg": (linear.cg, "positive"),
    "flexible_cg, M=1": (lambda A, b, **o: linear.flexible_cg(A, b, M=_identity, **o), "positive"),
    "block_cg, two columns": (_block, "positive"),
    "mixed_cg": (linear.mixed_cg, "positive"),
    "minres": (linear.minres, "hermitian"),
    "gmres": (linear.gmres, ""),
    "fgmres, M=1": (lambda A, b, **o: linear.fgmres(A, b, M=_identity, **o), ""),
    "bicgstab": (linear.bicgstab, ""),
    "tfqmr": (linear.tfqmr, ""),
}


def _systems() -> Iterator[tuple[str, Any, np.ndarray, float, dict[str, bool]]]:
    """SciPy's cases in both precisions, and the float32 systems on which a recurrence drifts from the truth."""
    for dtype, rtol in ((np.float64, 1e-8), (np.float32, 1e-2)):
        for case in krylov_cases(xp=np, dtype=dtype):
            kind = {"hermitian": case.hermitian, "positive": case.positive}
            yield f"{case.name} {np.dtype(dtype).name}", case.A, case.b, rtol, kind
    positive = {"hermitian": True, "positive": True}
    A, b = poisson(127)
    for rtol in (1e-5, 1e-6, 1e-7):
        yield f"Poisson 127^2 float32 {rtol:g}", A.astype(np.float32), b.astype(np.float32), rtol, positive
    K, y = kernel(0.1)
    A = (K + 1e-3 * np.eye(len(y))).astype(np.float32)
    yield "kernel(.1,1e-3) float32 1e-06", A, y.astype(np.float32), 1e-6, positive


def honesty(most: int = 2000) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """Every solver of ours and of SciPy on every system; a run has at most ``10 n`` and ``most`` iterations."""
    theirs: dict[str, tuple[Solver, str]] = {
        "cg": (spla.cg, "positive"), "minres": (spla.minres, "hermitian"), "gmres": (spla.gmres, ""),
        "bicgstab": (spla.bicgstab, ""), "tfqmr": (spla.tfqmr, ""),
    }  # fmt: skip
    tallies: tuple[dict[str, Tally], dict[str, Tally]] = {n: Tally() for n in OURS}, {n: Tally() for n in theirs}
    for what, A, b, rtol, kind in _systems():
        limit = min(10 * len(b), most)
        for name, (solver, need) in OURS.items():
            if name == "mixed_cg" and b.dtype not in (np.float64, np.complex128):
                continue
            result = _quietly(solver, A, b, rtol=rtol, maxiter=limit)
            B = b if result.x.ndim == 1 else np.stack([b, b[::-1]], axis=1)
            ratio = _relative(A, B, result.x) / rtol
            tallies[0][name].add(what, result.converged, ratio, not need or kind[need])
        for name, (solver, need) in theirs.items():
            cycles = {"restart": 30, "maxiter": -(-limit // 30)} if name == "gmres" else {"maxiter": limit}
            try:
                x, info = _quietly(solver, A, b, rtol=rtol, **cycles)
            except Exception:
                tallies[1][name].raised += 1
                tallies[1][name].runs += 1
                continue
            tallies[1][name].add(what, info == 0, _relative(A, b, x) / rtol, not need or kind[need])
    return tallies


def figure_11(repeats: int) -> Iterator[Row]:
    """Claims of convergence whose true residual is above the tolerance: none of ours, whatever the matrix."""
    ours, theirs = honesty()
    for name, tally in ours.items():
        what = f"false claims of {name} in {tally.runs} runs"
        yield _row(11, what, float(tally.false), "<= 0", error=tally.worst, note=tally.note())
    for name, tally in theirs.items():
        what = f"false claims of SciPy's {name} in {tally.runs} runs"
        yield _row(11, what, float(tally.false), peer_error=tally.worst, note=tally.note())


# ---- 12: counts


def _matrices() -> Iterator[tuple[str, Any, np.ndarray, bool]]:
    """Name, matrix, right-hand side, whether it is positive (semi-)definite."""
    yield "Poisson 63^2", *poisson(63), True
    try:
        from pyamg.gallery import load_example
    except ImportError:
        return
    names = ("airfoil", "bar", "unit_square", "knot", "local_disc_galerkin_diffusion", "recirc_flow")
    for name in names:
        A = sp.csr_array(load_example(name)["A"])
        yield name, A, A @ np.random.default_rng(0).standard_normal(A.shape[0]), name != "recirc_flow"


def scipy_count(name: str, A: Any, b: np.ndarray, rtol: float, most: int, restart: int = 0) -> tuple[int, bool]:
    """SciPy's (inner) iterations, and whether it converged.

    They are counted by its callback, BiCGStab's by products with ``A``: it may end on half a step and not call back.
    """
    steps, products = 0, 0

    def multiply(v: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return np.asarray(A @ v)

    def tick(_: Any) -> None:
        nonlocal steps
        steps += 1

    counted = spla.LinearOperator(A.shape, multiply, dtype=A.dtype)
    if name == "gmres":
        options: dict[str, Any] = {"restart": restart, "maxiter": -(-most // restart), "callback_type": "pr_norm"}
        _, info = _quietly(spla.gmres, counted, b, rtol=rtol, callback=tick, **options)
    else:
        _, info = _quietly(getattr(spla, name), counted, b, rtol=rtol, maxiter=most, callback=tick)
    return (-(-products // 2) if name == "bicgstab" else steps), info == 0


def minres_like_gmres(steps: int = 40) -> float:
    """Largest relative difference of the residual histories on a symmetric indefinite matrix."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    A, b = (Q * np.linspace(1, 20, 200) * rng.choice([-1.0, 1.0], 200)) @ Q.T, rng.standard_normal(200)
    A = 0.5 * (A + A.T)
    first = np.asarray(linear.minres(A, b, rtol=1e-6).history[: steps + 1])
    second = np.asarray(linear.gmres(A, b, rtol=1e-6, restart=200).history[: steps + 1])
    return float(np.max(np.abs(first / second - 1)))


def figure_12(repeats: int, rtol: float = 1e-8, most: int = 3000) -> Iterator[Row]:
    """Iterations beside SciPy's, to the same residual."""
    for what, A, b, positive in _matrices():
        variants = ([("cg", 0)] if positive else []) + [("gmres", m) for m in (20, 40, 80)] + [("bicgstab", 0)]
        for name, restart in variants:
            options = {"restart": restart} if restart else {}
            result = _quietly(getattr(linear, name), A, b, rtol=rtol, maxiter=most, **options)
            count, converged = scipy_count(name, A, b, rtol, most, restart)
            note = f"{result.n_iter} against {count}"
            if not converged and not result.converged:
                note += f"; neither converges within {most}"
            elif not (converged and result.converged):
                note += f"; only {'SciPy' if converged else 'xpsolve'} converges"
            away = abs(result.n_iter / count - 1)
            label = f"{name}({restart})" if restart else name
            error = _relative(A, b, result.x)
            yield _row(12, f"|iterations / SciPy's - 1|, {label}, {what}", away, "<= 0.02", error=error, note=note)
    yield _row(12, "MINRES against GMRES, residuals of 40 steps, indefinite", minres_like_gmres(), "<= 1e-10")


# ---- 14: block methods


def figure_14(repeats: int, rtol: float = 1e-8) -> Iterator[Row]:
    """What a common Krylov space saves on a dense kernel matrix, in passes over it and in time."""
    K, y = kernel(0.1)
    A = K + 1e-3 * np.eye(len(y))
    for k, target in ((16, "<= 70"), (64, "<= 20")):
        B = np.random.default_rng(0).standard_normal((len(y), k))
        result = _quietly(linear.block_cg, A, B, rtol=rtol)
        what = f"block CG iterations, kernel(.1, 1e-3), k={k}"
        yield _row(14, what, result.n_iter, target, error=_relative(A, B, result.x))
    B = np.random.default_rng(0).standard_normal((len(y), 16))
    runs = {
        "xpsolve": lambda: linear.block_cg(A, B, rtol=rtol).x,
        "scipy": lambda: np.stack([spla.cg(A, B[:, j], rtol=rtol)[0] for j in range(16)], axis=1),
    }
    times = interleaved(runs, min(repeats, 3))
    (seconds, X), (peer, Z) = times["xpsolve"], times["scipy"]
    errors = {"error": _relative(A, B, X), "peer_error": _relative(A, B, Z)}
    yield _row(14, "loop of SciPy's cg / block CG, k=16", peer / seconds, ">= 5", seconds=seconds, **errors)
    plain = linear.cg(A, y, rtol=rtol).n_iter
    result = linear.enlarged_cg(A, y, t=16, rng=0, rtol=rtol)
    yield _row(
        14, "passes of enlarged CG (t=16) / of CG", result.n_iter / plain, "<= 0.1", error=_relative(A, y, result.x),
        note=f"{result.n_iter} against {plain}",
    )  # fmt: skip
    shifts = [1e-1, 1e-2, 1e-3]
    path = linear.regularization_path(K, y, shifts, t=16, rng=0, rtol=rtol)
    alone = [linear.cg(K + mu * np.eye(len(y)), y, rtol=rtol).n_iter for mu in shifts]
    error = max(path.residual_norms) / float(np.linalg.norm(y))
    note = f"mu=1e-1, 1e-2, 1e-3 together; CG alone: {', '.join(map(str, alone))}"
    yield _row(14, "passes of the regularisation path (t=16)", path.n_iter, error=error, note=note)


# ---- 18: mixed precision


def darcy(a: np.ndarray) -> sp.csr_array:
    """``-div(a grad u)`` times ``h^2``, from the node values ``a`` (s+2, s+2) with harmonic means on the faces."""
    s = a.shape[0] - 2
    down, across = 2 * a[1:] * a[:-1] / (a[1:] + a[:-1]), 2 * a[:, 1:] * a[:, :-1] / (a[:, 1:] + a[:, :-1])
    north, south, west, east = down[:-1, 1:-1], down[1:, 1:-1], across[1:-1, :-1], across[1:-1, 1:]
    side = east.copy()
    side[:, -1] = 0.0  # no neighbour beyond the end of a row
    side, under = side.ravel()[:-1], south.ravel()[:-s]
    diagonals = [(north + south + west + east).ravel(), -side, -side, -under, -under]
    return sp.csr_array(sp.diags_array(diagonals, offsets=[0, 1, -1, s, -s]))


def figure_18(repeats: int) -> Iterator[Row]:
    """Iterations that float32 costs over float64, to a residual only float64 can hold."""
    A, b = poisson(127)
    wide, mixed = linear.cg(A, b, rtol=1e-12), linear.mixed_cg(A, b, rtol=1e-12)

    def note(mixed: Any, wide: Any) -> str:
        return f"{mixed.n_iter} against {wide.n_iter}; {mixed.evaluations['matvec']} products in float64"

    yield _row(
        18, "mixed CG / float64 CG iterations, Poisson 127^2, 1e-12", mixed.n_iter / wide.n_iter, "<= 1.25",
        error=_relative(A, b, mixed.x), peer_error=_relative(A, b, wide.x), note=note(mixed, wide),
    )  # fmt: skip
    a = np.ones((129, 129))
    a[32:96, 32:96] = 1e4
    A, rng = darcy(a), np.random.default_rng(0)
    b, x0 = rng.standard_normal(127**2), rng.standard_normal(127**2)
    start = float(np.linalg.norm(b - A @ x0))
    for tol in (1e-8, 1e-12):
        options: dict[str, Any] = {"x0": x0, "rtol": 0.0, "atol": tol * start}
        wide = _quietly(linear.cg, A, b, M=jacobi(A), **options)
        mixed = _quietly(linear.mixed_cg, A, b, M=jacobi(A.astype(np.float32)), **options)
        errors = [float(np.linalg.norm(b - A @ result.x)) / start for result in (mixed, wide)]
        ended = "" if mixed.converged and wide.converged else f"; {mixed.status.name} and {wide.status.name}"
        yield _row(
            18, f"mixed CG / float64 CG iterations, coefficient jump 1e4, Jacobi, {tol:g} ||r0||", mixed.n_iter / wide.n_iter,
            error=errors[0], peer_error=errors[1], note=note(mixed, wide) + ended,
        )  # fmt: skip

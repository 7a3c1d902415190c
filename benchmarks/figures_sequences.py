"""Figures 15 and 16 of the linear family: sequences that remember, and batches of diffusion problems.

Products include those that renew the kept images; `GMRES(40)` is our own, whose counts are SciPy's (figure 12).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import scipy.sparse.linalg as spla
from xpsolve.problems import (
    LinearSequence,
    convection_diffusion_sequence,
    darcy_sequence,
    helmholtz_sequence,
    published_darcy_sequence,
    two_parameter_darcy_sequence,
)
from xpsolve.solvers.linear import SequenceResult, solve_diffusion, solve_sequence

from .timing import interleaved

Row = dict[str, Any]


def _row(*args: Any, **more: Any) -> Row:
    from .figures import row  # imported late: `figures` imports this module

    return row(*args, **more)


@cache
def _family(name: str) -> LinearSequence:
    return {
        "Darcy": lambda: darcy_sequence(xp=xp),
        "published Darcy": lambda: published_darcy_sequence(xp=xp),
        "Helmholtz k0=8": lambda: helmholtz_sequence(8.0, xp=xp),
        "Helmholtz k0=16": lambda: helmholtz_sequence(16.0, xp=xp),
        "two-parameter Darcy": lambda: two_parameter_darcy_sequence(xp=xp),
        "convection-diffusion": lambda: convection_diffusion_sequence(xp=xp),
    }[name]()


def _run(name: str, method: str, order: str = "given", **options: Any) -> SequenceResult:
    sequence = _family(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return solve_sequence(sequence, sequence.parameters, method=method, order=order, **options)


def _mean(done: SequenceResult) -> float:
    return done.matvecs / len(done)


def _says(done: SequenceResult) -> str:
    return f"{_mean(done):.1f} products a system" + ("" if done.converged else ", not all converged")


def figure_15(repeats: int) -> Iterator[Row]:
    """Recycling and sorting, in products a system over those without."""
    for name, rtol, target in (
        ("Darcy", 1e-5, "<= 0.38"),
        ("Darcy", 1e-8, "<= 0.38"),
        ("published Darcy", 1e-5, "<= 0.09"),
        ("published Darcy", 1e-8, "<= 0.09"),
        ("Helmholtz k0=8", 1e-5, "<= 0.06"),
    ):
        plain = _run(name, "gmres", rtol=rtol, restart=40, maxiter=10_000)
        ours = _run(name, "gcrodr", rtol=rtol)
        steps = sum(result.n_iter for result in plain.results)
        # The images of the kept space count; the products that check a result do not, on either side.
        recycled = sum(result.n_iter for result in ours.results) + 20 * (len(ours) - 1)
        note = f"GMRES {steps / len(plain):.1f}, GCRO-DR {recycled / len(ours):.1f} iterations"
        note += "" if plain.converged else " (some GMRES runs stopped at 10000)"
        yield _row(15, f"GCRO-DR(40, 20) / GMRES(40), {name}, rtol {rtol:g}", recycled / steps, target, note=note)
    theirs = _gcrotmk("Darcy", 1e-8)
    ours = _run("Darcy", "gcrodr", rtol=1e-8)
    note = f"{_says(ours)}, SciPy's gcrotmk with recycling {theirs:.1f}"
    yield _row(15, "GCRO-DR / gcrotmk, products, Darcy, rtol 1e-08", _mean(ours) / theirs, "<= 0.85", note=note)
    for name, target in (
        ("convection-diffusion", "<= 0.9"),
        ("two-parameter Darcy", "<= 0.9"),
        ("Darcy", "<= 1.02"),
    ):
        given, greedy = _run(name, "gcrodr", rtol=1e-8), _run(name, "gcrodr", "greedy", rtol=1e-8)
        note = f"{_says(greedy)}, unsorted {_mean(given):.1f}"
        yield _row(15, f"sorted / unsorted, {name}, rtol 1e-08", _mean(greedy) / _mean(given), target, note=note)
    # Symmetric systems deserve symmetric solvers: what they need beside the figure of the general one.
    for name, method, plain_method, options in (
        ("Darcy", "deflated_cg", "cg", {}),
        ("Helmholtz k0=8", "recycled_minres", "minres", {}),
        ("Helmholtz k0=16", "recycled_minres", "minres", {"k": 40, "ell": 80}),
    ):
        plain, ours = _run(name, plain_method, rtol=1e-5), _run(name, method, "greedy", rtol=1e-5, **options)
        note = f"{_says(ours)}, without memory {_mean(plain):.1f}"
        yield _row(15, f"{method} / {plain_method}, {name}, rtol 1e-05", _mean(ours) / _mean(plain), note=note)


def _gcrotmk(name: str, rtol: float) -> float:
    """Products a system of SciPy's flexible GCROT with a recycled space, at the same true tolerance."""
    kept: list[Any] = []
    products = 0

    for A, b in _family(name):

        def counted(v: Any, A: Any = A) -> Any:
            nonlocal products
            products += 1
            return A @ v

        operator = spla.LinearOperator(A.shape, counted, dtype=b.dtype)
        spla.gcrotmk(operator, b, rtol=rtol, atol=0.0, m=20, k=20, CU=kept, discard_C=True, maxiter=500)
    return products / len(_family(name))


def figure_16(repeats: int) -> Iterator[Row]:
    """A data set of diffusion problems: time a system of the best peer over ours, set-up included."""
    for s, count, target in ((50, 64, ">= 3"), (127, 16, ">= 4")):
        data = darcy_sequence(s, count, xp=xp)
        rhs = np.asarray(data.rhs[0]).ravel()
        few = min(count, 8)
        matrices = [data.matrix(i).to_scipy() for i in range(few)]

        def ours(data: LinearSequence = data) -> Any:
            return solve_diffusion(data.field, data.rhs, rtol=1e-8).x

        def direct(matrices: Any = matrices, rhs: Any = rhs) -> Any:
            return [spla.spsolve(A.tocsc(), rhs) for A in matrices]

        def krylov(matrices: Any = matrices, rhs: Any = rhs) -> Any:
            return [spla.cg(A, rhs, rtol=1e-8)[0] for A in matrices]

        def multigrid(matrices: Any = matrices, rhs: Any = rhs) -> Any:
            import pyamg

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return [pyamg.ruge_stuben_solver(A).solve(rhs, tol=1e-8, accel="cg") for A in matrices]

        runs = {"xpsolve": ours, "spsolve": direct, "SciPy cg": krylov}
        try:
            import pyamg  # noqa: F401

            runs["PyAMG"] = multigrid
        except ImportError:
            pass
        times = interleaved(runs, min(repeats, 5))
        each = {name: seconds / (count if name == "xpsolve" else few) for name, (seconds, _) in times.items()}
        best = min((name for name in each if name != "xpsolve"), key=each.__getitem__)
        exact = np.stack(times["spsolve"][1])
        error = np.abs(times["xpsolve"][1][:few].reshape(few, -1) - exact).max() / np.abs(exact).max()
        note = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in each.items()) + f"; best peer {best}"
        what = f"best peer / batched generator, time a system, s={s}, N={count}"
        yield _row(16, what, each[best] / each["xpsolve"], target, error=float(error), note=note)
    yield from _soberly(repeats)


def _soberly(repeats: int) -> Iterator[Row]:
    """The same 30 systems by every driver: what recycling is worth beside a preconditioner that knows the equation."""
    data = _family("Darcy")

    def batched() -> Any:
        return solve_diffusion(data.field, data.rhs, rtol=1e-8)

    runs: dict[str, Any] = {"batched": batched}
    for method, order in (("cg", "given"), ("deflated_cg", "greedy"), ("gcrodr", "greedy"), ("gmres", "given")):
        options = {"restart": 40} if method == "gmres" else {}
        runs[f"{method}, {order}"] = lambda method=method, order=order, options=options: _run(
            "Darcy", method, order, rtol=1e-8, **options
        )
    times = interleaved(runs, min(repeats, 3))
    base = times["batched"][0]
    for name, (seconds, _) in times.items():
        if name != "batched":
            yield _row(16, f"{name} / batched generator, time, Darcy s=50, N=30", seconds / base, note="rtol 1e-08")

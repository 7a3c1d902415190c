"""The figures the project promises, each measured against its floor or peer in the same run; 1 to 6 are those of the ground.

Times are minima of interleaved runs in process CPU time on one core. Figure 7 is the colour transfer of the report. Figures
11 to 20 are those of the linear family, 1x its figure x, in modules of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from . import cases
from .machine import ROOT, describe
from .timing import interleaved

Row = dict[str, Any]
N = 4096
GRID = [(d, dtype) for dtype in ("float32", "float64") for d in (3, 16, 64)]


def row(figure: int, what: str, measured: float | None, target: str = "", **more: Any) -> Row:
    """One line of the table. ``target`` reads ``<= 1.35``, ``>= 3.5`` or nothing for a line that only informs."""
    met = None
    if target and measured is not None:
        sign, bound = target.split()
        met = measured <= float(bound) if sign == "<=" else measured >= float(bound)
    more = {"error": None, "peer_error": None, "note": ""} | more
    return {"figure": figure, "what": what, "measured": measured, "target": target, "met": met} | more


def _data(d: int, dtype: str, n: int = N) -> cases.Data:
    data = cases.points(n, d, dtype)
    data["sum"], _ = cases._exact(data)
    return data


def _error(data: cases.Data, answer: Any) -> float:
    return cases.relative_error(data["sum"], cases.host(answer)[: data["sum"].shape[0]])


def figure_1(repeats: int, n: int = N) -> Iterator[Row]:
    """Kernel sum with plain NumPy over the floor: exp in cache plus the GEMM of the exponents, tile by tile."""
    for d, dtype in GRID:
        data = _data(d, dtype, n)
        # Two buffers of 64 x 512 stay in a core's own cache; GEMM is at its best on a larger tile.
        tile, left, right = np.full((64, 512), -1.0, dtype), np.ones((512, d), dtype), np.ones((d, 512), dtype)
        out, product = np.empty_like(tile), np.empty((512, 512), dtype)

        def exp_floor(tile: Any = tile, out: Any = out) -> None:
            for _ in range(n * n // tile.size):
                np.exp(tile, out=out)

        def gemm_floor(left: Any = left, right: Any = right, product: Any = product) -> None:
            for _ in range(n * n // product.size):
                np.matmul(left, right, out=product)

        run = cases.ours("sum", engine="numpy")(data)
        times = interleaved({"xpsolve": run, "exp": exp_floor, "gemm": gemm_floor}, repeats)
        ratio = times["xpsolve"][0] / (times["exp"][0] + times["gemm"][0])
        target = "<= 1.35" if dtype == "float32" else "<= 1.2"
        what = f"kernel sum / (exp + gemm), d={d}, {dtype}"
        yield row(1, what, ratio, target, error=_error(data, times["xpsolve"][1]), seconds=times["xpsolve"][0])


_FLAGS = {"default": None, "tuned": "-march=native -ffast-math"}
_KEOPS_TARGETS = {"default": {3: 3.5, 16: 6.0, 64: 12.0}, "tuned": {3: 2.2, 16: 2.5, 64: 2.7}}


def figure_2(repeats: int, n: int = N) -> Iterator[Row]:
    """Against PyKeOps with its default and with tuned flags: one process each, for flags are read at import."""
    for name, flags in _FLAGS.items():
        cache = Path(tempfile.gettempdir()) / f"xpsolve-keops-{name}"
        cache.mkdir(exist_ok=True)
        environment = os.environ | {"KEOPS_CACHE_FOLDER": str(cache), "KEOPS_VERBOSE": "0"}
        environment.pop("CXXFLAGS", None)
        if flags:
            environment["CXXFLAGS"] = flags
        answers = _child(f"from benchmarks.figures import keops_child; keops_child({repeats}, {n})", environment)
        if isinstance(answers, str):
            yield row(2, f"against PyKeOps, {name} flags", None, note=answers)
            continue
        for answer in answers:
            d, dtype, engine = answer["d"], answer["dtype"], answer["engine"]
            bound = _KEOPS_TARGETS[name][d]
            target = f">= {bound}" if dtype == "float32" and engine == "numpy" else ""
            what = f"PyKeOps ({name} flags) / xpsolve ({engine}), d={d}, {dtype}"
            yield row(2, what, answer["ratio"], target, error=answer["error"], peer_error=answer["peer_error"])


def keops_child(repeats: int, n: int = N) -> None:
    """Measure both sides in this process and print one line of JSON."""
    answers = []
    for d, dtype in GRID:
        data = _data(d, dtype, n)
        engines = {"numpy": cases.ours("sum", engine="numpy")(data)}
        if find_spec("numba"):
            engines["numba"] = cases.ours("sum", engine="numba")(data)
        times = interleaved(engines | {"keops": cases.pykeops("sum")(data)}, repeats)
        for engine in engines:
            answers.append(
                {
                    "d": d,
                    "dtype": dtype,
                    "engine": engine,
                    "ratio": times["keops"][0] / times[engine][0],
                    "error": _error(data, times[engine][1]),
                    "peer_error": _error(data, times["keops"][1]),
                }
            )
    print("\n" + json.dumps(answers))


def figure_3(repeats: int, n: int = N) -> Iterator[Row]:
    """The numba engine against a jitted JAX implementation."""
    for d, dtype in GRID:
        data = _data(d, dtype, n)
        what = f"JAX / xpsolve (numba), d={d}, {dtype}"
        try:
            sides = {"xpsolve": cases.ours("sum", engine="numba")(data), "jax": cases.jax_blocks(data)}
            for run in sides.values():
                run()
        except ImportError as err:
            yield row(3, what, None, ">= 1.15", note=f"not installed: {err}")
            continue
        times = interleaved(sides, repeats)
        errors = {"error": _error(data, times["xpsolve"][1]), "peer_error": _error(data, times["jax"][1])}
        yield row(3, what, times["jax"][0] / times["xpsolve"][0], ">= 1.15", **errors)


def figure_4(repeats: int, n: int = N, passes: int = 20) -> Iterator[Row]:
    """Twenty passes over one kernel: what the planner chooses against recomputing in NumPy; set-up included."""
    from xpsolve.backends.pairs import Pairs, gaussian

    for d, dtype in GRID:
        data = _data(d, dtype, n)

        def sweep(data: cases.Data = data, **options: Any) -> Any:
            pairs = Pairs(data["x"], data["y"], gaussian(data["h"]), threads=1, **options)
            return [pairs.sum(data["v"]) for _ in range(passes)][-1]

        plan = Pairs(data["x"], data["y"], gaussian(data["h"]), threads=1, passes=passes).plan()
        matrix = np.ones((n, n), dtype=dtype)
        runs = {
            "planner": lambda sweep=sweep: sweep(passes=passes),
            "numpy": lambda sweep=sweep: sweep(engine="numpy"),
            # What memory allows: the products alone, with a matrix that is there already.
            "products": lambda A=matrix, v=data["v"]: [A @ v for _ in range(passes)],
        }
        times = interleaved(runs, min(repeats, 3))
        what = f"{passes} passes recomputed / planned ({plan.engine}), d={d}, {dtype}"
        errors = {"error": _error(data, times["planner"][1]), "peer_error": _error(data, times["numpy"][1])}
        target = ">= 6" if dtype == "float32" else ">= 8"
        note = f"{passes} products with a matrix already in memory would give {times['numpy'][0] / times['products'][0]:.2f}"
        yield row(4, what, times["numpy"][0] / times["planner"][0], target, note=note, **errors)


def figure_5(repeats: int) -> Iterator[Row]:
    """Conjugate gradients: cost of an iteration, equal counts on every backend, honest flags."""
    from .figures_cg import counts, honesty, overhead

    for name, ratio in overhead(repeats).items():
        note = "" if ratio is not None else "too noisy to tell: repeat on a quieter machine"
        yield row(5, f"CPU per iteration, xpsolve / SciPy, {name}", ratio, "<= 1.2", note=note)
    found = counts()
    yield row(
        5, "spread of iteration counts over backends", float(max(found.values()) - min(found.values())), "<= 1",
        note=", ".join(f"{name} {count}" for name, count in found.items()),
    )  # fmt: skip
    ours, theirs, systems = honesty()
    note = f"{ours['converged']} of {systems} converged (SciPy says {theirs['converged']}, {theirs['false']} falsely)"
    what = f"false claims of convergence, {systems} float32 systems"
    yield row(5, what, float(ours["false"]), "<= 0", error=ours["worst"], peer_error=theirs["worst"], note=note)


_MEMORY = """
import json, resource, tracemalloc, numpy as np
from xpsolve.backends.pairs import Pairs, gaussian
rng = np.random.default_rng(0)
x, y = rng.random(({n}, 3), dtype=np.float32), rng.random(({n}, 3), dtype=np.float32)
Pairs(x[:300], y[:300], gaussian(0.25), engine="{engine}").logsumexp()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tracemalloc.start()
Pairs(x, y, gaussian(0.25), engine="{engine}").logsumexp()
peak = tracemalloc.get_traced_memory()[1]
print("\\n" + json.dumps([peak / 1e6, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6]))
"""
_IMPORT = """
import json, sys, time, numpy
start = time.process_time()
import xpsolve
{more}
seconds = time.process_time() - start
names = ("torch", "jax", "cupy", "pykeops", "numba", "dask")
print(json.dumps([seconds, [name for name in names if name in sys.modules]]))
"""
_ROOMS = "import xpsolve.solvers.linear, xpsolve.solvers.ot, xpsolve.solvers.kde, xpsolve.backends.pairs"


def figure_6(repeats: int, n: int = 20_000) -> Iterator[Row]:
    """Memory added by a large log-sum-exp; cost and company of an import."""
    for engine in ("auto", "numpy"):
        answer = _child(_MEMORY.format(n=n, engine=engine))
        what = f"MB added by log-sum-exp {n} x {n}, float32, engine={engine}"
        if isinstance(answer, str):
            yield row(6, what, None, "<= 50", note=answer)
            continue
        for measure, value in zip(("tracemalloc", "growth of peak resident memory"), answer, strict=True):
            yield row(6, f"{what} ({measure})", value, "<= 50")
    for what, more in (("import xpsolve", ""), ("import of every room", _ROOMS)):
        answers = [_child(_IMPORT.format(more=more)) for _ in range(min(repeats, 5))]
        if isinstance(answers[0], str):
            yield row(6, what, None, note=answers[0])
            continue
        yield row(6, f"CPU seconds beyond NumPy, {what}", min(a[0] for a in answers), "<= 0.25")
        loaded = answers[0][1]
        yield row(6, f"heavy modules loaded, {what}", float(len(loaded)), "<= 0", note=", ".join(loaded))


def _child(code: str, environment: dict[str, str] | None = None) -> Any:
    """Last line of a child's output as JSON, or a sentence saying why there is none."""
    environment = dict(environment or os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return f"failed: {lines[-1]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def _of(number: int, *modules: str) -> Callable[..., Iterator[Row]]:
    """``figure_<number>`` of modules that are imported when the figure is measured."""

    def figure(repeats: int) -> Iterator[Row]:
        for module in modules:
            yield from getattr(import_module(f".{module}", __package__), f"figure_{number}")(repeats)

    return figure


# Figure 1x is figure x of the linear family, 2x of optimal transport.
_OTHERS = {
    11: ("figures_linear",),
    12: ("figures_linear",),
    13: ("figures_linear_speed",),
    14: ("figures_linear",),
    15: ("figures_sequences", "figures_sequences_block"),
    16: ("figures_sequences",),
    17: ("figures_linear_precond",),
    18: ("figures_linear", "figures_linear_sketch"),
    19: ("figures_linear_precond", "figures_linear_structured"),
    20: ("figures_strict",),
    **dict.fromkeys((21, 22, 23, 24, 25), ("figures_ot_newton",)),
    26: ("figures_ot_cloud", "figures_ot_relaxed"),
    27: ("figures_ot_cloud",),
    28: ("figures_ot_gradients",),
}
FIGURES: dict[int, Callable[..., Iterator[Row]]] = {
    1: figure_1, 2: figure_2, 3: figure_3, 4: figure_4, 5: figure_5, 6: figure_6,
    **{number: _of(number, *modules) for number, modules in _OTHERS.items()},
}  # fmt: skip


def run_figures(numbers: list[int], out: Path, repeats: int) -> list[Row]:
    """Measure the chosen figures, print the table, write the JSON."""
    rows: list[Row] = []
    print(
        "a ratio of times is peer / xpsolve or xpsolve / peer as its words say; error: of our answer; theirs: of the peer's"
    )
    print(f"{'fig':3} {'what':75} {'measured':>9} {'target':>8} {'met':4} {'error':>8} {'theirs':>8}  note")
    for number in numbers:
        try:
            for line in FIGURES[number](repeats):
                rows.append(line)
                show(line)
        except Exception as err:
            rows.append(row(number, f"figure {number}", None, note=f"failed: {type(err).__name__}: {err}"))
            show(rows[-1])
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": describe(), "clock": "process CPU time, minima of interleaved runs, one core", "rows": rows}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"figures: {out}")
    return rows


def show(line: Row) -> None:
    """Print one line of the table."""
    cells = ["-" if line[k] is None else f"{line[k]:.2g}" for k in ("error", "peer_error")]
    measured = "-" if line["measured"] is None else f"{line['measured']:.3g}"
    met = {True: "yes", False: "NO", None: "-"}[line["met"]]
    text = f"{line['figure']:<3} {line['what']:75} {measured:>9} {line['target']:>8} {met:4} "
    print(f"{text}{cells[0]:>8} {cells[1]:>8}  {line['note']}", flush=True)

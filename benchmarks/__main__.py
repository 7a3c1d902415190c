"""Command line: ``python -m benchmarks report``, ``python -m benchmarks figures`` and ``python -m benchmarks compare``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .machine import limit_threads, pin_to_one_core

# Known before NumPy is imported; the functions are in `figures.FIGURES`.
FIGURE_FAMILIES = {"ground": (1, 2, 3, 4, 5, 6), "linear": tuple(range(11, 21)), "ot": tuple(range(21, 29))}

COMPARED = ("stored", "cloud", "grid", "unbalanced", "divergence", "barycenter", "robustness")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="run the real jobs and the comparisons; write one HTML page")
    report.add_argument("--families", default="pairs,linear,ot,kde", help="comma-separated (default: %(default)s)")
    report.add_argument("--backend", default="numpy", choices=("numpy", "torch", "cupy"))
    report.add_argument("--quick", action="store_true", help="smaller problems: under three minutes on two cores")
    report.add_argument("--threads", type=int, default=1, help="for every library alike (default: %(default)s)")
    report.add_argument("--out", default="report", help="folder to write (default: %(default)s)")
    figures = commands.add_parser("figures", help="measure the figures that the project promises")
    figures.add_argument(
        "--out", default="benchmarks/results/figures.json", help="file to write (default: %(default)s)"
    )
    numbers = "; ".join(f"{name}: {', '.join(map(str, of))}" for name, of in FIGURE_FAMILIES.items())
    figures.add_argument(
        "--families",
        default=",".join(FIGURE_FAMILIES),
        help=f"comma-separated (default: %(default)s); the figures of {numbers}",
    )
    figures.add_argument("--only", help="numbers of figures, of whatever family (default: all of the families)")
    figures.add_argument("--repeats", type=int, default=9, help="interleaved repetitions (default: %(default)s)")
    compare = commands.add_parser(
        "compare", help="optimal transport beside POT, regot, GeomLoss and OTT, and robustness"
    )
    compare.add_argument("--families", default=",".join(COMPARED), help="comma-separated (default: %(default)s)")
    compare.add_argument("--quick", action="store_true", help="one small problem a family: to see that everything runs")
    compare.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="CPU seconds that a solver gets on a problem before it is given up (default: %(default)s)",
    )
    compare.add_argument("--out", default="report/compare", help="folder of the page (default: %(default)s)")
    compare.add_argument(
        "--results", default="benchmarks/results/compare-ot.json", help="file of the rows (default: %(default)s)"
    )
    options = parser.parse_args(arguments)

    # Before anything imports NumPy: BLAS libraries read their number of threads once.
    if options.command == "report":
        families = [name for name in options.families.split(",") if name]
        unknown = sorted(set(families) - {"pairs", "linear", "ot", "kde"})
        if unknown:
            parser.error(f"unknown families: {', '.join(unknown)}")
        limit_threads(options.threads)
        from .report import run_report

        page = run_report(families, backend=options.backend, quick=options.quick, out=options.out)
        print(f"report: {page}")
        return
    if options.command == "compare":
        families = [name for name in options.families.split(",") if name]
        unknown = sorted(set(families) - set(COMPARED))
        if unknown:
            parser.error(f"unknown families: {', '.join(unknown)}")
        limit_threads(1)
        pin_to_one_core()
        from .compare_ot import run_comparison

        page = run_comparison(
            families, quick=options.quick, seconds=options.seconds, out=options.out, results=options.results
        )
        print(f"comparison: {page} and {options.results}")
        return
    if options.only:
        wanted = [int(n) for n in options.only.split(",") if n]
    else:
        families = [name for name in options.families.split(",") if name]
        unknown = sorted(set(families) - set(FIGURE_FAMILIES))
        if unknown:
            parser.error(f"unknown families: {', '.join(unknown)}")
        wanted = [n for name in families for n in FIGURE_FAMILIES[name]]
    unknown_numbers = sorted(set(wanted) - {n for of in FIGURE_FAMILIES.values() for n in of})
    if unknown_numbers:
        parser.error(f"unknown figures: {', '.join(map(str, unknown_numbers))}")
    limit_threads(1)
    pin_to_one_core()
    from .figures import run_figures

    run_figures(wanted, Path(options.out), options.repeats)


if __name__ == "__main__":
    main()

"""Draw the curve over ω of a sweep, or of a tuning of ω, from its stored files.

    cptlab omega-curve logs/evaluate/multiruns/<time>      (a sweep: evaluate.py -m decoding.omega=…)
    cptlab omega-curve logs/omega/runs/<time>              (what cptlab omega tried)

Several directories are read as one sweep; those of several models give a curve for each, in one figure. Writes
omega_curve.html, .png, .svg, .csv and .md into the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cptlab.process.ends import command, exit_with
from cptlab.reporting.omega_curve import print_curve
from cptlab.reporting.omega_report import make_omega_report
from cptlab.reporting.omega_sweep import read_curve


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error where the runs make no curve."""
    parser = argparse.ArgumentParser(
        prog="cptlab omega-curve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs",
        metavar="DIR",
        nargs="+",
        type=Path,
        help="the folder of a sweep over decoding.omega, one of its runs, or a run of cptlab omega",
    )
    given = parser.parse_args(arguments)
    curve = read_curve(given.runs)
    page = make_omega_report(given.runs[0], curve)
    print_curve(curve)
    print(f"Report: {page}")
    return 0


if __name__ == "__main__":
    exit_with(main())

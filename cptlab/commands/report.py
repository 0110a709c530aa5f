"""Remake the tables, figures and report of an evaluation from its stored files.

cptlab report RUN [--against SYSTEM] [--train TRAINING_RUN] [--programs-per-task 10]
"""

from __future__ import annotations

import argparse

from cptlab.process.ends import command, exit_with
from cptlab.reporting.report import make_report, print_tables


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error where the run cannot be read."""
    parser = argparse.ArgumentParser(
        prog="cptlab report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="directory of an evaluation run (with metrics.json)")
    parser.add_argument(
        "--against", metavar="SYSTEM", help="the system that changes are counted against (default: the first)"
    )
    parser.add_argument(
        "--train", metavar="TRAINING_RUN", help="training run whose curves the report shows (default: as stored)"
    )
    parser.add_argument(
        "--programs-per-task",
        type=int,
        metavar="N",
        help="count issues in the first N programs of each task that parse (the paper: 10; default: all)",
    )
    given = parser.parse_args(arguments)
    shared = {"baseline": given.against, "programs_per_task": given.programs_per_task}
    page = make_report(given.run, train_directory=given.train, **shared)
    print_tables(given.run, **shared)
    print(f"\nReport: {page}")
    return 0


if __name__ == "__main__":
    exit_with(main())

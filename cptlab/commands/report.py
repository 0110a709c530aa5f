"""Make tables, figures and report from stored files: of one evaluation, or of all those of sweeps.

    cptlab report RUN [--against SYSTEM] [--train TRAINING_RUN] [--programs-per-task 10]
    cptlab report SWEEP [SWEEP …] [--against CONFIGURATION] [--output FOLDER] [--logger wandb]

SWEEP holds evaluations, as `cptlab evaluate runs=…` leaves them. Means are over seeds and tasks; changes are against the
configuration of the default choices. Files are written into the first directory, or into FOLDER.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cptlab.commands.shared.log_sweep import log_sweep
from cptlab.errors import UserError
from cptlab.process.ends import command, exit_with
from cptlab.reporting.report import make_report, print_tables
from cptlab.reporting.sweep.report import REPORT, make_sweep_report, print_sweep
from cptlab.settings.config_source import default_choices


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error where the run cannot be read."""
    parser = argparse.ArgumentParser(
        prog="cptlab report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", metavar="DIR", nargs="+", type=Path, help="an evaluation, or directories of sweeps")
    parser.add_argument(
        "--against",
        metavar="NAME",
        help="the system or configuration that changes are counted against (default: the first system; of a sweep, the "
        "default choices)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="of sweeps: where to write (default: the first DIR)"
    )
    parser.add_argument(
        "--logger",
        choices=("wandb", "none"),
        help="of sweeps: a run of the sweep's own in W&B, linked to those of its jobs (default: if they have some)",
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
    if len(given.runs) > 1 or not _is_evaluation(given.runs[0]):
        return _report_sweep(given)
    for option in ("output", "logger"):
        if getattr(given, option) is not None:
            raise UserError(
                f"--{option} is for sweeps. Leave it out for one evaluation, whose report stands beside it."
            )
    shared = {"baseline": given.against, "programs_per_task": given.programs_per_task}
    page = make_report(given.runs[0], train_directory=given.train, **shared)
    print_tables(given.runs[0], **shared)
    print(f"\nReport: {page}")
    return 0


def _report_sweep(given: argparse.Namespace) -> int:
    for option in ("train", "programs_per_task"):
        if getattr(given, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} is for one evaluation. Leave it out, or give one run.")
    output = given.output or given.runs[0]
    reports, left_out = make_sweep_report(given.runs, output, given.against, default_choices("train"))
    print_sweep(reports, left_out)
    print(f"\nReport: {output / REPORT}")
    if log_sweep(output, reports, given.logger):
        print(f"W&B: {output / 'wandb'}")
    return 0


def _is_evaluation(directory: Path) -> bool:
    """Whether a directory is one evaluation, as far as can be seen; what is no directory is refused as one."""
    return not directory.is_dir() or any(
        (directory / name).exists() for name in ("metrics.json", "tasks.jsonl", "tasks.jsonl.gz")
    )


if __name__ == "__main__":
    exit_with(main())

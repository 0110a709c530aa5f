"""Make the papers' tables and figures: every command that they need, then each table from the stored results.

    cptlab record                                    all of them on kata
    cptlab record cpt_table_8 spa_fig_4              some of them
    cptlab record scale=qwen backbone.path=DIR       on a small real LLM
    cptlab record scale=paper --dry-run              print the commands, and run none
    cptlab record --jobs 2                           two steps at a time, each on half of the cores
    cptlab record cpt_table_7 seeds=[0] train.stages.first_epochs=1 evaluate.limit=30

A step that is finished is not run again, whichever table asked for it, so a record that was killed goes on where it was. One
that fails is named, and the others go on. Tables are in <paths.logs>/record/<scale>/<table>.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from cptlab.analysis.record.draw import draw
from cptlab.analysis.record.steps import ESTIMATE, is_finished, run_steps
from cptlab.errors import UserError
from cptlab.process.ends import FAILURE, command, exit_with
from cptlab.settings.record_plan import PlannedTable, Step, plan
from cptlab.storage.locks import try_lock


@command(lambda: "Finished steps are kept; the same command goes on from there.")
def main(arguments: list[str] | None = None) -> int:
    """Return 0, 1 where a step failed, or 2 with one sentence on standard error for a mistake in the command."""
    parser = argparse.ArgumentParser(
        prog="cptlab record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "given", nargs="*", metavar="TABLE | NAME=VALUE", help="tables (default: all), scale=…, settings"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the steps and whether they are finished")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="steps that run side by side (default: 1)")
    options = parser.parse_intermixed_args(arguments)
    if options.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {options.jobs}.")
    settings = [text for text in options.given if "=" in text]
    scale = next((text.partition("=")[2] for text in settings if text.startswith("scale=")), "kata")
    settings = [text for text in settings if not text.startswith("scale=")]
    logs = next((text.partition("=")[2] for text in settings if text.startswith("paths.logs=")), None)
    record = Path(logs or os.environ.get("CPTLAB_LOGS") or "logs") / "record" / scale
    tables = plan([text for text in options.given if "=" not in text], scale, settings)
    if find_spec("trl") is None and not options.dry_run:
        tables = [_without_trl(table) for table in tables]
    for table in tables:
        if table.unasked:
            print(f"{table.name}: not at scale={scale}: {table.unasked}.", file=sys.stderr)
    steps = list(dict.fromkeys(step for table in tables for step in table.steps()))
    if any(ESTIMATE in step.overrides for step in steps):
        steps = [step for step in steps if step.command == "train"]
        tables = []
    if options.dry_run:
        _print_steps(steps, record)
        return 0
    record.mkdir(parents=True, exist_ok=True)
    lock = try_lock(record)
    if lock is None:
        raise UserError(f"{record} is in use by another process. Wait for it, or name another directory: paths.logs=….")
    failed = run_steps(steps, record, options.jobs)
    words = [f"scale={scale}", *settings]
    missing = _draw_tables(tables, record, failed, words)
    lock.release()
    return FAILURE if failed or missing else 0


def _without_trl(table: PlannedTable) -> PlannedTable:
    """Leave a table out that trains by GRPO: the others need no TRL."""
    if not any(step.command == "grpo" for step in table.steps()):
        return table
    lacking = "GRPO needs TRL, which is not installed; pip install 'cptlab[grpo]' does it"
    return replace(table, rows=(), unasked=lacking)


def _print_steps(steps: Sequence[Step], record: Path) -> None:
    for step in steps:
        done = "  # finished" if is_finished(step, record) else ""
        print(f"cptlab {shlex.join(step.arguments(record))}{done}")
    finished = sum(is_finished(step, record) for step in steps)
    print(f"{len(steps)} steps, {finished} of them finished", file=sys.stderr)


def _draw_tables(
    tables: Sequence[PlannedTable], record: Path, failed: dict[Step, str], settings: Sequence[str]
) -> list[str]:
    """Draw the tables whose steps are all finished; return the names of the others."""
    missing = []
    for table in tables:
        if table.unasked:
            continue
        if any(step in failed for step in table.steps()):
            missing.append(table.name)
            continue
        folder = draw(table, record, shlex.join(["cptlab", "record", table.name, *settings]))
        print(f"{table.title}: {folder}")
    if missing:
        print(f"error: not drawn, for want of a step: {', '.join(missing)}.", file=sys.stderr)
    return missing


if __name__ == "__main__":
    exit_with(main())

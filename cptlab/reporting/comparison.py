"""Systems of several evaluation runs in one table, each against the first, paired by task. Needs no model.

    python -m cptlab.reporting.comparison plain=RUN:base SPA=RUN:base CPT=RUN:tuned [--output FOLDER]

RUN is the directory of an evaluation; without a system behind the colon, its last one. The first is what the others are
compared with. Writes compare.md and compare.csv to the folder, and prints the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.metrics.summary import allowed_ks, compare, summarise
from cptlab.records import Task
from cptlab.reporting import tables
from cptlab.reporting.layout import Table, to_csv, to_markdown, to_text
from cptlab.reporting.runs import judged_of, read_run

METRICS = ("pylint_mean", "pylint_min", "pass@1")
HEADS = {"pylint_mean": "mean pylint", "pylint_min": "min pylint", "pass@1": "pass@1 (%)"}


def compare_table(named: Sequence[tuple[str, Path, str | None]]) -> Table:
    """One row for each (label, run directory, system or None); UserError where their tasks differ."""
    labels = [label for label, _, _ in named]
    if len(set(labels)) < len(labels):
        raise UserError("Two systems have the same label. Give each its own.")
    tasks, first, rows, records = [], None, [], []
    for label, directory, system in named:
        own, judged = judged_of(read_run(directory))
        system = system or next(reversed(judged))
        if system not in judged:
            raise UserError(f"{directory} has no system {system!r}, but {', '.join(judged)}. Name one of these.")
        if tasks and not _same(tasks, own):
            raise UserError(f"The tasks of {directory} are not those of the first run. Compare runs on equal tasks.")
        answers = judged[system]
        ks = allowed_ks({task.id: len(answers[0][task.id]) for task in own}, [1])
        figures, changes = summarise(own, *answers, ks=ks)["all"], None
        if first is None:
            tasks, first = own, answers
        else:
            changes = compare(tasks, first, answers, ks=ks)["all"]
        cells = [label, str(len(next(iter(answers[0].values()))))]
        for metric in METRICS:
            cells += [tables.estimate(metric, figures), "–" if changes is None else tables.change(metric, changes)]
            ends = (figures[f"{metric}_ci"], changes[f"{metric}_ci"] if changes else (None, None))
            records.append({
                "system": label, "metric": metric, "tasks": len(tasks), "value": figures[metric], "lo": ends[0][0],
                "hi": ends[0][1], "change": changes[metric] if changes else None, "change_lo": ends[1][0],
                "change_hi": ends[1][1],
            })  # fmt: skip
        rows.append(tuple(cells))
    columns = ["System", "Samples"]
    for metric in METRICS:
        columns += [HEADS[metric], "change"]
    note = f"{tables.INTERVALS} Changes are against {labels[0]}, paired by task."
    return Table("compare", f"{len(tasks)} tasks", tuple(columns), tuple(rows), tuple(records), note=note)


def _same(one: Sequence[Task], two: Sequence[Task]) -> bool:
    return [(task.id, task.tests) for task in one] == [(task.id, task.tests) for task in two]


def _named(text: str) -> tuple[str, Path, str | None]:
    label, _, place = text.partition("=")
    if not label or not place:
        raise UserError(f"{text!r} is not of the form LABEL=RUN or LABEL=RUN:SYSTEM. Write it so.")
    directory, _, system = place.rpartition(":")
    return (label, Path(directory), system) if directory else (label, Path(place), None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+", metavar="LABEL=RUN:SYSTEM")
    parser.add_argument("--output", type=Path, default=None, metavar="FOLDER", help="default: only print")
    options: Any = parser.parse_args(arguments)
    try:
        table = compare_table([_named(text) for text in options.systems])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "compare.md").write_text(to_markdown(table), encoding="utf-8")
        (options.output / "compare.csv").write_text(to_csv(table), encoding="utf-8")
    print(to_text(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compare systems of one or several evaluations, paired by task.

    cptlab compare RUN                                          all systems of an evaluation
    cptlab compare plain=RUN:base SPA=OTHER_RUN:base RUN:tuned  some systems of any, the first with labels
    cptlab compare RUN --output FOLDER                          writes compare.md, compare.csv and compare.html too

RUN is the directory of an evaluation. The first system is the one that the others are compared with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cptlab.errors import UserError
from cptlab.process.ends import command, exit_with
from cptlab.reporting.comparison import ComparedSystem, combine, compare_table
from cptlab.reporting.layout import to_csv, to_markdown, to_text
from cptlab.reporting.report import make_page
from cptlab.storage.atomic import write_text


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error where a run cannot be read or compared."""
    parser = argparse.ArgumentParser(
        prog="cptlab compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="+", metavar="[LABEL=]RUN[:SYSTEM]", help="what to compare, in order")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: only print")
    options = parser.parse_args(arguments)
    evaluation = combine([parse_choice(text) for text in options.systems])
    table = compare_table(evaluation)
    if options.output:
        write_text(options.output / "compare.md", to_markdown(table))
        write_text(options.output / "compare.csv", to_csv(table))
        write_text(options.output / "compare.html", make_page(evaluation))
    print(to_text(table))
    return 0


def parse_choice(text: str) -> ComparedSystem:
    """Split [LABEL=]RUN[:SYSTEM]. A text that is a directory as it stands has neither label nor system."""
    if Path(text).is_dir():
        return ComparedSystem(Path(text))
    place, _, system = text.rpartition(":")
    if Path(place).is_dir() and place:
        return ComparedSystem(Path(place), system)
    label, _, rest = text.partition("=")
    if not label or not rest:
        raise UserError(f"{text!r} names no directory. Write RUN, RUN:SYSTEM or LABEL=RUN:SYSTEM.")
    if Path(rest).is_dir():
        return ComparedSystem(Path(rest), label=label)
    place, _, system = rest.rpartition(":")
    return ComparedSystem(Path(place or rest), system if place else None, label)


if __name__ == "__main__":
    exit_with(main())

"""Compare systems of one or several evaluations, paired by task.

    cptlab compare plain=RUN:base SPA=RUN:base CPT=RUN:tuned [--output FOLDER]

RUN is the directory of an evaluation; without a system behind the colon, its last one is taken. The first is what the
others are compared with. Prints the table, and writes compare.md and compare.csv to the folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cptlab.errors import UserError
from cptlab.reporting.comparison import compare_table
from cptlab.reporting.layout import to_csv, to_markdown, to_text
from cptlab.storage.atomic import write_text


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error where a run cannot be read or compared."""
    parser = argparse.ArgumentParser(
        prog="cptlab compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="+", metavar="LABEL=RUN:SYSTEM")
    parser.add_argument("--output", type=Path, default=None, metavar="FOLDER", help="default: only print")
    options = parser.parse_args(arguments)
    try:
        table = compare_table([_parse(text) for text in options.systems])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.output:
        write_text(options.output / "compare.md", to_markdown(table))
        write_text(options.output / "compare.csv", to_csv(table))
    print(to_text(table))
    return 0


def _parse(text: str) -> tuple[str, Path, str | None]:
    """Split LABEL=RUN:SYSTEM or LABEL=RUN."""
    label, _, place = text.partition("=")
    if not label or not place:
        raise UserError(f"{text!r} is not of the form LABEL=RUN or LABEL=RUN:SYSTEM. Write it so.")
    directory, _, system = place.rpartition(":")
    return (label, Path(directory), system) if directory else (label, Path(place), None)


if __name__ == "__main__":
    sys.exit(main())

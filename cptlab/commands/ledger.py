"""Say of each claim of the papers whether it holds in a record, with the figures that decide it.

    cptlab ledger logs/record/kata
    cptlab ledger results/record/kata results/record/qwen --notes docs/ledger_notes.json --output docs/ledger.md

A record is the directory that `cptlab record` made, packed or not. Without --output the page is printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cptlab.analysis.record.claims import CLAIMS
from cptlab.analysis.record.ledger import Record
from cptlab.analysis.record.ledger_page import ledger_page
from cptlab.errors import UserError
from cptlab.process.ends import command, exit_with
from cptlab.storage.atomic import write_text


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error where a record or the notes cannot be read."""
    parser = argparse.ArgumentParser(
        prog="cptlab ledger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", nargs="+", metavar="RECORD", type=Path, help="directory of a record")
    parser.add_argument("--notes", type=Path, metavar="FILE", help="JSON: record, claim, why it does not hold")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the page there")
    given = parser.parse_args(arguments)
    names = [path.name for path in given.records]
    if len(set(names)) < len(names):
        raise UserError(
            f"Two records have one name ({', '.join(names)}). Rename a directory: records are told apart by it."
        )
    page = ledger_page([Record(path) for path in given.records], read_notes(given.notes))
    if given.output is None:
        print(page, end="")
    else:
        write_text(given.output, page)
        print(f"Ledger: {given.output}")
    return 0


def read_notes(file: Path | None) -> dict[str, dict[str, str]]:
    """Return the notes of a file. Raises UserError where it is no such file."""
    if file is None:
        return {}
    try:
        notes: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The notes {file} cannot be read ({error}). Give a JSON file, or leave --notes out.") from None
    known = {claim.id for claim in CLAIMS}
    if not isinstance(notes, dict) or not all(isinstance(one, dict) and set(one) <= known for one in notes.values()):
        raise UserError(
            f'The notes {file} must be {{"RECORD": {{"C4": "why"}}}} with the ids of claims ({", ".join(sorted(known))}).'
        )
    return notes


if __name__ == "__main__":
    exit_with(main())

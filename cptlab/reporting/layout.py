"""Tables of finished text cells as Markdown, CSV and plain text for the console; `page/table.py` has the HTML."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONSOLE = 100  # columns, to which notes are wrapped


@dataclass(frozen=True)
class Table:
    """A table. `rows` are cells as they are shown; a row of one cell is a heading inside the table.

    The first `labels` columns are text, the others numbers. `groups` are headings above the number columns, each with
    the columns that it spans. `records` hold the same content unrounded, one mapping a line of the CSV file.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[Mapping[str, Any], ...]
    labels: int = 1
    groups: tuple[tuple[str, int], ...] = ()
    note: str = ""


def to_csv(table: Table) -> str:
    """Return the records as CSV: numbers at full precision, None as an empty field."""
    buffer = io.StringIO()
    names = table.records[0] if table.records else table.columns
    writer = csv.DictWriter(buffer, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.records)
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """Return GitHub's table syntax, with title and note. Group headings are repeated in the name of each column."""
    spans = [heading for heading, span in table.groups for _ in range(span)]
    heads = [_escape_markdown(column) for column in table.columns]
    if spans:
        both = zip(spans, heads[table.labels :], strict=True)
        heads[table.labels :] = [f"{_escape_markdown(above)}<br>{below}" for above, below in both]
    lines = [heads, [":--"] * table.labels + ["--:"] * (len(heads) - table.labels)]
    for row in table.rows:
        cells = [_escape_markdown(cell) for cell in row]
        lines.append([f"**{cells[0]}**"] + [""] * (len(heads) - 1) if len(row) == 1 else cells)
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    note = f"\n{_escape_markdown(table.note)}\n" if table.note else ""
    return f"**{_escape_markdown(table.title)}**\n\n{body}\n{note}"


def to_text(table: Table) -> str:
    """Return columns padded with spaces under a title, for the console."""
    grid = [row for row in (table.columns, *table.rows) if len(row) > 1]
    widths = [max(len(row[i]) for row in grid) for i in range(len(table.columns))]
    start = table.labels
    for text, span in table.groups:  # a group's heading may be wider than its columns
        lack = len(text) - (sum(widths[start : start + span]) + 2 * (span - 1))
        widths[start + span - 1] += max(0, lack)
        start += span
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [table.title, rule]
    if table.groups:
        parts, start = [" " * (sum(widths[: table.labels]) + 2 * (table.labels - 1))], table.labels
        for text, span in table.groups:
            parts.append(text.center(sum(widths[start : start + span]) + 2 * (span - 1)))
            start += span
        lines.append("  ".join(parts).rstrip())
    lines += [_text_row(table.columns, widths, table.labels), rule]
    lines += [row[0] if len(row) == 1 else _text_row(row, widths, table.labels) for row in table.rows]
    notes = [textwrap.fill(line, max(len(rule), CONSOLE), break_on_hyphens=False) for line in table.note.splitlines()]
    return "\n".join([*lines, rule, *notes])


def _text_row(row: Sequence[str], widths: Sequence[int], labels: int) -> str:
    padded = zip(row, widths, strict=True)
    return "  ".join(c.ljust(w) if i < labels else c.rjust(w) for i, (c, w) in enumerate(padded)).rstrip()


def _escape_markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")

"""A table as HTML: caption, scopes of its headings, and a box that scrolls when the screen is narrow."""

from __future__ import annotations

from collections.abc import Iterator

from cptlab.reporting.layout import Table
from cptlab.reporting.page.text import escaped


def to_html(table: Table, identifier: str) -> str:
    """Return the table in a box. Rows below a heading inside the table are a group of their own, which sorting keeps."""
    caption = f"{identifier}-caption"
    return (
        f"<div class='table' id='{identifier}'><div class='wide' role='region' aria-labelledby='{caption}' tabindex='0'>"
        f"<table><caption id='{caption}'><span>{escaped(table.title)}</span></caption>\n"
        f"<thead>{''.join(_heads(table))}</thead>\n{''.join(_groups(table))}</table></div>"
        + "".join(f"\n<p class='note'>{escaped(line)}</p>" for line in table.note.splitlines())
        + "</div>"
    )


def _heads(table: Table) -> Iterator[str]:
    if table.groups:
        spans = (f"<th colspan='{n}' scope='colgroup' class='group'>{escaped(text)}</th>" for text, n in table.groups)
        yield f"<tr><td colspan='{table.labels}'></td>{''.join(spans)}</tr>\n"
    heads = (
        f"<th scope='col' class='{'label' if i < table.labels else 'number'}'>{escaped(text)}</th>"
        for i, text in enumerate(table.columns)
    )
    yield f"<tr>{''.join(heads)}</tr>"


def _groups(table: Table) -> Iterator[str]:
    """Yield one <tbody> for the rows before the first heading, and one for each heading."""
    yield "<tbody>"
    for number, row in enumerate(table.rows):
        if len(row) == 1:
            yield "</tbody>\n<tbody>" if number else ""
            yield f"<tr><th colspan='{len(table.columns)}' scope='rowgroup' class='section'>{escaped(row[0])}</th></tr>\n"
            continue
        labels = (f"<th scope='row'>{escaped(text)}</th>" for text in row[: table.labels])
        numbers = (f"<td>{_number(text)}</td>" for text in row[table.labels :])
        yield f"<tr>{''.join(labels)}{''.join(numbers)}</tr>\n"
    yield "</tbody>"


def _number(text: str) -> str:
    """The interval of a number is set smaller, below it."""
    value, bracket, interval = text.partition(" [")
    return escaped(value) + (f" <span class='interval'>[{escaped(interval)}</span>" if bracket else "")

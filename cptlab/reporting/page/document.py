"""The document: head, navigation and sections, with style sheet and script inside. Nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cptlab.reporting.layout import Table
from cptlab.reporting.page.programs import Programs
from cptlab.reporting.page.table import to_html
from cptlab.reporting.page.text import escaped

SCRIPTS = ("theme.js", "tables.js", "programs.js")


@dataclass(frozen=True)
class Picture:
    """A figure: the bytes of an SVG or PNG file, and a text that says what is seen in it."""

    image: bytes
    alt: str


@dataclass(frozen=True)
class Folded:
    """A long text, such as a configuration, folded under its title."""

    title: str
    text: str


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, such as the report of one job: `address` is relative."""

    text: str
    address: str


@dataclass(frozen=True)
class Section:
    """A heading of the page with what stands below it, in order. A text is a paragraph."""

    heading: str
    content: Sequence[str | Table | Picture | Folded | Link | Programs]


def render_page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the page. `lead` are the paragraphs below the title. The same arguments give the same text.

    Raises ValueError for a second `Programs` and for a link that leaves the disk.
    """
    if sum(isinstance(one, Programs) for section in sections for one in section.content) > 1:
        raise ValueError("a page shows programs once: combine the evaluations")
    style, script = read_asset("page.css"), "\n".join(map(read_asset, SCRIPTS))
    names = _Names()
    # The programs are untrusted: should one slip through, the browser still runs and loads nothing but what is hashed.
    policy = f"default-src 'none'; img-src data:; style-src '{policy_hash(style)}'; script-src '{policy_hash(script)}'"
    identifiers = [names.new(section.heading) for section in sections]
    links = "".join(
        f"<li><a href='#{identifier}'>{escaped(section.heading)}</a></li>"
        for identifier, section in zip(identifiers, sections, strict=True)
    )
    body = "\n".join(
        f"<section id='{identifier}' aria-labelledby='{identifier}-heading'>"
        f"<h2 id='{identifier}-heading'>{escaped(section.heading)}</h2>\n{''.join(_content(section, names))}</section>"
        for identifier, section in zip(identifiers, sections, strict=True)
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escaped(title)}</title><style>{style}</style></head>\n<body>"
        "<a class='skip' href='#content'>Skip to the content</a>"
        f"<header><h1>{escaped(title)}</h1>{''.join(f'<p>{escaped(text)}</p>' for text in lead)}"
        "<button type='button' id='theme' aria-pressed='false' hidden>Dark mode</button></header>\n"
        f"<nav aria-label='Sections'><ul>{links}</ul></nav>\n"
        f"<main id='content' tabindex='-1'>\n{body}\n</main><script>{script}</script></body></html>\n"
    )


class _Names:
    """Gives every element an id of its own: its name in lower case, with a number behind one that is taken."""

    def __init__(self) -> None:
        self._taken = {"content", "theme", "explorer", "filters", "task"}

    def new(self, name: str) -> str:
        slug = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "part"
        number, found = 1, slug
        while found in self._taken:
            number += 1
            found = f"{slug}-{number}"
        self._taken.add(found)
        return found


def _content(section: Section, names: _Names) -> Iterator[str]:
    for one in section.content:
        if isinstance(one, Table):
            yield to_html(one, names.new(f"table {one.name}")) + "\n"
        elif isinstance(one, Picture):
            kind = "svg+xml" if one.image.lstrip().startswith(b"<") else "png"
            data = base64.b64encode(one.image).decode()
            yield (
                f"<div class='wide' role='region' tabindex='0' aria-label='Figure: {escaped(section.heading)}'>"
                f"<img class='figure' alt='{escaped(one.alt)}' src='data:image/{kind};base64,{data}'></div>\n"
            )
        elif isinstance(one, Folded):
            title, text = escaped(one.title), escaped(one.text)
            yield f"<details><summary>{title}</summary><pre tabindex='0' aria-label='{title}'>{text}</pre></details>\n"
        elif isinstance(one, Link):
            if re.match(r"\s*([a-zA-Z][\w+.-]*:|//)", one.address):
                raise ValueError(f"a link of a page is relative, got {one.address!r}")
            yield f"<p><a href='{escaped(one.address)}'>{escaped(one.text)}</a></p>\n"
        elif isinstance(one, Programs):
            yield one.to_html()
        else:
            yield f"<p>{escaped(one)}</p>\n"


def read_asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def policy_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

"""What `make docs` adds to the pages of this folder: README.md and CONTRIBUTING.md as pages, and the API pages.

mkdocs calls on_files. A link of README.md to docs/x.md becomes one to x.md; what the site does not hold (a licence, a
configuration file) is named without a link.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_as_page((ROOT / source).read_text(encoding="utf-8"))))
    rooms = sorted(path.parent for path in (ROOT / "cptlab").glob("*/__init__.py") if _is_public(path))
    lines = ["# Python", "", "What each room of the package offers to other code.", ""]
    for room in rooms:
        name = f"cptlab.{room.name}"
        about = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
        lines.append(f"- [`{name}`]({room.name}.md): {about.splitlines()[0]}")
        files.append(File.generated(config, f"api/{room.name}.md", content=f"# {name}\n\n::: {name}\n"))
    files.append(File.generated(config, "api/index.md", content="\n".join(lines) + "\n"))
    return files


def _is_public(init: Path) -> bool:
    return "__all__" in init.read_text(encoding="utf-8")


def _as_page(text: str) -> str:
    """Return a page of the root with its links as seen from docs/."""

    def moved(link: re.Match[str]) -> str:
        label, target = link[1], link[2]
        if target.startswith("docs/"):
            return f"[{label}]({target.removeprefix('docs/')})"
        path, _, anchor = target.partition("#")
        return f"[{label}]({PAGES[path]}{'#' + anchor if anchor else ''})" if path in PAGES else label

    return LINK.sub(moved, text.replace("](docs/", "]("))

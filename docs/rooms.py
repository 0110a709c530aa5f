"""Draw the rooms of the package and list what stands in each: docs/architecture.md, between its two marks.

    python docs/rooms.py --write
    python docs/rooms.py --check      (exit code 1 where the page is out of date)

Arrows are the imports that grimp finds; those that follow from others are left out. Every line of text is the first line
of a docstring.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this clone, wherever cptlab is installed
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms: begin -->", "<!-- rooms: end -->"


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


def rooms() -> dict[str, set[str]]:
    """Map every room to the rooms that it imports."""
    graph = grimp.build_graph("cptlab", cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules - {"cptlab"}:
        room = module.split(".")[1]
        targets = {target.split(".")[1] for target in graph.find_modules_directly_imported_by(module) if "." in target}
        found.setdefault(room, set()).update(targets - {room})
    return found


def reach(room: str, below: dict[str, set[str]]) -> set[str]:
    """Return every room that can be reached from `room`."""
    found: set[str] = set()
    for target in below[room]:
        found |= {target} | reach(target, below)
    return found


def drawing(below: dict[str, set[str]]) -> str:
    """Return a mermaid flowchart, from the commands down, without arrows that follow from others."""
    lines = ["```mermaid", "flowchart TD"]
    for room in sorted(below, key=lambda room: (-len(reach(room, below)), room)):
        implied = {far for target in below[room] for far in reach(target, below)}
        lines += [f"    {room} --> {target}" for target in sorted(below[room] - implied)]
    return "\n".join([*lines, "```"])


def listing(below: dict[str, set[str]]) -> str:
    """Return every room with its files, from the top floor down."""
    out: list[str] = []
    for room in sorted(below, key=lambda room: (-len(reach(room, below)), room)):
        folder = ROOT / "cptlab" / room
        if not folder.is_dir():
            out += [f"### `{room}.py`", "", first_line(folder.with_suffix(".py")), ""]
            continue
        out += [f"### `{room}/`", "", first_line(folder / "__init__.py"), ""]
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder)
            if inner.name != "__init__.py":
                out.append(f"- `{inner}`: {first_line(file)}")
            elif inner.parent != Path("."):
                out.append(f"- `{inner.parent}/`: {first_line(file)}")
        out.append("")
    return "\n".join(out)


def page() -> str:
    """Return the page with a fresh drawing and listing."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    below = rooms()
    return f"{head}{BEGIN}\n\n{drawing(below)}\n\n{listing(below)}\n{END}{tail}"


def main() -> int:
    fresh = page()
    if "--write" in sys.argv:
        PAGE.write_text(fresh, encoding="utf-8")
    elif fresh != PAGE.read_text(encoding="utf-8"):
        print("docs/architecture.md is out of date. Run `python docs/rooms.py --write`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Print what radon measures of files, as JSON: run as a process of its own under limits, and imported by nothing.

    python radon_measures.py FILE …   {file: {"index": MI, "blocks": [{"name", "line", "complexity"}, …]}}

The figures are those of `radon mi` and `radon cc`, and one block more: the statements of the module itself, `<module>`,
which `radon cc` leaves out, so that a script has a complexity.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def measure(source: str) -> dict[str, Any]:
    """Return the index and the blocks of a program that parses."""
    from radon.metrics import mi_visit  # pyright: ignore[reportMissingImports]
    from radon.visitors import ComplexityVisitor  # pyright: ignore[reportMissingImports]

    visitor = ComplexityVisitor.from_code(source)
    blocks = [{"name": one.name, "line": one.lineno, "complexity": one.complexity} for one in visitor.blocks]
    module = {"name": "<module>", "line": 1, "complexity": max(1, visitor.complexity)}
    return {"index": mi_visit(source, True), "blocks": [module, *blocks]}


def main(files: list[str]) -> None:
    measured = {}
    for file in files:
        with open(file, encoding="utf-8", newline="") as stream:
            measured[file] = measure(stream.read())
    print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1:])

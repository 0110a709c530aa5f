"""Draw a planned table from the stored results of its steps: Markdown and CSV, a figure, and figures.json for whoever reads on.

The same results give the same bytes. docs/results-format.md has the schema of figures.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cptlab.analysis.record import anchoring, costs, evaluations, programs, review
from cptlab.analysis.record.claims import claims_of
from cptlab.analysis.record.drawing import Drawing
from cptlab.errors import UserError
from cptlab.reporting import layout
from cptlab.reporting.figures import render
from cptlab.settings.record_plan import TRAININGS, PlannedTable
from cptlab.storage.atomic import write_bytes, write_json, write_text
from cptlab.storage.run_directory import FIGURES_FILE

KINDS: dict[str, Callable[[PlannedTable, Path], Drawing]] = {
    "quality": evaluations.quality,
    "correctness": evaluations.correctness,
    "quality_and_correctness": evaluations.quality_and_correctness,
    "tradeoff": evaluations.tradeoff,
    "issues": programs.issues,
    "side_by_side": programs.side_by_side,
    "review": review.review,
    "training_cost": costs.training_cost,
    "baselines": costs.baselines,
    "overhead": costs.overhead,
    "omega": anchoring.omega,
    "best_omega": anchoring.best_omega,
    "omega_curve": anchoring.omega_curve,
    "attention": anchoring.attention,
    "gradient": anchoring.gradient,
}
ABOUT = ("backbone", "benchmark", "split", "n", "versions", "git")  # what figures.json says of the first run


def draw(table: PlannedTable, record: Path, command: str) -> Path:
    """Write a table's files to `record/<table>`, and return that folder. `command` is the one that makes it."""
    if table.draw not in KINDS:
        raise UserError(f"draw: {table.draw} of {table.name} cannot be. Choose from {', '.join(KINDS)}.")
    drawing, folder = KINDS[table.draw](table, record), record / table.name
    for found in drawing.tables:
        write_text(folder / f"{found.name}.md", layout.to_markdown(found))
        write_text(folder / f"{found.name}.csv", layout.to_csv(found))
    for name, picture in drawing.pictures.items():
        for kind, content in render(picture).items():
            write_bytes(folder / f"{name}.{kind}", content)
    for name, text in drawing.texts.items():
        write_text(folder / name, text)
    content = {
        "table": table.name,
        "title": table.title,
        "claims": claims_of(table.name),
        "against": table.against,
        "command": command,
        "seeds": list(table.seeds),
        "runs": [step.name for step in table.steps()],
        "about": _about(table, record),
        "figures": drawing.figures,
    }
    write_json(folder / FIGURES_FILE, content)
    return folder


def _about(table: PlannedTable, record: Path) -> dict[str, Any]:
    """Return what the first run that says so says of its model, benchmark and code."""
    for step in table.steps():
        for name in ("metrics.json", "omega.json"):
            file = record / step.name / name
            if file.is_file() and step.command not in TRAININGS:
                found = json.loads(file.read_text(encoding="utf-8"))
                return {key: found[key] for key in ABOUT if key in found}
    return {}

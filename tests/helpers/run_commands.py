"""The entries as tests call them: in this process, on a composed config, in a directory of the test's own."""

import json
import subprocess
import sys
from pathlib import Path

from cptlab.commands.evaluate import evaluate
from cptlab.commands.shared.build_pairs import build_pairs
from cptlab.commands.train import train
from cptlab.settings.config_source import compose_config
from cptlab.settings.entry import entry, prepare

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "pairs.n=6",
    "pairs.train_tasks=9",
    "pairs.validation_tasks=3",
    "stages.first_epochs=1",
    "stages.second_epochs=1",
    "workers=1",
    "callbacks=none",
]


def config(name: str, where: Path, *overrides: str):
    return compose_config(name, f"paths.logs={where}/logs", f"paths.cache={where}/cache", *overrides)


def command(name: str, where: Path, *overrides: str):
    """Run `train`, `evaluate` or `pairs` as its entry does; its return value, or SystemExit 2 for a user's mistake."""
    results = []

    def main():
        composed = config(name, where, *overrides)
        prepare(composed)
        if name == "pairs":
            results.append(build_pairs(composed))
        else:
            run = {"train": train, "evaluate": evaluate}[name]
            results.append(run(composed, where / "logs" / name / "runs" / "now"))

    entry(main, name)
    return results[0]


def run_notebook(name: str, where: Path) -> subprocess.CompletedProcess:
    """Run the code cells of a notebook one after the other, as a kernel would."""
    cells = json.loads((ROOT / "notebooks" / name).read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=where,
        capture_output=True,
        text=True,
    )

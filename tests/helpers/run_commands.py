"""The entries as tests call them: in this process, on a composed config, in a directory of the test's own."""

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

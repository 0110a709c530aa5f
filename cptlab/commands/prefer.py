"""Judge models without generation: which program of held-out pairs they prefer, and how likely they find smells.

    cptlab prefer run=latest
    cptlab prefer run=DIR pairs_file=PAIRS.jsonl split=validation
    cptlab prefer -m run=DIR1,DIR2 optimized_metric=tuned/margin

The run directory gets `preference.json`, and the table as tables/preference.md and .csv. A forward pass for each program is
all it takes. Pairs that training saw are no evidence: name a split or a file that it did not see.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab.commands.shared.common import METRICS_FILE, ROOT, TOO_LONG, begin, finished_before, optimized, write_config
from cptlab.commands.shared.preference import held_out, preferences
from cptlab.commands.shared.systems import DEVICE, prompted
from cptlab.errors import UserError
from cptlab.judging.lint.pylint_checks import check_names
from cptlab.process.ends import exit_with
from cptlab.settings.entry import hydra_command
from cptlab.settings.instantiate import instantiate
from cptlab.storage.atomic import write_json, write_text
from cptlab.storage.run_directory import training_run
from cptlab.tracking.provenance import collect_provenance

DATA_FILE = "preference.json"


def prefer(config: DictConfig, fresh: Path) -> float | None:
    """Print the table, and return the value of `optimized_metric`."""
    started = time.monotonic()
    check_names(config.extra_disabled)
    trained = None if config.run is None else training_run(config.run, Path(config.paths.logs))
    source: Any = config if trained is None else OmegaConf.load(trained / "config.yaml")
    node = config.get("backbone") or source.get("backbone")
    if node is None:
        raise UserError("Nothing says which backbone to judge. Add backbone=kata_lm, or run=<a training run>.")
    file = _pairs_file(config, trained)
    from cptlab.adapters import Policy, load_adapter
    from cptlab.analysis.preference import summary
    from cptlab.reporting.layout import to_csv, to_markdown, to_text

    node = prompted(node, config.prompting).copy()
    if config.device is not None:
        node[DEVICE] = config.device
    backbone = instantiate(node, "backbone")
    policies = {"base": Policy(backbone)}
    adapter = None if trained is None else load_adapter(trained, backbone)
    if adapter is not None:
        policies["tuned"] = adapter.policy(backbone)
    content: dict[str, Any] = {
        "backbone": backbone.fingerprint,
        "adapter": None if adapter is None else adapter.digest(),
        "pairs": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    if finished := finished_before(config, **content):
        return optimized(config, json.loads((finished / DATA_FILE).read_text(encoding="utf-8"))["metrics"])
    found = held_out(file, backbone, config.split)
    run = begin(config, fresh, "prefer", {} if trained is None else {"tuned": str(trained)}, **content)
    write_config(config, run)
    systems, left_out = preferences(config, backbone, policies, found, 0 if adapter is None else adapter.positions)
    pairs = systems["base"][summary.ALL]["pairs"]
    made = summary.table(systems, f"{backbone.name}, {pairs} pairs of split {config.split}")
    metrics = {name: value for system, of in systems.items() for name, value in summary.metrics(of, system).items()}
    facts = collect_provenance(
        ROOT,
        run=run.record,
        backbone=backbone.fingerprint,
        training_run=None if trained is None else str(trained),
        pairs_file=str(file),
        split=config.split,
        left_out={TOO_LONG: left_out},
        wall_seconds=round(time.monotonic() - started, 1),
    )
    write_text(run.directory / "tables" / "preference.md", to_markdown(made))
    write_text(run.directory / "tables" / "preference.csv", to_csv(made))
    write_json(run.directory / DATA_FILE, {"metrics": metrics, "systems": systems, **facts})
    run.finish()
    print(to_text(made))
    print(f"\nRun directory: {run.directory} ({DATA_FILE}, tables/preference.md and .csv)")
    return optimized(config, metrics)


def _pairs_file(config: DictConfig, trained: Path | None) -> Path:
    """Return the file of pairs: the one that is named, or that of the training run. Raises UserError where there is none."""
    if config.pairs_file is not None:
        file, remedy = Path(config.pairs_file), "Check the path, or make one with `cptlab pairs`."
    elif trained is None:
        raise UserError("Nothing says which pairs to judge on. Add pairs_file=<a pairs.jsonl that cptlab pairs made>.")
    else:
        metrics = json.loads((trained / METRICS_FILE).read_text(encoding="utf-8"))
        if "pairs" not in metrics:
            raise UserError(
                f"{trained} was trained without pairs. Add pairs_file=<a pairs.jsonl that cptlab pairs made>."
            )
        file, remedy = Path(metrics["pairs"]), "The training run's pairs are gone: name others with pairs_file=…."
    if not file.is_file():
        raise UserError(f"There is no pairs file {file}. {remedy}")
    return file


main = hydra_command("prefer", prefer)

if __name__ == "__main__":
    exit_with(main())

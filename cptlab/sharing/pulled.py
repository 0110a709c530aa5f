"""What came from the hub, as a run directory: `cptlab.load`, `cptlab generate run=…` and `cptlab evaluate run=…` take it.

    DIR/prefix/adapter_config.json  adapter_model.safetensors  cptlab.json      or lora/
    DIR/config.yaml  run.json  metrics.json                                     how it was trained
    DIR/README.md  evaluations/

A repository is a stranger's. Weights are safetensors, which hold no code, and a config is taken only if it is plain data
that names cptlab's own loader and benchmarks: commands make objects of what it says.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cptlab.adapters.peft_format import CONFIG, EXTRA, WEIGHTS
from cptlab.errors import UserError
from cptlab.settings.config_source import config_directory
from cptlab.sharing.folder import CARD, EVALUATIONS, TRAINING
from cptlab.sharing.shared_run import METRICS
from cptlab.storage.atomic import replacing_directory, write_text
from cptlab.storage.run_directory import CONFIG_FILE, RUN_FILE

KINDS = {"PREFIX_TUNING": "prefix", "LORA": "lora"}
MADE = ("backbone", "benchmark")  # the nodes of a training run's config that commands make objects of


def arrange(snapshot: Path, target: Path, repo: str) -> str:
    """Copy a downloaded repository to the new directory `target` as a run, and return the kind of its adapter.

    Raises UserError where it holds no adapter that can be loaded, where its config is not plain data, and where `target`
    exists.
    """
    if target.exists():
        raise UserError(f"{target} already exists. Name a new directory: output=DIR.")
    kind = _kind(snapshot, repo)
    config = _config(snapshot / TRAINING / CONFIG_FILE, repo)
    with replacing_directory(target) as run:
        (run / kind).mkdir()
        for name in (CONFIG, WEIGHTS, EXTRA):
            if (snapshot / name).is_file():
                shutil.copyfile(snapshot / name, run / kind / name)
        if config is not None:
            write_text(run / CONFIG_FILE, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        for name in (RUN_FILE, METRICS):
            if (snapshot / TRAINING / name).is_file():
                shutil.copyfile(snapshot / TRAINING / name, run / name)
        if (snapshot / CARD).is_file():
            shutil.copyfile(snapshot / CARD, run / CARD)
        if (snapshot / EVALUATIONS).is_dir():
            shutil.copytree(snapshot / EVALUATIONS, run / EVALUATIONS)
    return kind


def _kind(snapshot: Path, repo: str) -> str:
    try:
        found = json.loads((snapshot / CONFIG).read_text(encoding="utf-8")).get("peft_type")
    except (OSError, ValueError, AttributeError):
        found = None
    if found not in KINDS or not (snapshot / WEIGHTS).is_file():
        raise UserError(
            f"{repo} holds no prefix and no LoRA in PEFT's format ({CONFIG} and {WEIGHTS}). Name a repository that has one."
        )
    return KINDS[found]


def _config(file: Path, repo: str) -> dict[str, Any] | None:
    """Return a config that is plain data; None where there is none. Raises UserError for any other."""
    if not file.is_file():
        return None
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("backbone"), dict):
        raise UserError(f"{repo} has a {TRAINING}/{CONFIG_FILE} that cannot be read. Ask its owner to push it again.")
    for node in MADE:
        problem = _problem(config.get(node), _targets(node))
        if problem:
            raise UserError(f"{repo} would run code of its own: the {node} in its config {problem}. It is not pulled.")
    if "${" in json.dumps(config, default=str):
        raise UserError(f"{repo} has a config that refers to your machine (${{…}}). It is not pulled.")
    return config


def _problem(node: Any, allowed: frozenset[str], top: bool = True) -> str | None:
    """Return what makes a node more than plain data for one of the `allowed` functions; None where nothing does."""
    if isinstance(node, Mapping):
        if "_target_" in node and (not top or str(node["_target_"]) not in allowed):
            return f"calls {node['_target_']}"
        inside = list(node.values())
    else:
        inside = node if isinstance(node, list) else []
    return next(filter(None, (_problem(one, allowed, False) for one in inside)), None)


@functools.cache
def _targets(group: str) -> frozenset[str]:
    """Return the functions that the files of a conf group name."""
    files = (config_directory() / group).glob("*.yaml")
    found = (yaml.safe_load(file.read_text(encoding="utf-8")).get("_target_") for file in files)
    return frozenset(target for target in found if target)

"""What a run is: its name, group, tags and choices, as run.json, metrics.json and every logger have them.

    record = describe(config, {"tuned": training_run})      # inside a command, from what was typed
    record["name"], record["group"], record["choices"]      # evaluate-no_rank-seed2-spa, default, {"ablation": "no_rank", …}

A name holds what the command line chose, so the jobs of a sweep have different ones. None of this changes a result.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cptlab.settings.config_source import config_directory
from cptlab.storage.run_directory import CONFIG_FILE, INCIDENTAL, RUN_FILE, read_record

NO_EXPERIMENT = "default"  # experiment_name where none is given
TRAINED = ("ablation", "objective", "adapter")  # what training alone chooses
TAGGED = ("experiment", *TRAINED, "system", "decoding", "benchmark", "backbone")
SILENT = ("hydra", "paths", "callbacks", "logger")  # groups that say nothing of a run
NOT_IN_NAMES = (*SILENT, *(set(INCIDENTAL) - {"ablation", "debug"}), "run", "experiment_name")
LONGEST_NAME, LONGEST_TAG = 120, 64  # W&B takes 128 and 64 characters


def describe(config: DictConfig, training: Mapping[str, str | os.PathLike] | None = None) -> dict[str, Any]:
    """Return the record of the run that this command is about to make.

    `training`: the directory of each system's training run. What they chose (ablation, objective, adapter, and backbone
    and benchmark where the command names none) is among the choices; a list where they differ.
    """
    trained = list({str(run): read_training(run) for run in (training or {}).values()}.values())
    choices = _choices(config)
    for group in (*TRAINED, "backbone", "benchmark"):
        found = _distinct(one["choices"].get(group) for one in trained)
        if found and group not in choices:
            choices[group] = found[0] if len(found) == 1 else found
    sweep = _sweep()
    experiment = config.get("experiment_name") or NO_EXPERIMENT
    return {
        "name": _name(config, choices, trained),
        "group": sweep if sweep and experiment == NO_EXPERIMENT else experiment,
        "job_type": config.task_name,
        "tags": _tags(config, choices, trained),
        "choices": choices,
        "overrides": _typed(),
        "seed": config.get("seed"),
        "sweep": sweep,
        "backbone": choices.get("backbone"),
        "benchmark": choices.get("benchmark"),
    }


def read_training(run: str | os.PathLike) -> dict[str, Any]:
    """Return the record of a training run and its config, without paths of the machine.

    Of a run of an earlier version, which has no record, the choices that its config tells.
    """
    config: Any = OmegaConf.to_container(OmegaConf.load(Path(run) / CONFIG_FILE), resolve=True)
    config.pop("paths", None)
    record = read_record(Path(run) / RUN_FILE)
    for name in ("digest", "finished", "launch"):
        record.pop(name, None)
    if "choices" not in record:
        ablation = config.get("ablation")
        choices = {"ablation": ablation["name"]} if isinstance(ablation, dict) else {}
        record |= {"name": Path(run).name, "choices": choices, "seed": config.get("seed")}
    return record | {"config": config}


def _choices(config: DictConfig) -> dict[str, Any]:
    """Return the file that was chosen of each group, without groups that have one file or say nothing of the run."""
    chosen = dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}
    choices: dict[str, Any] = {
        group: file
        for group, file in sorted(chosen.items())
        if file not in (None, "default") and "@" not in group and group.split("/")[0] not in SILENT
    }
    if config.get("completions") is not None:  # no model is asked
        choices = {group: file for group, file in choices.items() if group.split("/")[0] != "decoding"}
        return choices | {"system": ["given"] if config.against is None else ["against", "given"]}
    return choices | ({"system": [str(name) for name in config.system]} if config.get("system") else {})


def _name(config: DictConfig, choices: Mapping[str, Any], trained: Iterable[Mapping[str, Any]]) -> str:
    """Return the job type and what was chosen: training runs, groups in one order, settings, and the seed at the end."""
    runs = _distinct(str(one["name"]).removeprefix("train-") for one in trained)
    groups, settings, seeds = [], [], []
    experiment = config.get("experiment_name") or NO_EXPERIMENT
    if experiment not in (NO_EXPERIMENT, choices.get("experiment")):
        groups.append(experiment)
    order = {group: place for place, group in enumerate(TAGGED)}
    for override in sorted(_overrides(), key=lambda one: order.get(one.key_or_group, len(order))):
        key = override.key_or_group
        if key.split(".")[0].split("/")[0] in NOT_IN_NAMES:
            continue
        value = "+".join(_words("no" if override.is_delete() else override.value()))
        if override.is_delete() or not _is_group(key):
            place = seeds if key == "seed" else settings
            place.append(f"{value}_{key.split('.')[-1]}" if override.is_delete() else f"{key.split('.')[-1]}{value}")
        else:
            groups.append(value)
    parts = [config.task_name, *(["+".join(runs)] if runs else []), *groups, *settings, *seeds]
    name = "-".join(re.sub(r"[^\w.+-]+", "_", part).strip("_") for part in parts)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _words(value: Any) -> list[str]:
    """Return a value as it stands in a name: a path is its last part, without its ending."""
    if isinstance(value, (list, tuple)):
        return [word for item in value for word in _words(item)]
    if isinstance(value, dict):
        return [word for key, item in value.items() for word in (f"{key}{'+'.join(_words(item))}",)]
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    return [Path(text).stem if "/" in text else text]


def _tags(config: DictConfig, choices: Mapping[str, Any], trained: Iterable[Mapping[str, Any]]) -> list[str]:
    tags = [str(tag) for tag in config.get("tags") or ()]
    for group in TAGGED:
        files = choices.get(group, [])
        tags += [f"{group}={file}" for file in ([files] if isinstance(files, str) else files)]
    if config.get("seed") is not None:
        tags.append(f"seed={config.seed}")
    tags += [f"training_seed={seed}" for seed in _distinct(one.get("seed") for one in trained)]
    return _distinct(tag[:LONGEST_TAG] for tag in tags)


def _overrides() -> list[Override]:
    typed = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return OverridesParser.create().parse_overrides(typed)


def _typed() -> list[str]:
    """Return the overrides of the command line that name no directory or file of this machine."""
    return [str(one.input_line) for one in _overrides() if not _names_path(one)]


def _names_path(override: Override) -> bool:
    if override.key_or_group.split(".")[0] == "paths":
        return True
    values = [] if override.is_delete() else override.value()
    return any(
        isinstance(value, str) and "/" in value and (value[0] in "/.~" or os.path.exists(value))
        for value in (values if isinstance(values, list) else [values])
    )


def _is_group(key: str) -> bool:
    return key in HydraConfig.get().runtime.choices or (config_directory() / key).is_dir()


def _sweep() -> str | None:
    """Return the name of the directory of this sweep; None for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(value for value in values if value is not None))

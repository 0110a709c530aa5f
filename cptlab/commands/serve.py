"""Serve trained prefixes with vLLM, to any client of OpenAI's API.

    cptlab serve run=logs/train/runs/<time>
    cptlab serve run=latest 'prefixes={strict: logs/train/runs/<time>}' port=8080

Clients ask for the model `tuned` (the run's prefix), a name of `prefixes`, or `base` (the backbone alone). Needs vLLM
(docs/serving.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cptlab.commands.shared.common import say
from cptlab.errors import UserError
from cptlab.process.ends import exit_with
from cptlab.serving.installed import vllm_version
from cptlab.settings.entry import hydra_command
from cptlab.settings.run_record import read_training
from cptlab.storage.run_directory import CONFIG_FILE, discard, training_run

TUNED, BASE = "tuned", "base"


def serve(config: DictConfig, fresh: Path) -> None:
    """Check everything that can be known before a model is loaded, then serve until a signal ends it."""
    discard(fresh)
    directories = _directories(config)
    node = config.get("backbone") or _backbone_of(next(iter(directories.values())))
    vllm_version("it is what serves")
    from cptlab.backbone.loading import load_config, locate
    from cptlab.backbone.prefix_shape import context_length, text_config
    from cptlab.serving.checks import check_model
    from cptlab.serving.served_prefix import find_prefix, load_served
    from cptlab.serving.server import parse_arguments, run_server

    folders = {name: str(find_prefix(directory)) for name, directory in directories.items()}
    served = load_served(folders)
    path, source, _ = locate(node["path"], node.get("revision"), node.get("local_files_only", False))
    if "gguf_file" in source:
        raise UserError(
            f"{node['path']} is a GGUF file, which is not served. Name the backbone that it was made from: backbone=…."
        )
    found, _ = load_config(node["path"], revision=node.get("revision"))
    length = config.max_model_len or context_length(text_config(found))[0]
    check_model(found, length, served)
    if node.get("quantization"):
        say(f"The prefix was trained on the backbone in {node['quantization']}; it is served on the whole weights.")
    options = [f"--max-model-len={length}", f"--dtype={config.dtype or node.get('dtype') or 'float32'}"]
    options += [
        f"--host={config.host}",
        f"--port={config.port}",
        *(f"--revision={source[name]}" for name in source if name == "revision"),
    ]
    asyncio.run(run_server(parse_arguments(path, folders, served, BASE, [*options, *config.vllm]), served))


def _directories(config: DictConfig) -> dict[str, str]:
    """Return the directories of what is served by model name. Raises UserError where there is none, or a name is taken."""
    directories = {str(name): str(directory) for name, directory in (config.prefixes or {}).items()}
    if taken := {TUNED, BASE} & directories.keys():
        raise UserError(
            f"The model name {min(taken)} is taken: {TUNED} is the prefix of run, {BASE} the backbone alone. Choose another."
        )
    if config.run is not None:
        run = training_run(config.run, Path(config.paths.logs), ("prefix",))
        directories = {TUNED: str(run), **directories}
    if not directories:
        raise UserError(
            "There is no prefix to serve. Give run=<directory of a training run>, or prefixes={NAME: DIRECTORY}."
        )
    return directories


def _backbone_of(directory: str) -> Mapping[str, Any]:
    """Return the node of the backbone that the training run in this directory used."""
    if not (Path(directory) / CONFIG_FILE).is_file():
        raise UserError(f"{directory} is no training run, so nothing says which backbone to serve. Add backbone=NAME.")
    return read_training(directory)["config"]["backbone"]


main = hydra_command("serve", serve)

if __name__ == "__main__":
    exit_with(main())

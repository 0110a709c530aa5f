"""The model of a training run, for use outside of evaluations: `cptlab.load`.

model = cptlab.load("latest")
print(model.generate("Write a function that reverses a list.")[0])
model.prefix, model.model, model.tokenizer      the prefix, and what transformers knows
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cptlab.adapters import Adapter, Policy, Prefix, load_adapter, load_prefix
from cptlab.adapters.peft_format import CONFIG, read_base_model
from cptlab.backbone import Backbone, load_backbone
from cptlab.decoding import Guidance, NoPrefix, Sampling, generate
from cptlab.errors import UserError
from cptlab.records import Completion
from cptlab.settings.run_record import read_training
from cptlab.storage.run_directory import ADAPTER_KINDS, CONFIG_FILE, training_run
from cptlab.systems.cleaning import cleaned
from cptlab.systems.decoding import Decoding
from cptlab.systems.loading import LoadedSystem
from cptlab.tasks.free_prompt import NAME, free_task


@dataclass(frozen=True)
class TrainedModel:
    """A frozen backbone and the adapter that was trained on it. `run` is the directory that it was loaded from."""

    backbone: Backbone
    adapter: Adapter
    run: Path

    @property
    def policy(self) -> Policy:
        """The tuned model, as `cptlab.decoding.generate` takes it."""
        return self.adapter.policy(self.backbone)

    @property
    def prefix(self) -> Prefix | None:
        """The trained prefix; None where the adapter is of another kind."""
        return self.adapter if isinstance(self.adapter, Prefix) else None

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model: the backbone's, with the adapter in it unless that is a prefix."""
        return self.policy.backbone.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.backbone.tokenizer

    def generate(self, prompt: str, n: int = 1, **options: Any) -> list[str]:
        """Return `n` programs for a prompt: words, or the beginning of a program. Options: see `completions`."""
        return [completion.program for completion in self.completions(prompt, n, **options)]

    def completions(
        self,
        prompt: str,
        n: int = 1,
        *,
        omega: float = 1.0,
        temperature: float = Sampling.temperature,
        max_new_tokens: int | None = None,
        seed: int = 0,
    ) -> list[Completion]:
        """Return `n` answers with their programs, cleaned as in evaluations.

        `omega` is a dial on the adapter: 0 is the backbone alone, 1 the tuned model; with a prefix any other value mixes
        both streams (SPA eq. 18), so that above 1 is more of it. Raises UserError for a value that cannot be, and where the
        prompt does not fit into the context.
        """
        policy = Policy(self.backbone) if omega == 0 else self.policy
        guidance = None if omega in (0, 1) else Guidance(NoPrefix(), omega)
        if guidance is not None and policy.prefix is None:
            raise UserError(
                f"omega={omega:g} cannot be: {self.run} has an adapter of kind {self.adapter.kind}, and the dial needs a "
                "prefix. Give 0 (the backbone alone) or 1 (with the adapter)."
            )
        sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
        task = free_task(prompt)
        shown = LoadedSystem(NAME, policy, Decoding(sampling)).shown_prompt(task)
        (found,) = generate(
            policy.backbone, [(task.id, shown)], n, sampling, prefix=policy.prefix, guidance=guidance, seed=seed
        )
        return [cleaned(completion, task, shown) for completion in found]


def load(
    run: str | os.PathLike = "latest",
    *,
    logs: str | os.PathLike = "logs",
    device: str | None = None,
    prompting: str | None = None,
) -> TrainedModel:
    """Load the backbone of a training run and its adapter.

    `run`: the directory of a training run, `latest` for the newest finished one below `logs`, what `cptlab pull` made, or
    the directory of a prefix in PEFT's format. `device` and `prompting` replace those that the run was trained with.

    Raises UserError where there is no such run, and where its backbone cannot be loaded.
    """
    directory, own = Path(run), {"device": device, "prompting": prompting}
    changes: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    if str(run) == "latest" or not (directory / CONFIG).is_file():
        directory = training_run(str(run), Path(logs))
        backbone = load_backbone(**_backbone_settings(directory) | changes)
        return TrainedModel(backbone, load_adapter(directory, backbone), directory)
    if directory.resolve().name in ADAPTER_KINDS and (directory.resolve().parent / CONFIG_FILE).is_file():
        return load(directory.resolve().parent, device=device, prompting=prompting)
    path, revision = read_base_model(directory)
    backbone = load_backbone(path, revision=revision, **changes)
    return TrainedModel(backbone, load_prefix(directory, backbone.shape).to(backbone.device).eval(), directory)


def _backbone_settings(run: Path) -> dict[str, Any]:
    """Return the arguments of `load_backbone` that a run was trained with. The config is data here: it may be a stranger's."""
    node = read_training(run)["config"].get("backbone")
    if not isinstance(node, Mapping) or node.get("_target_") != "cptlab.backbone.load_backbone":
        raise UserError(
            f"The config of {run} does not say which backbone to load. Give the directory of a training run, or use "
            "cptlab.backbone.load_backbone and cptlab.adapters.load_adapter."
        )
    return {str(name): value for name, value in node.items() if not str(name).startswith("_")}

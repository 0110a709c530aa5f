"""Settings that contradict each other, or leave a command nothing to do. They are refused before any work."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cptlab.errors import UserError
from cptlab.settings.debug import leaves
from cptlab.settings.declared import declared
from cptlab.settings.setting import shown

# command -> (pattern of a metric that a sweep can optimise, an example)
METRICS = {
    "train": (r"(comparative|nll|preference)/\w+", "comparative/val_accuracy"),
    "evaluate": (r"[^/]+/[^/]+/[\w@]+", "tuned/all/pylint_mean"),
    "prefer": (r"(base|tuned)/\w+", "tuned/margin"),
}
CANONICAL = "canonical"  # completions=…: the benchmark's own solutions
# arguments of lightning.Trainer that would be overridden -> what to do instead
TRAINERS = {
    "max_epochs": "Set stages.first_epochs and stages.second_epochs",
    "gradient_clip_val": "Set stages.gradient_clip",
    "gradient_clip_algorithm": "Set stages.gradient_clip",
    "callbacks": "Name them in group callbacks",
    "logger": "Name them in group logger",
    "default_root_dir": "Set paths.logs",
    "plugins": "Leave it out",
    "num_sanity_val_steps": "Leave it out",
    "enable_model_summary": "Leave it out",
    "use_distributed_sampler": "Leave it out",
}


def check_ablation(config: DictConfig) -> None:
    """An ablation must hold: every value that it sets is there in the end."""
    ablation: Any = OmegaConf.to_container(config).get("ablation")  # type: ignore[union-attr]
    if ablation is None:
        return
    if not isinstance(ablation, dict) or set(ablation) != {"name", "sets"} or not isinstance(ablation["sets"], dict):
        raise UserError("The settings of an ablation cannot be changed. Use ablation=<file>, such as ablation=no_kl.")
    for name, value in leaves(ablation["sets"]):
        parent, _, key = name.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        if not isinstance(node, DictConfig):
            raise UserError(
                f"ablation={ablation['name']} sets {name}, and there is no {parent}. Leave the ablation out."
            )
        found = declared(node._target_) if "_target_" in node else None
        if key not in (node if found is None else found.names):
            raise UserError(
                f"ablation={ablation['name']} sets {name}, which {node.get('_target_', 'the config')} does not have. "
                f"Leave the ablation out, or choose another {parent}."
            )
        if node[key] != value:
            raise UserError(
                f"ablation={ablation['name']} sets {name}={value}, and another override or experiment sets it to "
                f"{node[key]}. Leave one of the two out."
            )


def check_decoding(node: DictConfig, place: str) -> None:
    """Check a decoding that stands at `place`, whose parts have been checked: one ω, and a second try that can differ."""
    guidance = node.get("guidance")
    steering = node.get("steering")
    if steering is not None and guidance is not None:
        raise UserError(
            f"{place}.steering changes what one stream attends to, and {place}.guidance mixes two. Set one of them to null."
        )
    others = (guidance, steering, node.get("strategy"))
    if node.get("engine") == "vllm" and any(one is not None for one in others):
        raise UserError(
            f"{place}.engine=vllm samples token by token from one stream; a second stream, steering and strategies such as beams are "
            f"those of cptlab's own engine. Set {place}.engine=cptlab, or decode plainly, as with decoding=paper."
        )
    if node.get("second_try"):
        if guidance is not None:
            raise UserError(
                f"{place}.second_try=true is the control without a second stream, and this decoding has one. Use "
                "decoding=second_try, or set it to false."
            )
        if node.get("strategy") is not None or node.sampling.get("temperature") == 0:
            raise UserError(
                f"{place}.second_try=true would give the same programs again, as this decoding draws no random tokens. Set "
                "a temperature above 0 and no strategy."
            )
    if guidance is None or "omega" not in node or OmegaConf.is_interpolation(guidance, "omega"):
        return
    if guidance.omega != node.omega:
        raise UserError(
            f"{place}.guidance.omega={shown(guidance.omega)} and {place}.omega={shown(node.omega)} contradict each other. "
            f"Set {place}.omega alone."
        )


def check_together(config: DictConfig) -> None:
    """Check a config whose settings are each allowed. Raises UserError for the first that contradicts another."""
    _check_given(config)
    _check_shards(config)
    _check_ks(config)
    _check_metric(config)
    _check_disabled(config)
    _check_injected(config)
    _check_training(config)
    _check_selection(config)
    if config.task_name == "omega" and config.low >= config.high:
        raise UserError(f"low={config.low:g} and high={config.high:g} make no grid of ω. Set low below high.")


def _check_given(config: DictConfig) -> None:
    """The settings of `evaluate completions=…`, which loads no model and draws no sample."""
    if config.get("completions") is None:
        if config.get("against") is not None:
            raise UserError("against=… needs completions=…: the file of programs that are compared with it. Give both.")
        return
    if config.get("benchmark") is None:
        raise UserError(
            "completions=… needs the benchmark that the programs are for. Add benchmark=<name>, such as "
            "benchmark=humaneval."
        )
    asked = {"run": ("latest", None), "backbone": (None,), "prompting": (None,), "limit": (None,), "device": (None,)}
    asked |= {"shards": (None,), "shard": (None,), "ray": (None,), "estimate": (False,), "n": (None,)}
    if config.completions == CANONICAL:
        del asked["limit"], asked["n"]  # a record asks for the same tasks and n of all that it compares
    for name, usual in asked.items():
        if config.get(name) not in usual:
            raise UserError(
                f"{name}=… and completions=… contradict each other: a file of programs is judged whole and without a "
                f"model. Leave {name} out."
            )


def _check_shards(config: DictConfig) -> None:
    """Who makes the programs: this command, a shard of it, or Ray."""
    shard, shards = config.get("shard"), config.get("shards")
    if shard is None and shards is None:
        return
    if shard is None or shards is None:
        missing = "shard" if shard is None else "shards"
        raise UserError(
            f"{missing} is missing: shards=8 shard=3 is the fourth of eight, and -m shards=8 'shard=range(8)' makes all of "
            "them. Give both, or neither."
        )
    if shard >= shards:
        raise UserError(
            f"shard={shard} cannot be with shards={shards}: shards are numbered from 0. Give one up to {shards - 1}."
        )
    for name in ("ray", "estimate"):
        if config.get(name):
            raise UserError(
                f"{name}=… and shard=… contradict each other: a shard is made by this command. Leave one out."
            )


def _check_ks(config: DictConfig) -> None:
    ks = config.get("ks")
    if ks is None:
        return
    if len(ks) == 0 or len(set(ks)) < len(ks):
        raise UserError(
            f"ks={shown(list(ks))} cannot be: it must name one k or more, each once. Correct it, or set ks=null."
        )
    if config.completions is None and config.n is not None and max(ks) > config.n:
        raise UserError(
            f"pass@{max(ks)} needs at least {max(ks)} samples per task, and n={config.n}. "
            f"Raise n, or leave {max(ks)} out of ks."
        )


def _check_metric(config: DictConfig) -> None:
    metric = config.get("optimized_metric")
    if metric is not None and not re.fullmatch(METRICS[config.task_name][0], metric):
        example = METRICS[config.task_name][1]
        raise UserError(f"optimized_metric={metric} cannot be: it must be a name like {example}, or null.")


def _check_disabled(config: DictConfig) -> None:
    for name in config.get("extra_disabled") or ():
        if not re.fullmatch(r"[CRWEF]\d{4}", name):
            raise UserError(
                f"extra_disabled has {name}, which is no id of a pylint message. Give a list such as [W0621,E0602]."
            )
    scorer = config.get("scorer")
    parts = [scorer, *(scorer.get("scorers") or {}).values()] if scorer is not None else []
    if config.get("extra_disabled") and parts and not any("extra_disabled" in (one or ()) for one in parts):
        raise UserError(
            "extra_disabled=… is about pylint, and this scorer is another. Leave it out, or use scorer=pylint."
        )


def _check_injected(config: DictConfig) -> None:
    recipe, scorer = config.get("pairs"), config.get("scorer")
    if recipe is None or scorer is None:
        return
    parts = [recipe, *(recipe.get("parts") or {}).values()]
    if any(str(part.get("_target_")).endswith(".InjectedPairs") for part in parts) and not str(
        scorer.get("_target_")
    ).endswith(".Pylint"):
        raise UserError(
            "Injected pairs are about messages of pylint, and this scorer is another. Use scorer=pylint, or pairs=paper or "
            "pairs=rewritten."
        )


def _check_training(config: DictConfig) -> None:
    stages, trainer = config.get("stages"), config.get("trainer")
    if stages is not None and stages.get("first_epochs") == stages.get("second_epochs") == 0:
        raise UserError(
            "There is nothing to train with stages.first_epochs=0 and stages.second_epochs=0. Set one of them above 0."
        )
    for name in trainer or ():
        if name in TRAINERS:
            raise UserError(f"trainer.{name} cannot be set: training has its own value for it. {TRAINERS[name]}.")


def _check_selection(config: DictConfig) -> None:
    selection = OmegaConf.select(config, "pairs.selection")
    if selection is not None and selection.get("beta1") == selection.get("beta2") == 0:
        raise UserError(
            "pairs.selection.beta1=0 and pairs.selection.beta2=0 make all pairs equal. Set one of them to another value."
        )

"""Configuration: the entry wrapper, the one validation pass, and the one wrapper around Hydra's instantiate.

A user's mistake anywhere below an entry ends in one sentence on stderr and exit code 2, without a traceback. Set
CPTLAB_TRACEBACK=1 to see where it came from.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.tree import Tree

from cptlab.errors import UserError

GROUPS_SHOWN_LAST = ("paths", "hydra")
# what the validation pass knows of values: dotted name -> (type, test, what it must be)
RULES: dict[str, tuple[type | tuple[type, ...], Callable[[Any], bool], str]] = {
    "seed": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "n": (int, lambda v: v >= 1, "a whole number from 1 up"),
    "limit": ((int, type(None)), lambda v: v is None or v >= 1, "a whole number from 1 up, or null for all tasks"),
    "workers": ((int, type(None)), lambda v: v is None or v >= 1, "a whole number from 1 up, or null for all cores"),
    "completions": ((str, type(None)), lambda v: v is None or v != "", "the path of a JSONL file, or null"),
    "against": ((str, type(None)), lambda v: v is None or v != "", "the path of a JSONL file, or null"),
    "sandbox": (str, lambda v: v in ("namespaces", "landlock", "seccomp", "limits"),
                "namespaces, landlock, seccomp or limits"),
    "pairs.n": (int, lambda v: v >= 2, "a whole number from 2 up"),
    "pairs.train_tasks": ((int, type(None)), lambda v: v is None or v >= 1, "a whole number from 1 up, or null"),
    "pairs.validation_tasks": ((int, type(None)), lambda v: v is None or v >= 1, "a whole number from 1 up, or null"),
    "pairs.reserved": (int, lambda v: v >= 1, "a whole number from 1 up"),
    "pairs.selection.min_gap": ((int, float), lambda v: 0 <= v < 1, "a number from 0 up to 1"),
    "pairs.selection.min_similarity": ((int, float), lambda v: 0 <= v < 1, "a number from 0 up to 1"),
    "decoding.sampling.temperature": ((int, float), lambda v: v >= 0, "a number from 0 (greedy) up"),
    "decoding.sampling.top_p": ((int, float), lambda v: 0 < v <= 1, "a number above 0 and at most 1"),
    "decoding.sampling.max_new_tokens": (int, lambda v: v >= 1, "a whole number from 1 up"),
    "decoding.token_budget": (int, lambda v: v >= 1, "a whole number of tokens from 1 up"),
    "decoding.omega": ((int, float, str), lambda v: v == "tuned" or not isinstance(v, str), "a number, or tuned"),
    "prefix.length": (int, lambda v: v >= 1, "a whole number from 1 up"),
    "prefix.rank": ((int, type(None)), lambda v: v is None or v >= 1, "a whole number from 1 up, or null"),
    "data.loader.batch_size": (int, lambda v: v >= 1, "a whole number from 1 up"),
    "stages.first_epochs": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "stages.second_epochs": (int, lambda v: v >= 0, "a whole number from 0 up"),
    "stages.learning_rate": ((int, float), lambda v: v > 0, "a number above 0"),
    "stages.second_learning_rate": ((int, float, type(None)), lambda v: v is None or v > 0, "a number above 0, or null"),
    "compute.token_budget": (int, lambda v: v >= 1, "a whole number of tokens from 1 up"),
    "compute.reference": (str, lambda v: v in ("disk", "recompute"), "disk or recompute"),
    "compute.reference_precision": (str, lambda v: v in ("full", "half"), "full or half"),
    "compute.checkpointing": (bool, lambda v: True, "true or false"),
    "compute.compile": (bool, lambda v: True, "true or false"),
    "estimate": (bool, lambda v: True, "true or false"),
    "stages.weight_decay": ((int, float), lambda v: v >= 0, "a number from 0 up"),
    "stages.gradient_clip": ((int, float), lambda v: v > 0, "a number above 0"),
    "stages.checkpoint_every": (int, lambda v: v >= 1, "a whole number of steps from 1 up"),
    "pairs.refine": (str, lambda v: v in ("none", "pylint_lines"), "none or pylint_lines"),
    "pairs.selection.prefer": (str, lambda v: v in ("score", "similarity"), "score or similarity"),
    "extra_disabled": (object, lambda v: OmegaConf.is_list(v) and all(re.fullmatch(r"[CRWEF]\d{4}", str(c)) for c in v),
                       "a list of pylint message ids, such as [W0621,E0602]"),
    "tags": (object, lambda v: OmegaConf.is_list(v), "a list, such as [first,second]"),
    "ks": (object, lambda v: v is None or (OmegaConf.is_list(v) and all(type(k) is int and k >= 1 for k in v)),
           "a list of whole numbers from 1 up, or null"),
}

STAGE_SETTINGS = {"first_epochs", "second_epochs", "learning_rate", "second_learning_rate", "weight_decay",
                  "gradient_clip", "checkpoint_every"}
# task -> (pattern of a metric that a sweep can optimise, an example)
METRICS = {
    "train": (r"(comparative|nll)/\w+", "comparative/val_accuracy"),
    "evaluate": (r"(base|tuned|given)/(introductory|interview|competition|all)/[\w@]+", "tuned/all/pylint_mean"),
}


def entry(main: Callable[[], Any]) -> None:
    """Run a `@hydra.main` function; a user's mistake is one sentence on stderr and exit code 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands its errors on instead of printing them
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on from here.")
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("CPTLAB_TRACEBACK"):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    except ValueError as error:
        if not str(error).startswith("Config group override"):  # how Hydra refuses prefix=null and the like
            raise
        print(f"error: {error}. Name one of the group's files.", file=sys.stderr)
        sys.exit(2)


def job(run: Callable[[DictConfig], float | None], config: DictConfig) -> float | None:
    """One job: validate and print its config, run it. A mistake ends a single run here, without Hydra's extra line.

    In a sweep it is left to Hydra, which finishes the other jobs first.
    """
    mode = HydraConfig.get().mode
    try:
        strategy = OmegaConf.select(config, "trainer.strategy")
        if mode == RunMode.MULTIRUN and strategy not in (None, "auto") and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise UserError("Under -m, a job cannot start its other processes by itself: they would run the whole sweep "
                            "again. Launch with torchrun, or use trainer=cpu or trainer=gpu.")
        prepare(config)
        return run(config)
    except UserError as error:
        with contextlib.suppress(OSError):
            os.rmdir(HydraConfig.get().runtime.output_dir)  # nothing was begun in it
        if mode == RunMode.MULTIRUN or os.environ.get("CPTLAB_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def explain(error: BaseException) -> str:
    """One or two sentences for an error of the user's, Hydra's or OmegaConf's."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    text = str(error)
    missing = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if missing:
        group, value = missing.groups()
        options = re.findall(r"^\t(\S+)$", text.split("Config search path")[0], re.MULTILINE)
        return f"There is no {group}={value}. Choose one of: {', '.join(options) or 'none'}."
    unknown = re.search(r"Could not (?:override|append to config)[^']*'([^']+)'", text)
    if unknown:
        return (f"There is no setting {unknown.group(1)!r}. Look for its name in the config tree that the command "
                "prints with --cfg job.")
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def prepare(config: DictConfig) -> None:
    """Validate a composed config and print it as a tree. Raises UserError for the first value that cannot be."""
    validate(config)
    if config.get("print_config", True) and is_main_process():
        print_tree(config)


def is_main_process() -> bool:
    """Whether this is the process that prints and writes: rank 0, or the only one."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


def validate(config: DictConfig) -> None:
    """The one validation pass: types and ranges of values, and settings that contradict each other."""
    for name, (kind, allowed, expected) in RULES.items():
        node = OmegaConf.select(config, name, default="absent")
        if isinstance(node, str) and node == "absent":
            continue
        good = isinstance(node, kind) and not (isinstance(node, bool) and kind not in (object, bool))
        if not good or not allowed(node):
            raise UserError(f"{name}={node} cannot be: it must be {expected}. Correct that value.")
    _validate_given(config)
    ks = config.get("ks")
    if ks and config.get("completions") is None and max(ks, default=1) > config.n:
        raise UserError(
            f"pass@{max(ks)} needs at least {max(ks)} samples per task, and n={config.n}. "
            f"Raise n, or leave {max(ks)} out of ks."
        )
    metric, task = config.get("optimized_metric"), config.get("task_name")
    if metric is not None and task in METRICS and not re.fullmatch(METRICS[task][0], str(metric)):
        raise UserError(f"optimized_metric={metric} cannot be: it must be a name like {METRICS[task][1]}, or null.")
    unknown = set(config.get("stages") or ()) - STAGE_SETTINGS
    if unknown:
        raise UserError(f"There is no setting stages.{min(unknown)}. Choose from {', '.join(sorted(STAGE_SETTINGS))}.")


def _validate_given(config: DictConfig) -> None:
    """The settings of `evaluate.py completions=…`, which loads no model and draws no sample."""
    if config.get("completions") is None:
        if config.get("against") is not None:
            raise UserError("against=… needs completions=…: the file of programs that are compared with it. Give both.")
        return
    if config.get("benchmark") is None:
        raise UserError("completions=… needs the benchmark that the programs are for. Add benchmark=<name>, such as "
                        "benchmark=humaneval.")
    for name, usual in (("run", ("latest", None)), ("backbone", (None,)), ("limit", (None,)), ("device", (None,))):
        if config.get(name) not in usual:
            raise UserError(f"{name}=… and completions=… contradict each other: a file of programs is judged whole and "
                            f"without a model. Leave {name} out.")


def print_tree(config: DictConfig) -> None:
    """The resolved config as a tree, groups in the order of the file, paths and the like last."""
    root = Tree("config", guide_style="dim")
    content = OmegaConf.to_container(config, resolve=True)
    names = sorted(content, key=lambda name: name in GROUPS_SHOWN_LAST)
    for name in names:
        _branch(root, name, content[name])
    Console(stderr=False, soft_wrap=True).print(root)


def _branch(tree: Tree, name: str, value: Any) -> None:
    if isinstance(value, dict) and value:
        node = tree.add(f"[bold]{name}[/bold]")
        for key, item in value.items():
            _branch(node, str(key), item)
    else:
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, (str, list)) else str(value)
        tree.add(f"{name}: {text}".replace("[", r"\["))


def build(node: DictConfig, name: str, *args: Any, **extra: Any) -> Any:
    """Hydra's instantiate on a config node; an error in the user's values is a UserError that names the node."""
    try:
        return hydra.utils.instantiate(node, *args, **extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError) and "unexpected keyword" in str(cause):
            wrong = re.search(r"'([^']+)'$", str(cause))
            key = wrong.group(1) if wrong else "?"
            near = difflib.get_close_matches(key, [str(k) for k in node if k != key], 1)
            hint = f" Did you mean {name}.{near[0]}?" if near else " Remove it, or the ablation or experiment that sets it."
            raise UserError(f"{name} has no setting {key!r}.{hint}") from None
        if isinstance(cause, (TypeError, ValueError)) or cause is None:
            raise UserError(f"{name} cannot be made from its settings: {cause or error}. Correct conf group {name}."
                            ) from error
        raise

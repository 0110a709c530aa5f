"""The settings of conf groups that build nothing themselves: paths, decoding and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cptlab.settings.setting import Part, Setting


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Group paths."""

    logs: Annotated[str, Setting("Directory of the runs.")] = "logs"
    cache: Annotated[str, Setting("Directory of programs, scores, verdicts and pairs that runs share.")] = ".cache"
    data_dir: Annotated[
        str | None, Setting("Directory of benchmark files; null, or a file that is not there: the Hugging Face hub.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Group decoding: the parts that are built, and what they share."""

    sampling: Annotated[Any, Part()]
    strategy: Annotated[Any, Part(optional=True)] = None
    negative: Annotated[Any, Part()] = None
    gate: Annotated[Any, Part()] = None
    rule: Annotated[Any, Part()] = None
    guidance: Annotated[Any, Part(optional=True)] = None
    steering: Annotated[Any, Part(optional=True)] = None
    omega: Annotated[
        float | Literal["tuned"],
        Setting(
            "Weight ω of the prompt's own logits in the mixture: 1 is plain decoding; tuned: the value that cptlab omega stored."
        ),
    ]
    second_try: Annotated[
        bool,
        Setting(
            "Whether a program that fails a public test is drawn once more, with fresh random numbers and no second "
            "stream: the control for decoding/gate=failed_tests."
        ),
    ] = False
    engine: Annotated[
        str,
        Setting(
            "What samples: cptlab's own engine, or vLLM (docs/serving.md), which knows no second stream, no steering and no strategy.",
            choices=("cptlab", "vllm"),
        ),
    ] = "cptlab"
    token_budget: Annotated[
        int | None,
        Setting(
            "Cached tokens at a time; null: 65536 on a CPU (32 GB of Code Llama 7B in half precision), and as many as fit on a GPU.",
            at_least=1,
        ),
    ] = None
    slots: Annotated[
        bool | None,
        Setting(
            "Whether running programs have slots of fixed size, so that a GPU runs each step as one graph; null: on a GPU. It "
            "changes programs by rounding only."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """Group data."""

    pairs_file: Annotated[
        str | None, Setting("Pairs to train on; null: those that group pairs gives for this backbone, built if needed.")
    ] = None
    loader: Annotated[Any, Part(partial=True)]

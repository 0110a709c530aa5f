"""What a training run may use of memory, disk and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cptlab.settings.setting import Setting, check_settings


@dataclass(frozen=True)
class Compute:
    """None of these settings changes what is computed; `reference_precision=half` rounds. Raises UserError for a value
    that cannot be."""

    step: Annotated[
        str,
        Setting("Fast, or the readable plain step that the fast one is checked against.", choices=("fast", "plain")),
    ] = "fast"
    token_budget: Annotated[
        int,
        Setting(
            "Tokens in memory at once, with padding where there is any; a step of more pairs adds up their gradients.",
            at_least=1,
        ),
    ] = 4096
    reference: Annotated[
        str,
        Setting(
            "Whether the outputs of the reference model are kept in paths.cache, for the fast step, or computed at every "
            "step.",
            choices=("disk", "recompute"),
        ),
    ] = "disk"
    reference_precision: Annotated[
        str, Setting("Precision of the reference on disk: the backbone's own, or float16.", choices=("full", "half"))
    ] = "full"
    checkpointing: Annotated[
        bool, Setting("Whether activations are computed again in the backward pass: slower, far less memory.")
    ] = False
    compile: Annotated[bool, Setting("Whether torch.compile compiles each decoder layer before the first step.")] = (
        False
    )

    def __post_init__(self) -> None:
        check_settings(self)

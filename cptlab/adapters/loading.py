"""The adapter that a training run left behind."""

from __future__ import annotations

import os
from pathlib import Path

from cptlab.adapters.base import Adapter
from cptlab.adapters.prefix import load_prefix
from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.storage.run_directory import ADAPTER_KINDS, adapter_kind


def load_adapter(run: str | os.PathLike, backbone: Backbone) -> Adapter:
    """Load the adapter in the directory of a training run, on the backbone's device, in eval mode. Raises UserError."""
    kind = adapter_kind(run)
    if kind is None:
        raise UserError(
            f"{run} holds no trained adapter ({', '.join(ADAPTER_KINDS)}). Give the directory of a finished training run."
        )
    directory = Path(run) / kind
    if kind == "lora":
        from cptlab.adapters.lora import load_lora  # PEFT takes seconds to import

        return load_lora(directory, backbone)
    if kind == "full":
        from cptlab.adapters.full import load_full

        return load_full(directory, backbone)
    return load_prefix(directory, backbone.shape).to(backbone.device).eval()

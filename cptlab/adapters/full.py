"""Full fine-tuning: all weights are trained, on a copy of the backbone's model.

The frozen backbone stays beside the copy, as the reference model. So training takes the memory of both, of the copy's
gradients, and of AdamW's two moments of each weight: 4 bytes four times a parameter, plus the frozen weights.
"""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from cptlab.adapters.base import Adapter, Policy, tensor_digest
from cptlab.adapters.peft_format import write_extra
from cptlab.backbone import Backbone
from cptlab.backbone.loading import no_progress_bars
from cptlab.backbone.prefix_shape import text_config
from cptlab.backbone.quantization import QuantizedLinear
from cptlab.errors import UserError
from cptlab.storage.atomic import replacing_directory


class FullFineTuning(Adapter):
    """A copy of the backbone's model, in float32 at least, all of whose parameters are trained.

    It stays in eval mode: no dropout that the model's config may ask for. `seed` changes nothing, as the start is the
    backbone. Raises UserError for a quantized backbone.
    """

    kind = "full"

    def __init__(self, backbone: Backbone, seed: int = 0) -> None:
        if any(isinstance(module, QuantizedLinear) for module in backbone.model.modules()):
            raise UserError("Quantized weights cannot be trained. Set backbone.quantization=null, or adapter=lora.")
        self._hold(backbone, copy.deepcopy(backbone.model))

    def _hold(self, backbone: Backbone, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.requires_grad_(True).eval()
        dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
        nn.Module.to(model, device=backbone.device, dtype=dtype)
        self._policy = Policy(backbone.with_model(self.model))

    def policy(self, backbone: Backbone) -> Policy:
        return self._policy

    def description(self) -> dict[str, Any]:
        return {"model_type": self.model.config.model_type, "parameters": sum(p.numel() for p in self.parameters())}

    def digest(self) -> str:
        return tensor_digest(self.model.state_dict())

    def train(self, mode: bool = True) -> FullFineTuning:
        """Note the mode; the model stays in eval mode."""
        self.training = mode
        return self

    def export(self, directory: str | os.PathLike, backbone: Backbone, extra: dict[str, Any] | None = None) -> None:
        """Write what `AutoModelForCausalLM.from_pretrained(directory)` loads, and the tokenizer, all or nothing."""
        with replacing_directory(directory) as partial:
            with no_progress_bars():
                self.model.save_pretrained(partial)
            backbone.tokenizer.save_pretrained(partial)
            write_extra(partial, backbone, extra)


def load_full(directory: str | os.PathLike, backbone: Backbone) -> FullFineTuning:
    """Load the model that `FullFineTuning.export` wrote. Raises UserError where there is none of this architecture."""
    try:
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype="auto",
                attn_implementation=backbone.config._attn_implementation,
                local_files_only=True,
            )
    except (OSError, ValueError) as error:
        raise UserError(f"The model in {directory} cannot be read ({error}). Give <train run>/full.") from None
    wanted, found = backbone.config.to_dict(), text_config(model.config).to_dict()
    shape = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
    if any(wanted.get(name) != found.get(name) for name in shape):
        raise UserError(
            f"The model in {directory} is of another architecture than {backbone.name}. Use the backbone that it was "
            "trained from."
        )
    made = FullFineTuning.__new__(FullFineTuning)
    made._hold(backbone, model)
    return made.eval()

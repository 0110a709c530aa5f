"""LoRA: low-rank matrices added to linear layers, by Hugging Face PEFT (https://arxiv.org/abs/2106.09685).

A layer with weight W [O, I] computes x Wᵀ + (alpha / r) x Aᵀ Bᵀ, A [r, I] and B [O, r]. B starts at 0, so that the policy
starts as the backbone. The layers are put into a copy of the model that shares the frozen tensors: the backbone itself
stays as it is, and the copy takes the memory of A and B alone.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from transformers import PreTrainedModel

from cptlab.adapters.base import Adapter, Policy, tensor_digest
from cptlab.adapters.peft_format import CONFIG, WEIGHTS, write_extra
from cptlab.backbone import Backbone
from cptlab.backbone.foreign_logs import only_errors_of
from cptlab.errors import UserError
from cptlab.settings.setting import Setting, check_settings
from cptlab.storage.atomic import write_bytes, write_text

with only_errors_of("bitsandbytes"):  # which PEFT imports, and which warns of a kernel for 4 bits
    from peft import LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

ALL = "all-linear"


class LoRA(Adapter):
    """The matrices A and B of every adapted layer, float32 at least, drawn from `seed` alone.

    Raises UserError for a backbone whose layers PEFT cannot adapt.
    """

    kind = "lora"

    def __init__(
        self,
        backbone: Backbone,
        r: Annotated[int, Setting("Rank of the matrices.", at_least=1)] = 8,
        alpha: Annotated[int, Setting("The product of both matrices is scaled by alpha / r.", at_least=1)] = 16,
        dropout: Annotated[
            float, Setting("Share of a layer's inputs left out in training.", at_least=0, below=1)
        ] = 0.0,
        target_modules: Annotated[
            str | Sequence[str] | None,
            Setting("Names of the adapted layers, or all-linear; null: PEFT's choice for the architecture."),
        ] = None,
        seed: int = 0,
    ) -> None:
        check_settings(LoRA, r=r, alpha=alpha, dropout=dropout, target_modules=target_modules)
        usual = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(backbone.config.model_type, ALL)
        chosen = usual if target_modules is None else target_modules
        chosen = chosen if isinstance(chosen, str) else list(chosen)
        config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen, task_type="CAUSAL_LM")
        self._put_into(backbone, config, seed)

    def _put_into(self, backbone: Backbone, config: LoraConfig, seed: int) -> None:
        """Make the adapted copy of the backbone's model, and register its new parameters."""
        nn.Module.__init__(self)
        try:
            with _seeded(seed), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
                peft_model = get_peft_model(_shared_copy(backbone.model), config)
        except ValueError as error:  # PEFT's word for layers that are not there, or that it does not know
            raise UserError(
                f"LoRA cannot be put on {backbone.name}: {error} Set adapter.target_modules=all-linear or to the names of "
                "linear layers, and backbone.quantization=null."
            ) from None
        config.base_model_name_or_path, config.revision = backbone.path, backbone.revision
        model = cast(PreTrainedModel, peft_model.get_base_model())
        self.config, self.seed = config, seed
        self._held = (
            peft_model,
            backbone.with_model(model),
        )  # in a tuple, and so no submodule: the backbone's tensors are in it
        named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.weights = nn.ParameterDict({_key(name): weight for name, weight in named.items()})

    @property
    def peft_model(self) -> Any:
        """The adapted model as PEFT's PeftModel, for trainers of other libraries."""
        return self._held[0]

    def policy(self, backbone: Backbone) -> Policy:
        return Policy(self._held[1])

    def description(self) -> dict[str, Any]:
        modules = self.config.target_modules or ()
        return {
            "r": self.config.r,
            "alpha": self.config.lora_alpha,
            "dropout": self.config.lora_dropout,
            "target_modules": modules if isinstance(modules, str) else sorted(modules),
        }

    def digest(self) -> str:
        return tensor_digest(dict(self.weights.items()), sorted(self.description().items()))

    def train(self, mode: bool = True) -> LoRA:
        """Turn dropout on or off; the rest of the model stays in eval mode."""
        super().train(mode)
        for module in self._held[1].model.modules():
            if isinstance(module, LoraLayer):
                module.lora_dropout.train(mode)
        return self

    def seeded_randomness(self, *numbers: int) -> contextlib.AbstractContextManager:
        if not self.config.lora_dropout:
            return contextlib.nullcontext()
        return _seeded(hash((self.seed, *numbers)) % 2**63, self._held[1].device)

    def export(self, directory: str | os.PathLike, backbone: Backbone, extra: dict[str, Any] | None = None) -> None:
        """Write what `peft.PeftModel.from_pretrained(model, directory)` loads."""
        directory = Path(directory)
        tensors = get_peft_model_state_dict(self._held[0])
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_bytes(directory / WEIGHTS, save(tensors, metadata={"format": "pt"}))
        write_extra(directory, backbone, extra)
        content = {name: sorted(v) if isinstance(v, set) else v for name, v in self.config.to_dict().items()}
        content |= {"inference_mode": True, "auto_mapping": None}
        write_text(directory / CONFIG, json.dumps(content, indent=2, sort_keys=True) + "\n")


def load_lora(directory: str | os.PathLike, backbone: Backbone) -> LoRA:
    """Load the LoRA that `LoRA.export` or PEFT wrote to a directory, onto `backbone`.

    Raises UserError where there is none, and where it belongs to another architecture.
    """
    directory = Path(directory)
    remedy = "Give the directory of a LoRA, such as <train run>/lora."
    if not (directory / CONFIG).is_file():  # PEFT would look for it on the hub
        raise UserError(f"There is no {CONFIG} in {directory}. {remedy}")
    try:
        config = PeftConfig.from_pretrained(str(directory))
        tensors = load_file(directory / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise UserError(f"The LoRA in {directory} cannot be read ({error}). {remedy}") from None
    if not isinstance(config, LoraConfig):
        raise UserError(f"{directory} holds an adapter of type {config.peft_type}, not LORA. {remedy}")
    config.inference_mode = False  # PEFT would freeze the parameters
    made = LoRA.__new__(LoRA)
    made._put_into(backbone, config, seed=0)
    wanted = get_peft_model_state_dict(made._held[0])
    if {name: tensor.shape for name, tensor in wanted.items()} != {name: t.shape for name, t in tensors.items()}:
        raise UserError(
            f"The LoRA in {directory} belongs to another backbone than {backbone.name}. "
            "Use the backbone that it was trained on, or train a LoRA for this one."
        )
    set_peft_model_state_dict(made._held[0], tensors)
    return made.eval()


def _key(name: str) -> str:
    """The name of a parameter as a key of the checkpoint: model/layers/0/self_attn/q_proj/lora_A."""
    return name.removesuffix(".default.weight").replace(".", "/")


def _shared_copy(model: nn.Module) -> Any:
    """Copy the modules of a model, not its parameters and buffers: those are the same tensors."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within it, torch draws from `seed`, on the CPU and on `device`; afterwards its generators are as they were."""
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield

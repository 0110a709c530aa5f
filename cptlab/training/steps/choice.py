"""How the steps of a run are computed: by which method, and what it may use of memory and disk."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig

from cptlab.adapters.prefix import Prefix
from cptlab.backbone import Backbone
from cptlab.backbone.gradient_checkpointing import checkpointed, decoder_layers
from cptlab.errors import UserError
from cptlab.training.objectives import losses
from cptlab.training.steps.batches import Batch, collate
from cptlab.training.steps.fast import FastOutputs
from cptlab.training.steps.plain import PlainOutputs
from cptlab.training.steps.token_pairs import TokenPair

STEPS = {"fast": FastOutputs, "plain": PlainOutputs}
REFERENCES, PRECISIONS = ("disk", "recompute"), ("full", "half")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.1}


@dataclass(frozen=True)
class Compute:
    """What a run may use. None of it changes what is computed; `half` rounds the reference.

    `step`: 'fast', or 'plain', the readable step that the fast one is checked against.
    `token_budget`: padded tokens of packed rows that are in memory at once; a step of more pairs adds up their
    gradients. `reference`: what the backbone alone says of the pairs is kept on 'disk' or 'recompute'd at every step;
    `reference_precision`: kept in 'full' (the backbone's own) or 'half' precision. `checkpointing`: activations are
    computed again in the backward pass instead of kept. `compile`: each decoder layer by torch.compile. Raises
    UserError for an unknown value.
    """

    step: str = "fast"
    token_budget: int = 4096
    reference: str = "disk"
    reference_precision: str = "full"
    checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name, known in (("step", STEPS), ("reference", REFERENCES), ("reference_precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"compute.{name}={getattr(self, name)} is unknown. Choose one of {', '.join(known)}.")
        if self.token_budget < 1:
            raise UserError(f"compute.token_budget={self.token_budget} is no number of tokens. Set it to 1 or more.")


@dataclass(frozen=True)
class StepMethod:
    """`name` is 'fast' or 'plain'; `reason` says why a plain one is used where a fast one was asked for."""

    name: str = "fast"
    reason: str | None = None
    checkpointing: bool = False

    def outputs(self, backbone: Backbone, batch: Batch, prefixes: Sequence[Prefix]) -> FastOutputs | PlainOutputs:
        """What an objective may ask of this batch under these prefixes."""
        return STEPS[self.name](backbone, batch, prefixes)

    def running(self, backbone: Backbone) -> contextlib.AbstractContextManager:
        """Within it, forward passes keep as little for the backward pass as was asked for."""
        return checkpointed(backbone.model) if self.checkpointing else contextlib.nullcontext()

    def facts(self) -> dict[str, str | None]:
        """For metrics.json."""
        return {"step": self.name} | ({"step_reason": self.reason} if self.reason else {})


def choose_step(backbone: Backbone, compute: Compute | None = None) -> StepMethod:
    """Choose the step that `compute.step` asks for, or the plain one where this architecture cannot take the fast one.

    Found out by running both on two pairs of a few tokens. Raises UserError where the layers cannot be compiled.
    """
    compute = compute or Compute()
    if compute.compile:
        _compile_layers(backbone)
    reason = _why_not_fast(backbone) if compute.step == "fast" else None
    return StepMethod("plain" if reason else compute.step, reason, compute.checkpointing)


def _compile_layers(backbone: Backbone) -> None:
    layers = decoder_layers(backbone.model)
    # each layer is compiled for itself, with and without a prefix; beyond its limit torch would go on without a word
    for name, least in (("recompile_limit", 8), ("accumulated_recompile_limit", 256)):
        setattr(torch._dynamo.config, name, max(least, 8 * len(layers), getattr(torch._dynamo.config, name)))
    for layer in layers:
        layer.compile(dynamic=True)
    batch, prefix = _trial(backbone)
    try:
        _loss_and_gradient(PlainOutputs(backbone, batch, [prefix]), prefix)
    except Exception as error:  # whatever the compilers say, torch's or the machine's
        raise UserError(
            f"The layers of {backbone.name} cannot be compiled here ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Set compute.compile=false, or install what is missing (a C++ compiler for a CPU)."
        ) from error


def _why_not_fast(backbone: Backbone) -> str | None:
    if reason := declared_reason(backbone.config):
        return reason
    weight = getattr(backbone.head, "weight", None)
    if not isinstance(backbone.head, nn.Linear) or not weight.is_floating_point():
        return f"the head of a {backbone.config.model_type} model is no plain linear layer"
    batch, prefix = _trial(backbone)
    try:
        if not _head_makes_the_logits(backbone, batch):
            return f"the logits of a {backbone.config.model_type} model are not its head's alone"
        plain, fast = (
            _loss_and_gradient(kind(backbone, batch, [prefix]), prefix) for kind in (PlainOutputs, FastOutputs)
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever an unknown architecture does with a tree of tokens
        return (
            f"a {backbone.config.model_type} model cannot run it ({type(error).__name__}: {str(error).splitlines()[0]})"
        )
    tolerance = TOLERANCE[weight.dtype]
    for what, wanted, found in zip(("loss", "gradient"), plain, fast, strict=True):
        if not bool((found - wanted).norm() <= tolerance * wanted.norm()):  # NaN differs
            return f"with a {backbone.config.model_type} model its {what} differs from the plain step's"
    return None


def declared_reason(config: PreTrainedConfig) -> str | None:
    """Return why the fast step cannot be used, where a model's config already says it: the head is not all there is."""
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1, 0):
            return f"a {config.model_type} model changes its logits after the head ({name})"
    return None


@torch.no_grad()
def _head_makes_the_logits(backbone: Backbone, batch: Batch) -> bool:
    """On one row, where nothing else can differ; so it is found in half precision, too."""
    ids = torch.tensor([batch.pairs[0].instruction], device=backbone.device)
    segments, positions = torch.zeros_like(ids), torch.arange(ids.shape[1], device=ids.device)[None]
    expected = backbone.logits(ids, torch.ones_like(ids)).double()
    hidden = backbone.hidden_states(ids, positions, segments)
    found = nn.functional.linear(
        hidden.to(backbone.head.weight.dtype), backbone.head.weight, backbone.head.bias
    ).double()
    return bool((found - expected).norm() <= 1e-3 * expected.norm())


def _trial(backbone: Backbone) -> tuple[Batch, Prefix]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(1000, backbone.vocab_size), (40,), generator=generator).tolist()
    common, better, worse = ids[:5], ids[5:14], ids[14:20]
    masks = [[0] * 5 + [i % 2 for i in range(len(rest))] for rest in (better, worse)]
    first = TokenPair(ids[20:32], (common + better, masks[0]), (common + worse, masks[1]))
    second = TokenPair(ids[32:], (better, masks[0][5:]), (worse, masks[1][5:]))
    batch = collate([first, second], backbone.pad_id).to(backbone.device)
    return batch, Prefix(backbone.shape, length=3).to(backbone.device)


def _loss_and_gradient(outputs: FastOutputs | PlainOutputs, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        scores = outputs.scores(outputs.mask)
        kept = outputs.code & ~outputs.mask
        loss = sum(outputs.kl(kept, direction).sum() for direction in losses.KL_DIRECTIONS) - scores.sum()
        (gradient,) = torch.autograd.grad(loss, [prefix.table])
    return loss.detach(), gradient

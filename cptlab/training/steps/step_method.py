"""Which step a run trains with: the fast one, or the plain one where the adapter or the architecture asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from cptlab.adapters.base import Adapter, Policy
from cptlab.adapters.prefix import Prefix
from cptlab.backbone import Backbone
from cptlab.backbone.foreign_errors import raised_outside
from cptlab.backbone.gradient_checkpointing import checkpointed, decoder_layers
from cptlab.backbone.sequence_attention import by_sequences, why_no_kernel, why_not_by_sequences
from cptlab.errors import UserError
from cptlab.training.objectives import losses
from cptlab.training.steps.batches import Batch, collate
from cptlab.training.steps.compute import Compute
from cptlab.training.steps.fast import FastOutputs
from cptlab.training.steps.plain import PlainOutputs
from cptlab.training.steps.token_pairs import TokenPair

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.1}
PREFIX_ONLY = "the fast one trains a prefix only"
COMPILED_VERSIONS = 8  # of a layer: with and without prefix and gradients, and of several dtypes


@dataclass(frozen=True)
class StepMethod:
    """How steps are computed. `name` is 'fast' or 'plain'; `reason` says why the plain one is used where the fast one was
    asked for. `compiled`: how many layers were compiled, each by itself.

    `by_sequences`: the fast step's attention goes by sequences, over one row of all pairs of a batch; otherwise it has a
    dense mask, and `mask_reason` says why on a device where it could be otherwise. Not `shared`: with a mask, every program
    is a row of its own. `seconds` are those of a step in each of these ways, where they were measured.
    """

    name: str = "fast"
    reason: str | None = None
    checkpointing: bool = False
    compiled: int = 0
    by_sequences: bool = False
    mask_reason: str | None = None
    shared: bool = True
    seconds: tuple[tuple[str, float], ...] = ()

    @property
    def way(self) -> str:
        """How the fast step is computed, in words."""
        return "by sequences" if self.by_sequences else "mask" if self.shared else "mask, nothing shared"

    def ways(self) -> list[StepMethod]:
        """This fast step in all ways that agree with the plain one."""
        masks: list[StepMethod] = [replace(self, by_sequences=False, shared=shared) for shared in (True, False)]
        return [self, *masks] if self.by_sequences else masks

    def fastest(self, seconds: Mapping[str, float]) -> StepMethod:
        """The fastest of these ways, given the seconds of each by its name; this one where none has any."""
        ways = [way for way in self.ways() if way.way in seconds] or [self]
        chosen = min(ways, key=lambda way: seconds.get(way.way, 0))
        return replace(chosen, seconds=tuple(seconds.items()))

    def outputs(self, backbone: Backbone, batch: Batch, policies: Sequence[Policy]) -> FastOutputs | PlainOutputs:
        """Return the outputs of these policies and of the reference model, `backbone` alone, on a batch."""
        if self.name == "plain":
            return PlainOutputs(backbone, batch, policies)
        return FastOutputs(backbone, batch, policies, self.by_sequences, self.shared)

    def compiling(self) -> contextlib.AbstractContextManager:
        """Within it, run what is no step, such as the reference, through layers that may be compiled."""
        return _compile_limits(self.compiled) if self.compiled else contextlib.nullcontext()

    @contextlib.contextmanager
    def running(self, backbone: Backbone, policies: Sequence[Policy]) -> Iterator[None]:
        """Within it, run a step, forward and backward: with checkpointing and compiled layers where they were asked for, and
        attention by sequences where it is used."""
        models = _models(backbone, policies)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.compiling())
            if self.checkpointing:
                for model in models:
                    stack.enter_context(checkpointed(model))
            if self.by_sequences:
                for model in models:
                    stack.enter_context(by_sequences(model))
            yield

    def facts(self) -> dict[str, Any]:
        """Return what metrics.json says of the step."""
        found: dict[str, Any] = {"step": self.name, "step_reason": self.reason}
        if self.by_sequences or self.mask_reason or self.seconds:
            found |= {"step_attention": self.way, "step_attention_reason": self.mask_reason}
            found |= {"step_seconds": dict(self.seconds)}
        return {name: value for name, value in found.items() if value}


def choose_step(
    backbone: Backbone,
    compute: Compute | None = None,
    adapters: Sequence[Adapter] = (),
    device: torch.device | None = None,
) -> StepMethod:
    """Choose the step that `compute.step` asks for, or the plain one where `adapters` or this architecture need it.

    `device` is the one that training runs on, which the backbone may not have been moved to yet (default: the backbone's).
    Runs both steps on two pairs of a few tokens to find out, and compiles the layers where `compute` says so. Raises
    UserError where the layers cannot be compiled.
    """
    device = device or backbone.device
    compute = compute or Compute()
    compiled = _compile_layers(backbone, adapters) if compute.compile else 0
    method = StepMethod(compute.step, None, compute.checkpointing, compiled)
    if method.name == "plain":
        return method
    with method.compiling():
        if reason := step_reason(backbone, adapters) or _why_not_fast(backbone):
            return replace(method, name="plain", reason=reason)
        if _mask_costs_little(device):
            return method
        mask_reason = why_not_by_sequences(backbone) or why_no_kernel(backbone, device) or _why_with_mask(backbone)
    return replace(method, by_sequences=mask_reason is None, mask_reason=mask_reason)


def step_reason(backbone: Backbone, adapters: Sequence[Adapter]) -> str | None:
    """Return why the fast step cannot be used, where it is known without running it; else None."""
    if not all(adapter.fast_step for adapter in adapters):
        return PREFIX_ONLY
    config = backbone.config
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1, 0):
            return f"a {config.model_type} model changes its logits after the head ({name})"
    return None


def _models(backbone: Backbone, policies: Sequence[Policy]) -> list[PreTrainedModel]:
    """The models that a step runs, each once."""
    return list({id(b.model): b.model for b in (backbone, *(policy.backbone for policy in policies))}.values())


def _compile_limits(layers: int) -> contextlib.AbstractContextManager:
    """Within it, torch may compile as many layers in as many versions as it takes; beyond its limits it would silently
    run them as they are, and once it has done so, it makes no version of them any more."""
    import torch._dynamo

    config = torch._dynamo.config
    versions = COMPILED_VERSIONS * layers
    return config.patch(
        recompile_limit=max(versions, config.recompile_limit),
        accumulated_recompile_limit=max(256, versions, config.accumulated_recompile_limit),
    )


def _compile_layers(backbone: Backbone, adapters: Sequence[Adapter]) -> int:
    """Compile the layers of all models that a step runs, and run them once. Return how many there are."""
    batch, prefix = _trial(backbone)
    trained = [prefix, *adapters]
    policies = [adapter.policy(backbone) for adapter in trained]
    layers = [layer for model in _models(backbone, policies) for layer in decoder_layers(model)]
    for layer in layers:
        layer.compile(dynamic=True)
    rows = batch.padded
    with _compile_limits(len(layers)):
        for adapter, policy in zip(trained, policies, strict=True):
            try:
                logits = policy.backbone.logits(rows.input_ids, rows.attention_mask, policy.prefix)
                torch.autograd.grad(logits.float().mean(), list(adapter.parameters()), allow_unused=True)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # of torch's compiler, or of the machine's
                raise UserError(
                    f"The layers of {backbone.name} cannot be compiled here ({_in_one_line(error)}). Set "
                    "compute.compile=false, or install what is missing (a C++ compiler for a CPU)."
                ) from error
    return len(layers)


def _why_not_fast(backbone: Backbone) -> str | None:
    """Return why the fast step cannot be used with this backbone; None where it agrees with the plain one."""
    kind = f"a {backbone.config.model_type} model"
    head = backbone.head
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        return f"the head of {kind} is no plain linear layer"
    batch, prefix = _trial(backbone)
    if reason := _cannot_branch(backbone, batch, prefix):
        return f"{kind} cannot run it ({reason})"
    if not _head_makes_the_logits(backbone, head, batch):
        return f"the logits of {kind} are not its head's alone"
    return _difference(backbone, batch, prefix, StepMethod("fast"))


def _mask_costs_little(device: torch.device) -> bool:
    return device.type == "cpu"


def _why_with_mask(backbone: Backbone) -> str | None:
    """Return why the fast step needs a mask with this backbone; None where attention by sequences agrees with the plain step."""
    batch, prefix = _trial(backbone)
    try:
        return _difference(backbone, batch, prefix, StepMethod("fast", by_sequences=True))
    except Exception as error:
        if not raised_outside(error):
            raise
        return f"a {backbone.config.model_type} model cannot attend by sequences ({_in_one_line(error)})"


def _difference(backbone: Backbone, batch: Batch, prefix: Prefix, method: StepMethod) -> str | None:
    """Return in what a step differs from the plain one; None where it does not."""
    policies = [prefix.policy(backbone)]
    plain = _loss_and_gradient(PlainOutputs(backbone, batch, policies), prefix)
    with method.running(backbone, policies):
        found = _loss_and_gradient(method.outputs(backbone, batch, policies), prefix)
    for what, wanted, own in zip(("loss", "gradient"), plain, found, strict=True):
        if not bool((own - wanted).norm() <= TOLERANCE[backbone.head.weight.dtype] * wanted.norm()):  # NaN differs
            return f"with a {backbone.config.model_type} model its {what} differs from the plain step's"
    return None


def _cannot_branch(backbone: Backbone, batch: Batch, prefix: Prefix) -> str | None:
    """Return the error of an architecture that does not take packed rows, forward and backward; None for one that does.

    The backbone's pass alone is run here: what an unknown architecture does with a tree of tokens is its affair, while an
    error in the steps is a mistake of ours, and ends the run.
    """
    packed = batch.packed
    assert packed.segments is not None
    try:
        states = backbone.hidden_states(packed.input_ids, packed.positions, packed.segments, prefix)
        torch.autograd.grad(states.float().mean(), [prefix.table])
    except Exception as error:
        if not raised_outside(error):
            raise
        return _in_one_line(error)
    return None


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


@torch.no_grad()
def _head_makes_the_logits(backbone: Backbone, head: nn.Linear, batch: Batch) -> bool:
    """On one row, where nothing else can differ; so it is found in half precision, too."""
    ids = torch.tensor([batch.pairs[0].instruction], device=backbone.device)
    segments, positions = torch.zeros_like(ids), torch.arange(ids.shape[1], device=ids.device)[None]
    expected = backbone.logits(ids, torch.ones_like(ids)).double()
    hidden = backbone.hidden_states(ids, positions, segments).to(head.weight.dtype)
    found = nn.functional.linear(hidden, head.weight, head.bias).double()
    return bool((found - expected).norm() <= 1e-3 * expected.norm())


def _trial(backbone: Backbone) -> tuple[Batch, Prefix]:
    """Two pairs of a few random tokens, and a short prefix."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(1000, backbone.vocab_size), (40,), generator=generator).tolist()
    common, better, worse = ids[:5], ids[5:14], ids[14:20]
    masks = [[0] * 5 + [i % 2 for i in range(len(rest))] for rest in (better, worse)]
    first = TokenPair(ids[20:32], (common + better, masks[0]), (common + worse, masks[1]))
    second = TokenPair(ids[32:], (better, masks[0][5:]), (worse, masks[1][5:]))
    batch = collate([first, second], backbone.pad_id).to(backbone.device)
    return batch, Prefix(backbone, length=3).to(backbone.device)


def _loss_and_gradient(outputs: FastOutputs | PlainOutputs, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        scores = outputs.scores(outputs.mask)
        loss = (
            torch.stack([outputs.kl(outputs.kept, direction).sum() for direction in losses.KL_DIRECTIONS]).sum()
            - scores.sum()
        )
        (gradient,) = torch.autograd.grad(loss, [prefix.table])
    return loss.detach(), gradient

"""The memory of a training step, counted without doing it: the step runs on tensors that have shapes but no data.

Numbers are fake and indices real: `Shapes` keeps whatever is made of integers alone as it is, so that masks, packing and
gathering do what they do in training, and gives floating-point tensors torch's `FakeTensorMode`, which knows shapes,
dtypes and kernels (those of a CPU: attention is the fused kernel, which keeps no [heads, queries, keys] weights, wherever
transformers asks for it). `Ledger` counts the bytes that are alive. So any architecture, objective and step method is counted
as it is, and a model of seven billion parameters takes seconds and no memory.

Not seen: what a library's kernels take for themselves, and what an allocator wastes.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import is_bitsandbytes_available, is_torchao_available

from cptlab.adapters import Prefix
from cptlab.adapters.prefix import prefix_from_table
from cptlab.backbone import Backbone
from cptlab.backbone.gradient_checkpointing import decoder_layers
from cptlab.backbone.quantization import GROUP, QuantizedLinear
from cptlab.estimate.costs import ModelSize
from cptlab.training.loop.displacement import displacement_values
from cptlab.training.objectives import CPT, Objective
from cptlab.training.steps.batches import Batch, ReferenceRows, collate
from cptlab.training.steps.choice import StepMethod
from cptlab.training.steps.head import CHUNK
from cptlab.training.steps.token_pairs import Lengths, TokenPair

MOMENTS = ("step", "validation", "probe")  # the probe: each term's gradient, after a validation
BITSANDBYTES_BLOCK = 64  # weights that share a scale in its 4 bits
GROUPED_PRODUCTS = (torch.ops.aten._grouped_mm.default,)  # of experts; torch's own shape rule knows bfloat16 alone


class Shapes(TorchDispatchMode):
    """Within it, tensors of floating-point numbers have no data, and what is computed of integers alone has."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        floats = getattr(kwargs.get("dtype"), "is_floating_point", False)
        if func in GROUPED_PRODUCTS:  # [rows, K] with one of [experts, K, N] for each row
            return args[0].new_empty(args[0].shape[0], args[1].shape[-1])
        if tensors and not floats and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            return func(*args, **kwargs)
        with self.fake:
            made = func(*args, **kwargs)
        if not tensors and not floats and isinstance(made, Tensor) and not made.is_floating_point():
            return func(*args, **kwargs)  # such as arange, or an empty list of indices
        return made


class Ledger(TorchDispatchMode):
    """Within it, counts the bytes of all tensors that are made and still alive, now and at most.

    `kinds` says what they are: 'activations' made by the forward pass, 'logits' whose last dimension is `vocabulary`,
    and 'work' for all others (the losses', and gradients). Tensors that share a storage count once, those of `own` not at
    all. Works on real tensors as well.
    """

    def __init__(self, own: Sequence[Tensor], vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.kind = vocabulary, "work"
        self.live = dict.fromkeys(("activations", "logits", "work"), 0)
        self.peak = dict(self.live)
        self.saved = 0  # of the activations, when the backbone has run
        self._held = [tensor.untyped_storage() for tensor in own]
        self._seen = {id(storage) for storage in self._held}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) in self._seen:
            return
        kind = "logits" if tensor.dim() and tensor.shape[-1] == self.vocabulary else self.kind
        self._seen.add(id(storage))
        weakref.finalize(storage, self._gone, id(storage), kind, storage.nbytes()).atexit = False
        self.live[kind] += storage.nbytes()
        if sum(self.live.values()) > sum(self.peak.values()):
            self.peak = dict(self.live)

    def _gone(self, name: int, kind: str, size: int) -> None:
        self._seen.discard(name)
        self.live[kind] -= size


@dataclass(frozen=True)
class Footprint:
    """Bytes of one micro-batch's step beside weights, prefix and its optimiser.

    `saved`: activations that the backward pass needs, once the backbone has run. At the moment when most is alive:
    `activations` (the saved ones that are still there, and the forward's own), `logits` and other tensors of their width,
    and `work`, the losses' and the gradients.
    """

    saved: int
    activations: int
    logits: int
    work: int

    @property
    def peak(self) -> int:
        return self.activations + self.logits + self.work


def shape_backbone(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    shapes: Shapes,
    quantization: str | None = None,
    attn_implementation: str | None = None,
) -> Backbone:
    """The backbone of a config with weights that have no data, and a tokenizer that knows nothing."""
    nothing = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")), eos_token="<unk>"
    )
    with shapes.fake:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attn_implementation)
        if quantization is not None:
            _quantize(model, bits={"8bit": 8, "4bit": 4}[quantization])
        return Backbone(model, nothing, config.model_type)


def _quantize(model: PreTrainedModel, bits: int) -> None:
    """Put a `QuantizedLinear` for each linear layer of the decoder, in the format of the package that is installed."""
    block = GROUP if is_torchao_available() and not is_bitsandbytes_available() else BITSANDBYTES_BLOCK
    layers = decoder_layers(model)
    for name, module in list(layers.named_modules()):
        if isinstance(module, nn.Linear):
            shape = module.out_features, module.in_features
            numbers = torch.empty(shape[0], shape[1] * bits // 8, dtype=torch.int8 if bits == 8 else torch.uint8)
            groups = 1 if bits == 8 else -(-shape[1] // block)
            while shape[1] % groups:  # bitsandbytes' blocks run on into the next row
                groups += 1
            scales = torch.empty(shape[0], groups)
            layers.set_submodule(name, QuantizedLinear(numbers, scales, module.bias, shape, bits))


def shape_pair(lengths: Lengths) -> TokenPair:
    """A pair of these lengths."""

    def program(token: int, rest: int, masked: int) -> tuple[list[int], list[int]]:
        length = lengths.common + rest
        return [0] * lengths.common + [token] * rest, [0] * (length - masked) + [1] * masked

    return TokenPair(
        [0] * lengths.instruction,
        program(1, lengths.rest_a, lengths.masked_a),
        program(2, lengths.rest_b, lengths.masked_b),
    )


def blank_prefixes(backbone: Backbone, length: int, objective: Objective) -> list[Prefix]:
    """As many prefixes of zeros as the objective trains."""
    size = length, backbone.shape.width
    return [
        prefix_from_table(torch.zeros(size, device=backbone.device), backbone.shape) for _ in range(objective.prefixes)
    ]


def stand_in_batch(
    backbone: Backbone, objective: Objective, method: StepMethod, examples: Sequence[TokenPair], reference_on_disk: bool
) -> Batch:
    """A batch as a run would have it, with zeros for the reference where it would come from disk."""
    batch = collate(examples, 0, better_only=objective.better_only).to(backbone.device)
    if not reference_on_disk or method.name != "fast" or objective.reference == "none":
        return batch
    states = torch.zeros(len(batch.packed.predicting), backbone.hidden_size, dtype=backbone.dtype)
    return replace(batch, reference=ReferenceRows(states, torch.zeros(batch.tokens.shape)).to(backbone.device))


def footprint(
    backbone: Backbone,
    prefix_length: int,
    objective: Objective,
    method: StepMethod,
    examples: Sequence[TokenPair],
    *,
    reference_on_disk: bool = True,
    moment: str = "step",
) -> Footprint:
    """The memory of `examples` as one batch, at one of `MOMENTS` of a run, measured by doing what it does: with real
    weights, or within `Shapes` with those of `shape_backbone`."""
    prefixes = blank_prefixes(backbone, prefix_length, objective)
    tables = [prefix.table for prefix in prefixes]
    own = [*backbone.model.parameters(), *backbone.model.buffers(), *tables]
    with Ledger(own, backbone.head.weight.shape[0]) as ledger:
        batch = stand_in_batch(backbone, objective, method, examples, reference_on_disk)
        assert batch.packed and batch.padded  # made here, and not counted with what the backbone makes
        outputs = method.outputs(backbone, batch, prefixes)
        ledger.kind = "activations"
        with _watched(backbone, ledger), torch.set_grad_enabled(moment != "validation"):
            with method.running(backbone):
                terms = objective.weighted(objective.terms(outputs))
                if moment == "validation":
                    whole = outputs
                    if objective.better_only:
                        pairs = stand_in_batch(backbone, CPT(), method, examples, reference_on_disk)
                        whole = method.outputs(backbone, pairs, prefixes)
                    displacement_values(whole, terms, objective)
            values = [term.mean() for term in terms.values()]
            if moment == "step":
                torch.autograd.grad(sum(values), tables, allow_unused=True)
            elif moment == "probe":
                for value in values:
                    torch.autograd.grad(value, tables, retain_graph=True, allow_unused=True)
    return Footprint(ledger.saved, **ledger.peak)


@contextlib.contextmanager
def _watched(backbone: Backbone, ledger: Ledger) -> Iterator[None]:
    """Within it, the ledger knows what the backbone's forward makes, and what is left of it for the backward pass."""

    def begins(*_: Any) -> None:
        ledger.kind = "activations"

    def ends(_model: Any, _inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            ledger.saved = ledger.live["activations"] - output[0].nbytes
        ledger.kind = "work"

    model = backbone.model.base_model
    hooks = model.register_forward_pre_hook(begins), model.register_forward_hook(ends)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def formula(
    size: ModelSize, config: PreTrainedConfig, dtype: torch.dtype, method: StepMethod, batch: Sequence[Lengths], moment: str
) -> Footprint:
    """About what `footprint` would count on a batch of these lengths, for a backbone that cannot run without data.

    A layer of Llama keeps 4E + 3I numbers per token in the model's dtype and 2E in float32 (E hidden, I intermediate);
    with checkpointing E, and one layer's at a time beside them. All layers share a mask of queries x keys. The plain
    method holds five tensors of all logits in float32, the fast one two chunks of them in the model's dtype.
    """
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * size.hidden
    layer = dtype.itemsize * (4 * size.hidden + 3 * inner) + 4 * 2 * size.hidden
    if method.name == "fast":
        rows, row = len(batch), max(pair.packed_row for pair in batch)
        places = sum(sum(pair.code) for pair in batch)
        logits = 2 * dtype.itemsize * min(CHUNK, places * size.vocabulary)
    else:
        rows, row = 2 * len(batch), max(max(pair.rows) for pair in batch)
        logits = 5 * 4 * rows * max(max(pair.code) for pair in batch) * size.vocabulary
    tokens, mask = rows * row, rows * row * row * dtype.itemsize
    if moment == "validation":
        return Footprint(0, mask + tokens * layer, logits, 0)
    if method.checkpointing:
        kept = mask + tokens * (size.layers + 1) * size.hidden * dtype.itemsize
        return Footprint(kept, kept, logits, 2 * tokens * layer)
    kept = mask + tokens * size.layers * layer
    return Footprint(kept, kept, logits, 0)

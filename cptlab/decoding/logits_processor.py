"""Selective Prompt Anchoring inside plain `model.generate`, for those who do not use cptlab's engine.

    inputs, spa = SPALogitsProcessor.from_texts(model, tokenizer, ["Sort <anchor>in descending order</anchor>."], 1.3)
    model.generate(**inputs, logits_processor=LogitsProcessorList([spa]))

The logits are F(ω) = ω · f(E) + (1 − ω) · f(E_mask) (arXiv 2408.09121, eq. 18), with exact positions on the left-padded
rows that `generate` works on. It works with greedy decoding, sampling, several samples per prompt and beams, and each
prompt may have its own ω and anchors. A prompt without anchors or with ω = 1 has no second stream, and a batch of such
prompts needs no second forward pass. A PEFT model with a prefix (prefix tuning) has it in both streams.

It costs a second forward pass per token, and a cache of its own that stays until the next call, while
`cptlab.decoding.generate` runs both streams in one pass. Processors before it in the list see and change the clean
stream alone. A ban (−inf) stays, but a processor that scales logits, such as a repetition penalty, belongs after it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding, LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from cptlab.backbone import mask_id_of
from cptlab.decoding.anchors import mask_spans, parse_anchors
from cptlab.decoding.rules.linear import mix
from cptlab.errors import UserError


class SPALogitsProcessor(LogitsProcessor):
    """Mixes the logits of the same prompts with masked anchors into the scores of `model.generate`.

    `clean_ids` [B, P] are the ids that `generate` is called with, left-padded where `attention_mask` [B, P] is 0 (None:
    no padding). `masked_ids` [B, P] are the same with the mask token for each anchored one. `omega` is one number, or
    one per prompt. The scores of prompts without a second stream stay as they are. Under beam search, where scores are
    log-probabilities, the mixture is normalised again. Raises UserError for arguments that do not fit together, and if
    it is called with other prompts.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        clean_ids: Tensor,
        masked_ids: Tensor,
        omega: float | Sequence[float] = 1.28,
        attention_mask: Tensor | None = None,
    ) -> None:
        mask = torch.ones_like(clean_ids) if attention_mask is None else attention_mask
        if clean_ids.dim() != 2 or not clean_ids.shape == masked_ids.shape == mask.shape:
            raise UserError(
                f"Clean ids {list(clean_ids.shape)}, masked ids {list(masked_ids.shape)} and mask {list(mask.shape)} "
                "differ in shape. Give three [prompts, tokens] of the same size; SPALogitsProcessor.from_texts does."
            )
        if bool((mask[:, 1:] < mask[:, :-1]).any()) or not bool(mask[:, -1].all()):
            raise UserError("The prompts are not padded on the left. Set tokenizer.padding_side = 'left'.")
        omegas = [omega] * len(clean_ids) if isinstance(omega, (int, float)) else [float(one) for one in omega]
        if len(omegas) != len(clean_ids) or not all(map(math.isfinite, omegas)):
            raise UserError(
                f"omega is {omega} for {len(clean_ids)} prompts. Give one finite number, or one per prompt."
            )
        device = model.device
        self.clean, self.real = clean_ids.to(device), mask.to(device).bool()
        self.omega = torch.tensor(omegas, dtype=torch.float64, device=device)
        masked = torch.where(self.real, masked_ids.to(device), self.clean)
        self.guided = (masked != self.clean).any(dim=1) & (self.omega != 1)  # [B]
        self.second = _SecondStream(model, masked, self.real)

    @classmethod
    def from_texts(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: str | Sequence[str],
        omega: float | Sequence[float] = 1.28,
        *,
        mask_token: str | None = None,
        add_special_tokens: bool = True,
    ) -> tuple[BatchEncoding, SPALogitsProcessor]:
        """Return the inputs of `generate` for texts with `<anchor>` tags, which are taken out, and the processor.

        `mask_token` is a token of the vocabulary (None: the tokenizer's mask, unknown or padding token).
        Use `add_special_tokens=False` for texts that a chat template has already given theirs.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise UserError("There are no texts. Give at least one.")
        mask_id, clean, masked = mask_id_of(tokenizer, mask_token), [], []
        for text in texts:
            plain, spans = parse_anchors(text)
            ids, other = mask_spans(tokenizer, plain, spans, mask_id, add_special_tokens=add_special_tokens)
            if not ids:
                raise UserError("A text has no tokens. Give every prompt a text.")
            clean.append(ids)
            masked.append(other)
        pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
        width = max(map(len, clean))
        clean_ids, masked_ids = (
            torch.tensor([[pad_id] * (width - len(r)) + r for r in rows]) for rows in (clean, masked)
        )
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in clean])
        inputs = BatchEncoding({"input_ids": clean_ids, "attention_mask": mask}).to(model.device)
        return inputs, cls(model, clean_ids, masked_ids, omega, mask)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the mixed scores [R, V]. Rows [R, T] are in the order of the prompts, the same number for each."""
        prompts = self._prompts(input_ids)
        rows = self.guided[prompts].nonzero()[:, 0]
        if not len(rows):
            return scores
        clean = scores[rows.to(scores.device)]
        masked = self.second.logits(input_ids.to(rows.device)[rows], prompts[rows]).to(clean.device, clean.dtype)
        mixed = mix(clean, masked, self.omega[prompts[rows], None].to(clean))
        # A constant per row does not matter to logits, but it does to beams, which add up scores over the tokens.
        log_probabilities = clean.amax(dim=-1, keepdim=True) <= 0
        mixed = torch.where(log_probabilities, mixed.log_softmax(-1), mixed)
        return scores.index_copy(0, rows.to(scores.device), mixed.to(scores.dtype))

    def _prompts(self, input_ids: Tensor) -> Tensor:
        """Return which prompt each row continues, [R]."""
        each, rest = divmod(len(input_ids), len(self.clean))
        prompts = torch.arange(len(self.clean), device=self.clean.device).repeat_interleave(max(each, 1))
        width = self.clean.shape[1]
        if not rest and each and input_ids.shape[1] >= width:
            opening = input_ids[:, :width].to(self.clean.device)
            if not bool(((opening != self.clean[prompts]) & self.real[prompts]).any()):
                return prompts
        raise UserError(
            "generate was called with other prompts than the processor was made for. Make a new one with "
            "SPALogitsProcessor.from_texts, and call generate with the inputs that it returns."
        )


@dataclass
class _Read:
    """What the model has read: `ids` [G, T] as `generate` has them, the prompt of each row [G], and the cache.

    `real` [G, K] is False on padded positions of the cache, which include those of a PEFT prefix.
    """

    ids: Tensor
    prompts: Tensor
    real: Tensor
    cache: Cache


class _SecondStream:
    """The second stream: it gives the model's logits behind the masked prompts for the rows of `generate`.

    The logits are a function of the ids alone. The cache serves rows that continue rows in it by one token, in any
    order. Other rows (a new call of `generate`, another prompt) are read from the beginning.
    """

    def __init__(self, model: Any, masked: Tensor, real: Tensor) -> None:
        self.model, self.prefix_length = _without_prefix(model)
        self.opening = model.get_prompt if self.prefix_length else (lambda rows: None)
        self.masked, self.real = masked, real
        self.accepted = set(inspect.signature(_inner(self.model).forward).parameters)
        self.read: _Read | None = None

    def logits(self, ids: Tensor, prompts: Tensor) -> Tensor:
        """Return logits [G, V] behind each row's ids [G, T], with the row's prompt masked."""
        read, self.read = self.read, None  # so an interrupted call leaves no state
        parents = None if read is None else _parents(read, ids, prompts)
        if read is None or parents is None:
            return self._from_the_beginning(ids, prompts)
        cache, real = read.cache, read.real
        if not torch.equal(parents, torch.arange(len(real), device=parents.device)):
            cache.reorder_cache(parents)  # pyright: ignore[reportArgumentType]  (any integer tensor)
            real = real[parents]
        real = torch.nn.functional.pad(real, (0, 1), value=True)
        return self._forward(ids[:, -1:], real, cache, ids, prompts)

    def _from_the_beginning(self, ids: Tensor, prompts: Tensor) -> Tensor:
        width = self.masked.shape[1]
        rows = torch.cat([prompts[:, None], ids[:, width:]], dim=1)
        # samples and beams of a prompt begin alike and are read once
        distinct, place = torch.unique(rows, dim=0, return_inverse=True)
        which, new = distinct[:, 0], distinct[:, 1:]
        real = torch.nn.functional.pad(self.real[which], (self.prefix_length, new.shape[1]), value=True)
        masked = torch.cat([self.masked[which], new], dim=1)
        clean = torch.empty(len(which), ids.shape[1], dtype=ids.dtype, device=ids.device)
        clean[place] = ids
        logits = self._forward(masked, real, self.opening(len(which)), clean, which)
        if self.read is not None and len(distinct) < len(rows):
            self.read.cache.reorder_cache(place)  # pyright: ignore[reportArgumentType]
            self.read = _Read(ids, prompts, real[place], self.read.cache)
        return logits[place]

    @torch.no_grad()
    def _forward(self, tokens: Tensor, real: Tensor, cache: Cache | None, ids: Tensor, prompts: Tensor) -> Tensor:
        positions = (real.long().cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        options = {"position_ids": positions, "past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        options = {name: value for name, value in options.items() if name in self.accepted and value is not None}
        output = self.model(input_ids=tokens, attention_mask=real.long(), **options)
        cache = getattr(output, "past_key_values", None)
        # A model without such a cache (Mamba) reads every row again at every token: slow, but right.
        self.read = _Read(ids, prompts, real, cache) if isinstance(cache, Cache) else None
        return output.logits[:, -1]


def _parents(read: _Read, ids: Tensor, prompts: Tensor) -> Tensor | None:
    """Return for each row [G] the row that was read up to its last token, or None if one has no such row."""
    before = ids[:, :-1]
    if before.shape == read.ids.shape and torch.equal(before, read.ids) and torch.equal(prompts, read.prompts):
        return torch.arange(len(ids), device=ids.device)
    if before.shape[1] != read.ids.shape[1]:
        return None
    same = (before[:, None] == read.ids[None]).all(dim=-1) & (prompts[:, None] == read.prompts[None])
    return same.int().argmax(dim=1) if bool(same.any(dim=1).all()) else None


def _without_prefix(model: Any) -> tuple[Any, int]:
    """Return the model to call, and the length of the PEFT prefix that its cache must begin with."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return model, 0
    if config.peft_type != "PREFIX_TUNING":
        raise UserError(
            f"A PEFT adapter of type {config.peft_type.value} has no second stream here. "
            "Use one that changes weights, or a prefix (PREFIX_TUNING)."
        )
    return model.get_base_model(), config.num_virtual_tokens


def _inner(model: Any) -> Any:
    """Return the model inside a wrapper of torch.compile or PEFT, whose own `forward` does not say what it accepts."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model

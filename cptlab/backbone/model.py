"""A frozen causal language model with its tokenizer, run with or without a prefix."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from cptlab.backbone.attention_bias import AttentionBias, biased
from cptlab.backbone.attention_mask import additive_mask, token_positions, with_prefix_keys
from cptlab.backbone.chat_format import chat_format
from cptlab.backbone.cpu_linear import use_cpu_linear
from cptlab.backbone.decode_state import PREFIX_POSITION, DecodeState
from cptlab.backbone.fingerprint import model_fingerprint
from cptlab.backbone.kv_cache import BufferedCache, PrefixLayer
from cptlab.backbone.prefix_shape import KeyValuePrefix, context_length, prefix_shape, sliding_window, text_config
from cptlab.backbone.special_tokens import eos_ids_of, mask_id_of, token_id
from cptlab.backbone.text_tokens import TextTokens
from cptlab.errors import UserError
from cptlab.tasks.prompting import ChatFormat


class Backbone:
    """A frozen causal language model (`model`, in eval mode) and its `tokenizer`.

    `config` is that of its text part. Hugging Face can load it again from `path`, and tables call it `name`. The tokens
    `eos_ids` end a text, `pad_id` fills batches, and `mask_id` (or None) replaces anchored tokens in Selective Prompt Anchoring.
    `chat` is its chat format where it is asked as a chat model (tasks/prompting.py). It takes `context_length` positions, and
    `context_note` is "" or says why they are fewer than the model's own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        path: str | None = None,
        revision: str | None = None,
        mask_token: str | None = None,
        prompt_template: str | None = None,
        prompting: str = "auto",
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.name, self.path, self.revision = name, path or name, revision
        self.prompt_template = prompt_template
        self.chat = self._chat_format(prompting, tokenizer, name)
        self.config = text_config(model.config)
        self.vocab_size: int = self.config.vocab_size
        self.hidden_size: int = self.config.hidden_size
        self.shape = prefix_shape(self.config)
        self.context_length, self.context_note = context_length(self.config)
        self.window, self._mixed = sliding_window(self.config)
        self.eos_ids = eos_ids_of(model, tokenizer)
        self.eos_id, pad_id = token_id(tokenizer.eos_token_id), token_id(tokenizer.pad_token_id)
        self.pad_id: int = next(i for i in (pad_id, self.eos_id, 0) if i is not None)
        self.mask_id = mask_id_of(tokenizer, mask_token)
        self.text_tokens = TextTokens(tokenizer)

    def _chat_format(self, prompting: str, tokenizer: PreTrainedTokenizerBase, name: str) -> ChatFormat | None:
        if self.prompt_template is not None:
            if prompting == "chat":
                raise UserError(
                    "prompting=chat takes the tokenizer's own chat template, and backbone.prompt_template gives another. "
                    "Leave one of the two out."
                )
            return None
        if prompting == "chat" or (prompting == "auto" and getattr(tokenizer, "chat_template", None)):
            return chat_format(tokenizer, name)
        return None

    @property
    def prompt_form(self) -> str | None:
        """What is put around a prompt, as text; None: nothing. Stored results depend on it."""
        return self.prompt_template if self.chat is None else repr(self.chat)

    @property
    def model(self) -> PreTrainedModel:
        """The model that runs. A model that is set gets `CpuLinear` layers; its parameters stay the same."""
        return self._model

    @model.setter
    def model(self, model: PreTrainedModel) -> None:
        self._model = model
        self.cpu_linear = use_cpu_linear(model)

    def with_model(self, model: PreTrainedModel) -> Backbone:
        """Return a backbone of another `model` of this architecture, with this tokenizer, name and prompt template.

        Its parameters stay as trainable as they are.
        """
        other = copy.copy(self)
        vars(other).pop("fingerprint", None)
        other.model, other.config = model.eval(), text_config(model.config)
        return other

    @property
    def device(self) -> torch.device:
        """The device of the model, which a trainer may have moved."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of keys and values: that of the weights, or autocast's if that is on."""
        if torch.is_autocast_enabled(self.device.type):
            return torch.get_autocast_dtype(self.device.type)
        return next(self.model.parameters()).dtype

    def encode_prompt(self, text: str) -> list[int]:
        """Return the token ids of a text that opens the input, with the tokenizer's special tokens that open one."""
        return self.text_tokens.prompt(text)

    def encode_completion(self, text: str) -> list[int]:
        """Return the token ids of a text that follows another one.

        They have no special tokens, and lack the space that tokenizers such as Code Llama's put before the first word
        of a text.
        """
        return self.text_tokens.completion(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a completion's token ids, without special tokens, but with its leading space, if any."""
        return self.text_tokens.decode(ids)

    def logits(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, prefix: KeyValuePrefix | None = None
    ) -> torch.Tensor:
        """Return logits [B, T, V] for right- or left-padded `input_ids` [B, T]. Logits at padding mean nothing.

        The first real token of each row is at position 0, or at M behind a prefix of M positions. The prefix enters the
        cache as it is, without rotary embedding. Gradients flow to the prefix.
        """
        cache, length = self.constant_cache(prefix, len(input_ids))
        positions = token_positions(attention_mask, length)
        real, key_positions = with_prefix_keys(attention_mask.bool(), positions, length)
        padded = not bool(attention_mask.all())
        return self._forward(input_ids, cache, positions, key_positions, real, padded).logits

    def hidden_states(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor,
        prefix: KeyValuePrefix | None = None,
    ) -> torch.Tensor:
        """Return the input of the head, [B, T, E], for rows that branch: texts with one beginning, computed once.

        `positions` [B, T] are those of the tokens without a prefix. `segments` [B, T] is 0 for tokens that all branches
        of a row see, 1 and up for the tokens of a branch, and -1 for padding. Gradients flow to the prefix.
        """
        cache, length = self.constant_cache(prefix, len(input_ids))
        pad = torch.nn.functional.pad
        real, key_positions = with_prefix_keys(segments >= 0, positions + length, length)
        branches = (segments, pad(segments, (length, 0))) if bool((segments > 0).any()) else None
        options = self._options(
            positions + length, key_positions, real, not bool((segments >= 0).all()), cache, branches
        )
        return self.model.base_model(input_ids=input_ids, **options).last_hidden_state

    @property
    def head(self) -> torch.nn.Linear:
        """The layer that maps hidden states to logits; whoever needs a linear one checks that it is (`choose_step`)."""
        return cast(torch.nn.Linear, self.model.get_output_embeddings())

    @torch.no_grad()
    def prefill(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        prefix: KeyValuePrefix | None = None,
        bias: AttentionBias | None = None,
    ) -> tuple[torch.Tensor, DecodeState]:
        """Read left-padded prompts [B, T]. Return the logits [B, V] of the next token, and the state to go on from."""
        state = self.opening(len(input_ids), prefix)
        return self.extend(input_ids, attention_mask, state, bias), state

    def opening(self, rows: int, prefix: KeyValuePrefix | None = None) -> DecodeState:
        """Return the state in which nothing but the prefix has been read."""
        cache, length = BufferedCache(), 0 if prefix is None else prefix.length
        if prefix is not None:
            self._prefix_cache(cache, prefix, rows)
        positions = torch.full((rows, length), PREFIX_POSITION, device=self.device)
        start = torch.full((rows,), length, device=self.device)
        return DecodeState(cache, torch.ones_like(positions, dtype=torch.bool), positions, start, False)

    @torch.no_grad()
    def extend(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        state: DecodeState,
        bias: AttentionBias | None = None,
    ) -> torch.Tensor:
        """Read left-padded tokens [B, T] and return the logits [B, V] of the next token. Changes `state`."""
        assert attention_mask[:, -1].all(), "rows are padded on the left"
        real = attention_mask.bool()
        positions = token_positions(attention_mask, 0) + state.next_position[:, None]
        state.real = torch.cat([state.real, real], dim=1)
        state.positions = torch.cat([state.positions, positions], dim=1)
        state.padded = state.padded or not bool(real.all())
        output = self._forward(
            input_ids, state.cache, positions, state.positions, state.real, state.padded, bias, last_only=True
        )
        state.next_position = positions[:, -1] + 1
        return output.logits[:, -1]

    @torch.no_grad()
    def step(self, tokens: torch.Tensor, state: DecodeState, bias: AttentionBias | None = None) -> torch.Tensor:
        """Read one more token per row, `tokens` [B], and return the logits [B, V] of the next one. Changes `state`."""
        positions = state.next_position[:, None]
        state.real = torch.nn.functional.pad(state.real, (0, 1), value=True)
        state.positions = torch.cat([state.positions, positions], dim=1)
        output = self._forward(tokens[:, None], state.cache, positions, state.positions, state.real, state.padded, bias)
        state.next_position = state.next_position + 1
        return output.logits[:, -1]

    def constant_cache(self, prefix: KeyValuePrefix | None, batch: int) -> tuple[Cache | None, int]:
        """Return a cache for one pass, which holds the prefix and never changes, and the prefix's length."""
        if prefix is None:
            return None, 0
        return Cache(layers=[PrefixLayer(*tensors) for tensors in self._key_values(prefix, batch)]), prefix.length

    def _prefix_cache(self, cache: Cache, prefix: KeyValuePrefix, batch: int) -> Cache:
        for layer, (key, value) in enumerate(self._key_values(prefix, batch)):
            cache.update(key, value, layer)
        return cache

    def _key_values(self, prefix: KeyValuePrefix, batch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return (key, value) of every layer, each [batch, num_kv_heads, M, head_dim], in the model's dtype."""
        if prefix.shape != self.shape:
            raise UserError(
                f"The prefix belongs to another backbone: it has {prefix.shape}, while {self.name} has {self.shape}. "
                "Use the backbone that it was trained on, or train a prefix for this one."
            )

        def for_batch(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(self.device, self.dtype).expand(batch, -1, -1, -1)

        return [(for_batch(keys), for_batch(values)) for keys, values in prefix.key_values()]

    def _forward(self, input_ids, cache, positions, key_positions, real, padded, bias=None, last_only=False):
        options = self._options(
            positions, key_positions, real, padded or bias is not None, cache
        )  # a bias needs a mask
        steered = biased(self.model, self.name, self.config.num_attention_heads, options, bias, key_positions)
        with steered, self.cpu_linear.set_for(input_ids.numel(), input_ids.device):
            return self.model(input_ids=input_ids, **options, **({"logits_to_keep": 1} if last_only else {}))

    def _options(self, positions, key_positions, real, padded, cache, segments=None) -> dict:
        """Return the mask, positions and cache of one pass, as arguments of a transformers model."""
        if self.context_note and int(positions.max()) >= self.context_length:  # all rows would come out otherwise
            raise UserError(
                f"A text has {int(positions.max()) + 1} positions, but {self.name} takes {self.context_length} "
                f"({self.context_note}). Shorten the text, or use a backbone with a longer context."
            )
        queries, keys = positions.shape[1], key_positions.shape[1]
        windowed = self.window is not None and keys > self.window
        if segments is None and not padded and not windowed and queries in (1, keys):
            attention = None  # causal, so the model can use its fastest kernel
        else:
            attention = self.masks(positions, key_positions, real, segments)
        return {
            "attention_mask": attention,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": cache is not None,
        }

    def masks(self, positions, key_positions, real, segments=None) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return the mask of `additive_mask`, or one for each kind of layer where some attend in a window and some do not."""

        def mask(window: int | None) -> torch.Tensor:
            return additive_mask(positions, key_positions, real, window, self.dtype, segments)

        if self._mixed:
            return {"full_attention": mask(None), "sliding_attention": mask(self.window)}
        return mask(self.window)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of `model_fingerprint`."""
        return model_fingerprint(self.model, self.config, self.tokenizer)

"""The tokens of a tokenizer that stand for no text: the ends of texts, and the mask."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cptlab.errors import UserError


def eos_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    generation = getattr(model, "generation_config", None)
    declared = getattr(generation, "eos_token_id", None)
    declared = declared if isinstance(declared, (list, tuple)) else [declared]
    return frozenset(i for i in (*declared, token_id(tokenizer.eos_token_id)) if i is not None)


def token_id(token: Any) -> int | None:
    """Return a special token's id, which transformers' types also allow to be a list or a text."""
    assert token is None or isinstance(token, int)
    return token


def mask_id_of(tokenizer: PreTrainedTokenizerBase, mask_token: str | None) -> int | None:
    """Return the id of `mask_token`, or of the tokenizer's own mask, unknown or padding token, or None if it has none.

    Raises UserError if `mask_token` is not one token of the vocabulary.
    """
    if mask_token is None:
        own = (tokenizer.mask_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)
        return next((token_id(i) for i in own if i is not None), None)
    if mask_token not in tokenizer.get_vocab():
        raise UserError(
            f"The mask token {mask_token!r} is not one token of the vocabulary. Set mask_token (backbone.mask_token) "
            "to one that is, such as <unk> or <pad>, or to null for the tokenizer's own."
        )
    return tokenizer.get_vocab()[mask_token]

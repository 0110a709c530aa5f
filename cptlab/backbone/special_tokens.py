"""The tokens of a tokenizer that stand for no text: the ends of texts, the mask, and what opens a text."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cptlab.errors import UserError

OPENING = "\n"  # stands for the text before a completion, where a tokenizer treats a text's start differently


def eos_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    generation = getattr(model, "generation_config", None)
    declared = getattr(generation, "eos_token_id", None)
    declared = declared if isinstance(declared, (list, tuple)) else [declared]
    return frozenset(i for i in (*declared, token_id(tokenizer.eos_token_id)) if i is not None)


def token_id(token: Any) -> int | None:
    """Return a special token's id, which transformers' types also allow to be a list or a text."""
    assert token is None or isinstance(token, int)
    return token


def opening_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of `OPENING` if a text is tokenised differently behind it than at the start, else []."""
    alone, opening, behind = (
        tokenizer(text, add_special_tokens=False).input_ids for text in ("x", OPENING, OPENING + "x")
    )
    return opening if behind == opening + behind[len(opening) :] and behind[len(opening) :] != alone else []


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

"""Attention of our own in the layers of a transformers model, within a context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

from cptlab.backbone.prefix_shape import text_config

UNKNOWN = ("softcap", "s_aux", "position_bias")  # what ours do not compute: soft caps, sinks, biases


def asks_for_more(options: Mapping[str, Any]) -> bool:
    """Return whether a layer hands its attention what ours would ignore."""
    return any(options.get(name) is not None for name in UNKNOWN)


@contextmanager
def attending(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Within it, the layers of `model` use the attention that is registered with transformers as `name`."""
    config = text_config(model.config)
    before, config._attn_implementation = config._attn_implementation, name
    try:
        yield
    finally:
        config._attn_implementation = before

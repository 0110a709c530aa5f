"""What a prefix starts as, where that is not drawn: another prefix, or the keys and values of a text.

A text that the frozen backbone reads leaves keys and values in every layer, and those of its first M tokens are a prefix:
with it, the model answers as if that text stood before every prompt. Cartridges (arXiv 2506.06266) start so, and keep the
first position fixed, as models put attention that they do not need on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cptlab.adapters.peft_format import CONFIG, read_table
from cptlab.backbone import Backbone, PrefixShape, joined_table
from cptlab.errors import UserError


def starting_table(
    backbone: Backbone | PrefixShape, length: int, start: str | None, start_text: str | None
) -> tuple[torch.Tensor | None, str | None]:
    """Return the table [length, width] of the start, or None where it is drawn, and a sentence for the user, if any.

    Raises UserError where both are given, and for what gives no prefix of this shape and length.
    """
    if start is not None and start_text is not None:
        raise UserError("adapter.start and adapter.start_text are two starts. Leave one of them out.")
    if start is not None:
        shape = backbone if isinstance(backbone, PrefixShape) else backbone.shape
        return _of_prefix(Path(start), shape, length), None
    if start_text is not None:
        assert isinstance(backbone, Backbone), "a shape alone reads no text"
        return _of_text(backbone, start_text, length)
    return None, None


def _of_prefix(directory: Path, shape: PrefixShape, length: int) -> torch.Tensor:
    inside = directory / "prefix"
    directory = inside if (inside / CONFIG).is_file() else directory
    table, _ = read_table(directory, shape)
    if len(table) != length:
        raise UserError(
            f"The prefix in {directory} has {len(table)} positions, and adapter.length={length}. Set "
            f"adapter.length={len(table)}, or start from another prefix."
        )
    return table


def _of_text(backbone: Backbone, text: str, length: int) -> tuple[torch.Tensor, str | None]:
    ids = backbone.encode_prompt(text)
    if len(ids) < length:
        raise UserError(
            f"adapter.start_text has {len(ids)} tokens, fewer than adapter.length={length}. Lengthen the text, or set "
            f"adapter.length={len(ids)}."
        )
    note = None
    if len(ids) > length:
        read = backbone.decode(ids[:length])
        note = f"Of the {len(ids)} tokens of adapter.start_text the first {length} are the start: {read!r}."
    tokens = torch.tensor([ids[:length]], device=backbone.device)
    _, state = backbone.prefill(tokens, torch.ones_like(tokens))
    layers = state.cache.layers[: backbone.shape.num_layers]
    return joined_table([(layer.keys[0], layer.values[0]) for layer in layers]).float().cpu().clone(), note


def factor_for(table: torch.Tensor, small: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
    """Return the `transform` [r, width] nearest to the given one with which `small` [M, r] makes `table` [M, width].

    Raises UserError where the rank is too small for that.
    """
    length, rank = small.shape
    if rank < length:
        raise UserError(
            f"adapter.rank={rank} is too small for a start with adapter.length={length} positions, which has up to that rank. "
            f"Set adapter.rank={length} or more, or adapter.rank=null."
        )
    missing = table.double() - small.double() @ transform.double()
    return (transform.double() + torch.linalg.pinv(small.double()) @ missing).float()


def kept_numbers(shape: PrefixShape, length: int, layers: Sequence[int] | None, sink: bool) -> torch.Tensor | None:
    """Return which numbers of the table stay as they begin, [length, width] bool; None where all are trained.

    `sink`: those of the first position do. Raises UserError for layers that are not there, and where none is trained.
    """
    if layers is None and not sink:
        return None
    chosen = range(shape.num_layers) if layers is None else list(layers)
    if not set(chosen) <= set(range(shape.num_layers)) or len(set(chosen)) < max(len(chosen), 1):
        raise UserError(
            f"adapter.layers={list(chosen)} cannot be: it names layers from 0 to {shape.num_layers - 1}, each once. Correct it, "
            "or set adapter.layers=null."
        )
    if sink and length == 1:
        raise UserError("The first position of adapter.start_text is fixed, so adapter.length must be at least 2.")
    kept = torch.ones(length, shape.num_layers, shape.width // shape.num_layers, dtype=torch.bool)
    kept[int(sink) :, list(chosen)] = False
    return kept.flatten(1)

"""The trainable prefix of comparative prefix-tuning: keys and values put before the text at every layer.

CPT (arXiv 2503.09020) IV-A and eq. 5. With grouped-query attention a layer holds `num_kv_heads * head_dim` numbers per
position for keys and as many for values, so CPT's D = 2·L·E becomes 2·L·num_kv_heads·head_dim.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from cptlab.adapters.base import Adapter, Policy, tensor_digest
from cptlab.adapters.peft_format import read_table, write_table
from cptlab.adapters.prefix_start import factor_for, kept_numbers, starting_table
from cptlab.backbone import Backbone, PrefixShape, split_table
from cptlab.settings.setting import Setting, check_settings

INIT_STD = 0.02  # of the collapsed table, the usual initializer_range of the backbones themselves


class Prefix(Adapter):
    """`length` positions of keys and values for every layer, either as one table or as two factors (CPT eq. 5).

    `rank=None`: parameter `table` [M, width]. `rank=r`: parameters `small` H' [M, r] and `transform` W [r, width],
    the prefix being H = H' W, a linear map. Parameters are float32 and drawn from `seed` alone.

    Column `((2·layer + kv)·num_kv_heads + head)·head_dim + d` of the table is dimension d of that head's key (kv = 0)
    or value (kv = 1), which is the order of PEFT's prefix tuning.

    With `start` or `start_text` the table begins as another prefix or as the keys and values of a text (prefix_start.py). Of a
    text, the first position stays as it is, as an attention sink (arXiv 2506.06266). With `layers`, all other layers keep what
    they begin with: a cache has as many positions in every layer, so no layer can go without. What is kept is exported like the
    rest.
    """

    kind = "prefix"
    fast_step = True
    kept: torch.Tensor | None
    first: torch.Tensor

    def __init__(
        self,
        backbone: Backbone | PrefixShape,
        length: Annotated[int, Setting("Positions of the prefix (CPT V-E: 12).", at_least=1)] = 12,
        rank: Annotated[
            int | None, Setting("Columns of H', with which H = H' W; null: a table without factors.", at_least=1)
        ] = None,
        start: Annotated[
            str | None,
            Setting(
                "Directory of a prefix, or of the training run of one, that training starts from; null: drawn by seed."
            ),
        ] = None,
        start_text: Annotated[
            str | None,
            Setting(
                "Text whose keys and values training starts from: its first `length` tokens, the first of them fixed."
            ),
        ] = None,
        layers: Annotated[
            Sequence[int] | None,
            Setting(
                "Layers whose keys and values are trained, from 0; the others keep those of the start; null: all.",
                at_least=0,
            ),
        ] = None,
        seed: int = 0,
    ) -> None:
        """Draw a prefix for `backbone`, or for a backbone whose keys and values have that shape.

        Raises UserError for a start of another shape or length, and for layers that are not there.
        """
        super().__init__()
        shape = backbone if isinstance(backbone, PrefixShape) else backbone.shape
        check_settings(Prefix, length=length, rank=rank, start=start, start_text=start_text, layers=layers)
        self.shape, self.length, self.rank = shape, length, rank
        generator = torch.Generator().manual_seed(seed)
        if rank is None:
            self.table = nn.Parameter(INIT_STD * torch.randn(length, shape.width, generator=generator))
        else:
            self.small = nn.Parameter(torch.randn(length, rank, generator=generator))
            self.transform = nn.Parameter(INIT_STD / rank**0.5 * torch.randn(rank, shape.width, generator=generator))
        table, self.note = starting_table(backbone, length, start, start_text)
        if table is not None and rank is None:
            self.table = nn.Parameter(table)
        elif table is not None:
            self.transform = nn.Parameter(factor_for(table, self.small.detach(), self.transform.detach()))
        kept = kept_numbers(shape, length, layers, sink=start_text is not None)
        self.register_buffer("kept", kept, persistent=False)
        first = None if kept is None else self._made().detach().clone()
        self.register_buffer("first", first, persistent=False)

    def collapsed(self) -> torch.Tensor:
        """The table [M, width] that the model sees; differentiable with respect to the parameters."""
        return self._made() if self.kept is None else torch.where(self.kept, self.first, self._made())

    def _made(self) -> torch.Tensor:
        return self.table if self.rank is None else self.small @ self.transform

    def key_values(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(key, value) of every layer, each [num_kv_heads, M, head_dim]."""
        return split_table(self.collapsed(), self.shape)

    @property
    def positions(self) -> int:  # type: ignore[override]
        return self.length

    def policy(self, backbone: Backbone) -> Policy:
        return Policy(backbone, self)

    def description(self) -> dict[str, Any]:
        about = {"length": self.length, "rank": self.rank, **asdict(self.shape)}
        if self.kept is None:
            return about
        return about | {"kept": tensor_digest({"kept": self.kept, "first": self.first.where(self.kept, 0)})}

    def tensors(self) -> list[torch.Tensor]:
        """Return the collapsed table alone."""
        return [self.collapsed()]

    def with_tensors(self, tensors: Sequence[torch.Tensor]) -> Prefix:
        (table,) = tensors
        return prefix_from_table(table.detach(), self.shape)

    def digest(self) -> str:
        return hashlib.sha256(self.collapsed().detach().cpu().contiguous().numpy().tobytes()).hexdigest()

    def export(self, directory: str | os.PathLike, backbone: Backbone, extra: dict[str, Any] | None = None) -> None:
        save_prefix(self, directory, backbone, extra)

    def collapse(self) -> Prefix:
        """A prefix without factors whose table equals this one's, detached from it."""
        return prefix_from_table(self.collapsed().detach().float().cpu().clone(), self.shape)


def prefix_from_table(table: torch.Tensor, shape: PrefixShape) -> Prefix:
    """A prefix without factors that holds `table` [M, shape.width] as its parameter."""
    prefix = Prefix.__new__(Prefix)  # a table is there, none need be drawn
    nn.Module.__init__(prefix)
    prefix.shape, prefix.length, prefix.rank = shape, len(table), None
    prefix.table = nn.Parameter(table)
    prefix.register_buffer("kept", None)
    return prefix


def save_prefix(
    prefix: Prefix, directory: str | os.PathLike, backbone: Backbone | str, extra: dict[str, Any] | None = None
) -> None:
    """Write a prefix, collapsed, so that `peft.PeftModel.from_pretrained(model, directory)` loads it.

    `backbone` is what it was trained on, or its hub id. `extra` is plain data for `cptlab.json`.
    """
    write_table(prefix.collapsed(), prefix.shape, Path(directory), backbone, extra)


def load_prefix(directory: str | os.PathLike, expect: PrefixShape | None = None) -> Prefix:
    """Load the prefix that `save_prefix` or PEFT wrote, as a table without factors, bit for bit.

    Raises UserError if there is none, if it is another kind of adapter, and if it is not of shape `expect`.
    """
    return prefix_from_table(*read_table(Path(directory), expect))

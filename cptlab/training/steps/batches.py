"""Pairs side by side: as padded rows for the plain step, packed for the fast one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cptlab.training.steps.map_tensors import map_tensors, to_device
from cptlab.training.steps.packing import Packed, pack, pack_in_one_row, pack_programs
from cptlab.training.steps.places import planned_size
from cptlab.training.steps.token_pairs import TokenPair

LAYOUTS = {"packed", "programs", "one_row"}


@dataclass(frozen=True)
class ReferenceRows:
    """What the backbone alone says of a batch: `states` [N, E] at the predicting places (see `Packed.state`), and the
    log-probabilities of the code tokens, `scores` [R, C]."""

    states: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Padded:
    """R programs, each behind its instruction. Instructions are padded on the left and programs on the right, so the code
    of every row begins at column `start`: `input_ids` and `attention_mask` [R, T]."""

    input_ids: Tensor
    attention_mask: Tensor
    start: int


@dataclass(frozen=True)
class Batch:
    """B pairs as R programs: the better ones, then the worse ones in the same order (or the better ones alone).

    `tokens` [R, C] are the code tokens; `mask` (the differences m) and `code` (what is no padding) are bool [R, C].
    A batch that is not `counted` only keeps this process in step with the others. `reference`: what was kept of the
    backbone alone, if anything. `planned`: all sizes are rounded up to a few, for a compiled step.
    """

    pairs: tuple[TokenPair, ...]
    pad_id: int
    tokens: Tensor
    mask: Tensor
    code: Tensor
    reference: ReferenceRows | None = None
    better_only: bool = False
    counted: bool = True
    planned: bool = False

    def __len__(self) -> int:
        """Pairs."""
        return len(self.pairs)

    @property
    def better(self) -> Batch:
        """The better programs alone."""
        if self.better_only:
            return self
        return collate(self.pairs, self.pad_id, better_only=True, planned=self.planned).to(self.tokens.device)

    @cached_property
    def kept(self) -> Tensor:
        """The code tokens that are not masked, 1 - m, bool [R, C]."""
        return self.code & ~self.mask

    @cached_property
    def padded(self) -> Padded:
        instructions = [pair.instruction for pair in self.pairs]
        rows = [
            (i, p) for programs in _sides(self.pairs, self.better_only) for i, (p, _) in zip(instructions, programs)
        ]
        start = max(len(instruction) for instruction in instructions)
        input_ids = torch.full((len(rows), start + self.tokens.shape[1]), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, (instruction, ids) in enumerate(rows):
            first, end = start - len(instruction), start + len(ids)
            input_ids[row, first:end] = torch.tensor(instruction + ids)
            attention_mask[row, first:end] = 1
        device = self.tokens.device
        return Padded(input_ids.to(device), attention_mask.to(device), start)

    @cached_property
    def packed(self) -> Packed:
        """A row for each pair."""
        return pack(self.pairs, self.pad_id, self.better_only).to(self.tokens.device)

    @cached_property
    def programs(self) -> Packed:
        """A row for each program."""
        return pack_programs(self.pairs, self.pad_id, self.better_only).to(self.tokens.device)

    @cached_property
    def one_row(self) -> Packed:
        """All pairs in one row."""
        return pack_in_one_row(self.pairs, self.pad_id, self.better_only, self.planned).to(self.tokens.device)

    def to(self, device: torch.device, **_) -> Batch:
        """The same batch on another device, with what was laid out already (Lightning calls this)."""
        if self.tokens.device == torch.device(device):
            return self
        return self._laid_out(to_device(self, device), lambda packed: to_device(packed, device))

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory, with what was laid out already: copies to a GPU then wait for nothing."""
        return self._laid_out(
            map_tensors(self, Tensor.pin_memory), lambda packed: map_tensors(packed, Tensor.pin_memory)
        )

    def with_reference(self, reference: ReferenceRows) -> Batch:
        """The same batch with what was kept of the backbone alone."""
        if self.planned:
            missing = planned_size(len(reference.states)) - len(reference.states)
            states = torch.nn.functional.pad(reference.states, (0, 0, 0, missing))
            reference = ReferenceRows(states, reference.scores)
        return self._laid_out(replace(self, reference=reference), lambda packed: packed)

    def _laid_out(self, batch: Batch, change: Callable[[Packed], Packed]) -> Batch:
        """Give `batch` what was laid out here already."""
        vars(batch).update({name: change(vars(self)[name]) for name in vars(self).keys() & LAYOUTS})
        return batch


def collate(
    pairs: Sequence[TokenPair],
    pad_id: int,
    reference: ReferenceRows | None = None,
    better_only: bool = False,
    planned: bool = False,
) -> Batch:
    """The batch of these pairs; see `Batch` for its layout."""
    programs = [program for side in _sides(pairs, better_only) for program in side]
    width = max(len(ids) for ids, _ in programs)
    width = planned_size(width) if planned else width
    tokens = torch.full((len(programs), width), pad_id)
    mask, code = torch.zeros((2, len(programs), width), dtype=torch.bool)
    for row, (ids, differs) in enumerate(programs):
        tokens[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = torch.tensor(differs, dtype=torch.bool)
        code[row, : len(ids)] = True
    return Batch(tuple(pairs), pad_id, tokens, mask, code, reference, better_only, planned=planned)


def _sides(pairs: Sequence[TokenPair], better_only: bool) -> list[list[tuple[list[int], list[int]]]]:
    better = [pair.better for pair in pairs]
    return [better] if better_only else [better, [pair.worse for pair in pairs]]

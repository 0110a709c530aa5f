"""Pairs packed such that what both programs of a pair begin with is computed once.

    [instruction | common code | rest of a | rest of b]

The rests are branches: both go on from the common code, at the same positions, and do not see each other. A program's
last token is left out of its branch, since it predicts nothing. A token's key and value depend on what stands before it
alone, so a packed row gives every program exactly what a row of its own would give it. Others call this prefix
sharing; here the trained prefix stands before it as well.

A pair is a row of its own, padded, for attention with a mask (`pack`). For attention by sequences, all pairs of a batch
follow each other in one row, without padding (`pack_in_one_row`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cptlab.backbone.sequence_attention import Sequences
from cptlab.training.steps.map_tensors import to_device
from cptlab.training.steps.places import Layout, Region, planned_size
from cptlab.training.steps.token_pairs import Lengths, TokenPair, common_length


@dataclass(frozen=True)
class Packed:
    """B packed rows, padded on the right to T tokens, for R programs of at most C code tokens; or one row of all pairs.

    `input_ids` and `positions` [B, T]; `segments` [B, T] as `Backbone.hidden_states` takes them, or the `sequences` of
    one row. `source` [R, C] is the flat index (row · T + column) of the place that predicts a code token. `state` [R, C]
    is the index of the same place among the predicting places alone, pair after pair (`predicting`): what is kept of the
    reference. Both are 0 where there is no code token. `regions`: the places of the masks that objectives name.
    `layout`: the same on the host.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor | None
    sequences: Sequences | None
    source: Tensor
    state: Tensor
    predicting: Tensor
    regions: dict[str, Region]
    layout: Layout

    def to(self, device: torch.device) -> Packed:
        return self if self.input_ids.device == torch.device(device) else to_device(self, device)

    def region(self, where: Tensor) -> Region:
        """The places of a mask that has no name, bool [R, C]. The host waits for it."""
        return to_device(Region.of(where.cpu().numpy(), self.layout), where.device)


def packed_length(pair: TokenPair) -> int:
    """Tokens of the pair's packed row."""
    return Lengths.of(pair).packed_row


def predicting_places(pair: TokenPair) -> int:
    """How many places of the packed row predict a code token; they follow each other, up to the row's end."""
    return packed_length(pair) - len(pair.instruction) + 1


def pack(pairs: Sequence[TokenPair], pad_id: int, better_only: bool = False) -> Packed:
    """Pack the pairs, or their better programs alone, each in a row of its own; programs in the order of `Batch`."""
    rows = [_row(pair, better_only) for pair in pairs]
    width = max(len(row.ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id)
    positions, segments = torch.zeros((2, len(rows), width), dtype=torch.long)
    segments -= 1
    for number, row in enumerate(rows):
        input_ids[number, : len(row.ids)] = torch.tensor(row.ids)
        positions[number, : len(row.ids)] = torch.tensor(row.positions)
        segments[number, : len(row.ids)] = torch.tensor(row.segments)
    return _packed(rows, [number * width for number in range(len(rows))], input_ids, positions, segments=segments)


def pack_programs(pairs: Sequence[TokenPair], pad_id: int, better_only: bool = False) -> Packed:
    """Each program in a row of its own, with nothing shared; what is kept of the reference is numbered as by `pack`."""
    packed = pack(pairs, pad_id, better_only)
    sides = [[pair.better for pair in pairs], [pair.worse for pair in pairs]][: 1 if better_only else 2]
    alone = [TokenPair(pair.instruction, one, one) for side in sides for pair, one in zip(pairs, side, strict=True)]
    rows = pack(alone, pad_id, better_only=True)
    layout = replace(rows.layout, state=packed.layout.state)
    code = layout.masks["code"]
    predicting = np.zeros(len(packed.predicting), dtype=np.int64)
    predicting[layout.state[code]] = layout.source[code]
    return replace(
        rows, state=packed.state, predicting=torch.from_numpy(predicting), layout=layout, regions=layout.regions()
    )


def pack_in_one_row(
    pairs: Sequence[TokenPair], pad_id: int, better_only: bool = False, planned: bool = False
) -> Packed:
    """Pack the pairs, or their better programs alone, one after the other into a single row.

    `planned`: with all sizes rounded up to a few (`planned_size`), for a compiled step. What fills them up is a sequence of
    its own.
    """
    rows = [_row(pair, better_only) for pair in pairs]
    ids = [token for row in rows for token in row.ids]
    positions = [position for row in rows for position in row.positions]
    keys: list[int] = []
    lengths: list[tuple[int, int]] = []
    starts, end = [], 0
    for row in rows:
        starts.append(end)
        trunk = row.segments.count(0)
        for number in sorted(set(row.segments)):
            own = row.segments.count(number)
            before = range(starts[-1], starts[-1] + trunk) if number else ()
            keys += [*before, *range(end, end + own)]
            lengths.append((own, len(before) + own))
            end += own
    if planned:
        more = planned_size(end + 1) - end
        more_keys = planned_size(len(keys) + more) - len(keys)
        ids += [pad_id] * more
        positions += [0] * more
        keys += [end] * (more_keys - more) + list(range(end, end + more))
        lengths.append((more, more_keys))
    counts = torch.tensor([(0, 0), *lengths]).cumsum(0).int()
    longest = max(queries for queries, _ in lengths), max(found for _, found in lengths)
    if planned:
        longest = planned_size(longest[0]), planned_size(longest[1])
    sequences = Sequences(
        torch.tensor(keys), counts[:, 0].contiguous(), counts[:, 1].contiguous(), tuple(lengths), longest
    )
    return _packed(rows, starts, torch.tensor([ids]), torch.tensor([positions]), sequences=sequences, planned=planned)


def token_budget_groups(lengths: Sequence[int], budget: int, padded: bool = True) -> list[list[int]]:
    """Indices of rows, in order of their lengths, in groups that take at most `budget` tokens, or one row.

    What counts is tokens `padded` to the longest row of a group, or those of the rows alone.
    """
    groups: list[list[int]] = []
    taken = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        # the first row of a group is its longest
        taken += lengths[groups[-1][0]] if groups and padded else lengths[index]
        if groups and taken <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
            taken = lengths[index]
    return groups


@dataclass(frozen=True)
class _Row:
    """A pair's tokens, and per program the token ids, the mask and the columns that predict its tokens. `first` is the
    first predicting column; the others follow it up to the end."""

    ids: list[int]
    positions: list[int]
    segments: list[int]
    programs: list[tuple[list[int], list[int], list[int]]]
    first: int


def _row(pair: TokenPair, better_only: bool) -> _Row:
    sides = [pair.better] if better_only else [pair.better, pair.worse]
    instruction, programs = pair.instruction, [ids for ids, _ in sides]
    common = common_length(programs)
    shared = [*instruction, *programs[0][:common]]
    if all(len(program) == common for program in programs):
        shared = shared[:-1] if common else shared  # the last token of all of them predicts nothing
    ids, places, segments = list(shared), list(range(len(shared))), [0] * len(shared)
    found = []
    trunk = range(len(instruction) - 1, len(instruction) + common)
    for number, (program, mask) in enumerate(sides, 1):
        branch: Iterable[int] = program[common:-1]
        start = len(ids)
        ids += branch
        places += range(len(shared), len(shared) + len(ids) - start)
        segments += [number] * (len(ids) - start)
        found.append((program, mask, [*trunk, *range(start, len(ids))][: len(program)]))
    return _Row(ids, places, segments, found, len(instruction) - 1)


def _packed(
    rows: Sequence[_Row],
    starts: Sequence[int],
    input_ids: Tensor,
    positions: Tensor,
    *,
    segments: Tensor | None = None,
    sequences: Sequences | None = None,
    planned: bool = False,
) -> Packed:
    """`starts` are the flat indices at which the pairs begin."""
    count, programs = len(rows), len(rows[0].programs)
    columns = max(len(ids) for row in rows for ids, _, _ in row.programs)
    columns = planned_size(columns) if planned else columns
    tokens, source, state = np.zeros((3, programs * count, columns), dtype=np.int64)
    differs, code = np.zeros((2, programs * count, columns), dtype=bool)
    predicting: list[int] = []
    for row, (start, one) in enumerate(zip(starts, rows, strict=True)):
        for number, (ids, mask, places) in enumerate(one.programs):
            at = number * count + row, slice(len(ids))
            tokens[at], differs[at], code[at] = ids, mask, True
            source[at] = start + np.array(places, dtype=np.int64)
            state[at] = len(predicting) + np.array(places, dtype=np.int64) - one.first
        predicting += range(start + one.first, start + len(one.ids))
    if planned:
        predicting += [0] * (planned_size(len(predicting)) - len(predicting))
    layout = Layout(tokens, source, state, {"mask": differs, "code": code, "kept": code & ~differs})
    return Packed(
        input_ids, positions, segments, sequences, torch.from_numpy(source), torch.from_numpy(state),
        torch.tensor(predicting), layout.regions(planned), layout,
    )  # fmt: skip

"""Each pair as one row in which what both programs begin with is computed once.

    [instruction | common code | rest of a | rest of b]

The rests are branches: both go on from the common code, at the same positions, and do not see each other. A program's
last token is left out of its branch, since it predicts nothing. A token's key and value depend on what stands before it
alone, so a packed row gives every program exactly what a row of its own would give it. Others call this prefix
sharing; here the trained prefix stands before it as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cptlab.training.steps.token_pairs import Lengths, TokenPair, common_length


@dataclass(frozen=True)
class Packed:
    """B packed rows, padded on the right to T tokens, for R programs of at most C code tokens.

    `input_ids`, `positions` and `segments` [B, T] as `Backbone.hidden_states` takes them. `source` [R, C] is the flat
    index (row · T + column) of the place that predicts a code token. `state` [R, C] is the index of the same place
    among the rows' predicting places alone, all rows in one list (`predicting`): what is kept of the reference.
    Both are 0 where there is no code token.
    """

    input_ids: Tensor
    positions: Tensor
    segments: Tensor
    source: Tensor
    state: Tensor
    predicting: Tensor

    def to(self, device: torch.device) -> Packed:
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


def packed_length(pair: TokenPair) -> int:
    """Tokens of the pair's packed row."""
    return Lengths.of(pair).packed_row


def predicting_places(pair: TokenPair) -> int:
    """How many places of the packed row predict a code token; they follow each other, up to the row's end."""
    return packed_length(pair) - len(pair.instruction) + 1


def pack(pairs: Sequence[TokenPair], pad_id: int, better_only: bool = False) -> Packed:
    """Pack the pairs, or their better programs alone; programs in the order of `Batch`."""
    groups = [_programs(pair, better_only) for pair in pairs]
    rows = [_row(pair.instruction, group) for pair, group in zip(pairs, groups, strict=True)]
    width = max(len(ids) for ids, _, _, _ in rows)
    columns = max(len(program) for group in groups for program in group)
    count, programs = len(rows), len(groups[0])
    input_ids = torch.full((count, width), pad_id)
    positions, segments = torch.zeros((2, count, width), dtype=torch.long)
    segments -= 1
    source, state = torch.zeros((2, programs * count, columns), dtype=torch.long)
    predicting: list[int] = []
    for row, (pair, (ids, places, branches, sources)) in enumerate(zip(pairs, rows, strict=True)):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        positions[row, : len(ids)] = torch.tensor(places)
        segments[row, : len(ids)] = torch.tensor(branches)
        first = len(pair.instruction) - 1
        for number, found in enumerate(sources):
            found = torch.tensor(found)
            source[number * count + row, : len(found)] = row * width + found
            state[number * count + row, : len(found)] = len(predicting) + found - first
        predicting += range(row * width + first, row * width + len(ids))
    return Packed(input_ids, positions, segments, source, state, torch.tensor(predicting))


def token_budget_groups(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows, in order of their lengths, in groups that take at most `budget` tokens padded, or one row."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        # the first row of a group is its longest
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _programs(pair: TokenPair, better_only: bool) -> list[list[int]]:
    return [pair.better[0]] if better_only else [pair.better[0], pair.worse[0]]


def _row(instruction: Sequence[int], programs: Sequence[Sequence[int]]) -> tuple[list, list, list, list]:
    """Token ids, positions, segments, and per program the columns that predict its tokens."""
    common = common_length(programs)
    shared = [*instruction, *programs[0][:common]]
    if all(len(program) == common for program in programs):
        shared = shared[:-1] if common else shared  # the last token of all of them predicts nothing
    ids, places, segments = list(shared), list(range(len(shared))), [0] * len(shared)
    sources = []
    trunk = range(len(instruction) - 1, len(instruction) + common)
    for number, program in enumerate(programs, 1):
        branch: Iterable[int] = program[common:-1]
        start = len(ids)
        ids += branch
        places += range(len(shared), len(shared) + len(ids) - start)
        segments += [number] * (len(ids) - start)
        sources.append([*trunk, *range(start, len(ids))][: len(program)])
    return ids, places, segments, sources

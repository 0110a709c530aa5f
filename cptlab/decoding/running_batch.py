"""The running batch: what each of its rows has written so far, and which rows have ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cptlab.backbone import Backbone
from cptlab.decoding.request import Request
from cptlab.decoding.sampling import Sampling, choose, uniforms
from cptlab.decoding.stopping_criteria import ended_by_token

STOP_INTERVAL = 8  # steps between two looks at the text for the end of a program; it changes no program


@dataclass(frozen=True)
class Row:
    """One program of the batch: a sample of a request."""

    request: Request
    sample: int


class RunningBatch:
    """The tokens of every row: `output` [R, longest], of which the first `position` [R] are written.

    `last` [R] is each row's last token, `limit` [R] its number of tokens at most, and `active` [R] is False once it has
    ended. `reported` [R] is True once `ended` has yielded it. `looked` [R] is the length of its text at the last look
    for an end, `healed` [R] counts its tokens that heal the prompt, and `numbers` [R, longest] are its random numbers.
    """

    def __init__(self, backbone: Backbone, sampling: Sampling, seed: int, longest: int) -> None:
        self.backbone, self.sampling, self.seed, self.longest = backbone, sampling, seed, longest
        self.eos = torch.tensor(sorted(backbone.eos_ids), device=backbone.device, dtype=torch.long)
        self.rows: list[Row] = []
        empty = torch.zeros(0, dtype=torch.long, device=backbone.device)
        self.last, self.position, self.limit = empty, empty, empty
        self.output, self.active = empty.view(0, longest), empty.bool()
        self.reported, self.looked, self.healed = empty.bool(), empty, empty
        self.numbers = empty.view(0, longest).double()

    def _tensors(self, rows: list[Row]) -> dict[str, Tensor]:
        zeros = torch.zeros(len(rows), dtype=torch.long)
        tensors = {
            "last": zeros,
            "position": zeros,
            "limit": torch.tensor([row.request.limit for row in rows]),
            "output": zeros[:, None].expand(-1, self.longest),
            "active": ~zeros.bool(),
            "reported": zeros.bool(),
            "looked": zeros,
            "healed": zeros,
        }
        if not self.sampling.greedy:
            numbers = [uniforms(self.seed, row.request.task_id, row.sample, self.longest) for row in rows]
            tensors["numbers"] = torch.from_numpy(np.stack(numbers))
        return {name: tensor.to(self.last.device) for name, tensor in tensors.items()}

    def add(self, rows: list[Row]) -> None:
        """Append new rows."""
        self.rows += rows
        for name, tensor in self._tensors(rows).items():
            setattr(self, name, torch.cat([getattr(self, name), tensor]))

    def put(self, places: Tensor, rows: list[Row]) -> None:
        """Overwrite the rows at `places` by new ones."""
        for place, row in zip(places.tolist(), rows, strict=True):
            self.rows[place] = row
        for name, tensor in self._tensors(rows).items():
            getattr(self, name)[places] = tensor

    def keep_running(self) -> Tensor:
        """Drop the rows that have ended, and return the former places of the others."""
        kept = self.active.nonzero()[:, 0]
        self.rows = [self.rows[place] for place in kept.tolist()]
        names = "last position limit output active reported looked healed".split() + (
            [] if self.sampling.greedy else ["numbers"]
        )
        for name in names:
            setattr(self, name, getattr(self, name)[kept])
        return kept

    def choose(self, logits: Tensor, rows: Tensor, healing: list[bool]) -> None:
        """Choose the next token of `rows` from `logits` [R, V], and end the rows for which it is the last.

        `healing` says of each row of the batch whether it heals its prompt. Tokens that do so use random numbers of
        their own, so the completion does not depend on how many there are.
        """
        at = self.position[rows]
        numbers = None
        if not self.sampling.greedy:
            numbers = self.numbers[rows, (at - self.healed[rows]).clamp(max=self.longest - 1)]
            if any(healing):
                for place, row in enumerate(rows.tolist()):
                    if healing[row]:
                        who = self.rows[row]
                        numbers[place] = float(
                            uniforms(self.seed, f"{who.request.task_id} (healing)", who.sample, int(at[place]) + 1)[-1]
                        )
                        self.healed[row] += 1
        tokens = choose(logits if len(rows) == len(logits) else logits[rows], self.sampling, numbers)
        self.last[rows] = tokens
        running = self.active[rows]
        rows, at, tokens = rows[running], at[running], tokens[running]
        self.output[rows, at] = tokens
        self.position[rows] = at + 1
        ends = ended_by_token(tokens, self.eos, at + 1, self.limit[rows])
        self.active[rows] = ~ends
        self._look(rows[~ends & ((at + 1) % STOP_INTERVAL == 0)].tolist())

    def _look(self, rows: list[int]) -> None:
        """End the rows whose text shows the end of the program."""
        for row, length in zip(rows, self.position[rows].tolist(), strict=True):
            request = self.rows[row].request
            if not request.stopping:
                continue
            text = self.backbone.decode(self.output[row, :length].tolist())[len(request.healed) :]
            if request.stopping.end(request.code, text, int(self.looked[row])) >= 0:
                self.active[row] = False
            self.looked[row] = len(text)

    def idle(self) -> Tensor:
        """Return the places of the rows that have ended."""
        return (~self.active).nonzero()[:, 0]

    def ended(self, idle: Tensor) -> Iterator[tuple[Request, int, list[int]]]:
        """Yield (request, sample, token ids) of the `idle` rows that were not yielded before."""
        new = idle[~self.reported[idle]]
        self.reported[idle] = True
        lengths = self.position[new].tolist()
        for place, ids, length in zip(new.tolist(), self.output[new].tolist(), lengths, strict=True):
            yield self.rows[place].request, self.rows[place].sample, ids[:length]

"""What the rows of a batch have written so far, and which of them have ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cptlab.backbone import Backbone
from cptlab.decoding.sampling import Sampling, choose, uniforms
from cptlab.decoding.streams import Job

STOP_INTERVAL = 8  # steps between looks for the end of a program; what a program is does not depend on it


@dataclass(frozen=True)
class Row:
    job: Job
    sample: int


class RunningBatch:
    """What every row has written so far: `output` [R, longest], of which `position` tokens count."""

    def __init__(self, backbone: Backbone, sampling: Sampling, seed: int, longest: int) -> None:
        self.backbone, self.sampling, self.seed, self.longest = backbone, sampling, seed, longest
        self.eos = torch.tensor(sorted(backbone.eos_ids), device=backbone.device, dtype=torch.long)
        self.rows: list[Row] = []
        self.stopping = sampling.stopping
        empty = torch.zeros(0, dtype=torch.long, device=backbone.device)
        self.last, self.position, self.limit = empty, empty, empty
        self.output, self.active = empty.view(0, longest), empty.bool()
        self.reported, self.looked, self.healed = empty.bool(), empty, empty
        self.numbers = empty.view(0, longest).double()

    def _tensors(self, rows: list[Row]) -> dict[str, Tensor]:
        zeros = torch.zeros(len(rows), dtype=torch.long)
        tensors = {
            "last": zeros, "position": zeros, "limit": torch.tensor([row.job.limit for row in rows]),
            "output": zeros[:, None].expand(-1, self.longest), "active": ~zeros.bool(), "reported": zeros.bool(), "looked": zeros, "healed": zeros,
        }  # fmt: skip
        if not self.sampling.greedy:
            numbers = [uniforms(self.seed, row.job.task_id, row.sample, self.longest) for row in rows]
            tensors["numbers"] = torch.from_numpy(np.stack(numbers))
        return {name: tensor.to(self.last.device) for name, tensor in tensors.items()}

    def add(self, rows: list[Row]) -> None:
        self.rows += rows
        for name, tensor in self._tensors(rows).items():
            setattr(self, name, torch.cat([getattr(self, name), tensor]))

    def put(self, places: Tensor, rows: list[Row]) -> None:
        for place, row in zip(places.tolist(), rows, strict=True):
            self.rows[place] = row
        for name, tensor in self._tensors(rows).items():
            getattr(self, name)[places] = tensor

    def keep_running(self) -> Tensor:
        """Forget the rows that have ended; the places of those that stay."""
        kept = self.active.nonzero()[:, 0]
        self.rows = [self.rows[place] for place in kept.tolist()]
        names = "last position limit output active reported looked healed".split() + (
            [] if self.sampling.greedy else ["numbers"]
        )
        for name in names:
            setattr(self, name, getattr(self, name)[kept])
        return kept

    def choose(self, logits: Tensor, rows: Tensor, healing: list[bool]) -> None:
        """The next token of these rows, and whether it is their last. `healing`: of all rows, which write what their prompt
        has already, for which they have random numbers of their own."""
        at = self.position[rows]
        numbers = None
        if not self.sampling.greedy:
            numbers = self.numbers[rows, (at - self.healed[rows]).clamp(max=self.longest - 1)]
            if any(healing):
                for place, row in enumerate(rows.tolist()):
                    if healing[row]:
                        who = self.rows[row]
                        numbers[place] = float(
                            uniforms(self.seed, f"{who.job.task_id} (healing)", who.sample, int(at[place]) + 1)[-1]
                        )
                        self.healed[row] += 1
        tokens = choose(logits if len(rows) == len(logits) else logits[rows], self.sampling, numbers)
        self.last[rows] = tokens
        running = self.active[rows]
        rows, at, tokens = rows[running], at[running], tokens[running]
        self.output[rows, at] = tokens
        self.position[rows] = at + 1
        ends = torch.isin(tokens, self.eos) | (at + 1 >= self.limit[rows])
        self.active[rows] = ~ends
        if self.sampling.stop or self.sampling.function_end:
            self._look(rows[~ends & ((at + 1) % STOP_INTERVAL == 0)].tolist())

    def _look(self, rows: list[int]) -> None:
        """End the rows whose text shows its end."""
        for row, length in zip(rows, self.position[rows].tolist(), strict=True):
            job = self.rows[row].job
            text = self.backbone.decode(self.output[row, :length].tolist())[len(job.healed) :]
            if self.stopping.end(job.code, text, int(self.looked[row])) >= 0:
                self.active[row] = False
            self.looked[row] = len(text)

    def idle(self) -> Tensor:
        return (~self.active).nonzero()[:, 0]

    def ended(self, idle: Tensor) -> Iterator[tuple[Job, int, list[int]]]:
        """The rows that have ended and were not reported yet."""
        new = idle[~self.reported[idle]]
        self.reported[idle] = True
        lengths = self.position[new].tolist()
        for place, ids, length in zip(new.tolist(), self.output[new].tolist(), lengths, strict=True):
            yield self.rows[place].job, self.rows[place].sample, ids[:length]

"""A running batch in slots, seen from the host: which program has which row, and where texts end.

The host looks every `STOP_INTERVAL` steps. It may look at what was there before the steps that run now (`ahead`), so that
the device never waits. A program is cut where it ends, so this changes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cptlab.backbone import Backbone
from cptlab.decoding.guidance import kinds_of
from cptlab.decoding.request import Request
from cptlab.decoding.running_batch import STOP_INTERVAL, Row, RunningBatch
from cptlab.decoding.sampling import Sampling
from cptlab.decoding.slots.graph import StepGraphs
from cptlab.decoding.slots.step import Choose, SlotStep
from cptlab.decoding.streams import Streams

WIDTH = 64  # visible columns are a multiple of it, so that there are few sizes

Ended = tuple[Request, int, list[int]]  # request, sample, token ids


@dataclass
class Occupant:
    """The program in a row, and how much of its text has been looked at."""

    row: Row
    looked: int = 0
    ended: bool = False


@dataclass
class Snapshot:
    """What the rows held at one moment, on its way to the host."""

    occupants: list[Occupant | None]
    active: Tensor
    unsure: Tensor
    written: Tensor
    output: Tensor
    arrived: torch.cuda.Event | None

    @staticmethod
    def of(step: SlotStep, occupants: Sequence[Occupant | None]) -> Snapshot:
        on_gpu = step.active.device.type == "cuda"
        held = step.active, step.unsure, step.written, step.output
        active, unsure, written, output = (_sent(tensor, on_gpu) for tensor in held)
        arrived = torch.cuda.Event() if on_gpu else None
        if arrived is not None:
            arrived.record()
        return Snapshot(list(occupants), active, unsure, written, output, arrived)


def _sent(tensor: Tensor, on_gpu: bool) -> Tensor:
    """Return the place on the host to which a tensor is on its way."""
    return torch.empty_like(tensor, device="cpu", pin_memory=on_gpu).copy_(tensor, non_blocking=on_gpu)


def _on_its_way(numbers: list[int], device: torch.device) -> Tensor:
    """Return the place on the device to which numbers are on their way."""
    if device.type != "cuda":
        return torch.tensor(numbers, device=device)
    return torch.tensor(numbers, pin_memory=True).to(device, non_blocking=True)


def whole_widths(columns: int) -> int:
    """Round up to a multiple of `WIDTH`."""
    return -(-columns // WIDTH) * WIDTH


def columns(requests: Sequence[Request], behind: int) -> int:
    """How many columns a slot has, in which each of these fits behind a prefix of `behind` positions."""
    tokens = max(behind + max(len(one.ids), len(one.second.ids) if one.second else 0) + one.limit for one in requests)
    return whole_widths(tokens)


def cached_tokens(requests: Sequence[Request], behind: int) -> int:
    """How many tokens a row takes of the cache, whichever of these it runs: if one has a second stream, all rows have two
    slots."""
    return columns(requests, behind) * (2 if any(request.second is not None for request in requests) else 1)


class SlotBatch:
    """R rows, some of them free."""

    def __init__(
        self,
        backbone: Backbone,
        like: Streams,
        requests: Sequence[Request],
        rows: int,
        sampling: Sampling,
        choose: Choose,
        likeliest: int | None = None,
    ) -> None:
        self.backbone = backbone
        kinds = kinds_of([request.guidance if request.second is not None else None for request in requests])
        behind = int((like.state.real & (like.state.positions < 0)).sum(1).max())
        longest = max(request.limit for request in requests)
        self.kinds = kinds
        self.step = SlotStep(
            backbone, like.state, rows, columns(requests, behind), longest, sampling, kinds, choose, likeliest
        )
        self.whole = False  # whether the next step looks at the whole vocabulary, as a row needs it
        self.graphs = StepGraphs(self.step)
        self.occupants: list[Occupant | None] = [None] * rows
        self.reach = np.zeros(rows, dtype=np.int64)  # no position of a row is beyond

    def free(self) -> list[int]:
        return [place for place, one in enumerate(self.occupants) if one is None]

    def put(self, streams: Streams, written: RunningBatch) -> None:
        """Put the rows of `streams` and what they have written into free rows; each is one that goes on."""
        places = self.free()[: streams.rows]
        step, device = self.step, self.step.last.device
        rows = torch.tensor(places, device=device)
        if self.kinds:
            step.cache.positions[rows + step.rows] = 0  # of a row without a second stream, too, as they go on with it
        to = torch.cat([rows, rows[streams.guided] + step.rows])
        step.cache.put(to, streams.state, torch.cat([streams.first, streams.second]))
        for name in ("last", "limit", "healed", "active"):
            getattr(step, name)[rows] = getattr(written, name)
        step.unsure[rows] = False
        step.written[rows] = written.position
        step.output[rows, : step.longest] = written.output[:, : step.longest]
        if not step.sampling.greedy:
            step.numbers[rows] = written.numbers
        guidances = [row.request.guidance if row.request.second is not None else None for row in written.rows]
        if self.kinds:
            kind = [-1 if one is None else self.kinds.index((one.gate, one.rule)) for one in guidances]
            omega = [1.0 if one is None else one.omega for one in guidances]
            step.kind[rows] = torch.tensor(kind, device=device)
            step.omega[rows] = torch.tensor(omega, device=device, dtype=torch.float64)[:, None]
        self.reach[places] = int(streams.state.next_position.max())
        for place, row in zip(places, written.rows, strict=True):
            self.occupants[place] = Occupant(row)

    def advance(self) -> Snapshot:
        """Run the next steps, and return what the rows then hold."""
        cache, device = self.step.cache, self.step.last.device
        # streams, graphs and events are those of the current device, which need not be the model's
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            for number in range(STOP_INTERVAL):
                self.reach += 1
                width = min(cache.capacity, whole_widths(int(self.reach.max())))
                self.graphs.run(width, self.whole and number == 0)
            return Snapshot.of(self.step, self.occupants)

    def look(self, at: Snapshot) -> Iterator[Ended]:
        """Free the rows whose programs have ended, and yield these."""
        if at.arrived is not None:
            at.arrived.synchronize()
        stopped, output, lengths = [], at.output.numpy(), at.written.tolist()
        self.whole = bool(at.unsure.any())
        for place, (one, active) in enumerate(zip(at.occupants, at.active.tolist(), strict=True)):
            if one is None or one.ended:
                continue
            ids = output[place, : lengths[place]].tolist()
            if active and not self._shows_its_end(one, ids):
                continue
            one.ended, self.occupants[place], self.reach[place] = True, None, 0
            if active:
                stopped.append(place)
            yield one.row.request, one.row.sample, ids
        if stopped:  # an index and a number as `x[index] = number` takes them would wait for the steps that run now
            self.step.active.index_fill_(0, _on_its_way(stopped, self.step.last.device), False)

    def _shows_its_end(self, one: Occupant, ids: list[int]) -> bool:
        request = one.row.request
        if not request.stopping:
            return False
        text = self.backbone.decode(ids)[len(request.healed) :]
        seen, one.looked = one.looked, len(text)
        return request.stopping.end(request.code, text, seen) >= 0

    def halve(self) -> bool:
        """Drop free rows if half of all are free. Return whether it did; what was on its way to the host is then void."""
        running = [place for place, one in enumerate(self.occupants) if one is not None]
        size = self.step.rows // 2
        if not size or len(running) > size:
            return False
        kept = sorted([*running, *self.free()[: size - len(running)]])
        self.step.keep(torch.tensor(kept, device=self.step.last.device))
        self.graphs.forget()
        self.occupants, self.reach = [self.occupants[place] for place in kept], self.reach[kept]
        return True

"""The queue of programs that wait for a row of the running batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cptlab.backbone import Backbone, KeyValuePrefix
from cptlab.decoding.request import Request
from cptlab.decoding.running_batch import Row
from cptlab.decoding.streams import Streams

READ = 1 << 14  # prompt tokens, padding included, that one pass reads at most
WINDOW = 8  # batches of programs whose prompts are sorted together
AHEAD = 1 / 8  # share of the rows for which prompts are read together when rows become free


class WaitingQueue:
    """Waiting programs, in windows of some prompts. In each, those with a second stream and the longest prompts are first.

    `wanted` names the samples of each request, and `most` is the number of rows that run at a time. Prompts are read a
    few at a time, each once.
    """

    def __init__(
        self,
        backbone: Backbone,
        requests: list[Request],
        wanted: Sequence[Sequence[int]],
        prefix: KeyValuePrefix | None,
        most: int,
    ) -> None:
        self.backbone, self.wanted, self.prefix, self.most = backbone, wanted, prefix, most
        self.requests: list[Request] = []  # those with samples, in the order in which they are read
        start = 0
        while start < len(requests):
            end, programs = start, 0
            while end < len(requests) and programs < WINDOW * most:
                programs += len(wanted[requests[end].index])
                end += 1
            window = [request for request in requests[start:end] if wanted[request.index]]
            self.requests += sorted(window, key=lambda one: (one.second is None, -len(one.ids), one.index))
            start = end
        self.read: Streams | None = None  # one row for each prompt of `rows`
        self.rows: list[Row] = []
        self.places: list[int] = []
        self.next_request = 0

    def __bool__(self) -> bool:
        return bool(self.rows) or self.next_request < len(self.requests)

    @property
    def programs(self) -> int:
        """How many programs there are, those that were taken included."""
        return sum(len(self.wanted[request.index]) for request in self.requests)

    def take(self, count: int) -> tuple[Streams, list[Row]]:
        """Take up to `count` waiting programs. Return their streams and rows. The queue must not be empty."""
        streams: Streams | None = None
        taken: list[Row] = []
        while len(taken) < count and self:
            if not self.rows:
                self._read(max(count - len(taken), int(AHEAD * self.most)))
            assert self.read is not None
            now = count - len(taken)
            part = self.read.copy(torch.tensor(self.places[:now]))
            streams = part if streams is None else streams.append(part)
            taken += self.rows[:now]
            self.rows, self.places = self.rows[now:], self.places[now:]
            if not self.rows:
                self.read = None
        assert streams is not None
        return streams, taken

    def _read(self, count: int) -> None:
        """Read the next prompts, at least one, until `count` programs wait for their rows."""
        first, self.rows, self.places = self.next_request, [], []
        longest = 0
        while self.next_request < len(self.requests) and len(self.rows) < count:
            request = self.requests[self.next_request]
            longest = max(longest, len(request.ids))
            if self.next_request > first and (self.next_request - first + 1) * longest > READ:
                break
            self.rows += [Row(request, sample) for sample in self.wanted[request.index]]
            self.places += [self.next_request - first] * len(self.wanted[request.index])
            self.next_request += 1
        self.read = Streams.read(self.backbone, self.requests[first : self.next_request], self.prefix)

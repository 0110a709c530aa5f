"""The streams of a batch: the rows and their second streams run in one forward pass.

A second stream often begins as its prompt does. That beginning is read once: the second stream starts from a copy of
the prompt's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cptlab.backbone import AttentionBias, Backbone, DecodeState, KeyValuePrefix
from cptlab.decoding.guidance import kinds_of
from cptlab.decoding.request import Request
from cptlab.decoding.token_healing import Rest, get_healer
from cptlab.errors import UserError


class Streams:
    """R rows and their second streams.

    `logits` [R, V] are those of the next token of each row, mixed with the logits of its second stream by its guidance.
    A token that would not heal the row's prompt has −inf. State row `first[r]` belongs to row r, and state row
    `second[s]` is the second stream of row `guided[s]`.
    """

    def __init__(self, backbone: Backbone, state: DecodeState, requests: list[Request], request_of: Tensor) -> None:
        self.backbone, self.state, self.requests, self.request_of = backbone, state, requests, request_of
        self.first = torch.arange(len(request_of), device=backbone.device)
        self.guided = self.second = self.first[:0]
        self.rests = [requests[request].rest for request in request_of.tolist()]
        self.raw = self.logits = torch.empty(0)  # set by `_arrange`
        self.bias: AttentionBias | None = None  # so is this

    @property
    def rows(self) -> int:
        return len(self.first)

    @staticmethod
    @torch.inference_mode()
    def read(backbone: Backbone, requests: list[Request], prefix: KeyValuePrefix | None = None) -> Streams:
        """Prefill one row per request. Raises UserError if the logits are not numbers."""
        device = backbone.device
        ids, real = left_padded([request.ids for request in requests], backbone.pad_id)
        bias = attention_bias(requests, device)
        logits, state = backbone.prefill(ids.to(device), real.to(device), prefix, bias)
        if torch.isnan(logits).any():
            raise UserError(
                f"The logits of {backbone.name} are not numbers. If it has a prefix, its training diverged."
            )
        streams = Streams(backbone, state, list(requests), torch.arange(len(requests), device=device))
        seconds = {row: request.second for row, request in enumerate(requests) if request.second is not None}
        sharing = {row: second.ids for row, second in seconds.items() if prefix is None or second.with_prefix}
        apart = {row: second.ids for row, second in seconds.items() if row not in sharing}
        parts = [logits]
        if sharing:
            parts.append(streams._read_sharing(sharing, 0 if prefix is None else prefix.length))
        if apart:
            ids, real = left_padded(list(apart.values()), backbone.pad_id)
            logits, other = backbone.prefill(ids.to(device), real.to(device))
            streams.state.append(other)
            parts.append(logits)
        streams.guided = torch.tensor([*sharing, *apart], device=device, dtype=torch.long)
        streams.second = len(requests) + torch.arange(len(seconds), device=device)
        streams._arrange(torch.cat(parts))
        return streams

    def _read_sharing(self, seconds: dict[int, list[int]], prefix_length: int) -> Tensor:
        """Read the second streams that begin as their prompts do, and return their logits [S, V]."""
        device, rests, shared = self.backbone.device, [], []
        for row, second in seconds.items():
            ids = self.requests[row].ids
            same = next(
                (i for i, (a, b) in enumerate(zip(ids, second, strict=False)) if a != b), min(len(ids), len(second))
            )
            shared.append(min(same, len(second) - 1))
            rests.append(second[shared[-1] :])
        other = self.state.copy(torch.tensor(list(seconds), device=device))
        other.rewind(torch.tensor(shared, device=device) + prefix_length)
        ids, real = left_padded(rests, self.backbone.pad_id)
        logits = self.backbone.extend(ids.to(device), real.to(device), other)
        self.state.append(other)
        return logits

    def at_the_end(self, rows: Tensor) -> bool:
        """Return whether one more token would take one of these rows out of the context."""
        state_rows = torch.cat([self.first[rows], self.second[torch.isin(self.guided, rows)]])
        return bool((self.state.next_position[state_rows] >= self.backbone.context_length).any())

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> None:
        """Read one more token per row, `tokens` [R]."""
        given = tokens.new_empty(self.state.rows)
        given[self.first] = tokens
        given[self.second] = tokens[self.guided]
        if any(self.rests):
            healer = get_healer(self.backbone)
            pairs = zip(self.rests, tokens.tolist(), strict=True)
            self.rests = [healer.after(rest, token) for rest, token in pairs]
        self._mix(self.backbone.step(given, self.state, self.bias))

    def select(self, rows: Tensor) -> Streams:
        """Keep these rows, in this order (an index may occur more than once). Changes and returns these streams."""
        vars(self).update(vars(self.copy(rows, drop=True)))
        return self

    @torch.inference_mode()
    def copy(self, rows: Tensor, drop: bool = False) -> Streams:
        """Return these rows as other streams. With `drop`, free the memory of this object, which must not be used again."""
        rows = rows.to(self.first.device)
        of_row = torch.full((self.rows,), -1, device=rows.device)
        of_row[self.guided] = self.second
        second = of_row[rows]
        guided = (second >= 0).nonzero()[:, 0]
        state_rows = torch.cat([self.first[rows], second[guided]])
        used, request_of = self.request_of[rows].unique(return_inverse=True)
        requests = [self.requests[request] for request in used.tolist()]
        other = Streams(self.backbone, self.state.copy(state_rows, drop), requests, request_of)
        other.rests = [self.rests[row] for row in rows.tolist()]
        other.guided, other.second = guided, len(rows) + torch.arange(len(guided), device=rows.device)
        other._arrange(self.raw.index_select(0, state_rows))
        return other

    @torch.inference_mode()
    def append(self, other: Streams) -> Streams:
        """Append the rows of `other`. Changes and returns these streams."""
        count, rows = self.state.rows, self.rows
        self.state.append(other.state)
        self.request_of = torch.cat([self.request_of, other.request_of + len(self.requests)])
        self.requests, self.rests = self.requests + other.requests, self.rests + other.rests
        self.first = torch.cat([self.first, other.first + count])
        self.second = torch.cat([self.second, other.second + count])
        self.guided = torch.cat([self.guided, other.guided + rows])
        self._arrange(torch.cat([self.raw, other.raw]))
        return self

    @torch.inference_mode()
    def replace(self, rows: Tensor, other: Streams) -> bool:
        """Overwrite `rows` by the rows of `other`, as many, without copying the rows that stay.

        Return False, with nothing changed, if the two need different numbers of second streams.
        """
        at = torch.isin(self.guided, rows)
        if len(rows) != other.rows or int(at.sum()) != len(other.second):
            return False
        seconds = self.second[at]
        places = torch.empty(other.state.rows, dtype=torch.long, device=rows.device)
        places[other.first], places[other.second] = self.first[rows], seconds
        self.state.replace(places, other.state)
        self.raw[places] = other.raw
        self.request_of[rows] = other.request_of + len(self.requests)
        self.requests = self.requests + other.requests
        for row, rest in zip(rows.tolist(), other.rests, strict=True):
            self.rests[row] = rest
        self.guided = torch.cat([self.guided[~at], rows[other.guided]])
        self.second = torch.cat([self.second[~at], seconds])
        self._arrange(self.raw)
        return True

    def _arrange(self, raw: Tensor) -> None:
        """Group the rows that are mixed alike, and mix. Must be called when rows have changed."""
        if self.requests and self.requests[0].steering is not None:
            self.bias = attention_bias([self.requests[i] for i in self.request_of.tolist()], raw.device)
        guidances = [self.requests[request].guidance for request in self.request_of[self.guided].tolist()]
        self.mixtures = []
        for gate, rule in kinds_of(guidances):
            places = [place for place, one in enumerate(guidances) if (one.gate, one.rule) == (gate, rule)]
            at = torch.tensor(places, device=raw.device)
            omegas = torch.tensor([guidances[place].omega for place in places], dtype=torch.float64, device=raw.device)
            self.mixtures.append(
                (gate, rule, self.guided[at], self.first[self.guided[at]], self.second[at], omegas[:, None])
            )
        self._mix(raw)

    def _mix(self, raw: Tensor) -> None:
        self.raw = raw
        if any(self.rests):  # before the mixture, whose rule may ban more
            rests: list[Rest | None] = [None] * len(raw)
            owners = [(self.first.tolist(), range(self.rows)), (self.second.tolist(), self.guided.tolist())]
            for places, rows in owners:
                for place, row in zip(places, rows, strict=True):
                    rests[place] = self.rests[row]
            raw = get_healer(self.backbone).restrict(raw, rests)
        self.logits = (
            self._mixed(raw) if self.mixtures else raw
        )  # without mixtures, the state holds the first streams alone, in order

    def _mixed(self, raw: Tensor) -> Tensor:
        logits = raw.index_select(0, self.first)
        if raw.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        for gate, rule, rows, first, second, omegas in self.mixtures:
            clean = raw[first]
            mixed = rule.mix(clean, raw[second], omegas.to(logits.dtype))
            logits[rows] = torch.where(gate.opens(clean)[:, None], mixed, clean.to(mixed.dtype))
        return logits


def attention_bias(requests: Sequence[Request], device: torch.device) -> AttentionBias | None:
    """Return the bias of rows of these requests, which are steered alike; None where nothing is added."""
    width = max((len(request.bias) for request in requests), default=0)
    steering = requests[0].steering if requests else None
    if not width or steering is None:
        return None
    rows = [[*request.bias, *[0.0] * (width - len(request.bias))] for request in requests]
    return AttentionBias(torch.tensor(rows, device=device, dtype=torch.float64), steering.by_layer)


def left_padded(prompts: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return the token ids and the attention mask, both [B, T], with the padding on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts])
    real = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, real

"""The decoding engine: generate many samples of many prompts with continuous batching.

Each prompt is read once, and as soon as a program ends, the next one takes its row.

The schedule depends on the list of prompts and the token budget alone, so the same call gives the same programs bit for
bit. Random numbers depend on (seed, task, sample, position). So another budget, order or number of processes, or a
resumed call, gives the same programs up to rounding (see sampling.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from cptlab.backbone import Backbone, KeyValuePrefix
from cptlab.backbone.kv_cache import GROWTH
from cptlab.decoding.guidance import Guidance
from cptlab.decoding.negatives.stream import Stream
from cptlab.decoding.request import Request
from cptlab.decoding.running_batch import RunningBatch
from cptlab.decoding.sampling import Sampling
from cptlab.decoding.slots.batch import cached_tokens as slot_tokens
from cptlab.decoding.slots.decode import decode_in_slots, fits_slots
from cptlab.decoding.steering import Steering
from cptlab.decoding.streams import Streams
from cptlab.decoding.token_budget import default_token_budget
from cptlab.decoding.token_healing import Rest, get_healer
from cptlab.decoding.waiting_queue import WaitingQueue
from cptlab.errors import UserError
from cptlab.records import Completion, Prompt

DROP = 0.25  # if no program waits, ended rows are dropped when they are this share of all rows


class Strategy(Protocol):
    """A way to choose tokens other than sampling one after the other (strategies/)."""

    def check(self, n: int, sampling: Sampling, guidance: Guidance | None) -> None:
        """Raise UserError if the strategy cannot run with these options."""

    def run(
        self, backbone: Backbone, request: Request, n: int, sampling: Sampling, prefix: KeyValuePrefix | None
    ) -> list[list[int]]:
        """Return the new token ids of the n programs of one prompt, each up to the first end-of-text token."""
        ...


def generate(
    backbone: Backbone,
    prompts: Sequence[tuple[str, Prompt]],
    n: int,
    sampling: Sampling,
    *,
    prefix: KeyValuePrefix | None = None,
    guidance: Guidance | Sequence[Guidance | None] | None = None,
    strategy: Strategy | None = None,
    steering: Steering | None = None,
    seed: int = 0,
    samples: Sequence[Sequence[int]] | None = None,
    token_budget: int | None = None,
    slots: bool | None = None,
    ended: Callable[[Completion], None] | None = None,
) -> Iterator[list[Completion]]:
    """Yield, for each (task id, prompt) in the given order, its `n` completions.

    `guidance` (SPA and similar methods) is one for all prompts, or one per prompt. `strategy` replaces sampling, for
    example by beam search. `steering` changes what the model attends to, without a second stream. `samples` says for each prompt which of the samples 0 to n - 1 to make (default: all).
    `token_budget` limits the tokens that are cached at a time: prefix, prompt and new tokens of each running program,
    and of its second stream (None: see token_budget.py). One program always runs. With `slots` (None: on a GPU) rows run in
    slots of fixed size (slots/), where the backbone allows it. `ended` is called with each completion as soon
    as its program ends, long before its turn to be yielded may come.

    In a completion, `raw` is the model's text, `program` is the prompt's code and the text up to the end of the program,
    and `tokens` counts the tokens that the model gave (a final end-of-text token included). Raises UserError, before
    anything is generated, if a prompt does not fit into the context together with the prefix and one new token.
    """
    if n < 1 or (token_budget is not None and token_budget < 1):
        raise UserError(f"n and token_budget must be at least 1, got n={n} and token_budget={token_budget}.")
    if steering is not None:
        steering.check(backbone)
        if guidance is not None:
            raise UserError(
                "Attention is steered in one stream, and the guidance mixes two. Set decoding.steering or "
                "decoding.guidance to null."
            )
    if guidance is None or isinstance(guidance, Guidance):
        guidance = [guidance] * len(prompts)
    if strategy is not None:
        for one in dict.fromkeys(guidance):
            strategy.check(n, sampling, one)
    requests = [
        make_request(backbone, index, *prompt, one, sampling, prefix, steering)
        for index, (prompt, one) in enumerate(zip(prompts, guidance, strict=True))
    ]
    ended = ended or (lambda completion: None)
    wanted = [range(n)] * len(requests) if samples is None else samples
    if len(wanted) != len(requests) or any(not 0 <= sample < n for some in wanted for sample in some):
        raise UserError(f"samples must name some of the samples 0 to {n - 1} for each of the {len(requests)} prompts.")
    if strategy is not None:
        return _one_by_one(backbone, requests, n, wanted, sampling, prefix, strategy, ended)
    slots = fits_slots(backbone, steering) and (backbone.device.type == "cuda" if slots is None else slots)
    return _batched(backbone, requests, wanted, sampling, prefix, seed, token_budget, slots, ended)


def positions_needed(
    backbone: Backbone,
    prompt: Prompt,
    sampling: Sampling,
    *,
    prefix: KeyValuePrefix | None = None,
    guidance: Guidance | None = None,
) -> int:
    """Return how many positions of the context a program of this prompt takes at most.

    These are the prefix, the longer of both streams, and `max_new_tokens`.
    """
    second = None if guidance is None else guidance.stream(backbone, prompt, prefix is not None)
    read = max(len(backbone.encode_prompt(prompt.text)), 0 if second is None else len(second.ids))
    return (0 if prefix is None else prefix.length) + read + sampling.limit(prompt)


def make_request(
    backbone: Backbone,
    index: int,
    task_id: str,
    prompt: Prompt,
    guidance: Guidance | None,
    sampling: Sampling,
    prefix: KeyValuePrefix | None,
    steering: Steering | None = None,
) -> Request:
    """Return a prompt as it is decoded. Raises UserError if it has no tokens, or does not fit into the context."""
    ids = backbone.encode_prompt(prompt.text)
    if not ids:
        raise UserError(f"The prompt of task {task_id} has no tokens. Give it a text.")
    second = None if guidance is None else guidance.stream(backbone, prompt, prefix is not None)
    whole = len(ids)
    ids, second, rest = _healed(backbone, prompt.text, ids, second) if sampling.heal else (ids, second, None)
    dropped = whole - len(ids)  # the model writes them again, on top of max_new_tokens
    if second is not None and not second.ids:
        raise UserError(
            f"The second stream of task {task_id} has no tokens, because its whole prompt is left out. Choose another negative."
        )
    prefix_length = 0 if prefix is None else prefix.length
    longest = max(len(ids), 0 if second is None else len(second.ids))
    room = backbone.context_length - prefix_length - longest
    least = sampling.limit(prompt) if backbone.context_note else 1  # the model itself would go on beyond such a context
    if room < least:
        behind = f" behind a prefix of {prefix_length}" if prefix_length else ""
        note = f" ({backbone.context_note})" if backbone.context_note else ""
        raise UserError(
            f"The prompt of task {task_id} has {longest} tokens{behind} and needs room for {least} more, but the "
            f"context of {backbone.name} is {backbone.context_length}{note}. Shorten or leave out that task, lower "
            "max_new_tokens, or use a backbone with a longer context."
        )
    limit = min(room, sampling.limit(prompt) + dropped)
    bias = [] if steering is None else steering.bias(backbone, prompt)
    bias = [0.0] * prefix_length + bias[: len(ids)] if bias else []
    stopping = sampling.stopping(prompt)
    return Request(index, task_id, ids, second, guidance, limit, rest, prompt.code, stopping, steering, bias)


def _healed(
    backbone: Backbone, text: str, ids: list[int], second: Stream | None
) -> tuple[list[int], Stream | None, Rest | None]:
    """Return both streams without the last tokens that depend on what follows, and the text of these tokens."""
    healed = get_healer(backbone).heal(text)
    if healed.rest is None:
        return ids, second, None
    if second is not None:
        shorter = healed.shorten(second.ids)
        if shorter is None:  # it ends in other tokens, so the two streams cannot be healed alike
            return ids, second, None
        second = replace(second, ids=shorter)
    return healed.ids, second, healed.rest


def _one_by_one(
    backbone: Backbone,
    requests: list[Request],
    n: int,
    wanted: Sequence[Sequence[int]],
    sampling: Sampling,
    prefix: KeyValuePrefix | None,
    strategy: Strategy,
    ended: Callable[[Completion], None],
) -> Iterator[list[Completion]]:
    """Decode one prompt after the other with a strategy."""
    for request in requests:
        rows = strategy.run(backbone, request, n, sampling, prefix) if wanted[request.index] else []
        completions = [completion_of(backbone, request, one, rows[one]) for one in wanted[request.index]]
        for completion in completions:
            ended(completion)
        yield completions


def _batched(
    backbone: Backbone,
    requests: list[Request],
    wanted: Sequence[Sequence[int]],
    sampling: Sampling,
    prefix: KeyValuePrefix | None,
    seed: int,
    token_budget: int | None,
    slots: bool,
    ended: Callable[[Completion], None],
) -> Iterator[list[Completion]]:
    """Sample the programs of all prompts, as many at a time as the token budget allows."""
    behind = 0 if prefix is None else prefix.length
    asked = [request for request in requests if wanted[request.index]]
    if slots and asked:
        costs = [slot_tokens(asked, behind)]
    else:
        costs = [_cached_tokens(request, behind) for request in asked]
    budget = default_token_budget(backbone, costs) if token_budget is None else token_budget
    most = max(1, budget // max(costs, default=1))  # programs at a time
    queue = WaitingQueue(backbone, requests, wanted, prefix, most)
    done: list[list[Completion]] = [[] for _ in requests]
    given = 0
    decode = decode_in_slots if slots else _decode
    for request, sample, ids in decode(backbone, queue, sampling, seed):
        completion = completion_of(backbone, request, sample, ids)
        done[request.index].append(completion)
        ended(completion)
        while given < len(requests) and len(done[given]) == len(wanted[given]):
            yield sorted(done[given], key=lambda completion: completion.sample)
            given += 1
    yield from done[given:]  # no sample of these is wanted


def _cached_tokens(request: Request, behind: int) -> int:
    """Return how many tokens the cache holds at the end of one program, both streams and the prefix included."""
    streams = [request.ids] + ([] if request.second is None else [request.second.ids])
    return sum(behind + len(ids) + request.limit for ids in streams)


def _decode(
    backbone: Backbone, queue: WaitingQueue, sampling: Sampling, seed: int
) -> Iterator[tuple[Request, int, list[int]]]:
    """Yield (request, sample, new token ids) as programs end: up to the first end-of-text token or the request's limit."""
    if not queue:
        return
    batch = RunningBatch(backbone, sampling, seed, max(request.limit for request in queue.requests))
    streams, fresh = queue.take(queue.most)
    batch.add(fresh)
    steps, new = 0, torch.arange(len(fresh), device=backbone.device)
    while True:
        batch.choose(streams.logits, new, [rest is not None for rest in streams.rests])
        idle = batch.idle()
        if len(idle):
            yield from batch.ended(idle)
            if queue:  # the first tokens of the programs that come in are chosen before all rows go on
                streams, new = _refill(streams, batch, idle, queue)
                continue
            if len(idle) == streams.rows:
                return
            if len(idle) >= DROP * streams.rows or streams.at_the_end(idle):
                kept = batch.keep_running()
                streams.select(kept)
        streams.step(batch.last)
        steps += 1
        if steps % GROWTH == 0:
            streams.state.trim(GROWTH)
        new = torch.arange(streams.rows, device=backbone.device)


def _refill(streams: Streams, batch: RunningBatch, idle: Tensor, queue: WaitingQueue) -> tuple[Streams, Tensor]:
    """Put waiting programs into the rows of ended ones. Return the streams, and which rows are new."""
    fresh, rows = queue.take(len(idle))
    if len(rows) == len(idle) and streams.replace(idle, fresh):
        batch.put(idle, rows)
        return streams, idle
    kept = batch.keep_running()
    if len(kept):
        streams.select(kept).append(fresh)
    else:
        streams = fresh
    batch.add(rows)
    return streams, torch.arange(len(kept), streams.rows, device=kept.device)


def completion_of(backbone: Backbone, request: Request, sample: int, ids: list[int]) -> Completion:
    """Return the completion that the new tokens `ids` of a program are, cut where the program ends."""
    ids, raw, text, stopped = request.stopping.cut(backbone, ids, request.code, request.healed)
    return Completion(
        request.task_id, sample, raw, request.code + text, len(ids), stopped or ids[-1] in backbone.eos_ids
    )

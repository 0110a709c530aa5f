"""Many samples of many prompts: each prompt is read once, and as a program ends, the next one takes its row.

The schedule depends on the list of prompts and the token budget alone, so the same call gives the same programs bit for
bit. Random numbers depend on (seed, task, sample, position), so that another budget, order or number of processes, or a
call that is resumed, gives the same programs, but for rounding (see sampling.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from cptlab.adapters import Prefix
from cptlab.backbone import Backbone
from cptlab.backbone.kv_cache import GROWTH
from cptlab.decoding.guidance import Guidance
from cptlab.decoding.negatives.stream import Stream
from cptlab.decoding.running_batch import Row, RunningBatch
from cptlab.decoding.sampling import Sampling
from cptlab.decoding.streams import Job, Streams
from cptlab.decoding.token_healing import Rest, healer_of
from cptlab.errors import UserError
from cptlab.records import Completion, Prompt

TOKEN_BUDGET = 1 << 16  # cached tokens at a time; of Code Llama 7B in half precision these are 32 GB
WINDOW = 8  # batches' worth of prompts that are sorted by length together, and held back until all are done
READ = 1 << 14  # tokens of prompts, padding included, that are read in one pass
AHEAD = 1 / 8  # of the rows: so many programs' prompts are read together when rows become free
DROP = 0.25  # where nothing waits, ended rows are dropped when they are this share of all


class Strategy(Protocol):
    """Another way to choose tokens than one after the other: beams.py, adadec.py."""

    def check(self, n: int, sampling: Sampling, guidance: Guidance | None) -> None:
        """UserError for what makes no sense together."""

    def run(self, backbone: Backbone, job: Job, n: int, sampling: Sampling, prefix: Prefix | None) -> list[list[int]]:
        """The new token ids of the n programs of one prompt, each up to the first end-of-text."""


def generate(
    backbone: Backbone,
    prompts: Sequence[tuple[str, Prompt]],
    n: int,
    sampling: Sampling,
    *,
    prefix: Prefix | None = None,
    guidance: Guidance | Sequence[Guidance | None] | None = None,
    strategy: Strategy | None = None,
    seed: int = 0,
    samples: Sequence[Sequence[int]] | None = None,
    token_budget: int = TOKEN_BUDGET,
    progress: Callable[[int], None] | None = None,
) -> Iterator[list[Completion]]:
    """For each (task id, prompt), in that order, its `n` completions.

    `guidance` (SPA and its like) is one for all prompts or one per prompt. `strategy`: beams or AdaDec instead of one
    token after the other. `samples`: of each prompt, which of the samples 0 to n - 1 are made; default all. At most `token_budget` tokens are cached for the programs that run at a time: prefix, prompt and
    new tokens of each, of second streams too; one program always runs. `progress` is called with the number of programs
    that just ended.

    Completion: `raw` is the model's text, `program` the prompt's code and the text up to where the program ends, `tokens`
    how many tokens the model gave (a final end-of-text included). Raises UserError, before anything is generated, when
    a prompt does not fit the context together with the prefix and one new token.
    """
    if n < 1 or token_budget < 1:
        raise UserError(f"n is {n} and token_budget is {token_budget}. Give at least 1 for both.")
    if guidance is None or isinstance(guidance, Guidance):
        guidance = [guidance] * len(prompts)
    if strategy is not None:
        for one in dict.fromkeys(guidance):
            strategy.check(n, sampling, one)
    jobs = [_job(backbone, index, *prompt, one, sampling, prefix)
            for index, (prompt, one) in enumerate(zip(prompts, guidance, strict=True))]  # fmt: skip
    progress = progress or (lambda done: None)
    wanted = [range(n)] * len(jobs) if samples is None else samples
    if len(wanted) != len(jobs) or any(not 0 <= sample < n for some in wanted for sample in some):
        raise UserError(f"samples must name, for each of the {len(jobs)} prompts, some of the samples 0 to {n - 1}.")
    if strategy is not None:
        return _each(backbone, jobs, n, wanted, sampling, prefix, strategy, progress)
    return _all(backbone, jobs, wanted, sampling, prefix, seed, token_budget, progress)


def _job(backbone, index: int, task_id: str, prompt: Prompt, guidance: Guidance | None, sampling, prefix) -> Job:
    ids = backbone.encode_prompt(prompt.text)
    if not ids:
        raise UserError(f"The prompt of task {task_id} has no tokens. Give it a text.")
    second = None if guidance is None else guidance.stream(backbone, prompt, prefix is not None)
    whole = len(ids)
    ids, second, rest = _healed(backbone, prompt.text, ids, second) if sampling.heal else (ids, second, None)
    dropped = whole - len(ids)  # are written again, beyond max_new_tokens
    if second is not None and not second.ids:
        raise UserError(
            f"The second stream of task {task_id} has no tokens: all of its prompt is left out. Choose another negative."
        )
    prefix_length = 0 if prefix is None else prefix.length
    longest = max(len(ids), 0 if second is None else len(second.ids))
    room = backbone.context_length - prefix_length - longest
    if room < 1:
        behind = f" behind a prefix of {prefix_length}" if prefix_length else ""
        raise UserError(
            f"The prompt of task {task_id} has {longest} tokens{behind} and needs room for one more, but the "
            f"context of {backbone.name} is {backbone.context_length}. Shorten or leave out that task, or use a "
            "backbone with a longer context."
        )
    limit = min(room, sampling.max_new_tokens + dropped)
    return Job(index, task_id, ids, second, guidance, limit, rest, prompt.code)


def _healed(backbone, text: str, ids: list[int], second: Stream | None) -> tuple[list[int], Stream | None, Rest | None]:
    """Both streams without the last tokens that depend on what follows, and the text of these (token_healing.py)."""
    healed = healer_of(backbone).heal(text)
    if healed.rest is None:
        return ids, second, None
    if second is not None:
        shorter = healed.shorten(second.ids)
        if shorter is None:  # it ends in other tokens, so the two could not be healed alike
            return ids, second, None
        second = replace(second, ids=shorter)
    return healed.ids, second, healed.rest


def _each(backbone, jobs, n, wanted, sampling, prefix, strategy, progress) -> Iterator[list[Completion]]:
    for job in jobs:
        rows = strategy.run(backbone, job, n, sampling, prefix) if wanted[job.index] else []
        yield [_completion(backbone, job, sample, rows[sample], sampling) for sample in wanted[job.index]]
        progress(len(wanted[job.index]))


def _all(backbone, jobs, wanted, sampling, prefix, seed, token_budget, progress) -> Iterator[list[Completion]]:
    behind = 0 if prefix is None else prefix.length
    most = max(
        1, token_budget // max((_cost(job, behind) for job in jobs if wanted[job.index]), default=1)
    )  # programs at a time
    start = 0
    while start < len(jobs):
        end, programs = start, 0
        while end < len(jobs) and programs < WINDOW * most:
            programs += len(wanted[end])
            end += 1
        window = [job for job in jobs[start:end] if wanted[job.index]]
        done: dict[int, list[Completion]] = {job.index: [] for job in jobs[start:end]}
        for job, sample, ids in _decode(backbone, _Queue(backbone, window, wanted, prefix, most), sampling, seed):
            done[job.index].append(_completion(backbone, job, sample, ids, sampling))
            progress(1)
        for index in sorted(done):
            yield sorted(done.pop(index), key=lambda completion: completion.sample)
        start = end


def _cost(job: Job, behind: int) -> int:
    """Tokens that a program of this prompt has in the cache in the end."""
    streams = [job.ids] + ([] if job.second is None else [job.second.ids])
    return sum(behind + len(ids) + job.limit for ids in streams)


class _Queue:
    """The programs that wait, longest prompt first; their prompts are read a few at a time, each once."""

    def __init__(
        self, backbone: Backbone, jobs: list[Job], wanted: Sequence[Sequence[int]], prefix: Prefix | None, most: int
    ) -> None:
        self.backbone, self.wanted, self.prefix, self.most = backbone, wanted, prefix, most
        self.jobs = sorted(jobs, key=lambda job: (job.second is None, -len(job.ids), job.index))
        self.read: Streams | None = None  # one row for each prompt of `rows`
        self.rows: list[Row] = []
        self.places: list[int] = []
        self.next_job = 0

    def __bool__(self) -> bool:
        return bool(self.rows) or self.next_job < len(self.jobs)

    def take(self, count: int) -> tuple[Streams | None, list[Row]]:
        """Up to `count` programs that wait, and their streams."""
        streams, taken = None, []
        while len(taken) < count and self:
            if not self.rows:
                self._read(max(count - len(taken), int(AHEAD * self.most)))
            now = count - len(taken)
            part = self.read.copy(torch.tensor(self.places[:now]))
            streams = part if streams is None else streams.append(part)
            taken += self.rows[:now]
            self.rows, self.places = self.rows[now:], self.places[now:]
            if not self.rows:
                self.read = None
        return streams, taken

    def _read(self, count: int) -> None:
        """Read the next prompts, at least one, until there are `count` programs of theirs."""
        first, self.rows, self.places = self.next_job, [], []
        longest = max(len(job.ids) for job in self.jobs[first:])
        while self.next_job < len(self.jobs) and len(self.rows) < count:
            if self.next_job > first and (self.next_job - first + 1) * longest > READ:
                break
            job = self.jobs[self.next_job]
            self.rows += [Row(job, sample) for sample in self.wanted[job.index]]
            self.places += [self.next_job - first] * len(self.wanted[job.index])
            self.next_job += 1
        self.read = Streams.read(self.backbone, self.jobs[first : self.next_job], self.prefix)


def _decode(backbone, queue: _Queue, sampling: Sampling, seed: int) -> Iterator[tuple[Job, int, list[int]]]:
    """(job, sample, new token ids) as they end: up to the first end-of-text, at most the job's limit."""
    if not queue:
        return
    board = RunningBatch(backbone, sampling, seed, max(job.limit for job in queue.jobs))
    streams, fresh = queue.take(queue.most)
    board.add(fresh)
    steps, new = 0, torch.arange(len(fresh), device=backbone.device)
    while True:
        board.choose(streams.logits, new, [rest is not None for rest in streams.rests])
        idle = board.idle()
        if len(idle):
            yield from board.ended(idle)
            if queue:  # the first tokens of those that come in are chosen before all go on
                streams, new = _refill(streams, board, idle, queue)
                continue
            if len(idle) == streams.rows:
                return
            if len(idle) >= DROP * streams.rows or streams.at_the_end(idle):
                kept = board.keep_running()
                streams.select(kept)
        streams.step(board.last)
        steps += 1
        if steps % GROWTH == 0:
            streams.state.trim(GROWTH)
        new = torch.arange(streams.rows, device=backbone.device)


def _refill(streams: Streams, board: RunningBatch, idle: Tensor, queue: _Queue) -> tuple[Streams, Tensor]:
    """Programs that wait in the place of ended ones; the streams, and which rows are new."""
    fresh, rows = queue.take(len(idle))
    if len(rows) == len(idle) and streams.replace(idle, fresh):
        board.put(idle, rows)
        return streams, idle
    kept = board.keep_running()
    if len(kept):
        streams.select(kept).append(fresh)
    else:
        streams = fresh
    board.add(rows)
    return streams, torch.arange(len(kept), streams.rows, device=kept.device)


def _completion(backbone, job: Job, sample: int, ids: list[int], sampling: Sampling) -> Completion:
    ids, raw, text, stopped = sampling.stopping.cut(backbone, ids, job.code, job.healed)
    return Completion(job.task_id, sample, raw, job.code + text, len(ids), stopped or ids[-1] in backbone.eos_ids)

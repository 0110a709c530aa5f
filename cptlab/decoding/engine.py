"""Many samples of many prompts: each prompt is read once, its cache repeated, and finished rows are dropped.

Batches are composed from the list of prompts and the row budget alone, so the same call gives the same programs bit for
bit. Within a window of prompts those of similar length share a batch, to waste little on padding.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cptlab.backbone import Backbone, Prefix
from cptlab.decoding.sampling import Sampling, choose, uniforms
from cptlab.decoding.spa import Anchoring, masked_ids, mix
from cptlab.errors import UserError
from cptlab.records import Completion, Prompt

WINDOW = 8  # batches' worth of prompts that are sorted by length together, and held back until all are done
COMPACT = 0.75  # finished rows are dropped once no more than this share of the batch still runs
STOP_INTERVAL = 8  # steps between looks for stop texts; what a program is does not depend on it


@dataclass(frozen=True)
class _Job:
    """Some samples of one prompt. `masked` is the second stream of SPA, or None."""

    index: int  # of the prompt in the list
    task_id: str
    ids: list[int]
    masked: list[int] | None
    omega: float
    limit: int  # new tokens that fit
    samples: range = range(0)

    @property
    def rows(self) -> int:
        return len(self.samples) * (1 if self.masked is None else 2)


def generate(
    backbone: Backbone,
    prompts: Sequence[tuple[str, Prompt]],
    n: int,
    sampling: Sampling,
    *,
    prefix: Prefix | None = None,
    anchoring: Anchoring | Sequence[Anchoring | None] | None = None,
    seed: int = 0,
    row_budget: int = 192,
    progress: Callable[[int], None] | None = None,
) -> Iterator[list[Completion]]:
    """For each (task id, prompt), in that order, its `n` completions.

    Random numbers depend on (seed, task id, sample, position) only; see `sampling.uniforms`. `anchoring` (SPA) is one
    for all prompts or one per prompt. At most `row_budget` sequences run at a time, counting SPA's second streams.
    `progress` is called with the number of programs that just ended.

    Completion: `raw` is the model's text, `program` the prompt's code and the text before the first stop text, `tokens`
    how many tokens the model gave (a final end-of-text included). Raises UserError, before anything is generated, when
    a prompt does not fit the context together with the prefix and one new token.
    """
    if n < 1 or row_budget < 1:
        raise UserError(f"n is {n} and row_budget is {row_budget}. Give at least 1 for both.")
    jobs = _jobs(backbone, prompts, sampling, 0 if prefix is None else prefix.length, anchoring)
    return _run(backbone, prompts, jobs, n, sampling, prefix, seed, row_budget, progress or (lambda done: None))


def _jobs(backbone, prompts, sampling: Sampling, prefix_length: int, anchoring) -> list[_Job]:
    if anchoring is None or isinstance(anchoring, Anchoring):
        anchoring = [anchoring] * len(prompts)
    jobs = []
    for index, ((task_id, prompt), anchor) in enumerate(zip(prompts, anchoring, strict=True)):
        ids = backbone.encode_prompt(prompt.text)
        room = backbone.context_length - prefix_length - len(ids)
        if room < 1:
            behind = f" behind a prefix of {prefix_length}" if prefix_length else ""
            raise UserError(
                f"The prompt of task {task_id} has {len(ids)} tokens{behind} and needs room for one more, but the "
                f"context of {backbone.name} is {backbone.context_length}. Shorten or leave out that task, or use a "
                "backbone with a longer context."
            )
        if not ids:
            raise UserError(f"The prompt of task {task_id} has no tokens. Give it a text.")
        masked = None if anchor is None else masked_ids(backbone, prompt, anchor)
        omega = 1.0 if masked is None else anchor.omega
        jobs.append(_Job(index, task_id, ids, masked, omega, min(room, sampling.max_new_tokens)))
    return jobs


def _run(backbone, prompts, jobs, n, sampling, prefix, seed, row_budget, progress) -> Iterator[list[Completion]]:
    per_window = max(1, WINDOW * row_budget // n)
    for start in range(0, len(jobs), per_window):
        window = jobs[start : start + per_window]
        done: dict[int, list[Completion]] = {job.index: [] for job in window}
        for batch in _batches(window, n, row_budget):
            ends = _decode(backbone, batch, sampling, prefix, seed, progress)
            for job, rows in zip(batch, ends, strict=True):
                task_id, prompt = prompts[job.index]
                for sample, ids in zip(job.samples, rows, strict=True):
                    done[job.index].append(_completion(backbone, task_id, prompt, sample, ids, sampling))
        for index in sorted(done):
            yield sorted(done.pop(index), key=lambda completion: completion.sample)


def _batches(window: list[_Job], n: int, row_budget: int) -> list[list[_Job]]:
    """Batches of at most `row_budget` rows (one sample always runs), of prompts similar in length."""
    batches: list[list[_Job]] = []
    room = 0
    for job in sorted(window, key=lambda job: (len(job.ids), job.index)):
        most = max(1, row_budget // (1 if job.masked is None else 2))
        for first in range(0, n, most):
            part = _Job(**(vars(job) | {"samples": range(first, min(first + most, n))}))
            if not batches or part.rows > room:
                batches.append([])
                room = row_budget
            batches[-1].append(part)
            room -= part.rows
    return [sorted(batch, key=lambda job: job.masked is None) for batch in batches]


@torch.inference_mode()
def _decode(backbone, batch: list[_Job], sampling: Sampling, prefix, seed: int, progress) -> list[list[list[int]]]:
    """The new token ids of every sample of every job: up to the first end-of-text, at most the job's limit.

    The batch holds the jobs with a second stream first. Its rows are all clean streams, then the second streams in the
    same order: the second stream of clean row i < guided is row clean + i.
    """
    device = backbone.device
    counts = [len(job.samples) for job in batch]
    job_of_row = torch.arange(len(batch)).repeat_interleave(torch.tensor(counts))
    guided = sum(len(job.samples) for job in batch if job.masked is not None)
    ids, real = _left_padded(
        [job.ids for job in batch] + [job.masked for job in batch if job.masked is not None], backbone.pad_id
    )
    logits, state = backbone.prefill(ids.to(device), real.to(device), prefix)
    if torch.isnan(logits).any():
        raise UserError(f"The logits of {backbone.name} are not numbers. If it has a prefix, its training diverged.")
    streams = torch.cat([job_of_row, len(batch) + job_of_row[:guided]]).to(device)
    logits = logits.index_select(0, streams)
    state.select(streams)

    limits = torch.tensor([job.limit for job in batch])[job_of_row].to(device)
    omegas = torch.tensor([job.omega for job in batch], dtype=torch.float64)[job_of_row[:guided], None].to(device)
    numbers = None if sampling.greedy else _numbers(batch, seed, int(limits.max())).to(device)
    eos = torch.tensor(sorted(backbone.eos_ids), device=device, dtype=torch.long)
    output = torch.zeros(len(job_of_row), int(limits.max()), dtype=torch.long, device=device)
    rows = torch.arange(len(job_of_row), device=device)  # the row of `output` that each running row writes
    active = torch.ones_like(rows, dtype=torch.bool)
    running = len(rows)

    for position in range(int(limits.max())):
        if guided:
            mixed = mix(logits[:guided], logits[len(rows) :], omegas.to(logits.dtype))
            logits = torch.cat([mixed, logits[guided : len(rows)].to(mixed.dtype)])
        tokens = choose(logits, sampling, None if numbers is None else numbers[rows, position])
        output[rows, position] = tokens
        at_limit = position + 1 >= limits[rows]
        active &= ~(torch.isin(tokens, eos) | at_limit)
        if sampling.stop and position % STOP_INTERVAL == STOP_INTERVAL - 1:
            active &= ~_stopped(backbone, output[rows, : position + 1], active, sampling)
        before, running = running, int(active.sum())
        if running < before:
            progress(before - running)
        if not running:
            break
        # a row at its limit must go now: one step more and it might leave the context
        if running <= COMPACT * len(rows) or bool(at_limit.any()):
            kept = active.nonzero()[:, 0]
            second = kept[kept < guided]
            state.select(torch.cat([kept, len(rows) + second]))
            tokens, rows, active = tokens[kept], rows[kept], active[kept]
            omegas, guided = omegas[second], len(second)
        logits = backbone.step(torch.cat([tokens, tokens[:guided]]), state)

    pairs = zip(output.tolist(), limits.tolist(), strict=True)
    ends = iter([_until_eos(ids[:limit], backbone.eos_ids) for ids, limit in pairs])
    return [list(itertools.islice(ends, count)) for count in counts]


def _left_padded(prompts: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask [B, T] with the padding on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts])
    real = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, real


def _numbers(batch: list[_Job], seed: int, length: int) -> Tensor:
    """One uniform number per clean row and position, [rows, length], float64."""
    numbers = [uniforms(seed, job.task_id, sample, length) for job in batch for sample in job.samples]
    return torch.from_numpy(np.stack(numbers))


def _stopped(backbone: Backbone, tokens: Tensor, active: Tensor, sampling: Sampling) -> Tensor:
    """Which running rows' text [B, t] already holds a stop text."""
    rows = zip(tokens.tolist(), active.tolist(), strict=True)
    return torch.tensor(
        [runs and _stop_at(backbone.decode(ids), sampling) >= 0 for ids, runs in rows], device=active.device
    )


def _stop_at(text: str, sampling: Sampling) -> int:
    """Where the first stop text begins, or -1."""
    return min((at for at in map(text.find, sampling.stop) if at >= 0), default=-1)


def _until_eos(ids: list[int], eos_ids: frozenset[int]) -> list[int]:
    return ids[: next((i + 1 for i, token in enumerate(ids) if token in eos_ids), len(ids))]


def _completion(backbone, task_id: str, prompt: Prompt, sample: int, ids: list[int], sampling: Sampling) -> Completion:
    raw = backbone.decode(ids)
    cut = _stop_at(raw, sampling)
    if cut >= 0:  # the model ends with the token that completes a stop text, whenever that was noticed
        count = 1 + bisect.bisect_left(
            range(1, len(ids)), True, key=lambda length: _stop_at(backbone.decode(ids[:length]), sampling) >= 0
        )
        ids, raw = ids[:count], backbone.decode(ids[:count])
        cut = _stop_at(raw, sampling)
    finished = cut >= 0 or ids[-1] in backbone.eos_ids
    return Completion(task_id, sample, raw, prompt.code + (raw[:cut] if cut >= 0 else raw), len(ids), finished)

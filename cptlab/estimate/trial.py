"""A few real training steps before training: their memory, their operations, their seconds. Nothing is changed by them.

A step is the one that training does (`AdapterTraining.training_step`), with the run's own adapters and pairs. A reference
that is not on disk yet is replaced by zeros, which cost the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from cptlab.errors import UserError
from cptlab.training.loop.datamodule import PairSplit
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.objectives.base import Objective
from cptlab.training.steps.batches import Batch, ReferenceRows

PAIRS = 3  # that are timed for each stage
PATIENCE = 30.0  # seconds after which no further pair is timed
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Trial:
    """What the steps showed. `pairs` and `tokens` (of the longest) are those of the largest batch of a training step.

    `peak_bytes`: the most that this process has held, with that batch and the largest one of validation done: of GPU
    memory, or of resident memory on a CPU; None where the system does not say. `peak_is_earlier`: it held as much before.
    `flops`: operations of a step of the first stage on the median pair, a multiplication and an addition counting two.
    `lengths`: packed tokens of the timed pairs. `seconds`: of the steps on them, by stage.
    """

    pairs: int
    tokens: int
    peak_bytes: int | None
    peak_is_earlier: bool
    flops: int
    lengths: tuple[int, ...]
    seconds: dict[str, tuple[float, ...]]

    def per_token(self, stage: str) -> float:
        """Return the seconds per packed token of this stage; not all pairs are timed where a step takes minutes."""
        return sum(self.seconds[stage]) / sum(self.lengths[: len(self.seconds[stage])])


def run_trial(
    modules: Sequence[AdapterTraining], train: PairSplit, validation: PairSplit, batch_size: int, on_disk: bool
) -> Trial:
    """Run the steps of these stages. `batch_size` pairs make a step; `on_disk`: the reference will be read.

    Raises UserError where the largest batch does not fit into the memory of the GPU.
    """
    first, device = modules[0], modules[0].backbone.device
    by_length = sorted(range(len(train)), key=lambda index: train.lengths[index])
    largest = _largest(train, by_length[-batch_size:])
    longest = max(train.lengths[index] for index in largest)
    before = _peak_bytes(device, reset=True)
    try:
        for module in modules:
            _step(module.to(device), train, largest, on_disk)
        if len(validation):
            with torch.no_grad():
                group = _largest(validation, range(len(validation)))
                first.validation_step(_batch(first, validation, group, None, on_disk), 0)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"A step of {len(largest)} pair(s) of up to {longest} tokens does not fit into the GPU's memory. "
            "Set compute.checkpointing=true or a smaller compute.token_budget, or leave out long pairs."
        ) from error
    peak = _peak_bytes(device)

    start = max(0, (len(train) - PAIRS + 1) // 2)
    chosen = by_length[start : start + PAIRS]
    flops = count_flops(lambda: _step(first, train, [chosen[len(chosen) // 2]], on_disk))
    lengths = tuple(train.lengths[index] for index in chosen)
    seconds = {module.stage: _time_steps(module, train, chosen, on_disk) for module in modules}
    return Trial(len(largest), longest, peak, peak == before, flops, lengths, seconds)


def count_flops(work: Callable[[], object]) -> int:
    """Count the operations of the matrix products and attentions that `work` does, backward passes included."""
    aten = torch.ops.aten
    uncounted = {  # by torch 2.13: a CPU's attention, and the products of experts
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, q, k, v, *_, **__: (
            sdpa_backward_flop_count(gradient, q, k, v)
        ),
    }
    if hasattr(aten, "_grouped_mm"):  # since torch 2.8
        uncounted[aten._grouped_mm] = lambda a, b, *_, **__: 2 * a[0] * a[1] * b[-1]
    with FlopCounterMode(display=False, custom_mapping=uncounted) as counter:
        work()
    return counter.get_total_flops()


def _step(module: AdapterTraining, split: PairSplit, indices: Sequence[int], on_disk: bool) -> None:
    """Run one training step on one batch, and leave no gradient behind."""
    module.training_step([_batch(module, split, indices, module.objective, on_disk)], 0).backward()
    module.zero_grad()


def _batch(
    module: AdapterTraining, split: PairSplit, indices: Sequence[int], objective: Objective | None, on_disk: bool
) -> Batch:
    """Return these pairs as a batch, with zeros for a reference that would be read from disk."""
    batch = split.batch(indices, objective)
    if on_disk and (objective is None or objective.reference != "none"):
        states = torch.zeros(len(batch.packed.predicting), module.backbone.hidden_size, dtype=module.backbone.dtype)
        batch = batch.with_reference(ReferenceRows(states, torch.zeros(batch.tokens.shape)))
    return batch.to(module.backbone.device)


def _time_steps(module: AdapterTraining, split: PairSplit, chosen: Sequence[int], on_disk: bool) -> tuple[float, ...]:
    seconds: list[float] = []
    for index in chosen:
        start = time.perf_counter()
        _step(module, split, [index], on_disk)
        if module.backbone.device.type == "cuda":
            torch.cuda.synchronize(module.backbone.device)  # a GPU works on while Python goes on
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > PATIENCE:
            break
    return tuple(seconds)


def _largest(split: PairSplit, indices: Sequence[int]) -> list[int]:
    """Return the batch of these pairs that has the most tokens, padding included."""

    def tokens(group: list[int]) -> int:
        lengths = [split.lengths[index] for index in group]
        return sum(lengths) if split.one_row else len(lengths) * max(lengths)

    return max(split.groups(indices), key=tokens)


def _peak_bytes(device: torch.device, reset: bool = False) -> int | None:
    """Return the most bytes that were held at once, on a GPU or, for a CPU, by this process. `reset` forgets a GPU's peak
    first; that of a process stays, because metrics.json reports it."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or not STATUS.is_file():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    return int(found[1]) * 1024 if found else None

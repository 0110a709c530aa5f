"""A few real training steps before training: their memory, their operations, their seconds. Nothing is changed by them.

A step is the one that training does (`AdapterTraining.training_step`), with the run's own adapters and pairs. A reference
that is not on disk yet is replaced by zeros, which cost the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from cptlab.errors import UserError
from cptlab.training.loop.datamodule import PairSplit
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.steps.batches import Batch, ReferenceRows

PAIRS = 3  # that are timed for each stage
PATIENCE = 120.0  # seconds after which no further pair is timed
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Timing:
    """The `seconds` of steps on single pairs of `tokens` packed tokens."""

    seconds: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def per_token(self) -> float:
        return sum(self.seconds) / sum(self.tokens)


@dataclass(frozen=True)
class Trial:
    """What the steps showed. `pairs` and `tokens` (of the longest) are those of the largest batch of a training step.

    `peak_bytes`: the most that this process has held, with that batch and the largest one of validation done: of GPU
    memory, or of resident memory on a CPU; None where the system does not say. `peak_is_earlier`: it held as much before.
    `flops`: operations of a step of the first stage on the median pair, a multiplication and an addition counting two.
    `timings`: by stage.
    """

    pairs: int
    tokens: int
    peak_bytes: int | None
    peak_is_earlier: bool
    flops: int
    timings: dict[str, Timing]


def run_trial(
    modules: Sequence[AdapterTraining], train: PairSplit, validation: PairSplit, batch_size: int, on_disk: bool
) -> Trial:
    """Run the steps of these stages. `batch_size` pairs make a step; `on_disk`: the reference will be read.

    Raises UserError where the largest batch does not fit into the memory of the GPU.
    """
    device = modules[0].backbone.device
    by_length = sorted(range(len(train)), key=lambda index: train.lengths[index])
    largest = _largest(train, by_length[-batch_size:])
    longest = max(train.lengths[index] for index in largest)
    before = _peak_bytes(device, reset=True)
    try:
        for module in modules:
            _step(module, train, largest, on_disk)
        if len(validation):
            _validate(modules[0], validation, _largest(validation, range(len(validation))), on_disk)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"A step of {len(largest)} pair(s) of up to {longest} tokens does not fit into the GPU's memory. "
            "Set compute.checkpointing=true or a smaller compute.token_budget, or leave out long pairs."
        ) from error
    peak = _peak_bytes(device)

    first = max(0, (len(train) - PAIRS + 1) // 2)
    chosen = by_length[first : first + PAIRS]
    flops = count_flops(lambda: _step(modules[0], train, [chosen[len(chosen) // 2]], on_disk))
    timings = {module.stage: _time_steps(module, train, chosen, on_disk) for module in modules}
    return Trial(len(largest), longest, peak, peak == before, flops, timings)


def count_flops(work: Callable[[], object]) -> int:
    """Count the operations of the matrix products and attentions that `work` does, backward passes included."""
    aten = torch.ops.aten
    uncounted = {  # by torch 2.13: a CPU's attention, and the products of experts
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, q, k, v, *_, **__: (
            sdpa_backward_flop_count(gradient, q, k, v)
        ),
        aten._grouped_mm: lambda a, b, *_, **__: 2 * a[0] * a[1] * b[-1],
    }
    with FlopCounterMode(display=False, custom_mapping=uncounted) as counter:
        work()
    return counter.get_total_flops()


def _step(module: AdapterTraining, split: PairSplit, indices: Sequence[int], on_disk: bool) -> None:
    """Run one training step on one batch, and leave no gradient behind."""
    batch = split.batch(indices, module.objective)
    if on_disk and module.objective.reference != "none":
        batch = _with_zeros(module, batch)
    module.training_step([batch.to(module.backbone.device)], 0).backward()
    for parameter in module.trained():
        parameter.grad = None


@torch.no_grad()
def _validate(module: AdapterTraining, split: PairSplit, indices: Sequence[int], on_disk: bool) -> None:
    batch = split.batch(indices)
    module.validation_step((_with_zeros(module, batch) if on_disk else batch).to(module.backbone.device), 0)


def _time_steps(module: AdapterTraining, split: PairSplit, chosen: Sequence[int], on_disk: bool) -> Timing:
    seconds: list[float] = []
    for index in chosen:
        start = time.perf_counter()
        _step(module, split, [index], on_disk)
        if module.backbone.device.type == "cuda":
            torch.cuda.synchronize(module.backbone.device)  # a GPU works on while Python goes on
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > PATIENCE:
            break
    return Timing(tuple(seconds), tuple(split.lengths[index] for index in chosen[: len(seconds)]))


def _with_zeros(module: AdapterTraining, batch: Batch) -> Batch:
    """Return the batch with zeros for the reference that would be read from disk."""
    states = torch.zeros(len(batch.packed.predicting), module.backbone.hidden_size, dtype=module.backbone.dtype)
    return replace(batch, reference=ReferenceRows(states, torch.zeros(batch.tokens.shape)))


def _largest(split: PairSplit, indices: Sequence[int]) -> list[int]:
    """Return the batch of these pairs that has the most padded tokens."""
    return max(split.groups(indices), key=lambda group: len(group) * max(split.lengths[index] for index in group))


def _peak_bytes(device: torch.device, reset: bool = False) -> int | None:
    """Return the most bytes that were held at once: on a GPU, or by this process where the device is the CPU.

    `reset` forgets a GPU's peak first. A process's peak stays, because metrics.json reports it.
    """
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or not STATUS.is_file():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    return int(found[1]) * 1024 if found else None

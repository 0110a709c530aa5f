"""Which way to compute the fast step is fastest on the device at hand: measured before training, and kept with the run.

On a GPU a step of few tokens is bound by the number of its operators and a step of many by its arithmetic, and cards and
versions of torch differ. So nothing is assumed: each way takes some steps on the longest batch. On a CPU nothing is measured, so
that its results do not depend on a clock.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cptlab.adapters.base import Adapter
from cptlab.backbone import Backbone
from cptlab.storage.atomic import write_json
from cptlab.storage.locks import locked
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.objectives.base import Objective
from cptlab.training.steps.batches import Batch
from cptlab.training.steps.step_method import StepMethod

CALIBRATION_FILE = "step_seconds.json"
ROUNDS = 5


def fastest_step(
    method: StepMethod,
    backbone: Backbone,
    adapters: Sequence[Adapter],
    objective: Objective,
    batch: Callable[[], Batch],
    directory: Path,
) -> StepMethod:
    """Return the fastest way of a fast `method` for this `batch`, on a device that is no CPU; else `method`.

    What is measured is kept in `directory`, and a run that resumes there goes on in the same way.
    """
    if method.name != "fast" or backbone.device.type == "cpu":
        return method
    example = batch().to(backbone.device)
    return choose_by_time(
        method, lambda way: step_seconds(way, backbone, adapters, objective, example), directory / CALIBRATION_FILE
    )


def choose_by_time(method: StepMethod, seconds: Callable[[StepMethod], float], kept: Path) -> StepMethod:
    """Return the way of `method` that takes the fewest `seconds`, which are read from the file `kept` if it is there.

    A way that needs too much memory, with infinite seconds, is left out. Of several processes that start together, one
    measures: they share out the same batches, so all of them must go the same way.
    """
    with locked(kept.parent, name=f"{kept.name}.lock"):
        if not kept.exists():
            found = {way.way: seconds(way) for way in method.ways()}
            write_json(kept, {name: value for name, value in found.items() if math.isfinite(value)})
    return method.fastest(json.loads(kept.read_text()))


def step_seconds(
    method: StepMethod, backbone: Backbone, adapters: Sequence[Adapter], objective: Objective, batch: Batch
) -> float:
    """Return the seconds of the fastest of some steps, forward and backward; infinity where the memory does not suffice."""
    opposite = adapters[1] if len(adapters) > 1 else None
    module = AdapterTraining(backbone, adapters[0], objective=objective, opposite=opposite, method=method)
    found = []
    try:
        for _ in range(1 + ROUNDS):  # the first lays out the batch
            start = time.perf_counter()
            module.training_step([batch], 0).backward()
            if backbone.device.type == "cuda":
                torch.cuda.synchronize(backbone.device)
            found.append(time.perf_counter() - start)
            module.zero_grad()
    except torch.OutOfMemoryError:
        module.zero_grad()
        return math.inf
    return min(found[1:])

"""Decode the waiting programs in slots: the same programs as the plain loop of engine.py, with other rounding."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from cptlab.backbone import Backbone
from cptlab.backbone.prefix_shape import TESTED
from cptlab.backbone.slot_step import slot_attention
from cptlab.decoding.running_batch import RunningBatch
from cptlab.decoding.sampling import LIKELIEST, Sampling, choose_without_looking
from cptlab.decoding.sampling import choose as look_and_choose
from cptlab.decoding.slots.batch import Ended, SlotBatch, Snapshot
from cptlab.decoding.slots.step import Choose
from cptlab.decoding.steering import Steering
from cptlab.decoding.waiting_queue import WaitingQueue

GROUPS = 4  # rows are filled in as many groups, as each is held twice while it comes in


def fits_slots(backbone: Backbone, steering: Steering | None) -> bool:
    """Return whether decoding can run in slots: for tested architectures, where attention is not steered.

    Mixtures of experts look at their numbers within a step, and so does a rotary embedding of changing frequencies.
    """
    config = backbone.config
    dense = config.model_type in TESTED and getattr(config, "num_experts_per_tok", None) is None
    fixed = "dynamic" not in (getattr(config, "rope_parameters", None) or {}).get("rope_type", "")
    return dense and fixed and steering is None


@torch.inference_mode()
def decode_in_slots(
    backbone: Backbone,
    queue: WaitingQueue,
    sampling: Sampling,
    seed: int,
    choose: Choose | None = None,
    ahead: bool | None = None,
    likeliest: int | None = None,
) -> Iterator[Ended]:
    """Yield (request, sample, new token ids) as programs end: up to the first end-of-text token or the request's limit.

    `choose` chooses tokens (default: on a GPU without a look at them). With `ahead` (default: on a GPU), the host looks at the
    rows while the next steps run on the device. `likeliest` (default: some on a GPU): among how many tokens a usual step searches
    the nucleus.
    """
    on_gpu = backbone.device.type == "cuda"
    choose = choose or (choose_without_looking if on_gpu else look_and_choose)
    ahead = on_gpu if ahead is None else ahead
    if sampling.greedy or sampling.top_p == 1:
        likeliest = None  # nothing to search
    elif on_gpu and likeliest is None:
        likeliest = LIKELIEST
    batch: SlotBatch | None = None
    waiting: Snapshot | None = None
    while True:
        while queue and (batch is None or batch.free()):
            free = queue.most if batch is None else len(batch.free())
            count = min(free, -(-queue.most // GROUPS))
            streams, written = yield from _opened(backbone, queue, sampling, seed, count)
            if streams is None:
                continue
            if batch is None:
                batch = SlotBatch(
                    backbone, streams, queue.requests, min(queue.most, queue.programs), sampling, choose, likeliest
                )
            batch.put(streams, written)
        if batch is None or not any(batch.occupants):
            return
        with slot_attention(backbone), backbone.cpu_linear.set_for(len(batch.step.cache.rows), backbone.device):
            snapshot = batch.advance()
        waiting, snapshot = (snapshot, waiting) if ahead else (None, snapshot)
        if snapshot is not None:
            yield from batch.look(snapshot)
        if not queue and batch.halve():
            waiting = None


def _opened(backbone: Backbone, queue: WaitingQueue, sampling: Sampling, seed: int, count: int):
    """Read up to `count` waiting programs and choose their first tokens, until no prompt is being healed.

    Yields what ends at once. Returns the streams of the others, or None, and what these have written.
    """
    streams, rows = queue.take(count)
    written = RunningBatch(backbone, sampling, seed, max(request.limit for request in queue.requests))
    written.add(rows)
    while True:
        healing = [rest is not None for rest in streams.rests]
        written.choose(streams.logits, torch.arange(streams.rows, device=backbone.device), healing)
        idle = written.idle()
        if len(idle):
            yield from written.ended(idle)
            if len(idle) == streams.rows:
                return None, written
            streams.select(written.keep_running())
        if not any(streams.rests):
            return streams, written
        streams.step(written.last)

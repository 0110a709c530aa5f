"""What a training step asks of Python and of torch beside its arithmetic: operator calls, and time on a tiny model.

    python benchmarks/train_overhead.py
    python benchmarks/train_overhead.py --layers 4 --json overhead.json

A GPU is idle while Python prepares the next operator, so a step of small kernels is bound by their number. Counted on a CPU
for a tiny random Llama, whose arithmetic is next to nothing, so that the time is that of Python and of torch's dispatch:

bare model        transformers' model alone on a row of as many tokens as the packed pair has: forward, cross-entropy, backward
                  to its input embeddings
plain             cptlab's readable step: both programs padded, the backbone alone in every step
all               the fast step with a mask, its reference kept
by sequences      the fast step as it runs where there is a kernel for attention by sequences, which is one operator forward
                  and one backward; a stand-in that computes nothing takes its place, so the loss means nothing here
packed pairs      the same with four pairs in one row; counted per step, not per pair

The optimiser is left out. `kernels` are the operators that are no mere views of a tensor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from overhead import OperatorCalls
from torch import Tensor
from train_variants import Setting, random_examples, random_llama

from cptlab.adapters import Prefix
from cptlab.backbone import Backbone, sequence_attention
from cptlab.backbone.sequence_attention import by_sequences
from cptlab.training.objectives import CPT
from cptlab.training.steps.batches import collate
from cptlab.training.steps.fast import FastOutputs
from cptlab.training.steps.plain import PlainOutputs

TINY = Setting(layers=2, hidden=64, intermediate=96, heads=4, kv_heads=2, vocabulary=300, instruction=40, common=6,
               rest=20, masked=6, prefix=4)  # fmt: skip
PACKED = 4  # pairs of the row "packed pairs"
VIEWS = {"view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "split",
         "split_with_sizes", "detach", "alias", "as_strided", "_reshape_alias", "unbind", "lift_fresh"}  # fmt: skip


class _StandIn(torch.autograd.Function):
    """One operator forward and one for each gradient, as the kernel's are; zeros come out."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.shapes = query, key, value
        return torch.zeros_like(query)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(tensor) for tensor in ctx.shapes)


@contextmanager
def kernel_stand_in() -> Iterator[None]:
    """Within it, attention by sequences computes nothing, in as many operators as its kernel."""

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        return _StandIn.apply(query, key, value)

    with mock.patch.object(sequence_attention, "attend", attend):
        yield


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    parser.add_argument("--rounds", type=int, default=7)
    for entry in fields(Setting):
        parser.add_argument(f"--{entry.name.replace('_', '-')}", type=type(entry.default))
    options = parser.parse_args(arguments)
    rows = train_rows(options)
    print(f"{'training step':16}{'operators':>11}{'of bare':>9}{'kernels':>9}{'of bare':>9}{'ms':>8}{'of bare':>9}")
    for row in rows:
        print(f"{row['name']:16}{row['operators']:>11}{row['operators_ratio']:>9.2f}{row['kernels']:>9}"
              f"{row['kernels_ratio']:>9.2f}{1000 * row['seconds']:>8.1f}{row['seconds_ratio']:>9.2f}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def train_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Of each step: its name, operator calls, those that are no views, the seconds of the median round, and the ratios to the
    bare model. `options` has `rounds` and may set anything of `Setting`."""
    given = {e.name: getattr(options, e.name, None) for e in fields(Setting)}
    setting = replace(TINY, **{name: value for name, value in given.items() if value is not None})
    backbone = random_llama(setting)
    steps = {
        "bare model": bare_step(backbone, setting),
        "plain": our_step(backbone, setting, "plain"),
        "all": our_step(backbone, setting, "all"),
        "by sequences": our_step(backbone, setting, "by sequences"),
        "packed pairs": our_step(backbone, replace(setting, pairs=PACKED * setting.pairs), "by sequences"),
    }
    rows: list[dict[str, Any]] = []
    for name, step in steps.items():
        with by_sequences(backbone.model) if name in ("by sequences", "packed pairs") else nullcontext():
            row: dict[str, Any] = {"name": name, **count(step), "seconds": seconds(step, options.rounds)}
        bare = rows[0] if rows else row
        rows.append(row | {f"{key}_ratio": row[key] / bare[key] for key in ("operators", "kernels", "seconds")})
    return rows


def count(step: Callable[[], Any]) -> dict[str, int]:
    step()
    with OperatorCalls() as counter:
        step()
    kernels = sum(number for name, number in counter.calls.items() if name not in VIEWS)
    return {"operators": sum(counter.calls.values()), "kernels": kernels}


def seconds(step: Callable[[], Any], rounds: int) -> float:
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def bare_step(backbone: Backbone, setting: Setting) -> Callable[[], None]:
    batch = collate(random_examples(setting), backbone.pad_id)
    ids = batch.one_row.input_ids
    embeddings = backbone.model.get_input_embeddings()

    def step() -> None:
        inputs = embeddings(ids).requires_grad_()
        backbone.model(inputs_embeds=inputs, labels=ids, use_cache=False).loss.backward()

    return step


def our_step(backbone: Backbone, setting: Setting, name: str) -> Callable[[], None]:
    """The step of a laid-out batch whose reference is kept, where it is used."""
    prefix, objective = Prefix(backbone.shape, setting.prefix), CPT()
    batch = collate(random_examples(setting), backbone.pad_id)
    if name != "plain":
        batch = batch.with_reference(FastOutputs(backbone, batch, []).reference_rows())
    batch.padded if name == "plain" else batch.one_row if name == "by sequences" else batch.packed  # noqa: B018

    def step() -> None:
        policies = [prefix.policy(backbone)]
        prefix.table.grad = None
        with kernel_stand_in() if name == "by sequences" else nullcontext():
            if name == "plain":
                outputs = PlainOutputs(backbone, batch, policies)
            else:
                outputs = FastOutputs(backbone, batch, policies, by_sequences=name == "by sequences")
            sum(objective.weighted(objective.terms(outputs)).values()).mean().backward()

    return step


if __name__ == "__main__":
    main(sys.argv[1:])

"""What a run will take, before it starts: memory, disk and time, from a backbone's config alone.

Parameters, weights and the prefix are exact. Memory of a step is counted by running the real step on tensors without
data (`footprint`); a backbone that cannot be run so gets a formula, and the table says it. Time is measured on a few
pairs where the backbone itself is there, and scaled to all of them by their operations (`costs`). Where there are no
pairs yet, lengths are assumed, and the table says that too.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

from cptlab.backbone import Backbone
from cptlab.backbone.prefix_shape import prefix_shape
from cptlab.estimate.calibration import Calibration
from cptlab.estimate.costs import ModelSize, naive_flops, nll_flops, plain_flops, reference_flops, step_flops
from cptlab.estimate.footprint import Footprint, Shapes, footprint, formula, shape_backbone, shape_pair
from cptlab.training.loop.stages import PROBE_PAIRS
from cptlab.training.objectives import CPT, Objective
from cptlab.training.reference import kept_of, readable, reference_bytes
from cptlab.training.steps.choice import StepMethod
from cptlab.training.steps.compute import Compute
from cptlab.training.steps.token_pairs import Lengths

ASSUMED = Lengths(instruction=400, common=50, rest_a=150, rest_b=150, masked_a=40, masked_b=40)
FORMULA = "a formula for Llama's layers"
MOMENT_NAMES = {"step": "a step", "validation": "a validation", "probe": "the gradient norms after a validation"}


@dataclass(frozen=True)
class Estimate:
    """Bytes, numbers and seconds; None for what could not be known. `lines()` is the table."""

    model_type: str
    parameters: int
    dtype: str
    quantization: str | None
    weight_bytes: int
    objective: str
    method: str  # "fast", "plain", either with "+checkpointing"
    prefix_length: int
    prefix_numbers: int  # of the table, which is exported; of all prefixes together
    trained_numbers: int  # of the table or its factors
    prefix_bytes: int  # trained numbers, AdamW's state, gradients, the table
    train_pairs: int
    validation_pairs: int
    lengths: str  # "exact" or "assumed"
    median: Lengths
    batches: dict[str, tuple[int, int]]  # moment -> pairs and packed tokens of its largest batch
    moments: dict[str, Footprint]  # of the run as it is configured: step, validation, probe
    steps: dict[str, Footprint]  # of a step under each step method, with and without checkpointing
    memory: str  # "counted", or the name of the formula
    reference: str  # "disk" or "recompute"
    reference_bytes: int
    flops_per_pair: float
    naive_ratio: float  # operations of the naive step by those of this one
    epochs: tuple[int, int]
    calibration: Calibration | None
    seconds: dict[str, float] | None  # reference, first_epoch, second_epoch, training

    @property
    def peak_moment(self) -> str:
        return max(self.moments, key=lambda moment: self.moments[moment].peak)

    @property
    def peak_bytes(self) -> int:
        return self.weight_bytes + self.prefix_bytes + self.moments[self.peak_moment].peak

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metrics.json."""
        return asdict(self) | {
            "epochs": list(self.epochs),
            "batches": {moment: list(size) for moment, size in self.batches.items()},
            "peak_bytes": self.peak_bytes,
            "peak_moment": self.peak_moment,
        }

    def short(self) -> list[str]:
        """Two or three lines for the start of a run."""
        disk = f", {readable(self.reference_bytes)} on disk for the reference" if self.reference == "disk" else ""
        lines = [
            f"Estimate: {readable(self.peak_bytes)} of memory at the peak, {readable(self.weight_bytes)} of it weights{disk}",
            f"          {self.train_pairs:,} pairs ({self.lengths} lengths), {operations(self.flops_per_pair)} each, "
            f"{self.naive_ratio:.2f} times fewer than the naive step",
        ]
        if self.seconds:
            lines.append(
                f"          {duration(self.seconds['training'])} of training, "
                f"{duration(self.seconds['first_epoch'])} per epoch of the first stage (measured on {len(self.calibration.seconds)} pair(s))"
            )
        return lines

    def lines(self) -> list[str]:
        """The table, in words and units; every number says how it is known."""
        length = self.median
        known = "exact" if self.lengths == "exact" else "assumed: there are no pairs yet, at most one per training task"
        kept = self.moments[self.peak_moment]
        pairs, tokens = self.batches[self.peak_moment]
        weights = self.dtype + (f", linear layers in {self.quantization}" if self.quantization else "")
        how = self.memory + (f" on {pairs} pair(s) of up to {tokens} packed tokens")
        rows: list[tuple[str, str, str]] = [
            (f"Backbone: {self.model_type}", f"{self.parameters:,} parameters", "exact"),
            (f"Prefix of {self.prefix_length} positions", f"{self.prefix_numbers:,} numbers", "exact"),
            ("  trained for it", f"{self.trained_numbers:,} numbers", "exact"),
            ("Pairs", f"{self.train_pairs:,} train, {self.validation_pairs:,} validation", known),
            (
                "  median tokens",
                f"{length.instruction} instruction, {length.common} common, {length.rest_a}/{length.rest_b} rest, "
                f"{length.masked_a}/{length.masked_b} masked",
                known.split(":")[0],
            ),
            ("", "", ""),
            ("Memory at the peak", readable(self.peak_bytes), MOMENT_NAMES[self.peak_moment]),
            (f"  weights ({weights})", readable(self.weight_bytes), "exact"),
            ("  prefix, its gradient, AdamW's state", readable(self.prefix_bytes), "exact"),
            ("  activations", readable(kept.activations), how),
            ("  logits and tensors of their width", readable(kept.logits), self.memory),
            ("  losses, gradients, what is recomputed", readable(kept.work), self.memory),
        ]
        for moment, found in self.moments.items():
            if moment != self.peak_moment:
                total = self.weight_bytes + self.prefix_bytes + found.peak
                rows.append((f"Memory in {MOMENT_NAMES[moment]}", readable(total), self.memory))
        rows = [row for row in rows if row[1] != "0 bytes"]
        rows.append(("", "", ""))
        for name, found in self.steps.items():
            total = self.weight_bytes + self.prefix_bytes + found.peak
            value = f"{readable(total)} at the peak, {readable(found.saved)} saved for backward"
            rows.append((f"A step, {name.replace('+', ', ')}", value, "this run" if name == self.method else ""))
        rows.append(("", "", ""))
        if self.reference == "disk":
            rows.append(("Reference on disk", readable(self.reference_bytes), known.split(":")[0]))
        rows.append(("Operations per pair", operations(self.flops_per_pair), "cost model"))
        rows.append(("  naive step", f"{self.naive_ratio:.2f} times as many", "cost model"))
        if self.seconds:
            measured = f"measured on {len(self.calibration.seconds)} pair(s) near the median"
            rows += [
                ("Time: reference, once", duration(self.seconds["reference"]), "scaled"),
                (f"  an epoch of stage 1 (there are {self.epochs[0]})", duration(self.seconds["first_epoch"]), measured),
                (f"  an epoch of stage 2 (there are {self.epochs[1]})", duration(self.seconds["second_epoch"]), "scaled"),
                ("  training in all", duration(self.seconds["training"]), "without validation"),
            ]
        else:
            rows.append(("Time", "not known", "the backbone is not there to be measured"))
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        return [f"{name:<{first}}  {value:<{second}}  {how}".rstrip() for name, value, how in rows]


def estimate(
    config: PreTrainedConfig,
    train: Sequence[Lengths],
    validation: Sequence[Lengths] = (),
    *,
    dtype: torch.dtype = torch.float32,
    quantization: str | None = None,
    attn_implementation: str | None = None,
    prefix_length: int = 12,
    prefix_rank: int | None = None,
    objective: Objective | None = None,
    method: StepMethod | None = None,
    compute: Compute | None = None,
    batch_size: int = 1,
    processes: int = 1,
    epochs: tuple[int, int] = (3, 1),
    assumed: bool = False,
    calibration: Calibration | None = None,
    compare: bool = True,
) -> Estimate:
    """What training takes on each of `processes` devices, from the `config` of a backbone, the lengths of its pairs
    (`assumed` where they are only that) and the run's settings. `compare`: count the other method, and checkpointing,
    too. Raises UserError for a backbone that carries no prefix."""
    objective, method, compute = objective or CPT(), method or StepMethod(), compute or Compute()
    shape, shapes = prefix_shape(config), Shapes()
    backbone = shape_backbone(config, dtype, shapes, None, attn_implementation)
    size = ModelSize.of(backbone.model)
    parameters = sum(parameter.numel() for parameter in backbone.model.parameters())
    if quantization is not None:
        backbone = shape_backbone(config, dtype, shapes, quantization, attn_implementation)

    held_out = list(validation) or list(train)
    largest = {
        "step": largest_batch(train, batch_size, compute.token_budget),
        "validation": largest_batch(held_out, len(held_out), compute.token_budget),
        "probe": largest_batch(held_out[:PROBE_PAIRS], batch_size, compute.token_budget),
    }
    on_disk = compute.reference == "disk" and method.name == "fast"
    failed = False

    def count(which: StepMethod, moment: str) -> Footprint:
        nonlocal failed
        try:
            with shapes:
                examples = [shape_pair(lengths) for lengths in largest[moment]]
                return footprint(
                    backbone,
                    prefix_length,
                    objective,
                    which,
                    examples,
                    reference_on_disk=compute.reference == "disk",
                    moment=moment,
                )
        except Exception:  # whatever an unknown architecture asks of tensors that have no data
            failed = True
            return formula(size, config, dtype, which, largest[moment], moment)

    moments = {moment: count(method, moment) for moment in largest}
    steps = {_name(method): moments["step"]}
    for name, again in ((name, again) for name in ("fast", "plain") for again in (False, True) if compare):
        which = StepMethod(name, checkpointing=again)
        if _name(which) not in steps:
            steps[_name(which)] = count(which, "step")

    needed = kept_of(objective, epochs[0] > 0) if on_disk else {}
    kept = [(pairs, needed.get(split, "none")) for split, pairs in (("train", train), ("validation", validation))]
    kept = [(pairs, what == "states") for pairs, what in kept if pairs and what != "none"]
    stored = sum(
        reference_bytes(list(map(shape_pair, pairs)), size.hidden, compute.reference_precision, dtype, states)
        for pairs, states in kept
    )

    def cost(lengths: Lengths) -> int:
        if objective.better_only:
            return nll_flops(size, lengths, prefix_length, needed=method.name == "fast").total
        if method.name == "plain":
            return plain_flops(size, lengths, prefix_length).total
        cached = on_disk or objective.reference == "none"
        return step_flops(size, lengths, prefix_length, cached=cached, shared=True, needed=True).total

    first = sum(map(cost, train))
    second = sum(nll_flops(size, lengths, prefix_length, method.name == "fast").total for lengths in train)
    once = sum(reference_flops(size, lengths).total for pairs, _ in kept for lengths in pairs)
    seconds = None
    if calibration is not None:
        rate = sum(calibration.seconds) / sum(map(cost, calibration.lengths))
        each = rate / processes  # of an epoch; one process alone computes the reference
        seconds = {"reference": once * rate, "first_epoch": first * each, "second_epoch": second * each}
        seconds["training"] = once * rate + (epochs[0] * first + epochs[1] * second) * each

    table = prefix_length * shape.width
    trained = table if prefix_rank is None else prefix_rank * (prefix_length + shape.width)
    # each with gradient and AdamW's two moments; the gradient that a step adds up; the table, where it is a product
    numbers = 4 * trained + table * (1 if prefix_rank is None else 2)
    return Estimate(
        model_type=config.model_type,
        parameters=parameters,
        dtype=str(dtype).removeprefix("torch."),
        quantization=quantization,
        weight_bytes=_weight_bytes(backbone),
        objective=type(objective).__name__,
        method=_name(method),
        prefix_length=prefix_length,
        prefix_numbers=table * objective.policies,
        trained_numbers=trained * objective.policies,
        prefix_bytes=4 * numbers * objective.policies,
        train_pairs=len(train),
        validation_pairs=len(validation),
        lengths="assumed" if assumed else "exact",
        median=median_lengths(train),
        batches={moment: (len(batch), max(pair.packed_row for pair in batch)) for moment, batch in largest.items()},
        moments=moments,
        steps=steps,
        memory=FORMULA if failed else "counted",
        reference="disk" if kept else "recompute",
        reference_bytes=stored,
        flops_per_pair=first / len(train),
        naive_ratio=sum(naive_flops(size, lengths, prefix_length).total for lengths in train) / first,
        epochs=epochs,
        calibration=calibration,
        seconds=seconds,
    )


def weight_bytes(config: PreTrainedConfig, dtype: torch.dtype, quantization: str | None = None) -> int:
    """Bytes of a backbone's weights, from its config."""
    return _weight_bytes(shape_backbone(config, dtype, Shapes(), quantization))


def _weight_bytes(backbone: Backbone) -> int:
    tensors = [*backbone.model.parameters(), *backbone.model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def largest_batch(lengths: Sequence[Lengths], pairs: int, token_budget: int) -> list[Lengths]:
    """Of all batches that a step of `pairs` pairs may be cut into, the one with the most padded tokens."""
    order = sorted(lengths, key=lambda pair: -pair.packed_row)
    rows = [min(pairs, max(1, token_budget // max(1, pair.packed_row)), len(order) - i) for i, pair in enumerate(order)]
    start = max(range(len(order)), key=lambda i: rows[i] * order[i].packed_row)
    return order[start : start + rows[start]]


def median_lengths(lengths: Sequence[Lengths]) -> Lengths:
    """The median of each length by itself."""
    return Lengths(*(round(statistics.median(column)) for column in zip(*map(astuple, lengths), strict=True)))


def operations(flops: float) -> str:
    """Operations in MFLOP, GFLOP or TFLOP."""
    for unit, scale in (("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= scale:
            return f"{flops / scale:.3g} {unit}"
    return f"{flops / 1e6:.3g} MFLOP"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _name(method: StepMethod) -> str:
    return method.name + ("+checkpointing" if method.checkpointing else "")

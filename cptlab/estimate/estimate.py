"""What a run takes of memory, disk and time. Every number says how it is known; what is not known is called so.

Parameters, weights, the adapter and the reference on disk are exact, from the config alone (`sizes`). Memory and time of
a step are measured on the backbone itself (`trial`), and unknown where it is not there.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cptlab.adapters import Adapter
from cptlab.backbone import Backbone
from cptlab.estimate.sizes import held_weight_bytes, parameter_count, weight_bytes
from cptlab.estimate.trial import Trial, run_trial
from cptlab.training.loop.datamodule import PairDataModule, PairSplit
from cptlab.training.loop.module import STAGES, AdapterTraining
from cptlab.training.loop.stages import Stages, check_context
from cptlab.training.objectives.base import Objective
from cptlab.training.reference import needed_outputs, readable, reference_bytes
from cptlab.training.steps.compute import Compute
from cptlab.training.steps.step_method import StepMethod
from cptlab.training.steps.token_pairs import TokenPair

ASSUMED = TokenPair(  # where there are no pairs yet: 400 tokens of instruction, 50 common, 150 rest, 40 of them masked
    [0] * 400, ([0] * 50 + [1] * 150, [0] * 160 + [1] * 40), ([0] * 50 + [2] * 150, [0] * 160 + [1] * 40)
)


@dataclass(frozen=True)
class Estimate:
    """Bytes, numbers and seconds of a run; `lines()` is the table, `short()` its beginning.

    `adapter_numbers` are those that the policies compute with, `trained_numbers` those that are trained (a prefix may be
    trained as factors); of all adapters together. `state_bytes`: the trained numbers, their gradient and AdamW's two
    moments. `held_bytes`: the weights that each of the `processes` holds, where they share out the layers, else None.
    `pairs_assumed`: there are no pairs yet, and one of assumed lengths stands for all. `epochs` and `seconds` of an epoch by
    stage; `seconds` of 'training' in all. `peak_bytes`: the measured peak, and AdamW's two moments, which come with the
    first update. `unknown` says why no step was run, where `trial` is None.
    """

    backbone: str
    parameters: int
    weights: str
    weight_bytes: int
    processes: int
    held_bytes: int | None
    adapter: str
    adapter_numbers: int
    trained_numbers: int
    state_bytes: int
    train_pairs: int
    validation_pairs: int
    pairs_assumed: bool
    median_tokens: float
    step: str
    reference_bytes: int
    epochs: dict[str, int]
    peak_bytes: int | None
    seconds: dict[str, float]
    trial: Trial | None
    unknown: str | None

    def short(self) -> list[str]:
        """Return one or two lines for the start of a run."""
        if self.trial is None:
            held = self.weight_bytes if self.held_bytes is None else self.held_bytes
            return [f"Estimate: {readable(held)} of weights in each process; a step was not tried: {self.unknown}"]
        disk = f", {readable(self.reference_bytes)} on disk for the reference" if self.reference_bytes else ""
        each = ", ".join(f"{duration(self.seconds[s])} per epoch ({s})" for s in STAGES if s in self.seconds)
        return [
            f"Estimate: {self._peak()} of memory at the peak, {readable(self.weight_bytes)} of it weights{disk}",
            f"          {duration(self.seconds['training'])} of training without validation: {each}",
        ]

    def lines(self) -> list[str]:
        """Return the table, in words and units."""
        pairs = f"{self.train_pairs:,} train, {self.validation_pairs:,} validation"
        disk, known = f"{readable(self.reference_bytes)} on disk", "exact"
        if self.pairs_assumed:
            pairs, disk, known = "unknown", disk + " per pair", "assumed: there are no pairs yet"
        reference = (disk, known) if self.reference_bytes else ("not kept", "computed where it is needed")
        trained = f"exact; {self.trained_numbers:,} trained"
        rows = [
            (f"Backbone: {self.backbone}", f"{self.parameters:,} parameters", "exact"),
            ("  weights", readable(self.weight_bytes), self.weights),
            *self._held(),
            (f"Adapter: {self.adapter}", f"{self.adapter_numbers:,} numbers", trained),
            ("  with gradient and AdamW's state", readable(self.state_bytes), "exact"),
            ("Pairs", pairs, known),
            ("  median length", f"{self.median_tokens:g} tokens", "instruction and both programs, shared ones once"),
            ("Reference", *reference),
            *self._measured(),
        ]
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        return [f"{name:<{first}}  {value:<{second}}  {how}".rstrip() for name, value, how in rows]

    def _held(self) -> list[tuple[str, str, str]]:
        if self.held_bytes is None:
            return []
        how = "its share, what is not in layers, and two layers whole"
        return [(f"  held by each of {self.processes} process(es)", readable(self.held_bytes), how)]

    def _measured(self) -> list[tuple[str, str, str]]:
        trial = self.trial
        if trial is None:
            return [(name, "unknown", str(self.unknown)) for name in ("Memory of a step", "Time")]
        largest = f"measured on {trial.pairs} pair(s) of up to {trial.tokens} tokens, the largest batch"
        seconds = next(iter(trial.seconds.values()))
        rate = trial.flops / seconds[len(seconds) // 2] / 1e9
        rows = [
            (f"Memory at the peak, {self.step} step", self._peak(), largest),
            ("Operations of a median step", f"{trial.flops / 1e9:,.1f} GFLOP", f"counted; {rate:,.0f} GFLOP/s"),
        ]
        for stage, seconds in trial.seconds.items():
            name = "Time of a pair" if self.pairs_assumed else f"Time of each of {self.epochs[stage]} epoch(s)"
            how = f"measured on {len(seconds)} pair(s), one by one"
            rows.append((f"{name}, {stage}", duration(self.seconds[stage]), how))
        if not self.pairs_assumed:
            rows.append(("Time of training", duration(self.seconds["training"]), "without validation and reference"))
        return rows

    def _peak(self) -> str:
        if self.peak_bytes is None:
            return "an unknown amount"
        at_most = "at most " if self.trial and self.trial.peak_is_earlier else ""
        return f"{at_most}{readable(self.peak_bytes)}"


def estimate(
    backbone: Backbone,
    adapters: Sequence[Adapter],
    data: PairDataModule | None,
    objective: Objective,
    *,
    stages: Stages,
    method: StepMethod,
    compute: Compute,
    processes: int = 1,
    sharded: bool = False,
    quantization: str | None = None,
    unknown: str | None = None,
) -> Estimate:
    """Estimate a run on `processes` devices, as many `adapters` as the objective trains; `data` None: no pairs yet.

    `unknown` says why steps cannot be run, as with the backbone of a config alone; `quantization`: how its weights would be
    rounded then. `sharded`: the processes share out the decoder layers. Raises UserError where a step does not fit into the
    memory of the GPU, or a pair into the context.
    """
    epochs = {stage: stages.epochs(stage) for stage in STAGES if stages.epochs(stage)}
    if data is None:
        train, validation = (PairSplit(pairs, backbone.pad_id, compute.token_budget) for pairs in ([ASSUMED], []))
    else:
        train, validation = data.splits["train"], data.splits["validation"]
    for split in (train, validation):
        split.lay_out(method)
    on_disk = compute.reference == "disk" and method.name == "fast"
    kept = needed_outputs(objective, stages.first_epochs > 0) if on_disk else {}
    dtype = next(backbone.head.parameters()).dtype
    reference = sum(
        reference_bytes(split.pairs, backbone.hidden_size, compute.reference_precision, dtype, kept[name] == "states")
        for name, split in (("train", train), ("validation", validation))
        if kept.get(name, "none") != "none" and len(split)
    )
    trained = [parameter for adapter in adapters for parameter in adapter.parameters()]
    state_bytes = 4 * sum(parameter.nbytes for parameter in trained)
    trial, seconds, peak = None, {}, None
    if unknown is None:
        if data is not None:
            check_context(backbone, adapters[0], data)
        opposites: dict[str, Adapter] = dict(zip(STAGES, adapters[1:]))  # the first stage alone trains a second adapter
        modules = [
            AdapterTraining(backbone, adapters[0], stage, objective, opposite=opposites.get(stage), method=method)
            for stage in epochs
        ]
        trial = run_trial(modules, train, validation, 1 if data is None else data.batch_size, on_disk)
        tokens = sum(train.lengths) / processes
        seconds = {stage: trial.per_token(stage) * tokens for stage in trial.seconds}
        seconds["training"] = sum(count * seconds[stage] for stage, count in epochs.items())
        peak = trial.peak_bytes and trial.peak_bytes + state_bytes // 2
    how = f"linear layers in {quantization}, scales not counted" if quantization else "exact"
    return Estimate(
        backbone=backbone.name,
        parameters=parameter_count(backbone.model),
        weights=f"{str(dtype).removeprefix('torch.')}, {how}",
        weight_bytes=weight_bytes(backbone.model, quantization),
        processes=processes,
        held_bytes=held_weight_bytes(backbone.model, processes) if sharded else None,
        adapter=adapters[0].kind,
        adapter_numbers=sum(tensor.numel() for adapter in adapters for tensor in adapter.tensors()),
        trained_numbers=sum(parameter.numel() for parameter in trained),
        state_bytes=state_bytes,
        train_pairs=len(train),
        validation_pairs=len(validation),
        pairs_assumed=data is None,
        median_tokens=statistics.median(train.lengths),
        step=method.name + (", checkpointing" if method.checkpointing else ""),
        reference_bytes=reference,
        epochs=epochs,
        peak_bytes=peak,
        seconds=seconds,
        trial=trial,
        unknown=unknown,
    )


def duration(seconds: float) -> str:
    """Return seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

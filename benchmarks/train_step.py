"""A training step of comparative prefix-tuning: time and memory of the naive one, the plain one, the fast one, each trick.

    python benchmarks/train_step.py                                   # everything, on the trial's model
    python benchmarks/train_step.py --json step.json --plot curves.png
    python benchmarks/train_step.py --part step --rounds 3            # the table alone
    python benchmarks/train_step.py --part step --model 1b --device cuda --dtype bfloat16
    python benchmarks/train_step.py --part step --model 1b --device cuda --dtype bfloat16 --pairs 11 --no-memory \
        --variant "reference cached" --variant all --variant "all, by sequences"      # 8,250 unique tokens a step
    python benchmarks/train_step.py --part step --device cuda --dtype bfloat16 --model 1b

step      one step (forward, loss, backward; no optimiser) of every variant of train_variants.py on the same random Llama
          and the same random pair. They take turns, round by round, in one process; the time is the median round, after
          one to warm up. Ratios are to the naive step of the same run. `predicted` is the ratio of the operations that
          train_costs.py counts, `of predicted` the measured ratio as a share of it, `of matmul` those operations
          per second as a share of what a large matrix product reaches in the same rounds. Memory is that of a process per
          variant at its peak: above what it held with the model loaded and a tiny step done; that and the weights; and
          the whole of it, libraries included (see train_measure.py). Last, how far loss and gradient are from naive's:
          the largest difference, as a share of the largest value.
curves    the same for naive, plain and fast, as one of P, R and V varies; and what follows: is the fast step's time linear
          in unique tokens once attention is taken away, is its memory flat in V.

The weights and tokens are random: they do not change the speed. The fast step finds its reference computed, as in all
epochs but the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from train_curves import CURVES, curves_part
from train_measure import MEMORY, hardware, measure
from train_variants import TRICKS, Setting

from cptlab.tracking.provenance import version_of

MODELS = {  # the trial's, and one of the proportions of Llama 3.2 1B
    "trial": {},
    "1b": {"layers": 16, "hidden": 2048, "intermediate": 8192, "heads": 32, "kv_heads": 8, "vocabulary": 128256},
}
GATES = {"ratio": 2.3, "of_predicted": 0.85, "memory": 0.5, "difference": 1e-4}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves there")
    parser.add_argument("--part", choices=("step", "curves"), action="append", help="default: all")
    parser.add_argument("--variant", choices=tuple(TRICKS), action="append", help="of the table; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true", help="measure time alone")
    parser.add_argument("--model", choices=tuple(MODELS), default="trial")
    for entry in fields(Setting):
        parser.add_argument(f"--{entry.name.replace('_', '-')}", type=type(entry.default))
    for axis, points in CURVES.items():
        parser.add_argument(f"--{axis}-points", type=int, nargs="+", default=points)
    options = parser.parse_args(arguments)
    given = {e.name: getattr(options, e.name) for e in fields(Setting) if getattr(options, e.name) is not None}
    setting = Setting(**MODELS[options.model] | given)
    results: dict[str, Any] = {
        "setting": setting.as_dict(), "rounds": options.rounds, "hardware": hardware(setting.device),
        "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in
                     ("cptlab", "torch", "transformers", "peft")}},
    }  # fmt: skip
    print(f"{setting}\n{results['hardware']}, {results['threads']} threads, {options.rounds} rounds")
    parts = {"step": step_part, "curves": curves_part}
    for name in options.part or parts:
        results[name] = parts[name](setting, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


# step ---------------------------------------------------------------------------------------------------------------


def step_part(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    names = ["naive", *(name for name in options.variant or TRICKS if name != "naive")]
    found, matmul = measure(setting, names, options.rounds, not options.no_memory)
    tokens = setting.pairs * sum(setting.lengths.rows)
    unique = setting.pairs * setting.lengths.packed
    columns = ("seconds", "tokens/s", "of matmul", "4N of it", "ratio", "predicted", "of predicted", "MiB added", "of naive",
               "with weights", "of naive", "MiB peak", "of naive", "loss off", "gradient off")  # fmt: skip
    print(f"\nOne step, {setting.pairs} pair(s) of {tokens // setting.pairs} tokens in both programs; a large matrix product "
          f"does {matmul / 1e9:.0f} GFLOP/s; 4N of it: its share at 4 operations for each parameter and each of {unique} unique tokens\n{'':36}" + "".join(f"{text:>{len(text) + 2}}" for text in columns))  # fmt: skip
    for name, one in found.items():
        cells = [f"{one['seconds']:.3f}", f"{one['tokens_per_second']:.0f}", f"{one['of_matmul']:.0%}",
                 f"{one['of_matmul_unique']:.0%}", f"{one['ratio']:.2f}",
                 f"{one['predicted']:.2f}", f"{one['of_predicted']:.0%}"]  # fmt: skip
        for key in MEMORY:
            of = key.replace("_mib", "_ratio")
            cells += [f"{one[key]:.0f}", f"{one[of]:.2f}"] if key in one else ["", ""]
        cells += [f"{one['loss_difference']:.0e}", f"{one['gradient_difference']:.0e}"]
        print(f"{name:36}" + "".join(f"{cell:>{len(text) + 2}}" for text, cell in zip(columns, cells, strict=True)))
    results = {"variants": found, "matmul_flops": matmul}
    if "all" in found:
        results["gates"] = gates(found, setting)
    return results


def gates(found: dict[str, dict[str, float]], setting: Setting) -> dict[str, bool]:
    """Whether the goals of the fast step are met, printed."""
    fast, worst = found["all"], 0.0
    for one in found.values():
        worst = max(worst, one["loss_difference"], one["gradient_difference"])
    checks = {
        f"{fast['ratio']:.2f} x as fast as naive (goal {GATES['ratio']})": fast["ratio"] >= GATES["ratio"],
        f"{fast['of_predicted']:.0%} of the predicted ratio (goal {GATES['of_predicted']:.0%})":
            fast["of_predicted"] >= GATES["of_predicted"],
    }  # fmt: skip
    if "added_mib" in fast:
        for key, text in (("added_ratio", "above the loaded model"), ("with_weights_ratio", "the weights counted")):
            checks[f"{fast[key]:.0%} of naive's peak memory, {text} (goal {GATES['memory']:.0%})"] = (
                fast[key] <= GATES["memory"]
            )
    if setting.dtype in ("float32", "float64"):
        checks[f"loss and gradient of all within {worst:.0e} (goal {GATES['difference']:.0e})"] = (
            worst <= GATES["difference"]
        )
    for text, met in checks.items():
        print(f"  {'met    ' if met else 'NOT MET'} {text}")
    if "plain" in found:
        if "peak_mib" in fast:
            rest = fast["peak_mib"] - fast["added_mib"]
            print(
                f"  {fast['peak_ratio']:.0%} of naive's whole process, of which Python, libraries and weights are {rest:.0f} MiB"
            )
        ratio, predicted = (found["all"][key] / found["plain"][key] for key in ("ratio", "predicted"))
        print(f"  against the plain step: {ratio:.2f} x as fast, {ratio / predicted:.0%} of the predicted ratio")
    return checks


if __name__ == "__main__":
    main(sys.argv[1:])

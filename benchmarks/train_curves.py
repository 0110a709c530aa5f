"""How the time and the memory of a training step grow with P, R and V: the second part of train_step.py."""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.nn import functional
from train_measure import measure, timed
from train_variants import Setting

CURVES = {
    "instruction": (50, 200, 400, 800, 1200),
    "rest": (50, 150, 300, 600),
    "vocabulary": (4000, 16000, 32000, 128000),
}
SYMBOLS = {"instruction": "P", "rest": "R", "vocabulary": "V"}
SIDES = {"naive": "naive (PEFT)", "plain": "plain", "all": "fast"}


def curves_part(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    rounds = max(2, options.rounds // 2)
    results: dict[str, Any] = {}
    print(f"\nCurves, {rounds} rounds{'':10}{'seconds':>20}{'MiB added':>27}{'attention of':>21}\n{'':13}{'unique':>8}"
          + f"{'naive':>9}{'plain':>9}{'fast':>9}" * 2 + f"{'fast, s':>13}")  # fmt: skip
    for axis in CURVES:
        points = results[axis] = []
        for value in getattr(options, f"{axis}_points"):
            at = replace(
                setting, **{axis: value, "masked": min(setting.masked, value if axis == "rest" else setting.rest)}
            )
            found, _ = measure(at, list(SIDES), rounds, not options.no_memory)
            point = {"value": value, "unique": at.pairs * at.lengths.packed, "attention": attention_seconds(at, rounds),
                     "seconds": {name: found[name]["seconds"] for name in SIDES}}  # fmt: skip
            if not options.no_memory:
                point["added_mib"] = {name: found[name]["added_mib"] for name in SIDES}
            points.append(point)
            memory = [f"{mib:9.0f}" for mib in point.get("added_mib", {}).values()] or [" " * 27]
            print(f"{SYMBOLS[axis]:>3}{value:10}{point['unique']:8}" + "".join(f"{point['seconds'][n]:9.3f}" for n in SIDES)
                  + "".join(memory) + f"{point['attention']:13.3f}")  # fmt: skip
    results["linear"] = {axis: linear(results[axis]) for axis in ("instruction", "rest")}
    for axis, fit in results["linear"].items():
        print(f"  over {SYMBOLS[axis]}, fast time without attention = {1000 * fit['constant']:.0f} ms + "
              f"{1000 * fit['per_token']:.2f} ms per unique token; farthest from the line: {fit['farthest']:.0%}")  # fmt: skip
    if not options.no_memory:
        for name in SIDES:
            low, high = (results["vocabulary"][i]["added_mib"][name] for i in (0, -1))
            print(f"  memory above the loaded model, {name}: {low:.0f} MiB at V = {results['vocabulary'][0]['value']}, "
                  f"{high:.0f} MiB at V = {results['vocabulary'][-1]['value']}")  # fmt: skip
    if options.plot:
        draw(results, options.plot)
    return results


def attention_seconds(setting: Setting, rounds: int) -> float:
    """The fast step's attention alone: all layers' kernel, forward and backward, under a dense mask."""
    tokens, dtype = setting.lengths.packed, getattr(torch, setting.dtype)

    def tensor(heads: int, length: int) -> torch.Tensor:
        shape = (setting.pairs, heads, length, setting.hidden // setting.heads)
        return torch.randn(shape, device=setting.device, dtype=dtype, requires_grad=True)

    query, key, value = tensor(setting.heads, tokens), *(tensor(setting.heads, setting.prefix + tokens) for _ in "kv")
    mask = torch.zeros(setting.pairs, 1, tokens, setting.prefix + tokens, device=setting.device, dtype=dtype)
    gradient = torch.ones_like(query)

    def layer() -> None:
        output = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        torch.autograd.grad(output, (query, key, value), gradient)

    layer()
    return setting.layers * statistics.median(timed(layer, setting.device) for _ in range(5 * rounds))


def linear(points: list[dict[str, Any]]) -> dict[str, float]:
    """The line through the fast step's times without attention over unique tokens, all points counting alike by
    their relative distance."""
    tokens = numpy.array([float(point["unique"]) for point in points])
    times = numpy.array([point["seconds"]["all"] - point["attention"] for point in points])
    per_token, constant = (
        numpy.polyfit(tokens, times, 1, w=1 / numpy.abs(times)) if len(points) > 1 else (times[0], 0.0)
    )
    off = numpy.abs(constant + per_token * tokens - times) / numpy.abs(times)
    return {"constant": float(constant), "per_token": float(per_token), "farthest": float(off.max())}


def draw(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measures = ["seconds", *(["added_mib"] if "added_mib" in results["instruction"][0] else [])]
    figure, axes = pyplot.subplots(len(measures), len(CURVES), figsize=(11, 3.2 * len(measures)), squeeze=False)
    titles = {
        "instruction": "instruction tokens P",
        "rest": "tokens R that differ, per program",
        "vocabulary": "vocabulary V",
    }
    units = {"seconds": "seconds per step", "added_mib": "MiB above the loaded model"}
    for row, name in zip(axes, measures, strict=True):
        for place, axis in zip(row, CURVES, strict=True):
            for side, label in SIDES.items():
                points = [(point["value"], point[name][side]) for point in results[axis]]
                place.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
            place.set(xlabel=titles[axis], ylim=(0, None), xlim=(0, None))
            place.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(units[name])
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)

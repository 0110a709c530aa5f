"""How long it takes to choose the next tokens: a part of every decoding step, whatever the model.

    python benchmarks/choose.py                                      # prints a table
    python benchmarks/choose.py --device cuda --rows 32 256 --json choose.json

For `--rows` programs and `--vocabulary` tokens, temperature 0.8 and top-p 0.95, logits whose nuclei have some tokens, as a language
model's have:

    whole       the whole vocabulary is sorted (`choose_without_looking`): what a recorded step falls back to
    likeliest   the nucleus is searched among the likeliest tokens, and rows where it is larger are told (`choose_among_likeliest`)
    looks       the same among fewer, with a look whether they suffice (`choose`): the plain loop

`ms` is the median of `--rounds`, which take turns; `to whole` the ratio to the first; `sure` the share of rows whose nucleus is
among the likeliest. That tokens are the same is checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cptlab.decoding import Sampling  # noqa: E402
from cptlab.decoding.sampling import choose, choose_among_likeliest, choose_without_looking  # noqa: E402

SAMPLING = Sampling(0.8, 0.95)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[40])
    parser.add_argument("--vocabulary", type=int, default=151_936, help="tokens; that of Qwen2.5 by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    options = parser.parse_args(arguments)
    table = [row for rows in options.rows for row in measured(rows, options)]
    print(f"{'':12}{'rows':>6}{'ms':>10}{'to whole':>10}{'sure':>8}")
    for row in table:
        print(f"{row['side']:12}{row['rows']:6}{row['ms']:10.2f}{row['to_whole']:10.3f}{row['sure']:8.0%}")
    if options.json:
        found = {
            "device": options.device,
            "vocabulary": options.vocabulary,
            "torch": version("torch"),
            "choices": table,
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measured(rows: int, options: argparse.Namespace) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(rows, options.vocabulary, generator=generator)
    logits[:, :100] += 25 * torch.rand(rows, 100, generator=generator)
    uniform = torch.rand(rows, dtype=torch.float64, generator=generator).to(options.device)
    logits = logits.to(options.device)
    sides: dict[str, Callable[[], Tensor]] = {
        "whole": lambda: choose_without_looking(logits, SAMPLING, uniform),
        "likeliest": lambda: choose_among_likeliest(logits, SAMPLING, uniform)[0],
        "looks": lambda: choose(logits, SAMPLING, uniform),
    }
    _, sure = choose_among_likeliest(logits, SAMPLING, uniform)
    tokens = {name: side() for name, side in sides.items()}
    assert torch.equal(tokens["looks"], tokens["whole"]) and torch.equal(
        tokens["likeliest"][sure], tokens["whole"][sure]
    )
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            times[name].append(seconds(side, options.device))
    found = {name: 1000 * statistics.median(taken) for name, taken in times.items()}
    return [
        {"side": name, "rows": rows, "ms": ms, "to_whole": ms / found["whole"], "sure": sure.double().mean().item()}
        for name, ms in found.items()
    ]


def seconds(work: Callable[[], Tensor], device: str) -> float:
    start = time.perf_counter()
    work()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1:])

"""Time, values and memory of the variants of a training step (see train_variants.py).

python benchmarks/train_measure.py VARIANT SETTING       # the memory of one variant as JSON; SETTING is JSON, too
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from train_costs import ModelSize
from train_variants import Setting, Step, flops, random_llama, step_of

MIB = 1 << 20
MEMORY = ("added_mib", "with_weights_mib", "peak_mib")


def measure(setting: Setting, names: list[str], rounds: int, memory: bool) -> tuple[dict[str, dict[str, float]], float]:
    """What is known of each variant by name, the first being what the others are compared with; and the operations
    per second of a large matrix product, measured in the same rounds."""
    backbone = random_llama(setting)
    size = ModelSize.of(backbone.model)
    counted = {name: flops(name, setting, size) for name in names}
    steps = {name: step_of(name, backbone, setting) for name in names}
    seconds, values, matmul = in_turn(steps, rounds, setting)
    first, results = names[0], {}
    unique = setting.pairs * setting.lengths.packed
    for name in names:
        taken, total = statistics.median(seconds[name]), setting.pairs * counted[name].total
        (loss, gradient), (its_loss, its_gradient) = values[name], values[first]
        ratio = statistics.median(seconds[first]) / taken
        predicted = counted[first].total / counted[name].total
        results[name] = {
            "seconds": taken, "all_seconds": seconds[name], "flops": total,
            "tokens_per_second": setting.pairs * sum(setting.lengths.rows) / taken, "of_matmul": total / taken / matmul,
            "unique_tokens": unique, "of_matmul_unique": 4 * size.parameters * unique / taken / matmul,
            "ratio": ratio, "predicted": predicted, "of_predicted": ratio / predicted, "loss": loss,
            "loss_difference": abs(loss - its_loss) / abs(its_loss),
            "gradient_difference": float((gradient - its_gradient).abs().max() / its_gradient.abs().max()),
        }  # fmt: skip
    del backbone, steps, values
    for name in names if memory else ():
        results[name] |= memory_of(name, setting)
        for key in MEMORY:
            results[name][key.replace("_mib", "_ratio")] = results[name][key] / results[first][key]
    return results, matmul


def in_turn(
    steps: dict[str, Step], rounds: int, setting: Setting
) -> tuple[dict[str, list[float]], dict[str, tuple[float, torch.Tensor]], float]:
    """Seconds of each step in each round, its loss and gradient, and the matrix product's operations per second."""
    values = {}
    for name, step in steps.items():
        loss, gradient = step()
        values[name] = (loss, gradient.double().cpu())
    edge = 4096 if setting.device != "cpu" else 1024
    a, b = torch.randn(2, edge, edge, device=setting.device, dtype=getattr(torch, setting.dtype))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    products = []
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step, setting.device))
        products += [timed(lambda: a @ b, setting.device) for _ in range(3)]
    return seconds, values, 2 * edge**3 / statistics.median(products)


def timed(work: Callable[[], Any], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def memory_of(name: str, setting: Setting) -> dict[str, float]:
    """`memory_here`, in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, name, json.dumps(setting.as_dict())]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"The memory of {name} could not be measured:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def memory_here(name: str, setting: Setting) -> dict[str, float]:
    """MiB of this process in two steps: `peak_mib` in all, by how much that exceeds what it held before them
    (`added_mib`: the model, the pair and the libraries were there), and that with the weights (`with_weights_mib`).

    A step on a tiny pair comes first, so that the libraries' own memory is not counted. On CUDA it is what is allocated.
    """
    backbone = random_llama(setting)
    tiny = replace(setting, instruction=2, common=1, rest=2, masked=1, pairs=1)
    step_of(name, backbone, tiny)()
    step = step_of(name, backbone, setting)
    cuda = setting.device != "cpu"
    before = cuda_bytes_from_here() if cuda else resident_bytes_from_here()
    step(), step()
    peak = torch.cuda.max_memory_allocated() if cuda else status_bytes("VmHWM")
    weights = sum(parameter.nbytes for parameter in backbone.model.parameters())
    return {
        "added_mib": (peak - before) / MIB,
        "with_weights_mib": (peak - before + weights) / MIB,
        "peak_mib": peak / MIB,
    }


def cuda_bytes_from_here() -> int:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def resident_bytes_from_here() -> int:
    """Resident memory of this process, after it gave back what is free and forgot its peak (Linux, glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def status_bytes(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def hardware(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name()
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    return f"{model[1] if model else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


if __name__ == "__main__":
    print(json.dumps(memory_here(sys.argv[1], Setting(**json.loads(sys.argv[2])))))

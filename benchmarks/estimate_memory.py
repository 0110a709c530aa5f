"""The estimate of a step's memory beside what the process really took.

    OMP_NUM_THREADS=1 python benchmarks/estimate_memory.py

A random Llama (8 layers, 512 hidden, a vocabulary of 32,000, float32) on a CPU; one pair of 400 instruction, 50 common,
150/150 rest and 40/40 masked tokens. For each method, with and without checkpointing, in a process of its own: the
peak of resident memory during a step above that before it, and what `cptlab.estimate.footprint` counts from the config.

Twice: with glibc's allocator as it is, which keeps freed blocks of up to 32 MiB in pieces that do not fit the next
tensor, and with one that gives every tensor back (MALLOC_MMAP_THRESHOLD_), which shows what the tensors themselves take.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from train_measure import resident_bytes_from_here, status_bytes  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from cptlab.estimate.calibration import one_pair_step  # noqa: E402
from cptlab.estimate.footprint import Shapes, footprint, shape_backbone, shape_pair  # noqa: E402
from cptlab.training.objectives import CPT  # noqa: E402
from cptlab.training.steps.choice import StepMethod  # noqa: E402
from cptlab.training.steps.token_pairs import Lengths  # noqa: E402

LENGTHS = Lengths(400, 50, 150, 150, 40, 40)
PREFIX = 12
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
CONFIG = {"vocab_size": 32000, "hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1376,
          "num_attention_heads": 8, "max_position_embeddings": 2048}  # fmt: skip


def measured(method: StepMethod) -> int:
    """Bytes that a step adds to the resident memory at its peak."""
    shapes = Shapes()
    backbone = shape_backbone(LlamaConfig(**CONFIG), torch.float32, shapes)
    torch.manual_seed(0)
    backbone.model = AutoModelForCausalLM.from_config(LlamaConfig(**CONFIG)).requires_grad_(False).eval()
    step = one_pair_step(backbone, PREFIX, CPT(), method)
    step(shape_pair(Lengths(8, 2, 4, 4, 2, 2)))  # what the libraries take once
    before = resident_bytes_from_here()
    step(shape_pair(LENGTHS))
    return status_bytes("VmHWM") - before


def predicted(method: StepMethod) -> int:
    shapes = Shapes()
    backbone = shape_backbone(LlamaConfig(**CONFIG), torch.float32, shapes)
    with shapes:
        return footprint(backbone, PREFIX, CPT(), method, [shape_pair(LENGTHS)]).peak


def in_a_process(method: StepMethod, environment: dict[str, str]) -> int:
    """`measured`, in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps([method.name, method.checkpointing])]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return int(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    child = parser.parse_args().child
    if child:
        name, checkpointing = json.loads(child)
        print(measured(StepMethod(name, checkpointing=checkpointing)))
        return
    print("| step | estimate, MiB | tensors, MiB | / estimate | resident memory, MiB | / estimate |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in ("fast", "plain"):
        for checkpointing in (False, True):
            method = StepMethod(name, checkpointing=checkpointing)
            guess, tensors, real = predicted(method), in_a_process(method, RETURNED), in_a_process(method, {})
            title = name + (", checkpointing" if checkpointing else "")
            print(
                f"| {title} | {guess / 2**20:.0f} | {tensors / 2**20:.0f} | {tensors / guess:.2f} "
                f"| {real / 2**20:.0f} | {real / guess:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

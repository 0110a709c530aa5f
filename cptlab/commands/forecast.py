"""What a training run will take: said before it starts, or alone with `estimate=true`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cptlab.commands.build_pairs import find_pairs
from cptlab.settings.instantiate import instantiate

FITS = 0.8  # of the free memory, which a model may take to be loaded for a measurement


def print_estimate(config: DictConfig) -> None:
    """Print the whole table, and do nothing else.

    The backbone's config is enough. Where its weights are on this machine and fit, it is loaded: for the exact lengths
    of pairs that are already there, and to measure the time.
    """
    import torch

    from cptlab.backbone import load_config
    from cptlab.estimate.estimate import ASSUMED, estimate, weight_bytes
    from cptlab.training import Compute, StepMethod
    from cptlab.training.steps.choice import declared_reason

    node, compute = config.backbone, Compute(**config.compute)
    objective = instantiate(config.objective, "objective")
    where = {name: node[name] for name in ("revision", "local_files_only") if name in node}
    model_config, weights_are_here = load_config(node.path, **where)
    run_settings = _run_settings(config)
    reason = declared_reason(model_config) if compute.step == "fast" else None
    cuda = torch.cuda.is_available() and node.device != "cpu"
    free = torch.cuda.mem_get_info()[0] if cuda else _free_memory()
    needed = weight_bytes(model_config, run_settings["dtype"], run_settings["quantization"])
    if weights_are_here and needed < FITS * free:
        backbone = instantiate(node, "backbone")
        file = Path(config.data.pairs_file) if config.data.pairs_file else find_pairs(config, backbone)
        data = None if file is None else instantiate(config.data.loader, "data.loader", file, backbone, _partial_=False)
        found = forecast(config, backbone, data, objective, compute, compare=True)
    else:
        method = StepMethod("plain" if reason else compute.step, reason, compute.checkpointing)
        found = estimate(model_config, *([ASSUMED] * count for count in _most_pairs(config)), assumed=True,
                         objective=objective, method=method, compute=compute, **run_settings)
    if reason:
        print(f"The plain step would be used: {reason}.")
    print("\n".join(found.lines()))


def forecast(config: DictConfig, backbone: Any, data: Any, objective: Any, compute: Any, method: Any = None,
             compare: bool = False) -> Any:
    """The estimate of a run with its backbone and pairs there (or pairs of assumed lengths), with the time measured."""
    from cptlab.estimate.calibration import calibrate, one_pair_step
    from cptlab.estimate.estimate import ASSUMED, estimate
    from cptlab.estimate.footprint import shape_pair
    from cptlab.training import choose_step
    from cptlab.training.steps.token_pairs import Lengths

    method = method or choose_step(backbone, compute)
    if data is None:
        splits = [[shape_pair(ASSUMED)] * count for count in _most_pairs(config)]
    else:
        splits = [data.splits[split].pairs for split in ("train", "validation")]
    step = one_pair_step(backbone, config.prefix.length, objective, method, reference_on_disk=compute.reference == "disk")
    return estimate(backbone.config, *([Lengths.of(example) for example in split] for split in splits),
                    assumed=data is None, objective=objective, method=method, compute=compute,
                    calibration=calibrate(step, splits[0]), compare=compare, **_run_settings(config))


def _most_pairs(config: DictConfig) -> list[int]:
    """How many pairs there can be for training and validation, where they are not there: one per task."""
    if "dataset" in config.pairs:
        return [1, 1]  # unknown
    counts = [config.pairs[f"{split}_tasks"] for split in ("train", "validation")]
    if None in counts:
        benchmark = instantiate(config.benchmark, "benchmark")
        counts = [len(benchmark.split(split, count)) for split, count in zip(("train", "validation"), counts)]
    return counts


def _run_settings(config: DictConfig) -> dict[str, Any]:
    from cptlab.backbone.loading import DTYPES

    devices = config.trainer.get("devices", 1)
    return {
        "dtype": DTYPES[config.backbone.dtype], "quantization": config.backbone.get("quantization"),
        "attn_implementation": config.backbone.get("attn_implementation"),
        "prefix_length": config.prefix.length, "prefix_rank": config.prefix.rank,
        "batch_size": config.data.loader.batch_size,
        "epochs": (config.stages.first_epochs, config.stages.second_epochs),
        "processes": devices if isinstance(devices, int) and devices > 0 else 1,
    }


def _free_memory() -> float:
    """Bytes that a process could take here; unknown is as much as one likes."""
    file = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", file.read_text()) if file.is_file() else None
    return int(found[1]) * 1024 if found else float("inf")

"""What a training run will take: said before it starts, or alone with `estimate=true`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from cptlab.commands.shared.build_pairs import find_pairs
from cptlab.commands.shared.common import say
from cptlab.errors import UserError
from cptlab.progress import waiting
from cptlab.settings.instantiate import instantiate

FITS = 0.8  # of the free memory, which a backbone may take to be loaded for a measurement


def print_estimate(config: DictConfig, adapters_of: Callable[..., list[Any]]) -> None:
    """Print the whole table, and do nothing else. `adapters_of` makes what the run would train.

    The backbone's config is enough. Where its weights are on this machine and fit, it is loaded, to measure steps on the
    pairs that are already there.
    """
    from cptlab.backbone import load_config
    from cptlab.backbone.loading import DTYPES
    from cptlab.estimate.sizes import empty_backbone, weight_bytes
    from cptlab.training import StepMethod, choose_step
    from cptlab.training.reference import readable
    from cptlab.training.steps.step_method import step_reason

    node, compute = config.backbone, instantiate(config.compute, "compute")
    objective = instantiate(config.objective, "objective")
    where = {name: node[name] for name in ("revision", "local_files_only") if name in node}
    model_config, weights_are_here = load_config(node.path, **where)
    backbone = empty_backbone(model_config, DTYPES[node.dtype])
    quantization, free = node.get("quantization"), _free_bytes(node.device)
    needed = weight_bytes(backbone.model, quantization)
    data = unknown = None
    if not weights_are_here or needed > FITS * free:
        lack = f"fit into {readable(free)} of free memory" if weights_are_here else "lie on this machine"
        unknown = f"the backbone's weights do not {lack}"
        adapters = adapters_of(config, backbone, objective)
        reason = step_reason(backbone, adapters) if compute.step == "fast" else None
        method = StepMethod("plain" if reason else compute.step, reason, compute.checkpointing)
    else:
        backbone, quantization = instantiate(node, "backbone"), None
        adapters = adapters_of(config, backbone, objective)
        file = find_pairs(config, backbone)
        if file is not None:
            positions = adapters[0].positions
            data = instantiate(
                config.data.loader, "data.loader", file, backbone, adapter_positions=positions, _partial_=False
            )
        method = choose_step(backbone, compute, adapters)
    if method.reason:
        print(f"The plain step would be used: {method.reason}.")
    options = {"method": method, "compute": compute, "quantization": quantization, "unknown": unknown}
    with waiting("Measuring training steps"):
        found = _estimate(config, backbone, adapters, data, objective, **options)
    print("\n".join(found.lines()))


def say_estimate(config: DictConfig, *parts: Any, **options: Any) -> dict[str, Any] | None:
    """Say what the run will take in two lines, and return it as plain data; None where a step does not fit."""
    try:
        with waiting("Measuring training steps"):
            found = _estimate(config, *parts, **options)
    except UserError as error:
        say(f"No estimate: {error}")
        return None
    say("\n".join(found.short()))
    return dataclasses.asdict(found)


def _estimate(config: DictConfig, *parts: Any, **options: Any) -> Any:
    import torch

    from cptlab.estimate.estimate import estimate
    from cptlab.training.loop.sharded_strategy import SHARDED_LAYERS

    devices, stages = config.trainer.get("devices", 1), instantiate(config.stages, "stages")
    if config.trainer.get("accelerator") == "gpu" and devices in ("auto", -1):
        devices = torch.cuda.device_count()
    options["processes"] = devices if type(devices) is int and devices > 0 else 1
    if config.trainer.get("strategy") == SHARDED_LAYERS:
        options |= {"sharded": True, "unknown": options.get("unknown") or "the layers are shared out over processes"}
        options["compute"] = dataclasses.replace(options["compute"], reference="recompute")  # as training does
    return estimate(*parts, stages=stages, **options)


def _free_bytes(device: str) -> float:
    """Return the bytes that a backbone could take on its device; infinite where the system does not say."""
    import torch

    if torch.cuda.is_available() and device != "cpu":
        return torch.cuda.mem_get_info()[0]
    file = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", file.read_text()) if file.is_file() else None
    return int(found[1]) * 1024 if found else float("inf")

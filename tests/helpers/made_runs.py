"""A finished training run on kata-lm that needs no training: its prefix is drawn, and large enough to change programs."""

import json
from pathlib import Path

import torch
from omegaconf import OmegaConf
from run_commands import command, config

from cptlab.adapters import Prefix, save_prefix
from cptlab.backbone import load_backbone


def make_run(where: Path, name: str = "made") -> Path:
    """Make `where`/logs/train/runs/`name`, and return it."""
    run = where / "logs" / "train" / "runs" / name
    (run / "prefix").mkdir(parents=True)
    OmegaConf.save(config("train", where, "adapter=prefix"), run / "config.yaml", resolve=True)
    backbone = load_backbone("kata-lm")
    prefix = Prefix(backbone, length=5, seed=3)
    with torch.no_grad():
        prefix.table.mul_(25)
    save_prefix(prefix, run / "prefix", backbone, {"run": name})
    record = {
        "name": "train-made",
        "choices": {"objective": "cpt", "adapter": "prefix", "backbone": "kata_lm"},
        "seed": 0,
    }
    (run / "run.json").write_text(json.dumps({"digest": "0", "finished": True, **record}))
    facts = {"metrics": {}, "versions": {"cptlab": "0.2.0"}, "git": {"commit": "abc", "dirty": False}}
    (run / "metrics.json").write_text(json.dumps(facts | {"pairs": f"{where}/cache/pairs.jsonl"}))
    return run


def make_evaluated_run(where: Path) -> tuple[Path, Path, Path]:
    """Make a training run below `where` and evaluate it; return `where` and both directories."""
    run = make_run(where)
    return where, run, evaluate_run(where, run)


def evaluate_run(where: Path, run: Path, *overrides: str) -> Path:
    """Evaluate base and tuned on three tasks of kata, greedily unless `overrides` say otherwise; return the directory."""
    asked = f"run={run}", "decoding=greedy", "limit=3", "workers=1", "print_config=false", "logger=none", *overrides
    command("evaluate", where, *asked)
    return where / "logs" / "evaluate" / "runs" / "now"

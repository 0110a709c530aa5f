"""Evaluate systems on held-out tasks: by default the base model and the tuned one. Or programs from elsewhere.

    python evaluate.py                                  (the latest training run)
    python evaluate.py run=logs/train/runs/<time> system=[base,tuned,best_of_n,ruff_fix]
    python evaluate.py -m decoding=paper,spa
    python evaluate.py completions=programs.jsonl benchmark=humaneval    (rows with task_id and completion or solution)
    python evaluate.py completions=new.jsonl against=old.jsonl benchmark=mbpp
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cptlab.commands.evaluate import evaluate
from cptlab.settings.entry import entry, job


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> float | None:
    fresh = Path(HydraConfig.get().runtime.output_dir)
    return job(lambda config: evaluate(config, fresh), config)


if __name__ == "__main__":
    entry(main)

"""Train a prefix: build the pairs if they are not there yet, run both stages, export to PEFT's format.

    python train.py
    python train.py seed=1 ablation=no_rank
    python train.py -m seed=1,2 ablation=full,no_rank
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cptlab.commands.train import train
from cptlab.settings.entry import entry, job


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float | None:
    fresh = Path(HydraConfig.get().runtime.output_dir)
    return job(lambda config: train(config, fresh), config)


if __name__ == "__main__":
    entry(main)

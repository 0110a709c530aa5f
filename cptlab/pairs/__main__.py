"""Build the pairs alone: python -m cptlab.pairs [pairs=paper backbone=… any other override]

A thin entry like train.py; it needs the clone's conf/ folder.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from cptlab import pipeline, settings

CONF = Path(__file__).resolve().parents[2] / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="pairs")
def main(config: DictConfig) -> None:
    settings.job(lambda config: print(pipeline.build_pairs(config) / pipeline.PAIRS_FILE), config)


if __name__ == "__main__":
    settings.entry(main)

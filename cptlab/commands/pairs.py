"""Build the pairs alone: python -m cptlab.commands.pairs [pairs=paper backbone=… any other override]

A thin entry like train.py; it needs the clone's conf/ folder.
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from cptlab.commands.build_pairs import build_pairs
from cptlab.commands.common import PAIRS_FILE
from cptlab.settings.entry import entry, job

CONF = Path(__file__).resolve().parents[2] / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="pairs")
def main(config: DictConfig) -> None:
    job(lambda config: print(build_pairs(config) / PAIRS_FILE), config)


if __name__ == "__main__":
    entry(main)

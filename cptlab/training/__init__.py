"""Comparative prefix-tuning itself: losses, batches of pairs, the LightningModule, and the two stages.

    data = PairDataModule("pairs.jsonl", backbone)
    prefix = train_stages(backbone, Prefix(backbone.shape), data, directory="run")
"""

from cptlab.training import losses
from cptlab.training.callbacks import StageProgress
from cptlab.training.datamodule import Batch, PairDataModule
from cptlab.training.module import PrefixTuning
from cptlab.training.objective import Objective
from cptlab.training.stages import make_trainer, train_stages

__all__ = ["Batch", "Objective", "PairDataModule", "PrefixTuning", "StageProgress", "losses", "make_trainer",
           "train_stages"]

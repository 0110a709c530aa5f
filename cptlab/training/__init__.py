"""Training a prefix: objectives, batches of pairs, the two engines, the LightningModule, and the two stages.

    data = PairDataModule("pairs.jsonl", backbone)
    prefix = train_stages(backbone, Prefix(backbone.shape), data, directory="run")
"""

from cptlab.training.loop.callbacks import StageProgress
from cptlab.training.loop.datamodule import PairDataModule
from cptlab.training.loop.module import PrefixTuning
from cptlab.training.loop.stages import make_trainer, train_stages
from cptlab.training.objectives import CPT, Objective, losses
from cptlab.training.steps.batches import Batch
from cptlab.training.steps.choice import Compute, Engine, choose_engine

__all__ = ["CPT", "Batch", "Compute", "Engine", "Objective", "PairDataModule", "PrefixTuning", "StageProgress",
           "choose_engine", "losses", "make_trainer", "train_stages"]

"""Training a prefix: objectives, batches of pairs, the two engines, the LightningModule, and the two stages.

    data = PairDataModule("pairs.jsonl", backbone)
    prefix = train_stages(backbone, Prefix(backbone.shape), data, directory="run")
"""

from cptlab.training import losses
from cptlab.training.batches import Batch
from cptlab.training.callbacks import StageProgress
from cptlab.training.datamodule import PairDataModule
from cptlab.training.engine import Compute, Engine, choose_engine
from cptlab.training.module import PrefixTuning
from cptlab.training.objectives import CPT, Objective
from cptlab.training.stages import make_trainer, train_stages

__all__ = ["CPT", "Batch", "Compute", "Engine", "Objective", "PairDataModule", "PrefixTuning", "StageProgress",
           "choose_engine", "losses", "make_trainer", "train_stages"]

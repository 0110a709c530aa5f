"""Training an adapter: objectives, batches of pairs, the two ways to compute a step, the LightningModule, and the two stages.

data = PairDataModule("pairs.jsonl", backbone)
prefix = train_stages(backbone, Prefix(backbone.shape), data, directory="run")
"""

from cptlab.training.loop.callbacks import StageProgress
from cptlab.training.loop.datamodule import PairDataModule
from cptlab.training.loop.module import PrefixTuning
from cptlab.training.loop.stages import make_trainer, train_stages
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective
from cptlab.training.objectives.cpt import CPT
from cptlab.training.steps.batches import Batch
from cptlab.training.steps.choice import Compute, StepMethod, choose_step

__all__ = [
    "CPT",
    "Batch",
    "Compute",
    "StepMethod",
    "Objective",
    "PairDataModule",
    "PrefixTuning",
    "StageProgress",
    "choose_step",
    "losses",
    "make_trainer",
    "train_stages",
]

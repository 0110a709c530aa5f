"""Training an adapter: objectives, the two ways to compute a step, the LightningModule, and the two stages.

data = PairDataModule("pairs.jsonl", backbone)
prefix = train_stages(backbone, Prefix(backbone), data, directory="run")
"""

from cptlab.training.loop.calibration import fastest_step
from cptlab.training.loop.callbacks import StageProgress
from cptlab.training.loop.datamodule import PairDataModule
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.loop.sharded_strategy import ShardedLayers, check_sharded
from cptlab.training.loop.stages import Stages, make_trainer, train_stages
from cptlab.training.objectives import losses
from cptlab.training.objectives.base import Objective
from cptlab.training.objectives.cpt import CPT
from cptlab.training.steps.batches import Batch
from cptlab.training.steps.compute import Compute
from cptlab.training.steps.step_method import StepMethod, choose_step

__all__ = [
    "CPT",
    "AdapterTraining",
    "Batch",
    "Compute",
    "Objective",
    "PairDataModule",
    "StageProgress",
    "ShardedLayers",
    "Stages",
    "StepMethod",
    "check_sharded",
    "choose_step",
    "fastest_step",
    "losses",
    "make_trainer",
    "train_stages",
]

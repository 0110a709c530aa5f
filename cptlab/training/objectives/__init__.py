"""What a training step minimises: CPT, its second stage, and the baselines, all through one interface.

Each file holds one objective: source, formula, what it does not do. docs/objectives.md has them side by side.
"""

from cptlab.training.objectives.base import Objective, Outputs
from cptlab.training.objectives.cpt import CPT
from cptlab.training.objectives.dpo import DPO
from cptlab.training.objectives.dpop import DPOP
from cptlab.training.objectives.nll import NLL
from cptlab.training.objectives.orpo import ORPO
from cptlab.training.objectives.simpo import SimPO
from cptlab.training.objectives.sven import SVEN

__all__ = ["CPT", "DPO", "DPOP", "Outputs", "ORPO", "Objective", "SVEN", "SimPO", "NLL"]

"""cptlab: make a frozen code LLM write better code.

import cptlab

model = cptlab.load("latest")              # a training run: backbone, prefix, and model.generate("a prompt")

from cptlab.backbone import load_backbone

from cptlab.adapters import Prefix, load_prefix, save_prefix
from cptlab.decoding import Guidance, Masked, Sampling, generate
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.pairs import token_masks, select_pair
from cptlab.training import CPT, choose_engine, train_stages
from cptlab.training.objectives import losses

backbone = load_backbone("kata-lm")        # the model inside this package
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"
__all__ = ["__version__", "load"]


def load(run: str = "latest", **options: Any) -> Any:
    """Load a training run: a `cptlab.systems.trained_model.TrainedModel`, whose `load` says which options there are."""
    # by name: torch takes seconds to import, and rooms below import this module
    return importlib.import_module("cptlab.systems.trained_model").load(run, **options)

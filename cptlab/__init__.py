"""cptlab: make a frozen code LLM write better code.

from cptlab.backbone import load_backbone

from cptlab.adapters import Prefix, load_prefix, save_prefix
from cptlab.decoding import Guidance, Masked, Sampling, generate
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.pairs import token_masks, select_pair
from cptlab.training import CPT, choose_engine, train_stages
from cptlab.training.objectives import losses

backbone = load_backbone("kata-lm")        # the model inside this package
"""

__version__ = "0.2.0"

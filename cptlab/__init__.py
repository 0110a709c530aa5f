"""cptlab: make a frozen code LLM write better code.

    from cptlab.backbone import load_backbone, Prefix, load_prefix, save_prefix
    from cptlab.decoding import Guidance, Masked, Sampling, generate
    from cptlab.judging.quality import score_programs
    from cptlab.pairs import token_masks, select_pair
    from cptlab.training import CPT, choose_engine, losses, train_stages

    backbone = load_backbone("kata-lm")        # the model inside this package
"""

__version__ = "0.1.0"

"""Frozen causal language models, the prefix that is trained on them, and its PEFT format."""

from cptlab.backbone.loading import load_backbone, load_config
from cptlab.backbone.model import Backbone, mask_id_of
from cptlab.backbone.peft_format import load_prefix, read_extra, save_prefix
from cptlab.backbone.prefix import Prefix, PrefixShape
from cptlab.backbone.state import DecodeState
from cptlab.backbone.support import prefix_shape

__all__ = [
    "Backbone",
    "DecodeState",
    "Prefix",
    "PrefixShape",
    "load_backbone",
    "load_config",
    "load_prefix",
    "mask_id_of",
    "prefix_shape",
    "read_extra",
    "save_prefix",
]

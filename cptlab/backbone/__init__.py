"""Frozen causal language models that run with or without a prefix of keys and values."""

from cptlab.backbone.attention_bias import AttentionBias
from cptlab.backbone.decode_state import DecodeState
from cptlab.backbone.loading import load_backbone, load_config
from cptlab.backbone.model import Backbone
from cptlab.backbone.prefix_shape import FixedPrefix, KeyValuePrefix, PrefixShape, prefix_shape, split_table
from cptlab.backbone.special_tokens import mask_id_of

__all__ = [
    "AttentionBias",
    "Backbone",
    "DecodeState",
    "FixedPrefix",
    "KeyValuePrefix",
    "PrefixShape",
    "load_backbone",
    "load_config",
    "mask_id_of",
    "prefix_shape",
    "split_table",
]

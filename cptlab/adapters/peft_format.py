"""Prefixes on disk, in the format of Hugging Face PEFT's prefix tuning (written without PEFT).

A directory holds `adapter_config.json` (`peft_type: PREFIX_TUNING`), `adapter_model.safetensors` with the one tensor
`prompt_embeddings` [M, 2·L·num_kv_heads·head_dim], and `cptlab.json` with what cptlab knows beyond that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cptlab.backbone import Backbone, PrefixShape
from cptlab.errors import UserError
from cptlab.storage.atomic import write_bytes, write_text

CONFIG, WEIGHTS, EXTRA = "adapter_config.json", "adapter_model.safetensors", "cptlab.json"


def write_table(
    table: torch.Tensor, shape: PrefixShape, directory: Path, backbone: Backbone | str, extra: dict[str, Any] | None
) -> None:
    """Write a prefix as its table [M, shape.width]; see `cptlab.adapters.save_prefix`."""
    path = backbone if isinstance(backbone, str) else backbone.path
    config = {
        "auto_mapping": None,
        "base_model_name_or_path": path,
        "encoder_hidden_size": shape.num_kv_heads * shape.head_dim,
        "inference_mode": True,
        "init_weights": None,
        "num_attention_heads": shape.num_kv_heads,
        "num_layers": shape.num_layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": len(table),
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "revision": None if isinstance(backbone, str) else backbone.revision,
        "task_type": "CAUSAL_LM",
        "token_dim": shape.num_kv_heads * shape.head_dim,
    }
    table = table.detach().float().cpu().contiguous().clone()
    write_bytes(directory / WEIGHTS, save({"prompt_embeddings": table}, metadata={"format": "pt"}))
    write_extra(directory, backbone, extra)
    write_text(directory / CONFIG, json.dumps(config, indent=2) + "\n")


def write_extra(directory: Path, backbone: Backbone | str, extra: dict[str, Any] | None) -> None:
    """Write `cptlab.json` beside an exported adapter: which backbone it was trained on, and the plain data `extra`."""
    about = {} if isinstance(backbone, str) else {"backbone": backbone.name, "fingerprint": backbone.fingerprint}
    write_text(directory / EXTRA, json.dumps(about | (extra or {}), indent=2) + "\n")


def read_extra(directory: str | os.PathLike) -> dict[str, Any]:
    """Return what `write_extra` wrote; empty for an adapter that another program saved."""
    path = Path(directory) / EXTRA
    return _read_json(path) if path.is_file() else {}


def read_base_model(directory: str | os.PathLike) -> tuple[str, str | None]:
    """Return the hub id or directory of the model that an adapter was trained on, and its revision. Raises UserError."""
    config = _read_json(Path(directory) / CONFIG)
    path = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(path, str) or not path:
        raise UserError(
            f"{Path(directory) / CONFIG} does not say which model the adapter belongs to. Load that model with "
            "cptlab.backbone.load_backbone and the adapter with cptlab.adapters.load_prefix."
        )
    return path, config.get("revision")


def read_table(directory: Path, expect: PrefixShape | None) -> tuple[torch.Tensor, PrefixShape]:
    """Return the table [M, shape.width] of a prefix, bit for bit, and its shape; see `cptlab.adapters.load_prefix`."""
    remedy = "Give the directory of a prefix, such as <train run>/prefix."
    if not (directory / CONFIG).is_file():
        raise UserError(f"There is no {CONFIG} in {directory}. {remedy}")
    try:
        config = _read_json(directory / CONFIG)
        kind = config.get("peft_type")
        if kind != "PREFIX_TUNING":
            raise UserError(f"{directory} holds an adapter of type {kind}, not PREFIX_TUNING. {remedy}")
        heads = config["num_attention_heads"]
        shape = PrefixShape(config["num_layers"], heads, config["token_dim"] // heads)
        table = load_file(directory / WEIGHTS)["prompt_embeddings"].to(torch.float32)
    except (OSError, LookupError, TypeError, AttributeError, ArithmeticError, SafetensorError) as error:
        raise UserError(f"The prefix in {directory} cannot be read ({error!r}). {remedy}") from None
    if table.shape != (config["num_virtual_tokens"], shape.width):
        raise UserError(
            f"The prefix in {directory} is damaged: its tensor is {tuple(table.shape)}, its config says "
            f"{(config['num_virtual_tokens'], shape.width)}. Save it again."
        )
    if expect is not None and shape != expect:
        raise UserError(
            f"The prefix in {directory} belongs to another backbone: it has {shape}, while this backbone has {expect}. "
            "Use the backbone that it was trained on, or train a prefix for this one."
        )
    return table, shape


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}). Export the prefix again.") from None

"""Check that an untested architecture runs exactly with a prefix, by running it."""

from __future__ import annotations

import torch

from cptlab.backbone.foreign_errors import raised_outside
from cptlab.backbone.model import Backbone
from cptlab.backbone.prefix_shape import REMEDY, FixedPrefix, PrefixShape, text_config
from cptlab.errors import UserError

TOKENS, PADDING, STEPS = 12, 4, 2  # of a row, of the padded row, decoded one by one
WINDOW = 4  # tokens of the sliding window while it is tried, so that short rows reach beyond it
TOLERANCES = {torch.float32: 0.005, torch.float64: 0.005}  # of the median distance; for other dtypes ROUGH
ROUGH = 0.05


def check_exact(backbone: Backbone) -> None:
    """Run a few tokens through a model whose architecture is not in `TESTED`. Raises UserError if it is not exact.

    It is exact if our logits are those of its own forward pass and no token sees later ones, if a row gives the same
    logits alone, padded, and beside a row at the end of the context, if decoding step by step gives those of one pass,
    and if all parts of the prefix have a gradient. Logits are compared by the median over positions of the
    relative L2 distance, which allows for an expert that is chosen differently now and then.
    """
    try:
        faults = _faults(backbone)
    except Exception as error:  # an unknown architecture may raise anything for masks and caches
        if not raised_outside(error):
            raise
        raise UserError(
            f"A {backbone.config.model_type} model cannot run with a prefix ({type(error).__name__}: {error}). {REMEDY}"
        ) from error
    if any(faults.values()):
        wrong = " and ".join(fault for fault, found in faults.items() if found)
        raise UserError(f"A {backbone.config.model_type} model {wrong}, so results would be wrong. {REMEDY}")


def _faults(backbone: Backbone) -> dict[str, bool]:
    """Return what may be wrong with an architecture, and whether it is. Takes some eight short passes."""
    few = min(1000, backbone.vocab_size)
    row = torch.randint(0, few, (TOKENS,), generator=torch.Generator().manual_seed(0))
    other_end = row.clone()
    other_end[-1] = (row[-1] + 1) % few
    ids = torch.stack([row, other_end]).to(backbone.device)
    whole, padded = torch.ones_like(ids), torch.ones_like(ids)
    padded[0, :PADDING] = 0
    noise = torch.Generator(backbone.device).manual_seed(0)
    table = torch.randn(3, backbone.shape.width, generator=noise, device=backbone.device, requires_grad=True)
    prefix = FixedPrefix(table, backbone.shape)
    with torch.enable_grad():
        batch = backbone.logits(ids, padded, prefix)
        batch[1, :-1].float().log_softmax(-1).gather(-1, ids[1, 1:, None]).sum().backward()
    with torch.no_grad():
        own = backbone.model(input_ids=ids).logits
        plain = backbone.logits(ids, whole)
        alone = backbone.logits(ids[:1, PADDING:], whole[:1, PADDING:], prefix)[0]
        _, state = backbone.prefill(ids[:, :-STEPS], padded[:, :-STEPS], prefix)
        steps = torch.stack([backbone.step(ids[:, i], state) for i in range(TOKENS - STEPS, TOKENS)], dim=1)
        state = backbone.opening(2)
        state.next_position[1] = backbone.context_length - TOKENS
        beside_far = backbone.extend(ids, whole, state)
        own_narrow, narrow = (own, plain) if backbone.window is None else _with_narrow_window(backbone, ids)

    def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
        distance = (a - b).float().norm(dim=-1) / b.float().norm(dim=-1)
        return not bool(distance.median() <= TOLERANCES.get(backbone.dtype, ROUGH))  # NaN differs

    assert table.grad is not None
    exact_alone = not differ(plain, own)
    return {
        "gives other logits than its own forward pass": not exact_alone,
        "lets tokens see what comes after them": differ(own[1, :-1], own[0, :-1]),
        "has a sliding window that its own forward pass applies otherwise": exact_alone and differ(narrow, own_narrow),
        "gives other logits in a padded batch": differ(batch[0, PADDING:], alone),
        "gives other logits beside a row at the end of its context": differ(beside_far[0], plain[0, -1]),
        "gives other logits when decoding": differ(steps, batch[:, -STEPS:]),
        "does not see all of the prefix": _some_are_dead(table.grad, backbone.shape),
    }


def _with_narrow_window(backbone: Backbone, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits [B, T, V] of the model's own forward pass, and ours, with a sliding window of `WINDOW` tokens."""
    config, window = text_config(backbone.config), backbone.window
    try:
        config.sliding_window = backbone.window = WINDOW
        return backbone.model(input_ids=ids).logits, backbone.logits(ids, torch.ones_like(ids))
    finally:
        config.sliding_window = backbone.window = window


def _some_are_dead(gradient: torch.Tensor, shape: PrefixShape) -> bool:
    """Return whether some head, or some dimension of all heads, has keys or values in the prefix without a gradient.

    `gradient` [M, width]. A single number's gradient may be rounded to 0, so no verdict hangs on one.
    """
    alive = (gradient != 0).view(len(gradient), shape.num_layers, 2, shape.num_kv_heads, shape.head_dim)
    of_heads, of_dimensions = alive.any(4).any(0), alive.any(0).any(0).any(1)
    return not bool(of_heads.all() and of_dimensions.all())

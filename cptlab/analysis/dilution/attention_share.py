"""The share of attention on the prompt while a model generates, by last-layer attention and by gradient.

SPA (arXiv 2408.09121) appendix A.1. When the model generates token i (from 0), its context is the prompt x and the
tokens t_0 … t_{i-1} that it generated before. Every token of the context has a score, and eq. 22 is the prompt's share:

    α_i = Σ_{t in x} score(t) / (Σ_{t in x} score(t) + Σ_{j<i} score(t_j))

So α_0 = 1, and the newest token of the context, which attends to itself, too, counts as generated. The printed
equations 20 and 21 leave the score open. The scores here are those of the authors' code (`weighted_text_utils.py` in the
folder `obsolete` of github.com/magic-YuanTian/Selective-Prompt-Anchoring):

- `attention`: the weight that the last position of the context gives to the token in the last layer, after softmax,
  averaged over the heads (every query head counts the same, also where heads share keys).
- `gradient`: the L2 norm of the gradient of a sum of logits of the next token with respect to the token's input
  embedding. The sum is over the `top_logits` largest logits (100 in the authors' code).
- `attention_summed`: eq. 20 as printed sums over all pairs of positions, so the score is the weight that the token
  received from every position of the context so far, those of the prompt included. It falls more slowly.

A uniform score would give |x| / (|x| + i), a fall that is due to the context's length alone. The tokens that the
tokenizer puts before the text (begin-of-text) are part of the prompt. The positions of a CPT prefix are neither prompt
nor generated and do not count in α. `attention_prefix` is their share of all the weight of the last position. They have
no input embedding, so there is no gradient for them.

With guidance (for a program made with SPA, say), the attention is that of the first stream.

One pass over prompt and program, with the causal mask, gives the weights of all steps; gradients need a backward pass
per generated token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cptlab.analysis.dilution.programs import Program
from cptlab.backbone import Backbone, KeyValuePrefix
from cptlab.errors import UserError

DIGITS = 6  # of the stored shares


@dataclass(frozen=True)
class Shares:
    """The shares of one program, one for each generated token. `gradient` and `attention_prefix` may be empty.

    `tokens` are the generated tokens as text, and `prompt_tokens` is the number of tokens of the prompt.
    """

    task_id: str
    prompt_tokens: int
    tokens: tuple[str, ...]
    attention: tuple[float, ...]
    attention_summed: tuple[float, ...]
    gradient: tuple[float, ...] = ()
    attention_prefix: tuple[float, ...] = ()


def compute_shares(
    backbone: Backbone,
    program: Program,
    *,
    prefix: KeyValuePrefix | None = None,
    gradient: bool = True,
    top_logits: int = 100,
    progress: Callable[[int], None] | None = None,
) -> Shares:
    """Compute all shares of one program. `progress` is called with the number of generated tokens just computed."""
    advance = progress or (lambda done: None)
    attention, summed, on_prefix = attention_shares(backbone, program, prefix)
    by_gradient: list[float] = []
    if gradient:
        for share in gradient_shares(backbone, program, prefix, top_logits):
            by_gradient.append(share)
            advance(1)
    else:
        advance(len(program.tokens))
    return Shares(
        program.task_id,
        len(program.prompt),
        tuple(str(backbone.tokenizer.decode([token])) for token in program.tokens),
        *(tuple(round(share, DIGITS) for share in shares) for shares in (attention, summed, by_gradient, on_prefix)),
    )


def attention_shares(
    backbone: Backbone, program: Program, prefix: KeyValuePrefix | None = None
) -> tuple[list[float], list[float], list[float]]:
    """Return `attention`, `attention_summed` and `attention_prefix` (or []) of each generated token."""
    weights = last_layer_attention(backbone, program.prompt + program.tokens[:-1], prefix).double().mean(0)
    before = 0 if prefix is None else prefix.length
    start = before + len(program.prompt)
    on_prefix, on_prompt = weights[:, :before].sum(-1), weights[:, before:start].sum(-1)
    on_text = on_prompt + weights[:, start:].sum(-1)
    on_text = on_text.clamp_min(torch.finfo(on_text.dtype).tiny)  # a prefix may take all the weight in float32
    steps = slice(len(program.prompt) - 1, None)  # the positions whose logits give the generated tokens
    share = (on_prompt / on_text)[steps]
    summed = (on_prompt.cumsum(0) / on_text.cumsum(0))[steps]
    return share.tolist(), summed.tolist(), on_prefix[steps].tolist() if before else []


def gradient_shares(
    backbone: Backbone, program: Program, prefix: KeyValuePrefix | None = None, top_logits: int = 100
) -> Iterator[float]:
    """Yield `gradient` of each generated token. Each takes a backward pass. Raises UserError for NaN."""
    length = len(program.prompt)
    row = torch.tensor([program.prompt + program.tokens[:-1]], device=backbone.device)
    with torch.enable_grad(), _embeddings(backbone) as found:
        logits = backbone.logits(row, torch.ones_like(row), prefix)[0, length - 1 :]
        targets = logits.topk(min(top_logits, logits.shape[-1])).values.sum(-1)
    for i, target in enumerate(targets):
        (gradient,) = torch.autograd.grad(target, found[0], retain_graph=i + 1 < len(targets))
        norms = gradient[0].double().norm(dim=-1)
        on_prompt, on_generated = norms[:length].sum(), norms[length:].sum()
        share = float(on_prompt / (on_prompt + on_generated))
        if share != share:
            raise UserError(
                f"The gradient of task {program.task_id} at token {i} is not a number. Set backbone.dtype=float32, or "
                "gradient=false to measure attention alone."
            )
        yield share


@torch.no_grad()
def last_layer_attention(backbone: Backbone, ids: tuple[int, ...], prefix: KeyValuePrefix | None = None) -> Tensor:
    """Return the attention weights of the last layer [query heads, T, M + T] for T tokens behind a prefix of M.

    Raises UserError for an architecture that does not return them.
    """
    row = torch.tensor([ids], device=backbone.device)
    shape = (len(ids), (0 if prefix is None else prefix.length) + len(ids))
    found: list[Tensor] = []

    def look(module, args, output) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.dim() == 4 and weights.shape[-2:] == shape:
            found.append(weights)

    # the last layer alone: output_attentions=True would keep the weights of all layers in memory
    last = backbone.shape.num_layers - 1
    hooks = [m.register_forward_hook(look) for m in backbone.model.modules() if getattr(m, "layer_idx", None) == last]
    try:
        with _eager(backbone):
            backbone.logits(row, torch.ones_like(row), prefix)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError(
            f"The attention weights of a {backbone.config.model_type} model cannot be read. Use a backbone of another "
            "architecture."
        )
    return found[0][0]


@contextmanager
def _eager(backbone: Backbone) -> Iterator[None]:
    """Use the attention kernel that returns its weights. The faster ones never have them."""
    before: Any = backbone.config._attn_implementation
    backbone.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        backbone.model.set_attn_implementation(before)


@contextmanager
def _embeddings(backbone: Backbone) -> Iterator[list[Tensor]]:
    """Collect the input embeddings [1, T, H] of the forward pass in this context, with gradients."""
    found: list[Tensor] = []

    def look(module, args, output: Tensor) -> Tensor:
        found.append(output.detach().requires_grad_(True))
        return found[-1]

    hook = backbone.model.get_input_embeddings().register_forward_hook(look)
    try:
        yield found
    finally:
        hook.remove()

"""The ways to compute one and the same CPT training step that benchmarks/train_step.py compares.

naive                        PEFT prefix tuning as the public code of SVEN does it: per program one forward with the
                             prefix and one without, log-softmaxes over the whole vocabulary at all positions
plain                        cptlab's readable step (`compute.step=plain`)
reference cached             the plain step, but the backbone's own final states are there already
shared                       … but what both programs begin with is computed once, in one packed row
head where needed            … but the head is applied where the loss asks for it, some rows at a time
all                          cptlab's fast step: the three together
all, checkpointed            the same with the activations of every layer recomputed in the backward pass
all, by sequences            the fast step with attention by sequences, over one row of all pairs: with its kernel on a GPU in
                             half precision, elsewhere one sequence after the other
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from peft import PrefixTuningConfig, get_peft_model
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.nn import functional
from train_costs import POLICY_ATTENTION, VARIANTS, Flops, ModelSize, plain_flops, sequences_attention, step_flops
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cptlab.adapters import Policy, Prefix  # noqa: E402
from cptlab.backbone import Backbone  # noqa: E402
from cptlab.backbone.gradient_checkpointing import checkpointed  # noqa: E402
from cptlab.backbone.sequence_attention import by_sequences  # noqa: E402
from cptlab.training.objectives import CPT, losses  # noqa: E402
from cptlab.training.steps.batches import Batch, collate  # noqa: E402
from cptlab.training.steps.fast import FastOutputs  # noqa: E402
from cptlab.training.steps.packing import Packed, pack  # noqa: E402
from cptlab.training.steps.plain import PlainOutputs  # noqa: E402
from cptlab.training.steps.token_pairs import Lengths, TokenPair  # noqa: E402

PREFIX_STD = 0.5  # larger than at the start of training, so that the KL and its gradient are not lost in rounding
CHECKPOINTED = "all, checkpointed"
BY_SEQUENCES = "all, by sequences"
TRICKS = {"naive": {}, "plain": {}} | VARIANTS | {CHECKPOINTED: VARIANTS["all"], BY_SEQUENCES: VARIANTS["all"]}

Step = Callable[[], tuple[float, Tensor]]  # the loss, and its gradient [M, width] with respect to the prefix's table


@dataclass(frozen=True)
class Setting:
    """A random Llama, and the pairs of a step: tokens of the instruction P, the common code C, the rest R of each
    program, D of them masked; `prefix` is M."""

    layers: int = 8
    hidden: int = 512
    intermediate: int = 1376
    heads: int = 8
    kv_heads: int = 8
    vocabulary: int = 32000
    device: str = "cpu"
    dtype: str = "float32"
    pairs: int = 1
    instruction: int = 400
    common: int = 50
    rest: int = 150
    masked: int = 40
    prefix: int = 12

    def __str__(self) -> str:
        return (f"Llama of {self.layers} layers, {self.hidden} hidden, {self.intermediate} intermediate, {self.heads} heads "
                f"({self.kv_heads} of keys), {self.vocabulary} tokens, {self.dtype}, {self.device}; P/C/R/D = "
                f"{self.instruction}/{self.common}/{self.rest}/{self.masked}, prefix {self.prefix}, pairs per step "
                f"{self.pairs}")  # fmt: skip

    @property
    def lengths(self) -> Lengths:
        return Lengths(self.instruction, self.common, self.rest, self.rest, self.masked, self.masked)

    def as_dict(self) -> dict:
        return asdict(self)


def random_llama(setting: Setting) -> Backbone:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=setting.vocabulary, hidden_size=setting.hidden, intermediate_size=setting.intermediate,
        num_hidden_layers=setting.layers, num_attention_heads=setting.heads, num_key_value_heads=setting.kv_heads,
        max_position_embeddings=setting.prefix + setting.instruction + setting.common + setting.rest,
        bos_token_id=None, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    with torch.device(setting.device):
        model = LlamaForCausalLM(config).to(getattr(torch, setting.dtype))
    words = Tokenizer(models.WordLevel({"<eos>": 0, "<pad>": 1}, unk_token="<pad>"))  # Backbone wants one
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<pad>")
    return Backbone(model, tokenizer, "random-llama")


def random_examples(setting: Setting) -> list[TokenPair]:
    """Random tokens; the masked ones lie evenly over the rest of a program, its first token being one of them."""
    chance = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [chance.randrange(2, setting.vocabulary) for _ in range(count)]

    places = {index * setting.rest // max(1, setting.masked) for index in range(setting.masked)}
    mask = [0] * setting.common + [int(index in places) for index in range(setting.rest)]
    examples = []
    for _ in range(setting.pairs):
        instruction, common, a, b = (
            tokens(n) for n in (setting.instruction, setting.common, setting.rest, setting.rest)
        )
        if a[:1] == b[:1]:
            b[0] = a[0] - 1 if a[0] > 2 else a[0] + 1
        examples.append(TokenPair(instruction, (common + a, mask), (common + b, mask)))
    return examples


def flops(name: str, setting: Setting, size: ModelSize) -> Flops:
    """What `train_costs.py` counts for a pair; recomputed layers cost their forward once more."""
    if name == "plain":
        return plain_flops(size, setting.lengths, setting.prefix)
    counted = step_flops(size, setting.lengths, setting.prefix, **TRICKS[name])
    if name == CHECKPOINTED:
        tokens = setting.lengths.packed
        again = Flops(2 * size.parameters * tokens, 0, size.attention(tokens, setting.prefix + tokens))
        counted = Flops(counted.backbone + again.backbone, counted.head, counted.attention + again.attention)
    if name == BY_SEQUENCES:
        attention = POLICY_ATTENTION * sequences_attention(size, setting.lengths, setting.prefix)
        counted = Flops(counted.backbone, counted.head, attention)
    return counted


def step_of(name: str, backbone: Backbone, setting: Setting) -> Step:
    """The step of that name; what it keeps between steps (the reference) is computed here."""
    prefix = Prefix(backbone.shape, setting.prefix, seed=1).to(backbone.device)
    with torch.no_grad():
        prefix.table *= PREFIX_STD / prefix.table.std()
    examples = random_examples(setting)
    if name == "naive":
        return naive_step(backbone, prefix, examples)
    tricks = TRICKS[name]
    batch = collate(examples, backbone.pad_id)
    if tricks and not tricks.get("shared"):
        batch = Unshared(*(getattr(batch, field) for field in ("pairs", "pad_id", "tokens", "mask", "code")))
    batch = batch.to(backbone.device)
    by = name == BY_SEQUENCES
    batch.one_row if by else batch.packed if tricks else batch.padded  # noqa: B018 (laid out once, as a loader would)
    if tricks.get("cached"):
        batch = with_reference(backbone, batch)
    outputs = FastOutputs if tricks.get("needed") else EverywhereOutputs if tricks else PlainOutputs
    if by:
        outputs = partial(FastOutputs, by_sequences=True)
    around = {CHECKPOINTED: checkpointed, BY_SEQUENCES: by_sequences}.get(name, nullcontext)
    objective = CPT()

    def step() -> tuple[float, Tensor]:
        prefix.table.grad = None
        with around(backbone.model):
            terms = objective.weighted(objective.terms(outputs(backbone, batch, [prefix.policy(backbone)])))
            loss = sum(terms.values()).mean()
            loss.backward()
        return float(loss.detach()), prefix.table.grad

    return step


def naive_step(backbone: Backbone, prefix: Prefix, examples: list[TokenPair]) -> Step:
    """The published equations with PEFT and transformers, nothing of cptlab but the prefix's values."""
    shape = prefix.shape
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=prefix.length, num_layers=shape.num_layers,
        token_dim=shape.num_kv_heads * shape.head_dim, num_attention_heads=shape.num_kv_heads,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers in a way that will go
        model = get_peft_model(backbone.model, config).eval()
    table = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        table.copy_(prefix.table)
    weights = CPT()
    rows = []
    for example in examples:
        for ids, mask in (example.better, example.worse):
            start = len(example.instruction)
            code = torch.tensor([[0] * (start - 1) + [1] * len(ids)], device=backbone.device)
            differs = torch.tensor([[0] * (start - 1) + mask], device=backbone.device)
            rows.append((torch.tensor([example.instruction + ids], device=backbone.device), differs, code - differs))

    def of_program(ids: Tensor, differs: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
        """The score (eq. 9) and the KL (eq. 11) of one program."""
        attended = torch.ones_like(ids)
        policy = model(input_ids=ids, attention_mask=attended).logits
        with torch.no_grad(), model.disable_adapter():
            reference = model(input_ids=ids, attention_mask=attended).logits
        policy = functional.log_softmax(policy[:, :-1].float(), dim=-1)
        reference = functional.log_softmax(reference[:, :-1].float(), dim=-1)
        scores = policy.gather(-1, ids[:, 1:, None])[..., 0]
        kl = functional.kl_div(reference, policy, reduction="none", log_target=True).sum(-1)
        return (scores * differs).sum(), (kl * same).sum()

    def step() -> tuple[float, Tensor]:
        table.grad = None
        total = torch.zeros((), device=backbone.device)
        for better, worse in zip(rows[::2], rows[1::2], strict=True):
            (score_a, kl_a), (score_b, kl_b) = of_program(*better), of_program(*worse)
            rank = -functional.logsigmoid(score_a - score_b)
            loss = weights.w_rank * rank - weights.w_lm * score_a + weights.w_kl * (kl_a + kl_b)
            loss = loss / len(examples)
            loss.backward()
            total += loss.detach()
        return float(total), table.grad

    return step


class Unshared(Batch):
    """A batch whose packed rows hold one program each: instruction and common code are computed for both."""

    @cached_property
    def packed(self) -> Packed:
        swapped = [TokenPair(example.instruction, example.worse, example.better) for example in self.pairs]
        return pack([*self.pairs, *swapped], self.pad_id, better_only=True).to(self.tokens.device)


class EverywhereOutputs(FastOutputs):
    """The fast step with the plain one's use of the head: logits of all places, softmaxes at all predicting ones."""

    def scores(self, where: Tensor, policy: int = 0) -> Tensor:
        state = self.batch.packed.state
        return self._policy_log_probs(policy)[state, self.batch.tokens].masked_fill(~where, 0)

    def kl(self, where: Tensor, direction: str, policy: int = 0) -> Tensor:
        divergence = losses.position_kl(self._policy_log_probs(policy), self._reference_log_probs, direction)
        return divergence[self.batch.packed.state].masked_fill(~where, 0)

    def _policy_log_probs(self, index: int) -> Tensor:
        if index not in self._log_probs:
            logits = self.backbone.head(self._of(index))
            self._log_probs[index] = losses.log_probs(logits[self.batch.packed.predicting])
        return self._log_probs[index]

    @cached_property
    def _log_probs(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    @torch.no_grad()
    def _reference_log_probs(self) -> Tensor:
        if self.batch.reference is not None:
            return losses.log_probs(self.backbone.head(self._reference))
        return losses.log_probs(self.backbone.head(self._run(Policy(self.backbone)))[self.batch.packed.predicting])


def with_reference(backbone: Backbone, batch: Batch) -> Batch:
    return batch.with_reference(FastOutputs(backbone, batch, []).reference_rows())

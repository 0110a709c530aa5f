"""Pairs as batches: tokenised once, shuffled by (seed, epoch), shared out over processes, resumable within an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.pairs import read_pairs
from cptlab.records import Pair


@dataclass(frozen=True)
class Example:
    """A pair in tokens: the instruction, and (ids, mask) of the better and of the worse program, eos included."""

    instruction: list[int]
    better: tuple[list[int], list[int]]
    worse: tuple[list[int], list[int]]

    @property
    def length(self) -> int:
        return len(self.instruction) + max(len(self.better[0]), len(self.worse[0]))


@dataclass
class Batch:
    """2B programs behind their instructions: B better ones, then the B worse ones in the same order.

    Instructions are padded on the left and programs on the right, so the code of every row begins at column `start`:
    `input_ids` and `attention_mask` [2B, T], `mask` (the differences m) bool [2B, T - start]. `lengths` are the
    numbers of code tokens. A batch that is not `counted` only keeps this process in step with the others.
    """

    input_ids: Tensor
    attention_mask: Tensor
    mask: Tensor
    start: int
    lengths: tuple[int, ...]
    counted: bool = True

    @property
    def tokens(self) -> Tensor:
        """The code tokens [2B, C]."""
        return self.input_ids[:, self.start :]

    @property
    def code(self) -> Tensor:
        """Which of `tokens` are code and which are padding, bool [2B, C]."""
        return self.attention_mask[:, self.start :].bool()

    def better(self) -> Batch:
        """The better programs alone, [B, T'] without the columns that only worse ones need."""
        half = len(self.lengths) // 2
        lengths = self.lengths[:half]
        end = self.start + max(lengths)
        return replace(
            self,
            input_ids=self.input_ids[:half, :end],
            attention_mask=self.attention_mask[:half, :end],
            mask=self.mask[:half, : max(lengths)],
            lengths=lengths,
        )

    def to(self, device: torch.device, **kwargs) -> Batch:
        """The same batch on another device (Lightning calls this)."""
        moved = {n: getattr(self, n).to(device, **kwargs) for n in ("input_ids", "attention_mask", "mask")}
        return replace(self, **moved)


def encode_pair(pair: Pair, backbone: Backbone, append_eos: bool) -> Example:
    """The tokens of a pair; the masks are the pair's own, and 0 on the end-of-text token.

    That token follows a program that ended by itself, not one that was cut off.
    """

    def program(text: str, mask: Sequence[int], finished: bool) -> tuple[list[int], list[int]]:
        ids = backbone.encode_completion(text)
        return (ids + [backbone.eos_id], [*mask, 0]) if append_eos and finished else (ids, list(mask))

    instruction = backbone.encode_prompt(pair.instruction)
    if not instruction:
        raise UserError(
            f"The pair of task {pair.task_id} has an empty instruction, so nothing predicts its first token. "
            "Leave that pair out."
        )
    return Example(
        instruction,
        program(pair.better, pair.better_mask, pair.better_finished),
        program(pair.worse, pair.worse_mask, pair.worse_finished),
    )


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """The batch of B examples; see `Batch` for its layout."""
    programs = [example.better for example in examples] + [example.worse for example in examples]
    instructions = [example.instruction for example in examples] * 2
    start = max(len(instruction) for instruction in instructions)
    width = max(len(ids) for ids, _ in programs)
    input_ids = torch.full((len(programs), start + width), pad_id)
    attention_mask = torch.zeros(len(programs), start + width, dtype=torch.long)
    mask = torch.zeros(len(programs), width, dtype=torch.bool)
    for row, (instruction, (ids, differs)) in enumerate(zip(instructions, programs, strict=True)):
        first, end = start - len(instruction), start + len(ids)
        input_ids[row, first:end] = torch.tensor(instruction + ids)
        attention_mask[row, first:end] = 1
        mask[row, : len(ids)] = torch.tensor(differs, dtype=torch.bool)
    return Batch(input_ids, attention_mask, mask, start, tuple(len(ids) for ids, _ in programs))


class PairLoader:
    """Batches of training pairs, `batch_size` for each of `world` processes.

    Epoch e visits the pairs in an order drawn from (seed, e) alone. Step k takes the k-th `world * batch_size` of them,
    and process r the r-th part of that, so W processes with batch size b see at every step what one process with batch
    size W·b sees. Pairs that do not fill a last step are left out of that epoch (others in the next one).

    The state is (epoch, position), which Lightning keeps in its checkpoints: a run resumes at the next batch.
    """

    def __init__(
        self, examples: Sequence[Example], batch_size: int, seed: int, pad_id: int, rank: int = 0, world: int = 1
    ) -> None:
        self.examples, self.batch_size, self.seed, self.pad_id = examples, batch_size, seed, pad_id
        self.rank, self.pairs_per_step = rank, batch_size * world
        self.epoch = self.position = 0
        self.sampler = self  # Lightning calls sampler.set_epoch before every epoch

    def __len__(self) -> int:
        return len(self.examples) // self.pairs_per_step

    def __iter__(self) -> Iterator[Batch]:
        if self.position == len(self):
            self.set_epoch(self.epoch + 1)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.examples))
        while self.position < len(self):
            first = self.position * self.pairs_per_step + self.rank * self.batch_size
            self.position += 1
            yield collate([self.examples[i] for i in order[first : first + self.batch_size]], self.pad_id)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, unless this is it already."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "pairs_per_step": self.pairs_per_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if state["pairs_per_step"] != self.pairs_per_step:
            raise UserError(
                f"This run was started with {state['pairs_per_step']} pairs per step, now there would be "
                f"{self.pairs_per_step}. Resume it with the same data.loader.batch_size and number of devices, "
                "or start a new run in another directory."
            )
        self.epoch, self.position = state["epoch"], state["position"]


class PairDataModule(lightning.LightningDataModule):
    """The train and validation pairs of a file that `cptlab.pairs` wrote, in the tokens of `backbone`.

    `batch_size` pairs per process and step; validation takes `eval_batch_size` at once. `append_eos`: end every program
    with the end-of-text token, for pairs of programs that ended by themselves. Raises UserError for a bad file, a
    training split without (enough) pairs, and a tokenizer without end-of-text token.
    """

    def __init__(
        self,
        pairs_file: str | Path,
        backbone: Backbone,
        *,
        batch_size: int = 1,
        eval_batch_size: int = 8,
        seed: int = 0,
        append_eos: bool = True,
    ) -> None:
        super().__init__()
        if append_eos and backbone.eos_id is None:
            raise UserError(f"The tokenizer of {backbone.name} has no end-of-text token. Set data.loader.append_eos=false.")
        if batch_size < 1 or eval_batch_size < 1:
            raise UserError("data.loader.batch_size and data.loader.eval_batch_size count pairs. Set them to 1 or more.")
        pairs = read_pairs(pairs_file, backbone.encode_completion)
        self.examples: dict[str, list[Example]] = {"train": [], "validation": []}
        for pair in pairs:
            if pair.split in self.examples:
                self.examples[pair.split].append(encode_pair(pair, backbone, append_eos))
        if not self.examples["train"]:
            raise UserError(
                f"{pairs_file} has no pair in split train, only {len(pairs)} in others. "
                "Build pairs from more tasks or samples, or see pairs.validation_tasks."
            )
        self.pad_id = backbone.pad_id
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        content = hashlib.sha256(Path(pairs_file).read_bytes()).hexdigest()
        self.description = {"pairs": content, "append_eos": append_eos, "seed": seed}  # what decides on the batches

    @property
    def longest(self) -> int:
        """Tokens of the longest program with its instruction."""
        return max(example.length for examples in self.examples.values() for example in examples)

    def train_dataloader(self) -> PairLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        loader = PairLoader(self.examples["train"], self.batch_size, self.seed, self.pad_id, rank, world)
        if len(loader) == 0:
            raise UserError(
                f"A step takes {loader.pairs_per_step} pairs, but the training split has "
                f"{len(self.examples['train'])}. Lower data.loader.batch_size or the number of devices."
            )
        return loader

    def val_dataloader(self) -> DataLoader:
        """All validation pairs in file order; every process gets as many batches, some not counted if need be."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        examples, size = self.examples["validation"], self.eval_batch_size
        batches = [collate(examples[i : i + size], self.pad_id) for i in range(0, len(examples), size)]
        while len(batches) % world:
            batches.append(replace(batches[0], counted=False))
        return DataLoader(batches[rank::world], batch_size=None)

    def probe(self, count: int) -> Batch:
        """The first `count` validation pairs (training pairs where there are none), the same in every epoch."""
        return collate((self.examples["validation"] or self.examples["train"])[:count], self.pad_id)

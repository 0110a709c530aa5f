"""Pairs as steps: tokenised once, shuffled by (seed, epoch), shared out over processes, resumable within an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.pairs import read_pairs
from cptlab.settings.setting import Setting, check_settings
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.loop.read_ahead import read_ahead
from cptlab.training.objectives.base import Objective
from cptlab.training.reference import Reference, needed_outputs, open_reference
from cptlab.training.steps.batches import Batch, collate
from cptlab.training.steps.packing import packed_length, token_budget_groups
from cptlab.training.steps.step_method import StepMethod
from cptlab.training.steps.token_pairs import TokenPair, encode_pair

SPLITS = ("train", "validation")


class PairSplit:
    """A split's pairs, and how some of them become batches of at most `token_budget` tokens (or one pair).

    Padding counts, unless a batch is one row of all its pairs (`one_row`), which has none. Both programs count in full if
    nothing is `shared`. `planned`: the sizes of batches are rounded up to a few, for a compiled step.
    """

    def __init__(self, pairs: Sequence[TokenPair], pad_id: int, token_budget: int) -> None:
        self.pairs, self.pad_id, self.token_budget = pairs, pad_id, token_budget
        self.lengths = [packed_length(pair) for pair in pairs]
        self.reference: Reference | None = None
        self.one_row, self.shared, self.planned = False, True, False

    def lay_out(self, method: StepMethod) -> None:
        """Make batches as this step takes them."""
        self.one_row, self.shared = method.by_sequences, method.shared
        self.planned = method.by_sequences and method.compiled > 0

    def __len__(self) -> int:
        return len(self.pairs)

    def groups(self, indices: Sequence[int]) -> list[list[int]]:
        """Which pairs make a batch: of similar length, the longest first."""
        lengths = [self.lengths[index] if self.shared else 2 * self.pairs[index].length for index in indices]
        groups = token_budget_groups(lengths, self.token_budget, padded=not self.one_row)
        return [[indices[i] for i in group] for group in groups]

    def batches(self, indices: Sequence[int], objective: Objective | None = None) -> list[Batch]:
        return [self.batch(group, objective) for group in self.groups(indices)]

    def shares(self, indices: Sequence[int], world: int) -> list[list[list[int]]]:
        """The groups of each of `world` processes, which get every world-th pair.

        All get as many groups: where the layers are shared out, too, a process cannot run one while others do not.
        """
        shares = [self.groups(indices[rank::world]) for rank in range(world)]
        wanted = max(map(len, shares))
        for groups in shares:
            while len(groups) < wanted:
                largest = max(groups, key=len)
                groups.append(largest[len(largest) // 2 :])
                del largest[len(largest) // 2 :]
        return shares

    def batch(self, indices: Sequence[int], objective: Objective | None = None) -> Batch:
        """The batch of these pairs, with no more than `objective` needs, if one is named."""
        better_only = objective is not None and objective.better_only
        pairs = [self.pairs[index] for index in indices]
        batch = collate(pairs, self.pad_id, better_only=better_only, planned=self.planned)
        if self.one_row:
            batch.one_row  # noqa: B018 (laid out here, not in the step)
        if self.reference is None or (objective is not None and objective.reference == "none"):
            return batch
        return batch.with_reference(self.reference.rows(indices, batch.tokens.shape[1]))


class PairLoader:
    """Steps of training pairs, `batch_size` for each of `world` processes: lists of batches within the token budget.

    Epoch e visits the pairs in an order drawn from (seed, e) alone. Step k takes the k-th `world * batch_size` of them,
    dealt out to the processes in order of their lengths, so that all have about as much to do; W processes with batch
    size b see at every step what one process with batch size W·b sees. Pairs that do not fill a last step are left out
    of that epoch (others in the next one).

    The state is (epoch, position), which Lightning keeps in its checkpoints: a run resumes at the next batch.

    `ahead`: the next step is laid out and its reference read while one runs, into pinned memory where there is CUDA.
    """

    def __init__(
        self,
        split: PairSplit,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        objective: Objective | None = None,
        ahead: bool = False,
    ) -> None:
        self.split, self.seed, self.objective, self.ahead = split, seed, objective, ahead
        self.rank, self.world, self.pairs_per_step = rank, world, batch_size * world
        self.epoch = self.position = 0
        self.sampler = self  # Lightning calls sampler.set_epoch before every epoch

    def __len__(self) -> int:
        return len(self.split) // self.pairs_per_step

    def __iter__(self) -> Iterator[list[Batch]]:
        if self.position == len(self):
            self.set_epoch(self.epoch + 1)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.split))
        steps = range(self.position, len(self))

        def make(step: int) -> list[Batch]:
            return self._step(order[step * self.pairs_per_step : (step + 1) * self.pairs_per_step].tolist())

        for batches in read_ahead(make, steps) if self.ahead else map(make, steps):
            self.position += 1  # of what is in use, whatever was read ahead
            yield batches

    def _step(self, pairs: list[int]) -> list[Batch]:
        ordered = sorted(pairs, key=lambda index: -self.split.lengths[index])
        groups = self.split.shares(ordered, self.world)[self.rank]
        batches = [self.split.batch(group, self.objective) for group in groups]
        pinned = self.ahead and torch.cuda.is_available()
        return [batch.pin_memory() for batch in batches] if pinned else batches

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

    `batch_size` pairs per process and step, in batches of at most `token_budget` tokens (`Compute`), as in
    validation. `append_eos`: end every program with the end-of-text token, for pairs of programs that ended by
    themselves. Pairs that do not fit into the context beside the `adapter_positions` of an adapter are left out; `left_out`
    has their tasks. Raises UserError for a bad file, a training split without (enough) pairs, and a tokenizer without
    end-of-text token.
    """

    def __init__(
        self,
        pairs_file: str | Path,
        backbone: Backbone,
        *,
        batch_size: Annotated[int, Setting("Pairs of a step, per process (CPT V-E: 1).", at_least=1)] = 1,
        token_budget: Annotated[int, Setting("Tokens of a batch at most; that of compute.", at_least=1)] = 4096,
        seed: Annotated[int, Setting("Seed of the order of the pairs; that of the run.", at_least=0)] = 0,
        append_eos: Annotated[
            bool, Setting("Whether a program that ended by itself gets the end-of-text token behind it.")
        ] = True,
        adapter_positions: int = 0,
    ) -> None:
        super().__init__()
        check_settings(
            PairDataModule, batch_size=batch_size, token_budget=token_budget, seed=seed, append_eos=append_eos
        )
        if append_eos and backbone.eos_id is None:
            raise UserError(
                f"The tokenizer of {backbone.name} has no end-of-text token. Set data.loader.append_eos=false."
            )
        pairs = read_pairs(pairs_file, backbone.encode_completion)
        room = backbone.context_length - adapter_positions
        if room < 1:
            raise UserError(
                f"The adapter takes {adapter_positions} positions, and the context of {backbone.name} has "
                f"{backbone.context_length}. Set a smaller adapter.length."
            )
        encoded = [(pair, encode_pair(pair, backbone, append_eos)) for pair in pairs]
        self.left_out = [pair.task_id for pair, tokens in encoded if tokens.length > room]
        self.splits = {
            split: PairSplit(
                [tokens for pair, tokens in encoded if pair.split == split and tokens.length <= room],
                backbone.pad_id,
                token_budget,
            )
            for split in SPLITS
        }
        if not len(self.splits["train"]):
            if any(pair.split == "train" for pair in pairs):
                raise UserError(
                    f"Every pair of split train in {pairs_file} takes more tokens than the {room} that the context of "
                    f"{backbone.name} has room for. Build pairs of shorter programs (decoding.sampling.max_new_tokens), "
                    "or use a backbone with a longer context."
                )
            raise UserError(
                f"{pairs_file} has no pair in split train, only {len(pairs)} in others. "
                "Build pairs from more tasks or samples, or see pairs.validation_tasks."
            )
        self.batch_size, self.seed = batch_size, seed
        content = hashlib.sha256(Path(pairs_file).read_bytes()).hexdigest()
        self.description = {"pairs": content, "append_eos": append_eos, "seed": seed}  # what decides on the batches

    def keep_reference(
        self,
        cache: Path,
        backbone: Backbone,
        objective: Objective,
        *,
        precision: str = "full",
        first_stage: bool = True,
        say: Callable[[str], None] = print,
    ) -> None:
        """Read the frozen backbone's outputs for the pairs from `cache`. Compute them first if they are missing."""
        for split, needed in needed_outputs(objective, first_stage).items():
            held = self.splits[split]
            if needed != "none" and len(held):
                held.reference = open_reference(
                    cache, backbone, held.pairs, precision=precision, states=needed == "states", say=say
                )

    def lay_out(self, method: StepMethod) -> None:
        """Make batches as this step takes them: see `PairSplit`."""
        for split in self.splits.values():
            split.lay_out(method)

    def longest_batch(self, objective: Objective) -> Batch:
        """The first batch of a step of the longest training pairs."""
        split = self.splits["train"]
        longest = sorted(range(len(split)), key=lambda index: -split.lengths[index])[: self.batch_size]
        return split.batches(longest, objective)[0]

    @property
    def longest(self) -> int:
        """Tokens of the longest program with its instruction."""
        return max(pair.length for split in self.splits.values() for pair in split.pairs)

    def train_dataloader(self) -> PairLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        module = self.trainer.lightning_module if self.trainer else None
        objective = module.objective if isinstance(module, AdapterTraining) else None  # the stages differ in it
        loader = PairLoader(self.splits["train"], self.batch_size, self.seed, rank, world, objective, self._on_gpu)
        if len(loader) == 0:
            raise UserError(
                f"A step takes {loader.pairs_per_step} pairs, but the training split has "
                f"{len(self.splits['train'])}. Lower data.loader.batch_size or the number of devices."
            )
        return loader

    def val_dataloader(self) -> DataLoader:
        """All validation pairs; every process gets as many batches, some not counted if need be."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        split = self.splits["validation"]
        groups = [(group, True) for group in split.groups(range(len(split)))]
        while len(groups) % world:
            groups.append((groups[0][0], False))

        def make(item: Any) -> Batch:  # when its turn comes: what is kept of the reference is large
            batch = split.batch(item[0])
            return batch if item[1] else replace(batch, counted=False)

        share: Any = groups[rank::world]
        return DataLoader(share, batch_size=None, collate_fn=make, pin_memory=self._on_gpu)

    @property
    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def probe(self, count: int) -> list[Batch]:
        """The first `count` validation pairs (training pairs where there are none), the same in every epoch.

        No more of them in a batch than a step takes, so that their gradients need no more memory than a step.
        """
        split = self.splits["validation"] if len(self.splits["validation"]) else self.splits["train"]
        chosen = range(min(count, len(split)))
        starts = range(0, len(chosen), self.batch_size)
        return [batch for start in starts for batch in split.batches(chosen[start : start + self.batch_size])]

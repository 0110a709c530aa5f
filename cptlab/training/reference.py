"""Outputs of the frozen backbone on the training pairs: computed once, kept on disk, read on demand.

Neither an objective nor a seed nor the masks change it, so all epochs, ablations and sweep jobs on the same pairs share
it. Per pair there are the final hidden states at the places that predict its code (`Packed.predicting`), from which the
head gives the whole distribution again, and the log-probabilities of its code tokens, computed before the states are
rounded to half precision. They are two files, so that an objective that needs scores alone keeps no states.

What it does not do: notice that a newer torch, transformers or another device rounds differently. Remove the directory
to compute it again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from cptlab.backbone import Backbone
from cptlab.errors import UserError
from cptlab.progress import progress_bar
from cptlab.storage.damaged import usable_place
from cptlab.storage.locks import locked
from cptlab.storage.piece_file import PieceFile
from cptlab.training.objectives.base import Objective
from cptlab.training.steps.batches import ReferenceRows, collate
from cptlab.training.steps.fast import FastOutputs
from cptlab.training.steps.packing import packed_length, predicting_places, token_budget_groups
from cptlab.training.steps.token_pairs import TokenPair

FORMAT = 1  # of the files; another one has other keys
TOKEN_BUDGET = 4096  # padded tokens of the packed rows computed together, which make a piece: part of the format

Progress = Callable[..., AbstractContextManager[Callable[[int], None]]]  # of `progress_bar`


def reference_bytes(
    pairs: Sequence[TokenPair], hidden_size: int, precision: str, dtype: torch.dtype, states: bool = True
) -> int:
    """Bytes that the reference of `pairs` takes, for a backbone with weights in `dtype`."""
    layout = Layout.of(pairs, hidden_size, precision, dtype)
    return sum(layout.score_bytes) + states * sum(layout.state_bytes)


def needed_outputs(objective: Objective, first_stage: bool) -> dict[str, str]:
    """What is kept of each split, 'none', 'scores' or 'states'.

    The diagnostics need all of it for the validation pairs; for the training pairs it is what the objective asks for in
    the first stage (the second asks for nothing).
    """
    return {"train": objective.reference if first_stage else "none", "validation": "states"}


def open_reference(
    directory: Path,
    backbone: Backbone,
    pairs: Sequence[TokenPair],
    *,
    precision: str = "full",
    states: bool = True,
    say: Callable[[str], None],
    progress: Progress = progress_bar,
) -> Reference:
    """The reference of `pairs` below `directory`, computed first where it is not there or is damaged.

    `precision` is that of the states: 'full' is the backbone's own, 'half' float16 for a backbone in float32 or
    float64. `states=False`: the scores alone. Processes that ask for the same one at once compute it once. Everything
    is checked against its SHA-256. Raises UserError where the disk has no space for it, and where a state overflows
    float16.
    """
    layout = Layout.of(pairs, backbone.hidden_size, precision, backbone.head.weight.dtype)
    shared = directory / "reference" / _key(backbone, pairs, layout.state_dtype)

    def at(place: Path) -> Reference:
        files = [
            PieceFile(place / "scores.bin", layout.score_bytes),
            PieceFile(place / "states.bin", layout.state_bytes),
        ]
        return Reference(place, layout, files if states else files[:1])

    reference = at(shared)
    amount = readable(sum(file.size for file in reference.files))

    def waiting() -> None:
        say(f"Reference: waiting for another process that is at work in {reference.directory}")

    try:
        directory = usable_place(shared)
        with locked(directory, shared=True, waiting=waiting) if directory == shared else nullcontext():
            complete = all(len(file.check()[0]) == len(layout.groups) for file in reference.files)
        if not complete:
            reference = at(directory)
            with locked(directory, waiting=waiting):
                complete = _complete(reference, backbone, pairs, amount, say, progress)
    except OSError as error:
        reason = f"{error.strerror or error}. {_remedy(reference)}"
        raise UserError(f"The reference cannot be kept in {reference.directory}: {reason}") from error
    if complete:
        say(f"Reference: found in {reference.directory} ({amount})")
    return reference


@dataclass(frozen=True)
class Layout:
    """Where what is kept of each pair stands: pieces are `groups` of pairs, one behind the other."""

    groups: list[list[int]]
    places: list[int]  # per pair, its predicting places
    programs: list[tuple[int, int]]  # per pair, the code tokens of the better and of the worse program
    hidden_size: int
    state_dtype: torch.dtype
    score_dtype: torch.dtype
    full_dtype: torch.dtype

    @classmethod
    def of(cls, pairs: Sequence[TokenPair], hidden_size: int, precision: str, dtype: torch.dtype) -> Layout:
        groups = token_budget_groups([packed_length(pair) for pair in pairs], TOKEN_BUDGET)
        places = [predicting_places(pair) for pair in pairs]
        programs = [(len(pair.better[0]), len(pair.worse[0])) for pair in pairs]
        return cls(
            groups, places, programs, hidden_size, _kept_dtype(dtype, precision),
            torch.promote_types(dtype, torch.float32), dtype,
        )  # fmt: skip

    @property
    def state_bytes(self) -> list[int]:
        """Of each piece."""
        each = self.hidden_size * self.state_dtype.itemsize
        return [sum(self.places[index] for index in group) * each for group in self.groups]

    @property
    def score_bytes(self) -> list[int]:
        """Of each piece."""
        return [sum(sum(self.programs[index]) for index in group) * self.score_dtype.itemsize for group in self.groups]

    @cached_property
    def state_starts(self) -> dict[int, int]:
        """The first row of each pair in the file of states."""
        return self._starts(self.places)

    @cached_property
    def score_starts(self) -> dict[int, int]:
        """The number of each pair's first score in the file of scores."""
        return self._starts([sum(lengths) for lengths in self.programs])

    def _starts(self, counts: Sequence[int]) -> dict[int, int]:
        order = [index for group in self.groups for index in group]
        return dict(zip(order, accumulate((counts[index] for index in order), initial=0)))


@dataclass(frozen=True)
class Reference:
    """The reference of a list of pairs; `first` is the pair that has index 0 here. `files`: that of the scores,
    and that of the states where they were asked for."""

    directory: Path
    layout: Layout
    files: list[PieceFile]
    first: int = 0

    @property
    def has_states(self) -> bool:
        return len(self.files) == 2

    def after(self, count: int) -> Reference:
        """The same without the first `count` pairs."""
        return replace(self, first=self.first + count)

    def rows(self, indices: int | Sequence[int], width: int) -> ReferenceRows:
        """What is kept of these pairs, in the layout of a batch of them with `width` columns (C), on the CPU.

        Of the file, no more is read than that. Without states, those are [0, E].
        """
        indices = [self.first + index for index in ([indices] if isinstance(indices, int) else indices)]
        layout, count = self.layout, len(indices)
        scores = torch.zeros(2 * count, width, dtype=layout.score_dtype)
        for row, index in enumerate(indices):
            better, worse = layout.programs[index]
            start = layout.score_starts[index]
            found = _numbers(self.files[0], start, better + worse, layout.score_dtype)
            scores[row, :better], scores[count + row, :worse] = found.split([better, worse])
        if not self.has_states:
            return ReferenceRows(torch.empty(0, layout.hidden_size, dtype=layout.state_dtype), scores)
        return ReferenceRows(torch.cat([self.states(index) for index in indices]), scores)

    def states(self, index: int) -> Tensor:
        """The states of one pair [n, E], as a view of the mapped file (which is not to be written to)."""
        size = self.layout.hidden_size
        start, count = self.layout.state_starts[index], self.layout.places[index]
        return _numbers(self.files[1], start * size, count * size, self.layout.state_dtype).view(count, size)


def _complete(reference: Reference, backbone, pairs, amount: str, say, progress: Progress) -> bool:
    """Compute the pieces that are not there. True where all are: another process did it meanwhile."""
    groups, directory = reference.layout.groups, reference.directory
    checked = [file.check() for file in reference.files]
    missing = [piece for piece in range(len(groups)) if any(piece not in sound for sound, _ in checked)]
    if not missing:
        return True
    whole = f"{amount} for {len(pairs)} pairs"
    done = len(pairs) - sum(len(groups[piece]) for piece in missing)
    if damaged := set().union(*(damaged for _, damaged in checked)):
        say(f"Reference: {len(damaged)} of {len(groups)} pieces in {directory} are damaged and are computed again")
    elif done:
        say(f"Reference: {whole}, of which {done} were computed before, being completed in {directory}")
    else:
        without = "compute.reference=recompute does without"
        say(f"Reference: {whole}, being computed once into {directory}; {without}")
    _check_space(reference, amount)
    for file, (sound, _) in zip(reference.files, checked, strict=True):
        file.begin(sound)
    with progress(f"Reference of {backbone.name}", len(pairs), "pairs", done=done) as advance:
        for piece in missing:
            contents = _compute(backbone, [pairs[index] for index in groups[piece]], reference)
            for file, (sound, _), content in zip(reference.files, checked, contents):  # without states, scores alone
                if piece not in sound:
                    file.put(piece, _bytes(content))
            advance(len(groups[piece]))
    return False


@torch.no_grad()
def _compute(backbone: Backbone, pairs: Sequence[TokenPair], reference: Reference) -> tuple[Tensor, Tensor]:
    """The scores of these pairs [all code tokens] and their states [all predicting places, E], as they are kept."""
    batch, count = collate(pairs, backbone.pad_id).to(backbone.device), len(pairs)
    with torch.autocast(backbone.device.type, enabled=False):
        rows = FastOutputs(backbone, batch, []).reference_rows()
    by_program = rows.scores[batch.code].cpu().split(batch.code.sum(1).tolist())
    scores = torch.cat([by_program[row] for pair in range(count) for row in (pair, count + pair)])
    kept = rows.states.to(reference.layout.state_dtype)
    if bool((kept.isinf() & rows.states.isfinite()).any()):
        raise UserError(
            f"A hidden state of {backbone.name} is larger than float16 can hold. Set compute.reference_precision=full."
        )
    return scores.to(reference.layout.score_dtype), kept.cpu()


def _bytes(numbers: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU, without a copy where it is contiguous."""
    return numbers.contiguous().flatten().view(torch.uint8).numpy().data


def _numbers(file: PieceFile, start: int, count: int, dtype: torch.dtype) -> Tensor:
    """Return `count` numbers of a file from number `start` on, as a view of the mapped file."""
    if not count:
        return torch.empty(0, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*buffer is not writable")
        return torch.frombuffer(file.content, dtype=dtype, count=count, offset=start * dtype.itemsize)


def _check_space(reference: Reference, amount: str) -> None:
    needed = sum(max(0, file.size - file.allocated) for file in reference.files)
    free = shutil.disk_usage(reference.directory).free
    if needed > free:
        raise UserError(
            f"The reference takes {amount}, {readable(needed)} more than now, but {reference.directory} has "
            f"{readable(free)} left. {_remedy(reference)}"
        )


def _remedy(reference: Reference) -> str:
    full = reference.layout.full_dtype
    half = "compute.reference_precision=half for less, "
    fits = reference.has_states and full == reference.layout.state_dtype and full.itemsize > 2
    return f"Set {half if fits else ''}compute.reference=recompute for none, or paths.cache=DIR to a larger disk."


def _kept_dtype(dtype: torch.dtype, precision: str) -> torch.dtype:
    if precision not in ("full", "half"):
        raise UserError(f"compute.reference_precision={precision} is unknown. Choose full or half.")
    return torch.float16 if precision == "half" and dtype.itemsize > 2 else dtype


def _key(backbone: Backbone, pairs: Sequence[TokenPair], dtype: torch.dtype) -> str:
    """SHA-256 over all that the files depend on."""
    digest = hashlib.sha256(json.dumps([FORMAT, TOKEN_BUDGET, backbone.fingerprint, str(dtype)]).encode())
    for pair in pairs:
        digest.update(json.dumps([pair.instruction, pair.better[0], pair.worse[0]]).encode())
    return digest.hexdigest()


def readable(count: float) -> str:
    """Bytes for people: 3.1 MiB, 1.25 GiB."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    decimals = {"bytes": 0, "KiB": 1, "MiB": 1}.get(units[0], 2)
    return f"{count:.{decimals}f} {units[0]}"

"""Building the reference of tiny backbones for the tests: in this process, or in one that kills itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import tiny_backbone  # noqa: E402
from training_runs import make_pairs  # noqa: E402

from cptlab.backbone import Backbone  # noqa: E402
from cptlab.kata import authors, benchmark, render  # noqa: E402
from cptlab.kata.prompts import make_prompt  # noqa: E402
from cptlab.pairs import token_masks  # noqa: E402
from cptlab.storage import piece_file as pieces
from cptlab.training import reference  # noqa: E402
from cptlab.training.steps.token_pairs import TokenPair, encode_pair  # noqa: E402

BUDGET = 100  # tokens: about one pair of `make_pairs` per piece


def examples_of(backbone: Backbone, count: int = 7, seed: int = 0) -> list[TokenPair]:
    """Pairs of random programs: the first differs by an insertion, the second has no common beginning."""
    pairs = make_pairs(count, 3, seed)
    worse = "!" + pairs[1].worse
    masks = token_masks(list(pairs[1].better.encode()), list(worse.encode()))
    pairs[1] = replace(pairs[1], worse=worse, better_mask=masks[0], worse_mask=masks[1])
    return [encode_pair(pair, backbone, True) for pair in pairs]


def kata_examples(backbone: Backbone, count: int, seed: int = 0) -> list[TokenPair]:
    """Pairs of a tidy and an untidy program for the same kata task, in the tokens of kata-lm."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        steps = benchmark.draw_steps(rng, rng.choice((2, 3)))
        untidy = authors.draw_author(rng, tidy_share=0.0)
        empty = benchmark.empty_result(steps)
        better, worse = (render.function_body(steps, author, empty) for author in (authors.TIDY, untidy))
        if better == worse:
            continue
        example = (value := benchmark.draw_input(rng, steps[0][0].source), benchmark.evaluate(steps, value))
        prompt = make_prompt(steps, "call", benchmark.instruction(steps, "call", rng), example)
        programs = [backbone.encode_completion(program) for program in (better, worse)]
        masks = token_masks(*programs)
        sides = [(ids + [backbone.eos_id], [*mask, 0]) for ids, mask in zip(programs, masks, strict=True)]
        found.append(TokenPair(backbone.encode_prompt(prompt.text), *sides))
    return found


@contextlib.contextmanager
def no_bar(title: str, total: int, unit: str, *, done: int = 0):
    yield lambda done: None


def build(directory: Path, said: list[str] | None = None, backbone: Backbone | None = None, **options):
    """Open the reference of `examples_of` a tiny backbone, in pieces of `BUDGET` tokens."""
    torch.set_num_threads(1)
    reference.TOKEN_BUDGET = BUDGET
    backbone = backbone or tiny_backbone("llama_gqa")
    options = {"say": (said if said is not None else []).append, "progress": no_bar} | options
    return reference.open_reference(Path(directory), backbone, examples_of(backbone), **options)


def strike(where: str, nth: int) -> None:
    """From now on, SIGKILL comes at the nth time that the process is at `where`."""
    put, begin, to_disk, calls = pieces.PieceFile.put, pieces.PieceFile.begin, pieces._to_disk, []

    def now() -> bool:
        calls.append(0)
        return len(calls) == nth

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half_a_piece(self, piece, content):
        if now():
            with open(self.path, "r+b") as file:
                file.seek(self.starts[piece])
                file.write(content[: len(content) // 2])
            kill()
        put(self, piece, content)

    def half_a_line(self, piece, content):
        put(self, piece, content)
        if now():
            os.truncate(self.journal, self.journal.stat().st_size - 30)
            kill()

    def after_begin(self, sound):
        begin(self, sound)
        if now():
            kill()

    def before_fsync(file):  # odd: the piece is written and not entered; even: it is
        file.flush()
        if now():
            kill()
        to_disk(file)

    if where == "fsync":
        pieces._to_disk = before_fsync
    elif where == "begin":
        pieces.PieceFile.begin = after_begin
    else:
        pieces.PieceFile.put = {"half a piece": half_a_piece, "half a line": half_a_line}[where]


def build_in_child(directory: Path, moment: tuple[str, int] | None, hold_at: int | None = None) -> None:
    """Build, and kill this process at `moment`. `hold_at`: before that piece, wait while there is a file `hold`.

    The file `said.<process id>` gets what was said, and "computed" for every piece.
    """
    if moment is not None:
        strike(*moment)
    compute, computed = reference._compute, []

    class Notes(list):
        def append(self, line: str) -> None:
            with open(Path(directory) / f"said.{os.getpid()}", "a") as file:
                file.write(f"{line}\n")

    def noted(backbone, examples, found):
        while len(computed) + 1 == hold_at and (Path(directory) / "hold").exists():
            time.sleep(0.01)
        computed.append(0)
        notes.append("computed")
        return compute(backbone, examples, found)

    reference._compute, notes = noted, Notes()
    build(directory, notes)

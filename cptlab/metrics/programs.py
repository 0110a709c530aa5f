"""A judged program as the metrics see it: its score and verdict, its length, and how the model's answer ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cptlab.records import Completion, Quality, Verdict


@dataclass(frozen=True, slots=True)
class JudgedProgram:
    """One program without its text.

    `lines` are its lines of code (`lines_of_code`). `tokens` are all that the model wrote for it, 0 where they were not
    counted, as in programs of other tools. `finished`: the answer ended by itself, not at the limit of new tokens.
    `cleaned`: the program was taken out of the text around it. `text_hash`: `hash_of_text`.
    """

    quality: Quality
    verdict: Verdict
    lines: int = 0
    tokens: int = 0
    finished: bool = True
    cleaned: bool = False
    text_hash: int = 0

    @property
    def parses(self) -> bool:
        """Whether both judges could read the program ("valid" in CPT VII-A)."""
        unread = self.quality.fatal or any(message.id == "E0001" for message in self.quality.messages)
        return self.verdict.status != "not_parsed" and not unread


def scorer_of(programs: Iterable[Sequence[JudgedProgram]]) -> str:
    """Return the name of the scorer of programs, which are scored alike; pylint where there is none."""
    return next((some[0].quality.scorer for some in programs if some), "pylint")


def judged_program(completion: Completion, quality: Quality, verdict: Verdict) -> JudgedProgram:
    """Return what is kept of one program's records."""
    lines = lines_of_code(completion.program)
    same = hash_of_text(completion.program)
    return JudgedProgram(quality, verdict, lines, completion.tokens, completion.finished, completion.cleaned, same)


def hash_of_text(program: str) -> int:
    """Return a number that is equal for programs with the same text but for blank ends, within one process."""
    return hash(program.strip())


def lines_of_code(program: str) -> int:
    """Return the number of lines that are neither blank nor a comment alone."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in program.splitlines())


def count_answers(programs: Iterable[JudgedProgram]) -> dict[str, int]:
    """Count how the model's answers ended.

    - `programs`: all of them
    - `cut_off`: those that ended at the limit of new tokens
    - `not_parsed`: those that Python cannot read
    - `no_program`: those that ended by themselves and hold no program: nothing that Python can read, or no line of code
    - `cleaned`: those taken out of the text around them
    """
    counts: dict[str, int] = dict.fromkeys(("programs", "cut_off", "not_parsed", "no_program", "cleaned"), 0)
    for program in programs:
        unread = program.verdict.status == "not_parsed"
        counts["programs"] += 1
        counts["cut_off"] += not program.finished
        counts["not_parsed"] += unread
        counts["no_program"] += program.finished and (unread or not program.lines)
        counts["cleaned"] += program.cleaned
    return counts

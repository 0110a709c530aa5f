"""How the answers of each system ended, and what to do where many of them hold no program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cptlab.metrics.programs import count_answers
from cptlab.reporting.evaluation import Evaluation, StoredProgram
from cptlab.reporting.layout import Table

MANY = 0.05  # share of a system's answers above which the user is told what to do
HEADINGS = {
    "programs": "Programs",
    "cut_off": "Cut off",
    "not_parsed": "Not parsed",
    "no_program": "No program",
    "cleaned": "Cleaned",
}


def answers_table(evaluation: Evaluation) -> Table:
    """The counts of `cptlab.metrics.programs.count_answers`, one row a difficulty and system."""
    rows, records = [], []
    for level, tasks in evaluation.levels.items():
        for system, programs in evaluation.systems.items():
            counts = count_answers(program for task in tasks for program in programs[task.id])
            rows.append((level, system, *(str(counts[name]) for name in HEADINGS)))
            records.append({"difficulty": level, "system": system, **counts})
    note = (
        "Cut off: at the limit of new tokens. Not parsed: Python cannot read the program. No program: the answer ended by "
        "itself, and has no line of code or none that Python can read. Cleaned: taken out of the text around it."
    )
    columns = ("Difficulty", "System", *HEADINGS.values())
    return Table("answers", "How the answers ended, in programs", columns, tuple(rows), tuple(records), 2, note=note)


def answers_note(evaluation: Evaluation) -> str:
    """A line for each system of which an answer was cut off, cleaned or without a program; '' where there is none."""
    lines = []
    for system, counts in _counts(evaluation).items():
        said = {
            "cut_off": "cut off at the limit of new tokens",
            "no_program": "with no program that Python can read",
            "cleaned": "cleaned of text around the program",
        }
        parts = [f"{counts[name]} {words}" for name, words in said.items() if counts[name]]
        if parts:
            lines.append(f"\nOf {counts['programs']} answers of {system}: {', '.join(parts)}.")
    return "".join(lines)


def advice(evaluation: Evaluation) -> list[str]:
    """Say what to do where more than `MANY` of a system's answers were cut off, or hold no program."""
    cut_off: dict[str, float] = {}
    no_program: dict[str, float] = {}
    for system, counts in _counts(evaluation).items():
        for found, name in ((cut_off, "cut_off"), (no_program, "no_program")):
            if counts[name] > MANY * counts["programs"]:
                found[system] = counts[name] / counts["programs"]
    out = []
    if cut_off:
        limit = max(p.tokens for system in cut_off for p in _programs(evaluation, system) if not p.finished)
        more = 1 << (3 * limit // 2 - 1).bit_length()  # the next power of two that gives at least half as much again
        out.append(
            f"{_shares(cut_off)} were cut off at the limit of new tokens ({limit}), and a program that is not whole fails. "
            f"Give them room: decoding.sampling.max_new_tokens={more}."
        )
    if no_program:
        files = " and ".join(f"{system}/completions.jsonl" for system in no_program)
        form = (
            " Where the model talks, asks back or writes the task again, ask it in its own form: prompting=chat for a "
            "chat model, prompting=base for one that was never taught to chat."
        )
        out.append(
            f"{_shares(no_program)} ended by themselves and hold no program that Python can read. Look at raw in {files}."
            + (form if "decoding" in evaluation.provenance else "")
        )
    return out


def _counts(evaluation: Evaluation) -> dict[str, dict[str, int]]:
    return {system: count_answers(_programs(evaluation, system)) for system in evaluation.systems}


def _programs(evaluation: Evaluation, system: str) -> Sequence[StoredProgram]:
    return [program for task in evaluation.tasks for program in evaluation.systems[system][task.id]]


def _shares(found: Mapping[str, float]) -> str:
    """'12% of the answers of base and 8% of the answers of tuned'."""
    return " and ".join(f"{100 * share:.0f}% of the answers of {system}" for system, share in found.items())

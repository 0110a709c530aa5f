"""Give Python files the score that the papers' metric gives, or another scorer, and the messages that it counts.

    cptlab lint FILE …
    cptlab lint - < program.py
    cptlab lint FILE … --json | --fail-under 8 | --extra-disabled W0621,E0602
    cptlab lint FILE … scorer=ruff scorer.select=[F,B]

A file is scored alone, as `cptlab evaluate` scores a program (CPT eq. 15; docs/quality.md): without the checks of
whitespace, naming, docstrings and imports, without a configuration of pylint's, and pragmas are counted, not obeyed. docs/scorers.md has the other scorers.

Exit codes: 0, linted, whatever the score; 2, a mistake in the command; 3, a file scores below --fail-under.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from cptlab.commands.shared.arguments import STDIN, decoded, read_arguments
from cptlab.errors import UserError
from cptlab.judging.scorers.pylint import Pylint
from cptlab.judging.scorers.scorer import Scorer, score_all
from cptlab.process.ends import command, exit_with
from cptlab.records import Quality
from cptlab.settings.setting import Setting
from cptlab.storage.jsonl import as_data as record_as_data

BELOW = 3  # exit code
SETTING = re.compile(r"scorer\.[\w.]+=")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said beside the files."""

    fail_under: Annotated[
        float | None, Setting("End with exit code 3 where a file scores less.", at_least=0, at_most=10)
    ] = None
    extra_disabled: Annotated[
        str | None, Setting("Checks to leave out beside the frozen list, such as W0621,E0602.")
    ] = None
    scorer: Annotated[str, Setting("A file of conf/scorer, such as ruff; its settings are scorer.NAME=VALUE.")] = (
        "pylint"
    )
    json: Annotated[bool, Setting("Print JSON.")] = False


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, 3 where a file scores below --fail-under, or 2 with one sentence where a file cannot be read."""
    arguments = sys.argv[1:] if arguments is None else arguments
    settings = [argument for argument in arguments if SETTING.match(argument)]
    rest = [argument for argument in arguments if argument not in settings]
    given, files = read_arguments(Options, rest, "cptlab lint", __doc__, "FILE", "A file can be named ./x=1.py.")
    if not files:
        raise UserError("No file is named. Name some, or - for standard input.")
    programs = [read_program(file) for file in files]
    disabled = [name for name in (given.extra_disabled or "").replace(",", " ").split() if name]
    qualities = dict(zip(files, score_all(chosen_scorer(given.scorer, settings, disabled), programs), strict=True))
    if given.json:
        print(json.dumps(as_data(qualities), indent=1))
    else:
        print(as_text(qualities))
    lowest = min(quality.score for quality in qualities.values())
    return BELOW if given.fail_under is not None and lowest < given.fail_under else 0


def chosen_scorer(name: str, settings: list[str], disabled: list[str]) -> Scorer:
    """Return a scorer of conf/scorer with these settings, such as scorer.select=[F]. Raises UserError."""
    if name == "pylint" and not settings:
        scorer = Pylint(disabled)
        scorer.check()
        return scorer
    from hydra.errors import HydraException  # takes a while to import, and is not needed for the papers' score
    from omegaconf.errors import OmegaConfBaseException

    from cptlab.commands.shared.common import build_scorer
    from cptlab.settings.config_source import compose_config
    from cptlab.settings.explanations import explain
    from cptlab.settings.validation import validate

    try:
        config = compose_config("evaluate", f"scorer={name}", *settings, f"extra_disabled=[{','.join(disabled)}]")
        validate(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, "evaluate")) from None
    return build_scorer(config)


def read_program(file: str) -> str:
    """Return the text of a file, or of standard input for -, its line ends as they are. Raises UserError."""
    try:
        content = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except IsADirectoryError:
        raise UserError(f"{file} is a directory. Name its files, such as {file.rstrip('/')}/*.py.") from None
    except FileNotFoundError:
        raise UserError(f"There is no file {file}. Correct its name.") from None
    return decoded(content, "Standard input" if file == STDIN else file)


def summary(qualities: dict[str, Quality]) -> dict[str, Any]:
    """Return what holds of all files together: each counts alike, as each program of a task does."""
    scores = [quality.score for quality in qualities.values()]
    messages = sum(len(quality.messages) for quality in qualities.values())
    return {"files": len(scores), "mean": fmean(scores), "min": min(scores), "max": max(scores), "messages": messages}


def as_data(qualities: dict[str, Quality]) -> dict[str, Any]:
    """Return the scores as plain data."""
    return {"files": {file: record_as_data(quality) for file, quality in qualities.items()}, "all": summary(qualities)}


def as_text(qualities: dict[str, Quality]) -> str:
    """Return the messages of each file and its score, and a line about all of them."""
    lines = []
    for file, quality in qualities.items():
        name = "standard input" if file == STDIN else file
        messages = sorted(quality.messages, key=lambda one: one.line)
        lines += [f"{name}:{one.line}: {one.id} ({one.symbol})" for one in messages]
        lines.append(f"{name}: {score_line(quality)}")
    if len(qualities) > 1:
        found = summary(qualities)
        lines += [
            "",
            f"{found['files']} files: mean {found['mean']:.2f}, min {found['min']:.2f}, max {found['max']:.2f}",
        ]
    return "\n".join(lines)


def score_line(quality: Quality) -> str:
    """Return score, statements and number of messages in words; how many pragmas were not obeyed, if any."""
    counted = f"{_number(quality.statements, 'statement')}, {_number(len(quality.messages), 'message')}"
    pragmas = f", {_number(quality.pragmas, 'pragma')} not obeyed" if quality.pragmas else ""
    return f"{quality.score:.2f}/10 ({counted}{pragmas})"


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


if __name__ == "__main__":
    exit_with(main())

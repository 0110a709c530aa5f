"""Any linter of the command line as a scorer: one that prints JSON, a list or one object a line, or SARIF."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.judging.scorers.formulas import checked_weights, decay, density, weighted_sum
from cptlab.judging.scorers.limited_process import Finished
from cptlab.judging.scorers.tool import Reading, ToolScorer, Unreadable, read_json
from cptlab.records import Message
from cptlab.settings.setting import Setting, check_settings

TAKEN = ("pylint", "ruff", "bandit", "weighted", "all_of")  # names of the other scorers
FILES = "FILES"  # the word of the command line that stands for the files
# Where a JSON message has its parts, as a path of keys; pylint's names
FIELDS = {"messages": "", "file": "path", "id": "message-id", "name": "symbol", "line": "line", "severity": "type"}


@dataclass(frozen=True)
class Command(ToolScorer):
    """density: Q = max(0, 10 - 10 W / S). decay: Q = 10 / (1 + W). W: the weighted messages, S: the statements."""

    command_line: Annotated[
        str | None,
        Setting(
            "The command, as in a shell without its signs; the word FILES stands for the files: 'mylint --json FILES'."
        ),
    ] = None
    label: Annotated[str, Setting("How tables call the score: letters, digits and _.")] = "command"
    format: Annotated[str, Setting("What the command prints.", choices=("json", "sarif"))] = "json"
    fields: Annotated[
        Mapping[str, str] | None,
        Setting(
            "Where JSON has the list of messages, and a message its file, id, name, line and severity: keys with dots between "
            "them, such as {line: location.row}. What is left out is as pylint prints it; messages: '' is the whole."
        ),
    ] = None
    weights: Annotated[
        Mapping[str, float] | None,
        Setting("Weights of severities, or of messages by what their ids begin with; 1 where none fits."),
    ] = None
    formula: Annotated[str, Setting("How messages become a score.", choices=("density", "decay"))] = "density"
    remedy = "Correct scorer.command_line, scorer.format or scorer.fields."

    def __post_init__(self) -> None:
        check_settings(self)
        object.__setattr__(self, "weights", checked_weights(self.weights, {}, "scorer.weights"))
        given = dict(self.fields or {})
        if unknown := sorted(set(given) - set(FIELDS)):
            raise UserError(
                f"scorer.fields has {unknown[0]}, which is no part of a message. Choose from {', '.join(FIELDS)}."
            )
        object.__setattr__(self, "fields", {**FIELDS, **given})
        if self.words.count(FILES) != 1:
            raise UserError(
                f"scorer.command_line must have the word {FILES} once, got {self.command_line or 'nothing'}. Put it where the "
                "command takes its files."
            )
        if not re.fullmatch(r"[A-Za-z]\w*", self.label):
            raise UserError(f"scorer.label={self.label} cannot be. Use letters, digits and _, a letter first.")
        if self.label in TAKEN or self.label.startswith("radon"):
            raise UserError(
                f"scorer.label={self.label} is the name of a scorer of cptlab. Give it another, such as my_linter."
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label

    @property
    def words(self) -> list[str]:
        """The words of the command line. Raises UserError for a quote that is not closed."""
        try:
            return shlex.split(self.command_line or "")
        except ValueError as error:
            raise UserError(f"scorer.command_line={self.command_line} cannot be read: {error}. Correct it.") from None

    def identity(self) -> dict[str, Any]:
        words = [word for word in self.words if word != FILES]
        return {
            "name": self.name,
            "command": self.words,
            "files": [_digest(_split(word)[1]) for word in words],
            "format": self.format,
            "fields": self.fields,
            "weights": self.weights,
            "formula": self.formula,
        }

    def check(self) -> None:
        if shutil.which(self.words[0]) is None:
            raise UserError(f"There is no command {self.words[0]}. Install it, or correct scorer.command_line.")
        super().check()

    def command(self, names: Sequence[str]) -> list[str]:
        words = [_resolved(word) if place or "/" in word else word for place, word in enumerate(self.words)]
        place = words.index(FILES)
        return [*words[:place], *names, *words[place + 1 :]]

    def read(self, finished: Finished) -> Mapping[str, Reading]:
        found: dict[str, Reading] = {}
        if finished.code and not finished.output.strip():  # it failed; one that finds nothing may print nothing
            raise Unreadable
        document = read_json(finished.output)
        try:
            rows = list(_sarif(document) if self.format == "sarif" else self._json(document))
        except (LookupError, TypeError, ValueError, AttributeError):  # it has another form
            raise Unreadable from None
        for file, message in rows:
            found.setdefault(file, Reading()).messages.append(message)
        return found

    def score(self, reading: Reading, statements: int) -> float:
        weighted = weighted_sum(reading.messages, self.weights or {})
        return density(weighted, statements) if self.formula == "density" else decay(weighted)

    def _json(self, document: Any) -> Iterator[tuple[str, Message]]:
        fields = self.fields or {}
        if isinstance(document, dict) and not fields["messages"]:
            document = [document]  # one object a line, and only one line
        for row in at(document, fields["messages"]):
            name = str(at(row, fields["id"]))
            symbol, severity = (_perhaps(row, fields[part]) for part in ("name", "severity"))
            yield (
                str(at(row, fields["file"])),
                Message(name, symbol or name, int(at(row, fields["line"]) or 1), severity.lower()),
            )


def at(data: Any, path: str) -> Any:
    """Return what stands in nested objects and lists below these keys; the data itself for no key."""
    for key in path.split(".") if path else ():
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


def _perhaps(row: Any, path: str) -> str:
    try:
        return str(at(row, path) or "")
    except (LookupError, TypeError, ValueError):
        return ""


def _sarif(document: Any) -> Iterator[tuple[str, Message]]:
    """SARIF 2.1.0: the results of all runs; a result without a level is a warning, one without a region is at line 1.

    A result without a file is about none of the programs.
    """
    for run in document["runs"]:
        rules = run["tool"]["driver"].get("rules") or []
        by_id = {rule["id"]: rule for rule in rules}
        for result in run.get("results") or ():
            code = result.get("ruleId") or rules[result["ruleIndex"]]["id"]
            rule = by_id.get(code, {})
            level = result.get("level") or rule.get("defaultConfiguration", {}).get("level", "warning")
            location = next(iter(result.get("locations") or ()), {}).get("physicalLocation")
            if location is None:
                continue
            line = location.get("region", {}).get("startLine", 1)
            yield location["artifactLocation"]["uri"], Message(code, rule.get("name") or code, line, level)


def _split(word: str) -> tuple[str, str]:
    """Return what stands before a value in a word such as --config=FILE, '' in any other, and the value."""
    option, sign, value = word.partition("=")
    return (option + sign, value) if sign and word.startswith("-") else ("", word)


def _resolved(word: str) -> str:
    """Return a word that names a file from here with its absolute path: the command runs in another folder.

    Links stay, as the python of a virtual environment is one.
    """
    before, value = _split(word)
    return before + str(Path(value).absolute()) if value and Path(value).is_file() else word


def _digest(word: str) -> str | None:
    """Return the SHA-256 of the file that a word names, or of the program that it runs; None for another word."""
    found = Path(word) if Path(word).is_file() else shutil.which(word)
    return hashlib.sha256(Path(found).read_bytes()).hexdigest() if found else None

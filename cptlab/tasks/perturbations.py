"""Perturbations of a prompt after ReCode (arXiv 2212.10264): small changes that leave the task what it is.

- docstring: some words of the description have two letters swapped, a letter in the other case, a letter twice, or a synonym
- function_name: the function has a name in camel case, with two letters swapped, or with a letter in the other case
- format: indentation by tabs, blank lines, or the longest line of the description split in two
"""

from __future__ import annotations

import ast
import keyword
import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace

from cptlab.records import Prompt, Span, Task, Test

KINDS = ("docstring", "function_name", "format")
CHANGED = 0.2  # share of the words, or of the lines, that are changed; at least one is
SYNONYMS = {
    "return": "give back", "returns": "gives back", "given": "provided", "list": "sequence", "string": "text",
    "number": "value", "numbers": "values", "find": "determine", "write": "create", "check": "test", "print": "output",
    "get": "obtain", "remove": "delete", "count": "tally", "sort": "order", "sum": "total", "largest": "biggest",
    "smallest": "least", "function": "routine", "elements": "items", "element": "item", "two": "a pair of",
}  # fmt: skip
_WORD = re.compile(r"(?<![\\\w<>{}`'\"])[A-Za-z]{4,}(?![\w(`'\"=])")
Edit = tuple[int, int, str]  # text[start:end] becomes that text


def perturbed_task(task: Task, kind: str, seed: str) -> Task:
    """Return the task with its prompt, and the question of chat models, perturbed. The same seed gives the same one.

    A task in which there is nothing of that kind to change stays as it is.
    """
    if kind == "function_name":
        return _renamed(task, random.Random(seed))
    edits = {"docstring": _docstring_edits, "format": _format_edits}[kind]
    prompt = edited(task.prompt, edits(task, task.prompt, random.Random(seed)))
    question = task.question
    if question is not None:
        question = edited(question, edits(task, question, random.Random(seed)))
    return replace(task, prompt=prompt, question=question)


def edited(prompt: Prompt, edits: Sequence[Edit]) -> Prompt:
    """Return the prompt after edits that do not overlap, with its code and spans moved along."""
    edits = sorted(edits)
    starts, ends = [start for start, _, _ in edits], [end for _, end, _ in edits]
    grown = [0]
    for start, end, text in edits:
        grown.append(grown[-1] + len(text) - (end - start))
    text, at = "", 0
    for start, end, new in edits:
        text, at = text + prompt.text[at:start] + new, end
    text += prompt.text[at:]

    def begin(place: int) -> int:  # what is put in at a beginning stands before it
        return place + grown[bisect_right(ends, place)]

    def finish(place: int) -> int:  # and at an end, behind it
        return place + grown[bisect_left(starts, place)]

    spans = tuple(Span(span.name, begin(span.start), finish(span.end)) for span in prompt.spans)
    code = text[begin(len(prompt.text) - len(prompt.code)) :] if prompt.code else ""
    return replace(prompt, text=text, code=code, spans=spans)


def _docstring_edits(task: Task, prompt: Prompt, rng: random.Random) -> list[Edit]:
    """Change some words of the description, one way for all of them. Names of the code stay."""
    code = " ".join(prompt.text[span.start : span.end] for span in prompt.spans if span.name == "code") + prompt.code
    docstring = len(prompt.code) >= len(prompt.text)  # is code itself
    names = {task.entry_point, *(_identifiers(prompt.code) if docstring else re.findall(r"\w+", code))}
    words = [
        (span.start + found.start(), span.start + found.end(), found.group())
        for span in prompt.spans
        if span.name == "nl"
        for found in _WORD.finditer(prompt.text[span.start : span.end])
        if found.group() not in names
    ]
    change = rng.choice((_swapped, _other_case, _doubled, _synonym))
    changed = [(start, end, change(word, rng)) for start, end, word in words]
    changed = [edit for edit, (_, _, word) in zip(changed, words, strict=True) if edit[2] != word]
    if not changed:  # no word has a synonym
        changed = [(start, end, _swapped(word, rng)) for start, end, word in words]
    return _some(changed, rng)


def _identifiers(code: str) -> set[str]:
    """Return the names of a program, without the words of its texts; none where it does not parse."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError):
        return set()
    names = (getattr(node, field, None) for node in nodes for field in ("id", "arg", "attr", "name"))
    return {name for name in names if isinstance(name, str)}


def _format_edits(task: Task, prompt: Prompt, rng: random.Random) -> list[Edit]:
    """Indent by tabs, put in blank lines, or split a line: the first of them, in random order, that changes something."""
    ways: list[Callable[[Prompt, random.Random], list[Edit]]] = [_tabs, _blank_lines, _split_line]
    rng.shuffle(ways)
    return next((edits for way in ways if (edits := way(prompt, rng))), [])


def _tabs(prompt: Prompt, rng: random.Random) -> list[Edit]:
    indents = re.finditer(r"^(?:    )+", prompt.text, re.MULTILINE)
    return [(found.start(), found.end(), "\t" * (len(found.group()) // 4)) for found in indents]


def _blank_lines(prompt: Prompt, rng: random.Random) -> list[Edit]:
    ends = re.finditer(r"(?<![\\\n])\n(?=[^\n])", prompt.text)
    examples = [span for span in prompt.spans if span.name == "tests"]  # a blank line would end a doctest
    places = [found.end() for found in ends]
    places = [at for at in places if not any(span.start < at < span.end for span in examples)]
    return _some([(at, at, "\n") for at in places], rng)


def _split_line(prompt: Prompt, rng: random.Random) -> list[Edit]:
    """Split the longest line of the description at the blank nearest to its middle. A comment goes on as a comment."""
    lines = [
        (found.start(), found.end())
        for found in re.finditer(r"^.+$", prompt.text, re.MULTILINE)
        if any(span.name == "nl" and span.start < found.end() and found.start() < span.end for span in prompt.spans)
    ]
    for start, end in sorted(lines, key=lambda line: line[0] - line[1]):
        inside = prompt.text[start:end]
        opening = re.match(r"\s*(?:# *)?", inside)
        assert opening is not None
        blanks = [at for at, letter in enumerate(inside) if letter == " " and at >= opening.end()]
        in_prose = [at for at in blanks if any(
            span.name == "nl" and span.start < start + at < span.end for span in prompt.spans
        )]  # fmt: skip
        if in_prose:
            at = min(in_prose, key=lambda blank: abs(blank - len(inside) / 2))
            return [(start + at, start + at + 1, f"\n{opening.group()}")]
    return []


def _some(edits: list[Edit], rng: random.Random) -> list[Edit]:
    """Keep a share of the edits, at least one where there is any."""
    return rng.sample(edits, max(1, round(CHANGED * len(edits)))) if edits else []


def _swapped(word: str, rng: random.Random) -> str:
    places = [i for i in range(len(word) - 1) if word[i] != word[i + 1]]
    if not places:
        return _other_case(word, rng)
    at = rng.choice(places)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _other_case(word: str, rng: random.Random) -> str:
    at = rng.choice([i for i, letter in enumerate(word) if letter.isalpha()])
    return word[:at] + word[at].swapcase() + word[at + 1 :]


def _doubled(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[: at + 1] + word[at:]


def _synonym(word: str, rng: random.Random) -> str:
    other = SYNONYMS.get(word.lower(), word)
    return other.capitalize() if word[0].isupper() and other != word else other


def _renamed(task: Task, rng: random.Random) -> Task:
    """Give the function another name, in the prompt, in the tests and in what runs beside them."""
    name = task.entry_point
    if name is None:
        return task
    letters = [part for part in name.split("_") if part]
    ways = [
        lambda: letters[0] + "".join(part[:1].upper() + part[1:] for part in letters[1:]),  # camelCase
        lambda: "".join(part[:1].upper() + part[1:] for part in letters),  # CamelCase
        lambda: _swapped(name, rng),
        lambda: _other_case(name, rng),
    ]
    rng.shuffle(ways)
    texts = [task.prompt.text, task.setup, task.canonical_solution or "", *(test.code or "" for test in task.tests)]
    taken = {name, *(word for text in texts for word in re.findall(r"\w+", text))}
    made = (way() for way in ways)
    new = next(
        (one for one in made if one not in taken and one.isidentifier() and not keyword.iskeyword(one)), f"{name}_"
    )
    word = re.compile(rf"\b{re.escape(name)}\b")
    called = re.compile(rf"\b{re.escape(name)}\b(?=\s*\()")  # in prose the same word may mean itself

    def moved(prompt: Prompt) -> Prompt:
        return edited(prompt, [(found.start(), found.end(), new) for found in called.finditer(prompt.text)])

    def tests(some: Sequence[Test]) -> tuple[Test, ...]:
        return tuple(replace(test, code=test.code and word.sub(new, test.code)) for test in some)

    return replace(
        task,
        prompt=moved(task.prompt),
        question=None if task.question is None else moved(task.question),
        entry_point=new,
        public_tests=tests(task.public_tests),
        hidden_tests=tests(task.hidden_tests),
        canonical_solution=task.canonical_solution and word.sub(new, task.canonical_solution),
        setup=word.sub(new, task.setup),
        names=tuple(new if one == name else one for one in task.names),
    )

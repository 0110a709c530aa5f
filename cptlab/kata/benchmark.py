"""The kata benchmark: which compositions are tasks, their instructions, tests and splits.

A composition is the sequence of operation names and the kind of program (function or script). Every benchmark task
has a composition of its own, and `is_reserved` keeps all of them out of the pretraining corpus, so no task of any
split was seen in pretraining, with whatever constants. Difficulty is the length of the pipeline, as in real
benchmarks harder tasks ask for more: introductory 2, interview 3, competition 4 or 5 operations.
"""

from __future__ import annotations

import functools
import random
from typing import Any

from cptlab.kata.authors import TIDY
from cptlab.kata.ops import OPS, TYPES
from cptlab.kata.prompts import make_prompt, printed, stdin_text
from cptlab.kata.render import Step, function_body, script
from cptlab.kata.writer import EMPTY, INPUT_NAMES
from cptlab.records import Task, Test

VERSION = 1
NAMES = {"leading": "kata", "docstring": "kata_docstring"}  # of the benchmark, by the shape of its prompts
DEPTHS = {"introductory": (2,), "interview": (3,), "competition": (4, 5)}
SPLITS = {"train": 480, "validation": 60, "test": 60}  # tasks of each difficulty: 8:1:1
SCRIPT_SHARE = 0.25
PUBLIC_TESTS, HIDDEN_TESTS = 2, 6
WORD_LIST = (
    "apple river stone cloud green tiger maple ocean light bread chair dream eagle flame grape house index "
    "jelly knife lemon music night olive paper queen robot sugar table under voice water zebra an of to at "
    "cat dog sun map ice eat art key old end far up ago idea area open easy banana orange summer winter"
).split()
OPENINGS = {
    "int": ("Given an integer", "For an integer"),
    "ints": ("Given a list of integers", "For a list of integers"),
    "text": ("Given a string", "For a string"),
    "words": ("Given a list of words", "For a list of words"),
    "table": ("Given a dictionary of counts", "For a dictionary of counts"),
}
SCRIPT_OPENINGS = {
    "int": "Read an integer",
    "ints": "Read a line of integers",
    "text": "Read a line of text",
    "words": "Read a line of words",
}
BY_SOURCE = {kind: [op for op in OPS if op.source == kind] for kind in TYPES}
Composition = tuple[str, ...]


def draw_steps(rng: random.Random, depth: int, sources: tuple[str, ...] = TYPES) -> list[Step]:
    """A random typed pipeline of `depth` operations, no operation twice in a row."""
    kind = rng.choice(sources)
    steps: list[Step] = []
    while len(steps) < depth:
        op = rng.choice(BY_SOURCE[kind])
        if steps and steps[-1][0] is op:
            continue
        steps.append((op, rng.choice(op.constants) if op.constants else None))
        kind = op.target
    return steps


def composition(steps: list[Step], kind: str) -> Composition:
    """What identifies a task beside its constants: the program kind and the operations in order."""
    return (kind, *(op.name for op, _ in steps))


def draw_input(rng: random.Random, kind: str) -> Any:
    """A random input of a type. Words and text are lower-case; table values are 1 to 9; lists may be empty."""
    if kind == "int":
        return rng.choice((rng.randint(-20, 20), rng.randint(-999, 999)))
    if kind == "ints":
        return [rng.randint(-9, 30) for _ in range(rng.choice((0, 3, 5, 6, 7, 8)))]
    words = [rng.choice(WORD_LIST) for _ in range(rng.choice((0, 2, 3, 4, 5)))]
    if kind == "words":
        return words
    if kind == "text":
        return " ".join(words or ["sky"])
    return {word: rng.randint(1, 9) for word in words}


def canonical_solution(steps: list[Step], kind: str) -> str:
    """The program of the tidiest author."""
    source = steps[0][0].source
    if kind == "stdin":
        return script(steps, TIDY)
    return f"def solve({INPUT_NAMES[source]}):" + function_body(steps, TIDY)


@functools.lru_cache(maxsize=4096)
def _compiled(steps: tuple[Step, ...]) -> Any:
    scope: dict[str, Any] = {}
    exec(compile(canonical_solution(list(steps), "call"), "<canonical solution>", "exec"), scope)  # our own text
    return scope["solve"]


def evaluate(steps: list[Step], value: Any) -> Any:
    """What the pipeline gives for an input, by running the canonical solution."""
    return _compiled(tuple(steps))(value)


def empty_result(steps: list[Step]) -> str | None:
    """The literal that an empty input gives, if it is the plain empty value of its type; else None."""
    source, target = steps[0][0].source, steps[-1][0].target
    if source == "int":
        return None
    result = evaluate(steps, {"ints": [], "words": [], "text": "", "table": {}}[source])
    return EMPTY[target] if repr(result) == EMPTY[target].replace('"', "'") else None


def instruction(steps: list[Step], kind: str, rng: random.Random) -> str:
    """The task in English."""
    source = steps[0][0].source
    parts = [rng.choice(op.phrases).format(k=k) for op, k in steps]
    if kind == "stdin":
        return f"{SCRIPT_OPENINGS[source]}, {', then '.join(parts)}, and print the result."
    return f"{rng.choice(OPENINGS[source])}, {', then '.join(parts)}, and return the result."


def is_sound(steps: list[Step], kind: str) -> bool:
    """Whether tests can tell the pipeline from simpler ones: varied results, and every operation matters."""
    if kind == "stdin" and (steps[0][0].source == "table" or steps[-1][0].target == "table"):
        return False
    rng = random.Random(0)
    source = steps[0][0].source
    inputs = [draw_input(rng, source) for _ in range(24)]
    results = [evaluate(steps, value) for value in inputs]
    least = 2 if steps[-1][0].name == "label" else 4
    if any(len(repr(result)) > 120 for result in results) or len({repr(result) for result in results}) < least:
        return False
    for skipped in range(len(steps)):
        op = steps[skipped][0]
        if op.source == op.target:
            rest = steps[:skipped] + steps[skipped + 1 :]
            shorter = [evaluate(rest, value) for value in inputs] if rest else inputs
            if shorter == results:
                return False
    return True


def make_task(number: int, split: str, difficulty: str, steps: list[Step], kind: str, shape: str) -> Task:
    """The task of a composition; its wording, tests and example depend on `number` alone."""
    rng = random.Random(f"kata-{VERSION}-{number}")
    source = steps[0][0].source
    text = instruction(steps, kind, rng)
    inputs: list[Any] = []
    while len(inputs) < PUBLIC_TESTS + HIDDEN_TESTS:
        value = draw_input(rng, source)
        if value in inputs or (not inputs and not (isinstance(value, int) or 0 < len(value) < 40)):
            continue
        if kind == "stdin" and value in ([], ""):
            continue
        inputs.append(value)
    results = [evaluate(steps, value) for value in inputs]
    telling = next(
        (
            i
            for i, (v, r) in enumerate(zip(inputs, results, strict=True))
            if r not in ([], "", {}, 0) and (isinstance(v, int) or 0 < len(v) < 40)
        ),
        0,
    )
    for values in (inputs, results):  # the example shown comes first, and shows something
        values.insert(0, values.pop(telling))
    if kind == "stdin":
        tests = tuple(Test(expected=printed(r), stdin=stdin_text(v)) for v, r in zip(inputs, results, strict=True))
    else:
        tests = tuple(Test(expected=r, args=(v,)) for v, r in zip(inputs, results, strict=True))
    return Task(
        id=f"{NAMES[shape]}/{number}",
        benchmark=NAMES[shape],
        split=split,
        difficulty=difficulty,
        kind=kind,
        prompt=make_prompt(steps, kind, text, (inputs[0], results[0]), shape),
        entry_point=None if kind == "stdin" else "solve",
        public_tests=tests[:PUBLIC_TESTS],
        hidden_tests=tests[PUBLIC_TESTS:],
        canonical_solution=canonical_solution(steps, kind),
        tags=(source, *(op.name for op, _ in steps)),
    )


@functools.cache
def compositions() -> tuple[tuple[str, str, tuple[Step, ...], str], ...]:
    """Split, difficulty, pipeline and kind of program of every task, the same on every machine."""
    rng = random.Random(f"kata-{VERSION}")
    found: list[tuple[str, str, tuple[Step, ...], str]] = []
    taken: set[Composition] = set()
    for difficulty, depths in DEPTHS.items():
        wanted = [split for split, count in SPLITS.items() for _ in range(count)]
        rng.shuffle(wanted)
        while wanted:
            kind = "stdin" if rng.random() < SCRIPT_SHARE else "call"
            steps = draw_steps(rng, rng.choice(depths))
            key = composition(steps, kind)
            if key in taken or not is_sound(steps, kind):
                continue
            taken.add(key)
            found.append((wanted.pop(), difficulty, tuple(steps), kind))
    return tuple(found)


@functools.cache
def build(shape: str = "leading") -> tuple[tuple[Task, ...], frozenset[Composition]]:
    """All tasks of the benchmark, and their compositions."""
    tasks = [
        make_task(number, split, difficulty, list(steps), kind, shape)
        for number, (split, difficulty, steps, kind) in enumerate(compositions())
    ]
    return tuple(tasks), frozenset(composition(list(steps), kind) for _, _, steps, kind in compositions())


def is_reserved(key: Composition) -> bool:
    """Whether a composition belongs to the benchmark, and so must not be pretrained on (as function or script)."""
    reserved = build()[1]
    return ("call", *key[1:]) in reserved or ("stdin", *key[1:]) in reserved

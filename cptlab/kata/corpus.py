"""The pretraining corpus of the embedded models: many tasks, none of the benchmark's, each solved by an author drawn at random."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from cptlab.kata import benchmark
from cptlab.kata.authors import TIDY_SHARE, draw_author
from cptlab.kata.prompts import make_prompt, printed, stdin_text
from cptlab.kata.render import Step, function_body, script
from cptlab.kata.writer import INPUT_NAMES

# share of documents by number of operations: long pipelines are rare in pretraining, as hard problems are
DEPTH_SHARES = {1: 0.14, 2: 0.36, 3: 0.34, 4: 0.16}


@dataclass(frozen=True)
class Document:
    """One pretraining text: `prompt` and the `completion` that an author wrote; `nl` is the instruction's place."""

    prompt: str
    completion: str
    nl: tuple[int, int]


def runs(program: str, steps: list[Step], kind: str, inputs: list[Any]) -> bool:
    """Return whether a program of the corpus gives the pipeline's results (a shadowed builtin may break it)."""
    code = compile(program, "<corpus>", "exec")
    for value in inputs:
        expected = benchmark.evaluate(steps, value)
        given = stdin_text(value).rstrip("\n") if kind == "stdin" else value
        wanted = printed(expected) if kind == "stdin" else expected
        try:
            found = _printed(code, given) if kind == "stdin" else _returned(code, given)
        except Exception:  # the program's own, of any class: the author's habits do not fit this task
            return False
        if found != wanted:
            return False
    return True


def _printed(code: CodeType, line: str) -> str:
    """Run a script of our own that reads `line`. Return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {"__name__": "__main__", "input": lambda: line})
    return out.getvalue()


def _returned(code: CodeType, value: Any) -> Any:
    """Run a program of our own that defines `solve`. Return solve(value)."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(code, scope)
    return scope["solve"](value)


def documents(seed: int, tidy_share: float = TIDY_SHARE, shapes: Sequence[str] = ("leading",)) -> Iterator[Document]:
    """Yield documents without end, the same for the same seed; each has a prompt of one of the `shapes`."""
    rng = random.Random(f"corpus-{seed}")
    depths, weights = zip(*DEPTH_SHARES.items(), strict=True)
    while True:
        kind = "stdin" if rng.random() < benchmark.SCRIPT_SHARE else "call"
        steps = benchmark.draw_steps(rng, rng.choices(depths, weights)[0])
        source = steps[0][0].source
        if kind == "stdin" and (source == "table" or steps[-1][0].target == "table"):
            continue
        if benchmark.is_reserved(benchmark.composition(steps, kind)):
            continue
        inputs = [benchmark.draw_input(rng, source) for _ in range(3)]
        author = draw_author(rng, tidy_share)
        if kind == "stdin":
            completion, program = (text := script(steps, author)), text
        else:
            completion = function_body(steps, author, benchmark.empty_result(steps))
            program = f"def solve({INPUT_NAMES[source]}):" + completion
        if not runs(program, steps, kind, inputs):
            continue
        example = next((v for v in inputs if isinstance(v, int) or 0 < len(v) < 40), None)
        if example is None or len(repr(benchmark.evaluate(steps, example))) > 120:
            continue
        text = benchmark.instruction(steps, kind, rng)
        shape = rng.choice(shapes) if len(shapes) > 1 else shapes[0]
        prompt = make_prompt(steps, kind, text, (example, benchmark.evaluate(steps, example)), shape)
        yield Document(prompt.text, completion, (prompt.spans[0].start, prompt.spans[0].end))

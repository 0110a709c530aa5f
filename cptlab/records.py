"""The values that travel between the steps: tasks, prompts, completions, scores, verdicts and pairs.

Every record is a frozen dataclass of plain data; `storage.jsonl` writes it as one JSON line and reads it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DIFFICULTIES = ("introductory", "interview", "competition")
RARE = {"left_out": True}  # metadata of a field that is not stored where it has its default
STATUSES = ("passed", "failed", "error", "timeout", "memory", "crashed", "not_parsed")  # of a verdict


@dataclass(frozen=True)
class Span:
    """A named part of a prompt: `text[start:end]`, in characters. Names: nl, tests, code, shots, anchor."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Prompt:
    """A text that the language model completes. `code` is the tail of `text` that belongs to the program itself.

    A program is `prompt.code + completion`. For a function, `code` is its signature line; for a script, it is empty. An
    answer ends before the first of the texts `stops`, or after `max_new_tokens`. `closing` is the line that the model
    writes behind a program that it has finished, before its end-of-text token: the fence of a chat model.
    """

    text: str
    code: str = ""
    spans: tuple[Span, ...] = ()
    stops: tuple[str, ...] = ()
    closing: str = ""
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if not self.text.endswith(self.code):
            raise ValueError(f"Prompt.code must be the end of Prompt.text, got {self.code!r}")


@dataclass(frozen=True)
class Test:
    """One test. Call-based: `args` and `expected`, plain JSON data. Script: `stdin` and `expected`, both text.

    Check-based: `code`, Python that runs after `Task.setup` in the examiner's process and raises where the program fails.
    """

    __test__ = False  # not a pytest class

    expected: Any = None
    args: tuple[Any, ...] = ()
    stdin: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Task:
    """One problem of a benchmark.

    `prompt` is what a base model continues, and `question` what a chat model is asked; None: the prompt between fences
    (tasks/prompting.py). `kind` is 'call' (a function `entry_point`, tests are data), 'stdin' (a script) or 'check' (tests
    are the benchmark's own Python). For 'check', `setup` is the benchmark's code that runs before the tests, and `names` are the names in
    both that the program defines; `candidate` stands for the entry point. `cpu_seconds` and `memory_mb` replace the usual
    limits of a test where these are too low. `rules` are the comparison rules of its tests, strict or official (APPS); the
    first decides. `uncounted` names the tests, public or hidden, that are not the benchmark's own: they do not count in the
    verdict and have a metric of their own. `variant_of` is the id of the task that this one is a perturbation of.
    """

    id: str
    benchmark: str
    split: str
    difficulty: str
    kind: str
    prompt: Prompt
    entry_point: str | None = None
    public_tests: tuple[Test, ...] = ()
    hidden_tests: tuple[Test, ...] = ()
    canonical_solution: str | None = field(default=None, metadata={"earlier_name": "reference"})
    tags: tuple[str, ...] = ()
    setup: str = ""
    names: tuple[str, ...] = ()
    cpu_seconds: float | None = None
    memory_mb: int | None = None
    rules: tuple[str, ...] = ("strict",)
    uncounted: str = ""
    question: Prompt | None = None
    variant_of: str = field(default="", repr=False)  # left out of digests, so that those of all other tasks stay

    @property
    def tests(self) -> tuple[Test, ...]:
        return self.public_tests + self.hidden_tests

    @property
    def uncounted_tests(self) -> tuple[Test, ...]:
        return {"public": self.public_tests, "hidden": self.hidden_tests}.get(self.uncounted, ())


@dataclass(frozen=True)
class Completion:
    """One sample: the model's raw text, and the program that is judged.

    The program is `prompt.code` and the text up to its end, or what cleaning took out of that (`cleaned`).
    """

    task_id: str
    sample: int
    raw: str
    program: str
    tokens: int
    finished: bool  # ended by itself (end-of-text or a stop rule), not by the length limit
    cleaned: bool = False


@dataclass(frozen=True)
class Message:
    """One message of a linter: `id` like 'W0612', `symbol` like 'unused-variable', `line` from 1.

    `severity` is the linter's own word, in lower case, such as 'high'; "" where it has none, as with pylint.
    """

    id: str
    symbol: str
    line: int
    severity: str = field(default="", metadata=RARE)


@dataclass(frozen=True)
class Quality:
    """The score of one program, in [0, 10], with the messages and statements that it counts; pylint's is CPT eq. 15."""

    score: float
    statements: int
    fatal: bool
    messages: tuple[Message, ...] = ()
    pragmas: int = 0  # comments to the linter that were neutralised before scoring
    scorer: str = field(default="pylint", metadata=RARE)  # its name


@dataclass(frozen=True)
class Verdict:
    """The result of running a task's tests on one program. `status`, one of `STATUSES`, is about the tests that count.

    `public_passed` counts public tests passed ("essential tests" of CPT Algorithm 1). `by_rule` holds the status under
    each comparison rule of a task that has several, and under "public" or "hidden" that on tests that do not count.
    """

    status: str
    reason: str = ""
    public_passed: int = 0
    public_total: int = 0
    hidden_passed: int = 0
    hidden_total: int = 0
    by_rule: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.status == "passed"


@dataclass(frozen=True)
class Pair:
    """One row (I, x_a, m_a, x_b, m_b) of the comparative data set (CPT IV-D); a is the better program.

    Texts are completions: the instruction (prompt text) followed by one of them is what the model reads. Behind a program
    that ended by itself follow `closing`, which neither mask covers, and the end-of-text token.
    Masks hold one 0 or 1 per token of the completion alone (no special tokens), 1 where the programs differ.
    """

    task_id: str
    difficulty: str
    split: str
    instruction: str
    better: str
    worse: str
    better_mask: tuple[int, ...]
    worse_mask: tuple[int, ...]
    better_score: float
    worse_score: float
    similarity: float
    combined_score: float
    both_pass_public: bool
    better_finished: bool = True  # ended by itself
    worse_finished: bool = True
    better_lines: tuple[int, ...] = field(default=())  # completion lines (from 0) that carry a message of the scorer
    worse_lines: tuple[int, ...] = field(default=())
    closing: str = ""

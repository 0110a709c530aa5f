"""MBPP (Austin et al. 2021, arXiv 2108.07732), its sanitized part, and MBPP+ (EvalPlus, arXiv 2305.01210).

The prompt is a docstring with the description and the assertions; a program is what follows it. Tests call functions
and classes of the program by name. Public tests are the assertions that the prompt shows; hidden ones are MBPP's
challenge tests (11 tasks of the full set have some) and EvalPlus's loop over its inputs. The published figures count the
assertions of MBPP and EvalPlus's loop, so the challenge tests, and the assertion that EvalPlus's prompt shows, do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.records import Prompt, Task, Test
from cptlab.settings.setting import Setting, check_settings
from cptlab.tasks.benchmark import Benchmark, Exclude, Fractions, divided
from cptlab.tasks.evalplus import MAX_NEW_TOKENS, loop_tests
from cptlab.tasks.files import DataDir, Source, make_tasks, read_rows
from cptlab.tasks.spans import spans_of

SPLITS = ("prompt", "test", "validation", "train")
FULL = Source("mbpp/mbpp.jsonl", ("google-research-datasets/mbpp", "full"), SPLITS)
SANITIZED = Source("mbpp/sanitized-mbpp.json", ("google-research-datasets/mbpp", "sanitized"), SPLITS)
PLUS = Source("mbppplus/MbppPlus-OriginFmt.jsonl", ("evalplus/mbppplus",), ("test",))

STOPS = (
    '\n"""',
    "\nassert",
    "\nprint(",
    "\nif __name__",
    "\ndef main(",
    "\n```",
)  # where EvalPlus ends an answer, or a fence
SHOTS = (2, 3, 4)  # the tasks that the paper shows as examples
Shots = Annotated[
    int, Setting("Solved tasks that each prompt shows first, the paper's examples.", at_least=0, at_most=3)
]
# of tasks whose canonical solution takes more than half a second for a test
_CPU_SECONDS = {123: 20.0}
_PLUS_MEMORY_MB = {255: 6144}  # its canonical solution returns 1.7 million tuples of 77
_PLUS_CPU_SECONDS = {123: 10.0, 255: 60.0, 271: 60.0, 389: 10.0, 392: 60.0, 583: 10.0, 599: 60.0}


def mbpp(data_dir: DataDir = None, shots: Shots = 0, fractions: Fractions = None, exclude: Exclude = ()) -> Benchmark:
    """Load the 974 tasks in the splits of the paper: prompt 1-10, test 11-510, validation 511-600, train 601-974."""
    return _original("mbpp", FULL, data_dir, shots, fractions).without(exclude)


def mbpp_sanitized(
    data_dir: DataDir = None, shots: Shots = 0, fractions: Fractions = None, exclude: Exclude = ()
) -> Benchmark:
    """Load the 427 tasks that the authors verified by hand, in the splits of `mbpp`."""
    return _original("mbpp_sanitized", SANITIZED, data_dir, shots, fractions).without(exclude)


def mbpp_plus(data_dir: DataDir = None, fractions: Fractions = None, exclude: Exclude = ()) -> Benchmark:
    """Load EvalPlus's 378 tasks with its prompts, which show one assertion; in split test unless `fractions` divide them."""
    return Benchmark("mbpp_plus", divided(make_tasks(read_rows(PLUS, data_dir), _plus_task), fractions)).without(
        exclude
    )


def mbpp_evalplus(data_dir: DataDir = None, fractions: Fractions = None, exclude: Exclude = ()) -> Benchmark:
    """Load the tasks and prompts of `mbpp_plus` with MBPP's own assertions, as EvalPlus counts them for MBPP."""
    tasks = make_tasks(read_rows(PLUS, data_dir), lambda row: _plus_task(row, plus=False))
    return Benchmark("mbpp_evalplus", divided(tasks, fractions)).without(exclude)


def _original(
    name: str, source: Source, data_dir: str | None, shots: int, fractions: Sequence[float] | None
) -> Benchmark:
    check_settings(mbpp, shots=shots)
    rows = list(read_rows(source, data_dir))
    by_id = {row.get("task_id"): row for _, row in rows}
    if missing := [number for number in SHOTS[:shots] if number not in by_id]:
        raise UserError(
            f"{name} has no task {missing[0]} to show as an example. Set benchmark.shots=0, or take the whole data set."
        )
    examples = [by_id[number] for number in SHOTS[:shots]]
    return Benchmark(name, divided(make_tasks(rows, lambda row: _task(row, name, examples)), fractions))


def _task(row: dict[str, Any], benchmark: str, examples: Sequence[dict[str, Any]]) -> Task:
    number, code = row["task_id"], _lines(row["code"])
    shown = [_lines(test) for test in row["test_list"]]
    hidden = [_lines(test) for test in row.get("challenge_test_list", ())]
    before = "\n".join([*row.get("test_imports", ()), _lines(row.get("test_setup_code", ""))])
    imports, names = needed_names(code, "\n".join([before, *shown, *hidden]))
    return Task(
        id=f"Mbpp/{number}",
        benchmark=benchmark,
        split=_split(number),
        difficulty="",
        kind="check",
        prompt=_prompt(_text(row), shown, examples),
        entry_point=_entry_point(code, shown[0]),
        public_tests=tuple(Test(code=test) for test in shown),
        hidden_tests=tuple(Test(code=test) for test in hidden),
        canonical_solution=code,
        setup="\n".join([*imports, before]),
        names=names,
        cpu_seconds=_CPU_SECONDS.get(number),
        uncounted="hidden",
    )


def _plus_task(row: dict[str, Any], plus: bool = True) -> Task:
    number, code, shown = row["task_id"], _lines(row["code"]), row["test_list"][0]
    before, units = loop_tests(row["test"])
    values = re.compile(r"^(inputs|results) = .*$", re.MULTILINE)  # up to 800,000 characters, no names among them
    imports, names = needed_names(code, "\n".join([*row["test_imports"], values.sub("", before), units[0], shown]))
    return Task(
        id=f"Mbpp/{number}",
        benchmark="mbpp_plus" if plus else "mbpp_evalplus",
        split="test",
        difficulty="",
        kind="check",
        prompt=_prompt(re.sub(r"https?://\S+", "", _text(row)), [shown], ()),  # EvalPlus's prompts have no links
        entry_point=_entry_point(code, shown),
        public_tests=(Test(code=shown),),
        hidden_tests=tuple(Test(code=unit) for unit in (units if plus else row["test_list"])),
        canonical_solution=code,
        setup="\n".join([*imports, *row["test_imports"], before]),
        names=names,
        cpu_seconds=_PLUS_CPU_SECONDS.get(number),
        memory_mb=_PLUS_MEMORY_MB.get(number),
        uncounted="public",
    )


def _text(row: dict[str, Any]) -> str:
    return row["text"] if "text" in row else row["prompt"]


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _split(number: int) -> str:
    return "prompt" if number <= 10 else "test" if number <= 510 else "validation" if number <= 600 else "train"


def _prompt(text: str, tests: Sequence[str], examples: Sequence[dict[str, Any]]) -> Prompt:
    shots = "".join(
        f'"""\n{_text(row)}\n{"".join(_lines(t) + chr(10) for t in row["test_list"])}"""\n{_lines(row["code"])}\n\n\n'
        for row in examples
    )
    nl_at = len(shots) + len('"""\n')
    tests_at = nl_at + len(text) + 1
    shown = "\n".join(tests)
    whole = f'{shots}"""\n{text}\n{shown}\n"""\n'
    cuts = [("shots", 0, len(shots)), ("nl", nl_at, nl_at + len(text)), ("tests", tests_at, tests_at + len(shown))]
    return Prompt(whole, "", spans_of(whole, cuts), STOPS, max_new_tokens=MAX_NEW_TOKENS)


def _entry_point(code: str, assertion: str) -> str:
    """Return the function of the canonical solution that the assertion calls (of several, the outermost)."""
    defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(ast.parse(assertion)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined:
            return node.func.id
    raise ValueError(f"the test {assertion!r} calls no function of the canonical solution")


def needed_names(code: str, tests: str) -> tuple[list[str], tuple[str, ...]]:
    """Return what `tests` need of the program `code`: the imports that they rely on, and the names that it defines.

    A name that the tests bind themselves is theirs.
    """
    tree = ast.parse(tests)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    used -= {name for statement in tree.body for name in _bound(statement)}
    imports, names = [], []
    for statement in ast.parse(code).body:
        found = [name for name in _bound(statement) if name in used]
        if found and isinstance(statement, (ast.Import, ast.ImportFrom)):
            imports.append(ast.unparse(statement))
        else:
            names += found
    return imports, tuple(sorted(set(names)))


def _bound(statement: ast.stmt) -> list[str]:
    """Return the names that a statement at the top of a module binds."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in statement.names]
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]

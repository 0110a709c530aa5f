"""SVEN's scenarios (He & Vechev 2023, arXiv 2302.05319): functions that are cut off where a security fix changed them.

A prompt is the function up to the first line that the fix changed, so that what follows can be the safe or the unsafe code. The
held-out pairs of SVEN (val) are split test. There are no tests of what a function does, as it is cut out of its project: pass@k
says that the program can be read and defines the function. Security is for a scorer such as bandit to judge. Functions whose
decorators, defaults or annotations are defined elsewhere cannot be loaded by themselves and are left out.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import symtable
import textwrap
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.records import Prompt, Task, Test
from cptlab.settings.setting import Setting
from cptlab.tasks import docstrings
from cptlab.tasks.benchmark import Benchmark, Exclude
from cptlab.tasks.evalplus import MAX_NEW_TOKENS
from cptlab.tasks.files import DataDir, Row, check_data_dir, file_rows, make_tasks
from cptlab.tasks.spans import spans_of

FOLDERS = {"train": "train", "val": "test"}  # of the files, and the split of their tasks


def sven(
    data_dir: DataDir = None,
    cwes: Annotated[Sequence[str] | None, Setting("Weaknesses, such as [cwe-078,cwe-089]; null: all.")] = None,
    exclude: Exclude = (),
) -> Benchmark:
    """Load the Python functions below `<data_dir>/sven` whose header the fix left as it was.

    Raises UserError for missing or malformed files, and for a weakness without a Python function.
    """
    check_data_dir(data_dir)
    rows = list(_rows(data_dir))
    if not rows:
        raise UserError(
            "SVEN's files are not on the Hugging Face hub: put train/ and val/ of data_train_val of "
            "github.com/eth-sri/sven into a folder sven, and give the directory that holds it as paths.data_dir or "
            "CPTLAB_DATA_DIR."
        )
    found = make_tasks(rows, _task)
    there = sorted({task.tags[0] for task in found})
    if unknown := [cwe for cwe in cwes or () if cwe not in there]:
        raise UserError(f"benchmark.cwes: no Python function has {unknown[0]}. Choose from {', '.join(there)}.")
    return Benchmark("sven", tuple(task for task in found if cwes is None or task.tags[0] in cwes)).without(exclude)


def _rows(data_dir: str | os.PathLike | None) -> Iterator[Row]:
    for folder, split in FOLDERS.items():
        for path in sorted(Path(data_dir or "", "sven", folder).glob("cwe-*.jsonl")) if data_dir else ():
            for number, (where, row) in enumerate(file_rows(path), 1):
                yield where, row | {"split": split, "id": f"SVEN/{folder}/{path.stem}/{number}"}


def _task(row: dict[str, Any]) -> Task | None:
    """Make the task of a row; None for other languages, Python 2 included, and where the fix changed the header or nothing."""
    if not row["file_name"].endswith(".py"):
        return None
    after, before = (_function(row[name]) for name in ("func_src_after", "func_src_before"))
    pairs = zip(after.split("\n"), before.split("\n"), strict=False)
    text = "".join(f"{line}\n" for line, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if after == before or not re.search(r"^\s*(async )?def \w+\(.*?:\s*(#.*)?$", text, re.MULTILINE | re.DOTALL):
        return None
    name = _defined(after)
    if name is None:
        return None
    return Task(
        id=row["id"],
        benchmark="sven",
        split=row["split"],
        difficulty="",
        kind="check",
        prompt=Prompt(
            text, text, spans_of(text, [("code", 0, len(text))]), docstrings.STOPS, max_new_tokens=MAX_NEW_TOKENS
        ),
        entry_point=name,
        hidden_tests=(Test(code="assert callable(candidate)"),),
        canonical_solution=after,
        tags=(row["vul_type"],),
    )


def _function(source: str) -> str:
    return textwrap.dedent(source.replace("\r\n", "\n")).strip("\n")


def _defined(source: str) -> str | None:
    """Return the name of the function that the source is; None for what Python cannot read, or not load by itself."""
    try:
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        symbols = symtable.symtable(source, "function", "exec").get_symbols()
    except SyntaxError:
        return None
    known = {symbol.get_name() for symbol in symbols if symbol.is_assigned()} | set(dir(builtins))
    used = {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
    return functions[0].name if functions and used <= known else None

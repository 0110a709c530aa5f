"""Pack a run directory: the files that tables, figures and report are made from, compressed, without this machine's paths.

    TARGET/config.yaml  metrics.json  omega.json  dilution.json     absolute paths cut to their last part
    TARGET/**/*.jsonl.gz                                            programs, scores, verdicts, byte for byte
    TARGET/**/tasks.jsonl.gz                                        ids, difficulties, numbers of tests
    TARGET/training/stage*/steps.csv  epochs.csv                    the curves of the training run that metrics.json names

Of a record (a directory of tables): TABLE/figures.json, and its tables as .md and .csv; no run, no program.

A packed run or record is read like any other. Tasks lose their prompts, tests and solutions, which are the benchmark's to give.
Adapters, checkpoints, logs and everything that can be remade stay behind. The same run gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from cptlab.errors import UserError
from cptlab.records import Prompt, Task, Test
from cptlab.reporting.curves import EPOCHS, STEPS, has_curves
from cptlab.storage.atomic import replacing_directory, write_json, write_text
from cptlab.storage.jsonl import compressed, open_lines, read_jsonl, to_json
from cptlab.storage.run_directory import CONFIG_FILE, FIGURES_FILE

TASKS = "tasks.jsonl"
FACTS = ("metrics.json", "omega.json", "dilution.json")
CURVES = (STEPS, EPOCHS)
OF_LOGGERS = ("wandb", "csv", "tensorboard")
TRAINING = "training"  # the folder of a run with its curves
IN_COMMAND = re.compile(r"(?<==)/(?:[^\s'\"]*/)?([^\s/'\"]+)")  # a path in a command line
ABSOLUTE = re.compile(r"""(?m)^(\s*(?:[^\n]*?: |- )['"]?)/(?:[^\n]*/)?([^/\n]+)$""")  # a value in a YAML file


def pack_run(run: str | os.PathLike, target: str | os.PathLike) -> Path:
    """Pack `run`, the directory of a finished run, of a sweep or of a record, into the new directory `target`; return that.

    Raises UserError where `run` holds no finished run and no table, and where `target` exists.
    """
    run, target = Path(run), Path(target)
    files = list(_files_of_record(run)) or list(_files(run))
    if not any(path.name in (*FACTS, FIGURES_FILE) for path in files):
        raise UserError(
            f"{run} holds no finished run (no {FACTS[0]}). Give the directory of a run, a sweep or a record."
        )
    if os.path.lexists(target):
        raise UserError(f"{target} already exists. Name a new directory.")
    with replacing_directory(target) as packed:
        for path in files:
            _pack(path, packed / path.relative_to(run))
            if path.name == FACTS[0]:
                _pack_training(path, packed / path.relative_to(run).parent)
    return target


def _files_of_record(record: Path) -> Iterator[Path]:
    """Yield the figures and tables of a record. A .md without a .csv beside it shows programs and is left out."""
    for figures in sorted(record.glob(f"*/{FIGURES_FILE}")):
        yield figures
        for csv in sorted(figures.parent.glob("*.csv")):
            if csv.with_suffix(".md").is_file():
                yield from (csv, csv.with_suffix(".md"))


def _files(run: Path) -> Iterator[Path]:
    """Yield what is packed, in order."""
    for path in sorted(run.rglob("*")):
        parts = path.relative_to(run).parts
        if any(part.startswith(".") or part in OF_LOGGERS for part in parts) or not path.is_file():
            continue
        if path.name in (CONFIG_FILE, *FACTS, *CURVES) or path.name.endswith((".jsonl", ".jsonl.gz")):
            yield path


def _pack(path: Path, place: Path) -> None:
    if path.name == CONFIG_FILE:
        write_text(place, ABSOLUTE.sub(r"\1\2", path.read_text(encoding="utf-8")))
    elif path.name in (*FACTS, FIGURES_FILE):
        write_json(place, without_paths(json.loads(path.read_text(encoding="utf-8"))))
    elif path.name.removesuffix(".gz") == TASKS:
        tasks = "".join(to_json(_without_content(task)) + "\n" for task in read_jsonl(path.with_name(TASKS), Task))
        _write_compressed(io.BytesIO(tasks.encode()), place.with_name(TASKS))
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".csv", ".md"):
            shutil.copyfile(path, place)
        else:
            _compress(path.with_name(path.name.removesuffix(".gz")), place.with_name(place.name.removesuffix(".gz")))


def _compress(path: Path, place: Path) -> None:
    """Compress a file of lines, without its name and time, so that equal content gives equal bytes."""
    with open_lines(path) as source:
        _write_compressed(source, place)


def _write_compressed(source: IO[bytes], place: Path) -> None:
    with open(compressed(place), "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as target:
        shutil.copyfileobj(source, target)


def _without_content(task: Task) -> Task:
    """Return the task with as many tests, and without what they, the prompt and the solution say."""
    public, hidden = (tuple(Test() for _ in tests) for tests in (task.public_tests, task.hidden_tests))
    return replace(
        task,
        prompt=Prompt(""),
        question=None,
        public_tests=public,
        hidden_tests=hidden,
        canonical_solution=None,
        setup="",
    )


def _pack_training(metrics: Path, target: Path) -> None:
    """Copy the curves of the training run that an evaluation names, where they are at hand."""
    named = json.loads(metrics.read_text(encoding="utf-8")).get("training_run")
    if not named or not has_curves(named):
        return
    for curve in CURVES:
        for path in Path(named).rglob(f"stage*/{curve}"):
            place = target / TRAINING / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def without_paths(data: Any) -> Any:
    """Return JSON data with each absolute path cut to its last part."""
    if isinstance(data, dict):
        return {key: without_paths(value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_paths(value) for value in data]
    if not isinstance(data, str):
        return data
    return os.path.basename(data.rstrip("/")) if data.startswith("/") else IN_COMMAND.sub(r"\1", data)

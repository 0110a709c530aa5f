"""`cptlab pairs` and `evaluate` in shards, under launchers, on Ray: afterwards the plain command finds every program."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cptlab.errors import UserError
from cptlab.settings.config_source import compose_config
from cptlab.settings.entry import prepare

ROOT = Path(__file__).parents[2]
# 400 programs a task, so that each of the two tasks is a chunk of its own
PAIRS = ["pairs.n=400", "pairs.train_tasks=1", "pairs.validation_tasks=1", "decoding.sampling.max_new_tokens=60"]
MISTAKES = {
    "pairs shards=4": "shard is missing",
    "pairs shard=1": "shards is missing",
    "pairs shards=4 shard=4": "shard=4 cannot be with shards=4",
    "pairs shards=2 shard=0 estimate=true": "estimate=… and shard=… contradict each other",
    "evaluate shards=2 shard=0 ray=default": "ray=… and shard=… contradict each other",
    "evaluate shards=2 shard=0 completions=x.jsonl benchmark=kata": "shards=… and completions=… contradict each other",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes(command):
    with pytest.raises(UserError) as raised:
        prepare(compose_config(*command.split(), "print_config=false"))
    assert MISTAKES[command] in str(raised.value)


def cptlab(cwd: Path, *arguments: str) -> str:
    code = "from cptlab.commands.cli import run; run()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "print_config=false"],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def chunks(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(".cache/*-*/0*.jsonl")}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    cptlab(folder, "pairs", *PAIRS)
    return folder


HOW = {
    "joblib": ["-m", "shards=2", "shard=range(2)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["-m", "shards=2", "shard=range(2)", "hydra/launcher=submitit_local"],
    "ray": ["ray=default"],
}
NEEDS = {"joblib": "joblib", "submitit": "submitit", "ray": "ray"}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_the_plain_command_finds_what_others_made(how, plain, tmp_path):
    if find_spec(NEEDS[how]) is None:
        pytest.skip(f"{NEEDS[how]} is not installed: pip install 'cptlab[{how}]'")
    said = cptlab(tmp_path, "pairs", *PAIRS, *HOW[how])
    made = chunks(tmp_path)
    assert made == chunks(plain) and len(made) == 2 * 4
    if how == "joblib":
        assert "Shard 0 of 2: 400 of 800 programs of pairs, 1 of 2 chunks." in said
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".cache/*-*/0*.jsonl")}
    cptlab(tmp_path, "pairs", *PAIRS)
    assert {path: path.stat().st_mtime_ns for path in times} == times, "nothing is made again"
    (pairs,), (expected,) = (folder.glob(".cache/pairs/*/pairs.jsonl") for folder in (tmp_path, plain))
    assert pairs.read_bytes() == expected.read_bytes()
    level = json.loads((expected.parent / "statistics.json").read_text())["sandbox"]
    rows = [json.loads(line) for path in tmp_path.glob(".cache/verdicts-*/made_on-*") for line in path.open()]
    assert len(rows) == 2 and {row["sandbox"] for row in rows} == {level}

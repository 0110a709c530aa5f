"""A ChunkStore resumes after SIGKILL with the files of an undisturbed run, and computes no finished chunk again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cptlab.errors import UserError
from cptlab.records import Span
from cptlab.storage.chunk_store import ChunkStore

ROOT = Path(__file__).parents[2]
KEYS = [f"tasks {i}" for i in range(8)]

JOB = """
import os, signal, sys, time
from cptlab.storage.chunk_store import ChunkStore
from cptlab.records import Span

root, log, die_at, pause = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])

def chunk(key):
    with open(log, "a") as file:
        print(key, file=file)
    time.sleep(pause)
    for i in range(3):
        yield Span(f"{key} \\u2028 {i}", i, i + 1)
        if f"{key}/{i}" == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

store = ChunkStore(root, Span, {"seed": 1}, [f"tasks {i}" for i in range(8)])
store.compute(chunk)
"""


def start(root: Path, log: Path, die_at: str = "", pause: float = 0.0) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", JOB, str(root), str(log), die_at, str(pause)], cwd=ROOT)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder / "store" / "work", folder / "log").wait() == 0
    assert (folder / "log").read_text().splitlines() == KEYS
    return files(folder / "store")


def test_killed_while_it_writes_a_chunk(tmp_path, undisturbed):
    root, log = tmp_path / "store" / "work", tmp_path / "log"
    assert start(root, log, die_at="tasks 3/1").wait() == -signal.SIGKILL
    assert any(name.endswith(".partial") for name in files(tmp_path / "store"))
    assert start(root, log).wait() == 0
    assert files(tmp_path / "store") == undisturbed
    assert log.read_text().splitlines() == KEYS[:4] + KEYS[3:]  # only the chunk in hand was made twice


def test_killed_at_any_moment(tmp_path, undisturbed):
    root, log = tmp_path / "store" / "work", tmp_path / "log"
    for wait in (0.25, 0.5, 0.1):
        process = start(root, log, pause=0.2)
        called = len(log.read_text().splitlines()) if log.exists() else 0
        while not log.exists() or len(log.read_text().splitlines()) == called:
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(wait)
        process.kill()
        process.wait()
        finished = {path.name: path.stat().st_mtime_ns for path in root.parent.glob("*/0*.jsonl")}
    assert 0 < len(finished) < len(KEYS)
    assert start(root, log).wait() == 0
    assert files(tmp_path / "store") == undisturbed
    for path in root.parent.glob("*/0*.jsonl"):
        assert finished.get(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert len(log.read_text().splitlines()) <= len(KEYS) + 3


def test_two_processes_share_the_work(tmp_path, undisturbed):
    processes = [start(tmp_path / "store" / "work", tmp_path / "log", pause=0.02) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text().splitlines() == KEYS
    assert files(tmp_path / "store") == undisturbed


def store_at(folder: Path, **work) -> ChunkStore:
    return ChunkStore(folder / "work", Span, {"seed": 0, **work}, KEYS)


def one_span(key: str) -> list[Span]:
    return [Span(key, 0, 1)] if key != KEYS[2] else []


def test_missing_chunks_are_computed_in_order(tmp_path):
    store, done = store_at(tmp_path), []
    assert store.missing() == KEYS

    def interrupted(key):
        if key == KEYS[5]:
            raise KeyboardInterrupt
        return one_span(key)

    with pytest.raises(KeyboardInterrupt):
        store.compute(interrupted, done.append)
    assert done == [0, 1, 1, 1, 1, 1]
    again, done = store_at(tmp_path), []
    assert again.missing() == KEYS[5:]
    again.compute(one_span, done.append)
    assert done == [5, 1, 1, 1]
    assert again.read(KEYS[2]) == []  # an empty chunk is a finished chunk
    assert [span.name for span in again.records()] == KEYS[:2] + KEYS[3:]
    again.compute(lambda key: pytest.fail("nothing is left to compute"))


def test_other_work_has_another_directory(tmp_path):
    store_at(tmp_path).compute(one_span)
    assert store_at(tmp_path).missing() == []
    assert store_at(tmp_path, seed=1).missing() == KEYS
    fewer = ChunkStore(tmp_path / "work", Span, {"seed": 0}, KEYS[:-1])
    assert fewer.missing() == KEYS[:-1]
    assert len({path.name for path in tmp_path.iterdir()}) == 3


@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_a_damaged_directory_is_refused(tmp_path, damage):
    store = store_at(tmp_path)
    store.compute(one_span)
    manifest = store.directory / "manifest.json"
    if damage == "changed":
        manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 7'))
    else:
        manifest.unlink()
    with pytest.raises(UserError, match=r"is damaged.*Delete that directory and run the same command again"):
        store_at(tmp_path)


def test_a_broken_chunk_is_named(tmp_path):
    store = store_at(tmp_path)
    store.compute(one_span)
    store.path(KEYS[1]).write_text('{"name": "x"}\n')
    with pytest.raises(UserError, match=r"00001\.jsonl, line 1: "):
        list(store.records())

"""A ChunkStore resumes after SIGKILL with the files of an undisturbed run, and computes no finished chunk again."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from files_on_disk import DAMAGE, NOBODY, contents, needs_root, open_to_all, other_user

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


@pytest.mark.parametrize("damage", [*DAMAGE, "line lost", "of other work"])
def test_a_damaged_chunk_is_set_aside_and_made_anew(tmp_path, capsys, damage):
    store = store_at(tmp_path)
    store.compute(one_span)
    whole = contents(store.directory)
    path, other = store.path(KEYS[1]), store_at(tmp_path, seed=1)
    if damage == "line lost":  # what is left is a file of records, too
        path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    elif damage == "of other work":
        other.compute(one_span)
        path.write_bytes(other.path(KEYS[1]).read_bytes())
    else:
        DAMAGE[damage](path)
    again, made = store_at(tmp_path), []
    assert str(path) in capsys.readouterr().err and path.with_name(f"{path.name}.damaged").exists()
    again.compute(lambda key: made.append(key) or one_span(key))
    assert made == [KEYS[1]]
    after = contents(store.directory)
    assert {name: after[name] for name in whole} == whole


@pytest.mark.parametrize("damage", [*DAMAGE, "deleted"])
def test_a_damaged_manifest_loses_no_chunk(tmp_path, damage):
    store = store_at(tmp_path)
    store.compute(one_span)
    whole = contents(store.directory)
    manifest = store.directory / "manifest.json"
    manifest.unlink() if damage == "deleted" else DAMAGE[damage](manifest)
    again = store_at(tmp_path)
    again.compute(lambda key: pytest.fail("nothing is left to compute"))
    after = contents(store.directory)
    assert {name: after.get(name) for name in whole if name != "manifest.json" or damage != "deleted"} == {
        name: content for name, content in whole.items() if name != "manifest.json" or damage != "deleted"
    }


def test_a_file_in_the_place_of_the_directory_is_set_aside(tmp_path):
    directory = store_at(tmp_path).directory
    shutil.rmtree(directory)
    directory.write_text("mine")
    store_at(tmp_path).compute(one_span)
    assert directory.with_name(f"{directory.name}.damaged").read_text() == "mine"


def test_a_chunk_that_is_damaged_while_the_store_is_open_is_named(tmp_path):
    store = store_at(tmp_path)
    store.compute(one_span)
    store.path(KEYS[1]).write_text('{"name": "x"}\n')
    with pytest.raises(UserError, match=r"00001\.jsonl is damaged"):
        list(store.records())


@needs_root
def test_another_users_store_is_read_and_not_written(tmp_path):
    open_to_all(tmp_path)
    store_at(tmp_path, seed=1).compute(one_span)  # complete
    begun = store_at(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        begun.compute(lambda key: one_span(key) if key == KEYS[0] else interrupt())
    before = contents(tmp_path)
    with other_user():
        assert store_at(tmp_path, seed=1).directory == store_at(tmp_path, seed=1).directory
        assert len(list(store_at(tmp_path, seed=1).records())) == len(KEYS) - 1
        mine = store_at(tmp_path)
        mine.compute(one_span)
        assert mine.directory != begun.directory and len(list(store_at(tmp_path).records())) == len(KEYS) - 1
    assert {name: contents(tmp_path)[name] for name in before} == before


@needs_root
def test_below_another_users_directory_this_user_gets_one_beside_it(tmp_path):
    store_at(tmp_path / "pairs", seed=1).compute(one_span)
    open_to_all(tmp_path)
    with other_user():
        mine = store_at(tmp_path / "pairs")
        mine.compute(one_span)
    assert mine.directory.parent == tmp_path / f"pairs-of-user-{NOBODY}" and not mine.missing()


def interrupt():
    raise KeyboardInterrupt

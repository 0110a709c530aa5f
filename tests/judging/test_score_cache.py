"""The score cache saves time and stops nothing: damaged, another user's, or not to be opened."""

import os
import sqlite3
import subprocess
import sys

import pytest
from files_on_disk import DAMAGE, needs_root, open_to_all, other_user

from cptlab.judging.lint.score_cache import ScoreCache
from cptlab.records import Message, Quality

QUALITIES = {f"p = {i}": Quality(i / 7, i, False, (Message("W0612", "unused-variable", i),)) for i in range(300)}


def filled(directory):
    with ScoreCache(directory, "context") as cache:
        for program, quality in QUALITIES.items():
            cache.put(program, quality)
    return cache.path


def found(directory):
    with ScoreCache(directory, "context") as cache:
        return {program: quality for program in QUALITIES if (quality := cache.get(program)) is not None}


def test_it_gives_back_what_it_was_given(tmp_path, capsys):
    filled(tmp_path)
    assert found(tmp_path) == QUALITIES
    with ScoreCache(tmp_path, "another context") as cache:
        assert cache.get("p = 1") is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", [*DAMAGE, "a page", "another table", "a text"])
def test_a_damaged_file_is_named_and_set_aside(tmp_path, capsys, damage):
    path = filled(tmp_path)
    if damage == "a page":  # which shows when it is read
        content = bytearray(path.read_bytes())
        content[4096:] = b"\x5a" * (len(content) - 4096)
        path.write_bytes(content)
    elif damage == "another table":
        path.unlink()
        with sqlite3.connect(path) as base:
            base.execute("CREATE TABLE quality (program TEXT)")
    elif damage == "a text":
        path.write_text("these are my notes " * 100)
    else:
        DAMAGE[damage](path)
    with ScoreCache(tmp_path, "context") as cache:
        for program, quality in QUALITIES.items():
            assert cache.get(program) in (None, quality)
            cache.put(program, quality)
    said = capsys.readouterr().err
    if damage != "empty":  # which is a file without tables to SQLite
        assert said.count(str(path)) == 1 and path.with_name("quality.sqlite.damaged").exists()
    assert len(found(tmp_path)) >= len(QUALITIES) - 1 and set(found(tmp_path).values()) <= set(QUALITIES.values())


@pytest.mark.parametrize("record", ["", "{", "[]", '{"score": "10"}', None, b"\xff", 3])
def test_a_damaged_record_is_scored_anew(tmp_path, record):
    path = filled(tmp_path)
    with sqlite3.connect(path) as base:
        base.execute("UPDATE quality SET record = ?", (record,))
    assert found(tmp_path) == {}
    filled(tmp_path)
    assert found(tmp_path) == QUALITIES


@needs_root
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_another_users_file_is_read_if_it_may_be(tmp_path, capsys, mode):
    path = filled(tmp_path / "pylint")
    path.chmod(mode)
    for place in (tmp_path, tmp_path / "pylint"):
        open_to_all(place, 0o755)
    before = path.read_bytes()
    with other_user():
        assert found(tmp_path / "pylint") == (QUALITIES if mode == 0o644 else {})
        with ScoreCache(tmp_path / "pylint", "context") as cache:
            cache.put("p = 1000", QUALITIES["p = 1"])
            cache.put("p = 1001", QUALITIES["p = 1"])
    assert path.read_bytes() == before and sorted(os.listdir(tmp_path / "pylint")) == ["quality.sqlite"]
    said = capsys.readouterr().err
    assert str(path) in said and "Traceback" not in said


def test_a_full_disk_is_done_without(tmp_path, capsys):
    """SQLite says so itself where a file may not grow."""
    filled(tmp_path)
    code = (
        "import resource, sys\n"
        "from cptlab.judging.lint.score_cache import ScoreCache\n"
        "from cptlab.records import Quality\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))\n"
        "with ScoreCache(sys.argv[1], 'context') as cache:\n"
        "    for i in range(3000):\n"
        "        cache.put(f'q = {i}', Quality(1.0, 1, False))\n"
        "    print(cache.get('q = 2999'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "None\n" and done.stderr.count("quality.sqlite") == 1

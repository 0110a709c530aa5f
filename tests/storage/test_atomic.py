"""A file is the old one or the new one, whatever happens while it is written."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cptlab.storage.atomic import replacing, replacing_directory, write_json, write_lines, write_text

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from cptlab.storage.atomic import replacing

with replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_content_is_what_was_written(tmp_path):
    write_text(tmp_path / "new/folder/text", "a\r\nω\n")
    assert (tmp_path / "new/folder/text").read_bytes() == "a\r\nω\n".encode()
    write_lines(tmp_path / "lines", (str(i) for i in range(3)))
    assert (tmp_path / "lines").read_text() == "0\n1\n2\n"
    write_json(tmp_path / "json", {"b": "ω", "a": [1]})
    assert (tmp_path / "json").read_text() == '{\n "b": "ω",\n "a": [\n  1\n ]\n}\n'


def test_an_exception_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as error:
        write_text(tmp_path / "file", "new")
    assert error.value.filename == str(tmp_path / "file") and not list(tmp_path.iterdir())


def test_a_kill_leaves_the_old_content_and_a_partial_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    (partial,) = (other for other in tmp_path.iterdir() if other != path)
    assert path.read_text() == "old" and partial.suffix == ".partial" and partial.read_text() == "half"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_file_keeps_the_permissions_of_a_new_file(tmp_path):
    write_text(tmp_path / "written", "")
    (tmp_path / "plain").touch()
    assert os.stat(tmp_path / "written").st_mode == os.stat(tmp_path / "plain").st_mode


KILLED_IN_A_DIRECTORY = """
import os, signal, sys
from cptlab.storage.atomic import replacing_directory

with replacing_directory(sys.argv[1]) as directory:
    (directory / "config").write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("there_before", [False, True])
def test_a_directory_is_the_old_one_or_the_new_one(tmp_path, there_before):
    path = tmp_path / "full"
    if there_before:
        path.mkdir()
        (path / "weights").write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_A_DIRECTORY, str(path)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(KeyError), replacing_directory(path) as directory:
        (directory / "config").write_text("new")
        raise KeyError
    assert path.exists() == there_before
    assert not there_before or [file.name for file in path.iterdir()] == ["weights"]
    (partial,) = (other for other in tmp_path.iterdir() if other != path)  # of the killed process
    assert partial.suffix == ".partial"
    with replacing_directory(path) as directory:
        (directory / "below").mkdir()
        (directory / "below/config").write_text("new")
    assert [str(file.relative_to(path)) for file in path.rglob("*")] == ["below", "below/config"]
    assert set(tmp_path.iterdir()) == {path, partial}

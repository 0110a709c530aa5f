"""Standard streams that take no more, or not all characters: the command ends as if they did."""

import os
import subprocess
import sys

import pytest

PRINT = """
import sys
from cptlab.process.streams import protect_streams
protect_streams()
print({text!r})
print({text!r}, file=sys.stderr)
sys.stdout.flush()
open({done!r}, "w").write("done")
"""


def printed(tmp_path, text, redirection="", **environment):
    """Print `text` to both streams of a fresh interpreter; (exit code, stdout, stderr)."""
    script, done = tmp_path / "script.py", tmp_path / "done"
    script.write_text(PRINT.format(text=text, done=str(done)), encoding="utf-8")
    found = subprocess.run(
        ["bash", "-c", f"{sys.executable} {script} {redirection}"],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )
    assert done.exists(), found.stderr
    return found.returncode, found.stdout, found.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "koi8-r"])
def test_what_an_encoding_lacks_is_written_in_ascii(encoding, tmp_path):
    text = "───  ω = 1.3 … 中\udcff"
    code, out, error = printed(tmp_path, text, PYTHONIOENCODING=encoding)
    assert (code, out) == (0, error)
    shown = out.decode(encoding).rstrip("\n")
    for character, instead in zip(text, ["-", "-", "-", *"  ", "w", *" = 1.3 ", "...", " ", "\\u4e2d", "\\udcff"]):
        own = character.encode(encoding, "ignore").decode(encoding)
        assert shown.startswith(own or instead), (character, shown)
        shown = shown[len(own or instead) :]
    assert shown == ""


def test_utf8_stays_as_it_is(tmp_path):
    assert printed(tmp_path, "── ω", PYTHONIOENCODING="utf-8")[1].decode() == "── ω\n"


@pytest.mark.parametrize(
    "redirection",
    [
        "| true",
        ">&-",
        "2>&-",
        ">&- 2>&-",
        "<&- >&- 2>&-",
        ">/dev/full",
        "2>/dev/full",
        ">/dev/full 2>/dev/full",
        "1</dev/null",
    ],
)
def test_a_stream_that_takes_nothing(redirection, tmp_path):
    code, _, error = printed(tmp_path, "x" * 100_000, f"{redirection}; exit ${{PIPESTATUS[0]}}")
    assert code == 0 and b"Traceback" not in error and b"Exception ignored" not in error
    assert (b"No space left" in error) == (redirection == ">/dev/full")


def test_a_pipe_that_does_not_block_gets_everything(tmp_path):
    """Such a pipe takes 64 KiB and then says that it would block, until somebody reads."""
    reader = "import os, sys, time; time.sleep(0.2); print(len(sys.stdin.buffer.read()))"
    slow = f"2>/dev/null | {sys.executable} -c '{reader}'"
    script = "import os; os.set_blocking(1, False)\n"
    (tmp_path / "sitecustomize.py").write_text(script)
    _, out, _ = printed(tmp_path, "x" * 300_000, slow, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert out.split() == [b"300001"]


def test_closed_descriptors_are_not_given_to_files(tmp_path):
    """Else the next file would be opened there, and what is printed would be written to it."""
    target = tmp_path / "data"
    code = (
        "from cptlab.process.streams import protect_streams; protect_streams()\n"
        f"file = open({str(target)!r}, 'w'); import os; os.write(1, b'noise'); print('noise')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" >&- <&-', code], env=environment, check=True)
    assert target.read_text() == ""


def test_worker_processes_have_standard_streams_too(tmp_path):
    code = (
        "from cptlab.process.streams import protect_streams; protect_streams()\n"
        "import subprocess, sys; worker = 'import os; [os.fstat(number) for number in range(3)]'\n"
        "subprocess.run([sys.executable, '-c', worker], check=True)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" >&- <&- 2>&-', code], env=environment, check=True)

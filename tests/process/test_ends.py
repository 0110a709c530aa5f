"""Exit codes and sentences of commands that are stopped, that fail, and that end well."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from cptlab.errors import UserError
from cptlab.process.ends import Stopped, command, sentence_of

COMMAND = """
import os, signal, sys, time
from cptlab.process.ends import command, exit_with
{before}
@command(lambda: "All is kept.")
def main(arguments=None):
    print("at work", flush=True)
    {body}
    return 0

exit_with(main())
"""
CLEANING = "finally: print('cleaning', flush=True); time.sleep(60)"


def started(tmp_path, body, before=""):
    script = tmp_path / "script.py"
    script.write_text(COMMAND.format(body=body, before=before))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None and process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize(
    "number, code, sentence",
    [(signal.SIGINT, 130, "Interrupted. All is kept.\n"), (signal.SIGTERM, 143, "Stopped by SIGTERM. All is kept.\n")],
)
@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_signal_ends_a_command_with_one_sentence(number, code, sentence, times, tmp_path):
    process = started(tmp_path, "time.sleep(60)")
    for _ in range(times):
        process.send_signal(number)
    assert (process.communicate()[1], process.returncode) == (sentence, code)


def test_a_second_signal_does_not_wait_for_cleaning_up(tmp_path):
    process = started(tmp_path, "try: print('trying', flush=True); time.sleep(60)\n    " + CLEANING)
    assert process.stdout is not None and process.stdout.readline() == "trying\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "Stopped by SIGTERM. All is kept.\n" and process.returncode == 143


def test_a_library_that_swallows_the_signal_does_not_keep_the_process(tmp_path):
    body = "try: time.sleep(60)\n    except BaseException: time.sleep(60)"
    process = started(tmp_path, body, "import cptlab.process.ends as ends; ends.GRACE_SECONDS = 0.1")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=50)[1] == "Stopped by SIGTERM. All is kept.\n" and process.returncode == 143


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_finalizer_ends_the_command_all_the_same(number, code, tmp_path):
    slow = "class Slow:\n    def __del__(self): print('in it', flush=True); time.sleep(1)"
    process = started(tmp_path, "try: Slow(); time.sleep(60)\n    finally: print('cleaning', flush=True)", slow)
    assert process.stdout is not None and process.stdout.readline() == "in it\n"
    process.send_signal(number)
    output, error = process.communicate()
    assert (output, process.returncode) == ("cleaning\n", code)  # it went the ordinary way, not by the watch
    assert "Traceback" not in error and error.count("All is kept.\n") == error.count("\n") == 1


def test_a_signal_that_was_ignored_stays_ignored(tmp_path):
    process = started(tmp_path, "time.sleep(60)", "signal.signal(signal.SIGINT, signal.SIG_IGN)")
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1].startswith("Stopped by SIGTERM") and process.returncode == 143


def test_stopped_is_no_exception_that_code_handles():
    assert not issubclass(Stopped, Exception)


def test_inside_another_command_the_inner_one_says_what_is_kept(capfd):
    @command(lambda: "Outer.")
    def outer(_arguments=None):
        return inner()

    @command(lambda: "Inner.")
    def inner(_arguments=None):
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert outer() == 143 and capfd.readouterr().err == "Stopped by SIGTERM. Inner.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def with_context(error, context):
    """An error that was raised while another one was handled."""
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    "error, code, sentence",
    [
        (UserError("n must be at least 1, got 0."), 2, "error: n must be at least 1, got 0.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "error: No space left on device. What is finished is kept",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "logs/x"), 1, "error: Permission denied: logs/x. What"),
        (
            with_context(RuntimeError("unexpected pos"), OSError(errno.ENOSPC, "No space left on device")),
            1,
            "error: No sp",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"),
            1,
            "error: The memory of the GPU does not suffice (CUDA out of memory). Set decoding.token_budget",
        ),
        (
            RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
            1,
            "error: The memory of the GPU does not suffice (CUDA error: out of memory). Set",
        ),
        (KeyboardInterrupt(), 130, "Interrupted. Kept.\n"),
    ],
)
def test_errors_that_are_not_our_mistake(error, code, sentence, capsys):
    @command(lambda: "Kept.")
    def main(_arguments=None):
        raise error

    assert main() == code
    assert capsys.readouterr().err.startswith(sentence)


def test_our_mistakes_keep_their_traceback():
    @command()
    def main(_arguments=None):
        raise FileNotFoundError(errno.ENOENT, "No such file")

    assert sentence_of(ZeroDivisionError()) is None
    with pytest.raises(FileNotFoundError):
        main()

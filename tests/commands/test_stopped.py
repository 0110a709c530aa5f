"""Commands that are told to stop, as processes of their own: one sentence, the right exit code, nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_commands import ROOT, TINY

SENTENCES = {signal.SIGINT: "Interrupted. ", signal.SIGTERM: "Stopped by SIGTERM. "}
BUSY = {"task_id": "HumanEval/2", "completion": "    while True:\n        pass\n"}


def stopped(where, number, moment, *command, times=1):
    """Start a command, send the signal once it has said `moment`; (exit code, the lines of stderr)."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=where,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if moment in line:
            break
    for _ in range(times):
        process.send_signal(number)
    said += process.stderr
    code = process.wait()
    while f"{where}" in workers():  # they end when they see that this process has
        time.sleep(0.05)
    return code, "".join(said).splitlines()


def workers() -> str:
    """The command lines of all judging servers that run."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(line for line in lines if "cptlab.judging" in line)


@pytest.mark.data
@pytest.mark.parametrize("number, times", [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_while_programs_are_judged(number, times, tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("CPTLAB_DATA_DIR", str(data_dir))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # which names the servers
    (tmp_path / "busy.jsonl").write_text(json.dumps(BUSY) + "\n")
    settings = ["completions=busy.jsonl", "benchmark=humaneval", "logger=none", "print_config=false"]
    command = (str(ROOT / "evaluate.py"), *settings)
    code, said = stopped(tmp_path, number, "cleaning programs: 1", *command, times=times)
    assert code == 128 + number and "Traceback" not in "".join(said)
    assert said[-1].startswith(SENTENCES[number] + "What is finished is kept in ")
    assert said[-1].endswith("; the same command goes on from there.")


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, moment, sweep",
    [
        (signal.SIGTERM, "Reference: found", []),
        (signal.SIGINT, "Reference: found", []),
        (signal.SIGTERM, "Reference: found", ["-m", "seed=1,2"]),
        (signal.SIGINT, "Run directory", []),
        (signal.SIGTERM, "sampling programs", []),
    ],
)
def test_while_an_adapter_is_trained(number, moment, sweep, tmp_path, cached_pairs):
    settings = [*TINY, "stages.first_epochs=100000", "logger=none", "print_config=false", f"paths.cache={cached_pairs}"]
    settings.remove("stages.first_epochs=1")
    if moment == "sampling programs":
        settings[-1] = f"paths.cache={tmp_path}/cache"
    code, said = stopped(tmp_path, number, moment, str(ROOT / "train.py"), *sweep, *settings)
    assert code == 128 + number and "Traceback" not in "".join(said)
    run = next(tmp_path.glob("logs/train/*runs/**/run.json"))
    assert said[-1].startswith(f"{SENTENCES[number]}What is finished is kept in {run.parent}; ")
    assert json.loads(run.read_text())["finished"] is False


@pytest.fixture(scope="module")
def cached_pairs(tmp_path_factory):
    """A cache with the pairs and the reference of `TINY`, so that the next command trains at once."""
    where = tmp_path_factory.mktemp("cached")
    command = [sys.executable, ROOT / "train.py", *TINY, "logger=none", "print_config=false", "paths.cache=cache"]
    subprocess.run(command, cwd=where, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return where / "cache"


@pytest.mark.parametrize("command", [["--help"], ["settings"], ["train", "--help"]])
def test_a_command_whose_reader_has_gone(command):
    program = f'{sys.executable} -c "$0" {" ".join(command)} | true; exit ${{PIPESTATUS[0]}}'
    cli = "from cptlab.commands.cli import run; run()"
    done = subprocess.run(["bash", "-c", program, cli], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

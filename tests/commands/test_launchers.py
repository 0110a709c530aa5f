"""Sweeps under launchers that start jobs in processes of their own, and searches: failures, kills, cores."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

ROOT = __file__.rsplit("/tests/", 1)[0]
PROGRAM = {"task_id": "HumanEval/2", "completion": "    return number % 1.0\n"}
ARGUMENTS = ["evaluate", "-m", "benchmark=humaneval", "logger=none", "print_config=false"]
CONFIGS = "logs/evaluate/multiruns/*/*/config.yaml"
pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture
def sweep(tmp_path, data_dir):
    """Run `cptlab evaluate -m` in a process of its own; (exit code, what it said)."""
    for name, rows in (("one", 1), ("two", 2), ("three", 3)):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(PROGRAM) + "\n") * rows)
    environment = os.environ | {"CPTLAB_DATA_DIR": str(data_dir), "PYTHONPATH": ROOT}
    environment.pop("OMP_NUM_THREADS", None)

    def run(*overrides, wait=True, command=(*ARGUMENTS,)):
        code = "from cptlab.commands.cli import run; run()"
        started = subprocess.Popen(
            [sys.executable, "-c", code, *command, *overrides],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if not wait:
            return started
        _, said = started.communicate(timeout=500)
        return started.returncode, said

    return run


def finished(tmp_path):
    records = [json.loads(file.read_text()) for file in tmp_path.rglob("run.json")]
    return sum(record["finished"] for record in records)


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_failing_job_is_named_and_only_what_is_missing_is_done_again(sweep, tmp_path, launcher):
    jobs = f"hydra/launcher={launcher}", "completions=one.jsonl,nope.jsonl,two.jsonl"
    code, said = sweep(*jobs)
    assert code == 2 and "error: 1 of the sweep's jobs failed." in said
    assert "completions=nope.jsonl" in said.splitlines()[-1] and "cannot be read" in said.splitlines()[-1]
    assert finished(tmp_path) == 2
    (tmp_path / "nope.jsonl").write_text((json.dumps(PROGRAM) + "\n") * 4)
    first = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.json")}
    code, said = sweep(*jobs[1:])  # whatever starts the jobs, it is the same sweep
    assert code == 0 and "Going on with the unfinished sweep" in said and finished(tmp_path) == 3
    assert first.items() <= {file: file.stat().st_mtime_ns for file in tmp_path.rglob("metrics.json")}.items()
    assert len(list(tmp_path.glob("logs/evaluate/multiruns/*"))) == 1


def processes():
    """The command line and the parent of every process."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(place.name)] = ((place / "cmdline").read_text(), parent)
    return found


def test_a_sweep_that_is_killed_takes_the_processes_of_its_jobs_along(sweep, tmp_path):
    started = sweep("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "completions=one.jsonl,two.jsonl", wait=False)
    while not list(tmp_path.glob(CONFIGS)) and started.poll() is None:
        time.sleep(0.1)
    jobs = {pid for pid, (line, parent) in processes().items() if parent == started.pid and "popen_loky" in line}
    assert len(jobs) == 2
    started.kill()
    started.communicate()
    deadline = time.monotonic() + 60
    while jobs & processes().keys() and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [processes()[pid] for pid in jobs & processes().keys()]
    assert not left


def test_the_cores_are_divided(sweep, tmp_path):
    cores = len(os.sched_getaffinity(0))
    code, said = sweep("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "completions=one.jsonl,two.jsonl")
    assert code == 0, said
    configs = [file.read_text() for file in tmp_path.glob(CONFIGS)]
    assert len(configs) == 2 and all(f"\nworkers: {max(1, cores // 2)}\n" in text for text in configs)
    code, said = sweep("hydra/launcher=submitit_local", "hydra.launcher.cpus_per_task=3", "completions=three.jsonl")
    assert code == 0, said
    assert sum("\nworkers: 3\n" in file.read_text() for file in tmp_path.glob(CONFIGS)) == 1


def test_a_search_that_is_killed_goes_on_with_the_trials_that_are_missing(sweep, tmp_path):
    import optuna

    search = [
        *("hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "optimized_metric=given/all/pylint_mean"),
        *("completions=one.jsonl", "seed=range(0,40)"),
    ]
    running = sweep(*search, wait=False)
    while finished(tmp_path) < 2 and running.poll() is None:
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    before = finished(tmp_path)
    assert 2 <= before < 4
    code, said = sweep(*search)
    assert code == 0 and "Going on with the unfinished sweep" in said, said
    (directory,) = tmp_path.glob("logs/evaluate/multiruns/*")
    backend = optuna.storages.journal.JournalFileBackend(str(directory / "optuna.journal"))
    study = optuna.load_study(study_name="evaluate", storage=optuna.storages.JournalStorage(backend))
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) == 4 and len({trial.params["seed"] for trial in complete}) == finished(tmp_path)
    assert "best_value" in (directory / "optimization_results.yaml").read_text()


def test_a_search_keeps_its_study_in_a_database(sweep, tmp_path):
    search = [
        *("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.storage=sqlite:///study.db"),
        *("optimized_metric=given/all/pylint_mean", "completions=choice(one.jsonl,nope.jsonl,two.jsonl)"),
    ]
    code, said = sweep(*search)
    assert (tmp_path / "study.db").is_file() and code in (0, 2), said
    (tmp_path / "nope.jsonl").write_text((json.dumps(PROGRAM) + "\n") * 4)
    code, said = sweep(*search)
    assert code == 0, said


DYING = """
import os, signal
from cptlab.settings.entry import hydra_command

def step(config, fresh):
    if config.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)

raise SystemExit(hydra_command("evaluate", step)())
"""


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_whose_process_is_killed_is_said_without_a_traceback(tmp_path, launcher):
    done = subprocess.run(
        [sys.executable, "-c", DYING, "-m", f"hydra/launcher={launcher}", "seed=1,2", "logger=none", "run=null"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "error: The process of a job was killed" in done.stderr and "Traceback" not in done.stderr


def test_what_is_missing_is_said(sweep, monkeypatch, capsys, tmp_path):
    code, said = sweep("hydra/sweeper=optuna", "completions=one.jsonl")
    assert code == 2 and "A search needs optimized_metric" in said and "Traceback" not in said
    from cptlab.settings.explanations import explain

    assert Plugins.instance() is not None
    error = Exception("Could not find 'hydra/launcher/joblib'")
    assert "pip install 'cptlab[joblib]'" in explain(error, "train")

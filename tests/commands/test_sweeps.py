"""Sweeps: failing jobs are named and the others go on; started again, a sweep does what is missing."""

import json
import os
import signal

import pytest

from cptlab.commands.evaluate import main as evaluate
from cptlab.systems import judge_completions

PROGRAM = {"task_id": "HumanEval/2", "completion": "    return number % 1.0\n"}
SETTINGS = ["benchmark=humaneval", "-m", "logger=none", "print_config=false", "workers=1"]
pytestmark = pytest.mark.data


@pytest.fixture
def sweep(tmp_path, monkeypatch, data_dir, capfd):
    """Run `evaluate -m` in a directory of the test's own; (exit code, what it said, jobs that were judged)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CPTLAB_DATA_DIR", str(data_dir))
    monkeypatch.setattr("sys.argv", ["cptlab"])
    judged = []
    real = judge_completions.judge_file
    monkeypatch.setattr(
        judge_completions, "judge_file", lambda file, *a, **k: (judged.append(file.path.name), real(file, *a, **k))
    )

    def run(*overrides):
        judged.clear()
        code = evaluate([*SETTINGS, *overrides])
        return code, capfd.readouterr().err, list(judged)

    return run


def write(name, rows=1):
    with open(name, "w") as file:
        file.write("".join(json.dumps(PROGRAM) + "\n" for _ in range(rows)))


def test_every_failing_job_is_named_and_only_what_is_missing_is_done_again(sweep, tmp_path):
    write("one.jsonl"), write("two.jsonl", 2)
    jobs = "completions=nope1.jsonl,one.jsonl,nope2.jsonl,two.jsonl"
    code, said, judged = sweep(jobs)
    assert code == 2 and judged == ["one.jsonl", "two.jsonl"]
    for number, name in ((0, "nope1.jsonl"), (2, "nope2.jsonl")):
        lines = [line for line in said.splitlines() if f"job {number} (" in line]
        assert len(lines) == 2 and all(f"completions={name}" in line and "cannot be read" in line for line in lines)
        assert lines[0].startswith("error: ")
    assert "error: 2 of the sweep's jobs failed." in said

    write("nope1.jsonl", 3)
    code, said, judged = sweep(jobs)
    assert code == 2 and judged == ["nope1.jsonl"] and "Going on with the unfinished sweep" in said
    assert "error: 1 of the sweep's jobs failed." in said

    write("one.jsonl", 4), write("nope2.jsonl", 5)  # the same name, other content: a finished job of another input
    code, said, judged = sweep(jobs)
    assert code == 2 and judged == ["nope2.jsonl"] and said.count("Finished before") == 2
    assert "one.jsonl" in said.splitlines()[-1] and "holds a finished run" in said.splitlines()[-1]


@pytest.mark.slow
def test_a_finished_sweep_is_begun_anew(sweep, tmp_path):
    write("one.jsonl"), write("two.jsonl", 2)
    for _ in range(2):
        code, said, judged = sweep(
            "completions=one.jsonl,two.jsonl", "hydra.sweep.dir=${paths.logs}/${task_name}/multiruns/${now:%H-%M-%S-%f}"
        )
        assert code == 0 and judged == ["one.jsonl", "two.jsonl"] and "error" not in said
    code, said, judged = sweep("completions=one.jsonl,two.jsonl", "hydra.sweep.dir=mine")
    assert code == 0 and judged == ["one.jsonl", "two.jsonl"]
    code, said, judged = sweep("completions=one.jsonl,two.jsonl", "hydra.sweep.dir=mine")
    assert code == 0 and judged == [] and said.count("Finished before") == 2


def test_jobs_that_differ_in_incidental_settings_are_all_done(sweep):
    write("one.jsonl")
    code, _, judged = sweep("completions=one.jsonl", "print_config=false,true")
    assert code == 0 and judged == ["one.jsonl"] * 2


def test_a_sweep_that_is_stopped_goes_on(sweep, monkeypatch):
    write("one.jsonl"), write("two.jsonl", 2)
    jobs = "completions=one.jsonl,two.jsonl"
    real = judge_completions.judge_file

    def stopped(file, *a, **k):
        if file.path.name == "two.jsonl":
            os.kill(os.getpid(), signal.SIGTERM)
        return real(file, *a, **k)

    with monkeypatch.context() as patch:
        patch.setattr(judge_completions, "judge_file", stopped)
        code, said, judged = sweep(jobs)
    assert code == 143 and judged == ["one.jsonl"]
    assert said.splitlines()[-1].startswith("Stopped by SIGTERM. What is finished is kept in ")
    code, said, judged = sweep(jobs)
    assert code == 0 and judged == ["two.jsonl"]


def test_the_stored_metric_is_returned(sweep, monkeypatch):
    write("one.jsonl"), write("two.jsonl", 2)
    import cptlab.commands.evaluate as evaluated
    from cptlab.commands.shared import evaluation_report as stored

    returned = []
    real = evaluated.optimized
    for module in (evaluated, stored):
        monkeypatch.setattr(module, "optimized", lambda *a: returned.append(real(*a)) or returned[-1])
    options = ["completions=one.jsonl,two.jsonl", "optimized_metric=given/all/pylint_mean", "hydra.sweep.dir=mine"]
    sweep(*options)
    assert sweep(*options)[2] == [] and len(returned) == 4 and returned[:2] == returned[2:] and returned[0] is not None


def test_our_own_mistake_in_a_job_keeps_its_traceback(sweep, monkeypatch):
    write("one.jsonl"), write("two.jsonl", 2)
    real = judge_completions.judge_file

    def mistaken(file, *a, **k):
        if file.path.name == "one.jsonl":
            raise ZeroDivisionError("by hand")
        return real(file, *a, **k)

    monkeypatch.setattr(judge_completions, "judge_file", mistaken)
    code, said, judged = sweep("completions=one.jsonl,two.jsonl")
    assert (
        code == 1 and judged == ["two.jsonl"] and "Traceback" in said and said.count("ZeroDivisionError: by hand") == 3
    )

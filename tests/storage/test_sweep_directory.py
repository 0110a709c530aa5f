"""Sweeps that ended early are found by the same command, and their finished jobs by their settings."""

import json

from cptlab.storage.atomic import write_json
from cptlab.storage.run_directory import open_run
from cptlab.storage.sweep_directory import (
    SWEEP_FILE,
    Failure,
    SweepDirectory,
    finished_jobs,
    note_failure,
    read_failures,
    unfinished_sweep,
)

ARGUMENTS = ["-m", "seed=1,2"]


def test_only_a_sweep_that_ended_early_and_is_at_rest_is_found(tmp_path):
    for name in ("2026-01-01", "2026-01-02"):
        SweepDirectory(tmp_path / name, ARGUMENTS).close(whole=False)
    SweepDirectory(tmp_path / "2026-01-03", ["-m", "seed=1,2,3"]).close(whole=False)
    held = SweepDirectory(tmp_path / "2026-01-04", ARGUMENTS)
    SweepDirectory(tmp_path / "2026-01-05", ARGUMENTS).close(whole=True)
    (tmp_path / "2026-01-06").mkdir()
    (tmp_path / "2026-01-06" / SWEEP_FILE).write_text('{"argum')  # torn by something else than us
    assert unfinished_sweep(tmp_path, ARGUMENTS) == tmp_path / "2026-01-02"
    held.close(whole=False)
    assert unfinished_sweep(tmp_path, ARGUMENTS) == tmp_path / "2026-01-04"
    assert unfinished_sweep(tmp_path, ["-m", "seed=2,1"]) is None
    assert unfinished_sweep(tmp_path / "nothing", ARGUMENTS) is None


def test_jobs_are_found_by_their_settings(tmp_path):
    open_run(tmp_path / "0", tmp_path / "logs", "a").finish()
    open_run(tmp_path / "nested" / "1", tmp_path / "logs", "b").finish()
    open_run(tmp_path / "2", tmp_path / "logs", "c")
    write_json(tmp_path / "3" / "run.json", ["damaged"])
    assert finished_jobs(tmp_path) == {"a": tmp_path / "0", "b": tmp_path / "nested" / "1"}
    assert json.loads((tmp_path / "2" / "run.json").read_text())["finished"] is False


def test_a_sweep_whose_job_failed_is_not_finished_and_its_failures_are_forgotten_when_it_goes_on(tmp_path):
    failures = [Failure(10, "seed=1", "The disk is full.", 1), Failure(2, "seed=2", "There is no file.", 2)]
    sweep = SweepDirectory(tmp_path / "one", ARGUMENTS)
    for failure in failures:
        note_failure(tmp_path / "one", failure)
    assert sweep.close(whole=True) == failures[::-1] and unfinished_sweep(tmp_path, ARGUMENTS) == tmp_path / "one"
    again = SweepDirectory(tmp_path / "one", ARGUMENTS)
    assert read_failures(tmp_path / "one") == [] == again.close(whole=True)
    assert unfinished_sweep(tmp_path, ARGUMENTS) is None


def test_a_launcher_is_no_part_of_a_sweep(tmp_path):
    SweepDirectory(tmp_path / "one", [*ARGUMENTS, "hydra/launcher=joblib"]).close(whole=False)
    assert unfinished_sweep(tmp_path, [*ARGUMENTS, "hydra.launcher.n_jobs=2"]) == tmp_path / "one"

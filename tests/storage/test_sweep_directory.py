"""Sweeps that ended early are found by the same command, and their finished jobs by their settings."""

import json

from cptlab.storage.atomic import write_json
from cptlab.storage.run_directory import open_run
from cptlab.storage.sweep_directory import SWEEP_FILE, SweepDirectory, finished_jobs, unfinished_sweep

ARGUMENTS = ["-m", "seed=1,2"]


def test_only_a_sweep_that_ended_early_and_is_at_rest_is_found(tmp_path):
    for name in ("2026-01-01", "2026-01-02"):
        SweepDirectory(tmp_path / name, ARGUMENTS).close(finished=False)
    SweepDirectory(tmp_path / "2026-01-03", ["-m", "seed=1,2,3"]).close(finished=False)
    held = SweepDirectory(tmp_path / "2026-01-04", ARGUMENTS)
    SweepDirectory(tmp_path / "2026-01-05", ARGUMENTS).close(finished=True)
    (tmp_path / "2026-01-06").mkdir()
    (tmp_path / "2026-01-06" / SWEEP_FILE).write_text('{"argum')  # torn by something else than us
    assert unfinished_sweep(tmp_path, ARGUMENTS) == tmp_path / "2026-01-02"
    held.close(finished=False)
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

"""The same command goes on in its unfinished run, and in no other."""

import json

import pytest

from cptlab.errors import UserError
from cptlab.storage.locks import try_lock
from cptlab.storage.run_directory import discard, finished_runs, open_run, training_run


def end(run):
    """What the end of the process does: the lock is gone, the run is as it was."""
    run.lock.release()


@pytest.fixture
def logs(tmp_path, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "CPTLAB_RUN_DIR", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "train"


def test_a_killed_run_is_gone_on_with_and_a_finished_one_is_not(logs):
    first = open_run(logs / "runs/1", logs, "digest")
    assert first.directory == logs / "runs/1" and not first.resumed
    end(first)
    (logs / "runs/2").mkdir()  # as Hydra makes it
    again = open_run(logs / "runs/2", logs, "digest")
    assert again.directory == first.directory and again.resumed and not (logs / "runs/2").exists()
    again.finish(answer=42)
    assert json.loads((first.directory / "run.json").read_text())["answer"] == 42
    assert finished_runs(logs) == [first.directory]
    third = open_run(logs / "runs/3", logs, "digest")
    assert third.directory == logs / "runs/3" and not third.resumed
    end(third)


def test_other_settings_and_runs_at_work_are_left_alone(logs):
    first = open_run(logs / "runs/1", logs, "digest")
    other = open_run(logs / "runs/2", logs, "another digest")
    beside = open_run(logs / "multiruns/3/0", logs, "digest")
    assert [run.resumed for run in (first, other, beside)] == [False] * 3
    assert len({run.directory for run in (first, other, beside)}) == 3
    with pytest.raises(UserError, match="Another process writes"):
        open_run(logs / "runs/1", logs, "a third digest")
    for run in (first, other, beside):
        end(run)


def test_other_ranks_share_the_directory_of_the_first(logs, monkeypatch):
    first = open_run(logs / "runs/1", logs, "digest")
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = open_run(logs / "runs/2", logs, "digest")
    assert second.directory == first.directory and second.lock is None
    second.finish()
    assert try_lock(first.directory) is None and finished_runs(logs) == []
    end(first)


def test_discarding_spares_results(tmp_path):
    for name in ("empty", "used"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / "train.log").touch()
    (tmp_path / "used/metrics.json").touch()
    for name in ("empty", "used", "absent"):
        discard(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_the_training_run_that_has_the_adapter(logs, tmp_path):
    for number, kind in enumerate(("prefix", "lora", "prefix")):
        run = open_run(logs / f"runs/{number}", logs, str(number))
        (run.directory / kind).mkdir()
        (run.directory / "config.yaml").touch()
        end(run) if number == 2 else run.finish()
    assert training_run("latest", tmp_path, ("prefix",)) == logs / "runs/0"  # the newer one is not finished
    assert training_run("latest", tmp_path, ("full", "lora")) == logs / "runs/1"
    assert training_run(str(logs / "runs/2"), tmp_path, ("prefix",)) == logs / "runs/2"
    for run, kinds, said in [
        ("latest", ("full",), r"no finished training run with an adapter \(full\)"),
        (str(logs / "runs/0"), ("lora",), r"no adapter of this kind \(lora\)"),
        (str(logs), ("lora",), "it has no config.yaml"),
    ]:
        with pytest.raises(UserError, match=said):
            training_run(run, tmp_path, kinds)

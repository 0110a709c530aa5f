"""The same command goes on in its unfinished run, and in no other."""

import json

import pytest
from files_on_disk import contents, needs_root, open_to_all, other_user

from cptlab.errors import UserError
from cptlab.storage.locks import try_lock
from cptlab.storage.run_directory import discard, finished_runs, note_new, open_run, refuse_other_run, training_run


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
    note_new(logs / "runs/2")
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
    with pytest.raises(UserError, match="in use by another process"):
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


@pytest.mark.parametrize("finished", [True, False])
def test_a_directory_that_holds_another_run_is_refused_and_left_as_it_is(logs, finished):
    first = open_run(logs / "runs/1", logs, "digest")
    (first.directory / "config.yaml").write_text("seed: 0")
    first.finish() if finished else end(first)
    before = contents(logs)
    with pytest.raises(UserError, match="holds a finished run" if finished else "holds another run, which is not fin"):
        open_run(logs / "runs/1", logs, "another digest")
    assert contents(logs) == before
    if finished:  # also the same command: its results are there
        with pytest.raises(UserError, match="holds a finished run"):
            open_run(logs / "runs/1", logs, "digest")
        assert contents(logs) == before


def test_a_run_outside_the_logs_is_gone_on_with_in_its_own_directory(logs, tmp_path):
    end(open_run(logs / "runs/1", logs, "digest"))
    end(open_run(tmp_path / "mine", logs / "elsewhere", "digest"))
    again = open_run(tmp_path / "mine", logs, "digest")
    assert again.directory == tmp_path / "mine" and again.resumed
    end(again)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "training", "prefix", "run.json"])
def test_a_file_of_the_users_that_a_run_would_replace_is_kept(logs, tmp_path, name):
    (tmp_path / name).write_text("[]")
    with pytest.raises(UserError, match=f"already has {name}"):
        open_run(tmp_path, logs, "digest")
    with pytest.raises(UserError, match=f"already has {name}"):
        refuse_other_run(tmp_path, finished=True)
    assert contents(tmp_path) == {name: b"[]"}


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{", b'{"digest": "dig'])
def test_a_damaged_run_file_hides_no_other_run(logs, content):
    for number in (1, 2):
        end(open_run(logs / f"runs/{number}", logs, str(number)))
    (logs / "runs/1/run.json").write_bytes(content)
    again = open_run(logs / "runs/3", logs, "2")
    assert again.directory == logs / "runs/2"
    end(again)


@needs_root
def test_another_users_unfinished_run_is_left_alone(logs, tmp_path):
    end(open_run(logs / "runs/1", logs, "digest"))
    for path in (tmp_path, logs, logs / "runs"):
        open_to_all(path)
    before = contents(logs)
    with other_user():
        mine = open_run(logs / "runs/2", logs, "digest")
        assert not mine.resumed
        end(mine)
        end(again := open_run(logs / "runs/3", logs, "digest"))
        assert again.directory == logs / "runs/2"
    assert {name: contents(logs)[name] for name in before} == before


def test_only_an_empty_directory_that_this_process_made_is_removed(tmp_path):
    for name in ("there", "made", "used", "sweep/0", "absent"):
        if name == "there":
            (tmp_path / name).mkdir()
        note_new(tmp_path / name.split("/")[0])
        if name != "absent":
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "used/slurm.log").touch()
    for name in ("there", "made", "used", "sweep/0", "absent"):
        discard(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep", "there", "used"]
    assert (tmp_path / "used/slurm.log").exists() and not (tmp_path / "sweep/0").exists()


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

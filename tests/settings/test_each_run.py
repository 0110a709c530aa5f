"""runs=…: every finished training run is a job, in a sweep that goes on with what is missing."""

import json
import sys

import pytest

from cptlab.errors import UserError
from cptlab.settings.each_run import find_training_runs, folder_names, one_job_each
from cptlab.settings.entry import hydra_command
from cptlab.storage.run_directory import open_run
from cptlab.storage.sweep_directory import Failure, note_failure

FAILING = set()


def train(directory, *, finished=True, adapter=True):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps({"digest": str(directory), "finished": finished}))
    if adapter:
        (directory / "prefix").mkdir(exist_ok=True)
    return directory


@pytest.fixture
def where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CPTLAB_RUN_DIR", raising=False)
    FAILING.clear()
    for i in range(12):
        train(tmp_path / "sweep" / str(i), finished=i != 3)
    train(tmp_path / "other" / "0")
    return tmp_path


@pytest.fixture
def evaluate(where, monkeypatch, capsys):
    """Run `cptlab evaluate` with a step that evaluates nothing; (exit code, runs it evaluated, their folders, what it said)."""

    def run(*arguments):
        evaluated, folders = [], []

        def step(config, fresh):
            from cptlab.settings.sweep import job_finished_before

            digest = f"{config.run} {config.seed}"
            if job_finished_before(digest):
                return
            if config.run in FAILING:
                raise UserError(f"{config.run} is not to be.")
            opened = open_run(fresh, fresh.parents[1], digest)
            evaluated.append(config.run)
            folders.append(fresh.name)
            opened.finish()

        monkeypatch.setattr(sys, "argv", ["cptlab"])
        options = ["logger=none", "print_config=false"]
        try:
            code = hydra_command("evaluate", step, one_job_each)([*arguments, *options])
        except SystemExit as ended:
            code = ended.code
        return code, evaluated, folders, capsys.readouterr().err

    return run


def test_every_finished_run_is_evaluated_in_a_folder_of_its_name(evaluate):
    code, evaluated, folders, said = evaluate("runs=sweep")
    numbers = [str(i) for i in range(12) if i != 3]  # in the order of the jobs: 2 before 10
    assert code == 0 and evaluated == [f"sweep/{i}" for i in numbers] and folders == numbers
    assert "Left out: sweep/3 is not finished." in said


@pytest.mark.slow
def test_a_failing_evaluation_does_not_end_the_others_and_what_is_missing_is_added_later(evaluate, where):
    FAILING.add("sweep/5")
    code, evaluated, _, said = evaluate("runs=sweep")
    assert code == 2 and len(evaluated) == 10 and "sweep/5 is not to be." in said
    FAILING.clear()
    code, evaluated, _, said = evaluate("runs=sweep")
    assert code == 0 and evaluated == ["sweep/5"] and "Going on with the unfinished sweep" in said
    train(where / "sweep" / "3")
    code, evaluated, folders, said = evaluate("runs=sweep")  # it was left out, so the sweep waits for it
    assert code == 0 and evaluated == ["sweep/3"] and folders == ["3"] and "Left out" not in said
    assert len(list(where.glob("logs/evaluate/multiruns/*"))) == 1
    assert len(evaluate("runs=sweep")[1]) == 12  # finished: begun anew


@pytest.mark.parametrize(
    "argument", [pytest.param("runs=sweep,other", marks=pytest.mark.slow), "runs=[sweep,other,sweep/0]"]
)
def test_several_directories(evaluate, argument):
    code, evaluated, folders, _ = evaluate(argument, "-m")
    assert code == 0 and len(evaluated) == len(set(evaluated)) == len(set(folders)) == 12
    assert evaluated[-1] == "other/0" and folders[-1] == "other_0"


def test_a_sweep_over_more_than_runs(evaluate):
    code, evaluated, folders, _ = evaluate("runs=other", "seed=1,2")
    assert code == 0 and evaluated == ["other/0"] * 2 and folders == ["0", "1"]


def test_names_of_directories_may_hold_anything(where):
    run = train(where / "it's, a=1 [x]" / "0")
    arguments, _ = one_job_each(['runs="it\'s, a=1 [x]"'])
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([text for text in arguments if text.startswith("run=")])
    assert override.value() == str(run.relative_to(where))


def test_what_is_no_finished_training_run_is_named(where):
    train(where / "mixed" / "0", adapter=False)
    train(where / "mixed" / "1")
    train(where / "mixed" / "2", finished=False)  # what the job that failed left
    note_failure(where / "mixed", Failure(2, "seed=3", "The disk is full.", 1))
    found = find_training_runs([where / "mixed"])
    assert found.finished == [where / "mixed" / "1"]
    assert len(found.left_out) == 2
    assert "0 is no training run" in found.left_out[0] and "job 2 (seed=3): The disk is full." in found.left_out[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs=nothing"], "There is no directory nothing"),
        (["runs=sweep/3"], "no finished training run"),
        (["runs=sweep", "run=latest"], "runs and run cannot both"),
        (["runs=sweep", "completions=x.jsonl"], "runs and completions cannot both"),
    ],
)
def test_mistakes_are_said_before_any_work(where, arguments, message):
    with pytest.raises(UserError, match=message):
        one_job_each(arguments)


def test_without_runs_nothing_changes(where):
    for arguments in (["seed=1"], ["runs=null", "-m"], ["runs=sweep", "--cfg", "job"]):
        assert one_job_each(arguments) == (arguments, False)


def test_folders_have_the_shortest_names_that_differ(where):
    runs = [where / "a" / "s" / "0", where / "b" / "s" / "0", where / "b" / "s" / "1"]
    assert list(folder_names(runs).values()) == ["a_s_0", "b_s_0", "b_s_1"]
    assert list(folder_names(runs[1:]).values()) == ["0", "1"]

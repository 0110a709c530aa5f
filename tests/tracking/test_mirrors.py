"""Loggers mirror a run and cannot fail it; a run that goes on goes on in the same mirror."""

import csv
import json

import pytest

from cptlab.errors import UserError
from cptlab.tracking.loggers import CsvLogger, check_wandb, wandb_logger
from cptlab.tracking.mirrors import Mirror, check_mirrors, closed_at_the_end

WANDB = {"wandb": {"_target_": "cptlab.tracking.loggers.wandb_logger", "project": "cptlab"}}


class Failing:
    """A logger of a user, which fails in the methods named."""

    save_dir = "here"

    def __init__(self, *methods):
        self.methods, self.calls = methods, []

    def _called(self, name):
        self.calls.append(name)
        if name in self.methods:
            raise ConnectionError(f"{name}:\nno network")

    def log_metrics(self, metrics, step=None):
        self._called("log_metrics")

    def finalize(self, status):
        self._called(f"finalize {status}")

    @property
    def experiment(self):
        self._called("experiment")
        return "the run"


def test_the_first_error_is_one_warning_and_the_last_call(capsys):
    logger = Failing("log_metrics")
    mirror = Mirror.of(logger, "directory")
    assert mirror.save_dir == "here" and mirror.experiment == "the run" and not hasattr(mirror, "log_table")
    for step in range(3):
        mirror.log_metrics({"loss": 1.0}, step=step)
    mirror.close(failed=False)
    mirror.log_hyperparams({}), mirror.save()
    assert logger.calls == ["experiment", "log_metrics"] and not hasattr(mirror, "experiment")
    assert capsys.readouterr().err == (
        "warning: logger Failing failed (ConnectionError: log_metrics: no network). The run goes on without it, and its "
        "own files are complete.\n"
    )


def test_errors_when_it_is_opened_read_and_closed(capsys):
    def refuse():
        raise ValueError("bad project")

    Mirror("wandb", "directory", refuse).log_metrics({"loss": 1.0})
    assert Mirror.of(Failing("experiment"), "directory").experiment is None
    with closed_at_the_end([Mirror.of(Failing("finalize success"), "directory")]):
        pass
    assert capsys.readouterr().err.count("warning: logger") == 3


def test_an_interrupt_is_no_failure_of_a_logger():
    def refuse():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Mirror("wandb", "directory", refuse)


def test_a_run_that_fails_is_closed_as_failed():
    logger = Failing()
    with pytest.raises(ZeroDivisionError), closed_at_the_end([Mirror.of(logger, "directory")]):
        raise ZeroDivisionError
    assert logger.calls == ["finalize failed"]


@pytest.mark.parametrize(
    "tags, project, variables, said",
    [
        ([2026], "cptlab", {}, "tags: Input should be a valid string, got 2026"),
        (["x" * 65], "cptlab", {}, "between 1 and 64"),
        ([""], "cptlab", {}, "between 1 and 64"),
        ([], "team/cpt", {}, "Invalid project name 'team/cpt'"),
        ([], "x" * 129, {}, "exceeded 128 characters"),
        ([], "cptlab", {"WANDB_MODE": "banana"}, "mode: Input should be 'online'"),
        ([], "cptlab", {"WANDB_PROJECT": "a/b"}, "Invalid project name 'a/b'"),
    ],
)
def test_what_wandb_refuses_is_refused_at_the_start(tags, project, variables, said, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as refused:
        check_wandb(tags, project=project)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    check_mirrors({"csv": {"_target_": "cptlab.tracking.loggers.csv_logger"}}, tags)
    with pytest.raises(UserError, match="W&B refuses"):
        check_mirrors({"wandb": WANDB["wandb"] | {"project": project}}, tags)


def test_a_csv_that_goes_on_repeats_no_row(tmp_path):
    rows = [({"loss": 0.5}, 9), ({"val": 0.1}, 15), ({"loss": 0.4, "late": 1.0}, 19), ({"result": 3.0}, None)]
    for metrics, step in rows[:3]:
        CsvLogger(str(tmp_path)).log_metrics(metrics, step)
    path = tmp_path / "csv" / "metrics.csv"
    with open(path, "a") as file:
        file.write("29,0.3")  # what a kill left
    again = CsvLogger(str(tmp_path))
    for metrics, step in rows[1:]:
        again.log_metrics(metrics, step)
    with open(path, newline="") as file:
        found = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    expected = [({} if step is None else {"step": str(step)}) | {k: str(v) for k, v in m.items()} for m, step in rows]
    assert found == expected


def test_a_run_that_goes_on_is_one_wandb_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (9, 19):
        logger = wandb_logger(str(tmp_path), {"job_type": "train", "tags": ["a"]})
        logger.log_hyperparams({"seed": 1})
        logger.log_metrics({"loss": 0.5}, step=step)
        logger.log_metrics({"tuned/all/pass@1": 0.5})
        logger.close(failed=False)
    parts = {path.name.split("-")[3] for path in (tmp_path / "wandb").glob("offline-run-*")}
    assert parts == {json.loads((tmp_path / "wandb.json").read_text())["id"]}

"""What a run came to arrives in every dashboard: read back from W&B's offline file, MLflow's SQLite file and TensorBoard's events."""

import json
import os
import time

import pytest
from run_commands import ROOT
from wandb_file import read_offline_run

from cptlab.errors import UserError
from cptlab.settings.config_source import compose_config
from cptlab.settings.validation import validate
from cptlab.tracking.loggers import csv_logger, wandb_logger
from cptlab.tracking.mirrors import Mirror, check_mirrors
from cptlab.tracking.outcome import LONGEST_NAME, Outcome, Table, artifact, known_id, results_table

RECORD = {
    "name": "evaluate-no_rank-seed2-spa",
    "group": "2026-11-28_07-33",
    "job_type": "evaluate",
    "tags": ["ablation=no_rank", "seed=2"],
    "choices": {"ablation": "no_rank", "system": ["base", "spa"]},
    "seed": 2,
    "sweep": "2026-11-28_07-33",
}
SETTINGS = {"seed": 2, "objective": {"w_rank": 4.0}, "ks": [1, 5], "record": RECORD}
METRICS = {"spa/all/pass@1": 0.5, "spa/all/pass@1_low": 0.25, "spa/all/pass@1_high": 0.75, "spa/all/tasks": 2.0}
PROGRAM = ["spa", "t/1", "interview", 0, 7.5, "failed", "wrong answer", "3: W0612 unused-variable", "def solve(): …"]
COLUMNS = ["system", "task", "difficulty", "program_number", "pylint_score", "verdict", "reason", "messages", "program"]


@pytest.fixture
def outcome(tmp_path):
    from matplotlib.image import imsave

    source = tmp_path / "source"
    (source / "prefix").mkdir(parents=True)
    for name in ("pairs.jsonl", "prefix/weights", "report.html"):
        (source / name).write_text(f"the content of {name}")
    imsave(source / "quality.png", [[[0.0, 0.5, 1.0]] * 6] * 4)
    return Outcome(
        METRICS,
        programs=Table(COLUMNS, [PROGRAM]),
        figures={"quality": source / "quality.png"},
        report=source / "report.html",
        used=[artifact("pairs-kata", "pairs", source, [source / "pairs.jsonl", source / "not there"])],
        made=[artifact("prefix-a+b", "prefix", source / "prefix", list((source / "prefix").iterdir()))],
    )


def run_twice(open_logger, outcome):
    """A run that was killed after step 9, logs step 9 again and ends; its steps."""
    for steps, last in (((4, 9), False), ((9, 14), True)):
        time.sleep(1.1 * last)  # W&B names the parts of an offline run by the second
        mirror = Mirror("logger", "here", open_logger)
        mirror.log_hyperparams(SETTINGS | {"seed": 2 + last})
        for step in steps:
            mirror.log_metrics(
                {"comparative/val/accuracy": 1 - step / 20, "comparative/val/loss": step / 10}, step=step
            )
        if last:
            mirror.log_outcome(outcome)
        mirror.save()
        mirror.close(failed=False)
    return [4, 9, 14]


def test_wandb_has_it_offline(outcome, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    run_twice(lambda: wandb_logger(str(tmp_path), RECORD, project="p"), outcome)
    assert capsys.readouterr().err == ""
    found = read_offline_run(tmp_path)
    assert {run.run_id for run in found.runs} == {known_id(tmp_path, "wandb")} and found.exit_codes == [0, 0]
    for run in found.runs:
        assert (run.display_name, run.run_group, run.job_type) == (RECORD["name"], RECORD["group"], "evaluate")
        assert list(run.tags) == RECORD["tags"] and run.project == "p"
    assert found.config["record"] == RECORD and found.config["objective"] == {"w_rank": 4.0}
    accuracy, loss = found.metrics["comparative/val/accuracy"].summary, found.metrics["comparative/val/loss"].summary
    assert accuracy.max and accuracy.last and loss.min and loss.last and not loss.max
    *_, last = found.history
    assert METRICS.items() <= last.items()
    for name, kind in {"programs": "table-file", "figures/quality": "image-file", "report": "html-file"}.items():
        assert last[f"{name}/_type"] == kind
    media = {path.name.partition("_")[0]: path for path in found.files if "media" in path.parts}
    table = json.loads(media["programs"].read_text())
    assert (table["columns"], table["data"]) == (COLUMNS, [PROGRAM])
    assert json.loads(media["results"].read_text())["data"][0] == ["spa", "all", "pass@1", 0.5, 0.25, 0.75]
    assert media["quality"].read_bytes() == outcome.figures["quality"].read_bytes()
    assert media["report"].read_text() == "the content of report.html"
    used, made = found.used["pairs-kata"], found.made["prefix-a_b"]
    assert (used.type, made.type) == ("pairs", "prefix") and "pairs-kata" not in found.made
    assert [one.path for one in used.manifest.contents] == ["pairs.jsonl"]
    (weights,) = made.manifest.contents
    assert weights.local_path == str(tmp_path / "source/prefix/weights"), "no copy is made of what a run keeps anyway"
    assert json.loads(made.metadata) == {"made_of": ["pairs-kata"]}
    assert used.digest and used.digest != made.digest


def test_the_names_that_the_user_gives_win(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb_logger(str(tmp_path), RECORD, group="mine", name="first").close(failed=True)
    found = read_offline_run(tmp_path)
    assert [(run.display_name, run.run_group) for run in found.runs] == [("first", "mine")] and found.exit_codes == [1]


def test_csv_has_settings_and_results(outcome, tmp_path):
    import yaml

    run_twice(lambda: csv_logger(str(tmp_path), RECORD), outcome)
    assert yaml.safe_load((tmp_path / "csv/hparams.yaml").read_text())["record"] == RECORD
    header, *_, last = (tmp_path / "csv/metrics.csv").read_text().splitlines()
    assert dict(zip(header.split(","), last.split(",")))["spa/all/pass@1_high"] == "0.75"


@pytest.mark.slow
def test_mlflow_has_it_in_sqlite(outcome, tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("alembic")
    from mlflow.tracking import MlflowClient

    from cptlab.tracking.mlflow_logger import mlflow_logger

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path}/all/mlflow.db"
    logged = run_twice(lambda: mlflow_logger(str(tmp_path), RECORD, tracking_uri=uri), outcome)
    assert "warning" not in capsys.readouterr().err
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("cptlab").experiment_id])
    assert run.info.run_id == known_id(tmp_path, "mlflow") and run.info.status == "FINISHED"
    assert run.info.run_name == RECORD["name"]
    tags = {"group": RECORD["group"], "ablation": "no_rank", "system": "base, spa", "job_type": "evaluate"}
    assert tags.items() <= run.data.tags.items()
    assert (run.data.tags["used"], run.data.tags["made"]) == ("pairs-kata", "prefix-a_b")
    assert run.data.params["objective.w_rank"] == "4.0" and run.data.params["seed"] == "2", "as it began"
    assert run.data.metrics["spa/all/pass_at_1_low"] == 0.25
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "comparative/val/loss")]
    assert steps == logged
    files = {file.path for part in ("", "figures", "prefix") for file in client.list_artifacts(run.info.run_id, part)}
    assert {"figures/quality.png", "report.html", "prefix/weights", "programs.json", "results.json"} <= files
    place = client.download_artifacts(run.info.run_id, "programs.json", str(tmp_path))
    assert json.loads(open(place).read())["data"] == [PROGRAM]
    assert not (tmp_path / "mlruns").exists() and "MLFLOW_TRACKING_URI" not in os.environ


def test_tensorboard_has_scalars_and_figures(outcome, tmp_path, capsys):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from cptlab.tracking.tensorboard_logger import tensorboard_logger

    steps = run_twice(lambda: tensorboard_logger(str(tmp_path), RECORD), outcome)
    assert "warning" not in capsys.readouterr().err
    (place,) = (tmp_path / "tensorboard").iterdir()
    assert place.name == RECORD["name"]
    found = events.EventAccumulator(str(place), size_guidance={"images": 0}).Reload()
    points = found.Scalars("comparative/val/loss")
    assert [point.step for point in points] == steps and points[-1].value == pytest.approx(1.4)
    assert found.Scalars("spa/all/pass@1_high")[0].value == 0.75
    (picture,) = found.Images("figures/quality")
    assert (picture.width, picture.height) == (6, 4)
    assert "run/text_summary" in found.Tags()["tensors"]


@pytest.mark.parametrize("goes_on", [False, True])  # True: killed between the last step and the results
def test_the_last_point_of_a_curve_is_the_result_of_that_name(goes_on, tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    from mlflow.tracking import MlflowClient

    from cptlab.tracking.mlflow_logger import mlflow_logger
    from cptlab.tracking.tensorboard_logger import tensorboard_logger

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    outcome = Outcome({"nll/loss": 8.5, "nll/epochs": 2.0})
    for opened in (
        lambda: mlflow_logger(str(tmp_path), RECORD, tracking_uri=uri), lambda: tensorboard_logger(str(tmp_path), RECORD)
    ):  # fmt: skip
        logger = opened()
        logger.log_hyperparams(SETTINGS)
        for step, loss in ((9, 5.25), (19, 5.5)):
            logger.log_metrics({"nll/loss": loss, "epoch": 0.0}, step=step)
        if goes_on:
            logger.finalize("success")
            logger = opened()
            logger.log_hyperparams(SETTINGS)
        logger.log_outcome(outcome)
        logger.finalize("success")
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("cptlab").experiment_id])
    assert run.data.metrics["nll/loss"] == 8.5 and run.data.metrics["nll/epochs"] == 2.0
    history = client.get_metric_history(run.info.run_id, "nll/loss")
    assert sorted((point.step, point.value) for point in history) == [(9, 5.25), (19, 5.5), (19, 8.5)]
    (place,) = (tmp_path / "tensorboard").iterdir()
    points = events.EventAccumulator(str(place)).Reload().Scalars("nll/loss")
    assert [(point.step, point.value) for point in points] == [(9, 5.25), (19, 5.5), (19, 8.5)]


def test_a_logger_of_lightnings_gets_the_figures():
    class Numbers:
        def log_metrics(self, metrics, step=None):
            self.metrics = metrics

    logger = Numbers()
    Mirror.of(logger, "here").log_outcome(Outcome(METRICS))
    assert logger.metrics == METRICS


@pytest.mark.parametrize("name", ["mlflow", "tensorboard"])
def test_a_package_that_is_missing_is_one_sentence(name, monkeypatch):
    monkeypatch.setattr("cptlab.tracking.mirrors.find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"pip install 'cptlab\[{name}\]'") as refused:
        check_mirrors({name: {"_target_": f"cptlab.tracking.{name}_logger.{name}_logger"}}, [])
    assert f"logger={name} needs {name}" in str(refused.value)


def test_the_example_of_a_wandb_sweep_is_a_command_of_ours():
    import yaml
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((ROOT / "docs/wandb_sweep.yaml").read_text())
    chosen = {name: {"value": one.get("values", [one.get("min")])[0]} for name, one in sweep["parameters"].items()}
    arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    place = sweep["command"].index("${args_no_hyphens}")
    config = compose_config(
        "train", *arguments, *sweep["command"][place + 1 :], f"optimized_metric={sweep['metric']['name']}"
    )
    validate(config)
    assert (config.seed, config.adapter.length, config.stages.learning_rate) == (1, 4, 0.0003)


def test_names_of_artifacts_are_what_wandb_takes(tmp_path):
    names = {artifact(f"prefix-{'ω+x' * 60}{last}", "prefix", tmp_path, []).name for last in "ab"}
    assert len(names) == 2 and all(len(name) <= LONGEST_NAME for name in names)


def test_results_have_their_intervals_in_one_row():
    assert results_table(METRICS).rows == [
        ["spa", "all", "pass@1", 0.5, 0.25, 0.75],
        ["spa", "all", "tasks", 2.0, None, None],
    ]
    assert results_table({"comparative/val_accuracy": 1.0}).rows == [
        ["comparative", "", "val_accuracy", 1.0, None, None]
    ]

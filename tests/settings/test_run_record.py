"""A run says what it is: the jobs of a sweep have different names, and an evaluation says which training run it judged."""

import json
import re

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig

from cptlab.settings.config_source import config_directory, use_declared_defaults
from cptlab.settings.run_record import LONGEST_NAME, LONGEST_TAG, describe, read_training
from cptlab.settings.sweep import Sweep

ABLATIONS = ["full", "no_rank", "no_kl", "no_lm", "no_pt", "no_bs"]


def records(monkeypatch, where, command, *arguments, training=None):
    """The records of all jobs of a command line, as its step makes them."""
    arguments = [f"paths.logs={where}/logs", *arguments]
    monkeypatch.setattr("sys.argv", [command, *arguments])
    Sweep(arguments)
    use_declared_defaults()
    found = []

    @hydra.main(version_base="1.3", config_path=str(config_directory()), config_name=command)
    def main(config):
        found.append(describe(config, training))

    main()
    assert not HydraConfig.initialized()
    return found


def training_run(where, record, **config):
    where.mkdir(parents=True)
    (where / "run.json").write_text(json.dumps({"digest": "d", "finished": True, **record}))
    (where / "config.yaml").write_text(json.dumps({"seed": 3, "paths": {"logs": "/home/me"}, **config}))
    return where


@pytest.mark.slow
def test_the_jobs_of_a_sweep_are_told_apart_and_have_its_group(monkeypatch, tmp_path):
    found = records(monkeypatch, tmp_path, "train", "seed=1,2,3", f"ablation={','.join(ABLATIONS)}", "-m")
    names = {record["name"] for record in found}
    assert names == {f"train-{ablation}-seed{seed}" for ablation in ABLATIONS for seed in (1, 2, 3)}
    for record in found:
        choices, sweep = record["choices"], record["sweep"]
        assert record["name"] == f"train-{choices['ablation']}-seed{record['seed']}"
        assert re.fullmatch(r"[\d_-]+", sweep) and record["group"] == sweep
        assert {f"ablation={choices['ablation']}", f"seed={record['seed']}", "objective=cpt"} <= set(record["tags"])
        assert record["overrides"] == [f"seed={record['seed']}", f"ablation={choices['ablation']}"]
    assert len({record["sweep"] for record in found}) == 1
    (named, _) = records(monkeypatch, tmp_path, "train", "experiment_name=mine", "seed=1,2", "-m")
    assert named["group"] == "mine" and named["sweep"] != "mine" and named["name"] == "train-mine-seed1"


@pytest.mark.parametrize(
    "arguments, name",
    [
        ((), "train"),
        (("ablation=full",), "train-full"),
        (("seed=2", "ablation=no_rank"), "train-no_rank-seed2"),
        (("objective=dpo", "objective.beta=0.2", "tags=[a]", "workers=1", "logger=csv"), "train-dpo-beta0.2"),
        (("experiment=demo", "seed=1"), "train-demo-seed1"),
        (("~decoding.second_try", "backbone.path=/models/mine.gguf"), "train-no_second_try-pathmine"),
    ],
)
def test_the_name_holds_what_the_command_line_chose(arguments, name, monkeypatch, tmp_path):
    (record,) = records(monkeypatch, tmp_path, "train", *arguments)
    assert record["name"] == name and record["sweep"] is None and record["job_type"] == "train"
    assert record["group"] == ("demo" if "demo" in name else "default")


def test_choices_are_the_chosen_files_and_settings_of_no_machine(monkeypatch, tmp_path):
    (record,) = records(
        monkeypatch, tmp_path, "train", "experiment=full_finetuning", "data.pairs_file=/home/me/p.jsonl"
    )
    chosen = {"ablation": "full", "objective": "nll", "adapter": "full", "decoding": "paper", "benchmark": "kata"}
    assert chosen.items() <= record["choices"].items() and record["choices"]["experiment"] == "full_finetuning"
    assert not {"paths", "hydra", "logger", "callbacks"} & set(record["choices"])
    assert record["overrides"] == ["experiment=full_finetuning"]
    assert (record["backbone"], record["benchmark"]) == ("kata_lm", "kata")


def test_long_names_and_tags_stay_different_and_short(monkeypatch, tmp_path):
    many = [f"{name}=0.123456789" for name in ("objective.w_rank", "objective.w_lm", "objective.w_kl")]
    many += [f"stages.{name}=0.123456789" for name in ("learning_rate", "second_learning_rate", "gradient_clip")]
    found = records(monkeypatch, tmp_path, "train", *many, f"tags=[{'x' * 99}]", "seed=1,2", "-m")
    assert len({record["name"] for record in found}) == 2
    assert all(len(record["name"]) <= LONGEST_NAME for record in found)
    assert all(len(tag) <= LONGEST_TAG for record in found for tag in record["tags"])


def test_an_evaluation_says_what_it_judged(monkeypatch, tmp_path):
    trained = records(monkeypatch, tmp_path, "train", "seed=1,2", "ablation=no_rank", "-m")
    runs = [training_run(tmp_path / str(n), record) for n, record in enumerate(trained)]
    asked = ("evaluate", "system=[tuned,spa]", "decoding=spa")
    (one,) = records(monkeypatch, tmp_path, *asked, training={"tuned": runs[0], "spa": runs[0]})
    assert one["name"] == "evaluate-no_rank-seed1-tuned+spa-spa"
    assert one["choices"]["system"] == ["tuned", "spa"] and one["choices"]["ablation"] == "no_rank"
    assert (one["seed"], one["backbone"], one["benchmark"]) == (0, "kata_lm", "kata")
    assert {"system=spa", "ablation=no_rank", "seed=0", "training_seed=1"} <= set(one["tags"])
    (both,) = records(monkeypatch, tmp_path, "evaluate", training={"a": runs[0], "b": runs[1]})
    assert both["name"] == "evaluate-no_rank-seed1+no_rank-seed2" and both["choices"]["ablation"] == "no_rank"
    record = read_training(runs[1])
    assert record["config"] == {"seed": 3} and record["choices"] == trained[1]["choices"] and "digest" not in record


def test_a_training_run_of_an_earlier_version_has_what_its_config_tells(tmp_path):
    run = training_run(tmp_path / "old", {}, ablation={"name": "no_kl", "sets": {}})
    record = read_training(run)
    assert (record["name"], record["choices"], record["seed"]) == ("old", {"ablation": "no_kl"}, 3)


def test_programs_of_other_tools_have_no_model_and_no_decoding(monkeypatch, tmp_path):
    (record,) = records(monkeypatch, tmp_path, "evaluate", "completions=my/samples.jsonl", "benchmark=humaneval")
    assert record["name"] == "evaluate-humaneval-completionssamples"
    assert record["choices"] == {"benchmark": "humaneval", "scorer": "pylint", "system": ["given"]}

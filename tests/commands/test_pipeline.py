"""The whole method through its entries, tiny: files, formats, resuming after SIGKILL, DDP, multirun."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from run_commands import ROOT, TINY, command
from wandb_file import read_offline_run

from cptlab.adapters import load_prefix
from cptlab.backbone import load_backbone
from cptlab.records import DIFFICULTIES

QUIET = ["logger=none", "print_config=false"]
OWN_STAGES = [
    override for override in TINY if not override.startswith("stages.")
]  # as the ablation or objective has them


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training run with all loggers and its evaluation: (training run, evaluation run, printed text)."""
    where = tmp_path_factory.mktemp("whole")
    loggers = "many" if all(map(find_spec, ("mlflow", "sqlalchemy", "alembic", "tensorboard"))) else "default"
    command("train", where, *TINY, "print_config=false", f"logger={loggers}")
    train = next(where.glob("logs/train/runs/*"))
    asked = f"run={train}", "limit=6", "n=5", "workers=1", "print_config=false", f"logger={loggers}"
    command("evaluate", where, *asked)
    return train, next(where.glob("logs/evaluate/runs/*"))


def test_a_training_run_leaves_its_record(whole):
    train, _ = whole
    metrics = json.loads((train / "metrics.json").read_text())
    assert metrics["metrics"]["comparative/step"] > 0 and metrics["seed"] == 0
    assert metrics["pair_statistics"]["filters"]["samples"] == 72
    assert {"versions", "git", "backbone", "wall_seconds", "peak_memory_mb"} <= set(metrics)
    assert json.loads((train / "run.json").read_text())["finished"]
    assert (train / "config.yaml").is_file() and (train / "training" / "stage2" / "steps.csv").is_file()
    assert list((train / "wandb").glob("offline-run-*")), "W&B ran offline, unasked"
    assert list(train.glob("csv/metrics.csv"))


def test_the_exported_prefix_works_in_peft(whole):
    from peft import PeftModel

    train, _ = whole
    backbone = load_backbone("kata-lm")
    prefix = load_prefix(train / "prefix", backbone.shape)
    ids = torch.tensor([backbone.encode_prompt("def solve(numbers):\n    return sum(")])
    with torch.no_grad():
        ours = backbone.logits(ids, torch.ones_like(ids), prefix)
        theirs = PeftModel.from_pretrained(load_backbone("kata-lm").model, train / "prefix")(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_an_evaluation_leaves_its_record(whole):
    train, run = whole
    metrics = json.loads((run / "metrics.json").read_text())
    statistics = json.loads((train / "metrics.json").read_text())["pair_statistics"]
    assert metrics["pair_statistics"] == {"tuned": statistics}
    assert [counts["programs"] for counts in metrics["answers"].values()] == [30, 30]
    assert set(metrics["results"]) == {"base", "tuned"}
    for system in metrics["results"].values():
        assert set(system) == {*DIFFICULTIES, "all"}
        for row in system.values():
            for name in ("pylint_mean", "pylint_max", "pylint_min", "pass@1", "pass@5", "statements", "tokens"):
                low, high = row[f"{name}_ci"]
                assert low <= row[name] <= high
            assert "pass@10" not in row
        assert system["all"]["tasks"] == 6 and system["interview"]["tasks"] == 2
    for system in ("base", "tuned"):
        lengths = {
            len((run / system / f"{name}.jsonl").read_text().splitlines())
            for name in ("completions", "quality", "verdicts")
        }
        assert lengths == {30}
    assert {"quality.md", "correctness.csv", "issues.md"} <= {path.name for path in (run / "tables").iterdir()}
    assert list((run / "figures").glob("*.png")) and (run / "report.html").is_file()


def test_dashboards_lead_from_the_pairs_to_the_evaluation(whole):
    train, run = whole
    trained, evaluated = read_offline_run(train), read_offline_run(run)
    assert trained.exit_codes == evaluated.exit_codes == [0]
    (pairs,), (prefix,) = trained.used.values(), evaluated.used.values()
    made = {one.type: one for one in (*trained.made.values(), *evaluated.made.values())}
    assert pairs.type == "pairs" and {"prefix", "programs", "evaluation"} <= set(made)
    assert (prefix.name, prefix.digest) == (made["prefix"].name, made["prefix"].digest), "the lineage is one"
    metrics = json.loads((run / "metrics.json").read_text())
    assert trained.config["record"] == json.loads((train / "metrics.json").read_text())["run"]
    assert evaluated.config["training"] == metrics["training"] and metrics["training"]["tuned"]["config"]["seed"] == 0
    *_, last = evaluated.history
    low, high = metrics["results"]["tuned"]["all"]["pylint_mean_ci"]
    assert (last["tuned/all/pylint_mean_low"], last["tuned/all/pylint_mean_high"]) == (low, high)
    (table,) = (path for path in evaluated.files if path.name.startswith("programs"))
    rows = json.loads(table.read_text())["data"]
    programs = [json.loads(line)["program"] for line in (run / "tuned/completions.jsonl").read_text().splitlines()]
    assert len(rows) == 60 and sorted(row[-1] for row in rows if row[0] == "tuned") == sorted(programs)


def test_mlflow_and_tensorboard_hold_both_runs(whole):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("tensorboard")
    from mlflow.tracking import MlflowClient

    train, run = whole
    logs = train.parents[2]
    client = MlflowClient(f"sqlite:///{logs}/mlflow.db")
    runs = {one.data.tags["job_type"]: one for one in client.search_runs(["1"])}
    assert set(runs) == {"train", "evaluate"} and {one.info.status for one in runs.values()} == {"FINISHED"}
    assert runs["evaluate"].data.params["training.tuned.config.objective.w_rank"] == "4.0"
    assert "evaluation/report.html" in [
        file.path for file in client.list_artifacts(runs["evaluate"].info.run_id, "evaluation")
    ]
    assert all(list(one.glob("tensorboard/*/events.out.*")) for one in whole)


def test_the_report_is_remade_without_a_model(whole):
    _, run = whole
    before = {path: path.read_bytes() for path in sorted(run.glob("tables/*")) + [run / "report.html"]}
    (run / "report.html").unlink()
    code = (
        "import sys; from cptlab.commands.report import main; code = main([sys.argv[1]]);"
        "assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, run], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert before == {path: path.read_bytes() for path in before}


def start(where: Path, *overrides: str, launcher: Sequence[str] = ()) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            *launcher,
            "train.py",
            *TINY,
            *QUIET,
            "stages.checkpoint_every=2",
            f"paths.logs={where}/logs",
            f"paths.cache={where}/cache",
            *overrides,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_when(process: subprocess.Popen, where: Path, pattern: str) -> None:
    """SIGKILL as soon as a file that matches `pattern` is there."""
    deadline = time.monotonic() + 240
    while not list(where.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_the_same(tmp_path):
    quiet, torn = tmp_path / "quiet", tmp_path / "torn"
    output = start(quiet).communicate()[0]
    for pattern in (
        "cache/completions-*/00000.jsonl",
        "cache/reference/*/states.bin.journal",
        "logs/train/runs/*/training/stage1/last.ckpt",
        "logs/train/runs/*/training/stage2/last.ckpt",
    ):
        kill_when(start(torn), torn, pattern)
    assert start(torn).wait() == 0
    prefixes = [next(where.glob("logs/train/runs/*/prefix/adapter_model.safetensors")) for where in (quiet, torn)]
    assert prefixes[0].read_bytes() == prefixes[1].read_bytes(), output
    assert len(list(torn.glob("logs/train/runs/*"))) == 1
    pairs = [next(where.glob("cache/pairs/*/pairs.jsonl")).read_bytes() for where in (quiet, torn)]
    assert pairs[0] == pairs[1]
    kept = [
        {path.relative_to(where): path.read_bytes() for path in where.glob("cache/reference/*/*.bin*")}
        for where in (quiet, torn)
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 8


@pytest.mark.slow
def test_two_processes_train_what_one_does_with_the_doubled_batch(tmp_path):
    shared = f"paths.cache={tmp_path}/cache"
    one = start(tmp_path / "one", "data.loader.batch_size=2", shared)
    text = one.communicate()[0]
    assert one.returncode == 0, text
    two = start(tmp_path / "two", "trainer=ddp_cpu", shared)
    text = two.communicate(timeout=240)[0]
    assert two.returncode == 0, text
    # float32; in float64 they agree to 1e-7 (tests/training/test_training.py)
    tables = [load_prefix(next((tmp_path / name).glob("logs/train/runs/*/prefix"))).table for name in ("one", "two")]
    assert torch.allclose(*tables, atol=2e-4), (tables[0] - tables[1]).abs().max()
    assert len(list((tmp_path / "two").glob("logs/train/runs/*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp_cpu"])
def test_torchrun_trains_what_lightning_does(trainer, tmp_path):
    """Its processes start at once, where Lightning's first one starts the others; here with nothing kept before, and
    stopped once on the way."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    stopped = start(tmp_path, f"trainer={trainer}", launcher=torchrun)
    while not list(tmp_path.glob("logs/train/runs/*/training/stage1/last.ckpt")):
        assert stopped.poll() is None, stopped.communicate()[0]
        time.sleep(0.01)
    stopped.terminate()
    stopped.communicate()
    assert stopped.returncode != 0
    again = start(tmp_path, f"trainer={trainer}", launcher=torchrun)
    text = again.communicate()[0]
    assert again.returncode == 0 and "Going on with the unfinished run" in text, text
    ours = start(tmp_path / "ours", f"trainer={trainer}", f"paths.cache={tmp_path}/cache")
    text = ours.communicate()[0]
    assert ours.returncode == 0, text
    theirs, found = (next(d.glob("logs/train/runs/*/prefix")) for d in (tmp_path, tmp_path / "ours"))
    assert torch.equal(load_prefix(theirs).table, load_prefix(found).table)
    assert len(list(tmp_path.glob("logs/train/runs/*"))) == 1


@pytest.mark.slow
def test_multirun_trains_every_ablation_on_the_same_pairs_and_reference(tmp_path):
    ablations = "full,no_lm,no_rank,no_kl,no_pt,no_bs"
    done = subprocess.run(
        [
            sys.executable,
            "train.py",
            "-m",
            *OWN_STAGES,
            *QUIET,
            f"ablation={ablations}",
            f"paths.logs={tmp_path}/logs",
            f"paths.cache={tmp_path}/cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    runs = sorted(tmp_path.glob("logs/train/multiruns/*/*/prefix/adapter_model.safetensors"))
    assert len(runs) == 6 == len({run.read_bytes() for run in runs})
    assert len(list(tmp_path.glob("cache/pairs/*"))) == 1
    # that of the training pairs and that of the validation pairs, computed by the first job
    assert len(list(tmp_path.glob("cache/reference/*"))) == 2 == done.stderr.count("being computed once")
    assert done.stderr.count("Reference: found") == 9  # no_pt needs the validation pairs' alone


OBJECTIVES = [
    "dpo",
    "single_prefix",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("cpt_hinge", "dpop", "orpo", "simpo", "sven")),
]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains(objective, whole, tmp_path, capfd):
    """On the pairs and reference of another run; with two prefixes both are exported."""
    train, _ = whole
    shared = [f"paths.cache={train.parents[3]}/cache", f"objective={objective}"]
    command("train", tmp_path, *OWN_STAGES, *QUIET, *shared)
    run = next(tmp_path.glob("logs/train/runs/*"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["step"] == "fast" and metrics["metrics"]["comparative/grad_norm"] > 0
    assert ("nll/loss" in metrics["metrics"]) == (objective == "cpt_hinge")
    tables = [load_prefix(run / name).table for name in ("prefix", "prefix_worse") if (run / name).exists()]
    assert len(tables) == (2 if objective == "sven" else 1)
    assert len(tables) == 1 or (tables[0] - tables[1]).abs().max() > 0.01
    assert "being computed" not in capfd.readouterr().err


@pytest.mark.slow
def test_steps_and_ways_to_compute_train_the_same(whole, tmp_path):
    train, _ = whole
    table = load_prefix(train / "prefix").table
    for name, options in {
        "plain": ["compute.step=plain"],
        "without": ["compute.reference=recompute", "compute.checkpointing=true", "compute.token_budget=1"],
        "half": ["compute.reference_precision=half"],
    }.items():
        where = tmp_path / name
        command("train", where, *TINY, *QUIET, f"paths.cache={train.parents[3]}/cache", *options)
        other = load_prefix(next(where.glob("logs/train/runs/*/prefix"))).table
        assert 0 < (other - table).norm() < (5e-3 if name == "half" else 5e-4) * table.norm(), name


def test_an_estimate_and_nothing_else(whole, tmp_path, capsys):
    """Of the embedded model, with the pairs of another run: exact lengths, measured time. Nothing is begun."""
    train, _ = whole
    cache = f"paths.cache={train.parents[3]}/cache"
    assert command("train", tmp_path, *TINY, *QUIET, cache, "estimate=true") is None
    table = capsys.readouterr().out
    pairs = len((next((train.parents[3] / "cache/pairs").glob("*")) / "pairs.jsonl").read_text().splitlines())
    counts = [int(n) for n in re.search(r"Pairs +(\d+) train, (\d+) validation +exact", table).groups()]
    assert sum(counts) == pairs
    assert "24,576 numbers" in table and "Time of training" in table and "3,672,320 parameters" in table
    assert not (tmp_path / "logs").exists()
    stored = json.loads((train / "metrics.json").read_text())["estimate"]
    assert stored["parameters"] == 3_672_320 and stored["peak_bytes"] > stored["weight_bytes"]
    files = sorted(train.parents[3].glob("cache/reference/*/*.bin"), key=lambda file: file.stat().st_mtime)
    first = files[:4]  # scores and states of both splits; other tests add theirs to this cache
    assert stored["reference_bytes"] == sum(file.stat().st_size for file in first)


def test_an_estimate_from_a_config_alone(tmp_path, capsys):
    """Code Llama 7B, of which this machine has no weights."""
    from transformers import LlamaConfig

    LlamaConfig(vocab_size=32016, max_position_embeddings=16384).save_pretrained(tmp_path / "model")
    command(
        "train",
        tmp_path,
        *QUIET,
        "backbone=code_llama_7b",
        f"backbone.path={tmp_path}/model",
        "estimate=true",
        "trainer=gpu",
    )
    table = capsys.readouterr().out
    assert "3,145,728 numbers" in table and "6,738,546,688 parameters" in table and "assumed" in table
    assert re.search(r"Time +unknown +the backbone's weights do not lie on this machine", table)


def test_a_setting_that_the_objective_does_not_have(whole, tmp_path, capfd):
    with pytest.raises(SystemExit, match="2"):
        command("train", tmp_path, *TINY, *QUIET, "objective=dpo", "+objective.w_kl=0")
    assert "There is no setting objective.w_kl" in capfd.readouterr().err

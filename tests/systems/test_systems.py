"""Systems of an evaluation through its entry, on the embedded model: what they are, their order, mistakes, resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from run_commands import ROOT, command, config

from cptlab.adapters import Policy, Prefix, save_prefix
from cptlab.adapters.full import FullFineTuning
from cptlab.adapters.lora import LoRA
from cptlab.backbone import load_backbone
from cptlab.decoding import Sampling, generate
from cptlab.errors import UserError
from cptlab.metrics.programs import judged_program
from cptlab.metrics.summary import compare
from cptlab.records import Completion, Quality, Verdict
from cptlab.storage.jsonl import read_jsonl
from cptlab.storage.run_directory import training_run
from cptlab.systems import judge as judging
from cptlab.systems.decoding import Decoding
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.post_processing import RuffFix
from cptlab.systems.samples import sample_and_judge
from cptlab.systems.selection import BestOf
from cptlab.tasks.kata import kata

QUIET = ["logger=none", "print_config=false", "workers=1"]
BASE = ["run=null", "backbone=kata_lm", "benchmark=kata"]
SMALL = [*QUIET, "limit=3", "n=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished training run with a prefix, as far as an evaluation looks at it."""
    run = tmp_path_factory.mktemp("trained") / "logs" / "train" / "runs" / "one"
    run.mkdir(parents=True)
    settings = config("train", run)
    OmegaConf.save(
        OmegaConf.create({"backbone": settings.backbone, "benchmark": settings.benchmark}), run / "config.yaml"
    )
    backbone = load_backbone("kata-lm")
    prefix = Prefix(backbone.shape, length=5, seed=3)
    prefix.table.data *= 200
    save_prefix(prefix, run / "prefix", backbone)
    (run / "run.json").write_text('{"digest": "x", "finished": true}')
    return run


def metrics_of(where: Path) -> dict:
    return json.loads((where / "logs/evaluate/runs/now/metrics.json").read_text())


def records(where: Path, system: str) -> list[bytes]:
    run = where / "logs/evaluate/runs/now" / system
    return [(run / f"{name}.jsonl").read_bytes() for name in ("completions", "quality", "verdicts")]


@pytest.mark.slow
def test_two_decodings_in_one_evaluation_are_two_evaluations(tmp_path):
    together, plain, guided = (tmp_path / name for name in ("together", "plain", "guided"))
    command("evaluate", together, *SMALL, *BASE, "system=[spa,base]", "system.spa.decoding.omega=1.6")
    command("evaluate", plain, *SMALL, *BASE, "system=[base]")
    command("evaluate", guided, *SMALL, *BASE, "system=[base]", "decoding=spa", "decoding.omega=1.6")
    assert records(together, "base") == records(plain, "base")
    assert records(together, "spa") == records(guided, "base") != records(plain, "base")
    metrics = metrics_of(together)
    assert metrics["systems"] == list(metrics["results"]) == ["spa", "base"], "in the order of the command"
    assert (
        set(metrics["differences"]) == {"base"} and metrics["results"]["base"] == metrics_of(plain)["results"]["base"]
    )
    for metric, change in metrics["differences"]["base"]["all"].items():
        if not metric.endswith("_ci") and metric != "tasks":
            after, before = (metrics["results"][name]["all"][metric] for name in ("base", "spa"))
            assert change == pytest.approx(after - before), "against the first that is named"
    assert metrics["decoding"]["spa"]["guidance"]["omega"] == 1.6 and metrics["decoding"]["base"]["guidance"] is None


def test_every_shipped_system_goes_through(trained, tmp_path):
    """But those whose adapters no test trains here. The cost of each is said."""
    names = sorted(path.stem for path in (ROOT / "conf/system").glob("*.yaml") if path.stem not in ("lora", "full"))
    command("evaluate", tmp_path, *QUIET, "limit=1", "n=1", f"run={trained}", f"system=[{','.join(names)}]")
    metrics = metrics_of(tmp_path)
    assert metrics["systems"] == names and set(metrics["cost"]) == set(names)
    for name, cost in metrics["cost"].items():
        again = name in ("second_try", "self_debug") or name.endswith("feedback")
        drawn = (1, 2) if again else (5,) if "best_of_n" in name else (1,)  # of the one program of one task
        assert cost["programs"] in drawn and cost["tokens"] > 0
    assert metrics["parts"]["tuned"]["adapter"] == "prefix" and metrics["parts"]["tuned"]["run"] == str(trained)
    assert metrics["parts"]["base"]["adapter"] is metrics["parts"]["base"]["run"] is None
    assert metrics["training_run"] == str(trained)


def test_a_system_of_the_user_s_own(trained, tmp_path):
    own = ["+system.mine._target_=cptlab.systems.System", "+system.mine.adapter=prefix", f"+system.mine.run={trained}"]
    command("evaluate", tmp_path, *SMALL, f"run={trained}", *own)
    metrics = metrics_of(tmp_path)
    assert metrics["systems"] == ["base", "tuned", "mine"]
    assert records(tmp_path, "mine") == records(tmp_path, "tuned") != records(tmp_path, "base")


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_other_adapters_are_systems_too(kind, tmp_path):
    backbone = load_backbone("kata-lm")
    adapter = LoRA(backbone, r=4) if kind == "lora" else FullFineTuning(backbone)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    run = tmp_path / "logs" / "train" / "runs" / "one"
    adapter.export(run / kind, backbone)
    (run / "run.json").write_text('{"finished": true}')
    settings = config("train", tmp_path)
    OmegaConf.save(
        OmegaConf.create({"backbone": settings.backbone, "benchmark": settings.benchmark}), run / "config.yaml"
    )
    command("evaluate", tmp_path, *QUIET, "limit=2", "n=2", f"system=[base,{kind},tuned]")
    assert records(tmp_path, kind) == records(tmp_path, "tuned") != records(tmp_path, "base")
    assert {metrics_of(tmp_path)["parts"][name]["adapter"] for name in (kind, "tuned")} == {kind}
    tasks, policy = kata().split("test", 2), adapter.eval().policy(backbone)
    rows = generate(policy.backbone, [(task.id, task.prompt) for task in tasks], 2, Sampling(), prefix=policy.prefix)
    stored = read_jsonl(tmp_path / "logs/evaluate/runs/now" / kind / "completions.jsonl", Completion)
    assert list(stored) == [completion for row in rows for completion in row]


def test_latest_is_the_newest_run_with_such_an_adapter(tmp_path):
    """Also where a newer run has another kind of adapter, and a still newer one has not finished."""
    runs = [tmp_path / "train" / "runs" / name for name in ("first", "second", "lora", "torn")]
    for age, (run, kind) in enumerate(zip(runs, ("prefix", "prefix", "lora", "prefix"), strict=True)):
        (run / kind).mkdir(parents=True)
        (run / "config.yaml").touch()
        (run / "run.json").write_text(json.dumps({"finished": run.name != "torn"}))
        os.utime(run / "run.json", (age, age))
    for kinds, expected in ((["prefix"], 1), (["prefix", "lora"], 2), (["lora"], 2)):
        assert training_run("latest", tmp_path, kinds) == runs[expected].resolve()
    with pytest.raises(UserError, match=r"with an adapter \(full\)"):
        training_run("latest", tmp_path, ["full"])
    with pytest.raises(UserError, match=r"no adapter of this kind \(lora\)"):
        training_run(str(runs[0]), tmp_path, ["lora"])


def system(name: str, **parts) -> LoadedSystem:
    backbone = load_backbone("kata-lm")
    return LoadedSystem(name, Policy(backbone), Decoding(Sampling(max_new_tokens=96)), **parts)


def test_the_best_of_the_draws_is_kept_repaired_and_its_cost_counted(tmp_path, monkeypatch):
    tasks, n, draws = kata().split("validation", 4), 2, 3
    every = sample_and_judge(system("every"), tasks, n * draws, Judge(tmp_path))
    run, asked = judging.judge_programs, []
    monkeypatch.setattr(judging, "judge_programs", lambda items, **rest: asked.extend(items) or run(items, **rest))
    parts = {"selection": BestOf(draws), "post_processing": (RuffFix(),)}
    kept = sample_and_judge(system("kept", **parts), tasks, n, Judge(tmp_path))
    assert len(asked) == n * len(tasks), "no test is run on the others"
    rows = list(zip(every.completions, every.qualities, strict=True))
    best = []
    for start in range(0, len(rows), draws):
        some = rows[start : start + draws]
        top = max(quality.score for _, quality in some)
        best.append(next(completion for completion, quality in some if quality.score == top))
    assert [one.raw for one in kept.completions] == [one.raw for one in best]
    assert [one.program for one in kept.completions] == RuffFix().apply([one.program for one in best])
    assert [one.sample for one in kept.completions] == [0, 1] * len(tasks)
    assert [one.task_id for one in kept.completions] == [task.id for task in tasks for _ in range(n)]
    assert (kept.cost.programs, every.cost.programs) == (3, 1)
    tokens = sum(completion.tokens for completion in every.completions)
    assert kept.cost.tokens == tokens / (n * len(tasks)) and every.cost.tokens == tokens / len(rows)


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["system=[]"], "There is no system to evaluate"),
        (["system=[tuned]"], "tuned needs a training run"),
        (["system=[base,lora]"], "System lora: There is no finished training run with an adapter (lora)"),
        (["system=[base]", "+system.mine.run=x"], "system.mine has no _target_"),
        (["system=[base]", "system.base.run=/no/run"], "but no adapter"),
        (
            ["system=[base]", "system.base.adapter=prefix", "system.base.run=/no/run"],
            "System base: /no/run is no finished",
        ),
        (
            ["system=[base]", "system.base.adapter=lora", "system.base.run={trained}"],
            "has no adapter of this kind (lora)",
        ),
        (["system=[base,best_of_n]", "system.best_of_n.selection.draws=0"], "draws=0 cannot be"),
        (["system=[base,best_of_n]", "decoding=beams", "n=2"], "width"),
        (["system=[base,ruff_fix]", "system.ruff_fix.post_processing.0.select=[XYZ1]"], "XYZ1"),
        (["system=[base,spa]", "decoding@system.spa.decoding=dial"], "it has no prefix"),
        (["system=[base,spa]", "system.spa.decoding.negative.spans=[shots]"], "None of the 3 prompts has"),
        (["system=[base,spa]", "system.spa.decoding.omega=tuned"], "No ω was tuned"),
        (["system=[base,spa]", "system.spa.decoding.omega=much"], "omega"),
        (["system=[base]", "decoding=dial"], "no system has a prefix"),
        (["system=[base]", "~backbone"], "Add backbone=kata_lm"),
        (["system=[base]", "system.base.adaptor=prefix"], "adaptor"),
    ],
)
def test_a_mistake_in_a_system_ends_before_any_work(overrides, said, trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command("evaluate", tmp_path, *SMALL, *BASE, *(text.format(trained=trained) for text in overrides))
    assert ended.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]
    assert not list(tmp_path.glob("cache/completions-*")) and not list(
        tmp_path.glob("logs/evaluate/runs/*/metrics.json")
    )


def test_training_runs_of_different_backbones_are_not_compared(trained, tmp_path, capsys):
    other = tmp_path / "other"
    settings = OmegaConf.load(trained / "config.yaml")
    settings.backbone.dtype = "bfloat16"
    (other / "prefix").mkdir(parents=True)
    OmegaConf.save(settings, other / "config.yaml")
    own = ["+system.mine._target_=cptlab.systems.System", "+system.mine.adapter=any", f"+system.mine.run={other}"]
    with pytest.raises(SystemExit):
        command("evaluate", tmp_path, *SMALL, f"run={trained}", *own)
    assert "have different backbones" in capsys.readouterr().err


def test_training_runs_that_asked_differently_are_compared_where_the_evaluation_says_how_to_ask(
    trained, tmp_path, capsys
):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    settings = OmegaConf.load(trained / "config.yaml")
    settings.backbone.prompting = "base"
    OmegaConf.save(settings, other / "config.yaml")
    own = ["+system.mine._target_=cptlab.systems.System", "+system.mine.adapter=any", f"+system.mine.run={other}"]
    with pytest.raises(SystemExit):
        command("evaluate", tmp_path, *QUIET, "limit=1", "n=1", f"run={trained}", *own)
    assert "have different backbones" in capsys.readouterr().err
    command("evaluate", tmp_path, *QUIET, "limit=1", "n=1", f"run={trained}", *own, "prompting=base")
    assert records(tmp_path, "tuned") == records(tmp_path, "mine")


def test_without_a_training_run_its_systems_are_left_out_and_plain_decoding_is_said(trained, tmp_path, capsys):
    command("evaluate", tmp_path / "a", *QUIET, "limit=1", "n=1", *BASE)
    assert "Left out, for want of a training run (run=null): tuned." in capsys.readouterr().err
    assert metrics_of(tmp_path / "a")["systems"] == ["base"] and metrics_of(tmp_path / "a")["differences"] == {}
    command("evaluate", tmp_path / "b", *QUIET, "limit=1", "n=1", f"run={trained}", "decoding=dial")
    assert "so these are decoded plainly: base." in capsys.readouterr().err
    assert records(tmp_path / "a", "base") == records(tmp_path / "b", "base")


def test_changes_are_paired_by_task(tmp_path):
    command(
        "evaluate", tmp_path, *SMALL, *BASE, "system=[base,best_of_n,ruff_fix]", "system.best_of_n.selection.draws=2"
    )
    metrics, run = metrics_of(tmp_path), tmp_path / "logs/evaluate/runs/now"
    ids = {completion.task_id for completion in read_jsonl(run / "base/completions.jsonl", Completion)}
    tasks = [task for task in kata().tasks if task.id in ids]
    outcomes = {}
    for name in metrics["systems"]:
        completions = list(read_jsonl(run / name / "completions.jsonl", Completion))
        qualities = list(read_jsonl(run / name / "quality.jsonl", Quality))
        verdicts = list(read_jsonl(run / name / "verdicts.jsonl", Verdict))
        outcomes[name] = {task: [] for task in ids}
        for records in zip(completions, qualities, verdicts, strict=True):
            outcomes[name][records[0].task_id].append(judged_program(*records))
    for name in ("best_of_n", "ruff_fix"):
        expected = compare(tasks, outcomes["base"], outcomes[name], ks=[1])
        assert json.loads(json.dumps(expected)) == metrics["differences"][name]


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(tmp_path):
    def start(where: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "evaluate.py", *SMALL, *BASE, "system=[base,best_of_n_ruff_fix]", "n=1",
             f"paths.logs={where}/logs", f"paths.cache={where}/cache"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip

    torn, whole = tmp_path / "torn", tmp_path / "whole"
    made: dict[Path, int] = {}
    for pattern in ("completions-*/0*.jsonl", "kept-*/0*.jsonl"):
        process = start(torn)
        deadline = time.monotonic() + 240
        while not list((torn / "cache").glob(pattern)):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        made |= {path: path.stat().st_mtime_ns for path in (torn / "cache").glob("*-*/0*.jsonl")}
    outputs = [start(where).communicate()[0] for where in (torn, whole)]
    assert "Going on with the unfinished run" in outputs[0], outputs[0]
    assert all(path.stat().st_mtime_ns == at for path, at in made.items()), "nothing is made twice"
    runs = [next(where.glob("logs/evaluate/runs/*")) for where in (torn, whole)]
    for name in ("base", "best_of_n_ruff_fix"):
        for file in ("completions.jsonl", "quality.jsonl", "verdicts.jsonl"):
            assert (runs[0] / name / file).read_bytes() == (runs[1] / name / file).read_bytes()
    facts = [json.loads((run / "metrics.json").read_text()) for run in runs]
    assert all(facts[0][key] == facts[1][key] for key in ("systems", "results", "differences", "cost"))

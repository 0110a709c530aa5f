"""A user's mistake ends at once with one sentence, exit code 2, no traceback, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from run_commands import ROOT, TINY, command
from tiny_models import tiny_backbone
from transformers import LlamaConfig, LlamaForCausalLM

from cptlab.adapters import Prefix, save_prefix
from cptlab.backbone import PrefixShape, load_backbone
from cptlab.storage.jsonl import to_json


def said(capsys, name, where, *overrides):
    with pytest.raises(SystemExit) as ended:
        command(name, where, "print_config=false", *([] if name == "pairs" else ["logger=none"]), *overrides)
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    where = tmp_path_factory.mktemp("trained")
    command("train", where, *TINY, "logger=none", "print_config=false")
    return where


BASE = ["run=null", "backbone=kata_lm", "benchmark=kata", "limit=2"]


@pytest.mark.parametrize(
    "name, overrides, expected",
    [
        ("train", ["ablation=no_such"], "Choose one of: full, no_bs, no_kl, no_lm, no_pt, no_rank"),
        ("train", ["sede=3"], "no setting 'sede'"),
        ("train", ["seed=minus"], "seed=minus cannot be: it must be a whole number"),
        ("train", ["decoding.sampling.top_p=1.5"], "must be a number above 0 and at most 1"),
        ("train", ["adapter=null"], "Name one of the group's files"),
        ("train", ["trainer.precision=banana"], "conf group trainer"),
        ("train", ["stages.checkpoint_every=0"], "from 1 up"),
        ("train", ["+stages.epochs=3"], "no setting stages.epochs"),
        ("train", ["optimized_metric=accuracy"], "comparative/val_accuracy"),
        ("evaluate", ["extra_disabled=W0621"], "it must be a list of texts"),
        ("train", ["objective.reduction=median"], "sum"),
        ("train", ["+adapter.lenght=3"], "Did you mean adapter.length?"),
        ("train", ["backbone.path=/no/such/model"], "/no/such/model"),
        ("train", ["backbone=phi_2", "backbone.device=cpu"], "microsoft/phi-2"),
        pytest.param("train", ["backbone.device=cuda"], "There is no device cuda", marks=no_gpu),
        pytest.param("train", ["trainer=gpu"], "Use trainer=cpu", marks=no_gpu),
        ("train", ["data.pairs_file=/no/such/pairs.jsonl"], "/no/such/pairs.jsonl"),
        ("evaluate", ["run=null", "backbone=kata_lm", "benchmark=kata", "n=5", "ks=[1,10]"], "pass@10"),
        ("evaluate", ["run=/no/such/run"], "/no/such/run"),
        ("evaluate", [*BASE, "decoding=dial"], "Give run=<directory>, or another decoding/negative"),
        ("evaluate", [*BASE, "decoding=spa", "decoding.omega=much"], "a number or tuned"),
        ("evaluate", [*BASE, "decoding=spa", "decoding.omega=tuned"], "cptlab omega"),
        ("evaluate", [*BASE, "decoding=spa", "decoding/gate=no_such"], "always, deviation, entropy, failed_tests"),
        ("evaluate", [*BASE, "decoding=spa", "decoding.negative.spans=[shots]"], "None of the 2 prompts has"),
        ("evaluate", [*BASE, "decoding=beams", "n=9"], "width"),
        ("evaluate", [*BASE, "decoding=beams", "n=2", "decoding.sampling.temperature=0.4"], "temperature"),
        ("evaluate", [*BASE, "decoding=adadec", "n=2"], "n"),
        ("evaluate", [*BASE, "decoding=paper", "decoding/gate=entropy"], "error: "),
        ("train", ["decoding=spa"], "this decoding is for evaluate.py"),
        ("train", ["decoding=second_try"], "this decoding is for evaluate.py"),
        ("evaluate", [], "Run cptlab train first"),
    ],
)
def test_one_sentence(name, overrides, expected, tmp_path, capsys):
    assert expected in said(capsys, name, tmp_path, *overrides)


def test_no_pairs_left_shows_what_each_filter_dropped(tmp_path, capsys):
    overrides = ["pairs.n=4", "pairs.train_tasks=3", "pairs.validation_tasks=1", "workers=1"]
    line = said(capsys, "pairs", tmp_path, *overrides, "pairs.selection.min_gap=0.99")
    assert "16 samples" in line and "gap" in line and "similarity" in line
    stores = sorted(path.name.split("-")[0] for path in (tmp_path / "cache").iterdir())
    assert {"completions", "quality", "verdicts"} <= set(stores)  # the programs are not lost


def test_a_malformed_row_of_a_pairs_file_is_named(trained, tmp_path, capsys):
    lines = next(trained.glob("cache/pairs/*/pairs.jsonl")).read_text().splitlines()
    row = json.loads(lines[1])
    del row["better_mask"]
    lines[1] = json.dumps(row)
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    line = said(capsys, "train", tmp_path, f"data.pairs_file={tmp_path / 'mine.jsonl'}")
    assert "mine.jsonl, line 2" in line and "better_mask" in line


def test_the_prefix_of_another_backbone_shows_both_shapes(trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(next(trained.glob("logs/train/runs/*")), run)
    save_prefix(Prefix(PrefixShape(3, 2, 16), length=5), run / "prefix", tiny_backbone("llama"))
    line = said(capsys, "evaluate", tmp_path, f"run={run}", "limit=3", "n=1")
    assert all(word in line for word in ("3", "2", "16", "4", "64"))


def test_a_prompt_longer_than_the_context(tmp_path, capsys):
    tokenizer = load_backbone("kata-lm").tokenizer
    tokenizer.save_pretrained(tmp_path / "short")
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=40,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(tmp_path / "short")
    line = said(capsys, "pairs", tmp_path, "pairs.n=2", f"backbone.path={tmp_path}/short")
    assert "tasks fits into the 40 tokens of" in line


@pytest.mark.parametrize("script, override", [("train.py", "ablation=no_such"), ("evaluate.py", "n=0")])
def test_the_real_commands(script, override, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / script, override, f"paths.logs={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_records_say_what_does_not_fit():
    from cptlab.records import Message
    from cptlab.storage.jsonl import from_json

    assert from_json(Message, to_json(Message("W0612", "unused-variable", 3))).line == 3
    for line in (
        "[]",
        "{}",
        '{"id": 1, "symbol": "x", "line": 1}',
        '{"id": "a"',
        '{"id":"a","symbol":"b","line":true}',
    ):
        with pytest.raises(ValueError):
            from_json(Message, line)

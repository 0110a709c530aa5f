"""Batches, the LightningModule, its checkpoints and diagnostics, and what bad input gives."""

import contextlib
import csv
import errno
import functools
import math
import os
import signal
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import lightning
import pytest
import torch
import yaml
from lightning import Callback
from omegaconf import OmegaConf
from tiny_models import tiny_backbone
from training_runs import CPU, TRAIN, make_adapter, make_pairs, train, with_stages, write_file

import cptlab.training.loop.callbacks
from cptlab.adapters import Prefix
from cptlab.errors import UserError
from cptlab.pairs import write_pairs
from cptlab.settings.config_source import compose_config
from cptlab.training import CPT, PairDataModule, StageProgress, train_stages
from cptlab.training.loop.callbacks import AtomicCheckpointIO
from cptlab.training.loop.datamodule import PairLoader, PairSplit
from cptlab.training.loop.module import AdapterTraining
from cptlab.training.steps.batches import collate
from cptlab.training.steps.step_method import StepMethod
from cptlab.training.steps.token_pairs import encode_pair

CONF = Path(__file__).resolve().parents[2] / "conf"
STEPS = ("fast", "plain")


def loop_log_softmax(row):
    top = max(row)
    total = math.fsum(math.exp(x - top) for x in row)
    return [x - top - math.log(total) for x in row]


def module_of(arch="llama_gqa", stage="comparative", double=True, **options):
    backbone = tiny_backbone(arch)
    prefix = Prefix(backbone.shape, length=3, rank=4, seed=1)
    if double:
        backbone.model.double()
        prefix.double()
    return AdapterTraining(backbone, prefix, stage, **options)


def loss_by_loops(module, example):
    """The comparative loss of one pair: unpadded forwards of one program each, then loops over code tokens."""
    scores, kl = [], 0.0
    for ids, mask in (example.better, example.worse):
        row = torch.tensor([example.instruction + ids])
        with torch.no_grad():
            policy = module.backbone.logits(row, torch.ones_like(row), module.adapter)[0].tolist()
            reference = module.backbone.logits(row, torch.ones_like(row))[0].tolist()
        score = 0.0
        for t, (token, differs) in enumerate(zip(ids, mask, strict=True)):
            p = loop_log_softmax(policy[len(example.instruction) + t - 1])
            q = loop_log_softmax(reference[len(example.instruction) + t - 1])
            if differs:
                score += p[token]
            else:
                kl += math.fsum(math.exp(x) * (x - y) for x, y in zip(p, q, strict=True))
        scores.append(score)
    return -scores[0] + 4.0 * math.log1p(math.exp(scores[1] - scores[0])) + 1.6 * kl


@pytest.mark.parametrize("method", STEPS)
@pytest.mark.parametrize("arch", ["llama_gqa", "gpt2", "starcoder2"])
def test_a_step_is_the_mean_of_its_pairs(arch, method):
    """Padding, batching and slicing change nothing: each pair alone, by loops, eos counted, gives the same loss."""
    module = module_of(arch, method=StepMethod(method))
    examples = [encode_pair(pair, module.backbone, append_eos=True) for pair in make_pairs()[:4]]
    step = [collate(examples[i], module.backbone.pad_id) for i in (slice(0, 3), slice(3, 4))]
    loss = module.training_step(step, 0)
    expected = math.fsum(loss_by_loops(module, example) for example in examples) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", STEPS)
def test_second_stage_reads_the_better_programs_only(method):
    module = module_of(stage="nll", method=StepMethod(method))
    examples = [encode_pair(pair, module.backbone, append_eos=True) for pair in make_pairs()[:3]]
    loss = module.training_step([collate(examples, module.backbone.pad_id)], 0)
    other = [replace(example, worse=([1] * 40, [0] * 40)) for example in examples]
    assert module.training_step([collate(other, module.backbone.pad_id)], 0).item() == loss.item()
    expected = []
    for example in examples:
        row = torch.tensor([example.instruction + example.better[0]])
        logits = module.backbone.logits(row, torch.ones_like(row), module.adapter)[0].tolist()
        start = len(example.instruction)
        expected.append(-sum(loop_log_softmax(logits[start + t - 1])[x] for t, x in enumerate(example.better[0])))
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-9)


def test_layout_of_a_batch():
    backbone = tiny_backbone("llama")
    examples = [encode_pair(pair, backbone, append_eos=True) for pair in make_pairs()[:3]]
    batch = collate(examples, backbone.pad_id)
    for row, (side, example) in enumerate((s, e) for s in ("better", "worse") for e in examples):
        ids, mask = getattr(example, side)
        padded = batch.padded
        assert padded.input_ids[row][padded.attention_mask[row].bool()].tolist() == example.instruction + ids
        assert batch.tokens[row][batch.code[row]].tolist() == ids
        assert batch.mask[row].int().tolist() == mask + [0] * (batch.mask.shape[1] - len(mask))
        assert ids[-1] == backbone.eos_id and mask[-1] == 0


def test_end_of_text_follows_programs_that_ended_by_themselves():
    backbone = tiny_backbone("llama")
    pair = replace(make_pairs()[1], worse_finished=False)
    ends = {eos: encode_pair(pair, backbone, append_eos=eos) for eos in (True, False)}
    assert ends[True].better[0] == ends[False].better[0] + [backbone.eos_id]
    assert ends[True].worse == ends[False].worse


def loader_of(pairs, batch_size, seed, rank=0, world=1, token_budget=150):
    examples = [encode_pair(pair, tiny_backbone("llama"), True) for pair in pairs]
    return PairLoader(PairSplit(examples, 257, token_budget), batch_size, seed, rank, world)


def better_programs(step):
    return [example.better[0] for batch in step for example in batch.pairs]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_loader_shares_out_distinct_pairs(world):
    pairs = make_pairs(train=17)[:17]
    ranks = [loader_of(pairs, 2, 7, rank, world) for rank in range(world)]
    one = loader_of(pairs, 2 * world, 7)
    orders = []
    for _ in range(3):
        steps = [sum((better_programs(part) for part in parts), []) for parts in zip(*ranks, strict=True)]
        assert [sorted(step) for step in steps] == [sorted(better_programs(step)) for step in one]
        seen = Counter(map(tuple, sum(steps, [])))
        assert set(seen.values()) == {1} and len(seen) == 17 // (2 * world) * 2 * world
        orders.append(steps)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("budget", [1, 150, 400, 10_000])
def test_a_step_keeps_to_the_token_budget(budget):
    """Rows of a batch, padded, stay within it, or the batch is one pair; every step still has all its pairs."""
    for step in loader_of(make_pairs(train=16)[:16], 8, 0, token_budget=budget):
        assert sum(len(batch) for batch in step) == 8
        assert all(batch.packed.input_ids.numel() <= budget or len(batch) == 1 for batch in step)
        assert len(step) == {1: 8, 10_000: 1}.get(budget, len(step))


@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_a_step_in_one_row_counts_real_tokens(budget):
    loader = loader_of(make_pairs(train=16)[:16], 8, 0, token_budget=budget)
    padded = [len(step) for step in loader]
    loader.split.one_row = True
    loader.set_epoch(1)
    loader.set_epoch(0)
    steps = list(loader)
    for step in steps:
        assert sum(len(batch) for batch in step) == 8
        sizes = [vars(batch)["one_row"].input_ids.shape[1] for batch in step]  # laid out already
        assert all(size <= budget or len(batch) == 1 for size, batch in zip(sizes, step, strict=True))
    assert all(len(step) <= before for step, before in zip(steps, padded, strict=True))


@pytest.mark.parametrize("budget", [1, 150, 400, 10_000])
def test_processes_get_as_many_batches(budget):
    """They run the same passes together where the layers are shared out over them."""
    pairs = make_pairs(train=20)[:20]
    ranks = [loader_of(pairs, 5, 0, rank, 2, token_budget=budget) for rank in range(2)]
    for parts in zip(*ranks, strict=True):
        assert len(parts[0]) == len(parts[1])
        for step in parts:
            assert sum(len(batch) for batch in step) == 5
            assert all(batch.packed.input_ids.numel() <= budget or len(batch) == 1 for batch in step)


def test_processes_get_about_as_much_to_do():
    pairs = make_pairs(train=32)[:32]
    ranks = [loader_of(pairs, 4, 0, rank, 2) for rank in range(2)]
    for parts in zip(*ranks, strict=True):
        longest = [max(batch.packed.input_ids.shape[1] for batch in step) for step in parts]
        total = [
            sum(len(example.better[0]) + len(example.instruction) for b in step for example in b.pairs)
            for step in parts
        ]
        assert abs(total[0] - total[1]) <= max(longest)


def test_loader_resumes_within_an_epoch():
    first, second = (loader_of(make_pairs(), 2, 0) for _ in range(2))
    iterator = iter(first)
    next(iterator), next(iterator)
    second.load_state_dict(first.state_dict())
    rest, resumed = list(iterator) + list(first), list(second) + list(second)
    assert len(rest) == len(resumed) == 3 + 5
    assert [better_programs(step) for step in rest] == [better_programs(step) for step in resumed]
    with pytest.raises(UserError, match="2 pairs per step, now there would be 4"):
        loader_of(make_pairs(), 4, 0).load_state_dict(first.state_dict())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run (4 epochs, then 1), with its backbone's state before and after."""
    directory = tmp_path_factory.mktemp("finished")
    backbone = tiny_backbone("llama_gqa")
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    prefix = Prefix(backbone.shape, length=3, rank=4, seed=1)
    data = PairDataModule(write_file(directory), backbone, token_budget=150, seed=5)
    options = {"first_epochs": 4, "second_epochs": 1, "learning_rate": 0.02}
    run = {"directory": directory / "run", "callbacks": [StageProgress()]}
    trained = train_stages(backbone, prefix, data, **run, **with_stages(**options))
    return {"directory": directory, "backbone": backbone, "before": before, "prefix": trained, "options": options}


def test_backbone_stays_frozen_and_in_eval_mode(finished):
    model = finished["backbone"].model
    assert not any(module.training for module in model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert all(torch.equal(value, finished["before"][name]) for name, value in model.state_dict().items())


def test_checkpoint_holds_the_prefix_and_plain_settings(finished):
    for stage in ("stage1", "stage2"):
        path = finished["directory"] / "run" / stage / "last.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        assert set(checkpoint["state_dict"]) == {"adapter.small", "adapter.transform"}
        factors, (table,) = checkpoint["state_dict"], checkpoint["collapsed"]
        assert torch.equal(table, factors["adapter.small"] @ factors["adapter.transform"])
        assert type(checkpoint["hyper_parameters"]) is dict
        assert len(checkpoint["optimizer_states"][0]["state"]) == 2
        assert path.stat().st_size < 200_000
    assert torch.equal(table, finished["prefix"].collapsed())
    steps = {state["step"].item() for state in checkpoint["optimizer_states"][0]["state"].values()}
    assert steps == {TRAIN}  # the second stage's optimiser began afresh


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_curves_and_diagnostics_are_written(finished):
    run = finished["directory"] / "run"
    steps, epochs = rows_of(run / "stage1/steps.csv"), rows_of(run / "stage1/epochs.csv")
    assert [row["step"] for row in steps] == list(range(1, 4 * TRAIN + 1)) and len(epochs) == 4
    for row in steps:
        assert row["loss"] == pytest.approx(row["l_lm"] + 4 * row["l_rank"] + 1.6 * row["l_kl"], rel=1e-5)
    for epoch, row in enumerate(epochs):
        part = steps[epoch * TRAIN : (epoch + 1) * TRAIN]
        for name in ("loss", "l_rank", "l_lm", "l_kl", "grad_norm"):
            assert row[name] == pytest.approx(sum(step[name] for step in part) / TRAIN)
        for name in ("delta_a", "delta_b_per_token", "fell_a", "accuracy", "margin", "kl_masked", "kl_unmasked",
                     "empty_mask", "grad_l_rank", "grad_l_lm", "grad_l_kl"):  # fmt: skip
            assert math.isfinite(row[f"val_{name}"])
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    second = rows_of(run / "stage2/epochs.csv")
    assert second[0]["val_grad_l_nll"] > 0 and second[0]["loss"] == second[0]["l_nll"]


def test_validation_measures_the_whole_split(finished):
    """The last epoch's diagnostics are those of the trained prefix on all validation pairs, by loops."""
    backbone, prefix = finished["backbone"], finished["prefix"]
    row = rows_of(finished["directory"] / "run/stage2/epochs.csv")[-1]
    deltas, margins = [], []
    for pair in make_pairs()[TRAIN:]:
        example = encode_pair(pair, backbone, append_eos=True)
        scores = {}
        for side in ("better", "worse"):
            ids, mask = getattr(example, side)
            tokens, start = torch.tensor([example.instruction + ids]), len(example.instruction)
            for name, with_prefix in (("policy", prefix), ("reference", None)):
                logits = backbone.logits(tokens, torch.ones_like(tokens), with_prefix)[0].tolist()
                places = [t for t, differs in enumerate(mask) if differs]
                scores[side, name] = sum(loop_log_softmax(logits[start + t - 1])[ids[t]] for t in places)
        deltas.append(scores["better", "policy"] - scores["better", "reference"])
        margins.append(scores["better", "policy"] - scores["worse", "policy"])
    assert row["val_delta_a"] == pytest.approx(sum(deltas) / 3, rel=1e-4)
    assert row["val_margin"] == pytest.approx(sum(margins) / 3, rel=1e-4)
    assert row["val_accuracy"] == pytest.approx(sum(m > 0 for m in margins) / 3)
    assert row["val_fell_a"] == pytest.approx(sum(d < 0 for d in deltas) / 3)


def test_a_finished_run_gives_its_prefix_again(finished):
    backbone, options = finished["backbone"], finished["options"]
    fresh = Prefix(backbone.shape, length=3, rank=4, seed=1)
    data = PairDataModule(write_file(finished["directory"]), backbone, token_budget=150, seed=5)
    again = train_stages(backbone, fresh, data, directory=finished["directory"] / "run", **with_stages(**options))
    assert torch.equal(again.collapsed(), finished["prefix"].collapsed())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 4}, r"prefix \(length 3, rank 4, num_layers 2, .*\); this one is prefix \(length 4"),
        ({"rank": None}, "rank 4, .*; this one is .* rank None"),
        ({"learning_rate": 0.5}, "learning_rate was 0.02, now 0.5"),
        ({"objective": CPT(w_kl=0.0)}, "objective was "),
        ({"seed": 6}, "data was "),
        ({"first_epochs": 5}, "epochs was 4, now 5"),
    ],
)
def test_another_run_in_the_same_directory_is_refused(change, message, finished):
    backbone, options = finished["backbone"], dict(finished["options"])
    form = {"length": 3, "rank": 4} | {k: v for k, v in change.items() if k in ("length", "rank")}
    options |= {k: v for k, v in change.items() if k not in ("length", "rank", "seed")}
    data = PairDataModule(write_file(finished["directory"]), backbone, token_budget=150, seed=change.get("seed", 5))
    run = {"directory": finished["directory"] / "run"}
    with pytest.raises(UserError, match=message):
        train_stages(backbone, Prefix(backbone.shape, **form), data, **run, **with_stages(**options))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_another_adapters_checkpoint_is_refused(kind, finished):
    backbone, options = finished["backbone"], finished["options"]
    data = PairDataModule(write_file(finished["directory"]), backbone, token_budget=150, seed=5)
    run = {"directory": finished["directory"] / "run"}
    with pytest.raises(UserError, match=f"checkpoint's adapter is prefix .*; this one is {kind} "):
        train_stages(backbone, make_adapter(kind, backbone), data, **run, **with_stages(**options))


def test_a_renamed_parameter_does_not_load_silently(finished, tmp_path):
    path = finished["directory"] / "run/stage1/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["adapter.matrix"] = checkpoint["state_dict"].pop("adapter.transform")
    module = AdapterTraining(finished["backbone"], Prefix(finished["backbone"].shape, length=3, rank=4))
    with pytest.raises(UserError, match="adapter.matrix.* are wanted"):
        module.on_load_checkpoint(checkpoint)


def test_a_failed_save_keeps_the_checkpoint_before(monkeypatch, tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)

    def fail(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(cptlab.training.loop.callbacks.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        io.save_checkpoint({"step": 2}, path)
    assert io.load_checkpoint(path) == {"step": 1}


@pytest.mark.parametrize(("reduction", "direction"), [("mean", "reference_policy"), ("mean", "policy_reference")])
def test_svens_switches_train_too(reduction, direction, tmp_path):
    objective = CPT(reduction=reduction, kl_direction=direction)
    assert torch.isfinite(train(tmp_path, objective=objective, first_epochs=1, second_epochs=1).collapsed()).all()


def test_ablated_stages_leave_no_trace(tmp_path):
    train(tmp_path, first_epochs=0, second_epochs=1)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"stage2"}


def test_progress_shows_stage_and_steps(tmp_path, capsys, monkeypatch):
    bars, latest = [], []

    @contextlib.contextmanager
    def bar(title, total, unit, *, done):
        bars.append((title, total, unit, done))
        yield lambda count, words: latest.append((count, words))

    monkeypatch.setattr(cptlab.training.loop.callbacks, "progress_bar", bar)
    train(tmp_path, first_epochs=1, second_epochs=1, callbacks=[StageProgress()])
    titles = ["stage 1 of 2 (comparative)", "stage 2 of 2 (nll)"]
    assert bars == [(title, len(latest) // 2, "steps", 0) for title in titles]
    assert all(count == 1 and words.startswith("epoch 1, loss ") for count, words in latest)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == ""


class FailingLogger(lightning.pytorch.loggers.Logger):
    """Raises in every method that Lightning calls."""

    name = version = "failing"

    def log_metrics(self, metrics, step=None):
        raise RuntimeError("no network")

    def log_hyperparams(self, params):
        raise OSError(28, "No space left on device")

    def finalize(self, status):
        raise ValueError("closed already")


def test_a_logger_that_fails_fails_no_training(tmp_path, capsys):
    plain = train(tmp_path / "plain", first_epochs=1, second_epochs=1)
    adapter = train(tmp_path / "failing", first_epochs=1, second_epochs=1, loggers=[FailingLogger()])
    assert torch.equal(adapter.collapsed(), plain.collapsed())
    assert capsys.readouterr().err.count("warning: logger FailingLogger failed") == 1


def test_sigterm_reaches_the_handler_of_the_caller(tmp_path):
    class Sent(Callback):
        def on_train_batch_end(self, *_):
            os.kill(os.getpid(), signal.SIGTERM)

    def handler(*_):
        raise BrokenPipeError  # something that training itself never raises

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(BrokenPipeError):
            train(tmp_path, callbacks=[Sent()])
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpu_asked_for_where_there_is_none(tmp_path):
    with pytest.raises(UserError, match="trainer=cpu"):
        train(tmp_path, trainer=functools.partial(lightning.Trainer, accelerator="gpu", devices=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 2}, "Set data.loader.batch_size to the pairs of a step"),
        ({"precision": "bf16-true"}, "trainer.precision=bf16-true .* Set it to one of 32-true, bf16-mixed"),
        ({"precision": "64-true"}, "trainer.precision=64-true"),
    ],
)
def test_a_trainer_that_would_train_something_else(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(tmp_path, trainer=functools.partial(CPU, **options))


@pytest.mark.parametrize("method", STEPS)
def test_mixed_precision_trains_about_the_same(method, tmp_path):
    """Autocast in the backbone alone: the prefix and its gradient stay in float32."""
    tables = []
    for precision in ("32-true", "bf16-mixed"):
        (tmp_path / precision).mkdir()
        trainer = functools.partial(CPU, precision=precision)
        options = {"method": StepMethod(method), "first_epochs": 1, "second_epochs": 1}
        prefix = train(tmp_path / precision, trainer=trainer, **options)
        assert prefix.small.dtype == torch.float32
        tables.append(prefix.collapsed().detach())
    start = Prefix(prefix.shape, length=3, rank=4, seed=1).collapsed().detach()
    moved = tables[0] - start
    assert 0 < (tables[1] - tables[0]).norm() < 0.2 * moved.norm()


def test_both_stages_by_sequences_train_the_same(tmp_path):
    """Batches of several pairs in one row, and validation, in either stage; float32 rounds."""
    tables = []
    for name, method in (("mask", StepMethod("fast")), ("sequences", StepMethod("fast", by_sequences=True))):
        (tmp_path / name).mkdir()
        prefix = train(tmp_path / name, method=method, batch_size=3, first_epochs=1, second_epochs=1)
        tables.append(prefix.collapsed().detach())
    moved = tables[0] - Prefix(prefix.shape, length=3, rank=4, seed=1).collapsed().detach()
    assert 0 < (tables[1] - tables[0]).norm() < 1e-3 * moved.norm()


def test_no_training_pairs(tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", make_pairs(train=0))
    with pytest.raises(UserError, match="no pair in split train, only 3 in others"):
        train(tmp_path)


def test_no_validation_pairs(tmp_path):
    write_file(tmp_path, train=4, validation=0)
    train(tmp_path, first_epochs=1, second_epochs=0)
    (row,) = rows_of(tmp_path / "run/stage1/epochs.csv")
    assert row["step"] == 4 and "val_margin" not in row


def test_too_few_pairs_for_a_step(tmp_path):
    with pytest.raises(UserError, match="A step takes 8 pairs, but the training split has 7"):
        train(tmp_path, batch_size=8)


def test_nothing_to_train(tmp_path):
    with pytest.raises(UserError, match="nothing to train"):
        train(tmp_path, first_epochs=0, second_epochs=0)


def test_pairs_longer_than_the_context(tmp_path):
    long = [replace(pair, instruction="x" * 300) for pair in make_pairs()]
    write_pairs(tmp_path / "pairs.jsonl", long)
    with pytest.raises(
        UserError, match="takes more tokens than the 256 that the context of tiny-llama_gqa has room for"
    ):
        train(tmp_path)


def test_an_adapter_longer_than_the_context(tmp_path):
    write_file(tmp_path)
    with pytest.raises(UserError, match="The adapter takes 256 positions, and the context of tiny-llama_gqa has 256"):
        PairDataModule(tmp_path / "pairs.jsonl", tiny_backbone("llama_gqa"), adapter_positions=256)


def test_config_files_fit_the_code():
    objective = OmegaConf.to_container(compose_config("train").objective)
    assert objective.pop("_target_") == "cptlab.training.objectives.CPT" and objective == asdict(CPT())
    stages = {"first_epochs", "second_epochs"}
    ablations = {path.stem: yaml.safe_load(path.read_text()) or {} for path in (CONF / "ablation").glob("*.yaml")}
    assert set(ablations) >= {"full", "no_lm", "no_rank", "no_kl", "no_pt", "no_bs"}
    for name in ("full", "no_lm", "no_rank", "no_kl", "no_pt", "no_bs"):
        content = ablations[name]
        assert set(content.get("objective", {})) <= set(objective) and set(content.get("stages", {})) <= stages
    for group in ("objective", "ablation", "trainer", "data", "callbacks"):
        for path in (CONF / group).glob("*.yaml"):
            lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
            assert lines[0].startswith("# python ") and f"{group}" in lines[0], path
    for path in (CONF / "trainer").glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["_target_"] == "lightning.Trainer"

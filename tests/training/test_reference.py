"""What is kept of the backbone alone equals what the backbone says, survives every mishap, and is computed once."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import pytest
import reference_runs
import torch
from reference_runs import build, examples_of, kata_examples, no_bar
from tiny_models import ARCHITECTURES, double, tiny_backbone

from cptlab.adapters import Prefix
from cptlab.backbone import load_backbone
from cptlab.errors import UserError
from cptlab.storage import piece_file as pieces
from cptlab.training import reference
from cptlab.training.objectives import CPT
from cptlab.training.reference import open_reference, reference_bytes
from cptlab.training.steps.batches import collate
from cptlab.training.steps.fast import FastOutputs
from cptlab.training.steps.packing import predicting_places
from cptlab.training.steps.plain import PlainOutputs


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(reference, "TOKEN_BUDGET", reference_runs.BUDGET)


def only(directory: Path) -> Path:
    """The directory of the one reference below `directory`."""
    (found,) = (directory / "reference").iterdir()
    return found


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in only(directory).iterdir()}


def rows(opened, backbone, examples, indices):
    """A batch of these examples with what is kept of them."""
    batch = collate([examples[i] for i in indices], backbone.pad_id)
    return replace(batch, reference=opened.rows(indices, batch.tokens.shape[1]))


def states_of(backbone, ids: list[int]) -> torch.Tensor:
    """The final hidden states [T, E] of one program behind its instruction, as a row of its own."""
    return backbone.model.base_model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_what_the_backbone_says(arch, tmp_path):
    backbone = double(arch)
    examples = examples_of(backbone)
    opened = build(tmp_path, backbone=backbone)
    for index, example in enumerate(examples):
        batch = collate([example], backbone.pad_id)
        packed, kept = batch.packed, opened.rows(index, batch.tokens.shape[1])
        wanted = PlainOutputs(backbone, batch, []).reference_scores(batch.code)
        assert kept.scores.dtype == kept.states.dtype == torch.float64
        torch.testing.assert_close(kept.scores, wanted, rtol=1e-9, atol=1e-9)
        assert len(kept.states) == predicting_places(example)
        for row, (ids, _) in enumerate((example.better, example.worse)):
            wanted = states_of(backbone, example.instruction + ids)[len(example.instruction) - 1 : -1]
            torch.testing.assert_close(kept.states[packed.state[row, : len(ids)]], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("indices", [[0], [1, 0], [5, 2, 1], list(range(10))], ids=str)
def test_a_batch_with_it_equals_one_without(indices, tmp_path):
    backbone = double("llama_gqa")
    examples = examples_of(backbone)
    kept = rows(build(tmp_path, backbone=backbone), backbone, examples, indices)
    prefix = Prefix(backbone.shape, length=3, seed=1).double()
    found, wanted = (
        FastOutputs(backbone, batch, [prefix.policy(backbone)]) for batch in (kept, replace(kept, reference=None))
    )
    for where in (kept.mask, kept.code & ~kept.mask, kept.code):
        torch.testing.assert_close(found.reference_scores(where), wanted.reference_scores(where), rtol=0, atol=1e-12)
        for direction in ("policy_reference", "reference_policy"):
            torch.testing.assert_close(found.kl(where, direction), wanted.kl(where, direction), rtol=0, atol=1e-12)


def test_the_validation_split_behind_the_training_split(tmp_path):
    opened = build(tmp_path)
    assert torch.equal(opened.after(7).rows([0, 2], 40).states, opened.rows([7, 9], 40).states)


@pytest.mark.parametrize("precision", ["full", "half"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_size_is_known_before(dtype, precision, tmp_path):
    backbone = tiny_backbone("llama_gqa")
    backbone.model.to(dtype)
    opened = build(tmp_path, backbone=backbone, precision=precision)
    taken = sum(path.stat().st_size for path in opened.directory.glob("*.bin"))
    examples = examples_of(backbone)
    assert taken == reference_bytes(examples, backbone.hidden_size, precision, dtype)
    width = {torch.float64: 8, torch.float32: 4, torch.bfloat16: 2}[dtype]
    score = max(4, width)
    assert taken == sum(
        predicting_places(e) * 32 * (2 if precision == "half" else width) + (len(e.better[0]) + len(e.worse[0])) * score
        for e in examples
    )


def test_the_key(tmp_path):
    backbone = tiny_backbone("llama_gqa")
    examples = examples_of(backbone)

    def key(examples, backbone=backbone, precision="full"):
        options = {"precision": precision, "say": said.append, "progress": no_bar}
        return open_reference(tmp_path, backbone, examples, **options).directory.name

    said = []
    first = key(examples)
    masks = [replace(e, better=(e.better[0], [0] * len(e.better[0]))) for e in examples]
    assert key(masks) == first and said[-1].startswith("Reference: found in")
    other_token = replace(examples[3], worse=([*examples[3].worse[0][:-1], 7], examples[3].worse[1]))
    moved = replace(examples[3], instruction=examples[3].instruction + examples[3].better[0][:1])
    others = [
        key([*examples[:3], other_token, *examples[4:]]),
        key([*examples[:3], moved, *examples[4:]]),
        key(examples[::-1]),
        key(examples[:-1]),
        key(examples, tiny_backbone("llama_gqa", seed=1)),
        key(examples, tiny_backbone("qwen2")),
        key(examples, precision="half"),
    ]
    assert len({first, *others}) == 8
    assert not any(line.startswith("Reference: found") for line in said[2:])


def test_scores_alone(tmp_path, monkeypatch):
    """An objective that needs no states keeps none; one that does adds them, and both are found again."""
    said, backbone = [], double("llama_gqa")
    alone = build(tmp_path, said, backbone, states=False)
    assert not list(alone.directory.glob("states*"))
    size = reference_bytes(examples_of(backbone), backbone.hidden_size, "full", torch.float64, states=False)
    assert sum(path.stat().st_size for path in alone.directory.glob("*.bin")) == size
    written, put = [], pieces.PieceFile.put
    monkeypatch.setattr(pieces.PieceFile, "put", lambda file, *a: written.append(file.path.name) or put(file, *a))
    both = build(tmp_path, said, backbone)
    assert both.directory == alone.directory
    assert set(written) == {"states.bin"}
    assert torch.equal(alone.rows([3, 1], 40).scores, both.rows([3, 1], 40).scores)
    assert alone.rows([3, 1], 40).states.shape == (0, 32) and len(both.rows([3, 1], 40).states)
    for states in (False, True):
        build(tmp_path, said, backbone, states=states)
        assert said[-1].startswith("Reference: found in")


def test_what_is_said(tmp_path):
    said = []
    build(tmp_path, said)
    build(tmp_path, said)
    directory, size = only(tmp_path), sum(path.stat().st_size for path in only(tmp_path).glob("*.bin"))
    amount = f"{size / 1024:.1f} KiB"
    assert said == [
        f"Reference: {amount} for 10 pairs, being computed once into {directory}; "
        "compute.reference=recompute does without",
        f"Reference: found in {directory} ({amount})",
    ]


@pytest.fixture(scope="module")
def spawn():
    """Start `reference_runs.build_in_child`, forked from a process that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reference_runs"])
    with pytest.MonkeyPatch.context() as patch:  # Python 3.11 gives that process no sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()

    def start(*arguments):
        process = context.Process(target=reference_runs.build_in_child, args=arguments)
        process.start()
        return process

    return start


def finished(process) -> int:
    process.join(120)
    if process.is_alive():
        process.kill()
    return process.exitcode


def notes(directory: Path, process) -> tuple[int, list[str]]:
    """How many pieces this child computed, and what it said."""
    path = directory / f"said.{process.pid}"
    lines = path.read_text().splitlines() if path.exists() else []
    return lines.count("computed"), [line for line in lines if line != "computed"]


def until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(spawn, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    assert finished(spawn(directory, None)) == 0
    return directory


def pieces_of(directory: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in directory.glob("reference/*/states.bin.journal"))


# A piece is put into two files, and each is flushed twice for it: data, then the line in the journal, which outlives
# the process (though not a power cut) even if it was not flushed.
MOMENTS = [
    (("begin", 1), 0), (("begin", 2), 0), (("half a piece", 1), 0), (("half a piece", 4), 1),
    (("half a line", 3), 1), (("half a line", 6), 2), (("fsync", 1), 0), (("fsync", 3), 0), (("fsync", 4), 1), (("fsync", 5), 1),
    (("fsync", 7), 1), (("fsync", 13), 3),
]  # fmt: skip


@pytest.mark.parametrize("moment, kept", MOMENTS, ids=str)
def test_killed_while_it_is_computed(moment, kept, spawn, undisturbed, tmp_path):
    assert finished(spawn(tmp_path, moment)) == -signal.SIGKILL
    second = spawn(tmp_path, None)
    assert finished(second) == 0
    assert contents(tmp_path) == contents(undisturbed)
    (computed, said), total = notes(tmp_path, second), pieces_of(tmp_path)
    assert total > 5 and total - computed == kept
    assert len(said) == 1 and ("were computed before" in said[0]) == (kept > 0)


def test_killed_from_outside_again_and_again(spawn, undisturbed, tmp_path):
    (tmp_path / "hold").touch()
    for more, then in ((1, 1), (3, 4), (2, 6)):
        process = spawn(tmp_path, None, more + 1)
        until(lambda wanted=then: pieces_of(tmp_path) == wanted)
        os.kill(process.pid, signal.SIGKILL)
        assert finished(process) == -signal.SIGKILL
        assert notes(tmp_path, process)[0] == more
    last = spawn(tmp_path, None)
    assert finished(last) == 0
    assert contents(tmp_path) == contents(undisturbed)
    assert notes(tmp_path, last)[0] == pieces_of(tmp_path) - 6


def test_several_processes_at_once_compute_it_once(spawn, undisturbed, tmp_path):
    (tmp_path / "hold").touch()
    processes = [spawn(tmp_path, None, 2) for _ in range(3)]
    until(lambda: sum("waiting" in line for p in processes for line in notes(tmp_path, p)[1]) == 2)
    (tmp_path / "hold").unlink()
    assert [finished(process) for process in processes] == [0, 0, 0]
    reports = [notes(tmp_path, process) for process in processes]
    assert sorted(computed for computed, _ in reports) == [0, 0, pieces_of(tmp_path)]
    for computed, said in reports:
        if not computed:
            assert len(said) == 2 and "waiting for another process" in said[0] and "found in" in said[1]
    assert contents(tmp_path) == contents(undisturbed)


def test_those_who_wait_go_on_for_one_that_was_killed(spawn, undisturbed, tmp_path):
    (tmp_path / "hold").touch()
    first = spawn(tmp_path, None, 4)
    until(lambda: pieces_of(tmp_path) == 3)
    second = spawn(tmp_path, None)
    until(lambda: notes(tmp_path, second)[1])
    os.kill(first.pid, signal.SIGKILL)
    assert finished(first) == -signal.SIGKILL and finished(second) == 0
    assert contents(tmp_path) == contents(undisturbed)
    computed, said = notes(tmp_path, second)
    assert computed == pieces_of(tmp_path) - 3
    assert len(said) == 2 and "waiting" in said[0] and "were computed before" in said[1]


@pytest.mark.parametrize("name", ["states.bin", "scores.bin"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "journal"])
def test_a_damaged_piece_is_computed_again(name, damage, tmp_path, monkeypatch):
    computed, compute = [], reference._compute
    monkeypatch.setattr(reference, "_compute", lambda *a: computed.append(0) or compute(*a))
    build(tmp_path)
    total, before, path = len(computed), contents(tmp_path), only(tmp_path) / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        os.truncate(path, len(content) - 1)
    elif damage == "gone":
        path.unlink()
    else:
        journal = path.with_name(f"{name}.journal")
        lines = journal.read_text().splitlines()
        entry = json.loads(lines[1]) | {"sha256": "0" * 64}
        journal.write_text("\n".join([lines[0], json.dumps(entry), *lines[2:]]) + "\n")
    said = []
    computed.clear()
    build(tmp_path, said)
    again = total if damage == "gone" else 1
    assert len(computed) == again
    assert said == [f"Reference: {again} of {total} pieces in {only(tmp_path)} are damaged and are computed again"]
    after = contents(tmp_path)
    assert {n: after[n] for n in ("states.bin", "scores.bin")} == {n: before[n] for n in ("states.bin", "scores.bin")}
    build(tmp_path, said)
    assert said[-1].startswith("Reference: found in") and len(computed) == again


def test_no_space_on_the_disk(tmp_path, monkeypatch):
    backbone = tiny_backbone("llama_gqa")
    size = reference_bytes(examples_of(backbone), backbone.hidden_size, "full", torch.float32)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size - 1))
    with pytest.raises(UserError, match=r"has \d+\.\d KiB left\. Set compute\.reference_precision=half .*"
                       r"compute\.reference=recompute .*paths\.cache="):  # fmt: skip
        build(tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    small = tiny_backbone("llama_gqa", hidden_size=64)
    small.model.bfloat16()
    with pytest.raises(UserError, match=r"left\. Set compute\.reference=recompute"):  # half would be no less
        build(tmp_path, backbone=small)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size))
    build(tmp_path)


def test_a_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="cannot be kept in .*: No space left on device. Set compute.reference_prec"):
        build(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(reference, "TOKEN_BUDGET", reference_runs.BUDGET)
    build(tmp_path)


def test_interrupted_and_resumed(tmp_path, monkeypatch):
    compute, calls = reference._compute, []

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(reference, "_compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    said = []
    build(tmp_path, said)
    assert "3 were computed before" in said[0] and len(calls) == 4 + pieces_of(tmp_path) - 3


def test_a_bfloat16_backbone(tmp_path):
    """Its states are kept as they are, bit for bit, so half precision is the same files."""
    backbone = tiny_backbone("llama_gqa")
    backbone.model.bfloat16()
    full = build(tmp_path, backbone=backbone)
    assert build(tmp_path, backbone=backbone, precision="half").directory == full.directory
    example = examples_of(backbone)[4]
    batch = collate([example], backbone.pad_id)
    kept = full.rows(4, batch.tokens.shape[1])
    assert kept.states.dtype == torch.bfloat16 and kept.scores.dtype == torch.float32
    wanted = FastOutputs(backbone, batch, [])
    # another width of the batch rounds differently in bfloat16; alone in its piece, the example has the same
    torch.testing.assert_close(kept.states, wanted._reference, rtol=0.05, atol=0.05)
    torch.testing.assert_close(kept.scores, wanted.reference_scores(batch.code), rtol=0.05, atol=0.1)
    alone = open_reference(tmp_path, backbone, [example], say=str, progress=no_bar).rows(0, batch.tokens.shape[1])
    assert torch.equal(alone.states, wanted._reference)
    assert torch.equal(alone.scores, wanted.reference_scores(batch.code))


def test_half_precision_rounds_states_and_not_scores(tmp_path):
    backbone = double("llama_gqa")
    full, half = (build(tmp_path, backbone=backbone, precision=precision) for precision in ("full", "half"))
    for index in range(10):
        kept, exact = half.rows(index, 40), full.rows(index, 40)
        assert kept.states.dtype == torch.float16 and torch.equal(kept.states, exact.states.half())
        assert torch.equal(kept.scores, exact.scores)


def test_a_state_that_overflows_half_precision(tmp_path):
    backbone = tiny_backbone("llama_gqa")
    with torch.no_grad():
        backbone.model.model.norm.weight.mul_(1e5)
    with pytest.raises(UserError, match="larger than float16 can hold. Set compute.reference_precision=full"):
        build(tmp_path, backbone=backbone, precision="half")
    build(tmp_path, backbone=backbone)
    with pytest.raises(UserError, match="compute.reference_precision=quarter is unknown"):
        build(tmp_path, backbone=backbone, precision="quarter")


def test_autocast_around_it_changes_nothing(tmp_path):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = build(tmp_path / "within").rows([1, 2], 40)
    without = build(tmp_path / "without").rows([1, 2], 40)
    assert torch.equal(within.states, without.states) and torch.equal(within.scores, without.scores)


def resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def test_only_what_is_asked_for_is_read(tmp_path):
    backbone = tiny_backbone("llama_gqa", hidden_size=1024, num_attention_heads=8)
    opened = build(tmp_path, backbone=backbone)
    path = opened.directory / "states.bin"
    assert resident(path) == 0  # it was checked, and not through the mapping
    assert path.stat().st_size > 1 << 20
    view = opened.states(0)
    assert resident(path) == 0
    assert torch.equal(view, opened.rows(0, 40).states)
    assert 0 < resident(path) < path.stat().st_size / 2


@pytest.mark.slow
def test_half_precision_on_kata_lm(tmp_path):
    """On a real model: what rounding the reference does to CPT's loss and its gradient (docs/reference.md)."""
    backbone = load_backbone("kata-lm")
    examples = kata_examples(backbone, 8)
    said, results = [], {}
    for scale in (1, 30, 100):  # a prefix as it is drawn, and a strong one
        prefix = Prefix(backbone.shape, length=8, seed=1)
        with torch.no_grad():
            prefix.table.mul_(scale)
        for precision in ("none", "full", "half"):
            batch = collate(examples, backbone.pad_id)
            if precision != "none":
                opened = open_reference(tmp_path, backbone, examples, precision=precision, say=said.append)
                batch = rows(opened, backbone, examples, list(range(8)))
            terms = CPT().terms(FastOutputs(backbone, batch, [prefix.policy(backbone)]))
            gradient = torch.autograd.grad(sum(CPT().weighted(terms).values()).sum(), [prefix.table])[0]
            results[precision] = [terms["l_kl"].sum(), sum(CPT().weighted(terms).values()).sum(), gradient]
        wanted = [float(value.detach()) for value in results["none"][:2]]
        print(f"prefix x {scale}: l_kl {wanted[0]:.3g}, loss {wanted[1]:.3g}")
        for precision, bound in (("full", 1e-4), ("half", 1e-2)):
            for what, wanted, found in zip(("l_kl", "loss", "gradient"), results["none"], results[precision]):
                difference = float(((found - wanted).norm() / wanted.norm()).detach())
                print(f"prefix x {scale}: {precision} differs in {what} by {difference:.1e}")
                assert difference < bound
        assert difference > 2e-6  # of the gradient in half precision: it was rounded

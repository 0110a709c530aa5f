"""Small training runs for the tests: in this process, in a process that kills itself, or in several processes together.

python tests/helpers/training_runs.py <directory> <options as JSON>
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import lightning
import torch
from torch.distributed.tensor import DTensor

sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import tiny_backbone  # noqa: E402

from cptlab.adapters import Adapter, Prefix  # noqa: E402
from cptlab.adapters.full import FullFineTuning  # noqa: E402
from cptlab.adapters.lora import LoRA  # noqa: E402
from cptlab.backbone import Backbone, load_backbone  # noqa: E402
from cptlab.pairs import token_masks, write_pairs  # noqa: E402
from cptlab.records import Pair  # noqa: E402
from cptlab.training import CPT, PairDataModule, Stages, StepMethod, train_stages  # noqa: E402

TRAIN, VALIDATION = 7, 3
CPU = functools.partial(lightning.Trainer, accelerator="cpu", devices=1)


def make_pairs(train: int = TRAIN, validation: int = VALIDATION, seed: int = 0) -> list[Pair]:
    """Pairs of random programs in bytes: some lines of x_b replaced, in pair 0 only inserted (x_a's mask is empty)."""
    draw = random.Random(seed)
    pairs = []
    for i in range(train + validation):
        lines = ["".join(draw.choice("abcdxyz =+") for _ in range(draw.randint(4, 9))) for _ in range(3)]
        better = "\n".join(lines)
        worse = better + "\nq" if i == 0 else "\n".join([lines[0], "q" + lines[1][2:] + "!", lines[2]])
        masks = token_masks(list(better.encode()), list(worse.encode()))
        split = "train" if i < train else "validation"
        instruction = "# " + "task " * draw.randint(1, 4) + f"{i}\n"
        texts = (split, instruction, better, worse)
        pairs.append(Pair(f"t/{i}", "introductory", *texts, *masks, 9.0, 5.0, 0.8, 0.6, True))
    return pairs


def write_file(directory: Path, **counts) -> Path:
    path = Path(directory) / "pairs.jsonl"
    if not path.exists():
        write_pairs(path, make_pairs(**counts))
    return path


def make_adapter(kind: str, backbone: Backbone, seed: int = 1, rank: int | None = 4) -> Adapter:
    """A small adapter, in the backbone's dtype."""
    if kind == "lora":
        return LoRA(backbone, r=4, dropout=0.1, target_modules="all-linear", seed=seed)
    if kind == "full":
        return FullFineTuning(backbone, seed=seed)
    return Prefix(backbone.shape, length=3, rank=rank, seed=seed).to(backbone.dtype)


def train(
    directory,
    *,
    kind="prefix",
    double=False,
    rank=4,
    batch_size=1,
    seed=1,
    backbone=None,
    token_budget=150,
    keep=False,
    checkpointing=False,
    **options,
) -> Adapter:
    """A run of both stages in `directory`/run, on a tiny backbone by default; `options` go to `Stages` and `train_stages`.

    `keep`: with the reference on disk; what is said of it is appended to `directory`/said.txt.
    """
    torch.set_num_threads(1)
    directory = Path(directory)
    backbone = backbone or tiny_backbone("llama_gqa")
    if double:
        backbone.model.double()
    adapter = make_adapter(kind, backbone, seed, rank)
    data = PairDataModule(write_file(directory), backbone, batch_size=batch_size, token_budget=token_budget, seed=5)
    if keep:

        def say(text):
            with open(directory / "said.txt", "a", encoding="utf-8") as file:
                file.write(text + "\n")

        data.keep_reference(directory / "cache", backbone, CPT(), say=say)
    if checkpointing:
        options["method"] = StepMethod(checkpointing=True)
    return train_stages(backbone, adapter, data, directory=directory / "run", **with_stages(**options))


def with_stages(first_epochs=2, second_epochs=2, checkpoint_every=3, **options) -> dict:
    """Options of `train_stages` where those of `Stages` stand among the others."""
    names = {field.name for field in dataclasses.fields(Stages)}
    chosen = {name: options.pop(name) for name in names & set(options)}
    stages = Stages(first_epochs, second_epochs, checkpoint_every=checkpoint_every, **chosen)
    return {"trainer": CPU, "stages": stages} | options


class Killer(lightning.Callback):
    """SIGKILL to its own process at a hook, once `step` steps of `stage` are done."""

    def __init__(self, stage: str, hook: str, step: int) -> None:
        self.stage, self.step = stage, step
        setattr(self, hook, self.strike)

    def strike(self, trainer, pl_module, *_):
        if pl_module.stage == self.stage and trainer.global_step >= self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Starts(lightning.Callback):
    """Notes in a file at which step of which stage a process took up its work."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer, pl_module):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{pl_module.stage}:{trainer.global_step}\n")


def killed_while_saving(nth: int) -> None:
    """From now on, the nth checkpoint is cut off half written, by SIGKILL."""
    save, calls = torch.save, []

    def half(content, file):
        calls.append(0)
        save(content, file)
        if len(calls) == nth:
            file.flush()
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


def killed_before_marker(nth: int) -> None:
    """From now on, SIGKILL comes after the nth stage's last checkpoint, before it is marked as finished."""
    from cptlab.training.loop import stages

    write, calls = stages.write_json, []

    def strike(path, content):
        calls.append(0)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    stages.write_json = strike


def run_in_child(directory, moment, options) -> None:
    """A run that is killed at `moment`: (stage, hook, step), ('saving', n), ('marker', n), or None."""
    callbacks = [Starts(Path(directory) / "starts.txt")]
    if moment is None:
        pass
    elif moment[0] == "saving":
        killed_while_saving(moment[1])
    elif moment[0] == "marker":
        killed_before_marker(moment[1])
    else:
        callbacks.append(Killer(*moment))
    adapter = train(directory, callbacks=callbacks, **options)
    torch.save(adapter.state_dict(), Path(directory) / "adapter.pt")


def in_processes(
    directory: Path, backbone: Backbone, strategy: str, killed=None, accelerator="cpu", devices=2, **options
) -> None:
    """The part of this process in a run of `devices` processes, which notes what it ends with in `directory`.

    `killed`: the moment at which the first process is, as for `Killer`.
    """
    about = {"accelerator": accelerator, "devices": devices, "strategy": strategy}
    trainer = functools.partial(lightning.Trainer, **about, inference_mode=strategy == "ddp")
    first = "LOCAL_RANK" not in os.environ
    callbacks = [Killer(*killed)] if killed and first else []
    adapter = train(directory, backbone=backbone, trainer=trainer, callbacks=callbacks, **{"token_budget": 1} | options)
    parameters = list(backbone.model.parameters())
    held = [parameter.to_local() if isinstance(parameter, DTensor) else parameter for parameter in parameters]
    counts = {"all": sum(p.numel() for p in parameters), "held": sum(p.numel() for p in held)}
    torch.save({"adapter": adapter.cpu().state_dict(), **counts}, directory / f"rank{0 if first else 1}.pt")


def launch(directory: Path, **options) -> tuple[int, str]:
    """Train in `directory` in processes of their own; `options` go to `in_processes`. Return the status of the first, and
    what was printed."""
    directory.mkdir(exist_ok=True)
    write_file(directory)
    process = subprocess.Popen(
        [sys.executable, __file__, str(directory), json.dumps(options)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


if __name__ == "__main__":
    folder, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
    path = asked.pop("backbone", None)
    chosen = load_backbone(path, quantization="4bit") if path else tiny_backbone("llama_gqa")
    in_processes(folder, chosen, **asked)

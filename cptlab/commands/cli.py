"""The console script `cptlab`: it runs one command of this folder, each a module with `main(arguments)`."""

from __future__ import annotations

import difflib
import importlib
import sys
from importlib.util import find_spec
from typing import NoReturn

from cptlab import __version__
from cptlab.errors import UserError
from cptlab.process.ends import command, exit_with

COMMANDS = {
    "train": "build the pairs, train an adapter, export it",
    "evaluate": "compare systems on held-out tasks, or judge programs that other tools made",
    "pairs": "build the pairs alone",
    "prefer": "judge a trained model without generation, on held-out pairs",
    "grpo": "train a LoRA with tests and the quality score as rewards, by TRL, to compare with",
    "tasks": "look at a benchmark's tasks, and judge their canonical solutions",
    "report": "make the tables, figures and report of an evaluation, or of sweeps, from stored files",
    "generate": "write programs for a prompt with the base model and the tuned one",
    "lint": "give Python files the score and the messages of the papers' metric",
    "push": "share a trained adapter on the Hugging Face hub, with its model card",
    "pull": "fetch a shared adapter from the hub, as a run",
    "pack": "keep what a report is made from, compressed and without this machine's paths",
    "compare": "compare systems of any evaluations, paired by task",
    "record": "make the papers' tables and figures, with every command that they need",
    "omega": "tune the strength of Selective Prompt Anchoring on validation tasks",
    "omega-curve": "draw the curve over omega of a sweep or a tuning",
    "serve": "serve trained prefixes with vLLM, to any OpenAI client",
    "dilution": "measure the attention on the prompt, token by token",
    "review": "have people compare programs blindly on a local page, and count their votes",
    "ledger": "say of each claim of the papers whether it holds in a record",
    "settings": "print every setting with its type, default, range and meaning",
    "pretrain": "train an embedded language model from nothing",
}
OVERRIDES = "train, evaluate, pairs, prefer, grpo, tasks, omega, serve, dilution and review take Hydra's overrides: name=value, -m for sweeps, --cfg job."


@command(lambda: "Nothing was begun.")
def main(arguments: list[str] | None = None) -> int:
    """Run the command that is named first; return its exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {command:<{width}}  {text}" for command, text in COMMANDS.items()]
        print("\n".join(["usage: cptlab COMMAND [arguments]", "", *lines, "", OVERRIDES]))
        return 0
    if name == "--version":
        print(f"cptlab {__version__}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"Did you mean {near[0]}?" if near else "`cptlab --help` lists the commands."
        raise UserError(f"There is no command {name!r}. {hint}")
    module = f"cptlab.commands.{name.replace('-', '_')}"
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    if arguments is None:
        sys.argv = [spec.origin, *rest]  # what Lightning starts further processes of a job with
    return importlib.import_module(module).main(rest)


def run(*arguments: str) -> NoReturn:
    """Run the command line of this process, with `arguments` before it, and end the process with its exit code."""
    exit_with(main([*arguments, *sys.argv[1:]] if arguments else None))

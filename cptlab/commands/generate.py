"""Write programs for a prompt with the base model and the tuned one, side by side, each with its pylint messages.

    cptlab generate "Write a function that reverses a list."
    cptlab generate run=logs/train/runs/<time> n=3 omega=1.5 - < prompt.txt

The prompt is words, or the beginning of a program, such as a signature with its docstring; - reads standard input. A chat
model is asked through its chat template. omega is a dial on the trained prefix: 0 is the base model, 1 the tuned one,
above 1 more of it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated

from cptlab.commands.shared.arguments import STDIN, decoded, read_arguments
from cptlab.commands.shared.programs_view import Answer, print_answers
from cptlab.errors import UserError
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.process.ends import command, exit_with
from cptlab.records import Completion
from cptlab.settings.setting import Setting, check_settings
from cptlab.storage.jsonl import as_data
from cptlab.tasks.prompting import FORMS


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said beside the prompt."""

    run: Annotated[
        str, Setting("Training run: its directory, what cptlab pull made, the directory of a prefix, or latest.")
    ] = "latest"
    omega: Annotated[
        float, Setting("Dial on the prefix: 0 is the base model, 1 the tuned one, above 1 more of it.")
    ] = 1.0
    n: Annotated[int, Setting("Programs of each model.", at_least=1)] = 1
    temperature: Annotated[float, Setting("Temperature of the sampling; 0 is greedy.", at_least=0)] = 0.4
    max_new_tokens: Annotated[int | None, Setting("Tokens of a program at most. Default: 768.", at_least=1)] = None
    seed: Annotated[int, Setting("Seed of the sampling, the same for both models.", at_least=0)] = 0
    prompting: Annotated[
        str | None,
        Setting("How the model is asked: auto, base or chat. Default: as in the training run.", choices=FORMS),
    ] = None
    device: Annotated[str | None, Setting("Device, such as cpu or cuda. Default: that of the training run.")] = None
    logs: Annotated[str, Setting("Directory of the runs, for run=latest.")] = "logs"
    json: Annotated[bool, Setting("Print JSON.")] = False

    def __post_init__(self) -> None:
        check_settings(self)


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error."""
    given, texts = read_arguments(
        Options, arguments, "cptlab generate", __doc__, "PROMPT", "A prompt like that can come from standard input: -"
    )
    prompt = read_prompt(texts)
    if given.n > 1 and given.temperature == 0:
        raise UserError(f"n={given.n} programs would all be the same at temperature=0. Leave one of the two out.")
    from cptlab.systems.trained_model import load  # torch takes seconds to import, and a mistake should show at once

    model = load(given.run, logs=given.logs, device=given.device, prompting=given.prompting)
    how = {"temperature": given.temperature, "max_new_tokens": given.max_new_tokens, "seed": given.seed}
    tuned = "tuned" if given.omega == 1 else f"tuned (omega {given.omega:g})"
    answers = {}
    for name, omega in (("base", 0.0), (tuned, given.omega)):
        answers[name] = score(model.completions(prompt, given.n, omega=omega, **how))
    if given.json:
        about = {"run": str(model.run), "backbone": model.backbone.name, "prompt": prompt, "omega": given.omega, **how}
        found = {name: [as_data(answer) for answer in some] for name, some in zip(("base", "tuned"), answers.values())}
        print(json.dumps(about | found, indent=1))
    else:
        print_answers(answers)
    return 0


def score(completions: list[Completion]) -> list[Answer]:
    """Score the programs with pylint, as the judge does."""
    qualities = score_programs([completion.program for completion in completions])
    return [Answer(one.program, quality, one.tokens, one.finished) for one, quality in zip(completions, qualities)]


def read_prompt(texts: list[str]) -> str:
    """Return the one prompt that is given. Raises UserError where there is none, or more than one."""
    if not texts:
        raise UserError("The prompt is missing. Write it between quotes, or give - to read it from standard input.")
    if len(texts) > 1:
        raise UserError(
            f"There are {len(texts)} prompts, the second is {texts[1]!r}. Put quotes around the whole prompt."
        )
    if texts[0] != STDIN:
        return texts[0]
    return decoded(sys.stdin.buffer.read(), "Standard input", "the prompt")


if __name__ == "__main__":
    exit_with(main())

"""Train an embedded language model from nothing.

    cptlab pretrain output=DIR [model=kata-lm] [steps=1000] [batch=32] [seed=0]

The other model is kata-starcoder2. A killed command goes on where it was. Training kata-lm took eleven minutes on two CPU cores.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.process.ends import command, exit_with
from cptlab.settings.output_directory import check_directory

MODELS = ("kata-lm", "kata-starcoder2")
USAGE = f"Use output=DIR and any of model={'|'.join(MODELS)}, steps=N, batch=N, seed=N."


@command(lambda: "What is trained is kept up to the last checkpoint; the same command goes on from there.")
def main(arguments: list[str] | None = None) -> int:
    """Run the command with `name=value` arguments, and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if "-h" in given or "--help" in given:
        print(__doc__)
        return 0
    output, options = parse(given)
    check_directory(output, "output")
    from cptlab.training.pretraining import pretrain  # torch takes seconds to import, and a mistake should show at once

    pretrain(output, **options)
    return 0


def parse(arguments: list[str]) -> tuple[Path, dict[str, Any]]:
    """Return the output directory and the options. Raises UserError for an argument that is unknown or missing."""
    options: dict[str, Any] = {"steps": 1000, "batch": 32, "seed": 0}
    output = None
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "output" and value:
            output = Path(value)
        elif name == "model" and value in MODELS:
            options[name] = value
        elif name in options and value.isdigit():
            options[name] = int(value)
        else:
            raise UserError(f"Unknown argument {argument!r}. {USAGE}")
    if output is None:
        raise UserError(f"No output directory was given. {USAGE}")
    if options["steps"] < 1 or options["batch"] < 1:
        raise UserError(f"steps={options['steps']} and batch={options['batch']} must be at least 1. {USAGE}")
    return output, options


if __name__ == "__main__":
    exit_with(main())

"""Print every setting with its type, default, range and meaning: cptlab settings [name], such as `objective` or `n`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cptlab.errors import UserError
from cptlab.process.ends import command, exit_with
from cptlab.settings.listing import lines, markdown


@command()
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("cptlab settings", description=__doc__)
    parser.add_argument("name", nargs="?", help="only settings with this in their name")
    parser.add_argument("--markdown", action="store_true", help="print docs/settings.md instead")
    options = parser.parse_args(arguments)
    if options.markdown:
        print(markdown(), end="")
        return 0
    found = lines(options.name)
    if not found and options.name.split(".")[0] == "trainer":
        print(
            "trainer.* are the arguments of lightning.Trainer: https://lightning.ai/docs/pytorch/stable/common/trainer.html"
        )
        return 0
    if not found:
        raise UserError(f"There is no setting {options.name}. Leave the name out to see all.")
    print("\n".join(found))
    return 0


if __name__ == "__main__":
    exit_with(main())

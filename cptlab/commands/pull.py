"""Fetch an adapter from the Hugging Face hub, as a run that other commands take.

    cptlab pull repo=OWNER/NAME [revision=COMMIT] [output=DIR]
    cptlab generate run=NAME "…"
    cptlab evaluate run=NAME

A prefix or LoRA that another tool made, in PEFT's format, is fetched, too; cptlab.load takes the folder of a prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cptlab.commands.shared.arguments import read_arguments
from cptlab.errors import UserError
from cptlab.process.ends import command, exit_with
from cptlab.settings.output_directory import check_directory
from cptlab.settings.setting import Setting
from cptlab.storage.run_directory import CONFIG_FILE


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of the command."""

    repo: Annotated[str, Setting("Repository on the hub, OWNER/NAME.")]
    revision: Annotated[str | None, Setting("Branch, tag or commit. Default: the newest.")] = None
    output: Annotated[str | None, Setting("New directory for it. Default: NAME, in this directory.")] = None


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error."""
    given, _ = read_arguments(Options, arguments, "cptlab pull", __doc__)
    from cptlab.sharing import hub  # torch and the hub take seconds to import
    from cptlab.sharing.pulled import arrange

    hub.check_repo(given.repo)
    target = Path(given.output or given.repo.partition("/")[2])
    if target.exists():
        raise UserError(f"{target} already exists. Name a new directory: output=DIR.")
    check_directory(target, "output")
    snapshot = hub.download(given.repo, given.revision)
    kind = arrange(snapshot, target, given.repo)
    print(f"Pulled: {target} ({kind}, commit {snapshot.name})")
    if (target / CONFIG_FILE).is_file():
        print(f'Try it: cptlab generate run={target} "…", or cptlab evaluate run={target}')
    else:
        print(f'It does not say how it was trained. In Python: cptlab.load("{target / kind}")')
    return 0


if __name__ == "__main__":
    exit_with(main())

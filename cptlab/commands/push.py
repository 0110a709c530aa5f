"""Share the adapter of a training run on the Hugging Face hub, with a model card, its metrics and its reports.

    cptlab push run=latest repo=OWNER/NAME                   writes the folder, and says what would be uploaded
    cptlab push run=latest repo=OWNER/NAME upload=true       uploads it

The newest evaluation of the run on each benchmark goes into the card. `hf auth login` stores the token that an upload
needs; a token is no argument of this command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cptlab.commands.shared.arguments import read_arguments
from cptlab.process.ends import command, exit_with
from cptlab.progress import waiting
from cptlab.settings.setting import Setting
from cptlab.storage.run_directory import training_run

EMBEDDED_LICENCE = "apache-2.0"  # of the models inside this package


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of the command."""

    repo: Annotated[str, Setting("Repository on the hub, OWNER/NAME; it is made where it is not there.")]
    run: Annotated[str, Setting("Training run: its directory, or latest.")] = "latest"
    upload: Annotated[bool, Setting("true: upload; false: only write the folder and say what would be uploaded.")] = (
        False
    )
    private: Annotated[bool, Setting("Whether a new repository is private.")] = False
    output: Annotated[str | None, Setting("Directory of the folder. Default: LOGS/push/OWNER--NAME.")] = None
    base_model: Annotated[
        str | None, Setting("Hub id of the backbone, OWNER/NAME, where that was loaded from a directory.")
    ] = None
    licence: Annotated[
        str | None, Setting("Licence of the backbone, as the hub names it. Default: what the hub says of it.")
    ] = None
    evaluation: Annotated[
        str | None, Setting("Evaluation to show. Default: the newest of the run on each benchmark.")
    ] = None
    logs: Annotated[str, Setting("Directory of the runs and of their evaluations.")] = "logs"


@command()
def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 with one sentence on standard error."""
    given, _ = read_arguments(Options, arguments, "cptlab push", __doc__)
    logs = Path(given.logs)
    directory = training_run(given.run, logs)
    from huggingface_hub import get_token  # takes a second to import, and a mistake should show at once

    from cptlab.sharing import hub
    from cptlab.sharing.folder import files_of, make_folder, refuse_secret
    from cptlab.sharing.shared_run import evaluations_of, named_evaluation, read_shared_run

    hub.check_repo(given.repo)
    if given.base_model is not None:
        hub.check_repo(given.base_model, "base_model")
    if given.upload:
        hub.check_logged_in()
    found = named_evaluation(directory, Path(given.evaluation)) if given.evaluation else evaluations_of(directory, logs)
    run = read_shared_run(directory, given.base_model, found)
    folder = Path(given.output or logs / "push" / given.repo.replace("/", "--"))
    licence = given.licence or (EMBEDDED_LICENCE if run.embedded else hub.licence_of(run.base))
    with waiting("Writing the model card and the reports"):
        make_folder(run, given.repo, licence, folder)
    print("\n".join(f"{size:>12,}  {name}" for name, size in files_of(folder)))
    for missing, remedy in (
        (not run.evaluations, f"the card has no results. Run cptlab evaluate run={directory} first"),
        (licence is None, "the card names no licence of the backbone. Give licence=…, such as licence=apache-2.0"),
    ):
        if missing:
            print(f"Note: {remedy}.")
    if not given.upload:
        print(f"\nNothing was uploaded. Read {folder / 'README.md'}; upload=true uploads the folder to {given.repo}.")
        return 0
    refuse_secret(folder, get_token())
    print(f"\nUploaded: {hub.upload(folder, given.repo, given.private)}")
    return 0


if __name__ == "__main__":
    exit_with(main())

"""Upload to the Hugging Face hub and download from it, through huggingface_hub.

The hub's address is that of HF_ENDPOINT. A token is the one that `hf auth login` stored, or HF_TOKEN: huggingface_hub reads
it and sends it; nothing here prints or stores it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of httpx or httpx2, whichever the hub uses
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cptlab.adapters.peft_format import CONFIG, EXTRA, WEIGHTS
from cptlab.backbone.loading import HUB_SECONDS
from cptlab.errors import UserError
from cptlab.sharing.shared_run import is_repo

OWN = ("training/*", "evaluations/*")  # folders of ours, which an upload replaces
REPORTS = tuple(f"evaluations/*/{name}" for name in ("metrics.json", "report.html", "tables/*.md"))
WANTED = ("README.md", CONFIG, WEIGHTS, EXTRA, "training/*.json", "training/*.yaml", *REPORTS)
SECRET = "(token)"


def check_repo(repo: str, setting: str = "repo") -> None:
    """Raise UserError for what is no name of a repository."""
    if not is_repo(repo):
        raise UserError(f"{setting}={repo} cannot be: it must be OWNER/NAME, as the hub has it. Correct it.")


def check_logged_in() -> None:
    """Raise UserError where there is no token."""
    if not get_token():
        raise UserError("You are not logged in to the hub. Run `hf auth login`, or set HF_TOKEN, and try again.")


def licence_of(model: str) -> str | None:
    """Return the licence that a model's card on the hub names; None where there is none, or the hub cannot be reached."""
    try:
        card = HfApi().model_info(model, timeout=HUB_SECONDS).card_data
    except (HFValidationError, HTTPError, OSError):
        return None
    found = None if card is None else card.get("license")
    return found if isinstance(found, str) else None


def upload(folder: Path, repo: str, private: bool) -> str:
    """Upload a folder as one commit, make the repository where it is not there, and return its address.

    Raises UserError where the repository holds a model of another tool, and where the hub refuses.
    """
    with _explained(repo, f"write to {repo}"):
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        there = [name for name in api.list_repo_files(repo) if name != ".gitattributes"]
        if there and EXTRA not in there:
            raise UserError(
                f"{repo} holds a model that this command did not make ({there[0]}). Name another repository: repo=OWNER/NAME."
            )
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message="Upload with cptlab", delete_patterns=list(OWN)
        )
        return str(done.repo_url)


def download(repo: str, revision: str | None) -> Path:
    """Download what `upload` writes, and nothing else; return the folder in the hub's cache, named by the commit."""
    with _explained(repo, f"read {repo}"):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(WANTED)))


@contextlib.contextmanager
def _explained(repo: str, what: str) -> Iterator[None]:
    """Turn what the hub and the network say into a UserError of one sentence, without a token."""
    try:
        yield
    except UserError:
        raise
    except RevisionNotFoundError:
        raise UserError(f"{repo} has no such revision on the hub. Leave revision out, or correct it.") from None
    except GatedRepoError:
        raise UserError(f"{repo} is gated. Accept its licence on the hub, and run `hf auth login`.") from None
    except RepositoryNotFoundError:
        raise UserError(f"The hub shows you no model {repo}. Correct the name, or run `hf auth login`.") from None
    except HFValidationError:
        raise UserError(f"repo={repo} cannot be: the hub allows no such name. Correct it.") from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise UserError(
                f"The hub does not let you {what}. Run `hf auth login` with a token that may, or name a repository of your own."
            ) from None
        raise UserError(f"The hub refused to {what} ({_line(error)}). Try again later.") from None
    except (HTTPError, OSError) as error:
        raise UserError(
            f"The hub cannot be reached to {what} ({_line(error)}). Check the network, and try again."
        ) from None


def _line(error: Exception) -> str:
    """Return the first line of an error, without the token."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    token = get_token()
    return line.replace(token, SECRET) if token else line

"""Have people compare the programs of two systems, blindly, on a local page (CPT RQ5), and count their votes (CPT Table XI).

cptlab review run=logs/evaluate/runs/<time>                  serve the page
cptlab review run=logs/evaluate/runs/<time> results=true     count the votes
cptlab review run=logs/record/kata                           the pairs of cptlab record cpt_table_11
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from cptlab.errors import UserError
from cptlab.process.ends import exit_with
from cptlab.reporting.evaluation import read_evaluation
from cptlab.reporting.layout import to_csv, to_markdown, to_text
from cptlab.review.pairs import PAIRS, choose_pairs, choose_systems
from cptlab.review.server import address_of, check_installed, is_local, link, listen, serve
from cptlab.review.store import REVIEW_FILE, Review
from cptlab.review.tally import tally, tally_table
from cptlab.settings.entry import hydra_command
from cptlab.storage.atomic import write_text
from cptlab.storage.run_directory import FIGURES_FILE, discard

TABLE = "review"


def review(config: DictConfig, fresh: Path) -> None:
    """Serve the review of a run, or count its votes."""
    discard(fresh)
    if config.run is None:
        raise UserError("Say what to review: run=<the directory of an evaluation or of a record>.")
    if not config.results:
        check_installed()
    found = open_review(config, Path(config.run))
    if config.results:
        count_votes(found)
    else:
        serve_page(found, config)


def open_review(config: DictConfig, directory: Path) -> Review:
    """Return the review of a run. It is begun where it is not yet; without settings of its own it is the one that is there.

    Raises UserError where there is nothing to review, or nothing to count.
    """
    file = directory / REVIEW_FILE
    given = [name for name in ("systems", "limit", "seed") if config[name] is not None]
    if (file.is_file() and not given) or (config.results and not file.is_file()):
        return Review(file)
    if any(directory.glob(f"*/{FIGURES_FILE}")):
        raise UserError(
            f"{directory} is a record, whose pairs are those of its table. Leave out {', '.join(given)}."
            if given
            else f"{directory} is a record without pairs. Make them with cptlab record cpt_table_11."
        )
    evaluation = read_evaluation(directory)
    systems = choose_systems(evaluation, None if config.systems is None else tuple(config.systems))
    pairs = choose_pairs(evaluation, systems, PAIRS if config.limit is None else config.limit, config.seed or 0)
    if not pairs:
        raise UserError(f"No task of {directory} has a program of {systems[0]} and of {systems[1]} that both run.")
    if not any(pair.prompt for pair in pairs):
        raise UserError(f"{directory} holds no prompts, as a packed run. Review the run that it was packed from.")
    return Review(file, pairs, systems)


def count_votes(found: Review) -> None:
    """Print CPT Table XI, and write it beside the votes as Markdown and CSV."""
    table = tally_table(
        TABLE, f"Blind review, {len(found.pairs)} pairs", tally(found.pairs, found.votes(), found.systems)
    )
    directory = found.file.parent
    write_text(directory / f"{TABLE}.md", to_markdown(table))
    write_text(directory / f"{TABLE}.csv", to_csv(table))
    print(f"{to_text(table)}\n{directory / TABLE}.md, {TABLE}.csv")


def serve_page(found: Review, config: DictConfig) -> None:
    """Serve the page until the command is stopped. Every reviewer's own link is printed, for those who lost theirs."""
    listening = listen(config.host, config.port)
    address = address_of(listening, config.host)
    before, after = found.systems
    first = address if is_local(listening) else f"{address}?token={found.token}"
    print(f"{len(found.pairs)} pairs of {before} and {after}. Reviewers begin at\n  {first}", flush=True)
    for reviewer in found.reviewers():
        print(f"  {reviewer.name} goes on at {link(address, reviewer)}", flush=True)
    print(f"Votes are kept in {found.file}. Stop with Ctrl-C.", flush=True)
    serve(found, listening, config.host, lambda new: print(f"  {new.name}: {link(address, new)}", flush=True))


main = hydra_command("review", review)

if __name__ == "__main__":
    exit_with(main())

"""What the scorers that combine others share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.judging.scorers.scorer import Scorer, score_all
from cptlab.records import Quality

BATCH = 512  # programs that are scored by every part before the next ones


def check_parts(scorers: Mapping[str, Scorer] | None) -> dict[str, Scorer]:
    """Return the parts as a dictionary. Raises UserError where there is none."""
    found = {str(name): one for name, one in (scorers or {}).items() if one is not None}
    if not found:
        raise UserError(
            "scorer.scorers is empty. Name scorers to combine, such as +scorer@scorer.scorers.pylint=pylint."
        )
    return found


def qualities_of_parts(
    scorers: Mapping[str, Scorer], items: Sequence[tuple[Any, str]], workers: int | None, cache: Path | None
) -> list[dict[str, Quality]]:
    """Return what each part says of each program, in order."""
    programs = [program for _, program in items]
    found = {name: score_all(one, programs, workers=workers, cache=cache) for name, one in scorers.items()}
    return [{name: qualities[i] for name, qualities in found.items()} for i in range(len(programs))]

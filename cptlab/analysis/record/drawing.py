"""What a table or figure of a record consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cptlab.reporting.layout import Table


@dataclass(frozen=True)
class Drawing:
    """`pictures` are matplotlib figures by the name of their files, `texts` further files by name.

    `figures` are the lines of figures.json: row, metric, value, interval, tasks, seeds.
    """

    figures: Sequence[Mapping[str, Any]]
    tables: Sequence[Table] = ()
    pictures: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

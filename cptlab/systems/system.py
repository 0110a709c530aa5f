"""A system: one way to get programs for tasks, and what an evaluation compares with other ways.

A system is a file in conf/system/ or a few settings on the command line. Each part that it may have beside the backbone
is a small file of its own: prompts/, feedback/, selection/, post_processing/.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

from cptlab.errors import UserError
from cptlab.records import Prompt, Quality, Task, Verdict
from cptlab.settings.setting import Part, Setting, check_settings
from cptlab.storage.run_directory import ADAPTER_KINDS

ANY = "any"


class PromptChange(Protocol):
    """Another way to put a task to the model. A frozen dataclass; its repr is part of what stored programs depend on."""

    def apply(self, prompt: Prompt) -> Prompt:
        """Return the changed prompt, before the backbone's template; the same one where it cannot be changed."""
        ...


class Feedback(Protocol):
    """What the model is told about its first answer when it is asked once more. A frozen dataclass."""

    needs_public_tests: ClassVar[bool]

    def tell(self, task: Task, quality: Quality, verdict: Verdict) -> str | None:
        """Return what is told about a program with this score and verdict, in lines; None: the program is kept.

        Where it fails a public test, the verdict's reason is about the first of these.
        """
        ...


class Selection(Protocol):
    """Which of several programs is kept. A frozen dataclass with the number of programs drawn for every one kept."""

    @property
    def draws(self) -> int: ...

    def choose(self, qualities: Sequence[Quality]) -> int:
        """Return which of the `draws` programs with these pylint scores is kept."""
        ...


class PostProcessing(Protocol):
    """A change of finished programs. A frozen dataclass."""

    def apply(self, programs: Sequence[str]) -> list[str]:
        """Return the changed programs, in order."""
        ...

    def versions(self) -> dict[str, str]:
        """Return the versions of the tools that the result depends on, by name."""
        ...


@dataclass(frozen=True)
class System:
    """One column of an evaluation. `name` is its key in the node `system` of the configuration.

    `prompt`, `decoding`, `feedback`, `selection` and `post_processing` are null or objects of the configuration; a decoding is a
    whole node, as conf/decoding/ has them.
    """

    name: str
    adapter: Annotated[
        str | None,
        Setting(
            "Which adapter its training run must have; null: the backbone alone.",
            choices=(ANY, *ADAPTER_KINDS),
        ),
    ] = None
    run: Annotated[
        str | None,
        Setting("Its training run: a directory, or latest for the newest finished one that has such an adapter."),
    ] = None
    prompt: Annotated[PromptChange | None, Part(optional=True)] = None
    decoding: Annotated[Any, Part(optional=True, node="decoding")] = None
    feedback: Annotated[Feedback | None, Part(optional=True)] = None
    selection: Annotated[Selection | None, Part(optional=True)] = None
    post_processing: Annotated[Sequence[PostProcessing], Part(optional=True, many="list")] = ()

    def __post_init__(self) -> None:
        check_settings(self)
        if not re.fullmatch(r"[\w-]+", self.name):  # the name of a folder, and a part of names of metrics
            raise UserError(f"A system cannot be called {self.name!r}. Use letters, digits, _ and - in its name.")
        object.__setattr__(self, "post_processing", tuple(self.post_processing or ()))
        if self.run is not None and self.adapter is None:
            raise UserError(
                f"System {self.name} has a training run but no adapter. Set system.{self.name}.adapter to the kind that "
                f"the run has, or to {ANY}; or set system.{self.name}.run=null."
            )

    def parts(self) -> dict[str, Any]:
        """Say what it is, beside its decoding, in plain data for metrics.json."""
        return {
            "adapter": self.adapter,
            "run": self.run,
            "prompt": None if self.prompt is None else repr(self.prompt),
            "feedback": None if self.feedback is None else repr(self.feedback),
            "selection": None if self.selection is None else repr(self.selection),
            "post_processing": [{"step": repr(step), "versions": step.versions()} for step in self.post_processing],
        }

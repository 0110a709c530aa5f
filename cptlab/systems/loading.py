"""A system on its backbone: its model is loaded, its decoding is known, and it was checked that the two go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cptlab.adapters import Policy, load_adapter
from cptlab.backbone import Backbone
from cptlab.decoding import positions_needed
from cptlab.errors import UserError
from cptlab.records import Prompt, Task
from cptlab.serving.installed import vllm_version
from cptlab.systems.decoding import Decoding, decoding_of_system
from cptlab.systems.feedback.prompt import with_feedback
from cptlab.systems.system import Feedback, PostProcessing, PromptChange, Selection, System
from cptlab.tasks.prompting import chat_prompt, question_of
from cptlab.tasks.template import apply_template


@dataclass(frozen=True)
class LoadedSystem:
    """What makes programs. `adapter_digest` is that of the policy's adapter; None: the backbone alone."""

    name: str
    policy: Policy
    decoding: Decoding
    adapter_digest: str | None = None
    prompt: PromptChange | None = None
    feedback: Feedback | None = None
    selection: Selection | None = None
    post_processing: tuple[PostProcessing, ...] = ()

    @property
    def draws(self) -> int:
        """How many programs are drawn for every one that is kept."""
        return 1 if self.selection is None else self.selection.draws

    def shown_prompt(self, task: Task, about: tuple[str, str] | None = None) -> Prompt:
        """Return what the model is shown for a task: the changed prompt, in the form that the backbone was trained on.

        `about` is an earlier program, and what the model is told about it.
        """
        backbone = self.policy.backbone
        prompt = task.prompt if backbone.chat is None else question_of(task)
        prompt = prompt if self.prompt is None else self.prompt.apply(prompt)
        if about is not None:
            prompt = with_feedback(prompt, *about, is_chat=backbone.chat is not None)
        if backbone.chat is not None:
            return chat_prompt(prompt, task, backbone.chat)
        return apply_template(prompt, backbone.prompt_template)

    def with_decoding(self, decoding: Decoding, name: str) -> LoadedSystem:
        """Return the same model and prompt with another decoding, each program asked for once and kept as it is."""
        return replace(self, name=name, decoding=decoding, feedback=None, selection=None, post_processing=())


def load_system(system: System, backbone: Backbone, evaluation: Decoding) -> LoadedSystem:
    """Load the adapter of the system's training run, which is a directory by now, onto the frozen `backbone`.

    `evaluation` is the decoding of systems without one of their own.

    Raises UserError for an adapter that does not fit the backbone, and for a decoding that needs a prefix.
    """
    adapter = None if system.run is None else load_adapter(system.run, backbone)
    policy = Policy(backbone) if adapter is None else adapter.policy(backbone)
    decoding = decoding_of_system(system.name, system.decoding, evaluation, policy.prefix is not None)
    return LoadedSystem(
        system.name,
        policy,
        decoding,
        None if adapter is None else adapter.digest(),
        system.prompt,
        system.feedback,
        system.selection,
        tuple(system.post_processing),
    )


def leave_out_long(systems: Sequence[LoadedSystem], *tasks: Sequence[Task]) -> tuple[list[list[Task]], list[str]]:
    """Return the tasks of each list whose programs fit into the context in every system, and the ids of all others.

    What must fit is the prompt with all tokens that a program may have, and the prefix. Raises UserError where none is left
    of a list.
    """
    fitting = [
        [task for task in some if all(fits(system, system.shown_prompt(task)) for system in systems)] for some in tasks
    ]
    for some, left in zip(tasks, fitting, strict=True):
        if some and not left:
            sampling, backbone = systems[0].decoding.sampling, systems[0].policy.backbone
            raise UserError(
                f"None of the {len(some)} tasks fits into the {backbone.context_length} tokens of {backbone.name}"
                f"{f' ({backbone.context_note})' if backbone.context_note else ''} together with "
                f"{sampling.limit(some[0].prompt)} new ones. Lower decoding.sampling.max_new_tokens, or use a backbone with a "
                "longer context."
            )
    kept = {task.id for some in fitting for task in some}
    return fitting, [task.id for some in tasks for task in some if task.id not in kept]


def fits(system: LoadedSystem, prompt: Prompt) -> bool:
    """Return whether a program of this prompt, as the model is shown it, fits into the context with all its tokens."""
    backbone, decoding = system.policy.backbone, system.decoding
    needed = positions_needed(
        backbone, prompt, decoding.sampling, prefix=system.policy.prefix, guidance=decoding.guidance
    )
    return needed <= backbone.context_length


def check_system(system: LoadedSystem, tasks: Sequence[Task], n: int) -> None:
    """Raise UserError for what would end the work on these tasks, or would change nothing about it."""
    decoding, backbone = system.decoding, system.policy.backbone
    if decoding.strategy is not None:
        decoding.strategy.check(n * system.draws, decoding.sampling, decoding.guidance)
    if decoding.engine == "vllm":
        _check_vllm(system)
    if decoding.after_failure or (system.feedback is not None and system.feedback.needs_public_tests):
        refuse_without_public_tests(tasks)
    if decoding.after_failure and system.feedback is not None:
        raise UserError(
            f"System {system.name} asks once more with feedback, and its decoding draws failed programs once more as well. "
            "Leave one of the two out."
        )
    if decoding.steering is not None:
        decoding.steering.check(backbone)
        if not any(decoding.steering.bias(backbone, system.shown_prompt(task)) for task in tasks):
            raise UserError(
                f"None of the {len(tasks)} prompts has a span that {decoding.steering} keeps, or its alpha is 1, so nothing "
                "would be steered. Choose other decoding.steering.spans."
            )
    if system.prompt is not None and all(system.prompt.apply(task.prompt) == task.prompt for task in tasks):
        raise UserError(
            f"None of the {len(tasks)} prompts has a description, so the prompt of system {system.name} changes nothing. "
            "Leave that system out, or evaluate on another benchmark."
        )
    for step in system.post_processing:
        step.apply([])  # its tool is there and understands its settings
    guidance = decoding.guidance
    if guidance is not None and guidance.omega != 1:
        has_prefix = system.policy.prefix is not None
        prompts = [system.shown_prompt(task) for task in tasks]
        if all(guidance.stream(backbone, prompt, has_prefix) is None for prompt in prompts):
            raise UserError(
                f"None of the {len(prompts)} prompts has what {guidance.negative} leaves out, so nothing would be mixed. "
                "Choose other spans or another decoding/negative."
            )


def _check_vllm(system: LoadedSystem) -> None:
    """Raise UserError where vLLM is not installed, and for an adapter that is no prefix."""
    vllm_version()
    if system.adapter_digest is not None and system.policy.prefix is None:
        raise UserError(
            f"decoding.engine=vllm samples from the backbone and from prefixes, and the adapter of system {system.name} is none. "
            "Set decoding.engine=cptlab."
        )


def refuse_without_public_tests(tasks: Sequence[Task]) -> None:
    """Raise UserError where a second try waits for failed public tests and some task has none."""
    without = [task.id for task in tasks if not task.public_tests]
    if without:
        raise UserError(
            f"A second try after failed tests (decoding/gate=failed_tests, decoding=second_try, system=self_debug) asks for public tests, and "
            f"{len(without)} of {len(tasks)} tasks have none, such as {without[0]}. Choose another gate or decoding, or "
            "another benchmark."
        )

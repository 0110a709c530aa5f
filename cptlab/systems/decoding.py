"""What of the `decoding` configuration applies to a system: its sampling, its strategy, its second stream and its ω."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cptlab.errors import UserError
from cptlab.serving.installed import vllm_version
from cptlab.settings.groups import Decoding as DecodingSettings
from cptlab.settings.instantiate import instantiate

if TYPE_CHECKING:  # a System is made without torch
    from cptlab.decoding import Guidance, Sampling, Steering, Strategy

TUNED = "tuned"
ANY_OTHER_OMEGA = 2.0  # stands for an ω that is yet to be found; with 1 there would be no second stream


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen. `strategy` None: one after the other. `guidance` None: no second stream.

    `steering` None: attention as the model has it. `second_try`: programs that fail a public test are drawn once more, with
    fresh random numbers and, where there is one, with the steering that first tries lack. `token_budget`: cached tokens at a time,
    and `slots`: whether rows run in slots of fixed size (see `decoding.generate`).
    `engine`: what samples, cptlab or vllm. `omega_is_tuned`: the ω of `guidance` is yet to be looked up.
    """

    sampling: Sampling
    strategy: Strategy | None = None
    guidance: Guidance | None = None
    steering: Steering | None = None
    second_try: bool = DecodingSettings.second_try
    token_budget: int | None = DecodingSettings.token_budget
    slots: bool | None = DecodingSettings.slots
    engine: str = DecodingSettings.engine
    omega_is_tuned: bool = False

    @property
    def needs_prefix(self) -> bool:
        return self.guidance is not None and getattr(self.guidance.negative, "needs_prefix", False)

    @property
    def after_failure(self) -> bool:
        """Whether programs are made plainly first, and those that fail a public test once more."""
        guided = self.guidance is not None and getattr(self.guidance.gate, "after_failure", False)
        return guided or self.second_try

    def plain(self) -> Decoding:
        """Return the same without a second stream, steering and a second try."""
        return dataclasses.replace(self, guidance=None, steering=None, second_try=False, omega_is_tuned=False)

    def with_omega(self, omega: float) -> Decoding:
        """Return the same with another ω; for ω = 1, which is the plain model whatever would be mixed, without guidance."""
        if omega == 1 or self.guidance is None:
            return self.plain()
        return dataclasses.replace(self, guidance=dataclasses.replace(self.guidance, omega=omega), omega_is_tuned=False)

    def facts(self) -> dict[str, Any]:
        """Say how programs were decoded, for metrics.json."""
        guidance = None
        if self.guidance is not None:
            fields = {field.name: getattr(self.guidance, field.name) for field in dataclasses.fields(self.guidance)}
            guidance = {name: value if name == "omega" else repr(value) for name, value in fields.items()}
        return {
            "sampling": dataclasses.asdict(self.sampling),
            "strategy": None if self.strategy is None else repr(self.strategy),
            "guidance": guidance,
            "steering": None if self.steering is None else repr(self.steering),
            "second_try": self.second_try,
            "engine": self.engine_facts(),
            "slots": self.slots,
        }

    def engine_facts(self) -> str:
        """Return what samples; vLLM with its version."""
        if self.engine == DecodingSettings.engine:
            return self.engine
        return f"{self.engine} {vllm_version()}"


def build_decoding(node: Any, name: str = "decoding", *, tune_omega: bool = False) -> Decoding:
    """Build the decoding of a configuration node that stands at `name`. `tune_omega`: its ω is to be found anew."""
    tuned = tune_omega or node.get("omega") == TUNED
    guidance = None
    if node.get("guidance"):
        placeholder = {"omega": ANY_OTHER_OMEGA} if tuned else {}
        guidance = instantiate(node.guidance, f"{name}.guidance", **placeholder)
    return Decoding(
        instantiate(node.sampling, f"{name}.sampling"),
        instantiate(node.strategy, f"{name}.strategy") if node.get("strategy") else None,
        guidance,
        instantiate(node.steering, f"{name}.steering") if node.get("steering") else None,
        node.get("second_try", DecodingSettings.second_try),
        node.get("token_budget", DecodingSettings.token_budget),
        node.get("slots", DecodingSettings.slots),
        node.get("engine", DecodingSettings.engine),
        tuned and guidance is not None,
    )


def decoding_of_system(name: str, own: Decoding | None, evaluation: Decoding, has_prefix: bool) -> Decoding:
    """Return the system's own decoding, or else the evaluation's: without a second stream that the system cannot have.

    Raises UserError where the system's own decoding asks for a prefix that it has not.
    """
    if own is not None:
        if own.needs_prefix and not has_prefix:
            raise UserError(
                f"The second stream of system {name} is the prompt without the trained prefix, and it has no prefix. "
                f"Give it a training run of a prefix, or another decoding/negative."
            )
        return own
    return evaluation.plain() if evaluation.needs_prefix and not has_prefix else evaluation

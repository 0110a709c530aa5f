"""The second stream is another prompt, written with a template: classifier-free guidance with a negative prompt."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cptlab.backbone import Backbone
from cptlab.decoding.negatives.stream import Stream
from cptlab.errors import UserError
from cptlab.records import Prompt


@dataclass(frozen=True)
class OtherPrompt:
    """`template` may hold {prompt}, the whole text, and {code}, its last part that belongs to the program."""

    template: str = "{code}"

    def __post_init__(self) -> None:
        if self.template == "{prompt}":
            raise UserError("negative.template is {prompt}, the first stream itself. Write what differs from it.")

    def stream(self, backbone: Backbone, prompt: Prompt) -> Stream | None:
        values = {"{prompt}": prompt.text, "{code}": prompt.code}
        text = re.sub(r"\{prompt\}|\{code\}", lambda found: values[found.group()], self.template)
        if not text:
            raise UserError(
                f"With negative.template {self.template!r} a task has an empty second prompt, since its prompt has no "
                "code of its own. Put some text into the template."
            )
        return None if text == prompt.text else Stream(backbone.encode_prompt(text))

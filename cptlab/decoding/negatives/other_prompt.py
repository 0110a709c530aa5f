"""The second stream is another prompt, written with a template: classifier-free guidance with a negative prompt."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from cptlab.backbone import Backbone
from cptlab.decoding.negatives.stream import Stream
from cptlab.errors import UserError
from cptlab.records import Prompt
from cptlab.settings.setting import Setting


@dataclass(frozen=True)
class OtherPrompt:
    template: Annotated[
        str,
        Setting("The second prompt; {prompt} stands for the whole first one, {code} for its part of the program."),
    ] = "{code}"

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

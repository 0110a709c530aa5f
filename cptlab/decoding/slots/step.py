"""One step of a batch in slots, all of it on the device: read, mix, choose, write down, and end rows.

No operator depends on what the numbers are, and every tensor keeps its address. So the step can be captured as a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cptlab.backbone import Backbone, DecodeState
from cptlab.backbone.slot_cache import SlotCache
from cptlab.backbone.slot_step import slot_logits
from cptlab.decoding.guidance import Gate, Rule
from cptlab.decoding.sampling import Sampling, choose_among_likeliest
from cptlab.decoding.stopping_criteria import ended_by_token

Choose = Callable[[Tensor, Sampling, Tensor | None], Tensor]


class SlotStep:
    """The tensors of R rows, and the step that changes them.

    `last` [R] is each row's last token, `written` [R] counts its tokens, which `output` [R, longest] holds, and `limit`
    [R] bounds them. `active` [R] is False once it has ended. `numbers` [R, longest] are its random numbers, and `healed`
    [R] of its tokens used none of them. With `kinds` of (gate, rule), the cache has 2·R slots: row r has its second stream
    in slot R + r, mixed as `kind` [R] says (−1: not at all) with `omega` [R, 1].

    With `likeliest`, a step searches the next tokens among so many, and the rows that need more stay as they are (`unsure`
    [R]) until a step looks at the `whole` vocabulary.
    """

    def __init__(
        self,
        backbone: Backbone,
        like: DecodeState,
        rows: int,
        capacity: int,
        longest: int,
        sampling: Sampling,
        kinds: Sequence[tuple[Gate, Rule]],
        choose: Choose,
        likeliest: int | None = None,
    ) -> None:
        self.backbone, self.sampling, self.kinds, self.choose = backbone, sampling, list(kinds), choose
        self.likeliest = likeliest
        self.longest, device = longest, backbone.device
        self.cache = SlotCache(like, rows * (2 if kinds else 1), capacity)
        self.eos = torch.tensor(sorted(backbone.eos_ids), device=device, dtype=torch.long)
        zeros = torch.zeros(rows, dtype=torch.long, device=device)
        self.last, self.written, self.limit, self.healed = (zeros.clone() for _ in range(4))
        self.active, self.unsure, self.kind = zeros.bool(), zeros.bool(), zeros - 1
        self.omega = torch.ones(rows, 1, dtype=torch.float64, device=device)
        self.output = torch.zeros(rows, longest + 1, dtype=torch.long, device=device)  # the last column is a bin
        self.numbers = torch.zeros(rows, 1 if sampling.greedy else longest, dtype=torch.float64, device=device)

    @property
    def rows(self) -> int:
        return len(self.last)

    def tensors(self) -> list[Tensor]:
        """The tensors of the rows that a step changes, keys and values aside."""
        return [self.last, self.written, self.active, self.unsure, self.output, self.cache.positions]

    def __call__(self, whole: bool = False) -> None:
        """Read the last token of every row and choose the next. A row that has ended stays as it is."""
        given = torch.cat([self.last, self.last]) if self.kinds else self.last
        logits = self._mixed(slot_logits(self.backbone, given, self.cache))
        numbers = None
        if not self.sampling.greedy:
            place = (self.written - self.healed).clamp(max=self.longest - 1)
            numbers = self.numbers.gather(1, place[:, None])[:, 0]
        active = self.active
        if whole or self.likeliest is None or numbers is None:
            found, sure = self.choose(logits, self.sampling, numbers), None
        else:
            found, sure = choose_among_likeliest(logits, self.sampling, numbers, self.likeliest)
        if self.likeliest is not None:
            self.unsure.zero_() if sure is None else self.unsure.copy_(active & ~sure)
            active = active if sure is None else active & sure
        tokens = torch.where(active, found, self.last)
        self.output.scatter_(1, torch.where(active, self.written, self.longest)[:, None], tokens[:, None])
        self.cache.positions += torch.cat([active, active]) if self.kinds else active
        self.written += active
        self.last.copy_(tokens)
        self.active.logical_and_(~ended_by_token(tokens, self.eos, self.written, self.limit))

    def _mixed(self, raw: Tensor) -> Tensor:
        if not self.kinds:
            return raw
        clean, second = raw[: self.rows], raw[self.rows :]
        logits = clean.float() if raw.dtype in (torch.float16, torch.bfloat16) else clean
        omega = self.omega.to(logits.dtype)
        for number, (gate, rule) in enumerate(self.kinds):
            mix = (self.kind == number) & gate.opens(clean)
            logits = torch.where(mix[:, None], rule.mix(clean, second, omega), logits)
        return logits

    def keep(self, rows: Tensor) -> None:
        """Keep these rows alone."""
        self.cache.keep(torch.cat([rows, rows + self.rows]) if self.kinds else rows)
        for name in ("last", "written", "limit", "healed", "active", "unsure", "kind", "omega", "output", "numbers"):
            setattr(self, name, getattr(self, name).index_select(0, rows))

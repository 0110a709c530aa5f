"""Token healing: continue a prompt that ends within a token of the tokenizer from before that token.

A newline and the four spaces behind it are often one token. A prompt that ends in the newline ends in another token,
and a model that always saw the longer one writes something else after it. So healing drops the prompt's last tokens,
and the model writes their text again, with whatever follows it in the same token. The idea is from guidance
(https://github.com/guidance-ai/guidance). The tokenizer decides how many tokens are dropped, and in which tokens their
text may come back: the healer tries how it splits the prompt's end when the prompt goes on with the rest of some token.

The engine calls it so:

    healer = get_healer(backbone)
    healed = healer.heal(prompt.text)      # healed.ids instead of encode_prompt(prompt.text)
    second = healed.shorten(second.ids)    # the second stream without the same tokens, masked or not; None if its text
                                           # ends in other tokens, and then neither stream is healed
    rests = [healed.rest] * n              # for each row: the text to write again, None if there is none
    logits = healer.restrict(logits, rests)                              # before mixing
    rests = [healer.after(rest, token) for rest, token in zip(rests, tokens.tolist())]
    text = backbone.decode(row_ids)[len(healed.text):]                   # stopping.cut takes healed.text

Both streams of a guided row lose the same number of tokens, so their positions stay equal. Both read the tokens that
are written again as they are, unmasked, like all that the model writes. These tokens come on top of `max_new_tokens`.
"""

from __future__ import annotations

import bisect
import heapq
import json
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cptlab.backbone import Backbone

MAX_DROPPED = 8  # tokens that are dropped at most
_TRIES = 32  # tokens that are tried behind one ending, the most frequent ones (lowest ids) first
_PLAIN = ("a", "0", " ", "\n", "(", '"')  # one of each kind, because the text behind white space decides its split
_TAIL = 24  # tokens at the end of the prompt that the tokenizer sees in a trial
_healers: weakref.WeakKeyDictionary[Backbone, Healer] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Rest:
    """Text that the model must still write again, not empty.

    `within` are the tokens that may end within the text, each paired with the text that is left where it may stand.
    """

    text: bytes
    within: frozenset[tuple[bytes, int]]


@dataclass(frozen=True)
class Healed:
    """A prompt's tokens without the `dropped` last ones. The model generates their text, `rest` (or None), first."""

    ids: list[int]
    dropped: list[int]
    rest: Rest | None
    mask_id: int | None = None

    @property
    def whole(self) -> list[int]:
        """The tokens of the prompt as it is."""
        return self.ids + self.dropped

    @property
    def text(self) -> str:
        """The text that the model repeats before its completion begins."""
        return self.rest.text.decode() if self.rest else ""

    def shorten(self, ids: Sequence[int]) -> list[int] | None:
        """Return the tokens of a second stream without the same last tokens, or None if it ends in other tokens.

        The last tokens may be masked in the second stream.
        """
        start = len(ids) - len(self.dropped)
        if start < 1 or any(a not in (b, self.mask_id) for a, b in zip(ids[start:], self.dropped, strict=True)):
            return None
        return list(ids[:start])


def get_healer(backbone: Backbone) -> Healer:
    """Return the backbone's `Healer`, which is made once."""
    if backbone not in _healers:
        _healers[backbone] = Healer(backbone)
    return _healers[backbone]


class Healer:
    """Heals the prompts of one backbone. It knows the bytes of every token.

    If tokens cannot be read as bytes (the tokenizer is not a fast one, or neither byte-level nor sentencepiece-like),
    no prompt is healed.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._reference = weakref.ref(backbone)  # `get_healer` holds it weakly, too
        self._mask_id = backbone.mask_id
        known = enumerate(token_bytes(backbone.tokenizer))
        self._bytes = {token: text for token, text in known if text is not None}
        order = sorted((text, token) for token, text in self._bytes.items() if text)
        self._texts, self._tokens = [text for text, _ in order], [token for _, token in order]
        self._longest = max(map(len, self._texts), default=0)
        self._allowed: dict[tuple[bytes, tuple[int, ...]], Tensor] = {}

    @property
    def _backbone(self) -> Backbone:
        backbone = self._reference()
        assert backbone is not None
        return backbone

    def heal(self, text: str) -> Healed:
        """Return the prompt's tokens without those that depend on the text that follows."""
        ids = self._backbone.encode_prompt(text)
        keep, trials = self._unchanging(text, ids)
        dropped = ids[keep:]
        if not dropped:
            return Healed(ids, [], None, self._mask_id)
        end = self._text(dropped)
        assert end is not None, "only tokens with known bytes are dropped"
        seen = [dropped, *(trial[keep:] for trial in trials if trial[:keep] == ids[:keep])]
        within = frozenset(pair for tokens in seen for pair in self._within(end, tokens))
        return Healed(ids[:keep], dropped, Rest(end, within), self._mask_id)

    def allowed(self, rest: Rest) -> Tensor:
        """Return the tokens [A] that may come next: those that begin with the rest, and those that may end within it."""
        inside = tuple(sorted(token for left, token in rest.within if left == rest.text))
        key = rest.text, inside
        if key not in self._allowed:
            self._allowed[key] = torch.tensor([*self._beginning(rest.text), *inside], dtype=torch.long)
        return self._allowed[key]

    def after(self, rest: Rest | None, token: int) -> Rest | None:
        """Return what is left to write again after a token. A token that is not allowed (in a lost beam) changes nothing."""
        if rest is None or token not in self.allowed(rest):
            return rest
        left = rest.text[len(self._bytes[token]) :]
        return Rest(left, rest.within) if left else None

    def restrict(self, logits: Tensor, rests: Sequence[Rest | None]) -> Tensor:
        """Return logits [R, V] with −inf for tokens that a row's rest does not allow. Rows without a rest do not change."""
        if not any(rests):
            return logits
        logits = logits.clone()
        for row, rest in enumerate(rests):
            if rest:
                tokens = self.allowed(rest).to(logits.device)
                kept = logits[row, tokens]
                logits[row] = -torch.inf
                logits[row, tokens] = kept
        return logits

    def _beginning(self, text: bytes) -> list[int]:
        """Return the tokens whose bytes begin with `text`."""
        low = bisect.bisect_left(self._texts, text)
        high = bisect.bisect_right(self._texts, text, low, key=lambda token: token[: len(text)])
        return self._tokens[low:high]

    def _text(self, ids: Sequence[int]) -> bytes | None:
        """Return the bytes of tokens, or None if one of them is special."""
        return b"".join(self._bytes[token] for token in ids) if self._bytes.keys() >= set(ids) else None

    def _within(self, text: bytes, tokens: Iterable[int]) -> Iterable[tuple[bytes, int]]:
        """Yield each of these tokens that ends within `text`, with the text that is left before it."""
        for token in tokens:
            part = self._bytes.get(token)
            if part is None or len(part) >= len(text) or not text.startswith(part):
                return
            yield text, token
            text = text[len(part) :]

    def _unchanging(self, text: str, ids: list[int]) -> tuple[int, list[list[int]]]:
        """Return how many of the prompt's tokens stay whatever follows, and the prompt's tokens in all trials.

        A token that reaches over the prompt's end begins with some ending of the prompt. Each ending is tried with the
        rest of tokens that begin with it, until the tokenizer makes such a token there. `_PLAIN` is tried, too.
        """
        tail, encode = self._tail(text, ids)
        special = max((i for i in range(tail, len(ids)) if ids[i] not in self._bytes), default=tail - 1)
        whole = self._text(ids[special + 1 :])
        assert whole is not None
        trials = [ids[:tail] + encode(rest) for rest in _PLAIN]
        for length in range(min(self._longest, len(whole)), 0, -1):
            ending = whole[-length:]
            longer = (token for token in self._beginning(ending) if len(self._bytes[token]) > length)
            for token in heapq.nsmallest(_TRIES, longer):
                try:
                    trials.append(ids[:tail] + encode(self._bytes[token][length:].decode()))
                except UnicodeDecodeError:
                    continue
                if token in trials[-1][_common(ids, trials[-1]) :]:
                    break
        keep = min((self._kept(text, ids, trial) for trial in trials), default=len(ids))
        return keep, trials

    def _kept(self, text: str, ids: list[int], trial: list[int]) -> int:
        """Return how many of the prompt's tokens are kept in `trial`, its tokens with more text behind it."""
        keep = self._boundary(text, ids, _common(ids, trial))
        if keep == len(ids) or text[-1].isspace() or text[-1].isalnum():
            return keep
        # Other punctuation behind punctuation may change how it is split. Few prompts go on so, and most prompts would
        # be healed because of it. So here the dropped text must be the beginning of one token.
        token, end = self._bytes.get(trial[keep], b""), self._text(ids[keep:])
        assert end is not None
        return keep if len(token) > len(end) and token.startswith(end) else len(ids)

    def _tail(self, text: str, ids: list[int]) -> tuple[int, Callable[[str], list[int]]]:
        """Return how many leading tokens stay fixed, and a function that tokenizes the rest for a given continuation.

        Only the prompt's end is tokenised again, unless it gives other tokens alone than within the prompt.
        """
        backbone, start = self._backbone, len(ids) - _TAIL
        if start > 0 and (end := self._text(ids[start:])):
            try:
                tail = end.decode()
            except UnicodeDecodeError:
                tail = ""
            if backbone.encode_completion(tail) == ids[start:]:
                return start, lambda rest: backbone.encode_completion(tail + rest)
        return 0, lambda rest: backbone.encode_prompt(text + rest)

    def _boundary(self, text: str, ids: list[int], keep: int) -> int:
        """Return the nearest number of tokens to keep such that a character begins after them."""
        while 1 < keep < len(ids) and (self._bytes.get(ids[keep]) or b" ")[0] & 0xC0 == 0x80:
            keep -= 1
        keep = min(max(keep, 1, len(ids) - MAX_DROPPED), len(ids))
        whole = text.encode()
        while keep < len(ids):
            end = self._text(ids[keep:])
            if end and whole.endswith(end) and end[0] & 0xC0 != 0x80:
                break
            keep += 1
        return keep


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def token_bytes(tokenizer) -> list[bytes | None]:
    """Return the bytes of each token id, or None for a special token and for one whose bytes are unknown."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found: list[bytes | None] = [None] * (max(tokenizer.get_vocab().values(), default=-1) + 1)
    if backend is None or backend.decoder is None:
        return found
    decoder = json.loads(backend.decoder.__getstate__())
    kinds = {part["type"] for part in (decoder, *decoder.get("decoders", ()))}
    if "ByteLevel" in kinds:
        convert = _from_byte_level
    elif "Metaspace" in kinds or {"Replace", "Fuse"} <= kinds:
        convert = _from_sentencepiece
    else:
        return found
    added = tokenizer.added_tokens_decoder
    for token, text in enumerate(tokenizer.convert_ids_to_tokens(range(len(found)))):
        if token in added:  # added tokens hold their text as it is
            found[token] = None if added[token].special else added[token].content.encode()
        elif text is not None:
            found[token] = convert(text)
    return found


def _byte_letters() -> dict[str, int]:
    """Return GPT-2's letters for bytes: printable bytes are themselves, the others are the letters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_LETTERS = _byte_letters()


def _from_byte_level(text: str) -> bytes | None:
    try:
        return bytes([_LETTERS[letter] for letter in text])
    except KeyError:
        return None


def _from_sentencepiece(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()

"""Token healing: a prompt that ends within what the tokenizer would make one token is continued from before that token.

'...):' + newline + four spaces may be one token behind ':', but a prompt that ends in the newline ends in another one,
after which a model that always saw the longer token writes something else. So the prompt's last tokens are taken away,
and the model writes their text again, with whatever follows it in the same token. The idea is that of guidance
(https://github.com/guidance-ai/guidance); how many tokens are taken away is asked of the tokenizer here: those that it
itself would change if the prompt went on with the rest of some token of the vocabulary.

How the engine calls it:

    healer = healer_of(backbone)
    healed = healer.heal(prompt.text)      # .ids instead of encode_prompt(prompt.text); .remainder bytes, b"" if at a boundary
    second = healed.shorten(second.ids)    # the second stream without the same tokens, masked or not; None: its text ends
                                           # in other tokens, then neither stream is healed (take healed.whole)
    rests = [healed.remainder] * n         # per row; while any is not empty:
    logits = healer.restrict(logits, rests)                           # after mixing, before choosing
    rests = [healer.rest(rest, token) for rest, token in zip(rests, tokens.tolist())]
    text = backbone.decode(row_ids)[len(healed.text):]                # stopping.cut takes healed.text

The dropped tokens leave both streams of a guided row, the same number each, so positions stay equal; what is written
again is read by both as it is, unmasked, as all that the model writes. The tokens of `healed.text` count as new tokens.
"""

from __future__ import annotations

import bisect
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cptlab.backbone import Backbone

MOST = 8  # tokens that are taken away
_TRIES = 32  # tokens of the vocabulary that are tried behind one ending, the most frequent ones (lowest ids) first
_TAIL = 24  # tokens of the prompt's end that the tokenizer sees in a trial, where that end is tokenised as within the prompt
_healers: weakref.WeakKeyDictionary[Backbone, Healer] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Healed:
    """A prompt's tokens without its last ones, `dropped`, whose text, `remainder`, must be generated first."""

    ids: list[int]
    dropped: list[int]
    remainder: bytes
    mask_id: int | None = None

    @property
    def whole(self) -> list[int]:
        """The tokens of the prompt as it is."""
        return self.ids + self.dropped

    @property
    def text(self) -> str:
        """The remainder as text: what the model repeats before its completion begins."""
        return self.remainder.decode()

    def shorten(self, ids: Sequence[int]) -> list[int] | None:
        """The tokens of a second stream without the same last tokens, which may be masked there; None where it ends in
        others."""
        start = len(ids) - len(self.dropped)
        if start < 1 or any(a not in (b, self.mask_id) for a, b in zip(ids[start:], self.dropped, strict=True)):
            return None
        return list(ids[:start])


def healer_of(backbone: Backbone) -> Healer:
    """The backbone's `Healer`, made once."""
    if backbone not in _healers:
        _healers[backbone] = Healer(backbone)
    return _healers[backbone]


class Healer:
    """Knows the bytes of every token. A tokenizer whose tokens cannot be read as bytes (not a fast one, or neither
    byte-level nor sentencepiece-like) is never healed: every prompt then has an empty remainder."""

    def __init__(self, backbone: Backbone) -> None:
        self._encode_prompt, self._encode, self._mask_id = (
            backbone.encode_prompt, backbone.encode_completion, backbone.mask_id
        )  # fmt: skip
        self._bytes = token_bytes(backbone.tokenizer)
        order = sorted((text, token) for token, text in enumerate(self._bytes) if text)
        self._texts, self._tokens = [text for text, _ in order], [token for _, token in order]
        self._longest = max(map(len, self._texts), default=0)
        self._allowed: dict[bytes, Tensor] = {}

    def heal(self, text: str) -> Healed:
        """The prompt's tokens without those that depend on what follows."""
        ids = self._encode_prompt(text)
        keep = self._unchanging(text, ids)
        return Healed(ids[:keep], ids[keep:], self._text(ids[keep:]) or b"", self._mask_id)

    def allowed(self, remainder: bytes) -> Tensor:
        """The tokens [A] that may come next: those that begin with the remainder, and those that are a beginning of it
        after which it can be completed."""
        if remainder not in self._allowed:
            tokens = self._beginning(remainder)
            for length in range(1, len(remainder)):
                same = [t for t in self._beginning(remainder[:length]) if len(self._bytes[t]) == length]
                if same and len(self.allowed(remainder[length:])):
                    tokens += same
            self._allowed[remainder] = torch.tensor(tokens, dtype=torch.long)
        return self._allowed[remainder]

    def rest(self, remainder: bytes, token: int) -> bytes:
        """What is left of the remainder after a token that was allowed."""
        return remainder[len(self._bytes[token]) :] if remainder else remainder

    def restrict(self, logits: Tensor, remainders: Sequence[bytes]) -> Tensor:
        """Logits [R, V] with −inf for what each row's remainder does not allow; rows without one stay as they are."""
        if not any(remainders):
            return logits
        logits = logits.clone()
        for row, remainder in enumerate(remainders):
            if remainder:
                tokens = self.allowed(remainder).to(logits.device)
                kept = logits[row, tokens]
                logits[row] = -torch.inf
                logits[row, tokens] = kept
        return logits

    def _beginning(self, text: bytes) -> list[int]:
        """The tokens whose bytes begin with `text`, those that are equal to it first."""
        low = bisect.bisect_left(self._texts, text)
        high = bisect.bisect_right(self._texts, text, low, key=lambda token: token[: len(text)])
        return self._tokens[low:high]

    def _text(self, ids: Sequence[int]) -> bytes | None:
        """The bytes of tokens, or None where one is special."""
        texts = [self._bytes[token] for token in ids]
        return None if None in texts else b"".join(texts)

    def _unchanging(self, text: str, ids: list[int]) -> int:
        """How many of the prompt's tokens stay whatever follows.

        A token that reaches over the prompt's end begins with some ending of the prompt. Endings are tried from the
        longest, each with what tokens of the vocabulary have behind it, until one is found that the tokenizer takes
        into a token that goes on: shorter ones lie within it.
        """
        tail, encode = self._tail(text, ids)
        ending = (self._text(ids[tail:]) or b"")[-self._longest :]
        keep, covered = len(ids), 0
        for length in range(len(ending), 0, -1):
            if length <= covered:
                break
            longer = [t for t in self._beginning(ending[-length:]) if len(self._bytes[t]) > length]
            for token in sorted(longer)[:_TRIES]:
                try:
                    rest = self._bytes[token][length:].decode()
                except UnicodeDecodeError:
                    continue
                changed = tail + _common(ids[tail:], encode(rest))
                if changed < keep and (changed := self._boundary(text, ids, changed)) < keep:
                    keep, covered = changed, len(self._text(ids[changed:]))
                    if covered >= length:
                        break
        return keep

    def _tail(self, text: str, ids: list[int]) -> tuple[int, Callable[[str], list[int]]]:
        """A number of first tokens, and the tokens behind them as a function of what follows the prompt."""
        start = len(ids) - _TAIL
        if start > 0 and (end := self._text(ids[start:])):
            try:
                tail = end.decode()
            except UnicodeDecodeError:
                tail = ""
            if self._encode(tail) == ids[start:]:
                return start, lambda rest: self._encode(tail + rest)
        return 0, lambda rest: self._encode_prompt(text + rest)

    def _boundary(self, text: str, ids: list[int], keep: int) -> int:
        """The nearest number of tokens to keep after which a character begins and the text is the prompt's end."""
        while keep > 1 and (self._bytes[ids[keep]] or b" ")[0] & 0xC0 == 0x80:
            keep -= 1
        keep = max(keep, 1, len(ids) - MOST)
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
    """The bytes of each token id; None for special tokens and where they cannot be told."""
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
        if token in added:  # as they are written, in either kind
            found[token] = None if added[token].special else added[token].content.encode()
        elif text is not None:
            found[token] = convert(text)
    return found


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for the letters from U+0100 on."""
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

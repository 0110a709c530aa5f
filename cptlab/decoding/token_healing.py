"""Token healing: a prompt that ends within what the tokenizer would make one token is continued from before that token.

A newline and the four spaces behind it are often one token, but a prompt that ends in the newline ends in another one,
after which a model that always saw the longer token writes something else. So the prompt's last tokens are taken away,
and the model writes their text again, with whatever follows it in the same token. The idea is that of guidance
(https://github.com/guidance-ai/guidance). How many tokens are taken away, and in which tokens their text may come back,
is asked of the tokenizer here: what it does to the prompt's end when the prompt goes on with the rest of some token.

How the engine calls it:

    healer = healer_of(backbone)
    healed = healer.heal(prompt.text)      # healed.ids instead of encode_prompt(prompt.text)
    second = healed.shorten(second.ids)    # the second stream without the same tokens, masked or not; None: its text ends
                                           # in other tokens, then neither stream is healed (ids = healed.whole, no rest)
    rests = [healed.rest] * n              # per row: what is to be written again, None at a boundary or when it is done
    logits = healer.restrict(logits, rests)                              # after mixing, before choosing
    rests = [healer.after(rest, token) for rest, token in zip(rests, tokens.tolist())]
    text = backbone.decode(row_ids)[len(healed.text):]                   # stopping.cut takes healed.text

The dropped tokens leave both streams of a guided row, the same number each, so positions stay equal; what is written
again is read by both as it is, unmasked, as all that the model writes. Its tokens come on top of `max_new_tokens`.
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

MOST = 8  # tokens that are taken away
_TRIES = 32  # tokens of the vocabulary that are tried behind one ending, the most frequent ones (lowest ids) first
_PLAIN = ("a", "0", " ", "\n", "(", '"')  # one of each kind: what follows white space decides how that is split
_TAIL = 24  # of a prompt's tokens, those that the tokenizer sees in a trial
_healers: weakref.WeakKeyDictionary[Backbone, Healer] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Rest:
    """Text that the model has yet to write again, not empty, and the tokens that may end within it: pairs of what is
    left of the text and a token that the tokenizer puts there."""

    text: bytes
    within: frozenset[tuple[bytes, int]]


@dataclass(frozen=True)
class Healed:
    """A prompt's tokens `ids` without its last ones, `dropped`, whose text is generated first: `rest`, or None."""

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
        """What the model repeats before its completion begins."""
        return self.rest.text.decode() if self.rest else ""

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
    byte-level nor sentencepiece-like) is never healed: no prompt then has a rest."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = weakref.ref(backbone)  # which `healer_of` holds weakly too
        self._mask_id = backbone.mask_id
        self._bytes = token_bytes(backbone.tokenizer)
        order = sorted((text, token) for token, text in enumerate(self._bytes) if text)
        self._texts, self._tokens = [text for text, _ in order], [token for _, token in order]
        self._longest = max(map(len, self._texts), default=0)
        self._allowed: dict[tuple[bytes, tuple[int, ...]], Tensor] = {}

    def heal(self, text: str) -> Healed:
        """The prompt's tokens without those that depend on what follows."""
        ids = self._backbone().encode_prompt(text)
        keep, trials = self._unchanging(text, ids)
        dropped = ids[keep:]
        if not dropped:
            return Healed(ids, [], None, self._mask_id)
        end = self._text(dropped)
        seen = [dropped, *(trial[keep:] for trial in trials if trial[:keep] == ids[:keep])]
        within = frozenset(pair for tokens in seen for pair in self._within(end, tokens))
        return Healed(ids[:keep], dropped, Rest(end, within), self._mask_id)

    def allowed(self, rest: Rest) -> Tensor:
        """The tokens [A] that may come next: those that begin with all that is left, and those that end within it as
        the tokenizer's do."""
        inside = tuple(sorted(token for left, token in rest.within if left == rest.text))
        key = rest.text, inside
        if key not in self._allowed:
            self._allowed[key] = torch.tensor([*self._beginning(rest.text), *inside], dtype=torch.long)
        return self._allowed[key]

    def after(self, rest: Rest | None, token: int) -> Rest | None:
        """What is left to write again after a token; one that was not allowed (in a beam that is lost) changes nothing."""
        if rest is None or token not in self.allowed(rest):
            return rest
        left = rest.text[len(self._bytes[token]) :]
        return Rest(left, rest.within) if left else None

    def restrict(self, logits: Tensor, rests: Sequence[Rest | None]) -> Tensor:
        """Logits [R, V] with −inf for what each row's rest does not allow; rows without one stay as they are."""
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
        """The tokens whose bytes begin with `text`."""
        low = bisect.bisect_left(self._texts, text)
        high = bisect.bisect_right(self._texts, text, low, key=lambda token: token[: len(text)])
        return self._tokens[low:high]

    def _text(self, ids: Sequence[int]) -> bytes | None:
        """The bytes of tokens, or None where one is special."""
        texts = [self._bytes[token] for token in ids]
        return None if None in texts else b"".join(texts)

    def _within(self, text: bytes, tokens: Iterable[int]) -> Iterable[tuple[bytes, int]]:
        """What is left of `text` at each of these tokens that ends within it, and the token."""
        for token in tokens:
            part = self._bytes[token]
            if part is None or len(part) >= len(text) or not text.startswith(part):
                return
            yield text, token
            text = text[len(part) :]

    def _unchanging(self, text: str, ids: list[int]) -> tuple[int, list[list[int]]]:
        """How many of the prompt's tokens stay whatever follows, and the tokens of the prompt with various texts behind.

        A token that reaches over the prompt's end begins with some ending of the prompt. Each ending is tried with what
        tokens of the vocabulary have behind it, until the tokenizer makes such a token there. `_PLAIN` is tried too.
        """
        tail, encode = self._tail(text, ids)
        special = max((i for i in range(tail, len(ids)) if self._bytes[ids[i]] is None), default=tail - 1)
        whole = self._text(ids[special + 1 :])
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
        """How many of the prompt's tokens are kept, from the tokens that it has with more text behind it."""
        keep = self._boundary(text, ids, _common(ids, trial))
        if keep == len(ids) or text[-1].isspace() or text[-1].isalnum():
            return keep
        # Punctuation may be divided anew before other punctuation. Few prompts go on so, and most would be healed for
        # it; so here the dropped text must be the beginning of one token.
        token, end = self._bytes[trial[keep]] or b"", self._text(ids[keep:])
        return keep if len(token) > len(end) and token.startswith(end) else len(ids)

    def _tail(self, text: str, ids: list[int]) -> tuple[int, Callable[[str], list[int]]]:
        """A number of first tokens, and the tokens behind them as a function of what follows the prompt: from the
        prompt's end alone, where that is tokenised as within the prompt."""
        backbone, start = self._backbone(), len(ids) - _TAIL
        if start > 0 and (end := self._text(ids[start:])):
            try:
                tail = end.decode()
            except UnicodeDecodeError:
                tail = ""
            if backbone.encode_completion(tail) == ids[start:]:
                return start, lambda rest: backbone.encode_completion(tail + rest)
        return 0, lambda rest: backbone.encode_prompt(text + rest)

    def _boundary(self, text: str, ids: list[int], keep: int) -> int:
        """The nearest number of tokens to keep after which a character begins and the text is the prompt's end."""
        while 1 < keep < len(ids) and (self._bytes[ids[keep]] or b" ")[0] & 0xC0 == 0x80:
            keep -= 1
        keep = min(max(keep, 1, len(ids) - MOST), len(ids))
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

"""The comparative data set: make pairs of the selected programs, write and read `pairs.jsonl`, describe the data set."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cptlab.errors import UserError
from cptlab.pairs.filters import written_program
from cptlab.pairs.injection import Edit, edit_masks
from cptlab.pairs.masks import Mask, message_lines, refined_masks, token_lines, token_masks
from cptlab.pairs.recipe import SampledPairs
from cptlab.pairs.selection import Choice
from cptlab.records import Completion, Pair, Quality, Task
from cptlab.settings.setting import check_settings
from cptlab.storage.jsonl import from_json, write_jsonl
from cptlab.tasks.splits import SPLITS

Encode = Callable[[str], Sequence[int]]
Decode = Callable[[list[int]], str]


def make_pair(
    task: Task,
    choice: Choice,
    completions: Sequence[Completion],
    qualities: Sequence[Quality],
    encode: Encode,
    decode: Decode,
    *,
    refine: str = "none",
    edits: Sequence[Edit] | None = None,
) -> Pair:
    """Make the record (I, x_a, m_a, x_b, m_b) of a choice of `select_pair` (Algorithm 1, lines 25-26).

    `task.prompt` is the prompt that the model read. `encode` gives the tokens of a completion without special tokens, and
    `decode` gives their text. The texts of the pair are the programs as the model wrote them, without `prompt.code`, each on
    whole lines where a closing line follows. The pair is in the task's split. `edits` are those that make the worse text of the
    better one, where that is known: then the masks are of exactly these. Raises UserError for an unknown `refine`.
    """
    check_settings(SampledPairs, refine=refine)
    prompt = task.prompt
    texts, ids, lines, finished = [], [], [], []
    for i in (choice.better, choice.worse):
        one = completions[i]
        text = written_program(one, prompt.code)
        assert text is not None, "filter_samples lets no other program through"
        behind = one.raw[len(text) :]
        closes_at = behind.find(prompt.closing)
        shows_end = closes_at >= 0 and not behind[:closes_at].strip()  # behind a tail, nothing shows the end
        finished.append(one.finished and not one.cleaned and shows_end)
        texts.append(text + behind[:closes_at] if finished[-1] else text)
        ids.append(list(encode(texts[-1])))
        code = prompt.code if one.program.startswith(prompt.code) else ""
        lines.append(message_lines({message.line for message in qualities[i].messages}, code))
    masks = _masks(ids, lines, decode, refine) if edits is None else edit_masks(ids[0], ids[1], edits, decode)
    return Pair(
        task_id=task.id,
        difficulty=task.difficulty,
        split=task.split,
        instruction=prompt.text,
        better=texts[0],
        worse=texts[1],
        better_mask=masks[0],
        worse_mask=masks[1],
        better_score=qualities[choice.better].score,
        worse_score=qualities[choice.worse].score,
        similarity=choice.similarity,
        combined_score=choice.combined_score,
        both_pass_public=choice.both_pass_public,
        better_finished=finished[0],
        worse_finished=finished[1],
        better_lines=lines[0],
        worse_lines=lines[1],
        closing=prompt.closing,
    )


def mask_anew(pair: Pair, encode: Encode, decode: Decode, *, refine: str = "none") -> Pair:
    """Return the pair with the masks that `make_pair` gives it in the tokens of another tokenizer."""
    check_settings(SampledPairs, refine=refine)
    ids = [list(encode(text)) for text in (pair.better, pair.worse)]
    better, worse = _masks(ids, [pair.better_lines, pair.worse_lines], decode, refine)
    return dataclasses.replace(pair, better_mask=better, worse_mask=worse)


def _masks(ids: list[list[int]], lines: list[Sequence[int]], decode: Decode, refine: str) -> tuple[Mask, Mask]:
    if refine == "none":
        return token_masks(*ids)
    return refined_masks(*ids, *(token_lines(tokens, decode) for tokens in ids), *lines)


def write_pairs(path: str | os.PathLike, pairs: Iterable[Pair]) -> None:
    """Write `pairs.jsonl`, one pair a line. The file appears complete or not at all."""
    write_jsonl(path, pairs)


def read_pairs(path: str | os.PathLike, encode: Encode | None = None) -> list[Pair]:
    """Read the pairs of a file and check each row. With `encode`, check that the masks fit this tokenizer, too.

    Raises UserError, with file and line, for a row that is malformed, contradicts itself or an earlier row, or was made
    with another tokenizer, and for a file that is missing or holds no pair.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no pairs file {path}. Check the path, or make it with `cptlab pairs`.")
    pairs: list[Pair] = []
    split_of: dict[str, str] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                pair = from_json(Pair, line.decode("utf-8"))
                _check(pair, split_of.setdefault(pair.task_id, pair.split))
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}: {error}. Correct or delete that line, or remake the file."
                ) from None
            pairs.append(pair)
    if not pairs:
        raise UserError(f"{path} holds no pairs. Remake it with `cptlab pairs`.")
    if encode is not None and not fit_tokenizer(pairs, encode):
        raise UserError(
            f"{path} was made with another tokenizer: its masks have other numbers of entries than this backbone's "
            "tokenizer gives tokens. Name it as data.pairs_file, which masks the pairs anew, or remake it with "
            "`cptlab pairs`."
        )
    return pairs


def _check(pair: Pair, task_split: str) -> None:
    if pair.split not in SPLITS:
        raise ValueError(f"field split is '{pair.split}', not one of {', '.join(SPLITS)}")
    if pair.split != task_split:
        raise ValueError(f"task {pair.task_id} is in split {pair.split} here and in {task_split} above")
    if not pair.better_score > pair.worse_score:
        raise ValueError(f"better_score {pair.better_score} is not above worse_score {pair.worse_score}")
    for name in ("better_mask", "worse_mask"):
        if not set(getattr(pair, name)) <= {0, 1}:
            raise ValueError(f"field {name} holds other values than 0 and 1")


def fit_tokenizer(pairs: Iterable[Pair], encode: Encode) -> bool:
    """Return whether the masks have as many entries as a tokenizer gives tokens."""
    return all(
        len(encode(text)) == len(mask)
        for pair in pairs
        for text, mask in ((pair.better, pair.better_mask), (pair.worse, pair.worse_mask))
    )


def pair_statistics(pairs: Sequence[Pair], encode: Encode, decode: Decode) -> dict[str, Any]:
    """Describe a data set as plain JSON. Shares are of all pairs, or of all completion tokens, taken together.

    - `pairs[difficulty][split]`, with `all` for both: number of pairs
    - `empty_mask_rate[better|worse|both]`: share of pairs whose mask(s) mark nothing
    - `masked_share[better|worse|both]`: share of completion tokens that are masked (`both`: of both programs together)
    - `masked_without_message`: share of masked tokens on lines that carry no message in their own program
    - `both_pass_public`: share of pairs whose programs both pass an essential test
    - `mean_score_gap` (points of 10), `mean_similarity`
    """
    assert pairs
    table: Counter[tuple[str, str]] = Counter()
    tokens, masked, empty, unflagged = Counter(), Counter(), Counter(), 0
    for pair in pairs:
        for difficulty in (pair.difficulty, "all"):
            for split in (pair.split, "all"):
                table[difficulty, split] += 1
        for side in ("better", "worse"):
            mask, flagged = getattr(pair, f"{side}_mask"), set(getattr(pair, f"{side}_lines"))
            lines = token_lines(encode(getattr(pair, side)), decode)
            tokens[side] += len(mask)
            masked[side] += sum(mask)
            empty[side] += not any(mask)
            unflagged += sum(m for m, line in zip(mask, lines, strict=True) if line not in flagged)
        empty["both"] += not any(pair.better_mask) and not any(pair.worse_mask)
    tokens["both"], masked["both"] = tokens.total(), masked.total()
    sides = ("better", "worse", "both")
    n = len(pairs)
    return {
        "pairs": _nested(table),
        "empty_mask_rate": {side: empty[side] / n for side in sides},
        "masked_share": {side: masked[side] / max(tokens[side], 1) for side in sides},
        "masked_without_message": unflagged / max(masked["both"], 1),
        "both_pass_public": sum(pair.both_pass_public for pair in pairs) / n,
        "mean_score_gap": sum(pair.better_score - pair.worse_score for pair in pairs) / n,
        "mean_similarity": sum(pair.similarity for pair in pairs) / n,
    }


def _nested(table: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    difficulties = list(dict.fromkeys(difficulty for difficulty, _ in table if difficulty != "all")) + ["all"]
    return {d: {split: table[d, split] for split in (*SPLITS, "all")} for d in difficulties}

"""SVEN's pairs (He & Vechev 2023, arXiv 2302.05319): functions before and after a security fix, as pairs to train on.

Security is a second property for prefixes, beside code quality. The files are {train,val}/cwe-*.jsonl in data_train_val
of github.com/eth-sri/sven. There is no official copy on the Hugging Face hub. Two things differ from SVEN: masks are the
token diff of CPT (IV-B-2) instead of SVEN's diff by characters, and the shared beginning of both functions is the
instruction, while SVEN's prefixes see no instruction.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from cptlab.errors import UserError
from cptlab.pairs.masks import token_masks
from cptlab.pairs.similarity import cosine_similarities
from cptlab.records import Pair
from cptlab.settings.setting import Setting, check_settings
from cptlab.tasks.files import DataDir, check_data_dir, file_rows

FOLDERS = {"train": "train", "validation": "val"}
_PYTHON_HEADER, _C_HEADER = re.compile(r":\s*(#.*)?$"), re.compile(r"\{\s*$")


def sven_pairs(
    data_dir: DataDir,
    encode: Callable[[str], Sequence[int]],
    max_tokens: int,
    language: Annotated[
        str, Setting("Language of the functions; all: C and C++ too.", choices=("python", "all"))
    ] = "python",
    cwes: Annotated[Sequence[str] | None, Setting("Weaknesses, such as [cwe-078,cwe-089]; null: all nine.")] = None,
) -> tuple[list[Pair], dict[str, int]]:
    """Read the pairs below `<data_dir>/sven`, and count the rows: `read`, and left out as `equal` or `too_long`.

    The better program is the function after the fix. Scores are 1.0 and 0.0, and the difficulty is the weakness, such
    as cwe-089. A pair is too long if instruction and program have more than `max_tokens` tokens. Raises UserError for missing or
    malformed files, and if no training pair is left.
    """
    check_settings(sven_pairs, language=language)
    pairs, counts = [], Counter(read=0, equal=0, too_long=0)
    for split, files in _files(data_dir, cwes).items():
        for path in files:
            for number, (where, row) in enumerate(file_rows(path), 1):
                texts = _texts(where, row)
                if language == "python" and not row["file_name"].endswith(".py"):
                    continue
                counts["read"] += 1
                if texts[0] == texts[1]:
                    counts["equal"] += 1
                    continue
                task_id = f"sven/{path.parent.name}/{path.stem}/{number}"
                pair = _pair(task_id, row, split, *texts, encode, max_tokens)
                if pair is None:
                    counts["too_long"] += 1
                else:
                    pairs.append(pair)
    if not any(pair.split == "train" for pair in pairs):
        raise UserError(
            f"No training pairs are left of {counts['read']} in SVEN's files: {counts['equal']} do not differ, "
            f"{counts['too_long']} have more than {max_tokens} tokens. Choose a backbone with a longer context, or more "
            "of pairs.dataset.cwes or .language."
        )
    return pairs, dict(counts)


def _files(data_dir: str | None, cwes: Sequence[str] | None) -> dict[str, list[Path]]:
    check_data_dir(data_dir)
    found = {split: sorted(Path(data_dir or "", "sven", folder).glob("cwe-*.jsonl")) if data_dir else []
             for split, folder in FOLDERS.items()}  # fmt: skip
    if not found["train"]:
        raise UserError(
            "SVEN's pairs are not on the Hugging Face hub: put train/ and val/ of data_train_val of "
            "github.com/eth-sri/sven into a folder sven, and give the directory that holds it as paths.data_dir or "
            "CPTLAB_DATA_DIR."
        )
    there = [path.stem for path in found["train"]]
    if unknown := [cwe for cwe in cwes or () if cwe not in there]:
        raise UserError(f"pairs.dataset.cwes: there is no {unknown[0]}. Choose from {', '.join(there)}.")
    return {split: [path for path in paths if cwes is None or path.stem in cwes] for split, paths in found.items()}


def _texts(where: str, row: dict[str, Any]) -> tuple[str, str]:
    """Return the function after and before the fix, with plain line ends. Raises UserError for a malformed row."""
    for name in ("func_src_after", "func_src_before", "file_name", "vul_type"):
        if not isinstance(row.get(name), str):
            raise UserError(f"{where}: there is no text {name}. Correct or delete that row, or take a fresh copy.")
    after, before = (row[name].replace("\r\n", "\n") for name in ("func_src_after", "func_src_before"))
    return after, before


def _pair(
    task_id: str, row: dict[str, Any], split: str, after: str, before: str, encode: Any, max_tokens: int
) -> Pair | None:
    instruction, better, worse = _cut(after, before, row["file_name"])
    ids = [list(encode(text)) for text in (instruction, better, worse)]
    if len(ids[0]) + max(len(ids[1]), len(ids[2])) > max_tokens:
        return None
    masks = token_masks(ids[1], ids[2])
    similarity = float(cosine_similarities([after, before])[0, 1])
    return Pair(
        task_id=task_id,
        difficulty=row["vul_type"],
        split=split,
        instruction=instruction,
        better=better,
        worse=worse,
        better_mask=masks[0],
        worse_mask=masks[1],
        better_score=1.0,
        worse_score=0.0,
        similarity=similarity,
        combined_score=similarity,  # nothing is chosen by it
        both_pass_public=False,  # there are no tests
    )


def _cut(after: str, before: str, file_name: str) -> tuple[str, str, str]:
    """Return the instruction, which ends before a newline, where a token ends, and both programs.

    The instruction is the function's header if that is the same in both, and else the file's name.
    """
    python = file_name.endswith(".py")
    lines = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(after.split("\n"), before.split("\n")))]
    last = next((i for i, line in enumerate(lines) if (_PYTHON_HEADER if python else _C_HEADER).search(line)), None)
    if last is None:
        comment = f"{'#' if python else '//'} {file_name}"
        return comment, "\n" + after, "\n" + before
    header = "\n".join(lines[: last + 1])
    return header, after[len(header) :], before[len(header) :]

"""pairs.jsonl: splits, reading what users may have touched, statistics."""

import json
import random
from collections import Counter

import pytest

from cptlab.errors import UserError
from cptlab.pairs import (
    fit_tokenizer,
    mask_anew,
    pair_statistics,
    read_pairs,
    refined_masks,
    token_lines,
    token_masks,
    write_pairs,
)
from cptlab.records import DIFFICULTIES, Pair
from cptlab.storage.jsonl import to_json
from cptlab.tasks.splits import SPLITS, split_tasks


def encode(text):
    return [ord(c) for c in text]


def decode(ids):
    return "".join(map(chr, ids))


def random_pair(rng: random.Random, number: int, difficulty: str = "interview", split: str = "train") -> Pair:
    worse = "\n".join("".join(rng.choices("ab 😀\u2028", k=rng.randint(0, 6))) for _ in range(rng.randint(1, 5)))
    better = "".join(c for c in worse if rng.random() < 0.8) + rng.choice(["", "z\n"])
    masks = token_masks(encode(better), encode(worse))
    lines = [tuple(sorted(rng.sample(range(5), rng.randint(0, 3)))) for _ in range(2)]
    scores = 5 + rng.random() * 5, rng.random() * 4
    flags = [rng.random() < share for share in (0.5, 0.9, 0.9)]  # both pass, better finished, worse finished
    return Pair(f"t{number}", difficulty, split, "# Do.\n", better, worse, *masks, *scores, 0.9, 0.8, *flags, *lines)


def sizes_by_hand(n: int, weights: tuple[int, ...]) -> list[int]:
    """Largest remainder with whole numbers only."""
    total = sum(weights)
    sizes = [n * w // total for w in weights]
    remainders = [n * w % total for w in weights]
    while sum(sizes) < n:
        i = remainders.index(max(remainders))
        sizes[i] += 1
        remainders[i] = -1
    return sizes


@pytest.mark.parametrize("weights", [(8, 1, 1), (1, 1, 1), (3, 0, 1), (0, 0, 5)])
@pytest.mark.parametrize("seed", range(6))
def test_splits_keep_each_difficultys_proportions(seed, weights):
    rng = random.Random(seed)
    difficulties = [rng.choice(DIFFICULTIES[: rng.randint(1, 3)]) for _ in range(rng.randint(1, 200))]
    ids = [f"task {i}" for i in range(len(difficulties))]
    fractions = [w / 10 for w in weights]
    splits = split_tasks(ids, difficulties, fractions, seed)
    for difficulty in set(difficulties):
        members = [task for task, of in zip(ids, difficulties, strict=True) if of == difficulty]
        found = Counter(splits[task] for task in members)
        assert [found[split] for split in SPLITS] == sizes_by_hand(len(members), weights)
    assert split_tasks(ids, difficulties, weights, seed) == splits

    order = rng.sample(range(len(ids)), len(ids))
    assert split_tasks([ids[i] for i in order], [difficulties[i] for i in order], weights, seed) == splits
    if len(ids) > 50 and weights == (8, 1, 1):
        assert split_tasks(ids, difficulties, weights, seed + 1) != splits


def test_the_paper_s_sizes():
    ids = [f"apps/{i}" for i in range(4436)]
    splits = split_tasks(ids, ["introductory"] * 1794 + ["interview"] * 2171 + ["competition"] * 471)
    assert Counter(splits.values()) == {"train": 3549, "validation": 444, "test": 443}


@pytest.mark.parametrize("fractions", [(1, 1), (0, 0, 0), (2, -1, 0)])
def test_senseless_fractions(fractions):
    with pytest.raises(UserError, match="fractions="):
        split_tasks(["a"], ["interview"], fractions)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_are_read_as_they_were_written(tmp_path, seed):
    rng = random.Random(seed)
    pairs = [random_pair(rng, number) for number in range(20)]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    assert read_pairs(tmp_path / "pairs.jsonl", encode) == pairs


def changed(**values):
    return lambda row: json.dumps({**row, **values}).encode()


MALFORMED = {
    "not JSON": lambda row: b'{"task_id": ',
    "not utf-8": lambda row: b"\xff\xfe",
    "not an object": lambda row: b"[1, 2]",
    "no such field": changed(extra=1),
    "field missing": lambda row: json.dumps({k: v for k, v in row.items() if k != "worse_mask"}).encode(),
    "mask of text": changed(better_mask="0101"),
    "mask of booleans": changed(better_mask=[True]),
    "mask of other numbers": changed(better_mask=[0, 2]),
    "score of text": changed(better_score="9"),
    "score not a number": changed(better_score=float("nan")),
    "worse is better": changed(better_score=1.0, worse_score=9.0),
    "unknown split": changed(split="dev"),
    "task in two splits": changed(task_id="t0", split="test"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_row_is_named(tmp_path, fault):
    rng = random.Random(1)
    rows = [to_json(random_pair(rng, number)).encode() for number in range(5)]
    rows[2:3] = [b"", MALFORMED[fault](json.loads(rows[2]))]  # a blank line counts, but is no row
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\n".join(rows) + b"\n")
    with pytest.raises(UserError, match=r"pairs\.jsonl, line 4: .*\. Correct or delete that line"):
        read_pairs(path)


def test_pairs_of_another_tokenizer(tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", [random_pair(random.Random(1), 0)])
    with pytest.raises(UserError, match=r"pairs\.jsonl was made with another tokenizer"):
        read_pairs(tmp_path / "pairs.jsonl", lambda text: text.split(" "))


@pytest.mark.parametrize("refine", ["none", "message_lines"])
def test_pairs_of_another_tokenizer_are_masked_anew(refine):
    """The same texts, in tokens of two letters instead of one."""
    parts: list[str] = []  # a token is a place here

    def two(text):
        found = [text[i : i + 2] for i in range(0, len(text), 2)]
        parts.extend(part for part in dict.fromkeys(found) if part not in parts)
        return [parts.index(part) for part in found]

    def text_of(ids):
        return "".join(parts[i] for i in ids)

    for seed in range(20):
        pair = random_pair(random.Random(seed), seed)
        found = mask_anew(pair, two, text_of, refine=refine)
        expected = token_masks(two(pair.better), two(pair.worse))
        if refine == "message_lines":
            lines = (token_lines(two(text), text_of) for text in (pair.better, pair.worse))
            ids = two(pair.better), two(pair.worse)
            expected = refined_masks(*ids, *lines, pair.better_lines, pair.worse_lines)
        assert (found.better_mask, found.worse_mask) == expected
        assert fit_tokenizer([found], two)
        assert mask_anew(found, encode, decode) == pair, "nothing but the masks has changed"


def test_no_file_and_no_rows(tmp_path):
    with pytest.raises(UserError, match="There is no pairs file"):
        read_pairs(tmp_path / "pairs.jsonl")
    write_pairs(tmp_path / "pairs.jsonl", [])
    with pytest.raises(UserError, match="holds no pairs"):
        read_pairs(tmp_path / "pairs.jsonl")


def test_statistics_by_plain_loops():
    rng = random.Random(7)
    pairs = [random_pair(rng, i, rng.choice(DIFFICULTIES), rng.choice(SPLITS)) for i in range(60)]
    found = pair_statistics(pairs, encode, decode)
    json.dumps(found)

    for difficulty in (*DIFFICULTIES, "all"):
        for split in (*SPLITS, "all"):
            count = 0
            for pair in pairs:
                count += difficulty in (pair.difficulty, "all") and split in (pair.split, "all")
            assert found["pairs"][difficulty][split] == count
    assert list(found["pairs"])[-1] == "all"

    masked = tokens = without = 0
    for pair in pairs:
        for text, mask, lines in (
            (pair.better, pair.better_mask, pair.better_lines),
            (pair.worse, pair.worse_mask, pair.worse_lines),
        ):
            for place, bit in enumerate(mask):
                tokens += 1
                masked += bit
                line = text[: place + 1].count("\n")  # a token is one character; a newline goes with what follows
                without += bit and line not in lines
    assert found["masked_share"]["both"] == masked / tokens
    assert found["masked_without_message"] == without / masked
    assert found["empty_mask_rate"] == {
        "better": sum(sum(p.better_mask) == 0 for p in pairs) / 60,
        "worse": sum(sum(p.worse_mask) == 0 for p in pairs) / 60,
        "both": sum(sum(p.better_mask) + sum(p.worse_mask) == 0 for p in pairs) / 60,
    }
    assert 0 < found["empty_mask_rate"]["better"] < 1
    assert found["both_pass_public"] == sum(p.both_pass_public for p in pairs) / 60

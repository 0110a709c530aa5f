"""Algorithm 1 against plain loops: similarity, selection, masks."""

import dataclasses
import itertools
import math
import random
import re
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from cptlab.errors import UserError
from cptlab.pairs import (
    FilterCounts,
    SampledPairs,
    SelectionOptions,
    cosine_similarities,
    difference_regions,
    make_pair,
    message_lines,
    no_pairs_left,
    refined_masks,
    select_pair,
    token_lines,
    token_masks,
)
from cptlab.records import Completion, Message, Prompt, Quality, Task, Verdict
from cptlab.settings.config_source import compose_config
from cptlab.settings.instantiate import instantiate

CODE = "def solve(items):\n"
TASK = Task("kata/1", "kata", "train", "interview", "call", Prompt("# Add them up.\n" + CODE, CODE), "solve")
LINES = [
    "    total = 0",
    "    result = []",
    "    for item in items:",
    "    for i in range(len(items)):",
    "        total += item",
    "        total = total + items[i]",
    "    if total > 0:\n        return total",
    "    else:\n        return 0",
    "    return Total",
    "    x = 1",
    "    i += 1; j = i",
    "    größe = 'naïve_ß'",
]


def random_program(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return CODE + rng.choice(["    x=1\n", "", "    return 0\n"])
    return CODE + "\n".join(rng.choices(LINES, k=rng.randint(1, 8))) + "\n"


def random_samples(seed: int, n: int) -> tuple[list[Completion], list[Quality], list[Verdict], list[Fraction]]:
    """Samples with repeats; scores are fractions, many of them 1 apart, and equal for equal programs."""
    rng = random.Random(seed)
    programs = [random_program(rng) for _ in range(max(1, n // 2))]
    pool = [rng.choice(programs) for _ in range(n)]
    statements = rng.choice([3, 7, 10, 30])
    exact = {p: max(Fraction(0), 10 - Fraction(10 * rng.randint(0, statements + 1), statements)) for p in programs}
    passing = {p: rng.random() < 0.3 for p in programs}
    completions = [Completion(TASK.id, i, p.removeprefix(CODE) + "raw", p, 5, True) for i, p in enumerate(pool)]
    qualities = [Quality(float(exact[p]), statements, False) for p in pool]
    verdicts = [Verdict("failed", public_passed=int(passing[p]), public_total=2) for p in pool]
    return completions, qualities, verdicts, [exact[p] for p in pool]


def naive_cosine(first: str, second: str) -> float:
    a, b = (Counter(re.findall(r"\b\w\w+\b", text.lower())) for text in (first, second))
    norms = sum(v * v for v in a.values()) * sum(v * v for v in b.values())
    return sum(a[word] * b[word] for word in a) / math.sqrt(norms) if norms else 0.0


@pytest.mark.parametrize("seed", range(25))
def test_similarities_are_those_of_each_pair_alone(seed):
    rng = random.Random(seed)
    programs = [random_program(rng) for _ in range(rng.randint(2, 20))] + ["x = 1", "é"]
    cosines = cosine_similarities(programs)
    for i, j in itertools.product(range(len(programs)), repeat=2):
        assert cosines[i, j] == naive_cosine(programs[i], programs[j])  # to the last bit
        if re.search(r"\w\w", f"{programs[i]} {programs[j]}"):  # otherwise it refuses them
            counts = CountVectorizer().fit_transform([programs[i], programs[j]])
            assert cosines[i, j] == pytest.approx(cosine_similarity(counts)[0, 1], abs=1e-12)


@pytest.mark.parametrize("programs", [[], [""], ["", "x = 1", "+"]])
def test_programs_without_words_are_similar_to_nothing(programs):
    cosines = cosine_similarities(programs)
    assert cosines.shape == (len(programs), len(programs))
    assert not cosines.any()


def test_a_cosine_of_exactly_two_fifths_is_not_above_it():
    programs = ["aa bb cc dd ee", "aa bb xx yy zz"]
    assert cosine_similarities(programs)[0, 1] == 0.4
    completions = [Completion(TASK.id, i, p, p, 1, True) for i, p in enumerate(programs)]
    qualities, verdicts = [Quality(9.0, 1, False), Quality(1.0, 1, False)], [Verdict("passed", public_passed=1)] * 2
    assert select_pair(TASK, completions, qualities, verdicts)[0] is None
    assert select_pair(TASK, completions, qualities, verdicts, SelectionOptions(min_similarity=0.39))[0] is not None


def naive_algorithm_1(completions, qualities, verdicts, exact, options):
    """Lines 6-24 as printed, over all samples, gaps compared as fractions."""
    candidates = []
    for i, j in itertools.combinations(range(len(completions)), 2):
        if qualities[i].score <= 0 or qualities[j].score <= 0:
            continue
        a, b = (i, j) if exact[i] >= exact[j] else (j, i)
        cosine = naive_cosine(completions[a].program, completions[b].program)
        if (exact[a] - exact[b]) / 10 > Fraction(str(options.min_gap)) and cosine > options.min_similarity:
            gap = (qualities[a].score - qualities[b].score) / 10
            combined = options.beta1 * gap + options.beta2 * cosine
            preferred = combined if options.prefer == "score" else cosine
            candidates.append((-preferred, -combined, completions[a].sample, completions[b].sample, a, b, cosine))
    candidates.sort()
    for _, negative, *_, a, b, cosine in candidates:
        if verdicts[a].public_passed >= 1 and verdicts[b].public_passed >= 1:
            return a, b, cosine, -negative, True
    if not candidates:
        return None
    _, negative, *_, a, b, cosine = candidates[0]
    return a, b, cosine, -negative, False


@pytest.mark.parametrize("prefer", ["score", "similarity"])
@pytest.mark.parametrize("seed", range(60))
def test_selection_is_algorithm_1(seed, prefer):
    options = SelectionOptions(prefer=prefer)
    completions, qualities, verdicts, exact = random_samples(seed, n=random.Random(seed).choice([1, 2, 5, 12, 30]))
    choice, counts = select_pair(TASK, completions, qualities, verdicts, options)
    expected = naive_algorithm_1(completions, qualities, verdicts, exact, options)
    if expected is None:
        assert choice is None
    else:
        assert dataclasses.astuple(choice) == expected

    programs = {c.program: q for c, q in zip(completions, exact, strict=True) if q > 0}
    gaps = [(a, b) for a, b in itertools.combinations(programs, 2) if abs(programs[a] - programs[b]) > 1]
    left = [pair for pair in gaps if naive_cosine(*pair) > 0.4]
    positive = sum(q > 0 for q in exact)
    pairs = math.comb(len(programs), 2)
    assert counts == FilterCounts(
        tasks=1,
        samples=len(completions),
        zero_score=len(completions) - positive,
        repeated=positive - len(programs),
        pairs=pairs,
        small_gap=pairs - len(gaps),
        low_similarity=len(gaps) - len(left),
        candidates=len(left),
        selected=int(choice is not None),
        both_pass_public=int(choice is not None and choice.both_pass_public),
    )


def test_random_samples_reach_every_case():
    outcomes = Counter()
    for seed in range(60):
        *samples, _ = random_samples(seed, n=random.Random(seed).choice([1, 2, 5, 12, 30]))
        choice, _ = select_pair(TASK, *samples)
        outcomes[choice and choice.both_pass_public] += 1
    assert min(outcomes[None], outcomes[False], outcomes[True]) >= 5


@pytest.mark.parametrize("seed", range(15))
def test_selection_does_not_depend_on_the_order_of_samples(seed):
    completions, qualities, verdicts, _ = random_samples(seed, n=30)
    choice, counts = select_pair(TASK, completions, qualities, verdicts)
    order = random.Random(-seed).sample(range(30), 30)
    shuffled = [[values[i] for i in order] for values in (completions, qualities, verdicts)]
    other, other_counts = select_pair(TASK, *shuffled)
    assert other_counts == counts
    assert (choice is None) == (other is None)
    if choice is not None:
        assert completions[choice.better] == shuffled[0][other.better]
        assert completions[choice.worse] == shuffled[0][other.worse]


def test_a_gap_of_one_point_is_too_small_whatever_floats_make_of_it():
    texts = ["aa bb cc = 1", "aa bb cc = 2"]
    completions = [Completion(TASK.id, i, text, text, 1, True) for i, text in enumerate(texts)]
    verdicts = [Verdict("passed", public_passed=1)] * 2
    assert (8.3 - 7.3) / 10 > 0.1  # by float noise
    for scores, expected in [((8.3, 7.3), 0), ((5.0, 4.0), 0), ((8.3, 7.299), 1), ((10.0, 8.9), 1), ((3.0, 0.0), 0)]:
        _, counts = select_pair(TASK, completions, [Quality(s, 9, False) for s in scores], verdicts)
        assert counts.selected == expected, scores


def test_identical_samples_never_pair_and_the_lowest_sample_stands_for_them():
    completions = [Completion(TASK.id, i, text, text, 1, True) for i, text in enumerate(["aa bb", "aa bb cc"] * 3)]
    qualities = [Quality(score, 9, False) for score in [4.0, 9.0] * 3]
    choice, counts = select_pair(TASK, completions, qualities, [Verdict("failed")] * 6)
    assert (choice.better, choice.worse, choice.both_pass_public) == (1, 0, False)
    assert (counts.repeated, counts.pairs, counts.candidates) == (4, 1, 1)


def test_equal_scores_are_settled_by_sample_numbers_the_better_ones_first():
    texts = ["aa bb = 1", "cc dd = 1", "aa bb = 2", "cc dd = 2"]  # only 0 and 2, 1 and 3 are similar
    completions = [Completion(TASK.id, i, text, text, 1, True) for i, text in enumerate(texts)]
    qualities = [Quality(score, 9, False) for score in (4.0, 9.0, 9.0, 4.0)]
    choice, counts = select_pair(TASK, completions, qualities, [Verdict("failed")] * 4)
    assert (choice.better, choice.worse, counts.candidates) == (1, 3, 2)


def test_counts_merge_and_explain_an_empty_data_set():
    one, two = FilterCounts(1, 20, 1, 3, 5, 66, 60, 6, 0, 0, 0), FilterCounts(1, 20, 1, 0, 0, 190, 90, 100, 0, 0, 0)
    merged = FilterCounts.merge([one, two])
    assert merged == one + two == FilterCounts(2, 40, 2, 3, 5, 256, 150, 106)
    message = str(no_pairs_left(merged, SelectionOptions()))
    assert message.startswith(
        "No pairs are left: 40 samples of 2 tasks, 2 dropped as not written in one piece, 3 by score > 0 and 5 as repeats; of "
        "the 256 pairs of the rest, 150 dropped by score gap / 10 > 0.1 and 106 by similarity > 0.4."
    )


def test_unknown_options_are_the_users_mistake():
    with pytest.raises(UserError, match="prefer=best cannot be: it must be score, similarity or ches"):
        SelectionOptions(prefer="best")


# -- masks


def naive_matching(a, b, a_lo, a_hi, b_lo, b_hi):
    """Ratcliff and Obershelp: the longest common block, first in a, then first in b; then on both its sides."""
    size, best_i, best_j = 0, a_lo, b_lo
    for i, j in itertools.product(range(a_lo, a_hi), range(b_lo, b_hi)):
        k = 0
        while i + k < a_hi and j + k < b_hi and a[i + k] == b[j + k]:
            k += 1
        if k > size:
            size, best_i, best_j = k, i, j
    if size == 0:
        return []
    before = naive_matching(a, b, a_lo, best_i, b_lo, best_j)
    after = naive_matching(a, b, best_i + size, a_hi, best_j + size, b_hi)
    return before + [(best_i + k, best_j + k) for k in range(size)] + after


@pytest.mark.parametrize("seed", range(40))
def test_masks_mark_what_does_not_match(seed):
    rng = random.Random(seed)
    a = [rng.randrange(6) for _ in range(rng.randint(0, 30))]
    b = [token for token in a if rng.random() < 0.8] if seed % 2 else [rng.randrange(6) for _ in range(20)]
    matches = naive_matching(a, b, 0, len(a), 0, len(b))
    mask_a, mask_b = token_masks(a, b)
    assert mask_a == tuple(int(i not in {i for i, _ in matches}) for i in range(len(a)))
    assert mask_b == tuple(int(j not in {j for _, j in matches}) for j in range(len(b)))
    kept = [t for t, m in zip(a, mask_a, strict=True) if not m]
    assert kept == [t for t, m in zip(b, mask_b, strict=True) if not m]
    for i1, i2, j1, j2 in difference_regions(a, b):
        assert all(mask_a[i1:i2]) and all(mask_b[j1:j2]) and (i1 < i2 or j1 < j2)


def test_frequent_tokens_of_long_programs_are_not_junk():
    a = [1, 2] * 150
    assert token_masks(a, a[:150] + [9] + a[150:]) == ((0,) * 300, (0,) * 150 + (1,) + (0,) * 150)


def test_insertions_and_equal_programs_give_empty_masks():
    assert token_masks([1, 2, 3], [1, 2, 7, 3]) == ((0, 0, 0), (0, 0, 1, 0))
    assert token_masks([1, 2], [1, 2]) == ((0, 0), (0, 0))
    assert token_masks([], [4]) == ((), (1,))


def characters(text):
    return [ord(c) for c in text]


def as_text(ids):
    return "".join(map(chr, ids))


def marked(text, mask):
    return "".join(c if m else "." for c, m in zip(text, mask, strict=True))


def test_refined_masks_keep_the_regions_that_touch_a_message():
    better, worse = "aX\nbb\ncZ\n", "aY\nbb\ncW\ndd\n"

    def refined(better_lines, worse_lines):
        a, b = characters(better), characters(worse)
        lines = token_lines(a, as_text), token_lines(b, as_text)
        masks = refined_masks(a, b, *lines, better_lines, worse_lines)
        return marked(better, masks[0]), marked(worse, masks[1])

    assert refined((), ()) == ("." * 9, "." * 12)
    assert refined((), (0,)) == (".X.......", ".Y..........")  # message in the worse program, both sides kept
    assert refined((0,), ()) == (".X.......", ".Y..........")
    assert refined((), (3,)) == (".........", ".........dd\n")  # pure insertion
    assert refined((), (1,)) == ("." * 9, "." * 12)  # a message where nothing differs
    everything = refined(range(9), range(9))
    assert everything == tuple(
        marked(t, m) for t, m in zip((better, worse), token_masks(*map(characters, (better, worse))), strict=True)
    )


def test_token_lines_are_those_of_the_first_visible_character():
    tokenizers = pytest.importorskip("tokenizers")
    text = "\n".join(LINES) + "\n\n\n    return 'é😀' # done\n  \n"
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text] * 3, vocab_size=330, min_frequency=1, show_progress=False)
    for program in (text, "    x = 1\n\n", "😀\n😀", ""):
        encoding = tokenizer.encode(program)
        lines = token_lines(encoding.ids, lambda ids: tokenizer.decode(ids))
        for (start, end), line in zip(encoding.offsets, lines, strict=True):
            visible = next((i for i in range(start, end) if not program[i].isspace()), end)
            assert line == program[:visible].count("\n")


def test_message_lines_count_from_the_completion():
    assert message_lines({1, 2, 4}, CODE) == (0, 2)  # line 1 is the signature's own
    assert message_lines([3, 1, 3], "") == (0, 2)
    assert message_lines({1, 2}, "def f():") == (0, 1)  # the completion goes on on the signature's line
    assert message_lines({1, 2, 4}, "x = 1\ndef f():\n") == (1,)


def test_pair_holds_completions_masks_and_lines():
    better, worse = "    return sum(items)\n", "    x = 3\n    return sum(items)\n"
    completions = [Completion(TASK.id, i, t + "junk", CODE + t, 5, True) for i, t in enumerate([worse, better])]
    qualities = [Quality(5.0, 3, False, (Message("W0612", "unused-variable", 2),)), Quality(10.0, 2, False)]
    verdicts = [Verdict("passed", public_passed=1, public_total=1)] * 2
    choice, _ = select_pair(TASK, completions, qualities, verdicts)
    pair = make_pair(TASK, choice, completions, qualities, characters, as_text)
    assert (pair.instruction, pair.better, pair.worse) == (TASK.prompt.text, better, worse)
    assert (pair.better_score, pair.worse_score, pair.both_pass_public) == (10.0, 5.0, True)
    assert (pair.better_lines, pair.worse_lines) == ((), (0,))
    assert (pair.better_mask, pair.worse_mask) == token_masks(characters(better), characters(worse))
    assert not any(pair.better_mask) and sum(pair.worse_mask) == len("    x = 3\n")
    assert pair.combined_score == pytest.approx(0.7 * 0.5 + 0.3 * pair.similarity)
    assert make_pair(TASK, choice, completions, qualities, characters, as_text, refine="message_lines") == pair
    clean = [dataclasses.replace(quality, messages=()) for quality in qualities]
    refined = make_pair(TASK, choice, completions, clean, characters, as_text, refine="message_lines")
    assert not any(refined.better_mask + refined.worse_mask)
    with pytest.raises(UserError, match="refine=lines cannot be: it must be none, message_lines or pylint_lines"):
        make_pair(TASK, choice, completions, qualities, characters, as_text, refine="lines")


def test_configs_are_algorithm_1():
    for name, n in (("paper", 100), ("kata", 12)):
        recipe = instantiate(compose_config("train", f"pairs={name}").pairs, "pairs")
        assert recipe == SampledPairs(n=n, train_tasks=recipe.train_tasks, validation_tasks=recipe.validation_tasks)
    assert SampledPairs().selection == SelectionOptions(0.1, 0.4, 0.7, 0.3, "score")


def test_no_torch():
    command = "import sys, cptlab.pairs; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], cwd=Path(__file__).parents[2]).returncode == 0


def test_a_task_of_a_hundred_programs_is_quick():
    completions, qualities, verdicts, _ = random_samples(5, n=200)
    assert len({c.program for c in completions}) > 50
    start = time.perf_counter()
    for _ in range(5):
        select_pair(TASK, completions, qualities, verdicts)
    assert (time.perf_counter() - start) / 5 < 0.5  # about 0.01; loops over pairs take seconds

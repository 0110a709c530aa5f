"""Error injectors against pylint itself, and their masks against a plain definition."""

import random
from collections import Counter

import pytest

from cptlab.backbone import load_backbone
from cptlab.judging.lint.pylint_score import score_programs
from cptlab.pairs.injection import INJECTORS, Edit, apply_edits, edit_masks, injections
from cptlab.pairs.injection.injectors import MESSAGES
from cptlab.tasks.kata import kata

CLEAN = {
    "numbers": """\
def solve(numbers):
    total = 0
    for num in numbers:
        if num > 3:
            total += num
    if not numbers:
        return "none"
    values = [num + 1 for num in numbers if num in (1, 2)]
    return f"got {total} {values}"
""",
    "search": """\
def solve(numbers):
    found = {}
    for num in numbers:
        if num < 0:
            continue
        if num > 90:
            break
        found[num] = sum(n * 2 for n in numbers)
    if len(numbers) > 900:
        raise ValueError("too many")
    largest = sorted(found)
    return largest if any(num > 2 for num in largest) else []
""",
    "text": '''\
def solve(text):
    """Keep the vowels; é is none."""
    kept = "".join(c for c in text if c in "aeiou")
    return kept
''',
}
INPUTS = {"numbers": [[], [1, 2, 3, 8]], "search": [[], [4, 1, 95, 7], [-1, 2]], "text": ["", "a quick fox, é"]}


def run(program: str, value):
    scope: dict = {}
    exec(program, scope)  # our own text
    return scope["solve"](value)


def test_each_injector_brings_about_its_message_and_nothing_else():
    assert set(INJECTORS) == set(MESSAGES)
    edited = [
        (message, name, apply_edits(program, edits))
        for name, program in CLEAN.items()
        for message in MESSAGES
        for edits in injections(program, message)
    ]
    texts = [*CLEAN.values(), *(program for *_, program in edited)]
    clean, qualities = {}, score_programs(texts, workers=1)
    for name, quality in zip(CLEAN, qualities):
        clean[name] = quality
        assert not quality.messages
    exact = Counter()
    for (message, name, program), quality in zip(edited, qualities[len(CLEAN) :], strict=True):
        assert [run(program, value) for value in INPUTS[name]] == [run(CLEAN[name], value) for value in INPUTS[name]]
        exact[message] += {one.id for one in quality.messages} == {message} and quality.score < clean[name].score
    assert {message for message in MESSAGES if exact[message]} == set(MESSAGES)


def test_an_edited_program_returns_a_value_of_the_same_type():
    tried = set()
    for expression in ("value > 2", "value * 1.0", "value", "[value]"):
        program = f"def solve(value):\n    if value == 9:\n        return None\n    return {expression}\n"
        for message in MESSAGES:
            for edits in injections(program, message):
                for value in (0, 2, 5.0, True):
                    assert repr(run(apply_edits(program, edits), value)) == repr(run(program, value)), (message, value)
                tried.add(message)
    assert tried >= {"R0911", "R0912", "R1705", "R1710"}


def test_edits_stay_behind_the_prompt_and_programs_that_do_not_parse_have_none():
    program = CLEAN["numbers"]
    start = len("def solve(numbers):")
    for message in MESSAGES:
        for edits in injections(program, message, start):
            assert apply_edits(program, edits).startswith(program[:start])
        assert injections("def solve(:", message) == injections("\0", message) == []
    assert not injections(program, "C0200", len(program))


@pytest.mark.parametrize("text", ["\r".join(CLEAN["numbers"].split("\n")), f"# one\rtwo = 2\n{CLEAN['numbers']}"])
def test_a_program_with_carriage_returns_alone_is_not_edited(text):
    compile(text, "own", "exec")
    assert not any(injections(text, message) for message in MESSAGES)


def reference_masks(before, after, edits, decode):
    """Mark the characters that the edits leave, by number; a token is kept if its characters are a token of the other text."""
    marks, old, new = 0, [], []
    text = decode(before)
    position = 0
    for edit in [*sorted(edits), Edit(len(text), len(text), "")]:
        kept = range(marks, marks + edit.start - position)
        old += [*kept, *[None] * (edit.end - edit.start)]
        new += [*kept, *[None] * len(edit.text)]
        marks, position = (
            marks + len(kept) + 1,
            edit.end,
        )  # + 1: characters on both sides of an edit do not follow each other

    def tokens(ids, characters):
        found, place = [], 0
        for one in ids:
            size = len(decode([one]))
            found.append(tuple(characters[place : place + size]))
            place += size
        return found

    def follows(token):
        return None not in token and all(b - a == 1 for a, b in zip(token, token[1:]))

    one, other = tokens(before, old), tokens(after, new)
    return (
        tuple(int(not (follows(token) and token in other)) for token in one),
        tuple(int(not (follows(token) and token in one)) for token in other),
    )


def test_masks_cover_the_edited_tokens_only():
    backbone = load_backbone("kata-lm")
    rng = random.Random(0)
    compared = 0
    for program in CLEAN.values():
        for message in MESSAGES:
            for edits in injections(program, message):
                before, after = (
                    list(backbone.encode_completion(text)) for text in (program, apply_edits(program, edits))
                )
                masks = edit_masks(before, after, edits, backbone.decode)
                if program.isascii():  # where tokens are texts by themselves
                    assert masks == reference_masks(before, after, edits, backbone.decode)
                left = [
                    [one for one, m in zip(ids, mask, strict=True) if not m]
                    for ids, mask in zip((before, after), masks)
                ]
                assert left[0] == left[1] and any(map(any, masks))
                compared += 1
        place = rng.randrange(len(program))
        assert apply_edits(program, [Edit(place, place, "")]) == program
    assert compared > 30


@pytest.mark.slow
def test_nearly_all_injections_into_canonical_solutions_are_exact():
    rng = random.Random(1)
    tasks = rng.sample(kata().split("train"), 40)
    edited = [
        (message, apply_edits(task.canonical_solution, rng.choice(found)))
        for task in tasks
        for message in MESSAGES
        if (found := injections(task.canonical_solution, message, len(task.prompt.code)))
    ]
    qualities = score_programs([program for _, program in edited], workers=1)
    exact = [{one.id for one in quality.messages} == {message} for (message, _), quality in zip(edited, qualities)]
    assert len(exact) > 200 and sum(exact) >= 0.98 * len(exact)

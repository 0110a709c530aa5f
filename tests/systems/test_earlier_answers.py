"""More programs, or programs for more tasks, than an earlier run: what it keeps is taken, and changed nowhere."""

import dataclasses
from pathlib import Path

import pytest

from cptlab.adapters import Policy
from cptlab.decoding import Sampling, generate
from cptlab.decoding.strategies.beams import Beams
from cptlab.systems import samples
from cptlab.systems.decoding import Decoding
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.samples import sample_and_judge

PLAIN = Decoding(Sampling(max_new_tokens=40))


@pytest.fixture
def made(monkeypatch):
    """(task, sample) of what is drawn."""
    drawn = []

    def counting(*arguments, ended, **options):
        def count(completion):
            drawn.append((completion.task_id, completion.sample))
            ended(completion)

        return generate(*arguments, ended=count, **options)

    monkeypatch.setattr(samples, "generate", counting)
    return drawn


def programs(backbone, tasks, n, cache: Path, decoding=PLAIN, seed=0):
    return sample_and_judge(LoadedSystem("base", Policy(backbone), decoding), tasks, n, Judge(cache), seed=seed)


def files(cache: Path) -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.glob("completions-*/*")}


def every(tasks, numbers):
    return [(task.id, sample) for task in tasks for sample in numbers]


def test_more_programs_and_more_tasks_draw_what_is_new(backbone, tasks, tmp_path, made):
    whole = programs(backbone, tasks, 3, tmp_path / "whole")
    made.clear()
    programs(backbone, tasks[1:3], 2, tmp_path)
    first = files(tmp_path)
    assert sorted(made) == sorted(every(tasks[1:3], range(2)))
    made.clear()
    found = programs(backbone, tasks, 3, tmp_path)
    assert sorted(made) == sorted(set(every(tasks, range(3))) - set(every(tasks[1:3], range(2))))
    assert found.completions == whole.completions and found.verdicts == whole.verdicts
    assert first.items() <= files(tmp_path).items()
    made.clear()
    fewer = programs(backbone, tasks[:2], 1, tmp_path)
    assert not made
    assert fewer.completions == [one for one in whole.completions if (one.task_id, one.sample) in every(tasks[:2], [0])]


def test_programs_of_a_killed_run_count(backbone, tasks, tmp_path, monkeypatch, made):
    counting = samples.generate
    with monkeypatch.context() as patch:

        def dying(*arguments, ended, **options):
            def end(completion):
                ended(completion)
                if len(made) == 5:
                    raise KeyboardInterrupt

            return counting(*arguments, ended=end, **options)

        patch.setattr(samples, "generate", dying)
        with pytest.raises(KeyboardInterrupt):
            programs(backbone, tasks, 2, tmp_path)
    (journal,) = tmp_path.glob("completions-*/*.journal")
    before = journal.read_bytes() + b'{"row": 7, "rec'  # as a process leaves it that is killed while it writes
    journal.write_bytes(before)
    kept, made[:] = set(made), []
    programs(backbone, tasks, 3, tmp_path)
    assert len(kept) == 5 and sorted(made) == sorted(set(every(tasks, range(3))) - kept)
    assert journal.read_bytes() == before


def test_only_the_same_way_of_drawing_the_same_task_counts(backbone, tasks, tmp_path, made):
    programs(backbone, tasks, 1, tmp_path)
    one = every(tasks[:1], [0, 1])
    for options in (
        {"seed": 1},
        {"decoding": Decoding(Sampling(max_new_tokens=40, temperature=0.5))},
        {"decoding": Decoding(Sampling(max_new_tokens=41))},
    ):
        made.clear()
        programs(backbone, tasks[:1], 2, tmp_path, **options)
        assert sorted(made) == one, options
    made.clear()
    renamed = [dataclasses.replace(tasks[1], id=tasks[0].id)]
    programs(backbone, renamed, 2, tmp_path)
    assert sorted(made) == one, "another prompt"


def test_beams_belong_together(backbone, tasks, tmp_path, made):
    for n in (1, 2):
        made.clear()
        beams = Decoding(Sampling(temperature=0, max_new_tokens=8), Beams(2))
        programs(backbone, tasks[:1], n, tmp_path, beams)
        assert sorted(made) == every(tasks[:1], range(n))


@pytest.mark.parametrize("damage", ["manifest.json", "00000.jsonl"])
def test_a_damaged_store_of_another_run_is_left_as_it_is(damage, backbone, tasks, tmp_path, made):
    programs(backbone, tasks[:1], 1, tmp_path)
    (path,) = tmp_path.glob(f"completions-*/{damage}")
    damaged = path.read_bytes().replace(b"t", b"T")
    path.write_bytes(damaged)
    made.clear()
    programs(backbone, tasks[:1], 2, tmp_path)
    assert sorted(made) == every(tasks[:1], [0, 1]) and path.read_bytes() == damaged

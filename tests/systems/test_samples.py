"""Programs are kept as they end: what a kill leaves is not made again, and the rest is what it would have been."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cptlab.adapters import Policy
from cptlab.decoding import Sampling, generate
from cptlab.decoding.strategies.beams import Beams
from cptlab.judging.verdicts.judge import judge_programs
from cptlab.systems import judge as judging
from cptlab.systems import samples
from cptlab.systems.decoding import Decoding
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.samples import sample_and_judge

ROOT = Path(__file__).parents[2]
N = 3
PLAIN = Decoding(Sampling())
DECODINGS = {
    "plain": PLAIN,
    "beams": Decoding(Sampling(temperature=0), Beams(4)),
    "second try": Decoding(Sampling(), second_try=True),
}


class Killed(BaseException):
    pass


def stored(cache: Path, kind: str = "completions") -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in sorted(cache.glob(f"{kind}-*/*"))}


SLOW = {"beams": pytest.mark.slow, "second try": [pytest.mark.slow]}
CASES = [pytest.param(one, id=name, marks=SLOW.get(name, ())) for name, one in DECODINGS.items()]


@pytest.mark.parametrize("decoding", CASES)
def test_no_finished_program_is_made_again(decoding, backbone, tasks, tmp_path, monkeypatch):
    system = LoadedSystem("base", Policy(backbone), decoding)
    whole = sample_and_judge(system, tasks, N, Judge(tmp_path / "whole"))
    made = []

    def dying(*arguments, ended, **options):
        left = 5

        def count(completion):
            nonlocal left
            ended(completion)
            made.append((options["seed"], completion.task_id, completion.sample))
            left -= 1
            if not left:
                raise Killed

        return generate(*arguments, ended=count, **options)

    monkeypatch.setattr(samples, "generate", dying)
    for _ in range(10):
        try:
            torn = sample_and_judge(system, tasks, N, Judge(tmp_path / "torn"))
            break
        except Killed:
            assert list(tmp_path.glob("torn/completions-*/*.journal"))
    assert torn == whole
    assert stored(tmp_path / "torn") == stored(tmp_path / "whole"), "the same files, and no journal is left"
    assert len(made) == len(set(made)) >= N * len(tasks)
    assert decoding.after_failure or len(made) == N * len(tasks)


def test_no_verdict_is_reached_again(backbone, tasks, tmp_path, monkeypatch):
    system = LoadedSystem("base", Policy(backbone), PLAIN)
    whole = sample_and_judge(system, tasks, N, Judge(tmp_path / "whole"))
    judged = []

    def dying(items, *, ended, **options):
        def count(place, verdict):
            ended(place, verdict)
            judged.append(items[place])
            if len(judged) == 4:
                raise Killed

        return judge_programs(items, ended=count, **options)

    monkeypatch.setattr(judging, "judge_programs", dying)
    with pytest.raises(Killed):
        sample_and_judge(system, tasks, N, Judge(tmp_path / "torn"))
    assert sample_and_judge(system, tasks, N, Judge(tmp_path / "torn")) == whole
    assert len(judged) == N * len(tasks)
    assert stored(tmp_path / "torn", "verdicts") == stored(tmp_path / "whole", "verdicts")


def test_a_second_try_is_the_same_model_with_fresh_random_numbers(backbone, tasks, tmp_path):
    judge, policy = Judge(tmp_path), Policy(backbone)
    first = sample_and_judge(LoadedSystem("base", policy, PLAIN), tasks, N, judge, seed=7)
    again = sample_and_judge(LoadedSystem("again", policy, DECODINGS["second try"]), tasks, N, judge, seed=7)
    fresh = sample_and_judge(LoadedSystem("fresh", policy, PLAIN), tasks, N, judge, seed=7 + samples.FRESH_SEED)
    rows = list(zip(first.completions, again.completions, fresh.completions, first.verdicts, strict=True))
    failed = [verdict.public_passed < verdict.public_total for *_, verdict in rows]
    assert 0 < sum(failed) < len(rows)
    for (before, after, other, _), had_failed in zip(rows, failed, strict=True):
        assert after.raw == (other if had_failed else before).raw  # which is equal up to rounding
        assert not had_failed or after.raw != before.raw
    assert again.cost.programs == (len(rows) + sum(failed)) / len(rows)


JOB = """
import sys
from pathlib import Path
from cptlab.adapters import Policy
from cptlab.backbone import load_backbone
from cptlab.decoding import Sampling
from cptlab.systems.decoding import Decoding
from cptlab.systems.judge import Judge
from cptlab.systems.loading import LoadedSystem
from cptlab.systems.samples import sample_and_judge
from cptlab.tasks.kata import kata

system = LoadedSystem("base", Policy(load_backbone("kata-lm")), Decoding(Sampling(), token_budget=2000))
sample_and_judge(system, kata().split("validation", 4), 3, Judge(Path(sys.argv[1]), workers=1))
"""


def test_killed_while_it_samples(backbone, tasks, tmp_path):
    """The journal of a killed process, with a torn last line, is read by the next one."""
    process = subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path / "torn")], cwd=ROOT)
    journals, deadline = [], time.monotonic() + 240
    while not journals or journals[0].stat().st_size < 1000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
        journals = list(tmp_path.glob("torn/completions-*/*.journal"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open(journals[0], "r+b") as file:
        file.truncate(journals[0].stat().st_size - 10)
    kept = journals[0].read_bytes().count(b"\n")
    system = LoadedSystem("base", Policy(backbone), Decoding(Sampling(), token_budget=2000))
    whole = sample_and_judge(system, tasks, N, Judge(tmp_path / "whole"))
    torn = sample_and_judge(system, tasks, N, Judge(tmp_path / "torn"))
    assert kept >= 1 and torn == whole
    assert stored(tmp_path / "torn") == stored(tmp_path / "whole")

"""ω: the search and its check, the store, tuning on disjoint tasks, and the curve that is drawn from stored files."""

import csv
import json
import re
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from run_commands import config

from cptlab.analysis.omega.search import Interval, differences, find_best, find_valleys, omega_grid
from cptlab.analysis.omega.tuning import check_metric, sentences, task_values, tune
from cptlab.commands.omega import tune_omega
from cptlab.commands.omega_curve import main
from cptlab.errors import UserError
from cptlab.metrics.programs import JudgedProgram
from cptlab.metrics.statistics import paired_difference
from cptlab.metrics.summary import summarise
from cptlab.records import Completion, Prompt, Quality, Task, Verdict
from cptlab.reporting.omega_sweep import read_curve
from cptlab.reporting.packing import pack_run
from cptlab.settings.validation import validate
from cptlab.storage.jsonl import write_jsonl
from cptlab.systems import tuned_omega as store
from cptlab.systems.decoding import Decoding

GRID = omega_grid()
SHAPES = {  # true curves, in logits
    "flat": lambda w: 0.0,
    "peak": lambda w: -8 * (w - 1.28) ** 2,
    "falling": lambda w: 2 * (1 - w),
    "rising": lambda w: 2 * (w - 1),
    "two peaks": lambda w: -1 + 1.2 * np.cos((w - 1.2) * 2 * np.pi / 0.55),
}


def noisy(shape, seed, tasks=60, n=10):
    """pass@1 of `tasks` tasks of unequal difficulty from `n` samples each; every call draws anew and is counted."""
    difficulty = np.random.default_rng(seed).normal(0, 1.5, tasks)
    calls = []

    def evaluate(omega):
        calls.append(omega)
        generator = np.random.default_rng([seed, round(omega * 1000)])
        return generator.binomial(n, 1 / (1 + np.exp(-(difficulty + SHAPES[shape](omega))))) / n

    return evaluate, calls


def exact(values):
    """A noiseless curve over GRID, the same for three tasks."""
    return lambda omega: [values[GRID.index(omega)]] * 3


def test_the_grid_has_its_ends_and_one():
    assert GRID[0] == 1.0 and GRID[-1] == 2.0 and len(GRID) == 21 and 1.15 in GRID
    assert omega_grid(0.3, 1.5, 0.5) == (0.3, 0.8, 1.0, 1.3)
    for wrong in [(2, 1, 0.1), (1, 2, 0), (1, 2, -0.1), (1, 2, 5), (1, float("inf"), 1), (1, 2, 1e-9)]:
        with pytest.raises(UserError, match="low="):
            omega_grid(*wrong)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 13, 20, 21, 34, 55])
def test_the_only_peak_of_a_noiseless_curve_is_found_wherever_it_is(size):
    grid = omega_grid(1, 1 + 0.01 * (size - 1), 0.01)
    assert len(grid) == size
    for peak in grid:
        calls = []

        def evaluate(omega, peak=peak, calls=calls):
            calls.append(omega)
            return [-abs(omega - peak)] * 2

        found = find_best(evaluate, grid, probes=2)
        assert found.best == peak and found.unimodal and not found.fell_back
        assert len(calls) == len(set(calls)) and list(found.scores) == calls
        assert size < 20 or len(calls) <= 5 + 2 * np.log2(size)
        assert found.at_end == (peak == grid[-1])


def test_a_probe_above_the_searchs_answer_is_followed_to_its_peak():
    values = [0.5, *[0.2] * 13, 0.3, 0.9, 0.6, *[0.2] * 4]  # flat ground tells the search nothing
    found = find_best(exact(values), GRID, probes=4)
    assert found.best == GRID[15]


@pytest.mark.parametrize("shape", ["peak", "falling", "rising", "flat"])
def test_noise_seldom_makes_a_valley_and_the_peak_is_found_nearly(shape):
    top = max(map(SHAPES[shape], GRID))
    valleys = flat = 0
    for seed in range(20):
        evaluate, calls = noisy(shape, seed)
        found = find_best(evaluate, GRID)
        assert sorted(calls) == sorted(set(calls))
        valleys, flat = valleys + (not found.unimodal), flat + found.flat
        assert top - SHAPES[shape](found.best) < 0.5  # of the best pass rate in logits
        assert found.unimodal is (not found.fell_back)
        if shape == "rising":
            assert found.helps and found.best >= 1.8
        if shape == "falling":
            assert not found.helps and found.best <= 1.2
    assert valleys <= 2
    assert flat >= 17 if shape == "flat" else flat == 0


def test_two_peaks_are_noticed_and_the_whole_grid_is_tried():
    for seed in range(10):
        evaluate, calls = noisy("two peaks", seed, tasks=120)
        found = find_best(evaluate, GRID)
        assert not found.unimodal and found.fell_back and sorted(calls) == list(GRID)
        assert min(abs(found.best - 1.2), abs(found.best - 1.75)) <= 0.051
        for valley in found.valleys:
            assert valley.left < valley.bottom < valley.right
            assert valley.fall.low > 0 and valley.rise.low > 0
            assert found.mean(valley.bottom) < min(found.mean(valley.left), found.mean(valley.right))


def test_a_dip_that_chance_explains_is_no_valley():
    generator = np.random.default_rng(0)
    task = generator.normal(size=40)
    noise = [generator.normal(0, 0.3, 40) for _ in range(3)]
    scores = {w: tuple(task + e - (0.05 if w == 1.5 else 0)) for w, e in zip((1.0, 1.5, 2.0), noise)}
    assert not find_valleys(scores)
    deep = {w: tuple(np.array(s) - (0.5 if w == 1.5 else 0)) for w, s in scores.items()}
    assert [(v.left, v.bottom, v.right) for v in find_valleys(deep)] == [(1.0, 1.5, 2.0)]
    assert not find_valleys({w: tuple(-np.array(s)) for w, s in deep.items()})  # a hill


def test_method_grid_tries_every_omega_and_checks_too():
    evaluate, calls = noisy("two peaks", 3, tasks=120)
    found = find_best(evaluate, GRID, method="grid")
    assert sorted(calls) == list(GRID) and not found.unimodal and not found.fell_back
    evaluate, _ = noisy("peak", 3)
    assert find_best(evaluate, GRID, method="grid").unimodal
    with pytest.raises(UserError, match="unimodal or grid"):
        find_best(evaluate, GRID, method="bisect")


def test_equal_scores_choose_the_plain_model_and_say_so():
    found = find_best(exact([0.4] * 21), GRID)
    assert found.best == 1.0 and found.flat and not found.helps and not found.at_end
    assert set(found.against_one) == set(found.scores) - {1.0}
    assert all(interval == Interval(0, 0, 0) for interval in found.against_one.values())


def test_simultaneous_intervals_hold_together_and_are_wider_than_one_alone():
    omegas = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    pairs = [(a, b) for i, a in enumerate(omegas) for b in omegas[i + 1 :]]
    missed = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        task = generator.normal(size=50)
        scores = {w: tuple(task + generator.normal(size=50)) for w in omegas}
        found = differences(scores, pairs, seed)
        missed += any(interval.excludes_zero for interval in found)
    assert missed <= 12  # 5 expected; separate 95% intervals would miss in about a third
    one = paired_difference(scores[1.0], scores[1.1])
    assert found[0].value == pytest.approx(one[0]) and found[0].high - found[0].low > one[2] - one[1]
    assert differences(scores, pairs, 1) == differences(dict(reversed(scores.items())), pairs, 1)


# ---- tuning


def make_task(number, split="validation", text=None):
    return Task(f"t{number}", "made", split, "", "call", Prompt(text or f"Task {number}"))


def judged(tasks, rate, n=10, seed=0):
    """Programs of each task, about `rate` of them right."""
    programs = {}
    for task in tasks:
        right = np.random.default_rng([seed, int(task.id[1:])]).random(n) < rate
        verdicts = [Verdict("passed" if hit else "failed") for hit in right]
        qualities = [Quality(5.0 + hit, 4, False) for hit in right]
        programs[task.id] = list(map(JudgedProgram, qualities, verdicts))
    return programs


def test_tuning_chooses_on_validation_tasks_and_reports_on_the_others():
    validation, test = [make_task(i) for i in range(40)], [make_task(i, "test") for i in range(40, 70)]
    asked = []

    def draw(tasks, omega):
        asked.append((tasks[0].split, omega))
        return judged(tasks, 0.4 + 0.3 * np.exp(-((omega - 1.3) ** 2) / 0.02), seed=7)

    lines = []
    tuned = tune(draw, validation, test, GRID, tell=lines.append)
    best = tuned.search.best
    assert 1.2 <= best <= 1.4 and tuned.search.helps
    assert [ask for ask in asked if ask[0] == "test"] == [("test", 1.0), ("test", best)]
    assert len(lines) == len(tuned.search.scores) == len([ask for ask in asked if ask[0] == "validation"])
    plain, after = (
        summarise(test, judged(test, rate, seed=7), ks=[1])["all"]["pass@1"]
        for rate in (0.4 + 0.3 * np.exp(-4.5), 0.4 + 0.3 * np.exp(-((best - 1.3) ** 2) / 0.02))
    )
    assert tuned.test["before"]["pass@1"] == plain and tuned.test["after"]["pass@1"] == after
    assert tuned.test["change"]["pass@1"] == pytest.approx(after - plain)
    record = json.loads(json.dumps(tuned.record()))
    assert record["omega"] == best and len(record["per_task"]["1.0"]) == 40
    text = " ".join(sentences("base", tuned, "pass@1"))
    assert "none contradicts" in text and "30 other tasks" in text and "not a finding" not in text


def test_a_failed_assumption_and_a_flat_curve_are_said():
    validation, test = [make_task(i) for i in range(80)], [make_task(i, "test") for i in range(80, 99)]
    grid = omega_grid(step=0.1)
    peaks = tune(
        lambda tasks, w: judged(tasks, 0.4 + 0.3 * np.cos((w - 1.2) * 2 * np.pi / 0.55), seed=1), validation, test, grid
    )
    said = " ".join(sentences("base", peaks, "pass@1"))
    assert "FAILED" in said and "whole grid" in said and "11 of 11" in said
    flat = tune(lambda tasks, w: judged(tasks, 0.5, seed=round(w * 100)), validation, test, grid)
    assert flat.record()["flat"] and "not a finding" in " ".join(sentences("base", flat, "pass@1"))
    same = tune(lambda tasks, w: judged(tasks, 0.5), validation, test, grid)
    assert same.search.best == 1 and "the plain model is kept" in " ".join(sentences("base", same, "pass@1"))


def test_metrics_of_a_task():
    tasks = [make_task(0)]
    qualities = [Quality(s, 3, False) for s in (2.0, 4.0, 9.0)]
    found = {"t0": list(map(JudgedProgram, qualities, map(Verdict, ("passed", "failed", "timeout"))))}
    values = {
        m: task_values(tasks, found, m)[0] for m in ("pass@1", "pass@2", "pylint_mean", "pylint_max", "pylint_min")
    }
    assert values == pytest.approx(
        {"pass@1": 1 / 3, "pass@2": 2 / 3, "pylint_mean": 5, "pylint_max": 9, "pylint_min": 2}
    )
    with pytest.raises(UserError, match="pass@1"):
        check_metric("accuracy", 4)
    with pytest.raises(UserError, match="n=4"):
        check_metric("pass@5", 4)
    with pytest.raises(UserError, match="metric=tokens counts tokens per program"):
        check_metric("tokens", 4)


# ---- the store


@dataclass(frozen=True)
class MadeNegative:
    spans: tuple = ("nl",)


@dataclass(frozen=True)
class MadeGuidance:
    negative: object = field(default_factory=MadeNegative)
    omega: float = 1.28
    gate: str = "always"


def a_system(adapter=None, guidance=None, strategy=None, prompt=None, **sampling):
    sampling = SimpleNamespace(**({"temperature": 0.4, "top_p": 0.95, "top_k": 0, "stop": ()} | sampling))
    decoding = Decoding(sampling, strategy, guidance or MadeGuidance())
    return SimpleNamespace(decoding=decoding, adapter_digest=adapter, prompt=prompt, selection=None, post_processing=())


def a_setting(benchmark="kata", content="c1", mask=7, **system):
    backbone = SimpleNamespace(fingerprint="abc123", prompt_form=None, mask_id=mask)
    benchmark = SimpleNamespace(name=benchmark, fingerprint=lambda: content)
    return store.omega_setting(a_system(**system), backbone, benchmark)


def test_a_stored_omega_comes_back_for_other_tasks_alone(tmp_path):
    validation, test = [make_task(i) for i in range(5)], [make_task(i, "test") for i in range(5, 9)]
    setting = a_setting()
    with pytest.raises(UserError, match="cptlab omega"):
        store.stored_omega(tmp_path, setting, test)
    file = store.store(tmp_path, setting, validation, 1.15, flat=True)
    assert file.parent == tmp_path / "omega" and file.name.startswith("abc123-alone-kata-")
    record = json.loads(file.read_text())
    assert (
        record["flat"]
        and record["number_of_tasks"] == 5
        and set(record["validation_tasks"]) == {t.id for t in validation}
    )
    assert store.stored_omega(tmp_path, setting, test) == 1.15
    with pytest.raises(UserError, match="tuned on 1 of these 5 tasks .t3."):
        store.stored_omega(tmp_path, setting, [*test, validation[3]])
    same_text = replace(test[0], prompt=validation[0].prompt)  # another id, the same task
    with pytest.raises(UserError, match="tuned on 1 of"):
        store.stored_omega(tmp_path, setting, [same_text])
    store.store(tmp_path, setting, validation, 1.3)
    assert store.stored_omega(tmp_path, setting, test) == 1.3


def test_an_omega_is_stored_for_what_decides_and_nothing_else(tmp_path):
    mine = a_setting()
    others = [
        a_setting(adapter="d" * 64),
        a_setting(prompt="clean"),
        a_setting(benchmark="mbpp"),
        a_setting(content="c2"),
        a_setting(temperature=0.0),
        a_setting(guidance=MadeGuidance(MadeNegative(("nl", "tests")))),
        a_setting(strategy="beams"),
        a_setting(guidance=MadeGuidance(gate="entropy")),
        a_setting(mask=8),
    ]
    assert len({setting.file(tmp_path) for setting in [mine, *others]}) == 10
    assert mine == a_setting(guidance=MadeGuidance(omega=1.5)) == a_setting(stop=("\n",))
    store.store(tmp_path, mine, [make_task(0)], 1.2)
    for other in others:
        with pytest.raises(UserError, match="No ω was tuned"):
            store.stored_omega(tmp_path, other, [])
    with pytest.raises(UserError, match="tuned for another decoding"):
        store.stored_omega(tmp_path, others[4], [])


def test_omega_one_is_the_plain_model():
    decoding = a_system().decoding
    assert decoding.with_omega(1.0).guidance is None
    assert decoding.with_omega(1.5).guidance == MadeGuidance(omega=1.5)


# ---- the command

TINY = (
    "run=null",
    "backbone=kata_lm",
    "benchmark=kata",
    "validation_tasks=4",
    "test_tasks=3",
    "n=2",
    "step=0.5",
    "workers=1",
)


def test_the_command_tunes_stores_and_reports_on_other_tasks(tmp_path, capsys):
    directory = tune_omega(config("omega", tmp_path, *TINY), tmp_path / "logs" / "omega" / "runs" / "now")
    shown = capsys.readouterr().out
    found = json.loads((directory / "omega.json").read_text())
    record = found["systems"]["base"]
    assert set(record["evaluated"]) == {1.0, 1.5, 2.0} and record["omega"] in record["evaluated"]
    assert len(found["validation_tasks"]) == 4 and len(found["test_tasks"]) == 3
    assert not set(found["validation_tasks"]) & set(found["test_tasks"]) and found["versions"]["torch"]
    assert record["test"]["after"]["tasks"] == 3 and record["values"]["1.0"]["tasks"] == 4
    stored = json.loads(open(record["stored"]).read())
    assert stored["omega"] == record["omega"] and stored["flat"] == record["flat"] and stored["versions"]
    assert list(stored["validation_tasks"]) == found["validation_tasks"]
    assert f"stored in {record['stored']}" in shown
    for name in (
        "config.yaml",
        "omega_curve.png",
        "omega_curve.svg",
        "omega_curve.csv",
        "omega_curve.md",
        "omega_curve.html",
        "omega_test.csv",
        "tasks.jsonl",
        "base/omega_1/verdicts.jsonl",
    ):
        assert (directory / name).is_file(), name
    page = (directory / "omega_curve.html").read_text()
    assert "Tuned ω on other tasks" in page and "<section id='programs'" in page and "3 tasks</span>" in page
    again = tune_omega(config("omega", tmp_path, *TINY), tmp_path / "logs" / "omega" / "runs" / "again")
    assert json.loads((again / "omega.json").read_text())["systems"] == found["systems"]


@pytest.mark.parametrize(
    "override, said",
    [
        ("decoding=paper", "no ω"),
        ("metric=accuracy", "no metric 'accuracy'"),
        ("metric=pass@5", "n=2"),
        ("step=0", "step=0"),
        ("method=newton", "unimodal or grid"),
        ("validation_split=validatoin", "no split 'validatoin'"),
        ("test_split=validation", "none is left"),
        ("system=[tuned]", "run=<directory>"),
        ("probes=-1", "probes=-1"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, override, said):
    with pytest.raises(UserError, match=re.escape(said)):
        composed = config("omega", tmp_path, *TINY, "test_tasks=2", override)
        validate(composed)
        tune_omega(composed, tmp_path / "run")


# ---- the curve

OMEGAS = (1.0, 1.1, 1.2, 1.3, 1.4)
RATES = {"base": (0.40, 0.46, 0.50, 0.44, 0.30), "tuned": (0.44, 0.47, 0.45, 0.38, 0.22)}


def a_sweep(folder, omegas=OMEGAS, systems=("base", "tuned"), first=0, **changed):
    """An evaluation sweep's files: made-up records, and metrics.json from them."""
    tasks = [make_task(i, "test") for i in range(60)]
    for number, omega in enumerate(omegas, first):
        run = folder / str(number)
        results = {}
        for system in systems:
            found = judged(tasks, RATES[system][OMEGAS.index(omega)], seed=5)
            write_jsonl(
                run / system / "completions.jsonl",
                [Completion(t.id, i, "x", "x", 1, True) for t in tasks for i in range(10)],
            )
            write_jsonl(run / system / "quality.jsonl", [p.quality for t in tasks for p in found[t.id]])
            write_jsonl(run / system / "verdicts.jsonl", [p.verdict for t in tasks for p in found[t.id]])
            results[system] = summarise(tasks, found, ks=[1])
        write_jsonl(run / "tasks.jsonl", tasks)
        guidance = {"omega": omega, "gate": "always"}
        config = {
            "seed": 0,
            "n": 10,
            "decoding": {"omega": omega, "gate": "always", "guidance": guidance},
            "paths": {"logs": str(folder)},
            "run": "latest",
        } | changed
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        facts = {
            "benchmark": "made",
            "backbone": "made-lm",
            "split": "test",
            "n": 10,
            "seed": config["seed"],
            "git": {"commit": "a"},
        }
        (run / "metrics.json").write_text(json.dumps({"results": results, **facts}))
        (run / "run.json").write_text(json.dumps({"finished": True}))
    return folder


def test_a_packed_sweep_gives_the_same_curve(tmp_path):
    sweep = a_sweep(tmp_path / "sweep", OMEGAS[:3])
    packed = pack_run(sweep, tmp_path / "packed")
    assert main([str(sweep)]) == main([str(packed)]) == 0
    made, again = (
        {path.suffix: path.read_bytes() for path in folder.glob("omega_curve.*")} for folder in (sweep, packed)
    )
    assert made.pop(".html") and again.pop(".html")  # a packed run has no prompts
    assert len(made) == 4 and made == again


def test_the_curve_is_read_from_stored_files_and_written_beside_them(tmp_path, capsys):
    sweep = a_sweep(tmp_path / "sweep")
    assert main([str(sweep)]) == 0
    shown = capsys.readouterr().out
    assert "base: pass@1 is highest at ω = 1.2" in shown and "tuned: pass@1 is highest at ω = 1.1" in shown
    rows = list(csv.DictReader((sweep / "omega_curve.csv").open()))
    assert len(rows) == 5 * 2 * 2
    row = next(r for r in rows if (r["system"], r["omega"], r["metric"]) == ("base", "1.2", "pass@1"))
    tasks = [make_task(i) for i in range(60)]
    plain, there = (task_values(tasks, judged(tasks, rate, seed=5), "pass@1") for rate in (0.40, 0.50))
    assert float(row["value"]) == pytest.approx(np.mean(there))
    assert [float(row[c]) for c in ("change", "change_lo", "change_hi")] == pytest.approx(
        paired_difference(plain, there)
    )
    assert float(row["lo"]) < float(row["value"]) < float(row["hi"]) and row["tasks"] == "60"
    page = (sweep / "omega_curve.md").read_text()
    assert page.count("\n| base ") == page.count("\n| tuned ") == 5 and "omega_curve.png" in page
    page = (sweep / "omega_curve.html").read_text()
    assert "pass@1 (%) is highest for base at ω = 1.2 (" in page
    assert re.findall(r"<option value='[0-3]'>(\w+, ω = [\d.]+)</option>", page) == [
        "base, ω = 1",
        "base, ω = 1.2",
        "tuned, ω = 1",
        "tuned, ω = 1.1",
    ]
    before = {kind: (sweep / f"omega_curve.{kind}").read_bytes() for kind in ("png", "svg", "csv", "md", "html")}
    assert main([str(sweep)]) == 0
    assert before == {kind: (sweep / f"omega_curve.{kind}").read_bytes() for kind in before}
    text = before["svg"].decode()
    assert text.startswith("<?xml") and before["png"].startswith(b"\x89PNG")


def of_model(sweep, **facts):
    """The same sweep with other facts in its metrics, such as another backbone."""
    for file in sweep.glob("*/metrics.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return sweep


def test_several_models_are_curves_in_one_figure(tmp_path, capsys):
    one = a_sweep(tmp_path / "one", OMEGAS[:4])
    other = of_model(a_sweep(tmp_path / "other", OMEGAS[1:]), backbone="other-lm")
    alone = [read_curve([sweep]) for sweep in (one, other)]
    both = read_curve([one, other])
    assert both.about == "2 models on made, split test, n = 10"
    assert list(both.values) == [f"{system} of {m}" for m in ("made-lm", "other-lm") for system in alone[0].values]
    for curve, model in zip(alone, ("made-lm", "other-lm"), strict=True):
        for system in curve.values:
            assert both.values[f"{system} of {model}"] == curve.values[system]
            assert both.changes.get(f"{system} of {model}") == curve.changes.get(system)
    assert main([str(one), str(other)]) == 0 and "base of other-lm" in (one / "omega_curve.md").read_text()
    with pytest.raises(UserError, match="n is 10 for made-lm and 20 for other-lm"):
        read_curve([one, of_model(other, n=20)])
    with pytest.raises(UserError, match="only one finished run of third-lm"):
        read_curve([one, of_model(a_sweep(tmp_path / "third", OMEGAS[:1]), backbone="third-lm")])


def test_runs_that_differ_in_more_than_omega_are_refused(tmp_path, capsys):
    sweep = a_sweep(tmp_path / "sweep", OMEGAS[:3])
    a_sweep(sweep, OMEGAS[3:], first=3, seed=1)
    assert main([str(sweep)]) == 2
    said = capsys.readouterr().err
    assert "differ in more than ω: seed is 0 in" in said and "1 in" in said and not (sweep / "omega_curve.md").exists()
    seeds = a_sweep(tmp_path / "seeds", OMEGAS[:2])
    a_sweep(seeds, OMEGAS[:2], first=2, seed=1)  # the same two ω again
    with pytest.raises(UserError, match="differ in more than ω: seed is 0 in"):
        read_curve([seeds])
    other = a_sweep(tmp_path / "other", OMEGAS[:2])
    facts = json.loads((other / "1" / "metrics.json").read_text())
    (other / "1" / "metrics.json").write_text(json.dumps(facts | {"backbone_fingerprint": "another"}))
    with pytest.raises(UserError, match="backbone_fingerprint"):
        read_curve([other])
    gates = a_sweep(tmp_path / "gates", OMEGAS[:2])
    a_sweep(
        gates,
        OMEGAS[2:3],
        first=2,
        decoding={"omega": 1.2, "gate": "always", "guidance": {"omega": 1.2, "gate": "entropy"}},
    )
    with pytest.raises(UserError, match="decoding.guidance.gate"):
        read_curve([gates])


def test_unfinished_runs_are_named_and_left_out(tmp_path, capsys):
    sweep = a_sweep(tmp_path / "sweep")
    (sweep / "1" / "run.json").write_text(json.dumps({"finished": False}))
    (sweep / "2" / "metrics.json").unlink()
    for name in (".submitit", "tables", "figures", "wandb"):  # what a report of the sweep leaves there
        (sweep / name).mkdir()
    curve = read_curve([sweep])
    assert list(curve.values["base"]) == [1.0, 1.3, 1.4]
    named = [f"{sweep}/{number} is unfinished" in note for number, note in zip((1, 2), curve.notes, strict=True)]
    assert named == [True, True]
    assert main([str(sweep)]) == 0 and "unfinished" in capsys.readouterr().out
    for number in (0, 3):
        (sweep / str(number) / "metrics.json").unlink()
    with pytest.raises(UserError, match="only one finished run .ω = 1.4.*unfinished"):
        read_curve([sweep])
    with pytest.raises(UserError, match="no finished run"):
        read_curve([tmp_path])
    with pytest.raises(UserError, match="There is no directory"):
        read_curve([tmp_path / "nowhere"])


def test_a_plain_run_is_omega_one_and_several_folders_are_one_sweep(tmp_path):
    sweep = a_sweep(tmp_path / "sweep", OMEGAS[1:], systems=("base",))
    assert not read_curve([sweep]).changes and "No run has ω = 1" in " ".join(read_curve([sweep]).notes)
    plain = a_sweep(tmp_path / "plain", (1.0,), systems=("base",), decoding={"guidance": None})
    curve = read_curve([sweep, plain / "0"])
    assert list(curve.values["base"]) == list(OMEGAS) and set(curve.changes["base"]) == set(OMEGAS[1:])
    (tmp_path / "bad" / "0").mkdir(parents=True)
    (tmp_path / "bad" / "0" / "metrics.json").write_text('{"results": {}}')
    (tmp_path / "bad" / "0" / "config.yaml").write_text("decoding: {omega: tuned, guidance: {}}")
    with pytest.raises(UserError, match="omega=tuned, which is no number"):
        read_curve([tmp_path / "bad"])


def test_the_curve_of_a_tuning_is_drawn_from_its_file_alone(tmp_path, capsys):
    validation, test = [make_task(i) for i in range(30)], [make_task(i, "test") for i in range(30, 50)]
    tuned = tune(lambda tasks, w: judged(tasks, 0.7 - 2 * (w - 1.2) ** 2, seed=2), validation, test, GRID)
    record = tuned.record() | {"sentences": sentences("base", tuned, "pass@1")}
    found = {"systems": {"base": record}, "metrics": ["pass@1", "pylint_mean"], "about": "made-lm on made"}
    (tmp_path / "omega.json").write_text(json.dumps(found))
    assert main([str(tmp_path)]) == 0
    assert "Tuned ω on tasks that it was not tuned on" in capsys.readouterr().out
    assert "<section id='programs'" not in (tmp_path / "omega_curve.html").read_text()  # none are stored
    rows = list(csv.DictReader((tmp_path / "omega_curve.csv").open()))
    assert [float(row["omega"]) for row in rows if row["metric"] == "pass@1"] == sorted(tuned.search.scores)
    rows = list(csv.DictReader((tmp_path / "omega_test.csv").open()))
    change = next(row for row in rows if row["side"] == "change" and row["metric"] == "pass@1")
    assert float(change["value"]) == pytest.approx(tuned.test["change"]["pass@1"]) and change["tasks"] == "20"

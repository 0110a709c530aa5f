"""The metrics: how each is computed from one task's programs, and how it is shown.

A further metric is a function and a line in `METRICS`. Summaries, tables, figures and checks of a metric's name all
read from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from cptlab.errors import UserError
from cptlab.metrics.programs import JudgedProgram
from cptlab.metrics.statistics import pass_at_k

OfVariants = Callable[[Sequence[Sequence[JudgedProgram]]], float]  # of one task: the programs of each perturbation
OfTask = Callable[[Sequence[JudgedProgram]], float | None]  # of one task; None where it has nothing to measure
UNCOUNTED = ("public", "hidden")  # tests that do not count in the verdict are one of these parts of a task's tests


@dataclass(frozen=True)
class Family:
    """Metrics that share a table. `digits` are the decimals of a shown value, `top` is the end of the axis of a figure.

    A family is the same whatever scorer its title names.
    """

    name: str
    title: str = field(compare=False)
    unit: str = field(compare=False)
    digits: int
    top: float = 0
    percent: bool = False  # values are fractions, shown in percent

    @property
    def heading(self) -> str:
        """The title without its unit: 'Code quality'."""
        return self.title.partition(":")[0]

    @property
    def scale(self) -> int:
        return 100 if self.percent else 1


PYLINT = "pylint"  # the papers' scorer
QUALITY = Family("quality", "Code quality: pylint score (0 to 10)", "pylint score", 2, 10)
CORRECTNESS = Family("correctness", "Functional correctness: pass@k in percent", "pass@k", 1, 100, percent=True)
LENGTH = Family("length", "Program length and variety: statements, lines, tokens, distinct programs", "per program", 1)
MESSAGES = Family("messages", "Pylint messages by category: number per 100 programs", "per 100 programs", 1)
SCORES = (QUALITY, CORRECTNESS)  # more is better; these have a figure too
FAMILIES = (*SCORES, LENGTH, MESSAGES)


@dataclass(frozen=True)
class Metric:
    """`name` stands in files, `heading` above the column of a table, `label` in a sentence.

    `of_task` is computed for each task, from all its programs; the mean over tasks that have it is reported. It needs
    `samples` programs of each task. A robust metric (ReCode, arXiv 2212.10264) has `of_variants` as well, which computes it
    for a task from the programs of all its perturbations.
    """

    name: str
    heading: str
    label: str
    family: Family
    of_task: OfTask
    samples: int = 1
    of_variants: OfVariants | None = None


def mean_score(programs: Sequence[JudgedProgram]) -> float:
    return sum(program.quality.score for program in programs) / len(programs)


def max_score(programs: Sequence[JudgedProgram]) -> float:
    return max(program.quality.score for program in programs)


def min_score(programs: Sequence[JudgedProgram]) -> float:
    return min(program.quality.score for program in programs)


def mean_statements(programs: Sequence[JudgedProgram]) -> float | None:
    """Of the programs that parse, as pylint counts no statement of others. None for a task without such a program."""
    counts = [program.quality.statements for program in programs if program.parses]
    return sum(counts) / len(counts) if counts else None


def mean_lines(programs: Sequence[JudgedProgram]) -> float:
    return sum(program.lines for program in programs) / len(programs)


def mean_tokens(programs: Sequence[JudgedProgram]) -> float | None:
    """None where the tokens were not counted."""
    counts = [program.tokens for program in programs]
    return sum(counts) / len(counts) if all(counts) else None


def distinct_per_100(programs: Sequence[JudgedProgram]) -> float | None:
    """Different texts among a task's programs, per 100 of them. None for a single program, which is always distinct."""
    return 100 * len({program.text_hash for program in programs}) / len(programs) if len(programs) > 1 else None


def messages_per_100(programs: Sequence[JudgedProgram], category: str) -> float:
    """Messages of a category (E, W, R or C) in the programs that parse, per 100 of all programs."""
    messages = (message for program in programs if program.parses for message in program.quality.messages)
    return 100 * sum(message.id[0] == category for message in messages) / len(programs)


def every_message(programs: Sequence[JudgedProgram]) -> float:
    """Messages in the programs that parse, per 100 of all programs."""
    return 100 * sum(len(program.quality.messages) for program in programs if program.parses) / len(programs)


def not_parsed_per_100(programs: Sequence[JudgedProgram]) -> float:
    return 100 * sum(not program.parses for program in programs) / len(programs)


def _messages(kind: str, category: str) -> Metric:
    of_task = partial(messages_per_100, category=category)
    return Metric(f"pylint_{kind}", category, f"pylint {kind} per 100 programs", MESSAGES, of_task)


METRICS = (  # those of quality are CPT Table II's; pass@k, of CPT Table III, is added for each k
    Metric("pylint_mean", "Mean", "mean pylint score", QUALITY, mean_score),
    Metric("pylint_max", "Max", "max pylint score", QUALITY, max_score),
    Metric("pylint_min", "Min", "min pylint score", QUALITY, min_score),
    Metric("statements", "Statements", "statements per program", LENGTH, mean_statements),
    Metric("lines", "Lines", "lines of code per program", LENGTH, mean_lines),
    Metric("tokens", "Tokens", "tokens per program", LENGTH, mean_tokens),
    Metric("distinct", "Distinct", "distinct programs of 100 of a task", LENGTH, distinct_per_100, samples=2),
    _messages("errors", "E"),
    _messages("warnings", "W"),
    _messages("refactors", "R"),
    _messages("conventions", "C"),
    Metric("not_parsed", "not parsed", "programs of 100 that do not parse", MESSAGES, not_parsed_per_100),
)


def pass_rate(programs: Sequence[JudgedProgram], k: int, rule: str = "") -> float | None:
    """pass@k of one task under a comparison rule; the rule that decides where none is named.

    The rules public and hidden stand for those tests alone where they do not count; None for a task without such tests.
    """
    verdicts = [program.verdict for program in programs]
    if rule in UNCOUNTED and not all(rule in verdict.by_rule for verdict in verdicts):
        return None
    passed = sum(verdict.by_rule.get(rule, verdict.status) == "passed" for verdict in verdicts)
    return pass_at_k(len(verdicts), passed, k)


def pass_at(k: int, rule: str = "") -> Metric:
    """Return the metric pass@k, or `<rule>_pass@k` under a further comparison rule or on tests that do not count."""
    prefix, words = (f"{rule}_", f"{rule.replace('_', ' ')} ") if rule else ("", "")
    of_task = partial(pass_rate, k=k, rule=rule)
    return Metric(f"{prefix}pass@{k}", f"{words}P@{k}", f"{words}pass@{k}", CORRECTNESS, of_task, samples=k)


def worst_mean_score(variants: Sequence[Sequence[JudgedProgram]]) -> float:
    """The lowest mean pylint score among the perturbations of a task."""
    return min(map(mean_score, variants))


def robust_pass_rate(variants: Sequence[Sequence[JudgedProgram]], k: int) -> float:
    """RP_s@k of one task: the i-th program counts as right if that of every one of its s perturbations is."""
    right = [all(program.verdict.passed for program in programs) for programs in zip(*variants, strict=False)]
    return pass_at_k(len(right), sum(right), k)


def _robust(name: str, heading: str, label: str, family: Family, of_variants: OfVariants, samples: int = 1) -> Metric:
    return Metric(name, heading, label, family, lambda programs: of_variants([programs]), samples, of_variants)


ROBUST_QUALITY = _robust("robust_quality", "Robust", "robust mean score", QUALITY, worst_mean_score)


def robust_metrics(ks: Iterable[int]) -> list[Metric]:
    """Return the metrics of a benchmark with perturbed prompts: robust quality, and robust pass@k for these k."""
    return [ROBUST_QUALITY, *map(robust_pass_at, ks)]


def robust_pass_at(k: int) -> Metric:
    of_variants = partial(robust_pass_rate, k=k)
    return _robust(f"robust_pass@{k}", f"robust P@{k}", f"robust pass@{k}", CORRECTNESS, of_variants, k)


def metrics_for(ks: Iterable[int], further_rules: Iterable[str] = (), scorer: str = PYLINT) -> list[Metric]:
    """Return every metric of an evaluation with these k and this scorer, in the order of the tables."""
    ks = list(ks)
    return [*_metrics_of(scorer), *(pass_at(k, rule) for rule in ("", *further_rules) for k in ks)]


def label_of(scorer: str) -> str:
    """Return how a sentence calls a scorer: radon_complexity is 'radon complexity'."""
    return scorer.replace("_", " ")


def family_of(family: Family, scorer: str) -> Family:
    """Return the family with this scorer in the place of pylint in its title and unit."""
    if scorer == PYLINT or family not in (QUALITY, MESSAGES):
        return family
    label = label_of(scorer)
    if family == MESSAGES:
        return replace(family, title=f"{capitalised(label)} messages: number per 100 programs")
    return replace(family, title=family.title.replace(PYLINT, label), unit=family.unit.replace(PYLINT, label))


def capitalised(label: str) -> str:
    return label[:1].upper() + label[1:]


def _metrics_of(scorer: str) -> tuple[Metric, ...]:
    """Return the metrics but pass@k. Only pylint's messages have categories."""
    if scorer == PYLINT:
        return METRICS
    label = label_of(scorer)
    of_quality = tuple(
        replace(
            metric,
            name=metric.name.replace(PYLINT, scorer),
            label=metric.label.replace(PYLINT, label),
            family=family_of(QUALITY, scorer),
        )
        for metric in METRICS
        if metric.family == QUALITY
    )
    messages = family_of(MESSAGES, scorer)
    counted = Metric(f"{scorer}_messages", "Messages", f"{label} messages per 100 programs", messages, every_message)
    rest = (one for one in METRICS if one.family != QUALITY and not one.name.startswith(PYLINT))
    of_length, others = [], []
    for metric in rest:
        (others if metric.family == MESSAGES else of_length).append(metric)
    return (*of_quality, *of_length, counted, *(replace(metric, family=messages) for metric in others))


def find_metric(name: str) -> Metric:
    """Return the metric with this name. Raises UserError if there is none."""
    for metric in (*METRICS, ROBUST_QUALITY):
        if metric.name == name:
            return metric
    if found := re.fullmatch(r"robust_pass@([1-9]\d*)", name):
        return robust_pass_at(int(found[1]))
    if found := re.fullmatch(r"(\w+)_(?:mean|max|min|messages)", name):
        of_scorer = [metric for metric in _metrics_of(found[1]) if metric.name == name]
        if of_scorer:
            return of_scorer[0]
    if found := re.fullmatch(r"(?:(\w+)_)?pass@([1-9]\d*)", name):
        return pass_at(int(found[2]), found[1] or "")
    names = ", ".join(metric.name for metric in METRICS)
    raise UserError(
        f"There is no metric {name!r}. Choose pass@1 (or another k), or one of {names}; another scorer has its own name in "
        "the place of pylint."
    )

"""The claims of both papers, and what decides each of them in a record.

A claim names a table (conf/experiment) and its checks. `row` is a row of that table, or the last word of several
rows: `ours` is also every `MODEL ours`. A check is made at every difficulty that the benchmark has.
"""

from __future__ import annotations

from dataclasses import dataclass

EVERY = ("introductory", "interview", "competition")
MARGIN = 0.01  # a fall of pass@k by less than a point does not count as one


@dataclass(frozen=True)
class Check:
    """The change of `metric` in `row` against the table's reference is as `expect` says.

    `expect`: higher, lower, or not_lower (by more than `margin`); of the value itself, majority (above one half) or below
    (`margin`); one_peak: no seed contradicts one peak (1), and some ω is better than 1, as a flat curve has no peak.
    `metric` pass@max is the largest k that was measured. `row` ω≤1.25 is every row at an ω above 1 and up to 1.25.
    """

    row: str
    metric: str
    expect: str
    table: str | None = None  # null: the claim's
    difficulties: tuple[str, ...] = EVERY
    margin: float = MARGIN


@dataclass(frozen=True)
class Extreme:
    """`row` has the lowest (or highest) `metric` of all rows that end with one of `rows`."""

    row: str
    metric: str
    expect: str  # lowest or highest
    rows: tuple[str, ...]
    difficulties: tuple[str, ...] = EVERY


@dataclass(frozen=True)
class Order:
    """`metric` rises strictly from row to row; or, with `ratio`, the first is `ratio` times the second (within 5%)."""

    metric: str
    rows: tuple[str, ...]
    ratio: float | None = None


@dataclass(frozen=True)
class Spread:
    """The tuned ω differs more between models (mean range over a benchmark's rows) than between benchmarks, with every seed."""

    metric: str = "omega"


@dataclass(frozen=True)
class Beats:
    """The first model with `metric` at its tuned ω is above the second at ω = 1, on every benchmark that has both."""

    metric: str
    models: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Claim:
    """One row of the ledger. `needs` says what a record must be given besides its runs."""

    id: str
    text: str
    paper: str
    table: str
    checks: tuple[Check | Extreme | Order | Spread | Beats, ...]
    needs: str = ""


def _ours(metric: str, expect: str) -> Check:
    return Check("ours", metric, expect)


OTHERS = ("single_prefix", "sven", "full", "ours")
ABLATIONS = ("no_lm", "no_rank", "no_kl", "no_pt", "no_bs", "ours")
SMALL_AND_LARGE = (
    ("kata_starcoder2", "kata_lm"),
    ("qwen2_5_coder_0_5b_instruct", "qwen2_5_coder_1_5b_instruct"),
    ("deepseek_coder_6_7b", "deepseek_coder_33b"),
)
ANCHORS = ("nl", "nl and tests", "nl and code", "all")

CLAIMS = (
    Claim("C1", "CPT raises mean pylint at every difficulty", "4.87 → 6.63, 5.26 → 7.30, 6.04 → 7.44 (CPT Table II)",
          "cpt_table_2", (_ours("pylint_mean", "higher"),)),
    Claim("C2", "CPT raises max pylint at every difficulty", "7.15 → 8.22, 7.57 → 8.62, 8.41 → 8.82 (CPT Table II)",
          "cpt_table_2", (_ours("pylint_max", "higher"),)),
    Claim("C3", "CPT raises min pylint at every difficulty", "2.13 → 4.37, 2.15 → 5.22, 2.41 → 4.86: about twice (CPT Table II)",
          "cpt_table_2", (_ours("pylint_min", "higher"),)),
    Claim("C4", "pass@k does not fall", "P@5 22.0 → 22.4, 4.0 → 4.9, 1.6 → 2.5; P@100 41.2 → 47.4, 14.2 → 14.9, 12.2 → 13.3 (CPT Table III)",
          "cpt_table_3", (_ours("pass@1", "not_lower"), _ours("pass@5", "not_lower"), _ours("pass@max", "not_lower"))),
    Claim("C5", "CPT beats single-prefix tuning in mean pylint", "5.45, 5.81, 6.81 against 6.63, 7.30, 7.44 (CPT Table IV)",
          "cpt_table_4", (Check("single_prefix", "pylint_mean", "lower"),)),
    Claim("C6", "CPT beats SVEN in mean pylint", "6.27, 6.55, 7.42 against 6.63, 7.30, 7.44 (CPT Table IV)",
          "cpt_table_4", (Check("sven", "pylint_mean", "lower"),)),
    Claim("C7", "CPT beats full fine-tuning on the better programs in mean pylint", "5.84, 6.13, 6.39 against 6.63, 7.30, 7.44 (CPT Table IV)",
          "cpt_table_4", (Check("full", "pylint_mean", "lower"),)),
    Claim("C8", "CPT's pass@100 is the best of the four at introductory and interview level", "35.1, 35.1, 36.1 against 47.4 (CPT Table V)",
          "cpt_table_5", tuple(Check(row, "pass@max", "lower", difficulties=EVERY[:2]) for row in OTHERS[:3])),
    Claim("C9", "CPT trains half of SVEN's parameters; an epoch takes longer than single-prefix tuning, and less than SVEN, then full fine-tuning",
          "3.15M, 6.29M, 6.74B; 19, 55, 96, 100 minutes (CPT Table VI)",
          "cpt_table_6", (Order("trainable_parameters", ("ours", "sven"), ratio=0.5),
                          Order("minutes_per_epoch", ("single_prefix", "ours", "sven", "full")))),
    Claim("C10", "Without the ranking loss, min pylint falls most", "4.37 → 3.37, 5.22 → 3.93 (CPT Table VII)",
          "cpt_table_7", (Check("no_rank", "pylint_min", "lower"), Extreme("no_rank", "pylint_min", "lowest", ABLATIONS))),
    Claim("C11", "Without comparative tuning, min pylint falls", "4.37 → 3.68, 5.22 → 4.18 (CPT Table VII)",
          "cpt_table_7", (Check("no_pt", "pylint_min", "lower"),)),
    Claim("C12", "Without the LM loss, the KL loss or the second stage, min pylint rises", "5.39, 5.95, 5.40 against 4.37 (CPT Table VII)",
          "cpt_table_7", tuple(Check(row, "pylint_min", "higher") for row in ("no_lm", "no_kl", "no_bs"))),
    Claim("C13", "Without the KL loss, the LM loss or the second stage, pass@5 falls", "17.5, 17.7, 20.4 against 22.4 (CPT Table VIII)",
          "cpt_table_8", tuple(Check(row, "pass@5", "lower") for row in ("no_kl", "no_lm", "no_bs"))),
    Claim("C14", "Without the ranking loss, or without comparative tuning, pass@5 is kept", "22.1, 22.7 against 22.4 (CPT Table VIII)",
          "cpt_table_8", tuple(Check(row, "pass@5", "not_lower") for row in ("no_rank", "no_pt"))),
    Claim("C15", "The method works on other backbones", "Starcoder2, Phi-2 (CPT Tables IX, X)",
          "cpt_table_9", (_ours("pylint_mean", "higher"), Check("ours", "pass@5", "not_lower", table="cpt_table_10"))),
    Claim("C16", "Blind reviewers prefer the tuned program", "67.3% against 20.7%, agreement 83% (CPT Table XI)",
          "cpt_table_11", (Check("ours", "lead_by_reviewers", "higher", difficulties=("all",)),),
          needs="people: `cptlab review run=RECORD` asks them"),
    Claim("C17", "Most kinds of messages become rarer or stay", "54 of 63; R1705 620 → 64, C0200 446 → 90, W0612 457 → 281 (CPT Table XII)",
          "cpt_table_12", (Check("ours", "share_of_messages_not_more_frequent", "majority", difficulties=("all",)),)),
    Claim("C18", "The gain carries over to another benchmark without retraining", "HumanEval mean 5.44 → 6.79, P@5 46.6 → 49.5 (CPT Table XIII)",
          "cpt_table_13", (_ours("pylint_mean", "higher"), _ours("pass@5", "not_lower"))),
    Claim("S1", "Attention to the prompt falls as more tokens are generated, by last-layer attention and by gradient", "SPA Fig. 2, 3",
          "spa_fig_2", (Check("", "attention_change", "lower", difficulties=("all",)),
                        Check("", "gradient_change", "lower", table="spa_fig_3", difficulties=("all",)))),
    Claim("S2", "SPA with a tuned ω raises pass@1 on every model and benchmark", "+1.0 to +9.7 points (SPA Table 1)",
          "spa_table_1", (Check("", "pass@1", "higher", difficulties=("all",)),)),
    Claim("S3", "pass@1 has one peak over ω", "SPA Fig. 4", "spa_fig_4", (Check("", "unimodal", "one_peak", difficulties=("all",)),)),
    Claim("S4", "Every ω between 1 and 1.25 helps", "SPA 5.2", "spa_fig_4", (Check("ω≤1.25", "pass@1", "higher", difficulties=("all",)),)),
    Claim("S5", "Anchoring the description alone is best", "+5.48 against +5.11, +4.87, +4.76 (SPA Table 2)",
          "spa_table_2", (Extreme("nl", "pass@1", "highest", ANCHORS, difficulties=("all",)),)),
    Claim("S6", "The best ω depends on the model more than on the benchmark", "SPA Table 3", "spa_table_3", (Spread(),)),
    Claim("S7", "A small model with SPA beats a larger one without", "6.7B 83.5 against 33B 80.5", "spa_table_1",
          (Beats("pass@1", SMALL_AND_LARGE),)),
    Claim("S8", "SPA costs little: at most a quarter more time a token", "\"minimal\", without a figure (SPA 5.1)",
          "spa_overhead", (Check("spa", "times", "below", difficulties=("all",), margin=1.25),)),
    Claim("S9", "Applied only where the first program fails its public tests, SPA never lowers pass@1", "later version, summary",
          "spa_failed_tests", (Check("spa", "pass@1", "not_lower", margin=0.0),)),
)  # fmt: skip


def claims_of(table: str) -> list[str]:
    """Return the ids of the claims that a table of the record answers."""
    return [
        claim.id
        for claim in CLAIMS
        if table in {claim.table, *(getattr(check, "table", None) for check in claim.checks)}
    ]

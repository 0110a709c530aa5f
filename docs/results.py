"""Make the tables of docs/results.md from the runs that results/ keeps, without a model.

    python docs/results.py --write
    python docs/results.py --check      (exit code 1 where the page is out of date)

A table stands between the marks `<!-- table: RUN NAME -->` and `<!-- end -->`: the table NAME, such as quality, of the run
packed in results/RUN (an evaluation or a tuning of ω); or, for `greedy`, that of benchmarks/greedy.py; or, for record/NAME/TABLE,
the file that a packed record holds.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # this clone, wherever cptlab is installed

import greedy  # noqa: E402  # pyright: ignore[reportMissingImports]

from cptlab.reporting.evaluation import compute_metrics, read_evaluation  # noqa: E402
from cptlab.reporting.layout import Table, to_markdown  # noqa: E402
from cptlab.reporting.omega_curve import curve_table, test_table  # noqa: E402
from cptlab.reporting.omega_sweep import read_curve  # noqa: E402
from cptlab.reporting.report import all_tables  # noqa: E402

PAGE, RESULTS = ROOT / "docs" / "results.md", ROOT / "results"
MARKED = re.compile(r"(<!-- table: (\S+)(?: (\S+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if arguments == ["--write"]:
        PAGE.write_text(new, encoding="utf-8")
    elif arguments != ["--check"]:
        print(__doc__)
        return 2
    elif new != old:
        print(f"{PAGE} is out of date. Run python docs/results.py --write")
        return 1
    return 0


def page(text: str) -> str:
    """Return the page with every marked table made anew."""
    tables: dict[str, dict[str, str]] = {}

    def made(match: re.Match[str]) -> str:
        begin, run, name, end = match.groups()
        if run == "greedy":
            return begin + greedy_table() + end
        if run.startswith("record/"):
            return f"{begin}{(RESULTS / run / f'{name}.md').read_text(encoding='utf-8').strip()}\n{end}"
        if run not in tables:
            tables[run] = {table.name: to_markdown(table) for table in tables_of(RESULTS / run)}
        return f"{begin}{tables[run][name].strip()}\n{end}"

    return MARKED.sub(made, text)


def tables_of(run: Path) -> list[Table]:
    """Return the tables of a packed evaluation, or of a packed tuning of ω."""
    if (run / "omega.json").is_file():
        curve = read_curve([run])
        return [curve_table(curve), test_table(curve)]
    evaluation = read_evaluation(run)
    return all_tables(evaluation, compute_metrics(evaluation))


def greedy_table() -> str:
    lines = [
        "| model | benchmark | tasks | pass@1 | 95% interval | published | difference |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for one in greedy.rows_of(RESULTS / "greedy"):
        low, high = one["pass@1_ci"]
        beside = (
            ("", "") if one["published"] is None else (one["published"], f"{one['pass@1'] - one['published']:+.1f}")
        )
        lines.append(
            f"| {one['model']} | {one['benchmark']} | {one['tasks']} | {one['pass@1']:.1f} | {low:.1f} to {high:.1f} | "
            f"{beside[0]} | {beside[1]} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

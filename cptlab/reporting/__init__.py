"""From the stored files of an evaluation run to tables, figures and one HTML page; needs no model.

`cptlab report RUN_DIR` remakes them all; from Python, `page = make_report(run_dir)` does, and
`print_tables(run_dir)` prints the short form.
"""

from cptlab.reporting.evaluation import Evaluation, JudgedProgram, read_evaluation
from cptlab.reporting.report import make_report, print_tables

__all__ = ["Evaluation", "JudgedProgram", "make_report", "print_tables", "read_evaluation"]

"""From the stored files of an evaluation to tables, figures and one HTML page. Needs no model.

    page = make_report(run_directory)     # writes them all, as `cptlab report RUN` does
    print_tables(run_directory)           # the short form

Nothing here knows a system by its name: the first is the one that the others are compared with.
"""

from cptlab.reporting.evaluation import Evaluation, read_evaluation
from cptlab.reporting.report import make_report, print_tables

__all__ = ["Evaluation", "make_report", "print_tables", "read_evaluation"]

"""From the stored files of an evaluation run to tables, figures and one HTML page; needs no model.

`python -m cptlab.reporting RUN_DIR` remakes them all; from Python, `page = make_report(run_dir)` does, and
`print_tables(run_dir)` prints the short form.
"""

from cptlab.reporting.report import make_report, print_tables
from cptlab.reporting.runs import Run, Sample, read_run

__all__ = ["Run", "Sample", "make_report", "print_tables", "read_run"]

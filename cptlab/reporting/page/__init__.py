"""A report as one self-contained HTML page: sections of tables, figures and programs, and nothing fetched.

    text = render_page(title, lead, [
        Section("Code quality", [Picture(svg, "Bars: base 5.6, tuned 8.1."), table, "A paragraph."]),
        Section("Jobs", [Link("seed 1", "0/report.html"), Folded("config.yaml", config)]),
        Section("Programs", [Programs(evaluation)]),                    # at most one a page
    ])

`Table` is that of `cptlab.reporting.layout`: it can be sorted and filtered. `Programs` shows the tasks of an evaluation,
or of several that `cptlab.reporting.comparison.combine` made into one, with the programs of all systems side by side
and the pylint messages at their lines. Every text is escaped, and the page runs no script but its own. Without
JavaScript it shows everything but the filters, and of the programs the examples that a rule chose.
"""

from cptlab.reporting.page.document import Folded, Link, Picture, Section, render_page
from cptlab.reporting.page.programs import Programs

__all__ = ["Folded", "Link", "Picture", "Programs", "Section", "render_page"]

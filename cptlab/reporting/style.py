"""The looks of figures and pages: colours, fonts, and the style sheet of the report.

Colours are Okabe and Ito's, told apart with any colour vision. A system keeps its colour in every figure.
"""

from __future__ import annotations

from typing import Any

COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
INK, MUTED, GRID = "#333333", "#666666", "#E3E3E3"
STYLE: dict[Any, Any] = {  # matplotlib's rc
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "cptlab",
}

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1180px; margin: 2em auto;
       padding: 0 1.2em; }
h1 { font-size: 1.6em; margin-bottom: .2em; } h2 { margin-top: 2.2em; border-bottom: 1px solid #ddd; }
h4, h5 { margin: 1em 0 .4em; } .lead { color: #444; } nav a { margin-right: 1.2em; }
figure { margin: 1.2em 0; } figure img { max-width: 100%; height: auto; } figcaption { font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
th, td { padding: .25em .7em; border-bottom: 1px solid #e6e6e6; white-space: nowrap; }
th { background: #f6f6f6; } th.label, td.label, th.section { text-align: left; }
th.number, td.number { text-align: right; }
th.group { border-left: 1px solid #ddd; } th.section { padding-top: .8em; }
.interval, .note { color: #666; font-size: .86em; font-weight: normal; }
td .interval { display: block; }
article { border-top: 1px solid #ddd; margin-top: 1.2em; } .pair { display: grid; gap: 1em;
       grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); }
.pair section { min-width: 0; } .pair ul { margin: .4em 0; padding-left: 1.2em; font-size: .88em; }
pre { background: #f8f8f8; padding: .7em; overflow-x: auto; font: 12.5px/1.45 ui-monospace, monospace; margin: .3em 0; }
.program .line { display: block; min-height: 1.45em; } .program .marked { background: #fde9c8; }
.verdict { font-weight: normal; }
"""

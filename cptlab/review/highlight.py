"""Python in colours, as HTML: every token in a <span> of its kind, and every text of it escaped."""

from __future__ import annotations

from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Literal, Name, Operator

from cptlab.reporting.page.text import escaped, lines_of

CLASSES = (  # the first that a token is one of
    (Comment, "comment"),
    (Keyword, "keyword"),
    (Operator.Word, "keyword"),
    (Literal.String, "string"),
    (Literal.Number, "number"),
    (Name.Function, "name"),
    (Name.Class, "name"),
    (Name.Builtin, "builtin"),
    (Name.Exception, "builtin"),
    (Name.Decorator, "builtin"),
)


def to_html(program: str) -> str:
    """Return a program as the numbered lines of an ordered list. Text that is no Python is shown as it is."""
    text = "\n".join(lines_of(program))
    lines = [""]
    for kind, value in PythonLexer(stripnl=False, ensurenl=False).get_tokens(text):
        name = next((name for of, name in CLASSES if kind in of), "")
        for number, part in enumerate(value.split("\n")):
            if number:
                lines.append("")
            if part:
                lines[-1] += f"<span class='{name}'>{escaped(part)}</span>" if name else escaped(part)
    return f"<ol class='program'>{''.join(f'<li><code>{line}</code></li>' for line in lines)}</ol>"

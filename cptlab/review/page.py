"""The pages that a reviewer sees. They run one script of their own, fetch nothing, and never say whose a program is."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cptlab.reporting.page.document import policy_hash, read_asset
from cptlab.reporting.page.programs import shorter
from cptlab.reporting.page.text import escaped
from cptlab.review.highlight import to_html
from cptlab.review.pairs import Pair
from cptlab.review.store import NAME_LENGTH

CHOICES = (("left", "1", "Left"), ("same", "2", "No clear difference"), ("right", "3", "Right"))
QUESTION = "Which program is of higher quality?"
# The refresher is general: it does not list the messages of pylint that the tuned model avoids.
GUIDE = """<p>You will see pairs of programs, each for one task. Both run; a tool has tested them, and whether a program is right is
not the question. Say which one is <b>of higher quality</b>: which you would rather read, review and maintain.</p>
<details><summary>A brief refresher</summary><ul>
<li>Coding standards (PEP 8, PEP 20): clear names, consistent layout, one obvious way, no needless nesting.</li>
<li>Code smells: what nothing uses, code that is never reached, repeated code, long functions, misleading names.</li>
<li>Python's idioms: the language's own means where they make code clearer, such as comprehensions and <code>with</code>.</li>
<li>Maintainability: can it be understood at once, and changed without surprise?</li></ul></details>"""


@cache
def assets() -> tuple[str, str]:
    """Return the style sheet and the script of every page."""
    own = Path(__file__).parent
    style = read_asset("page.css") + (own / "review.css").read_text(encoding="utf-8")
    return style, read_asset("theme.js") + (own / "review.js").read_text(encoding="utf-8")


@cache
def policy() -> str:
    """Return the Content-Security-Policy: should a text slip through unescaped, the browser still runs nothing of it."""
    style, script = assets()
    return (
        f"default-src 'none'; style-src '{policy_hash(style)}'; script-src '{policy_hash(script)}'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def sign_in_page(token: str, problem: str = "") -> str:
    """Return the page on which a person names themself."""
    said = f"<p role='alert' class='problem'>{escaped(problem)}</p>" if problem else ""
    return _document(
        "Blind review",
        f"<h1>Blind review</h1>{GUIDE}<form method='post' action='/reviewers' class='sign-in'>"
        f"<input type='hidden' name='token' value='{escaped(token)}'><label for='name'>Your name</label>"
        f"<input id='name' name='name' required maxlength='{NAME_LENGTH}' autocomplete='nickname' autofocus>"
        f"<button>Begin</button>{said}"
        "<p class='note'>It stands in the table of results. Your answers are stored one by one, so you may stop at any time "
        "and go on in this browser.</p></form>",
    )


def pair_page(pair: Pair, number: int, total: int, answers: dict[int, str], footer: str, form: str) -> str:
    """Return the page of a pair. `answers` are the reviewer's so far, `form` is what proves that a vote is theirs."""
    given = answers.get(number)
    buttons = "".join(
        f"<button name='answer' value='{value}' aria-pressed='{str(value == given).lower()}' aria-keyshortcuts='{key}'>"
        f"<span>{text}</span> <kbd aria-hidden='true'>{key}</kbd></button>"
        for value, key, text in CHOICES
    )
    back, onward = number - 1, number + 1 if number in answers else 0
    links = f"<a href='/pairs/{back}' rel='prev'>Previous pair</a>" * (back > 0)
    links += f"<a href='/pairs/{onward}' rel='next'>Next pair</a>" * (0 < onward <= total)
    links += "<a href='/done'>All answers are in</a>" * (len(answers) == total)
    programs = "".join(
        f"<section aria-labelledby='{side}'><h2 id='{side}'>{side.capitalize()}</h2>{to_html(shorter(program.text))}</section>"
        for side, program in (("left", pair.left), ("right", pair.right))
    )
    return _document(
        f"Pair {number} of {total}",
        f"<h1>Pair {number} of {total}</h1><p class='progress'><progress max='{total}' value='{len(answers)}' "
        f"aria-label='Pairs answered'></progress> {len(answers)} answered</p>"
        f"<section aria-labelledby='task-heading'><h2 id='task-heading'>Task</h2>"
        f"<pre tabindex='0' aria-label='Task'>{escaped(shorter(pair.prompt))}</pre></section>"
        f"<div class='pair'>{programs}</div>"
        f"<form method='post' action='/pairs/{number}' class='choices' aria-labelledby='question'>"
        f"<input type='hidden' name='form' value='{form}'><p id='question'>{QUESTION}</p>"
        f"<div class='buttons'>{buttons}</div><p id='status' role='status'></p></form>"
        f"<p class='moves'>{links}</p>{_keys()}{footer}",
        "",
    )


def done_page(name: str, total: int, footer: str) -> str:
    """Return the page after the last pair."""
    return _document(
        "All pairs are answered",
        f"<h1>All {total} pairs are answered</h1><p>Thank you, {escaped(name)}. Every answer is stored, and you may close this "
        f"page.</p><p class='moves'><a href='/pairs/{total}'>Look at the last pair again</a>"
        f"<a href='/pairs/1'>Look at the first pair again</a></p>{footer}",
    )


def footer_of(name: str, link: str, form: str) -> str:
    """Return the end of a reviewer's pages: who they are, how they come back, and how they leave."""
    return (
        f"<footer><p>You review as <b>{escaped(name)}</b>.</p><details><summary>Go on in another browser</summary>"
        f"<p>Open this link there. It is yours alone: whoever has it votes as you.</p><p><code>{escaped(link)}</code></p></details>"
        f"<form method='post' action='/leave'><input type='hidden' name='form' value='{form}'>"
        f"<button>I am not {escaped(name)}</button></form></footer>"
    )


def message_page(title: str, text: str) -> str:
    """Return a page that says why a request was refused."""
    return _document(title, f"<h1>{escaped(title)}</h1><p role='alert'>{escaped(text)}</p><p><a href='/'>Go on</a></p>")


def _keys() -> str:
    return (
        "<p class='note keys' hidden>Keys: <kbd>1</kbd> left, <kbd>2</kbd> no clear difference, <kbd>3</kbd> right, <kbd>j</kbd> "
        "next pair, <kbd>k</kbd> previous pair. <label><input type='checkbox' id='keys' checked> keys on</label></p>"
    )


def _document(title: str, content: str, kind: str = "narrow") -> str:
    style, script = assets()
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escaped(title)}</title><style>{style}</style></head>\n<body class='review {kind}'>"
        f"<main>{content}</main>"
        "<p class='theme'><button type='button' id='theme' aria-pressed='false' hidden>Dark mode</button></p>"
        f"<script>{script}</script></body></html>\n"
    )

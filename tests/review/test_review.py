"""A review without a browser: its pairs, its votes on the disk, what the table says of them, and what is refused."""

import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from review_runs import HARMFUL, store_evaluation

from cptlab.errors import UserError
from cptlab.metrics.statistics import hierarchical_ci
from cptlab.records import Completion, Verdict
from cptlab.reporting.evaluation import read_evaluation
from cptlab.reporting.layout import to_csv, to_text
from cptlab.review.pairs import Pair, Program, choose_pairs, choose_systems
from cptlab.review.store import REVIEW_FILE, Review
from cptlab.review.tally import finished, tally, tally_table
from cptlab.storage.jsonl import read_jsonl

BOTH = ("base", "tuned")


def made(number=4):
    """Pairs of which the odd ones have the tuned program on the left."""
    found = []
    for i in range(1, number + 1):
        base, tuned = Program("base", 0, 5.0, f"b = {i}"), Program("tuned", 0, 6.0, f"t = {i}")
        found.append(Pair(f"toy/{i}", "Do it.", *((tuned, base) if i % 2 else (base, tuned))))
    return found


@pytest.fixture
def review(tmp_path):
    return Review(tmp_path / REVIEW_FILE, made(), BOTH)


def test_pairs_are_drawn_from_the_tasks_that_both_systems_ran_on(tmp_path):
    run = store_evaluation(tmp_path, tasks=40, samples=3)
    statuses, texts = {}, {}
    for system in BOTH:
        rows = zip(
            read_jsonl(run / system / "completions.jsonl", Completion),
            read_jsonl(run / system / "verdicts.jsonl", Verdict),
            strict=True,
        )
        for completion, verdict in rows:
            statuses[system, completion.task_id, completion.sample] = verdict.status
            texts[system, completion.task_id, completion.sample] = completion.program
    evaluation = read_evaluation(run)
    pairs = choose_pairs(evaluation, BOTH, 100, 3)
    assert [pair.task for pair in pairs] == [f"toy/{i:03d}" for i in range(40)]
    for pair in pairs:
        assert {pair.left.system, pair.right.system} == set(BOTH)
        for one in (pair.left, pair.right):
            assert statuses[one.system, pair.task, one.sample] in ("passed", "failed")  # compilable and runnable
            assert texts[one.system, pair.task, one.sample] == one.text
    assert 8 < Counter(pair.left.system for pair in pairs)["base"] < 32
    assert len({pair.left.sample for pair in pairs}) > 1
    assert choose_pairs(evaluation, BOTH, 100, 3) == pairs != choose_pairs(evaluation, BOTH, 100, 4)
    some = choose_pairs(evaluation, BOTH, 10, 3)
    assert len({pair.task for pair in some}) == 10 and [p.task for p in some] == sorted(p.task for p in some)


def test_the_systems_are_the_first_two_or_those_that_are_named(tmp_path):
    evaluation = read_evaluation(store_evaluation(tmp_path, systems=("a", "b", "c")))
    assert choose_systems(evaluation) == ("a", "b") and choose_systems(evaluation, ("c", "a")) == ("c", "a")
    for wrong in (("a",), ("a", "a"), ("a", "x"), ("a", "b", "c")):
        with pytest.raises(UserError, match="systems must be two of a, b, c"):
            choose_systems(evaluation, wrong)
    with pytest.raises(UserError, match="has one system"):
        choose_systems(replace(evaluation, systems={"a": evaluation.systems["a"]}))


def test_pairs_with_votes_are_never_replaced(tmp_path):
    file = tmp_path / REVIEW_FILE
    Review(file, made(3), BOTH)
    review = Review(file, made(4), BOTH)  # nobody has voted
    assert Review(file).pairs == made(4) and Review(file).token == review.token and file.stat().st_mode & 0o77 == 0
    review.vote(review.add_reviewer("Ada"), 4, "left")
    assert Review(file, made(4), BOTH).votes() == {"Ada": {4: "left"}}
    for other in ((made(3), BOTH), (made(4), ("tuned", "base"))):
        with pytest.raises(UserError, match="holds 1 votes about other pairs"):
            Review(file, *other)
    assert Review(file).votes() == {"Ada": {4: "left"}}


def test_a_server_with_pairs_that_were_replaced_stores_nothing(review):
    ada = review.add_reviewer("Ada")
    Review(review.file, made(2), BOTH)
    with pytest.raises(UserError, match="were replaced"):
        review.vote(ada, 1, "left")
    assert Review(review.file).votes() == {"Ada": {}}


def test_what_is_no_review_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no review"):
        Review(tmp_path / REVIEW_FILE)
    (tmp_path / REVIEW_FILE).write_text("no database" * 100)
    with pytest.raises(UserError, match="is no review"):
        Review(tmp_path / REVIEW_FILE)


def test_names_are_one_persons(review):
    ada = review.add_reviewer("  Ada\tLovelace ")
    assert ada.name == "Ada Lovelace" and review.reviewer(ada.secret) == ada and review.reviewer("x") is None
    for name in ("ada lovelace", "ＡＤＡ Lovelace"):
        with pytest.raises(UserError, match="already"):
            review.add_reviewer(name)
    for name in ("", " ", "x" * 41, "a\x00b", "\u202eb"):
        with pytest.raises(UserError, match="1 to 40"):
            review.add_reviewer(name)


def test_the_last_vote_on_a_pair_counts_and_the_others_stay(review):
    ada, bo = review.add_reviewer("Ada"), review.add_reviewer("Bo")
    for pair, answer in ((1, "left"), (2, "same"), (1, "right")):
        review.vote(ada, pair, answer)
    review.vote(bo, 1, "left")
    assert review.votes() == {"Ada": {1: "right", 2: "same"}, "Bo": {1: "left"}}
    assert review.answers(ada) == {1: "right", 2: "same"}
    with review._connection() as connection:
        assert connection.execute("SELECT count(*) FROM votes").fetchone() == (4,)
    for pair, answer in ((0, "left"), (5, "left"), (1, "both")):
        with pytest.raises(ValueError):
            review.vote(ada, pair, answer)


def test_votes_at_the_same_time_are_all_kept(tmp_path):
    review = Review(tmp_path / REVIEW_FILE, made(12), BOTH)
    people = [review.add_reviewer(f"P{i}") for i in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda job: Review(review.file).vote(*job, "same"), [(p, i) for p in people for i in range(1, 13)])
        )
    assert review.votes() == {f"P{i}": dict.fromkeys(range(1, 13), "same") for i in range(4)}


def test_a_vote_that_was_acknowledged_survives_a_kill(review):
    code = f"""
from pathlib import Path
from cptlab.review.store import Review
review = Review(Path({str(review.file)!r}))
ada = review.add_reviewer("Ada")
for number in range(10000):
    answer = ("left", "right", "same")[number % 3]
    review.vote(ada, 1 + number % 4, answer)
    print(1 + number % 4, answer, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    said = {}
    for number, line in enumerate(process.stdout):
        said[int(line.split()[0])] = line.split()[1]
        if number == 11:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.communicate()[0].splitlines()
    for line in rest:
        said[int(line.split()[0])] = line.split()[1]
    votes = Review(review.file).votes()["Ada"]
    assert sum(votes[pair] != answer for pair, answer in said.items()) <= 1  # one may be stored and not said


def by_loop(pairs, votes, system):
    """Better, worse and same of each reviewer, and their agreement with what most said, in plain loops."""
    meaning = {
        name: {
            n: {"same": "same", "left": pairs[n - 1].left.system, "right": pairs[n - 1].right.system}[answer]
            for n, answer in of.items()
        }
        for name, of in votes.items()
    }
    out = {}
    for name, of in meaning.items():
        agreed = asked = 0
        for n, answer in of.items():
            all_said = Counter(other[n] for other in meaning.values() if n in other).most_common()
            if sum(count for _, count in all_said) < 2:
                continue
            asked += 1
            agreed += all_said[0][0] == answer and (len(all_said) == 1 or all_said[0][1] > all_said[1][1])
        counts = Counter(of.values())
        other = next(s for s in BOTH if s != system)
        out[name] = (counts[system], counts[other], counts["same"], agreed / asked if asked else None)
    return out


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_the_table_is_that_of_plain_loops(share):
    draw, pairs = np.random.default_rng(0), made(30)
    votes = {
        name: {n: str(draw.choice(["left", "right", "same"])) for n in range(1, 31) if draw.random() < share}
        for name in ("A", "B", "C", "D")
    }
    found, expected = tally(pairs, votes, BOTH), by_loop(pairs, votes, "tuned")
    rows = tally_table("t", "T", found).rows
    for row, (name, (better, worse, same, agreed)) in zip(rows, expected.items(), strict=False):
        assert row == (name, f"{len(votes[name])} of 30", str(better), str(worse), str(same), f"{100 * agreed:.1f}")
    assert found.mean_agreement == pytest.approx(np.mean([one[3] for one in expected.values()]))
    assert found.share("better") == pytest.approx(np.mean([one[0] / len(votes[n]) for n, one in expected.items()]))
    assert sum(found.share(choice) for choice in ("better", "worse", "same")) == pytest.approx(1)
    assert found.complete == (share == 1.0) == (found.lead_ci is not None)
    swapped = tally(pairs, votes, ("tuned", "base"))
    assert swapped.share("better") == found.share("worse") and swapped.mean_agreement == found.mean_agreement


def test_the_averages_of_the_papers_table():
    """CPT Table XI: 65, 69, 71, 64 of 100 better; 19, 14, 19, 31 worse; 67.3% and 20.7% (20.75) on average, 12% the same."""
    pairs, votes = made(100), {}
    for name, better, worse in (("Grad A", 65, 19), ("Grad B", 69, 14), ("Grad C", 71, 19), ("Faculty", 64, 31)):
        wanted = ["tuned"] * better + ["base"] * worse + [None] * (100 - better - worse)
        votes[name] = {
            n: "same" if system is None else "left" if pairs[n - 1].left.system == system else "right"
            for n, system in enumerate(wanted, 1)
        }
    found = tally(pairs, votes, BOTH)
    table = tally_table("cpt_table_11", "CPT Table XI", found)
    assert table.rows[0][:5] == ("Grad A", "100 of 100", "65", "19", "16")
    assert [found.share(choice) for choice in ("better", "worse", "same")] == pytest.approx([0.6725, 0.2075, 0.12])
    signs = np.array(
        [[1.0] * b + [-1.0] * w + [0.0] * (100 - b - w) for b, w in ((65, 19), (69, 14), (71, 19), (64, 31))]
    )
    assert found.lead == pytest.approx(0.465) and found.lead_ci == hierarchical_ci(signs)
    assert "Fleiss' kappa: 0." in to_text(table) and "fleiss_kappa,0." in to_csv(table)


def test_the_table_before_and_after_the_first_votes():
    pairs = made(4)
    for votes in ({}, {"Ada": {}}, {"Ada": {1: "left"}}):
        text = to_text(tally_table("t", "T", tally(pairs, votes, BOTH)))
        assert "need two reviewers" in text and "nan" not in text
    assert "nan" not in to_csv(tally_table("t", "T", tally(pairs, {"Ada": {}}, BOTH)))
    alike = {name: dict.fromkeys(range(1, 5), "same") for name in ("Ada", "Bo")}
    assert "none, as all answers to the 4 pairs are the same" in to_text(
        tally_table("t", "T", tally(pairs, alike, BOTH))
    )
    assert finished(pairs, alike | {"Cy": {1: "left"}}) == alike


client = pytest.importorskip("starlette.testclient", reason="starlette is not installed (pip install -e '.[review]')")
from cptlab.review.app import ReviewApp  # noqa: E402
from cptlab.review.highlight import to_html  # noqa: E402
from cptlab.review.page import pair_page  # noqa: E402


def visitor(review, token=None, hosts=("127.0.0.1", "testserver")):
    app = ReviewApp(review, token, hosts, lambda reviewer: None).asgi
    return client.TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False)


def signed_in(review, name="Ada", **options):
    """A visitor who has begun, and the value of their forms."""
    found = visitor(review, **options)
    assert found.post("/reviewers", data={"name": name, "token": options.get("token") or ""}).headers["location"] == "/"
    return found, re.search("name='form' value='(.*?)'", found.get("/pairs/1").text)[1]


def test_a_reviewer_is_led_through_the_pairs(review):
    ada, form = signed_in(review)
    assert ada.get("/").headers["location"] == "/pairs/1"
    assert ada.post("/pairs/2", data={"answer": "same", "form": form}).headers["location"] == "/pairs/3"
    assert (
        ada.post("/pairs/4", data={"answer": "left", "form": form}).headers["location"] == "/pairs/1"
    )  # from the front
    assert ada.get("/done").headers["location"] == "/pairs/1"
    ada.post("/pairs/1", data={"answer": "left", "form": form})
    assert ada.get("/").headers["location"] == "/pairs/3"
    assert ada.post("/pairs/3", data={"answer": "right", "form": form}).headers["location"] == "/done"
    assert "Thank you, Ada" in ada.get("/done").text
    assert review.votes() == {"Ada": {1: "left", 2: "same", 3: "right", 4: "left"}}


def test_a_page_says_nothing_of_whose_a_program_is(tmp_path):
    run = store_evaluation(tmp_path)
    pairs = choose_pairs(read_evaluation(run), BOTH)
    review = Review(run / REVIEW_FILE, pairs, BOTH)
    ada, _ = signed_in(review)
    for number, pair in enumerate(pairs, 1):
        text = ada.get(f"/pairs/{number}").text
        body = text[text.index("<main>") : text.index("<script>")]
        assert not re.search(r"\b(base|tuned|sample|score|passed|failed)\b", body)
        numbers = [re.search(r"range.(\d+)", program.text)[1] for program in (pair.left, pair.right)]
        assert re.findall(r"<span class='number'>(\d+)</span>\)", body) == numbers
        assert "<img" not in body and "[U+202E][U+0000][U+001B]" in body
    first, second = pairs[0], replace(pairs[0], left=replace(pairs[0].left, system="tuned"), right=replace(pairs[0].right, system="base"))  # fmt: skip
    assert pair_page(first, 1, 6, {}, "", "f") == pair_page(second, 1, 6, {}, "", "f")


def test_what_is_not_a_reviewers_is_refused(review):
    ada, form = signed_in(review)
    bo, form_of_bo = signed_in(review, "Bo")
    good = {"answer": "left", "form": form}
    stranger = visitor(review)
    refused = [
        (stranger.get("/pairs/1"), 403),
        (stranger.post("/pairs/1", data=good), 403),  # no cookie
        (ada.post("/pairs/1", data={"answer": "left"}), 403),  # no form value
        (ada.post("/pairs/1", data=good | {"form": form_of_bo}), 403),  # a page of somebody else
        (bo.post("/pairs/1", data=good | {"reviewer": "Ada"}), 403),
        (ada.post("/pairs/1", data=good, headers={"origin": "http://evil.example"}), 403),
        (ada.post("/pairs/1", data=good, headers={"origin": "null"}), 403),
        (ada.post("/pairs/1", data=good, headers={"sec-fetch-site": "cross-site"}), 403),
        (ada.post("/reviewers", data={"name": "Eve"}, headers={"origin": "http://evil.example"}), 403),
        (ada.get("/pairs/1", headers={"host": "evil.example"}), 403),  # a name that was bound to this machine
        (ada.post("/pairs/5", data=good), 404),
        (ada.post("/pairs/0", data=good), 404),
        (ada.get("/pairs/x"), 404),
        (ada.get("/pairs/99999999999999999999"), 404),
        (ada.post("/pairs/1", data=good | {"answer": "both"}), 400),
        (ada.post("/pairs/1", content=b"answer=left&form=" + b"x" * 20_000), 413),
        (ada.get("/return/guess"), 403),
        (ada.put("/pairs/1"), 405),
        (ada.post("/leave", data={}), 403),
        (visitor(review).post("/reviewers", data={"name": "ADA"}), 409),
        (visitor(review).post("/reviewers", data={"name": "<b>"}), 303),
    ]
    assert [(answer.status_code, answer.text[:80]) for answer, code in refused if answer.status_code != code] == []
    assert all(answer.headers["content-security-policy"].startswith("default-src 'none'") for answer, _ in refused)
    assert review.votes() == {"Ada": {}, "Bo": {}, "<b>": {}}
    same = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
    assert ada.post("/pairs/1", data=good, headers=same).status_code == 303 and review.votes()["Ada"] == {1: "left"}


def test_other_hosts_need_the_token(review):
    token = review.token
    found = visitor(review, token=token, hosts=None)
    for answer in (
        found.get("/"),
        found.get("/?token=x"),
        found.post("/reviewers", data={"name": "Eve", "token": "é"}),
    ):
        assert answer.status_code == 403 and "token of this review" in answer.text
    assert review.votes() == {} and found.get(f"/?token={token}").status_code == 200
    ada, form = signed_in(review, token=token, hosts=None)
    assert ada.post("/leave", data={"form": form}).headers["location"] == f"/?token={token}"
    assert ada.get("/pairs/1").status_code == 403


def test_a_link_of_ones_own_goes_on_elsewhere(review):
    ada, form = signed_in(review)
    ada.post("/pairs/1", data={"answer": "left", "form": form})
    link = re.search("<code>http://127.0.0.1:8765(/return/.*?)</code>", ada.get("/pairs/2").text)[1]
    other = visitor(review, token=review.token)
    assert other.get(link).headers["location"] == "/" and other.get("/").headers["location"] == "/pairs/2"
    cookie = other.get(link).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and review.name in cookie


def test_a_vote_that_cannot_be_stored_says_so(review, monkeypatch):
    ada, form = signed_in(review)
    monkeypatch.setattr("cptlab.review.store.WAIT_SECONDS", 0.1)
    with review._connection():  # somebody else is writing
        answer = ada.post("/pairs/1", data={"answer": "left", "form": form})
    assert answer.status_code == 503 and "not stored" in answer.text
    assert ada.post("/pairs/1", data={"answer": "left", "form": form}).status_code == 303


@pytest.mark.parametrize(
    "program", ["", "x = 1\n", "def f(:\n  '''open\n\n", f"a\r\nb\rc {HARMFUL}", "\tif x:\n\n\n", "é = '\ud800'"]
)
def test_highlighted_code_has_the_text_and_the_lines_of_the_program(program):
    import html

    from cptlab.reporting.page.text import escaped, lines_of

    lines = re.findall("<li><code>(.*?)</code></li>", to_html(program), re.S)
    texts = [re.sub("</?span[^>]*>", "", line) for line in lines]
    assert texts == [escaped(line) for line in lines_of(program)]
    assert all("<" not in html.unescape(text) or "&lt;" in text for text in texts)

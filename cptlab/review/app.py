"""The web application of a blind review: who may see a pair, who may vote, and what is refused.

A person who has the link names themself once and gets a secret in a cookie; whoever has the secret is that reviewer. A vote
also needs the reviewer's form value, so that no other site and no page of an earlier reviewer can vote for them. On a host
that other machines reach, naming oneself needs the token of the review. Not covered: traffic is not encrypted, and one
person may come as several.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from cptlab.errors import UserError
from cptlab.review import page
from cptlab.review.store import ANSWERS, Review, Reviewer

YEAR = 365 * 24 * 3600  # seconds
MOST_BYTES = 10_000  # of a form
TITLES = {403: "This is refused", 404: "There is no such page", 405: "This is refused", 413: "This is too much"}
NO_LINK = "Open the link that you were given: it holds the token of this review."
Handler = Callable[[Request], Awaitable[Response]]


class ReviewApp:
    """The application of one review.

    `token`: what a person needs to begin; None: nothing. `hosts`: the names that the server answers to, so that no other
    site can have a browser read it; None: any. `greet` is called with each new reviewer.
    """

    def __init__(
        self, review: Review, token: str | None, hosts: Collection[str] | None, greet: Callable[[Reviewer], None]
    ) -> None:
        self.review, self.token, self.hosts, self.greet = review, token, hosts, greet
        self.total = len(review.pairs)
        self.cookie = f"cptlab-review-{review.name}"
        one = "/pairs/{number:int}"
        routes = [
            Route("/", self._guarded(self.start)),
            Route("/reviewers", self._guarded(self.sign_in), methods=["POST"]),
            Route("/return/{secret}", self._guarded(self.come_back)),
            Route(one, self._guarded(self.show)),
            Route(one, self._guarded(self.vote), methods=["POST"]),
            Route("/done", self._guarded(self.done)),
            Route("/leave", self._guarded(self.leave), methods=["POST"]),
        ]
        self.asgi = Starlette(
            routes=routes, exception_handlers={HTTPException: self._refuse, sqlite3.Error: self._later}
        )

    def _guarded(self, handler: Handler) -> Handler:
        """Return the handler behind the checks that every request passes; its answers are kept by nobody."""

        async def checked(request: Request) -> Response:
            self._check_origin(request)
            return _private(await handler(request))

        return checked

    def _check_origin(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if self.hosts is not None and urlsplit(f"//{host}").hostname not in self.hosts:
            raise HTTPException(403, "This server does not answer to that name.")
        if request.method == "POST":
            site = request.headers.get("sec-fetch-site", "same-origin")
            origin = request.headers.get("origin")
            if site not in ("same-origin", "none") or (origin is not None and urlsplit(origin).netloc != host):
                raise HTTPException(403, "Another site sent this. Answer on the page of the review.")

    async def start(self, request: Request) -> Response:
        """Lead a reviewer to the first pair without an answer, and anyone else to their name."""
        reviewer = await self._reviewer(request)
        if reviewer is not None:
            return await self._onward(reviewer, 0)
        token = request.query_params.get("token", "")
        self._check_token(token)
        return HTMLResponse(page.sign_in_page(token))

    async def sign_in(self, request: Request) -> Response:
        form = await _form(request)
        token = form.get("token", "")
        self._check_token(token)
        try:
            reviewer = await run_in_threadpool(self.review.add_reviewer, form.get("name", ""))
        except UserError as error:
            return HTMLResponse(page.sign_in_page(token, str(error)), 409)
        self.greet(reviewer)
        return self._remember(reviewer)

    async def come_back(self, request: Request) -> Response:
        reviewer = await run_in_threadpool(self.review.reviewer, request.path_params["secret"])
        if reviewer is None:
            raise HTTPException(403, "No reviewer has this link.")
        return self._remember(reviewer)

    async def show(self, request: Request) -> Response:
        reviewer, number = await self._required(request), self._number(request)
        answers = await run_in_threadpool(self.review.answers, reviewer)
        shown = (self.review.pairs[number - 1], number, self.total, answers, self._footer(request, reviewer))
        return HTMLResponse(page.pair_page(*shown, _form_value(reviewer)))

    async def vote(self, request: Request) -> Response:
        reviewer, number = await self._required(request), self._number(request)
        answer = (await self._own_form(request, reviewer)).get("answer", "")
        if answer not in ANSWERS:
            raise HTTPException(400, f"An answer is one of {', '.join(ANSWERS)}.")
        try:
            await run_in_threadpool(self.review.vote, reviewer, number, answer)
        except UserError as error:
            raise HTTPException(409, str(error)) from None
        return await self._onward(reviewer, number)

    async def done(self, request: Request) -> Response:
        reviewer = await self._required(request)
        if len(await run_in_threadpool(self.review.answers, reviewer)) < self.total:
            return await self._onward(reviewer, 0)
        return HTMLResponse(page.done_page(reviewer.name, self.total, self._footer(request, reviewer)))

    async def leave(self, request: Request) -> Response:
        reviewer = await self._required(request)
        await self._own_form(request, reviewer)
        response = RedirectResponse(f"/?token={self.token}" if self.token else "/", 303)
        response.delete_cookie(self.cookie)
        return response

    async def _onward(self, reviewer: Reviewer, number: int) -> Response:
        """Redirect to the next pair without an answer, from pair `number` on and then from the first."""
        answers = await run_in_threadpool(self.review.answers, reviewer)
        order = [*range(number + 1, self.total + 1), *range(1, number + 1)]
        left = next((one for one in order if one not in answers), None)
        return RedirectResponse("/done" if left is None else f"/pairs/{left}", 303)

    async def _reviewer(self, request: Request) -> Reviewer | None:
        secret = request.cookies.get(self.cookie)
        return None if secret is None else await run_in_threadpool(self.review.reviewer, secret)

    async def _required(self, request: Request) -> Reviewer:
        reviewer = await self._reviewer(request)
        if reviewer is None:
            raise HTTPException(403, "Only a reviewer may do this. Begin on the first page, or open your own link.")
        return reviewer

    async def _own_form(self, request: Request, reviewer: Reviewer) -> dict[str, str]:
        form = await _form(request)
        if not _equal(form.get("form", ""), _form_value(reviewer)):
            raise HTTPException(403, f"This page is not {reviewer.name}'s. Open it again.")
        return form

    def _check_token(self, token: str) -> None:
        if self.token is not None and not _equal(token, self.token):
            raise HTTPException(403, NO_LINK)

    def _number(self, request: Request) -> int:
        number = request.path_params["number"]
        if not 1 <= number <= self.total:
            raise HTTPException(404, f"Pairs go from 1 to {self.total}.")
        return number

    def _remember(self, reviewer: Reviewer) -> Response:
        response = RedirectResponse("/", 303)
        response.set_cookie(self.cookie, reviewer.secret, max_age=YEAR, httponly=True, samesite="lax")
        return response

    def _footer(self, request: Request, reviewer: Reviewer) -> str:
        link = f"{request.base_url}return/{reviewer.secret}"
        return page.footer_of(reviewer.name, link, _form_value(reviewer))

    async def _refuse(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        title = TITLES.get(error.status_code, "This is refused")
        text = "The address may be misspelt." if error.detail == "Not Found" else error.detail
        return _private(HTMLResponse(page.message_page(title, text), error.status_code))

    async def _later(self, _request: Request, error: Exception) -> Response:
        text = f"The answer is not stored, as the disk or the file cannot be written ({error}). Send it again."
        return _private(HTMLResponse(page.message_page("Not stored", text), 503))


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a posted form; of equal names the last."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, "A form of this page is shorter.")
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=20)
    return {name: values[-1] for name, values in fields.items()}


def _form_value(reviewer: Reviewer) -> str:
    """Return what a reviewer's forms hold, and no other page can know."""
    return hmac.new(reviewer.secret.encode(), b"form", hashlib.sha256).hexdigest()


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _private(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = page.policy()
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response

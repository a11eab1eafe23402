"""The researcher's page: results with intervals, and everything to download. Raters have no business here.

It opens with the admin password, which a signed cookie remembers for half a day, or without one where the study is
closed and its owner made its results public. Nothing here changes anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from dataclasses import dataclass
from html import escape
from threading import Lock
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from .bundle import Bundle
from .files import FILES
from .pages import Page, colours, page, static
from .results import Results
from .results_html import results_html
from .store import Store
from .votes import Vote

_COOKIE = "study-results"
_COOKIE_SECONDS = 12 * 3600
_WRONG_PASSWORD_SECONDS = 1.0
_LARGEST_FORM = 2048
_WRONG = "This is not the password: try again."
_NO_COOKIE = (
    'Your browser keeps no cookie here: <a href="results" target="_blank" rel="noopener">open the results in a tab of'
    " their own</a>."
)
_RESTS = 5  # an analysis is repeated at the earliest after so many times the seconds that it took
_PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True)
class Analysis:
    """What the votes said at one moment."""

    votes: list[Vote]
    results: Results
    version: tuple[int, int]
    seconds: float
    at: float


class ResultsPages:
    """Everything under /results.

    Args:
        bundle: the frozen study.
        store: its votes.
        password: opens the page; None opens it to nobody.
        public: whether everybody may see it once the study is closed.
    """

    def __init__(self, bundle: Bundle, store: Store, *, password: str | None, public: bool) -> None:
        self.bundle, self.store, self.password, self.public = bundle, store, password, public
        self._last: Analysis | None = None
        self._analysing = Lock()
        self._trying = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """The page, its door, and its downloads."""
        return [
            Route("/results", self.show),
            Route("/results/enter", self.enter, methods=["POST"]),
            Route("/results/leave", self.leave, methods=["POST"]),
            Route("/results/{file}", self.download),
        ]

    # ---- the door --------------------------------------------------------------------------------------------------

    async def _admitted(self, request: Request) -> bool:
        return self._knows(request) or (self.public and await run_in_threadpool(self._closed))

    def _closed(self) -> bool:
        return self.store.status().closed_at is not None

    def _knows(self, request: Request) -> bool:
        expires, _, signature = request.cookies.get(_COOKIE, "").partition(".")
        if self.password is None or not expires.isascii() or not expires.isdigit() or int(expires) < time.time():
            return False
        return hmac.compare_digest(signature.encode(), self._signature(expires).encode())

    def _signature(self, expires: str) -> str:
        """Of a cookie: another password makes all older ones worthless."""
        password = hashlib.sha256((self.password or "").encode()).hexdigest()
        return self.bundle.keys.derive("results", f"{expires} {password}").hex()

    async def enter(self, request: Request) -> Response:
        """Take a password; a wrong one costs a second, one after the other."""
        content = b""
        async for part in request.stream():
            content += part
            if len(content) > _LARGEST_FORM:
                return _line("This is no password.", 400)
        given = parse_qs(content.decode(errors="replace")).get("password", [""])[0]
        if self.password is None or not hmac.compare_digest(given.encode(errors="replace"), self.password.encode()):
            async with self._trying:
                await asyncio.sleep(_WRONG_PASSWORD_SECONDS)
            return RedirectResponse("../results?wrong", 303, headers=_PRIVATE)
        expires = str(int(time.time()) + _COOKIE_SECONDS)
        response = RedirectResponse("../results?entered", 303, headers=_PRIVATE)
        response.set_cookie(
            _COOKIE,
            f"{expires}.{self._signature(expires)}",
            max_age=_COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.headers.get("x-forwarded-proto", request.url.scheme) == "https",
        )
        return response

    async def leave(self, request: Request) -> Response:
        """Forget who came in."""
        response = RedirectResponse("../results", 303, headers=_PRIVATE)
        response.delete_cookie(_COOKIE)
        return response

    def _door(self, problem: str) -> Page:
        if self.password is None:
            body = (
                '<h1>Results</h1><p class="muted">No password is set, so nobody can see the results here. Whoever runs'
                " this study sets MARKOVGEN_ADMIN_PASSWORD and starts it again.</p>"
            )
        else:
            said = f'<p class="problem" role="alert">{problem}</p>' if problem else ""
            body = (
                '<form method="post" action="results/enter"><h1>Results</h1><label for="password">Password</label>'
                '<input id="password" name="password" type="password" autocomplete="current-password" required>'
                f'{said}<button class="primary">Show the results</button></form>'
            )
        return self._document("login", body)

    def _document(self, kind: str, body: str, leave: str = "") -> Page:
        style = colours() + static("base.css") + static("results.css")
        title = escape(self.bundle.plan.title)
        return page("results.html", style, static("results.js"), title=title, kind=kind, body=body, leave=leave)

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """All results on one page, or the door to them."""
        entered = "entered" in request.query_params
        if not await self._admitted(request):
            problem = _WRONG if "wrong" in request.query_params else _NO_COOKIE if entered else ""
            return self._door(problem).response(401)
        if entered:
            return RedirectResponse("results", 303, headers=_PRIVATE)
        analysis = await run_in_threadpool(self._analysed)
        status = await run_in_threadpool(self.store.status)  # people join, and studies close, without a new vote
        links = [(file.title, f"results/{address}") for address, file in FILES.items()]
        methods = FILES["methods.txt"].make(analysis.votes, analysis.results).decode().strip()
        body = results_html(analysis.results, status, methods, links)
        leave = ""
        if self._knows(request):
            leave = '<form method="post" action="results/leave"><button class="quiet">Leave</button></form>'
        return self._document("results", body, leave).response()

    async def download(self, request: Request) -> Response:
        """One of the files."""
        address = request.path_params["file"]
        if not await self._admitted(request):
            return _line("Results need the admin password: open /results first.", 401)
        if address not in FILES:
            return _line("There is no such file.", 404)
        file = FILES[address]
        analysis = await run_in_threadpool(self._analysed)
        content = await run_in_threadpool(file.make, analysis.votes, analysis.results)
        headers = {**_PRIVATE, "Content-Disposition": f'attachment; filename="{address}"'}
        return Response(content, headers=headers, media_type=file.media_type)

    def _analysed(self) -> Analysis:
        """The analysis of the votes as they are, or were a short while ago: it never takes much of the machine."""
        from .statistics import analyse  # loads scipy, which takes seconds: serving votes does not wait for it

        with self._analysing:
            last, version = self._last, self.store.version()
            if last and (last.version == version or time.monotonic() - last.at < _RESTS * last.seconds):
                return last
            started = time.monotonic()
            votes = self.store.votes()
            results = analyse(votes, self.bundle.plan)
            now = time.monotonic()
            self._last = Analysis(votes, results, version, now - started, now)
            return self._last


def _line(text: str, status: int) -> Response:
    return Response(text, status, headers=_PRIVATE, media_type="text/plain")

"""What a rater's browser can ask for: the page, a session, pictures, and to have answers written down.

The page is one self-contained document over plain HTTP routes instead of a Gradio page, for three reasons. It must be
blind: every byte that reaches a rater is written here, under no framework's names, and nothing in it depends on a
method. It must not lose votes: the browser keeps each answer until it is acknowledged, which needs numbered requests
that can be sent again. And it must be quick on phones with a hundred raters at once, while a model draws beside it.

A rater proves who they are by a token in the `Authorization` header: cookies do not reach frames on other sites. Ids of
trials are opaque, pictures are fetched by trial and side, and all of a study's pictures have one number of bytes.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..errors import UserError
from ..validation import validated
from ..visitors import VisitorLimit, visitor_at
from .bundle import Bundle, PictureFile
from .design import next_session
from .pages import Page, rate_page
from .recorder import Recorder
from .store import Answer, Refused, Session, Store
from .votes import Choice, Trial

_LARGEST_BODY = 4096
_CACHED_BYTES = 64_000_000
_CACHED_RATERS = 1024
_STATUS = {"closed": 403, "order": 409, "stranger": 401}
_PRIVATE = {"Cache-Control": "no-store, no-transform", "X-Content-Type-Options": "nosniff"}

Handler = Callable[[Request], Awaitable[Response]]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StartBody(_Body):
    """To begin, or to go on with another session."""

    consent: bool
    invitation: str = Field("", max_length=100)


class AnswerBody(_Body):
    """A vote, or the undoing of the last one."""

    number: int = Field(ge=1, le=1_000_000)
    action: Literal["vote", "undo"]
    trial: str = Field(pattern=r"^[0-9a-f]{1,64}$")
    choice: Choice | None = None
    seconds: float | None = Field(None, ge=0, le=86_400, allow_inf_nan=False)

    @model_validator(mode="after")
    def _complete(self) -> AnswerBody:
        given = self.choice is not None and self.seconds is not None
        if self.action == "vote" and not given:
            raise ValueError("A vote needs a choice and the seconds it took.")
        if self.action == "undo" and (self.choice is not None or self.seconds is not None):
            raise ValueError("Undoing needs no choice and no seconds.")
        return self


class WithdrawBody(_Body):
    """A withdrawal code, as it was typed."""

    code: str = Field(max_length=60)


class Rating:
    """The rater's side of a study.

    Args:
        bundle: the frozen study.
        store: its votes.
        recorder: writes them.
        invite_only: whether one needs an invitation.
        burst: how many raters without one may begin at once from one address, and then one every minute; 0 for any.
    """

    def __init__(
        self, bundle: Bundle, store: Store, recorder: Recorder, *, invite_only: bool = False, burst: int = 0
    ) -> None:
        self.bundle, self.store, self.recorder, self.invite_only = bundle, store, recorder, invite_only
        self._limit = VisitorLimit(burst, per_minute=1, refusal="Many people begin where you are")
        self._key = bundle.keys.derive("trials")
        self._page: Page = rate_page(bundle, invite_only=invite_only)
        self._files: OrderedDict[str, dict[str, tuple[PictureFile, PictureFile]]] = OrderedDict()
        most = max(16, _CACHED_BYTES // bundle.manifest.bytes)
        self._content = functools.lru_cache(maxsize=most)(bundle.picture)

    def routes(self) -> list[BaseRoute]:
        """Everything under /rate."""
        return [
            Route("/rate", self.page),
            Route("/rate/api/start", _guarded(self.start), methods=["POST"]),
            Route("/rate/api/session", _guarded(self.where), methods=["GET"]),
            Route("/rate/api/answers", _guarded(self.answer), methods=["POST"]),
            Route("/rate/api/withdraw", _guarded(self.withdraw), methods=["POST"]),
            Route("/rate/pictures/{trial}/{side}", _guarded(self.picture), methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        """The document, the same for everybody."""
        return self._page.response()

    async def start(self, request: Request) -> Response:
        """Begin: for a new rater a token, for one whose session is finished another session."""
        body = await _body(request, StartBody)
        if not body.consent:
            raise UserError("Please agree first: without your consent nothing can be stored.")
        keys = self.bundle.keys
        if "authorization" in request.headers:
            token = _bearer(request)
        elif body.invitation:
            token = keys.invited_token(body.invitation)
        elif self.invite_only:
            raise UserError("This study is by invitation: open the link that you were sent.")
        else:
            self._limit.take(visitor_at(request.client.host if request.client else "", request.headers), 1)
            token = keys.new_token()
        rater = self._rater(token)
        withdrawal_hash = keys.withdrawal_hash(keys.withdrawal_code(rater))
        build = functools.partial(next_session, self.bundle.plan, self._key, rater)
        session = await run_in_threadpool(self.store.join, rater, withdrawal_hash, build)
        self._remember(session)
        return _json({"token": token, **self._told(session)})

    async def where(self, request: Request) -> Response:
        """Where the rater stands."""
        session = await run_in_threadpool(self.store.session, self._rater(_bearer(request)))
        self._remember(session)
        return _json(self._told(session))

    async def answer(self, request: Request) -> Response:
        """Write an answer down; replies once it is durable."""
        rater = self._rater(_bearer(request))
        body = await _body(request, AnswerBody)
        answer = Answer(rater, body.number, body.action, body.trial, body.choice, body.seconds)
        receipt = await asyncio.wrap_future(self.recorder.submit(answer))
        return _json({"answered": receipt.answered, "number": receipt.number})

    async def withdraw(self, request: Request) -> Response:
        """Delete everything of whoever has this code."""
        body = await _body(request, WithdrawBody)
        deleted = await run_in_threadpool(self.store.withdraw, self.bundle.keys.withdrawal_hash(body.code))
        return _json({"deleted": deleted})

    async def picture(self, request: Request) -> Response:
        """The left or the right picture of one of the rater's own trials."""
        rater = self._rater(_bearer(request))
        trial, side = request.path_params["trial"], request.path_params["side"]
        if trial not in self._files.get(rater, {}):  # not read yet, or another replica gave the rater more since
            self._remember(await run_in_threadpool(self.store.session, rater))
        files = self._files[rater].get(trial)
        if files is None or side not in ("left", "right"):
            raise Refused("This pair of pictures is not one of yours: reload the page.", "order")
        content = await run_in_threadpool(self._content, files[side == "right"])
        return Response(content, media_type="image/png", headers=_PRIVATE)

    def _rater(self, token: str) -> str:
        try:
            return self.bundle.keys.rater(token)
        except UserError as error:
            raise Refused(str(error), "stranger") from None

    def _remember(self, session: Session) -> None:
        """Keep in mind which files the rater's trials show."""
        self._files[session.rater] = {trial.id: self.bundle.files(trial) for trial in session.trials}
        self._files.move_to_end(session.rater)
        while len(self._files) > _CACHED_RATERS:
            self._files.popitem(last=False)

    def _told(self, session: Session) -> dict[str, Any]:
        """What a browser is told of a session: of the kinds of trials, only which ones are practice."""
        texts = {prompt.id: prompt.text for prompt in self.bundle.plan.prompts}

        def told(trial: Trial) -> dict[str, Any]:
            practice = {"practice": trial.expected} if trial.kind == "practice" else {}
            return {"id": trial.id, "prompt": texts[trial.prompt], **practice}

        return {
            "trials": [told(trial) for trial in session.trials],
            "answered": session.answered,
            "number": session.number,
            "code": self.bundle.keys.withdrawal_code(session.rater),
        }


def _guarded(handler: Handler) -> Handler:
    """The handler, with every refusal as one line in JSON."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except Refused as refusal:
            return _json({"error": str(refusal), "reason": refusal.reason}, _STATUS[refusal.reason])
        except UserError as error:
            return _json({"error": str(error), "reason": "input"}, 400)
        except (SQLAlchemyError, OSError):  # the database is away, or the shards take nothing
            return _json({"error": "The study's database does not answer: please wait.", "reason": "later"}, 503)

    return guarded


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, headers=_PRIVATE)


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused("This needs a rater's token: open the study's link.", "stranger")
    return token


async def _body(request: Request, kind: type[Any]) -> Any:
    """The request's JSON, checked; UserError with one line on the first thing that is wrong."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _LARGEST_BODY:
            raise UserError("This request is too long.")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise UserError("This request is no JSON object.")
    return validated(kind, fields)

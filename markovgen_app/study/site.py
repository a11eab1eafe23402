"""A study on the web: opens its folder and its database, and has the routes of its pages."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ..errors import UserError
from ..settings import Settings
from .bundle import Bundle
from .hub_export import HubExport
from .rating import Rating
from .recorder import Recorder
from .results_page import ResultsPages
from .shards import Shards
from .store import FILE, MIRROR, Store


def open_store(
    bundle: Bundle, database: str | None, *, shards: Path | None = None, taking_votes: bool = False
) -> Store:
    """The votes of a study: in its folder, or where `database` says, a URL or a file, or in a folder of shards.

    Raises:
        UserError: the database or the shards cannot be opened, belong to another study, or both were given.
    """
    if shards is not None:
        if database is not None:
            raise UserError(
                "With MARKOVGEN_STUDY_SHARDS the database is a temporary file, made anew at every start: leave"
                " MARKOVGEN_DATABASE (--database) out."
            )
        kept = Shards(shards, bundle.digest)
        if taking_votes:
            kept.begin()
        elif not shards.is_dir():
            raise UserError(f"There is no folder {shards}: name the study's shards in MARKOVGEN_STUDY_SHARDS.")
        return Store(kept.database, bundle.plan, bundle.digest, shards=kept)
    mirror = bundle.folder / MIRROR if taking_votes and database is None else None
    place = bundle.folder / FILE if database is None else database if "://" in database else Path(database)
    return Store(place, bundle.plan, bundle.digest, mirror=mirror)


@dataclass(frozen=True)
class Site:
    """A study that is being served."""

    bundle: Bundle
    store: Store
    recorder: Recorder
    routes: list[BaseRoute]
    export: HubExport | None = None

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> Site:
        """Open a study, with every picture read and compared with what was frozen.

        Raises:
            UserError: the study or its database is not as it was frozen.
        """
        bundle = Bundle.open(folder)
        bundle.verify()
        store = open_store(bundle, settings.database, shards=settings.study_shards, taking_votes=True)
        recorder = Recorder(store)
        rating = Rating(bundle, store, recorder, invite_only=settings.study_invite_only, burst=settings.visitor_burst)
        password = settings.admin_password.get_secret_value() if settings.admin_password else None
        results = ResultsPages(bundle, store, password=password, public=settings.study_public)
        routes = [*rating.routes(), *results.routes()]
        return cls(bundle, store, recorder, routes, HubExport.of(folder, settings))

    def close(self) -> None:
        """Write down what is under way, and let go of the database."""
        self.recorder.stop()
        self.store.dispose()
        if self.export is not None:
            self.export.close()


def serve(folder: Path, settings: Settings) -> None:
    """Serve a study alone, without the app and its model, until interrupted. No addresses are logged.

    Raises:
        UserError: the study cannot be opened.
    """
    site = Site.open(folder, settings)

    async def home(request: Request) -> Response:
        return RedirectResponse("rate")

    try:
        app = Starlette(routes=[Route("/", home), *site.routes])
        results = "results at /results" if settings.admin_password else "no results: set MARKOVGEN_ADMIN_PASSWORD first"
        print(f"Rate at http://{settings.host}:{settings.port}/rate, {results}.", file=sys.stderr, flush=True)
        uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)
    except SystemExit:
        raise UserError(f"Cannot listen on {settings.host}:{settings.port}: choose another --port.") from None
    finally:
        site.close()

"""The study's tables, and how SQLite and PostgreSQL are opened so that both keep the store's promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ..errors import UserError
from .votes import Kind, Side, Trial

_WAIT_SECONDS = 20

metadata = sa.MetaData()
facts = sa.Table(
    "facts",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
raters = sa.Table(
    "raters",
    metadata,
    sa.Column("rater", sa.String(64), primary_key=True),
    sa.Column("withdrawal_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("number", sa.Integer, nullable=False, comment="answers sent"),
    sa.Column("answered", sa.Integer, nullable=False, comment="trials answered, the first ones"),
    sa.Column("assigned", sa.Integer, nullable=False, comment="trials given"),
    sa.Column("started_at", sa.String(40), nullable=False),
    sa.Column("seen_at", sa.String(40), nullable=False),
)
trials = sa.Table(
    "trials",
    metadata,
    sa.Column("rater", sa.String(64), sa.ForeignKey("raters.rater"), primary_key=True),
    sa.Column("trial", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("prompt", sa.String(64), nullable=False),
    sa.Column("left_method", sa.String(64), nullable=False),
    sa.Column("right_method", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    sa.Column("repeat_of", sa.String(64)),
    sa.Column("expected", sa.String(10)),
    sa.UniqueConstraint("rater", "position"),
)
votes = sa.Table(
    "votes",
    metadata,
    sa.Column("rater", sa.String(64), primary_key=True),
    sa.Column("trial", sa.String(64), primary_key=True),
    sa.Column("choice", sa.String(10), nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("at", sa.String(40), nullable=False),
    sa.ForeignKeyConstraint(["rater", "trial"], ["trials.rater", "trials.trial"]),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("rater", sa.String(64), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("action", sa.String(10), nullable=False),
    sa.Column("trial", sa.String(64), nullable=False),
    sa.Column("choice", sa.String(10)),
    sa.Column("seconds", sa.Float),
    sa.Column("at", sa.String(40), nullable=False),
    sa.UniqueConstraint("rater", "number"),
    sa.ForeignKeyConstraint(["rater", "trial"], ["trials.rater", "trials.trial"]),
    sqlite_autoincrement=True,
)
withdrawals = sa.Table(
    "withdrawals",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("votes", sa.Integer, nullable=False),
)
leaving = sa.Table(
    "leaving",
    metadata,
    sa.Column("rater", sa.String(64), primary_key=True, comment="withdrew, and the mirror still has their lines"),
)


def engine(url: str | Path) -> sa.Engine:
    """The database at a URL or, given a path, in a SQLite file. With the option `writes`, transactions lock at once.

    Raises:
        UserError: the URL is none, or names a database or a driver that is not there.
    """
    try:
        parsed = sa.URL.create("sqlite", database=str(url)) if isinstance(url, Path) else sa.make_url(url)
    except ArgumentError:
        raise UserError(
            "The database's URL cannot be read: write postgresql://user:password@host/name, or sqlite:///file."
        ) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite(parsed)
    if backend not in ("postgresql", "postgres"):
        raise UserError(f"Votes are stored in SQLite or PostgreSQL, not {backend}: give another database URL.")
    try:
        return sa.create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=8)
    except ModuleNotFoundError:
        raise UserError('PostgreSQL needs its driver: run `pip install "psycopg[binary]"`.') from None


def database_file(given: str) -> Path | None:
    """The file that a path or a URL of SQLite names; None for any other database."""
    if "://" not in given:
        return Path(given)
    try:
        url = sa.make_url(given)
    except ArgumentError:
        return None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _sqlite(url: sa.URL) -> sa.Engine:
    """WAL, so that reading and writing do not wait for each other; every commit synced; deleted rows overwritten."""
    found = sa.create_engine(url, connect_args={"timeout": _WAIT_SECONDS, "check_same_thread": False})

    @sa.event.listens_for(found, "connect")
    def _prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise UserError(f"SQLite cannot keep its log beside {url.database}: put the database on a local disk.")
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(found, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return found


def create(writer: sa.Engine) -> None:
    """Make the tables that are not there."""
    with writer.begin() as connection:
        _advisory_lock(connection)  # two replicas may start at once
        metadata.create_all(connection)


@contextmanager
def turn(writer: sa.Engine) -> Iterator[None]:
    """Hold all other replicas off for as long as this lasts; a process on SQLite needs none of this."""
    if writer.dialect.name == "sqlite":
        yield
        return
    with writer.begin() as connection:
        _advisory_lock(connection)
        yield


def _advisory_lock(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('markovgen-study'))"))


def forget_deleted(source: sa.Engine) -> None:
    """Empty SQLite's log, in which deleted rows would stay for a while."""
    if source.dialect.name == "sqlite":
        with source.connect() as connection:
            raw = cast(sqlite3.Connection, connection.connection.driver_connection)
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def readable_errors() -> Iterator[None]:
    """Errors of the database as one line that repeats no password."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UserError(f"The study's database cannot be used ({reason}): check its place and its rights.") from error


def trial_row(rater: str, position: int, trial: Trial) -> dict[str, Any]:
    """A trial as a row of `trials`."""
    return {
        "rater": rater,
        "trial": trial.id,
        "position": position,
        "prompt": trial.prompt,
        "left_method": trial.left,
        "right_method": trial.right,
        "kind": trial.kind,
        "repeat_of": trial.repeat_of,
        "expected": trial.expected,
    }


def row_trial(row: sa.Row[Any]) -> Trial:
    """A row of `trials` as a trial."""
    return Trial(
        row.trial,
        row.prompt,
        row.left_method,
        row.right_method,
        cast(Kind, row.kind),
        row.repeat_of,
        cast("Side | None", row.expected),
    )

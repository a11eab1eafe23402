"""Everything that raters said, as JSON Lines beside the database: only ever appended to, unless a rater withdraws.

The database is what counts; `read_mirror` gives back what stood where it was lost. A line follows the commit of its
event, so that a killed server may leave the file behind by a few lines or by half of one; it catches up when the store
is opened next. A file that knows answers which the database does not is never overwritten: the database was lost, or is
an old copy. Only the answers of raters who are leaving are taken out: the database names those until it is done.
"""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from ..errors import UserError
from . import lines
from .tables import events, leaving, raters, trials
from .votes import Vote


class Mirror:
    """The file of one database.

    Args:
        path: of the file.
        categories: prompt id → category.

    Raises:
        UserError: another process has it.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, categories: Mapping[str, str]) -> None:
        self.path, self._categories = path, categories
        self._last = self._size = 0  # the last event that is in the file, and the bytes up to its end
        self._lock = Lock()
        self._overdue = False  # a withdrawn rater's lines wait to be taken out
        self._owner = path.with_name(f".{path.name}.lock").open("w")
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._owner.close()
            raise UserError(f"The study in {path.parent} is being served already: stop that first.") from None

    def release(self) -> None:
        """Let another process have it."""
        self._owner.close()

    def catch_up(self, connection: sa.Connection) -> set[str]:
        """Make the file equal to the database: appended to if that is enough, else written anew.

        Returns:
            The raters in `leaving`, of whom the file has nothing now.

        Raises:
            UserError: the file has answers that the database lacks, of others than those.
            OSError: the file cannot be written.
        """
        with self._lock:
            gone = set(connection.scalars(sa.select(leaving.c.rater)))
            rows = list(self._rows(connection, after=0))
            wanted = lines.encoded(row for _, row in rows)
            found = self.path.read_bytes() if self.path.exists() else b""
            if wanted.startswith(found):
                with self.path.open("ab") as file:
                    file.write(wanted[len(found) :])
            else:
                if not {rater for rater, _, _ in known(found) - known(wanted)} <= gone:
                    raise UserError(
                        f"{self.path} holds answers that the database does not: if the database was lost or is an"
                        " old copy, give them back to a new one with"
                        f" `markovgen study import {self.path.parent} {self.path}`, else move the file away."
                    )
                lines.replace(self.path, wanted)
            self._last, self._size = rows[-1][0] if rows else 0, len(wanted)
            return gone

    def forget(self, connection: sa.Connection) -> set[str]:
        """Take out who withdrew, and return them. What a full disk puts off is done with the next answer or start."""
        self._overdue = True
        try:
            gone = self.catch_up(connection)
            self._overdue = False
            return gone
        except OSError as error:
            print(f"{self.path} still holds withdrawn answers, make room for it ({error.strerror}).", file=sys.stderr)
            return set()

    def append(self, connection: sa.Connection) -> set[str]:
        """Add what came since; a full disk costs the file some lines until it catches up, and no vote.

        Returns:
            The raters who were taken out at last, where that had been put off.
        """
        if self._overdue:
            return self.forget(connection)
        with self._lock:
            rows = list(self._rows(connection, after=self._last))
            if not rows:
                return set()
            added = lines.encoded(row for _, row in rows)
            try:
                with self.path.open("ab") as file:
                    size = min(file.tell(), self._size)
                    file.truncate(size)  # a full disk let through a part of what comes again now
                    file.write(added)
            except OSError as error:
                print(f"{self.path} falls behind, votes are safe in the database ({error.strerror}).", file=sys.stderr)
                return set()
            self._last, self._size = rows[-1][0], size + len(added)
            return set()

    def _rows(self, connection: sa.Connection, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Events past an id, in order: their ids and what their lines say."""
        same_trial = sa.and_(trials.c.rater == events.c.rater, trials.c.trial == events.c.trial)
        found = connection.execute(
            sa.select(events, trials, raters.c.simulated)
            .join(trials, same_trial)
            .join(raters, raters.c.rater == events.c.rater)
            .where(events.c.id > after)
            .order_by(events.c.id)
        )
        for row in found:
            yield (
                row.id,
                {
                    "action": row.action,
                    "rater": row.rater,
                    "trial": row.trial,
                    "prompt": row.prompt,
                    "category": self._categories.get(row.prompt, ""),
                    "left": row.left_method,
                    "right": row.right_method,
                    "choice": row.choice,
                    "seconds": row.seconds,
                    "kind": row.kind,
                    "repeat_of": row.repeat_of,
                    "expected": row.expected,
                    "simulated": row.simulated,
                    "at": row.at,
                },
            )


def read_mirror(path: Path) -> list[Vote]:
    """The votes that stand at the end of a mirror. Half a line at its end, as a killed server leaves it, is no answer.

    Raises:
        UserError: this is no mirror.
    """
    try:
        return TypeAdapter(list[Vote]).validate_python(list(_stands(lines.whole_rows(path.read_bytes())).values()))
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}): give a file of answers.") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{path} is no file of answers, line by line, as a study keeps it: give another one.") from None


def _stands(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """(rater, trial) → what was answered last and not undone."""
    stands: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        action, key = row.pop("action"), (row["rater"], row["trial"])
        if action == "vote":
            stands[key] = row
        else:
            stands.pop(key, None)
    return stands


def known(content: bytes) -> set[tuple[str, str, str]]:
    """(rater, trial, choice) of all that stands in a mirror that may be damaged: lines that cannot be read are none."""

    def readable() -> Iterator[dict[str, Any]]:
        for line in content.splitlines():
            try:
                row = json.loads(line)
                if {"action", "rater", "trial", "choice"} <= row.keys():
                    yield row
            except (ValueError, AttributeError):
                continue

    return {(rater, trial, row["choice"]) for (rater, trial), row in _stands(readable()).items()}

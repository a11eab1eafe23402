"""A study's answers in a folder that outlives the server's disk: the database is made anew from it at every start.

Each start has a shard, a file of JSON Lines, for which a mounted storage is good enough: it is only ever appended to,
synced and closed again, and nothing is locked. What a transaction does is in the shard before it is committed. So an
answer that cannot be written there is not acknowledged, and the rater's browser sends it again. Where a shard takes
nothing more (a full disk tore its last line, or the storage takes every file once), another file is begun.

The lines, by their `action`:

    study       the digest of what is frozen, first in every file
    session     a rater's trials from place `first` on
    vote, undo  an answer, under its number
    withdrawal  a hash of who withdrew: all lines of that rater before it are void, and taken out of all shards at once
    close, reopen
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import sqlalchemy as sa

from ..errors import UserError
from . import lines, tables
from .tables import events, facts, raters, trials, votes, withdrawals
from .votes import Trial

Row = Mapping[str, Any]


def session_row(rater: str, withdrawal_hash: str, simulated: bool, first: int, given: Sequence[Trial], at: str) -> Row:
    """The line of a session: a rater's trials from place `first` on."""
    who = {"rater": rater, "withdrawal_hash": withdrawal_hash, "simulated": simulated}
    return {"action": "session", **who, "first": first, "trials": [asdict(trial) for trial in given], "at": at}


def answer_row(event: sa.Row[Any]) -> Row:
    """The line of a row of `events`."""
    return {name: value for name, value in event._asdict().items() if name != "id"}


def withdrawal_row(rater: str, count: int, at: str) -> Row:
    """The line of a withdrawal of so many votes."""
    return {"action": "withdrawal", "who": _who(rater), "votes": count, "at": at}


@dataclass
class _Rater:
    """What shards say of a rater: trials by place, and answers by number."""

    withdrawal_hash: str
    simulated: bool
    started_at: str
    seen_at: str
    trials: list[Trial] = field(default_factory=list)
    said: dict[int, Row] = field(default_factory=dict)

    def stands(self) -> tuple[list[Row], list[Row]]:
        """The answers up to the first that contradicts those before it, and the votes that stand after them."""
        kept: list[Row] = []
        standing: list[Row] = []
        for number in sorted(self.said):
            row, place = self.said[number], len(standing) - (self.said[number]["action"] == "undo")
            if number != len(kept) + 1 or not 0 <= place < len(self.trials) or self.trials[place].id != row["trial"]:
                break
            kept.append(row)
            standing = [*standing, row] if row["action"] == "vote" else standing[:-1]
        return kept, standing


class Shards:
    """The shards of one study, and the one that this start adds to, which is made when there is something to add.

    Args:
        folder: of the shards.
        digest: identifies everything that is frozen.

    Attributes:
        database: where to make the database: a file of its own, which goes with `close`.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder, self._digest = folder, digest
        self._temporary = TemporaryDirectory(prefix="markovgen-study-")
        self.database = Path(self._temporary.name) / "study.db"
        self._own: Path | None = None
        self._lock = Lock()
        self._overdue = False  # lines of withdrawn raters wait to be taken out

    def close(self) -> None:
        """Remove the database."""
        self._temporary.cleanup()

    def begin(self) -> None:
        """Finish what a killed server left of withdrawals, and make this start's shard.

        Raises:
            UserError: the folder cannot be written to, or holds what is no shard of this study.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            for part in self.folder.glob(".*.part"):  # of a server that was killed while it wrote a shard anew
                part.unlink()
            self.forget()
            self.add()
        except OSError as error:
            raise UserError(
                f"Cannot write answers to {self.folder} ({error.strerror}): choose a folder of a storage that is"
                " mounted and can be written to."
            ) from None

    def add(self, *rows: Row) -> None:
        """Write rows down, durably.

        Raises:
            OSError: they cannot be written, and whatever they say must not be acknowledged.
        """
        with self._lock:
            if not self._appended(rows):
                self._begin_file(rows)
        if self._overdue:
            self.forget()

    def _appended(self, rows: Sequence[Row]) -> bool:
        if self._own is None:
            return False
        try:
            lines.append(self._own, lines.encoded(rows))
            return True
        except OSError:
            return False

    def _begin_file(self, rows: Sequence[Row]) -> None:
        now = datetime.now(timezone.utc)
        own = self.folder / f"{now:%Y-%m-%dT%H%M%S.%fZ}-{token_hex(4)}.jsonl"
        head = {"action": "study", "digest": self._digest, "at": now.isoformat(timespec="milliseconds")}
        try:
            lines.append(own, lines.encoded((head, *rows)))
        except OSError:
            with suppress(OSError):
                own.unlink(missing_ok=True)
            raise
        self._own = own

    def forget(self) -> None:
        """Take the lines of who withdrew out of all shards. What fails is done with the next answer or start."""
        with self._lock:
            try:
                found = self._read()
                void = _void(found)
                for path, rows in found.items():
                    living = [row for row in rows if id(row) not in void]
                    if len(living) < len(rows):
                        lines.replace(path, lines.encoded(living))
                self._overdue = False
            except OSError as error:
                self._overdue = True
                print(
                    f"{self.folder} still holds withdrawn answers, which count no more ({error.strerror}).",
                    file=sys.stderr,
                )

    def restore(self, connection: sa.Connection) -> None:
        """Fill an empty database with what the shards hold.

        Raises:
            UserError: a shard cannot be read, is of another study, or is missing.
        """
        try:
            people = self._replay(connection)
        except OSError as error:
            raise UserError(f"Cannot read {error.filename} ({error.strerror}): give the study's shards.") from None
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"A shard in {self.folder} is damaged: bring the original back.") from None
        rows: dict[sa.Table, list[Row]] = {raters: [], trials: [], events: [], votes: []}
        lost = 0
        for rater, one in people.items():
            kept, standing = one.stands()
            lost += len(one.said) - len(kept)
            row = {"rater": rater, "withdrawal_hash": one.withdrawal_hash, "simulated": one.simulated}
            row |= {"number": len(kept), "answered": len(standing), "assigned": len(one.trials)}
            rows[raters].append({**row, "started_at": one.started_at, "seen_at": one.seen_at})
            rows[trials] += [tables.trial_row(rater, place, trial) for place, trial in enumerate(one.trials)]
            rows[events] += [
                {column.name: said[column.name] for column in events.c if column.name != "id"} for said in kept
            ]
            rows[votes] += [{column.name: said[column.name] for column in votes.c} for said in standing]
        for table, new in rows.items():
            if new:
                connection.execute(table.insert(), new)
        if lost:
            print(f"{lost} answers in {self.folder} contradict others, and are left out there.", file=sys.stderr)

    def _replay(self, connection: sa.Connection) -> dict[str, _Rater]:
        """Raters by id; withdrawals and closing go to the database."""
        found = self._read()
        void, people = _void(found), dict[str, _Rater]()
        withdrawn, closed_at = set[tuple[str, str]](), None
        for row in (row for rows in found.values() for row in rows if id(row) not in void):
            action, at = row["action"], row["at"]
            if action == "session":
                new = _Rater(row["withdrawal_hash"], row["simulated"], at, at)
                one = people.setdefault(row["rater"], new)
                one.trials[row["first"] :] = [Trial(**trial) for trial in row["trials"]]
                one.seen_at = at
            elif action in ("vote", "undo"):
                if row["rater"] in people:
                    people[row["rater"]].said[row["number"]] = row
                    people[row["rater"]].seen_at = at
                elif not any(who == _who(row["rater"]) for who, _ in withdrawn):  # from a server that did not know
                    raise UserError(f"A shard is missing from {self.folder}: bring it back.")
            elif action == "withdrawal" and (row["who"], at) not in withdrawn:  # torn from a file, it is in the next
                withdrawn.add((row["who"], at))
                connection.execute(withdrawals.insert(), {"at": at, "votes": row["votes"]})
            elif action in ("close", "reopen"):
                closed_at = at if action == "close" else None
        if closed_at:
            connection.execute(facts.insert(), {"name": "closed_at", "value": closed_at})
        return people

    def _read(self) -> dict[Path, list[Row]]:
        """All shards with their rows, the oldest first.

        Raises:
            UserError: one of them is damaged, or of another study.
            OSError: one of them cannot be read.
        """
        found = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                found[path] = rows = lines.whole_rows(path.read_bytes())
                ours = not rows or (rows[0]["action"], rows[0]["digest"]) == ("study", self._digest)
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path} is damaged: bring the original back.") from None
            if not ours:
                raise UserError(f"{path} holds answers to another study: give each study a folder of its own.")
        return found


def _who(rater: str) -> str:
    """Tells a withdrawn rater's lines, should any come back, without naming anybody: ids are random."""
    return hashlib.sha256(rater.encode()).hexdigest()


def _void(found: Mapping[Path, Iterable[Row]]) -> set[int]:
    """`id` of the rows of raters who withdrew after them."""
    void, gone = set[int](), set[str]()
    for row in reversed([row for rows in found.values() for row in rows]):
        if row["action"] == "withdrawal":
            gone.add(row["who"])
        elif gone and "rater" in row and _who(row["rater"]) in gone:
            void.add(id(row))
    return void

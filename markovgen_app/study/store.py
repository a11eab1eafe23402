"""Votes on disk: SQLite beside the study, or PostgreSQL for several replicas, by one code path.

What is promised:

- an answer is acknowledged only once it is durable: `record` returns after the commit, and SQLite syncs every commit;
- it counts once: one vote a rater and trial, one event a rater and number, both by the database's own constraints;
- sending it again is harmless: its number tells a repeated answer from a new one, also where a reply was lost;
- answers come in order, to the rater's own trials only, while the study is open;
- what was frozen stays frozen: a database belongs to one frozen study and refuses any other.

`votes` holds what stands, `events` everything that was said, in order, undone answers included. Withdrawing deletes a
rater from all of it. Beside a SQLite file lies a mirror of `events` in JSON Lines (mirror.py); or the database is made
anew at every start, from shards that outlive it (shards.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Lock

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import UserError
from . import tables
from .answers import Answer, Receipt, Refused, Session, Status, apply, say, session_of, stranger, study_closed
from .mirror import Mirror
from .shards import Row, Shards, answer_row, session_row, withdrawal_row
from .tables import events, facts, leaving, raters, trials, votes, withdrawals
from .votes import CORRUPTED, Plan, Trial, Vote

FILE, MIRROR = "study.db", "answers.jsonl"
ABANDONED_AFTER = timedelta(hours=2)
"""A session that stood still for so long gives its open items to the next rater; its rater may still go on with it."""
UNTOUCHED_FOR = timedelta(minutes=10)
"""A session without any answer does so sooner: whoever only opens pages must not take all places."""

Build = Callable[[Sequence[Trial], Sequence[Trial]], list[Trial]]
"""The trials of a new session, out of the trials that fill a place and those that this rater was given already."""


def _utc() -> datetime:
    return datetime.now(timezone.utc)


class Store:
    """The study's database.

    Args:
        url: of the database, as SQLAlchemy writes it; a path is a SQLite file.
        plan: the frozen plan.
        digest: identifies everything that is frozen; the database is bound to it from its first use.
        mirror: file that events are also appended to; only one process at a time may.
        shards: what the database, a new one, is filled with, and what is told of everything before it is committed.
        clock: tells the time in UTC.

    Raises:
        UserError: the database cannot be opened, or belongs to another study, or another process has the mirror.
    """

    def __init__(
        self,
        url: str | Path,
        plan: Plan,
        digest: str,
        *,
        mirror: Path | None = None,
        shards: Shards | None = None,
        clock: Callable[[], datetime] = _utc,
    ) -> None:
        self.plan, self.clock, self._shards = plan, clock, shards
        self._categories = {prompt.id: prompt.category for prompt in plan.prompts}
        self._engine = tables.engine(url)
        self._writer = self._engine.execution_options(writes=True)
        self._joining = Lock()
        with tables.readable_errors():
            tables.create(self._writer)
            self._bind(digest)
            self._mirror = Mirror(mirror, self._categories) if mirror else None
            try:
                if shards:
                    with self._writer.begin() as connection:
                        shards.restore(connection)
                if self._mirror:
                    self._follow(self._mirror.catch_up)
            except BaseException:
                self.dispose()
                raise

    def dispose(self) -> None:
        """Let go of the database and of the mirror."""
        self._engine.dispose()
        if self._shards:
            self._shards.close()
        if self._mirror:
            self._mirror.release()

    # ---- raters ----------------------------------------------------------------------------------------------------

    def session(self, rater: str) -> Session:
        """Where the rater stands.

        Raises:
            Refused: the rater never joined, or withdrew.
        """
        with self._engine.begin() as connection:
            found = session_of(connection, rater)
        if found is None:
            raise stranger()
        return found

    def join(self, rater: str, withdrawal_hash: str, build: Build) -> Session:
        """The rater's session: the open one, or a new one.

        Raises:
            Refused: the study is closed, its votes are simulated, or all pairs that the rater could judge have theirs.
        """
        with self._turn():
            with self._engine.begin() as connection:
                known = session_of(connection, rater)
                if known and known.answered < len(known.trials):
                    return known
                if _fact(connection, "closed_at"):
                    raise study_closed()
                if _has_raters(connection, simulated=True):
                    raise Refused(
                        "This is a rehearsal with simulated raters: no answers of people are taken.", "closed"
                    )
                filling = self._filling(connection)
            shown = known.trials if known else ()
            given = (*shown, *build(filling, shown))
            if len(given) == len(shown):
                raise Refused("This study has all the answers it needs from you. Thank you very much.", "closed")
            with self._writer.begin() as connection:
                now = self._now()
                if not known:
                    row = {"rater": rater, "withdrawal_hash": withdrawal_hash, "simulated": False}
                    row |= {"number": 0, "answered": 0, "assigned": 0, "started_at": now, "seen_at": now}
                    connection.execute(raters.insert(), row)
                rows = [tables.trial_row(rater, place, given[place]) for place in range(len(shown), len(given))]
                connection.execute(trials.insert(), rows)
                changed = raters.update().where(raters.c.rater == rater)
                connection.execute(changed.values(assigned=len(given), seen_at=now))
                self._tell(session_row(rater, withdrawal_hash, False, len(shown), given[len(shown) :], now))
        return Session(rater, given, known.answered if known else 0, known.number if known else 0)

    def withdraw(self, withdrawal_hash: str) -> int:
        """Delete everything of the rater with this code; returns how many votes that were.

        Raises:
            UserError: nobody has this code.
        """
        with self._writer.begin() as connection:
            wanted = sa.select(raters.c.rater).where(raters.c.withdrawal_hash == withdrawal_hash).with_for_update()
            rater = connection.scalar(wanted)
            if rater is None:
                raise UserError("No answers are stored under this withdrawal code: check it letter by letter.")
            deleted = [
                connection.execute(t.delete().where(t.c.rater == rater)) for t in (votes, events, trials, raters)
            ]
            count, now = deleted[0].rowcount, self._now()
            connection.execute(withdrawals.insert(), {"at": now, "votes": count})
            self._tell(withdrawal_row(rater, count, now))
            if self._mirror and not connection.scalar(sa.select(leaving.c.rater).where(leaving.c.rater == rater)):
                connection.execute(leaving.insert(), {"rater": rater})
        if self._mirror:
            self._follow(self._mirror.forget)
        if self._shards:
            self._shards.forget()
        tables.forget_deleted(self._engine)
        return count

    # ---- answers ---------------------------------------------------------------------------------------------------

    def record(self, answers: Sequence[Answer]) -> list[Receipt | Refused]:
        """Take answers in one transaction, durable when this returns: for each a receipt, or why it is refused."""
        results: dict[int, Receipt | Refused] = {}
        with self._writer.begin() as connection:
            closed, now = _fact(connection, "closed_at") is not None, self._now()
            last = _last_event(connection)
            for index in sorted(range(len(answers)), key=lambda i: answers[i].rater):  # so that replicas never deadlock
                try:
                    results[index] = apply(connection, answers[index], closed, now)
                except Refused as refusal:
                    results[index] = refusal
            self._tell_events(connection, last)
        if self._mirror:
            self._follow(self._mirror.append)
        return [results[index] for index in range(len(answers))]

    def votes(self) -> list[Vote]:
        """All votes that stand, rater by rater in the order of their trials."""
        same_trial = sa.and_(trials.c.rater == votes.c.rater, trials.c.trial == votes.c.trial)
        wanted = (
            sa.select(votes, trials, raters.c.simulated)
            .join(trials, same_trial)
            .join(raters, raters.c.rater == votes.c.rater)
            .order_by(votes.c.rater, trials.c.position)
        )
        with self._engine.begin() as connection:
            rows = connection.execute(wanted).all()
        found = []
        for row in rows:
            trial = tables.row_trial(row)
            found.append(
                Vote(
                    rater=row.rater,
                    trial=trial.id,
                    prompt=trial.prompt,
                    category=self._categories.get(trial.prompt, ""),
                    left=trial.left,
                    right=trial.right,
                    choice=row.choice,
                    seconds=row.seconds,
                    kind=trial.kind,
                    repeat_of=trial.repeat_of,
                    expected=trial.expected,
                    simulated=row.simulated,
                    at=row.at,
                )
            )
        return found

    def add_votes(self, imported: Sequence[Vote], withdrawal_hash: Callable[[str], str]) -> None:
        """Take over votes from elsewhere, for another analysis of them.

        Raises:
            UserError: one of their raters is here already, they are votes of another study, or some are simulated and
                some are not.
        """
        self._check_ours(imported)
        by_rater: dict[str, list[Vote]] = {}
        for vote in sorted(imported, key=lambda vote: vote.at):
            by_rater.setdefault(vote.rater, []).append(vote)
        try:
            with self._writer.begin() as connection:
                for kind in {vote.simulated for vote in imported}:
                    if _has_raters(connection, simulated=not kind) or any(vote.simulated != kind for vote in imported):
                        raise UserError("Simulated votes and people's are never mixed: import into a new database.")
                last = _last_event(connection)
                for rater, own in by_rater.items():
                    code, simulated = withdrawal_hash(rater), own[0].simulated
                    row = {"rater": rater, "withdrawal_hash": code, "simulated": simulated}
                    row |= dict.fromkeys(("number", "answered", "assigned"), len(own))
                    connection.execute(raters.insert(), {**row, "started_at": own[0].at, "seen_at": own[-1].at})
                    as_trials = [
                        Trial(v.trial, v.prompt, v.left, v.right, v.kind, v.repeat_of, v.expected) for v in own
                    ]
                    rows = [tables.trial_row(rater, place, trial) for place, trial in enumerate(as_trials)]
                    connection.execute(trials.insert(), rows)
                    self._tell(session_row(rater, code, simulated, 0, as_trials, own[0].at))
                    for number, vote in enumerate(own, start=1):
                        answer = Answer(rater, number, "vote", vote.trial, vote.choice, vote.seconds)
                        say(connection, answer, vote.at)
                self._tell_events(connection, last)
        except IntegrityError:
            raise UserError("Some of these votes are in this database already: import into a new one.") from None
        if self._mirror:
            self._follow(self._mirror.append)

    # ---- the study -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more answers, from now on and in every replica."""
        with self._writer.begin() as connection:
            if not _fact(connection, "closed_at"):
                now = self._now()
                connection.execute(facts.insert(), {"name": "closed_at", "value": now})
                self._tell({"action": "close", "at": now})

    def reopen(self) -> None:
        """Take answers again."""
        with self._writer.begin() as connection:
            connection.execute(facts.delete().where(facts.c.name == "closed_at"))
            self._tell({"action": "reopen", "at": self._now()})

    def status(self) -> Status:
        """How far the study is."""
        same_trial = sa.and_(trials.c.rater == votes.c.rater, trials.c.trial == votes.c.trial)
        by_kind = sa.select(trials.c.kind, sa.func.count()).join(votes, same_trial).group_by(trials.c.kind)
        with self._engine.begin() as connection:
            return Status(
                raters=connection.scalar(sa.select(sa.func.count()).select_from(raters)) or 0,
                finished=connection.scalar(
                    sa.select(sa.func.count()).select_from(raters).where(raters.c.answered >= raters.c.assigned)
                )
                or 0,
                votes={row.kind: row[1] for row in connection.execute(by_kind)},
                withdrawn=connection.scalar(sa.select(sa.func.count()).select_from(withdrawals)) or 0,
                closed_at=_fact(connection, "closed_at"),
                last_answer_at=connection.scalar(sa.select(sa.func.max(events.c.at))),
            )

    def version(self) -> tuple[int, int]:
        """Changes with every vote, undoing, import and withdrawal."""
        with self._engine.begin() as connection:
            last = _last_event(connection)
            return last, connection.scalar(sa.select(sa.func.count()).select_from(withdrawals)) or 0

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _bind(self, digest: str) -> None:
        """Bind a new database to the frozen study; refuse a database of another one."""
        with self._writer.begin() as connection:
            bound = _fact(connection, "digest")
            if bound is None:
                connection.execute(facts.insert(), {"name": "digest", "value": digest})
            elif bound != digest:
                raise UserError(
                    "The votes in this database were given to another plan or other pictures than those in the study's"
                    " folder: bring the original files back, or give another database."
                )

    def _tell(self, *rows: Row) -> None:
        """Have the shards keep what is about to be committed; OSError where they cannot, and then nothing is."""
        if self._shards and rows:
            self._shards.add(*rows)

    def _tell_events(self, connection: sa.Connection, after: int) -> None:
        """Have the shards keep the events past an id."""
        if self._shards:
            new = sa.select(events).where(events.c.id > after).order_by(events.c.id)
            self._tell(*map(answer_row, connection.execute(new)))

    def _follow(self, write: Callable[[sa.Connection], set[str]]) -> None:
        """Let the mirror follow the database. Whom the mirror has nothing of any more is forgotten here, too."""
        with self._engine.begin() as connection:
            gone = write(connection)
        if gone:
            with self._writer.begin() as connection:
                connection.execute(leaving.delete().where(leaving.c.rater.in_(gone)))
            tables.forget_deleted(self._engine)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One session is made at a time, in this process and in all replicas: two would be given the same items."""
        with self._joining, tables.turn(self._writer):
            yield

    def _filling(self, connection: sa.Connection) -> list[Trial]:
        """The pairs that fill a place: judged, or waiting in a session that is not abandoned.

        Not those of raters whom the plan's rule on attention checks leaves out already: what they judged is lost to
        the analysis. The other rules only tell at the end. Who undoes a wrong check comes back in, and then a few
        pairs are judged once more than planned.
        """
        same_trial = sa.and_(trials.c.rater == votes.c.rater, trials.c.trial == votes.c.trial)
        since, untouched_since = (
            (self.clock() - age).isoformat(timespec="milliseconds") for age in (ABANDONED_AFTER, UNTOUCHED_FOR)
        )
        present = raters.c.seen_at > sa.case((raters.c.number > 0, since), else_=untouched_since)
        judged = sa.and_(votes.c.choice.is_not(None), votes.c.choice != "skip")
        waiting = sa.and_(votes.c.choice.is_(None), present)
        failed = sa.and_(trials.c.kind == "check", votes.c.choice != "skip", votes.c.choice != trials.c.expected)
        left_out = (
            sa.select(trials.c.rater)
            .join(votes, same_trial)
            .where(failed)
            .group_by(trials.c.rater)
            .having(sa.func.count() > self.plan.rules.max_failed_checks)
            .correlate(None)
        )
        rows = connection.execute(
            sa.select(trials)
            .join(raters, raters.c.rater == trials.c.rater)
            .outerjoin(votes, same_trial)
            .where(trials.c.kind == "pair", sa.or_(judged, waiting), trials.c.rater.not_in(left_out))
        )
        return [tables.row_trial(row) for row in rows]

    def _check_ours(self, imported: Iterable[Vote]) -> None:
        methods = {*self.plan.methods, CORRUPTED}
        for vote in imported:
            if vote.prompt not in self._categories or not {vote.left, vote.right} <= methods:
                raise UserError(
                    f"The vote on {vote.prompt!r}, {vote.left} against {vote.right}, is of another study: import votes"
                    " of this one."
                )

    def _now(self) -> str:
        return self.clock().isoformat(timespec="milliseconds")


def _fact(connection: sa.Connection, name: str) -> str | None:
    return connection.scalar(sa.select(facts.c.value).where(facts.c.name == name))


def _last_event(connection: sa.Connection) -> int:
    """The id of the newest event; 0 where there is none."""
    return connection.scalar(sa.select(sa.func.max(events.c.id))) or 0


def _has_raters(connection: sa.Connection, *, simulated: bool) -> bool:
    found = sa.select(raters.c.rater).where(raters.c.simulated.is_(simulated)).limit(1)
    return connection.scalar(found) is not None

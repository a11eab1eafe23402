"""What raters send and get back, and how an answer is written down: the rules of a session, without its storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from ..errors import UserError
from . import tables
from .tables import events, raters, trials, votes
from .votes import Choice, Trial

Reason = Literal["closed", "order", "stranger"]


class Refused(UserError):
    """Why an answer is not taken. `reason` tells a program what to do: stop, ask where it stands, or start again."""

    def __init__(self, line: str, reason: Reason) -> None:
        super().__init__(line)
        self.reason = reason


def study_closed() -> Refused:
    """To raise where answers come too late."""
    return Refused("This study is closed, so no more answers can be taken. Thank you for your interest.", "closed")


def stranger() -> Refused:
    """To raise where a rater is not known."""
    return Refused(
        "This rating session is not known here (its answers may have been withdrawn): start again.", "stranger"
    )


Action = Literal["vote", "undo"]


@dataclass(frozen=True)
class Answer:
    """What a rater's browser sends: a vote, or the undoing of the last one.

    `number` counts the rater's answers from 1; sending one again under its number changes nothing.
    """

    rater: str
    number: int
    action: Action
    trial: str
    choice: Choice | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Receipt:
    """Where a rater stands after an answer: so many trials answered, so many answers sent (undone ones included)."""

    answered: int
    number: int


@dataclass(frozen=True)
class Session:
    """A rater's trials in order; the first `answered` of them are answered, by `number` answers sent so far."""

    rater: str
    trials: tuple[Trial, ...]
    answered: int
    number: int


@dataclass(frozen=True)
class Status:
    """How far the study is. `votes` counts those that stand, by kind of trial."""

    raters: int
    finished: int
    votes: dict[str, int]
    withdrawn: int
    closed_at: str | None
    last_answer_at: str | None


def session_of(connection: sa.Connection, rater: str) -> Session | None:
    """Where a rater stands; None for one who is not known."""
    row = connection.execute(sa.select(raters).where(raters.c.rater == rater)).first()
    if row is None:
        return None
    rows = connection.execute(sa.select(trials).where(trials.c.rater == rater).order_by(trials.c.position))
    return Session(rater, tuple(tables.row_trial(each) for each in rows), row.answered, row.number)


def apply(connection: sa.Connection, answer: Answer, closed: bool, now: str) -> Receipt:
    """Write one answer down, or raise Refused."""
    rater = connection.execute(sa.select(raters).where(raters.c.rater == answer.rater).with_for_update()).first()
    if rater is None:
        raise stranger()
    receipt = Receipt(rater.answered, rater.number)
    if answer.number <= rater.number:
        said = sa.select(events).where(events.c.rater == answer.rater, events.c.number == answer.number)
        known = connection.execute(said).one()
        if (known.action, known.trial, known.choice) != (answer.action, answer.trial, answer.choice):
            raise Refused(
                "This study is open in another window, which is further on: go on there, or reload this page.", "order"
            )
        return receipt
    given = sa.select(trials.c.position).where(trials.c.rater == answer.rater, trials.c.trial == answer.trial)
    position = connection.scalar(given)
    if position is None:
        raise Refused("This pair of pictures is not one of yours: reload the page.", "order")
    if answer.action == "vote" and position < rater.answered:
        stands = sa.select(votes.c.choice).where(votes.c.rater == answer.rater, votes.c.trial == answer.trial)
        if connection.scalar(stands) != answer.choice:
            raise Refused("You have answered this pair already: undo your last answer to change it.", "order")
        return receipt
    if closed:
        raise study_closed()
    if answer.number > rater.number + 1 or (answer.action == "vote" and position > rater.answered):
        raise Refused("Pairs are answered in their order, one after the other: reload the page.", "order")
    if answer.action == "undo" and position != rater.answered - 1:
        raise Refused("Only your last answer can be undone: reload the page.", "order")
    say(connection, answer, now)
    answered = rater.answered + (1 if answer.action == "vote" else -1)
    changed = raters.update().where(raters.c.rater == answer.rater)
    connection.execute(changed.values(answered=answered, number=answer.number, seen_at=now))
    return Receipt(answered, answer.number)


def say(connection: sa.Connection, answer: Answer, at: str) -> None:
    """Write down what was said, and what stands now."""
    key = {"rater": answer.rater, "trial": answer.trial}
    said = {"choice": answer.choice, "seconds": answer.seconds, "at": at}
    connection.execute(events.insert(), {**key, **said, "number": answer.number, "action": answer.action})
    if answer.action == "vote":
        connection.execute(votes.insert(), {**key, **said})
    else:
        connection.execute(votes.delete().where(votes.c.rater == answer.rater, votes.c.trial == answer.trial))

"""What the store promises, on both engines."""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import a_plan, a_study, answered, join, vote

from markovgen_app.errors import UserError
from markovgen_app.study.bundle import Bundle
from markovgen_app.study.mirror import read_mirror
from markovgen_app.study.recorder import Recorder
from markovgen_app.study.statistics import analyse
from markovgen_app.study.store import ABANDONED_AFTER, UNTOUCHED_FOR, Answer, Receipt, Refused, Session, Store
from markovgen_app.study.votes import Trial, Vote


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return a_study(tmp_path_factory.mktemp("bundle") / "study")


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 8, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(new_database: Callable[[], str | Path]) -> str | Path:
    return new_database()


@pytest.fixture
def store(database: str | Path, bundle: Bundle, clock: Clock, tmp_path: Path) -> Iterator[Store]:
    mirror = tmp_path / "answers.jsonl" if isinstance(database, Path) else None
    opened = Store(database, bundle.plan, bundle.digest, mirror=mirror, clock=clock)
    yield opened
    opened.dispose()


@pytest.fixture
def session(store: Store, bundle: Bundle) -> Session:
    return join(store, bundle)[1]


def only(results: list[Receipt | Refused]) -> Receipt | Refused:
    (result,) = results
    return result


def test_a_vote_is_kept_with_all_that_the_analysis_needs(store: Store, session: Session) -> None:
    assert only(store.record([vote(session, 0, "right")])) == Receipt(1, 1)
    (kept,) = store.votes()
    trial = session.trials[0]
    assert (kept.rater, kept.trial, kept.prompt) == (session.rater, trial.id, trial.prompt)
    assert (kept.left, kept.right, kept.kind, kept.expected) == (trial.left, trial.right, trial.kind, trial.expected)
    assert (kept.choice, kept.seconds, kept.simulated) == ("right", 1.5, False)
    assert kept.category in ("odd", "even") and kept.at.endswith("+00:00")


def test_sending_again_changes_nothing(store: Store, session: Session) -> None:
    first = vote(session, 0)
    for _ in range(3):
        assert only(store.record([first])) == Receipt(1, 1)
    assert store.record([first, first, vote(session, 1), vote(session, 1)])[-1] == Receipt(2, 2)
    assert only(store.record([replace(first, number=3)])) == Receipt(2, 2), "the same vote under a new number"
    assert len(store.votes()) == 2


def test_voting_twice_is_refused(store: Store, session: Session) -> None:
    store.record([vote(session, 0, "left")])
    again = only(store.record([vote(session, 0, "right", number=2)]))
    assert isinstance(again, Refused) and "undo your last answer" in str(again) and again.reason == "order"
    other = only(store.record([vote(session, 0, "right", number=1)]))
    assert isinstance(other, Refused) and "open in another window" in str(other)
    assert [kept.choice for kept in store.votes()] == ["left"]


def test_answers_come_in_order(store: Store, session: Session) -> None:
    for answer in (vote(session, 1, number=1), vote(session, 0, number=2), vote(session, 5)):
        refusal = only(store.record([answer]))
        assert isinstance(refusal, Refused) and "answered in their order" in str(refusal)
    assert store.votes() == []


def test_only_own_trials(store: Store, bundle: Bundle, session: Session) -> None:
    _, other = join(store, bundle)
    refusal = only(store.record([replace(vote(session, 0), trial=other.trials[0].id)]))
    assert isinstance(refusal, Refused) and "not one of yours" in str(refusal)
    refusal = only(store.record([Answer("nobody", 1, "vote", session.trials[0].id, "left", 1.0)]))
    assert isinstance(refusal, Refused) and refusal.reason == "stranger"
    with pytest.raises(Refused, match="not known here"):
        store.session("nobody")


def test_the_last_vote_can_be_undone_and_given_again(store: Store, session: Session) -> None:
    def undo(place: int, number: int) -> Answer:
        return Answer(session.rater, number, "undo", session.trials[place].id)

    store.record([vote(session, 0), vote(session, 1)])
    refusal = only(store.record([undo(0, 3)]))
    assert isinstance(refusal, Refused) and "Only your last answer" in str(refusal)
    assert only(store.record([undo(1, 3)])) == Receipt(1, 3)
    assert only(store.record([undo(1, 3)])) == Receipt(1, 3), "sent again"
    assert isinstance(only(store.record([undo(1, 4)])), Refused), "nothing to undo there"
    late = only(store.record([vote(session, 1)]))
    assert late == Receipt(1, 3), "a late copy of the undone vote does not bring it back"
    assert only(store.record([vote(session, 1, "right", number=4)])) == Receipt(2, 4)
    assert [kept.choice for kept in store.votes()] == ["left", "right"]


def test_one_refusal_does_not_touch_the_others(store: Store, bundle: Bundle) -> None:
    sessions = [join(store, bundle)[1] for _ in range(3)]
    batch = [vote(sessions[0], 0), vote(sessions[1], 3), vote(sessions[2], 0), vote(sessions[0], 1)]
    results = store.record(batch)
    assert [isinstance(result, Receipt) for result in results] == [True, False, True, True]
    assert len(store.votes()) == 3


def test_a_closed_study_takes_nothing_new(store: Store, bundle: Bundle, session: Session) -> None:
    store.record([vote(session, 0)])
    store.close()
    store.close()
    refusal = only(store.record([vote(session, 1)]))
    assert isinstance(refusal, Refused) and refusal.reason == "closed"
    assert only(store.record([vote(session, 0)])) == Receipt(1, 1), "what was taken before is acknowledged again"
    assert isinstance(only(store.record([Answer(session.rater, 2, "undo", session.trials[0].id)])), Refused)
    with pytest.raises(Refused, match="closed"):
        join(store, bundle)
    assert store.status().closed_at
    store.reopen()
    assert only(store.record([vote(session, 1)])) == Receipt(2, 2)


def test_joining_again_goes_on(store: Store, bundle: Bundle) -> None:
    token, session = join(store, bundle)
    store.record([vote(session, 0)])
    again = join(store, bundle, token)[1]
    assert again.trials == session.trials and (again.answered, again.number) == (1, 1)
    assert store.session(session.rater) == again


def test_a_finished_rater_gets_other_pairs_and_no_practice(store: Store, bundle: Bundle) -> None:
    token, session = join(store, bundle)
    answered(store, session)
    more = join(store, bundle, token)[1]
    new = more.trials[len(session.trials) :]
    assert new and all(trial.kind != "practice" for trial in new)

    def items(trials: tuple[Trial, ...]) -> set[tuple[str, frozenset[str]]]:
        return {(t.prompt, frozenset((t.left, t.right))) for t in trials if t.kind == "pair"}

    assert not items(tuple(new)) & items(session.trials)
    place = len(session.trials)
    assert only(store.record([vote(more, place)])) == Receipt(place + 1, place + 1)


def test_every_item_gets_its_raters_and_then_nobody_else(store: Store, bundle: Bundle) -> None:
    raters = 0
    while True:
        try:
            _, session = join(store, bundle)
        except Refused as refusal:
            assert "all the answers it needs" in str(refusal)
            break
        answered(store, session)
        raters += 1
        assert raters < 40
    judged: dict[tuple[str, frozenset[str]], set[str]] = {}
    for kept in store.votes():
        if kept.kind == "pair":
            judged.setdefault((kept.prompt, frozenset((kept.left, kept.right))), set()).add(kept.rater)
    assert len(judged) == 36 and {len(of) for of in judged.values()} == {3}
    assert raters == 18


def test_an_abandoned_session_is_given_to_the_next(store: Store, bundle: Bundle, clock: Clock) -> None:
    first = join(store, bundle)[1]
    store.record([vote(first, place) for place in range(5)])
    for _ in range(17):
        answered(store, join(store, bundle)[1])
    with pytest.raises(Refused):
        join(store, bundle)
    clock.now += ABANDONED_AFTER + timedelta(seconds=1)
    _, late = join(store, bundle)
    given = {(t.prompt, frozenset((t.left, t.right))) for t in late.trials if t.kind == "pair"}
    waiting = {(t.prompt, frozenset((t.left, t.right))) for t in first.trials[5:] if t.kind == "pair"}
    assert given == waiting
    assert isinstance(only(store.record([vote(first, 5)])), Receipt), "who comes back may go on"


def test_a_session_that_nobody_began_holds_its_places_for_minutes_only(
    store: Store, bundle: Bundle, clock: Clock
) -> None:
    begun, opened = join(store, bundle)[1], [join(store, bundle)[1] for _ in range(17)]
    store.record([vote(begun, 0)])
    with pytest.raises(Refused, match="all the answers it needs"):
        join(store, bundle)
    clock.now += UNTOUCHED_FOR + timedelta(seconds=1)
    for _ in range(17):
        answered(store, join(store, bundle)[1])
    with pytest.raises(Refused, match="all the answers it needs"):
        join(store, bundle)
    answered(store, opened[0])  # who comes back late is served all the same


def test_skipped_pairs_are_given_to_somebody_else(store: Store, bundle: Bundle) -> None:
    for number in range(18):
        answered(store, join(store, bundle)[1], "skip" if number == 0 else "left")
    assert len([t for t in join(store, bundle)[1].trials if t.kind == "pair"]) == 6


def test_raters_who_failed_their_checks_fill_no_places(new_database: Callable[[], str | Path], tmp_path: Path) -> None:
    """The analysis leaves them out, so others are asked, and the study reaches what it planned."""
    bundle = a_study(tmp_path / "study", a_plan(target_n=36))  # all that 12 prompts with 3 raters each can give
    store = Store(new_database(), bundle.plan, bundle.digest)

    def rate(wrong_checks: int) -> Session:
        _, session = join(store, bundle)
        for place, trial in enumerate(session.trials):
            choice = trial.expected or "tie"
            if trial.kind == "check" and wrong_checks:
                wrong_checks -= 1
                choice = "left" if trial.expected == "right" else "right"
            assert isinstance(only(store.record([vote(session, place, choice)])), Receipt)
        return session

    failed = rate(2)
    for number in range(17):
        rate(1 if number < 5 else 0)  # one wrong check is allowed
    assert analyse(store.votes(), bundle.plan, 0).preliminary
    rate(0)
    results = analyse(store.votes(), bundle.plan, 0)
    assert not results.preliminary and [pair.votes for pair in results.pairs] == [36, 36, 36]
    lefts: dict[tuple[str, frozenset[str]], list[str]] = {}
    for kept in store.votes():
        if kept.kind == "pair" and kept.rater != failed.rater:
            lefts.setdefault((kept.prompt, frozenset((kept.left, kept.right))), []).append(kept.left)
    assert all(len(sides) == 3 and len(set(sides)) == 2 for sides in lefts.values()), "two on a side, one on the other"
    with pytest.raises(Refused, match="all the answers it needs"):
        join(store, bundle)
    store.dispose()


def test_withdrawing_deletes_everything(store: Store, bundle: Bundle, database: str | Path, tmp_path: Path) -> None:
    _, stays = join(store, bundle)
    _, goes = join(store, bundle)
    answered(store, stays)
    store.record([vote(goes, 0), Answer(goes.rater, 2, "undo", goes.trials[0].id), vote(goes, 0, "tie", number=3)])
    keys = bundle.keys
    with pytest.raises(UserError, match="No answers are stored under this withdrawal code"):
        store.withdraw(keys.withdrawal_hash("AAAA-AAAA-AAAA-AAAA"))
    assert store.withdraw(keys.withdrawal_hash(keys.withdrawal_code(goes.rater))) == 1
    assert {kept.rater for kept in store.votes()} == {stays.rater}
    assert store.status().withdrawn == 1
    with pytest.raises(Refused):
        store.session(goes.rater)
    refusal = only(store.record([vote(goes, 0)]))
    assert isinstance(refusal, Refused) and refusal.reason == "stranger"
    with pytest.raises(UserError):
        store.withdraw(keys.withdrawal_hash(keys.withdrawal_code(goes.rater)))
    if isinstance(database, Path):
        files = [*database.parent.glob(f"{database.name}*"), tmp_path / "answers.jsonl"]
        assert len(files) >= 2
        for file in files:
            assert goes.rater.encode() not in file.read_bytes(), f"{file} still knows the rater"
            assert goes.trials[0].id.encode() not in file.read_bytes()


def test_status_counts(store: Store, bundle: Bundle) -> None:
    answered(store, join(store, bundle)[1])
    store.record([vote(join(store, bundle)[1], 0)])
    status = store.status()
    assert (status.raters, status.finished, status.withdrawn, status.closed_at) == (2, 1, 0, None)
    assert status.votes == {"practice": 4, "pair": 6, "repeat": 1, "check": 2}
    assert status.last_answer_at and status.last_answer_at.startswith("2026-08-01")
    before = store.version()
    store.record([vote(join(store, bundle)[1], 0)])
    assert store.version() != before


def test_another_study_s_database_is_refused(store: Store, database: str | Path, bundle: Bundle) -> None:
    Store(database, bundle.plan, bundle.digest).dispose()
    with pytest.raises(UserError, match="given to another plan or other pictures"):
        Store(database, bundle.plan, "another")


def test_raters_at_once(store: Store, bundle: Bundle) -> None:
    """Many threads join and vote; the same answers from two windows count once."""

    def rate(_: int) -> list[Receipt | Refused]:
        session = join(store, bundle)[1]
        found = []
        for place in range(len(session.trials)):
            found += store.record([vote(session, place)])
            found += store.record([vote(session, place)])
        return found

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(rate, range(16)):
            assert all(isinstance(result, Receipt) for result in results)
    votes = store.votes()
    assert len({(kept.rater, kept.trial) for kept in votes}) == len(votes)
    pairs = [(kept.prompt, frozenset((kept.left, kept.right))) for kept in votes if kept.kind == "pair"]
    assert len(pairs) == 96 and max(pairs.count(pair) for pair in pairs) <= 3, "no item was given away too often"


def test_replicas_share_one_database(store: Store, database: str | Path, bundle: Bundle, clock: Clock) -> None:
    """One rater's answers, in disorder, through two replicas: counted once each, and never a deadlock."""
    other = Store(database, bundle.plan, bundle.digest, clock=clock)
    replicated = isinstance(database, str)  # on SQLite only one process gives sessions out
    sessions = [join(store, bundle)[1] for _ in range(6)]

    def send(replica: Store) -> int:
        taken = 0
        for place in range(len(sessions[0].trials)):
            batch = [vote(session, place) for session in (sessions if replica is store else reversed(sessions))]
            while not all(isinstance(result, Receipt) for result in replica.record(batch)):
                pass
            taken += len(batch)
        return taken

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(send, (store, other))) == 2 * 6 * len(sessions[0].trials)
    assert len(store.votes()) == 6 * len(sessions[0].trials)
    with ThreadPoolExecutor(6) as pool:
        joined = list(pool.map(lambda n: join((store, other if replicated else store)[n % 2], bundle)[1], range(6)))
    items = [(t.prompt, t.left, t.right) for s in (*sessions, *joined) for t in s.trials if t.kind == "pair"]
    unordered = [(prompt, frozenset(sides)) for prompt, *sides in items]
    assert max(unordered.count(item) for item in unordered) <= 2, "12 sessions of 6 cover 36 items twice"
    other.dispose()


def test_imported_votes_are_the_same_votes(
    store: Store, bundle: Bundle, new_database: Callable[[], str | Path]
) -> None:
    for _ in range(2):
        answered(store, join(store, bundle)[1])
    keys = bundle.keys

    def code(rater: str) -> str:
        return keys.withdrawal_hash(keys.withdrawal_code(rater))

    copy = Store(new_database(), bundle.plan, bundle.digest)
    copy.add_votes(store.votes(), code)
    assert copy.votes() == store.votes()
    with pytest.raises(UserError, match="in this database already"):
        copy.add_votes(store.votes(), code)
    with pytest.raises(UserError, match="is of another study"):
        copy.add_votes([replace(store.votes()[0], left="something")], code)
    assert copy.withdraw(code(store.votes()[0].rater)) > 0, "codes work on"
    copy.dispose()


def test_simulated_votes_and_peoples_are_never_mixed(
    store: Store, bundle: Bundle, new_database: Callable[[], str | Path]
) -> None:
    answered(store, join(store, bundle)[1])
    people = store.votes()
    simulated = [replace(vote, rater="simulated-1", simulated=True) for vote in people]
    rehearsal = Store(new_database(), bundle.plan, bundle.digest)
    rehearsal.add_votes(simulated, str)
    for target, added in ((store, simulated), (rehearsal, people)):
        with pytest.raises(UserError, match="never mixed"):
            target.add_votes(added, str)
    with pytest.raises(Refused, match="rehearsal with simulated raters"):
        join(rehearsal, bundle)
    empty = Store(new_database(), bundle.plan, bundle.digest)
    with pytest.raises(UserError, match="never mixed"):
        empty.add_votes([*simulated, *people], str)
    assert empty.votes() == [] and store.votes() == people
    rehearsal.dispose()
    empty.dispose()


actions = st.lists(
    st.tuples(st.sampled_from(("vote", "vote", "undo")), st.sampled_from(("left", "tie", "right")), st.integers(1, 3)),
    max_size=25,
)


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    plan = a_plan(4, methods=("one", "two"), checks=0, practice=0, repeat_share=0.0)
    folder = tmp_path_factory.mktemp("small")
    store = Store(folder / "study.db", plan, "digest", mirror=folder / "answers.jsonl")
    yield store
    store.dispose()


@given(actions)
def test_any_history_ends_as_it_should(small_store: Store, said: list[tuple[str, str, int]]) -> None:
    """Votes and undoings, each sent one to three times, against a list that does the same."""
    trials = [Trial(f"{n:020x}", f"{n + 1:04d}", "one", "two") for n in range(4)]
    rater = uuid.uuid4().hex
    small_store.join(rater, rater, lambda filling, shown: trials)
    stands: list[str] = []
    number = 0
    for action, choice, times in said:
        place = len(stands) - (action == "undo")
        if not 0 <= place < 4:
            continue
        number += 1
        given = (choice, 1.0) if action == "vote" else (None, None)
        answer = Answer(rater, number, action, trials[place].id, *given)  # type: ignore[arg-type]
        stands = [*stands, choice] if action == "vote" else stands[:-1]
        for result in small_store.record([answer] * times):
            assert result == Receipt(len(stands), number)
    assert [kept.choice for kept in small_store.votes() if kept.rater == rater] == stands
    assert small_store._mirror is not None
    lines = [json.loads(line) for line in small_store._mirror.path.read_text().splitlines()]
    assert sum(line["rater"] == rater for line in lines) == number


# ---- SQLite and its mirror -----------------------------------------------------------------------------------------


def test_every_commit_is_synced(tmp_path: Path, bundle: Bundle) -> None:
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest)
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
    store.dispose()


def test_the_database_itself_forbids_a_second_vote(tmp_path: Path, bundle: Bundle) -> None:
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest)
    session = join(store, bundle)[1]
    store.record([vote(session, 0)])
    store.dispose()
    with sqlite3.connect(tmp_path / "study.db") as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO votes SELECT * FROM votes")


def test_the_mirror_follows_and_catches_up(tmp_path: Path, bundle: Bundle) -> None:
    mirror = tmp_path / "answers.jsonl"
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest, mirror=mirror)
    session = join(store, bundle)[1]
    store.record([vote(session, 0), vote(session, 1), Answer(session.rater, 3, "undo", session.trials[1].id)])
    whole = mirror.read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [line["action"] for line in lines] == ["vote", "vote", "undo"]
    trial = session.trials[0]
    assert (lines[0]["left"], lines[0]["right"], lines[0]["choice"]) == (trial.left, trial.right, "left")
    store.dispose()
    for damaged in (whole[:-7], b"", b"something else\n" * 99):
        mirror.write_bytes(damaged)
        Store(tmp_path / "study.db", bundle.plan, bundle.digest, mirror=mirror).dispose()
        assert mirror.read_bytes() == whole


def test_answers_that_only_the_mirror_knows_are_never_overwritten(tmp_path: Path, bundle: Bundle) -> None:
    """A lost database, an old copy of it, and what brings the answers back."""
    mirror, path = tmp_path / "answers.jsonl", tmp_path / "study.db"

    def opened(**options: Any) -> Store:
        return Store(path, bundle.plan, bundle.digest, **options)

    store = opened(mirror=mirror)
    session = join(store, bundle)[1]
    store.record([vote(session, 0), vote(session, 1)])
    with sqlite3.connect(path) as old, sqlite3.connect(tmp_path / "old.db") as copy:
        old.backup(copy)
    store.record([Answer(session.rater, 3, "undo", session.trials[1].id), vote(session, 1, "tie", number=4)])
    store.dispose()
    whole, votes = mirror.read_bytes(), store_votes(path, bundle)
    for lost in (None, tmp_path / "old.db"):
        for file in tmp_path.glob("study.db*"):
            file.unlink()
        if lost:
            lost.rename(path)
        with pytest.raises(UserError, match="holds answers that the database does not"):
            opened(mirror=mirror)
        assert mirror.read_bytes() == whole
    for file in tmp_path.glob("study.db*"):
        file.unlink()
    mirror.write_bytes(whole + whole[:40])  # killed within a line
    store = opened()
    store.add_votes(read_mirror(mirror), lambda rater: rater)
    store.dispose()
    assert store_votes(path, bundle) == votes
    store = opened(mirror=mirror)
    assert read_mirror(mirror) == votes
    store.dispose()


def test_a_withdrawal_explains_the_answers_of_that_rater_only(tmp_path: Path, bundle: Bundle) -> None:
    """An old database is refused after a withdrawal, too; what a withdrawal left undone is done."""
    mirror, path, keys = tmp_path / "answers.jsonl", tmp_path / "study.db", bundle.keys

    def opened() -> Store:
        return Store(path, bundle.plan, bundle.digest, mirror=mirror)

    def withdraw(session: Session) -> None:
        store.withdraw(keys.withdrawal_hash(keys.withdrawal_code(session.rater)))

    store = opened()
    stays, goes, early = (join(store, bundle)[1] for _ in range(3))
    store.record([vote(stays, 0), vote(goes, 0), vote(early, 0)])
    withdraw(early)
    with sqlite3.connect(path) as old, sqlite3.connect(tmp_path / "old.db") as copy:
        old.backup(copy)
    later = join(store, bundle)[1]
    for newer in (vote(stays, 1), vote(later, 0)):
        store.record([newer])
        store.dispose()
        whole = mirror.read_bytes()
        with sqlite3.connect(path) as now, sqlite3.connect(tmp_path / "now.db") as copy:
            now.backup(copy)
        for file in tmp_path.glob("study.db*"):
            file.unlink()
        shutil.copy(tmp_path / "old.db", path)
        with pytest.raises(UserError, match="holds answers that the database does not"):
            opened()
        assert mirror.read_bytes() == whole
        for file in tmp_path.glob("study.db*"):
            file.unlink()
        (tmp_path / "now.db").rename(path)
        store = opened()

    assert store._mirror is not None
    before = mirror.read_bytes()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store._mirror, "forget", lambda connection: (_ for _ in ()).throw(KeyboardInterrupt))
        withdraw(goes)  # killed between the withdrawal and its mirror
    store.dispose()
    assert mirror.read_bytes() == before
    opened().dispose()
    assert {json.loads(line)["rater"] for line in mirror.read_text().splitlines()} == {stays.rater, later.rater}
    for file in tmp_path.glob("study.db*"):
        assert goes.rater.encode() not in file.read_bytes(), "once the mirror has forgotten, the database does"


def store_votes(path: Path, bundle: Bundle) -> list[Vote]:
    store = Store(path, bundle.plan, bundle.digest)
    votes = store.votes()
    store.dispose()
    return votes


def test_a_mirror_that_cannot_be_written_costs_no_vote(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mirror"
    folder.mkdir()
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest, mirror=folder / "answers.jsonl")
    session = join(store, bundle)[1]
    folder.rename(tmp_path / "away")
    assert isinstance(only(store.record([vote(session, 0)])), Receipt)
    assert "votes are safe in the database" in capsys.readouterr().err
    folder.mkdir()  # the disk is back
    store.record([vote(session, 1)])
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 2
    store.dispose()


def test_a_full_disk_puts_off_what_a_withdrawal_deletes_and_fails_it_not(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mirror"
    folder.mkdir()
    mirror, keys = folder / "answers.jsonl", bundle.keys
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest, mirror=mirror)
    stays, goes = join(store, bundle)[1], join(store, bundle)[1]
    store.record([vote(stays, 0), vote(goes, 0)])
    folder.rename(tmp_path / "away")
    assert store.withdraw(keys.withdrawal_hash(keys.withdrawal_code(goes.rater))) == 1
    assert "still holds withdrawn answers" in capsys.readouterr().err
    (tmp_path / "away").rename(folder)
    assert goes.rater in mirror.read_text()
    store.record([vote(stays, 1)])
    assert [json.loads(line)["rater"] for line in mirror.read_text().splitlines()] == [stays.rater] * 2
    assert not capsys.readouterr().err
    store.dispose()


def test_a_disk_that_fills_up_within_a_line_tears_none(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file may grow no further than into the second of two lines: one and a half of them are written."""
    mirror = tmp_path / "answers.jsonl"
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest, mirror=mirror)
    other = Store(tmp_path / "study.db", bundle.plan, bundle.digest)  # writes no mirror
    session = join(store, bundle)[1]
    store.record([vote(session, 0)])
    room = mirror.stat().st_size
    other.record([vote(session, 1), vote(session, 2)])
    assert store._mirror is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with store._engine.begin() as connection:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room * 5 // 2, hard))
        try:
            store._mirror.append(connection)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "votes are safe in the database" in capsys.readouterr().err
    assert mirror.stat().st_size == room * 5 // 2, "the second line is torn"
    store.record([vote(session, 3)])  # there is room again
    assert [json.loads(line)["trial"] for line in mirror.read_text().splitlines()] == [
        trial.id for trial in session.trials[:4]
    ]
    assert read_mirror(mirror) == store.votes()
    store.dispose()
    other.dispose()


def test_only_one_process_serves_a_study(tmp_path: Path, bundle: Bundle) -> None:
    options = {"mirror": tmp_path / "answers.jsonl"}
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest, **options)
    with pytest.raises(UserError, match="is being served already: stop that first"):
        Store(tmp_path / "study.db", bundle.plan, bundle.digest, **options)
    Store(tmp_path / "study.db", bundle.plan, bundle.digest).dispose()  # looking is free
    store.dispose()
    Store(tmp_path / "study.db", bundle.plan, bundle.digest, **options).dispose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("no url", "The database's URL cannot be read"),
        ("mysql://u:secret@h/d", "SQLite or PostgreSQL, not mysql"),
        ("postgresql://u:secret@127.0.0.1:1/d", "The study's database cannot be used"),
        (Path("/proc/none/study.db"), "The study's database cannot be used"),
    ],
)
def test_a_database_that_is_not_there_is_one_line(bundle: Bundle, url: str | Path, says: str) -> None:
    with pytest.raises(UserError) as caught:
        Store(url, bundle.plan, bundle.digest)
    assert says in str(caught.value) and "\n" not in str(caught.value) and "secret" not in str(caught.value)


# ---- the recorder --------------------------------------------------------------------------------------------------


def test_the_recorder_answers_everyone(store: Store, bundle: Bundle) -> None:
    recorder = Recorder(store)
    sessions = [join(store, bundle)[1] for _ in range(5)]
    futures = [recorder.submit(vote(session, place)) for place in range(4) for session in sessions]
    wrong = recorder.submit(vote(sessions[0], 9, number=9))
    assert [future.result(30).answered for future in futures] == [place for place in (1, 2, 3, 4) for _ in range(5)]
    with pytest.raises(Refused, match="in their order"):
        wrong.result(30)
    last = recorder.submit(vote(sessions[0], 4))
    recorder.stop()
    assert last.result(0) == Receipt(5, 5), "what was submitted is written before it ends"


def test_a_failing_database_is_told_to_all_who_wait(bundle: Bundle, tmp_path: Path) -> None:
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest)
    session = join(store, bundle)[1]
    recorder = Recorder(store)
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("ALTER TABLE events RENAME TO gone")
    with pytest.raises(Exception, match="events"):
        recorder.submit(vote(session, 0)).result(30)
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("ALTER TABLE gone RENAME TO events")
    assert recorder.submit(vote(session, 0)).result(30) == Receipt(1, 1), "it works on"
    recorder.stop()
    store.dispose()


def test_who_hangs_up_stops_nobody(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is cancelled while its answer waits: the answer is kept, and others are answered."""
    store = Store(tmp_path / "study.db", bundle.plan, bundle.digest)
    first, other = join(store, bundle)[1], join(store, bundle)[1]
    writing, go_on, record = Event(), Event(), store.record

    def slow(answers: Sequence[Answer]) -> list[Receipt | Refused]:
        writing.set()
        assert go_on.wait(30)
        return record(answers)

    monkeypatch.setattr(store, "record", slow)
    recorder = Recorder(store)
    running = recorder.submit(vote(first, 0))
    assert writing.wait(30) and not running.cancel(), "what is being written cannot be cancelled"
    waiting, after = recorder.submit(vote(first, 1)), recorder.submit(vote(other, 0))
    assert waiting.cancel()
    go_on.set()
    assert (running.result(30), after.result(30)) == (Receipt(1, 1), Receipt(1, 1))
    assert recorder.submit(vote(first, 2)).result(30) == Receipt(3, 3)
    recorder.stop()
    store.dispose()

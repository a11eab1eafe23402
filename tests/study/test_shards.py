"""Answers in a folder that outlives the database: what a restart finds again, and what stays nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from starlette.applications import Starlette
from starlette.testclient import TestClient
from studies import a_study, answered, join, vote

from markovgen_app.errors import UserError
from markovgen_app.settings import Settings
from markovgen_app.study import lines
from markovgen_app.study.answers import Answer, Receipt, Refused, Session
from markovgen_app.study.bundle import Bundle
from markovgen_app.study.shards import Shards
from markovgen_app.study.site import Site, open_store
from markovgen_app.study.store import Store


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return a_study(tmp_path_factory.mktemp("bundle") / "study")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def started(bundle: Bundle, folder: Path) -> Store:
    """A start of the server, on a disk that was emptied."""
    return open_store(bundle, None, shards=folder, taking_votes=True)


@pytest.fixture
def store(bundle: Bundle, folder: Path) -> Iterator[Store]:
    opened = started(bundle, folder)
    yield opened
    opened.dispose()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def withdraw(store: Store, bundle: Bundle, session: Session) -> int:
    return store.withdraw(bundle.keys.withdrawal_hash(bundle.keys.withdrawal_code(session.rater)))


def test_a_restart_finds_everything_again(store: Store, bundle: Bundle, folder: Path) -> None:
    token, session = join(store, bundle)
    undone = [vote(session, 0), vote(session, 1), Answer(session.rater, 3, "undo", session.trials[1].id)]
    store.record([*undone, vote(session, 1, "tie", number=4)])
    other_token, other = join(store, bundle)
    answered(store, other)
    more = join(store, bundle, other_token)[1]
    store.close()
    votes, status = store.votes(), store.status()
    store.dispose()
    assert not store._shards.database.exists(), "nothing but the shards is left"

    again = started(bundle, folder)
    assert again.votes() == votes and again.status() == status and status.closed_at
    again.reopen()
    assert again.session(session.rater) == join(again, bundle, token)[1] == Session(session.rater, session.trials, 2, 4)
    assert again.session(more.rater) == more
    assert again.record([vote(session, 0), *undone]) == [Receipt(2, 4)] * 4, "sent again"
    assert again.votes() == votes
    assert again.record([vote(session, 2, number=5)]) == [Receipt(3, 5)]
    votes = again.votes()
    again.dispose()
    assert len(list(folder.iterdir())) == 2, "a shard for each start"
    third = started(bundle, folder)
    assert third.votes() == votes and third.status().closed_at is None
    third.dispose()


def test_withdrawn_answers_vanish_and_stay_away(store: Store, bundle: Bundle, folder: Path) -> None:
    stays, goes = join(store, bundle)[1], join(store, bundle, bundle.keys.invited_token(bundle.keys.invitation(1)))[1]
    store.record([vote(stays, 0), vote(goes, 0)])
    store.dispose()
    again = started(bundle, folder)
    again.record([vote(goes, 1)])
    assert withdraw(again, bundle, goes) == 2
    for path in folder.iterdir():
        assert goes.rater not in path.read_text() and goes.trials[0].id not in path.read_text()
    again.dispose()
    third = started(bundle, folder)
    assert {kept.rater for kept in third.votes()} == {stays.rater} and third.status().withdrawn == 1
    with pytest.raises(Refused, match="not known here"):
        third.session(goes.rater)
    back = join(third, bundle, bundle.keys.invited_token(bundle.keys.invitation(1)))[1]
    assert back.rater == goes.rater
    third.record([vote(back, 0)])
    third.dispose()
    fourth = started(bundle, folder)
    assert len(fourth.votes()) == 2, "who comes back after withdrawing is a new rater"
    fourth.dispose()


def test_what_a_withdrawal_left_is_taken_out_later(
    store: Store, bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    stays, goes, also = (join(store, bundle)[1] for _ in range(3))
    store.record([vote(each, 0) for each in (stays, goes, also)])
    with monkeypatch.context() as patch:
        patch.setattr(lines, "replace", full)
        withdraw(store, bundle, goes)
        assert "still holds withdrawn answers" in capsys.readouterr().err
    assert any(row.get("rater") == goes.rater for row in rows(folder))
    store.record([vote(stays, 1)])
    assert {row["rater"] for row in rows(folder) if "rater" in row} == {stays.rater, also.rater}
    with monkeypatch.context() as patch:
        patch.setattr(lines, "replace", full)
        withdraw(store, bundle, also)
    store.dispose()
    looked = open_store(bundle, None, shards=folder)
    assert {kept.rater for kept in looked.votes()} == {stays.rater}
    looked.dispose()
    assert any(row.get("rater") == also.rater for row in rows(folder)), "looking changes nothing"
    (folder / ".some.jsonl.part").write_text(also.rater)  # killed while it was taken out
    started(bundle, folder).dispose()
    assert {row["rater"] for row in rows(folder) if "rater" in row} == {stays.rater}
    assert not (folder / ".some.jsonl.part").exists()


def test_an_answer_that_no_shard_takes_is_not_acknowledged(bundle: Bundle, tmp_path: Path, folder: Path) -> None:
    site = Site.open(bundle.folder, Settings(study_shards=folder))
    http = TestClient(Starlette(routes=site.routes))
    told = http.post("/rate/api/start", json={"consent": True}).json()
    headers = {"Authorization": f"Bearer {told['token']}"}
    body = {"number": 1, "action": "vote", "trial": told["trials"][0]["id"], "choice": "left", "seconds": 2}
    folder.rename(tmp_path / "away")
    reply = http.post("/rate/api/answers", json=body, headers=headers)
    assert (reply.status_code, reply.json()["reason"]) == (503, "later")
    assert http.post("/rate/api/start", json={"consent": True}).status_code == 503
    assert http.post("/rate/api/withdraw", json={"code": told["code"]}).status_code == 503
    assert (site.store.votes(), site.store.status().raters, site.store.status().withdrawn) == ([], 1, 0)
    (tmp_path / "away").rename(folder)
    for _ in range(2):
        assert http.post("/rate/api/answers", json=body, headers=headers).json() == {"answered": 1, "number": 1}
    votes = site.store.votes()
    site.close()
    assert [row["action"] for row in rows(folder)] == ["study", "session", "vote"]
    again = started(bundle, folder)
    assert again.votes() == votes and len(votes) == 1
    again.dispose()


def test_a_storage_that_takes_every_file_once(
    store: Store, bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = lines.append

    def once(path: Path, content: bytes) -> None:
        if path.exists():
            append(path, content[:-9])  # and what it takes of more is torn
            raise OSError(95, "Operation not supported")
        append(path, content)

    monkeypatch.setattr(lines, "append", once)
    session = join(store, bundle)[1]
    answered(store, session)
    votes = store.votes()
    store.dispose()
    again = started(bundle, folder)
    assert again.votes() == votes and again.session(session.rater).answered == len(session.trials) == len(votes)
    again.dispose()


def test_torn_ends_cost_nothing_and_damage_is_said(store: Store, bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    session = join(store, bundle)[1]
    store.record([vote(session, 0), vote(session, 1)])
    votes = store.votes()
    store.dispose()
    (shard,) = folder.iterdir()
    whole = shard.read_bytes()
    (folder / "2020-01-01.jsonl").write_bytes(whole[:20])  # killed within its first line
    shard.write_bytes(whole + whole[-30:-5])
    again = started(bundle, folder)
    assert again.votes() == votes
    again.dispose()
    before = sorted(folder.iterdir())
    shard.write_bytes(whole[:300] + b"\n" + whole[300:])
    with pytest.raises(UserError, match="is damaged: bring the original back"):
        started(bundle, folder)
    shard.write_bytes(b"".join(line for line in whole.splitlines(True) if b'"session"' not in line))
    with pytest.raises(UserError, match="A shard is missing"):
        started(bundle, folder)
    assert len(list(folder.iterdir())) == len(before) + 1
    shard.write_bytes(whole)
    for file in set(folder.iterdir()) - {*before}:
        file.unlink()
    with pytest.raises(UserError, match="holds answers to another study"):
        Shards(folder, "another").begin()
    assert sorted(folder.iterdir()) == before, "another study leaves no file there"


def test_two_servers_at_once_are_not_mixed_up(
    store: Store, bundle: Bundle, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old one ends while the new one begins: a rater goes on here and there."""
    session = join(store, bundle)[1]
    store.record([vote(session, 0)])
    other = started(bundle, folder)
    store.record([vote(session, 1, "left")])
    other.record([vote(session, 1, "right")])
    withdrawn = join(store, bundle)[1]
    third = started(bundle, folder)
    store.record([vote(withdrawn, 0)])
    withdraw(third, bundle, withdrawn)
    store.record([vote(withdrawn, 1)])
    last = started(bundle, folder)
    assert [kept.choice for kept in last.votes()] == ["left", "right"] and not capsys.readouterr().err
    for each in (other, third, last):
        each.dispose()


def test_commands_read_the_shards(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MARKOVGEN_STUDY_SHARDS", str(folder))
    study = str(bundle.folder)
    assert run_command("study", "status", study) == 2
    assert "There is no folder" in capsys.readouterr().err
    store = started(bundle, folder)
    answered(store, join(store, bundle)[1])
    store.dispose()
    assert run_command("study", "close", study) == 0
    assert run_command("study", "status", study, "--json") == 0
    told = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert told["votes"]["pair"] == 6 and told["closed_at"]
    assert run_command("study", "status", study, "--database", "some.db") == 2
    assert "leave MARKOVGEN_DATABASE (--database) out" in capsys.readouterr().err
    with pytest.raises(UserError, match="MARKOVGEN_STUDY_SHARDS: leave one of them out"):
        Site.open(bundle.folder, Settings(study_shards=folder, study_repository="someone/answers"))
    with pytest.raises(UserError, match="Cannot write answers to"):
        started(bundle, folder / "not" / "mounted")


def test_imported_votes_are_kept(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "study.db", bundle.plan, bundle.digest)
    answered(elsewhere, join(elsewhere, bundle)[1])
    store = open_store(bundle, None, shards=folder, taking_votes=True)
    store.add_votes(elsewhere.votes(), str)
    store.dispose()
    again = started(bundle, folder)
    assert again.votes() == elsewhere.votes()
    again.dispose()
    elsewhere.dispose()

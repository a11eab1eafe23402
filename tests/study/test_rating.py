"""The rater's side over HTTP: a whole session, and everything that somebody might try instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.testclient import TestClient
from studies import a_plan, a_study

from markovgen_app.settings import Settings
from markovgen_app.study.bundle import Bundle
from markovgen_app.study.site import Site


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return a_study(tmp_path_factory.mktemp("bundle") / "study", a_plan(practice=1, checks=1))


def opened(bundle: Bundle, folder: Path, **settings: Any) -> Site:
    database = f"sqlite:///{folder / 'study.db'}"
    return Site.open(bundle.folder, Settings(database=database, admin_password=SecretStr("open sesame"), **settings))


@pytest.fixture
def site(bundle: Bundle, tmp_path: Path) -> Iterator[Site]:
    site = opened(bundle, tmp_path)
    yield site
    site.close()


@pytest.fixture
def http(site: Site) -> TestClient:
    return TestClient(Starlette(routes=site.routes))


class Rater:
    """A rater's browser."""

    def __init__(self, http: TestClient, **start: Any) -> None:
        self.http = http
        reply = http.post("/rate/api/start", json={"consent": True, **start})
        assert reply.status_code == 200, reply.text
        self.told = reply.json()
        self.headers = {"Authorization": f"Bearer {self.told['token']}"}
        self.trials = [trial["id"] for trial in self.told["trials"]]

    def vote(self, place: int, choice: str = "left", **others: Any) -> Any:
        body = {"number": place + 1, "action": "vote", "trial": self.trials[place], "choice": choice, "seconds": 2.5}
        return self.post("answers", body | others)

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.http.post(f"/rate/api/{path}", json=body, headers=self.headers | headers)

    def session(self) -> Any:
        return self.http.get("/rate/api/session", headers=self.headers)

    def picture(self, trial: str, side: str) -> Any:
        return self.http.get(f"/rate/pictures/{trial}/{side}", headers=self.headers)


def refused(reply: Any, status: int, says: str) -> None:
    """One clear line in JSON, and nothing of what is inside."""
    assert reply.status_code == status, reply.text
    told = reply.json()
    assert set(told) == {"error", "reason"}
    assert says in told["error"] and "\n" not in told["error"] and "Traceback" not in told["error"]


def test_a_whole_session(site: Site, http: TestClient) -> None:
    rater = Rater(http)
    total = len(rater.trials)
    assert total == 1 + 6 + 1 + 1
    for place in range(total):
        for side in ("left", "right"):
            reply = rater.picture(rater.trials[place], side)
            assert reply.status_code == 200 and reply.headers["content-type"] == "image/png"
            assert len(reply.content) == site.bundle.manifest.bytes
        assert rater.vote(place, "tie").json() == {"answered": place + 1, "number": place + 1}
    undone = rater.post("answers", {"number": total + 1, "action": "undo", "trial": rater.trials[-1]})
    assert undone.json() == {"answered": total - 1, "number": total + 1}
    assert rater.vote(total - 1, "bad", number=total + 2).json() == {"answered": total, "number": total + 2}
    assert rater.session().json()["answered"] == total
    more = rater.post("start", {"consent": True}).json()
    assert len(more["trials"]) > total and not any("practice" in trial for trial in more["trials"][total:])
    deleted = http.post("/rate/api/withdraw", json={"code": rater.told["code"].lower()})
    assert deleted.json() == {"deleted": total}
    refused(rater.session(), 401, "start again")
    assert site.store.votes() == []


def test_only_practice_tells_its_kind(http: TestClient) -> None:
    trials = Rater(http).told["trials"]
    assert set(trials[0]) == {"id", "prompt", "practice"} and trials[0]["practice"] in ("left", "right")
    assert all(set(trial) == {"id", "prompt"} for trial in trials[1:])


def test_no_consent_no_session(site: Site, http: TestClient) -> None:
    refused(http.post("/rate/api/start", json={"consent": False}), 400, "Please agree first")
    assert site.store.status().raters == 0


def test_a_second_session_by_way_of_another_replica(site: Site, http: TestClient, tmp_path: Path) -> None:
    """One database, two servers: what the first gives out, the second shows, though it knew the rater before."""
    other = opened(site.bundle, tmp_path)
    there = TestClient(Starlette(routes=other.routes))
    rater = Rater(http)

    def shown_there(trial: str) -> Any:
        return there.get(f"/rate/pictures/{trial}/left", headers=rater.headers)

    assert shown_there(rater.trials[0]).status_code == 200
    for place in range(len(rater.trials)):
        rater.vote(place)
    more = [trial["id"] for trial in rater.post("start", {"consent": True}).json()["trials"]]
    assert len(more) > len(rater.trials)
    assert [shown_there(trial).status_code for trial in more] == [200] * len(more)
    refused(shown_there("0" * 20), 409, "not one of yours")
    other.close()


# ---- attacks -----------------------------------------------------------------------------------------------------


def test_voting_twice(site: Site, http: TestClient) -> None:
    rater = Rater(http)
    rater.vote(0)
    assert rater.vote(0).status_code == 200, "sending again is no second vote"
    refused(rater.vote(0, "right", number=2), 409, "You have answered this pair already")
    refused(rater.vote(0, "right"), 409, "open in another window")
    assert [vote.choice for vote in site.store.votes()] == ["left"]


def test_voting_for_another_rater(site: Site, http: TestClient) -> None:
    mine, theirs = Rater(http), Rater(http)
    refused(mine.vote(0, trial=theirs.trials[0]), 409, "not one of yours")
    refused(mine.vote(0, rater="somebody"), 400, "There is no setting called 'rater'")
    refused(mine.picture(theirs.trials[0], "left"), 409, "not one of yours")
    assert site.store.votes() == []


def test_voting_on_a_pair_that_was_not_assigned(http: TestClient) -> None:
    rater = Rater(http)
    refused(rater.vote(0, trial="0" * 20), 409, "not one of yours")
    refused(rater.vote(0, trial="../../secret"), 400, "Trial")
    refused(rater.vote(3, number=1), 409, "in their order")
    refused(rater.picture("0" * 20, "left"), 409, "not one of yours")
    refused(rater.picture(rater.trials[0], "middle"), 409, "not one of yours")


def test_voting_after_closing(site: Site, http: TestClient) -> None:
    rater = Rater(http)
    rater.vote(0)
    site.store.close()
    refused(rater.vote(1), 403, "This study is closed")
    refused(http.post("/rate/api/start", json={"consent": True}), 403, "This study is closed")
    assert rater.vote(0).status_code == 200
    assert len(site.store.votes()) == 1


def test_opening_session_after_session(bundle: Bundle, tmp_path: Path) -> None:
    """From one address; invitations, and whoever has begun, have no such limit."""
    site = opened(bundle, tmp_path, visitor_burst=3)
    http = TestClient(Starlette(routes=site.routes))
    raters = [Rater(http) for _ in range(3)]
    refused(http.post("/rate/api/start", json={"consent": True}), 400, "Many people begin where you are: please try")
    assert site.store.status().raters == 3
    assert raters[0].post("start", {"consent": True}).json()["code"] == raters[0].told["code"]
    for number in range(4):
        Rater(http, invitation=bundle.keys.invitation(number))
    site.close()


def forged(token: str) -> list[str]:
    text, _, signature = token.partition(".")
    return [
        "",
        "null",
        text,
        f"{text}.",
        f".{signature}",
        f"{text[:-1]}{'A' if text[-1] != 'A' else 'B'}.{signature}",
        f"{text}.{signature[::-1]}",
        f"{token}.{signature}",
        token.swapcase(),
        "' OR 1=1 --",
        "x" * 5000,
    ]


def test_forged_tokens(site: Site, http: TestClient) -> None:
    rater = Rater(http)
    good = rater.told["token"]
    body = {"number": 1, "action": "vote", "trial": rater.trials[0], "choice": "left", "seconds": 1.0}
    for token in forged(good):
        for header in (f"Bearer {token}", f"Basic {good}", token):
            reply = rater.post("answers", body, Authorization=header)
            refused(reply, 401, ":")
            refused(http.get("/rate/api/session", headers={"Authorization": header}), 401, ":")
            refused(http.get(f"/rate/pictures/{rater.trials[0]}/left", headers={"Authorization": header}), 401, ":")
    refused(http.post("/rate/api/answers", json=body), 401, "needs a rater's token")
    assert site.store.votes() == []


def test_forged_invitations(bundle: Bundle, tmp_path: Path) -> None:
    site = opened(bundle, tmp_path, study_invite_only=True)
    http = TestClient(Starlette(routes=site.routes))
    good = bundle.keys.invitation(1)
    refused(http.post("/rate/api/start", json={"consent": True}), 400, "by invitation")
    for invitation in forged(good)[1:-1]:
        refused(http.post("/rate/api/start", json={"consent": True, "invitation": invitation}), 400, "invitation")
    first, second = Rater(http, invitation=good), Rater(http, invitation=good)
    assert first.trials == second.trials, "one invitation is one rater"
    assert Rater(http, invitation=bundle.keys.invitation(2)).trials != first.trials
    site.close()


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "vote",
        {},
        {"number": 1, "action": "vote", "trial": "a"},
        {"number": 0, "action": "vote", "trial": "a", "choice": "left", "seconds": 1},
        {"number": True, "action": "vote", "trial": "a", "choice": "left", "seconds": 1},
        {"number": "1", "action": "vote", "trial": "a", "choice": "left", "seconds": 1},
        {"number": 1, "action": "delete", "trial": "a", "choice": "left", "seconds": 1},
        {"number": 1, "action": "vote", "trial": "a", "choice": "markovgen", "seconds": 1},
        {"number": 1, "action": "vote", "trial": "a", "choice": "left", "seconds": -1},
        {"number": 1, "action": "vote", "trial": "a", "choice": "left", "seconds": 1e9},
        {"number": 1, "action": "undo", "trial": "a", "choice": "left", "seconds": 1},
        {"number": 1, "action": "vote", "trial": "a'; DROP TABLE votes", "choice": "left", "seconds": 1},
        {"number": 1, "action": "vote", "trial": "a" * 5000, "choice": "left", "seconds": 1},
    ],
)
def test_rubbish_through_the_raw_api(site: Site, http: TestClient, body: Any) -> None:
    rater = Rater(http)
    reply = rater.post("answers", body)
    assert reply.status_code in (400, 409)
    refused(reply, reply.status_code, "")
    assert site.store.votes() == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 4000, b'{"seconds": NaN}', b"x" * 10_000])
def test_no_json_through_the_raw_api(http: TestClient, content: bytes) -> None:
    rater = Rater(http)
    for path in ("answers", "start", "withdraw"):
        reply = http.post(f"/rate/api/{path}", content=content, headers=rater.headers)
        refused(reply, 400, "")


@pytest.mark.parametrize(
    "path",
    [
        "/rate/pictures/../../secret.key",
        "/rate/pictures/..%2f..%2fsecret.key/left",
        "/rate/pictures/%2e%2e/%2e%2e/plan.json",
        "/rate/pictures/0001/..",
        "/rate/../study.db",
        "/pictures.json",
        "/results/../rate/../plan.json",
        "/results/..%2fsecret.key",
    ],
)
def test_path_tricks(http: TestClient, path: str) -> None:
    rater = Rater(http)
    reply = http.get(path, headers=rater.headers)
    assert reply.status_code in (401, 404, 409)
    assert b"secret" not in reply.content and b"raters_per_pair" not in reply.content


def test_guessing_withdrawal_codes(site: Site, http: TestClient) -> None:
    Rater(http)
    for code in ("", "AAAA-AAAA-AAAA-AAAA", "%", "' OR '1'='1", "ä" * 40):
        refused(http.post("/rate/api/withdraw", json={"code": code}), 400, "No answers are stored under this")
    assert site.store.status().raters == 1


def test_a_database_that_fails_is_told_and_nothing_is_acknowledged(
    site: Site, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def failing(answers: object) -> None:
        raise OperationalError("INSERT INTO votes", {}, Exception("disk full"))

    rater = Rater(http)
    monkeypatch.setattr(site.store, "record", failing)
    reply = rater.vote(0)
    refused(reply, 503, "does not answer")
    assert "INSERT" not in reply.text and "disk" not in reply.text
    monkeypatch.undo()
    assert rater.vote(0).status_code == 200


# ---- the page ----------------------------------------------------------------------------------------------------


def test_the_page_stands_alone(http: TestClient) -> None:
    reply = http.get("/rate")
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert reply.headers["cache-control"] == "no-store" and reply.headers["referrer-policy"] == "no-referrer"
    links = re.findall(r'(?:src|href)="([^"]+)"', reply.text)
    assert all(link.startswith("data:") for link in links), links
    assert "$" not in re.sub(r"<script>.*?</script>", "", reply.text, flags=re.DOTALL), "all places are filled"


def test_titles_and_consent_are_text(tmp_path: Path) -> None:
    plan = a_plan(3, title="<b>Title</b>", question="A & B?")
    bundle = a_study(tmp_path / "study", plan, consent="<script>x</script>\n\nSecond  part.")
    site = opened(bundle, tmp_path)
    page = TestClient(Starlette(routes=site.routes)).get("/rate").text
    assert "&lt;b&gt;Title&lt;/b&gt;" in page and "A &amp; B?" in page
    assert "<p>&lt;script&gt;x&lt;/script&gt;</p><p>Second part.</p>" in page
    site.close()

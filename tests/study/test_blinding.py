"""All traffic of whole sessions, searched for anything that tells one method from another.

The pictures themselves may differ, that is what raters judge; everything around their pixels must not.
"""

from __future__ import annotations

import re
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from scipy import stats
from starlette.applications import Starlette
from starlette.testclient import TestClient
from studies import METHODS, a_plan, a_study, draw

from markovgen_app.settings import Settings
from markovgen_app.study.bundle import Bundle
from markovgen_app.study.pictures import encoded
from markovgen_app.study.site import Site
from markovgen_app.study.votes import Trial

RATERS = 8
CHANCE = 1e-4  # a pattern that is less likely than this by chance is a leak; ids and sides are the same in every run


@dataclass
class Reply:
    """One request and what came back."""

    url: str
    headers: dict[str, str]
    body: bytes
    seconds: float
    trial: Trial | None = None
    side: str = ""
    place: int = 0

    @property
    def method(self) -> str:
        assert self.trial
        return self.trial.left if self.side == "left" else self.trial.right


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> list[Reply]:
    """Everything that raters' browsers were sent, and what only the server knows about it."""
    folder = tmp_path_factory.mktemp("blind")
    with pytest.MonkeyPatch.context() as fixed:
        fixed.setattr("markovgen_app.study.creation.secrets.token_hex", lambda size: "07" * size)
        bundle: Bundle = a_study(folder / "study", a_plan(40, session_length=24))
    site = Site.open(bundle.folder, Settings(visitor_burst=0))
    http = TestClient(Starlette(routes=site.routes))
    found: list[Reply] = []

    def recorded(method: str, url: str, **options: object) -> Reply:
        began = time.perf_counter()
        reply = http.request(method, url, **options)  # type: ignore[arg-type]
        assert reply.status_code == 200, reply.text
        found.append(Reply(url, dict(reply.headers), reply.content, time.perf_counter() - began))
        return found[-1]

    for number in range(RATERS):
        recorded("GET", "/rate")
        start = {"consent": True, "invitation": bundle.keys.invitation(number + 1)}
        told = http.post("/rate/api/start", json=start).json()
        headers = {"Authorization": f"Bearer {told['token']}"}
        recorded("GET", "/rate/api/session", headers=headers)
        trials = site.store.session(bundle.keys.rater(told["token"])).trials
        for place, trial in enumerate(trials):
            for side in ("left", "right"):
                reply = recorded("GET", f"/rate/pictures/{trial.id}/{side}", headers=headers)
                reply.trial, reply.side, reply.place = trial, side, place
            vote = {"number": place + 1, "action": "vote", "trial": trial.id, "choice": "tie", "seconds": 1.0}
            recorded("POST", "/rate/api/answers", json=vote, headers=headers)
    site.close()
    return found


@pytest.fixture(scope="module")
def pictures(traffic: list[Reply]) -> list[Reply]:
    return [reply for reply in traffic if reply.trial]


def test_the_study_would_leak_if_it_were_not_for_the_filling(tmp_path: Path) -> None:
    sizes = {method: len(encoded(draw(method, "", 0))) for method in METHODS}
    assert max(sizes.values()) > 10 * min(sizes.values())


def test_no_method_is_ever_named(traffic: list[Reply]) -> None:
    words = [*METHODS, "decoder", "corrupted", "markovgen", "early-exit"]
    for reply in traffic:
        everything = "\n".join([reply.url, *(f"{name}: {value}" for name, value in reply.headers.items())]).encode()
        for word in words:
            assert word.encode() not in (everything + reply.body).lower(), (word, reply.url)


def test_no_kind_of_trial_is_told_but_practice(traffic: list[Reply]) -> None:
    for reply in traffic:
        if reply.headers["content-type"].startswith("application/json"):
            assert not re.search(rb"repeat|check|expected|\bkind\b|\bpair\b|method|sha256|\.png|category", reply.body)


def test_headers_are_the_same_for_every_picture(pictures: list[Reply]) -> None:
    assert len({tuple(sorted(reply.headers.items())) for reply in pictures}) == 1
    headers = pictures[0].headers
    assert headers["cache-control"] == "no-store, no-transform"
    assert not {"etag", "last-modified", "content-disposition", "set-cookie", "server-timing"} & set(headers)


def test_addresses_are_never_the_same(pictures: list[Reply]) -> None:
    assert len({reply.url for reply in pictures}) == len(pictures), "no picture has an address that could be recognised"


def test_replies_to_votes_are_the_same_whatever_was_shown(traffic: list[Reply]) -> None:
    bodies = {re.sub(rb"\d+", b"n", reply.body) for reply in traffic if reply.url.endswith("/answers")}
    assert bodies == {b'{"answered":n,"number":n}'}


def places_in_order(reply: Reply) -> float:
    return reply.place


def bytes_of_the_file(reply: Reply) -> float:
    return len(reply.body)


def bytes_after_compression(reply: Reply) -> float:
    """As a proxy on the way might compress it; to a thousandth, which is what pixels of one size can differ by."""
    return round(len(zlib.compress(reply.body, 6)) / len(reply.body), 2)


def number_in_the_address(reply: Reply) -> float:
    return int(reply.url.split("/")[3][:8], 16)


def last_digit_of_the_address(reply: Reply) -> float:
    return int(reply.url.split("/")[3][-1], 16)


def sides(reply: Reply) -> float:
    return reply.side == "left"


def seconds(reply: Reply) -> float:
    return reply.seconds


@pytest.mark.parametrize(
    "trait",
    [
        places_in_order,
        bytes_of_the_file,
        bytes_after_compression,
        number_in_the_address,
        last_digit_of_the_address,
        sides,
        seconds,
    ],
)
def test_nothing_measurable_predicts_the_method(pictures: list[Reply], trait: Callable[[Reply], float]) -> None:
    """Rank tests of every method against the others; a trait that never varies predicts nothing."""
    values: dict[str, list[float]] = defaultdict(list)
    for reply in pictures:
        assert reply.trial
        if reply.trial.kind == "pair":
            values[reply.method].append(trait(reply))
    assert set(values) == set(METHODS) and min(map(len, values.values())) > 100
    if len({value for each in values.values() for value in each}) == 1:
        return
    for method, own in values.items():
        others = [value for name, each in values.items() if name != method for value in each]
        assert stats.mannwhitneyu(own, others).pvalue > CHANCE, method


def test_the_tests_above_would_notice(pictures: list[Reply]) -> None:
    """The same rank test on the sizes that the files had before they were filled."""
    values: dict[str, list[int]] = defaultdict(list)
    for reply in pictures:
        assert reply.trial
        if reply.trial.kind == "pair":
            values[reply.method].append(reply.body.index(b"fiLl"))
    assert stats.mannwhitneyu(values[METHODS[0]], values[METHODS[2]]).pvalue < CHANCE


def test_two_raters_cannot_tell_from_places_which_trials_are_alike(pictures: list[Reply]) -> None:
    """Left and right are balanced for every pair of methods, over all raters."""
    lefts: dict[frozenset[str], list[str]] = defaultdict(list)
    for reply in pictures:
        assert reply.trial
        if reply.trial.kind == "pair" and reply.side == "left":
            lefts[frozenset((reply.trial.left, reply.trial.right))].append(reply.method)
    for names in lefts.values():
        first = min(names)
        assert abs(names.count(first) / len(names) - 0.5) < 0.02

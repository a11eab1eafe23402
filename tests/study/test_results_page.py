"""The researcher's page: who may see it, what it says, what it gives away."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.testclient import TestClient
from studies import METHODS, a_plan, a_study, answered, join

from markovgen_app.settings import Settings
from markovgen_app.study import results_page
from markovgen_app.study.bundle import Bundle
from markovgen_app.study.files import FILES
from markovgen_app.study.simulate import World, simulate
from markovgen_app.study.site import Site
from markovgen_app.study.votes import Plan

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return a_study(tmp_path_factory.mktemp("bundle") / "study", a_plan(title="Tiles & <towers>"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_page, "_WRONG_PASSWORD_SECONDS", 0.0)
    monkeypatch.setattr(results_page, "_RESTS", 0)


@pytest.fixture
def open_site(bundle: Bundle, tmp_path: Path) -> Iterator[Any]:
    sites: list[Site] = []

    def opened(**settings: Any) -> tuple[Site, TestClient]:
        options = {"admin_password": SecretStr(PASSWORD), **settings}
        site = Site.open(bundle.folder, Settings(database=f"sqlite:///{tmp_path / 'study.db'}", **options))
        sites.append(site)
        return site, TestClient(Starlette(routes=site.routes))

    yield opened
    for site in sites:
        site.close()


def enter(http: TestClient, password: str = PASSWORD) -> Any:
    return http.post("/results/enter", data={"password": password})


def test_results_need_the_password(open_site: Any) -> None:
    site, http = open_site()
    answered(site.store, join(site.store, site.bundle)[1])
    for path in ("/results", *(f"/results/{name}" for name in FILES), "/results/secret.key"):
        reply = http.get(path)
        assert reply.status_code == 401
        assert not any(method in reply.text for method in METHODS)
    assert "Results need the admin password" in http.get("/results/votes.csv").text
    for wrong in ("", "open", PASSWORD.upper(), "x" * 3000, "\udcff"):
        reply = http.post("/results/enter", content=f"password={wrong}".encode(errors="replace"))
        assert reply.status_code in (400, 401)
    assert "This is not the password: try again." in enter(http, "wrong").text
    assert http.get("/results").status_code == 401
    assert enter(http).status_code == 200
    page = http.get("/results")
    assert page.status_code == 200 and all(method in page.text for method in METHODS)
    assert http.get("/results/votes.csv").status_code == 200
    assert http.get("/results/other.csv").status_code == 404
    http.post("/results/leave")
    assert http.get("/results").status_code == 401


def test_cookies_cannot_be_forged_and_die_with_the_password(open_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, http = open_site()
    enter(http)
    cookie = http.cookies["study-results"]
    expires, _, signature = cookie.partition(".")
    http.cookies.clear()
    for forged in ("", "x", f"{int(expires) + 9}.{signature}", f"{expires}.{signature[::-1]}", f"{expires}.", "²."):
        header = f"study-results={forged}".encode("latin-1")
        assert http.get("/results", headers={"Cookie": header}).status_code == 401
    assert http.get("/results", headers={"Cookie": f"study-results={cookie}"}).status_code == 200
    other = open_site(admin_password=SecretStr("another one"))[1]
    assert other.get("/results", headers={"Cookie": f"study-results={cookie}"}).status_code == 401
    later = int(expires) + 1
    monkeypatch.setattr(results_page.time, "time", lambda: later)
    assert http.get("/results", headers={"Cookie": f"study-results={cookie}"}).status_code == 401


def test_where_no_cookie_is_kept_a_way_in_is_said(open_site: Any) -> None:
    """As in a frame on another site, which browsers keep no strict cookies for."""
    _, http = open_site()
    entered = http.post("/results/enter", data={"password": PASSWORD}, follow_redirects=False)
    assert entered.headers["location"] == "../results?entered"
    kept = http.get("/results?entered", follow_redirects=False)
    assert kept.status_code == 303 and kept.headers["location"] == "results", "a reload later on says nothing wrong"
    http.cookies.clear()
    refused = http.get("/results?entered")
    assert refused.status_code == 401 and "Your browser keeps no cookie here" in refused.text
    assert '<a href="results" target="_blank" rel="noopener">' in refused.text
    assert "keeps no cookie" not in http.get("/results").text + http.get("/results?wrong").text


def test_without_a_password_nobody_gets_in(open_site: Any) -> None:
    _, http = open_site(admin_password=None)
    assert "No password is set" in http.get("/results").text
    assert enter(http, "").status_code == 401 and enter(http, "None").status_code == 401


def test_public_only_after_closing(open_site: Any) -> None:
    site, http = open_site(study_public=True)
    assert http.get("/results").status_code == 401
    site.store.close()
    assert http.get("/results").status_code == 200
    assert http.get("/results/results.json").status_code == 200
    _, private = open_site()
    assert private.get("/results").status_code == 401


def test_the_page_before_any_answer(open_site: Any) -> None:
    _, http = open_site()
    enter(http)
    page = http.get("/results").text
    assert "no answers yet" in page and "Preliminary" in page and "Tiles &amp; &lt;towers&gt;" in page
    assert "Some methods have no votes yet." in page, "and says why there are no strengths"


@pytest.fixture
def simulated(open_site: Any) -> tuple[Site, TestClient]:
    site, http = open_site()
    plan: Plan = site.bundle.plan
    keys = site.bundle.keys
    votes = simulate(plan, World(inattentive_share=0.3), seed=1)
    site.store.add_votes(votes, lambda rater: keys.withdrawal_hash(keys.withdrawal_code(rater)))
    enter(http)
    return site, http


def test_the_page_says_what_the_analysis_says(simulated: tuple[Site, TestClient]) -> None:
    _, http = simulated
    page = http.get("/results").text
    told = json.loads(http.get("/results/results.json").content)
    assert "Simulated: no person gave these answers." in page
    for pair in told["pairs"]:
        assert f"{pair['first']} against {pair['second']}" in page
        for share in (pair["raw"]["first"], pair["majority"]["second"], pair["sided"]):
            assert f"{share['count']} of {share['total']}" in page
            assert f"{100 * share['value']:.1f}\u202f%" in page
            assert f"{100 * share['low']:.1f} – {100 * share['high']:.1f}\u202f%" in page
    for exclusion in told["exclusions"]:
        assert exclusion["reason"] in page
    for strength in told["strengths"]:
        assert f"{strength['value']:+.2f}".replace("-", "−") in page
    assert http.get("/results/methods.txt").text.strip()[:60] in page.replace("&#x27;", "'")
    assert "By category" in page and "Krippendorff" in page


def test_bars_add_up_and_are_said_in_words(simulated: tuple[Site, TestClient]) -> None:
    page = simulated[1].get("/results").text
    bars = re.findall(r'<svg class="chart shares".*?</svg>', page)
    assert len(bars) == 6
    for bar in bars:
        widths = [float(width) for width in re.findall(r'<rect class="\w+" x="[\d.]+%" width="([\d.]+)%"', bar)]
        assert len(widths) == 3 and sum(widths) == pytest.approx(100, abs=0.01)
        assert re.search(r'role="img" aria-label="[\w-]+ [\d.]+\u202f%, indifferent [\d.]+', bar)


def test_everything_can_be_downloaded(simulated: tuple[Site, TestClient]) -> None:
    site, http = simulated
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "parquet": b"PAR1", "json": b"{", "jsonl": b"{", "csv": b"rater,"}
    for name, file in FILES.items():
        reply = http.get(f"/results/{name}")
        assert reply.status_code == 200 and reply.headers["content-type"].startswith(file.media_type)
        assert reply.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert reply.content.startswith(begins.get(name.rpartition(".")[2], b"")), name
    rows = list(csv.DictReader(io.StringIO(http.get("/results/votes.csv").text)))
    assert len(rows) == len(site.store.votes())


def test_formulas_in_exports_are_text(tmp_path: Path) -> None:
    plan = a_plan(3)
    prompts = (plan.prompts[0].model_copy(update={"category": '=HYPERLINK("http://x","y")'}), *plan.prompts[1:])
    bundle = a_study(tmp_path / "study", plan.model_copy(update={"prompts": prompts}))
    site = Site.open(bundle.folder, Settings(admin_password=SecretStr(PASSWORD)))
    answered(site.store, join(site.store, bundle)[1])
    http = TestClient(Starlette(routes=site.routes))
    enter(http)
    cells = [cell for row in csv.reader(io.StringIO(http.get("/results/votes.csv").text)) for cell in row]
    assert any("HYPERLINK" in cell for cell in cells)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert "<script>alert" not in http.get("/results").text
    site.close()


def test_new_votes_show_and_withdrawn_ones_vanish(open_site: Any) -> None:
    site, http = open_site()
    enter(http)
    _, session = join(site.store, site.bundle)
    answered(site.store, session)
    assert json.loads(http.get("/results/results.json").content)["raters"] == 1
    keys = site.bundle.keys
    site.store.withdraw(keys.withdrawal_hash(keys.withdrawal_code(session.rater)))
    assert json.loads(http.get("/results/results.json").content)["raters"] == 0


def test_the_state_of_the_study_is_that_of_now(open_site: Any) -> None:
    """Joining, closing and opening again are no votes."""
    site, http = open_site()
    enter(http)
    assert "the study is open" in http.get("/results").text
    join(site.store, site.bundle)
    assert "0 <small>of 1</small>" in http.get("/results").text
    site.store.close()
    assert "the study is closed on 20" in http.get("/results").text
    site.store.reopen()
    assert "the study is open" in http.get("/results").text


def test_an_analysis_is_not_repeated_at_every_vote(open_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from markovgen_app.study import statistics

    calls: list[int] = []
    analyse = statistics.analyse

    def counted(*given: Any) -> Any:
        calls.append(1)
        return analyse(*given)

    monkeypatch.setattr(statistics, "analyse", counted)
    monkeypatch.setattr(results_page, "_RESTS", 1e9)
    site, http = open_site()
    enter(http)
    for _ in range(3):
        answered(site.store, join(site.store, site.bundle)[1])
        http.get("/results")
    assert len(calls) == 1

"""A rater's session and the researcher's page in Chromium, on a desk and on a phone, with and without a network."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from browsing import free_port, until, visiting
from playwright.sync_api import Browser, Page, Route, expect
from pydantic import SecretStr
from starlette.applications import Starlette
from studies import a_plan, a_study
from test_accessibility import assert_clean

from markovgen_app.settings import Settings
from markovgen_app.study.bundle import Bundle
from markovgen_app.study.simulate import World, simulate
from markovgen_app.study.site import Site

pytestmark = pytest.mark.browser

PASSWORD = "open sesame"
KEYS = ("ArrowLeft", "ArrowDown", "ArrowRight", "b", "s")
CHOICES = ("left", "tie", "right", "bad", "skip")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    plan = a_plan(12, session_length=5, practice=2, checks=1, title="Two pictures")
    return a_study(tmp_path_factory.mktemp("bundle") / "study", plan, exposure_seconds=0.6)


@dataclass
class Served:
    """A study that is being served."""

    url: str
    site: Site


@pytest.fixture
def serve(bundle: Bundle, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves the study with a new database; arguments are settings."""
    running: list[tuple[uvicorn.Server, threading.Thread, Site]] = []

    def served(**settings: Any) -> Served:
        options = {"admin_password": SecretStr(PASSWORD), "port": free_port(), **settings}
        site = Site.open(bundle.folder, Settings(database=f"sqlite:///{tmp_path / 'study.db'}", **options))
        config = uvicorn.Config(Starlette(routes=site.routes), port=options["port"], log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread, site))
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            thread.join(0.02)
        return Served(f"http://127.0.0.1:{options['port']}", site)

    yield served
    for server, thread, site in running:
        server.should_exit = True
        thread.join(30)
        site.close()


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()


@pytest.fixture
def visit(browser: Browser, served: Served, request: pytest.FixtureRequest) -> Iterator[Callable[..., Page]]:
    """Opens a page of the study; see `visiting`."""
    with visiting(browser, request.node) as new_page:

        def visited(path: str = "/rate", *, width: int = 1440, scheme: str = "light", **options: Any) -> Page:
            viewport = {"width": width, "height": 844 if width < 500 else 900}
            phone = {"has_touch": True, "is_mobile": True} if width < 500 else {}
            page = new_page(viewport=viewport, color_scheme=scheme, **{**phone, **options})
            page.goto(served.url + path)
            return page

        yield visited


def begin(page: Page) -> None:
    """Consent, instructions, and the two practice items."""
    page.get_by_role("button", name="I agree").click()
    page.get_by_role("button", name="Try two examples").click()
    for _ in range(2):
        ready(page)
        page.keyboard.press("ArrowLeft")
        page.locator("#next").click()
    ready(page)


def ready(page: Page) -> None:
    """Both pictures stand, and long enough."""
    page.locator('[data-choice="tie"][aria-disabled="false"]').wait_for()


def saved(page: Page) -> None:
    """Of a page that said something else before."""
    expect(page.locator("#saving")).to_have_text("Saved")


def stored(page: Page, served: Served, *choices: str) -> None:
    """Waits until the server has these choices, after the two of the practice."""
    told = served.site.store.votes
    until(page, lambda: [vote.choice for vote in told()][2:] == list(choices) and len(told()) > 1, f"not {choices}")


def test_a_whole_session_by_keyboard(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    expect(page.get_by_role("heading", name="Which picture is better?")).to_be_focused()
    assert_clean(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="I agree")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="How it works")).to_be_focused()
    assert_clean(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for number in (1, 2):
        ready(page)
        expect(page.locator("#count")).to_have_text(f"Practice {number} / 2")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#lesson-text")).to_contain_text("scrambled")
        expect(page.locator("#next")).to_be_focused()
        if number == 1:
            assert_clean(page)
        page.keyboard.press("Enter")
    total = questions(served)
    for place in range(total):
        ready(page)
        expect(page.locator("#count")).to_have_text(f"{place + 1} / {total}")
        if place == 0:
            assert_clean(page)
        page.keyboard.press(KEYS[place % 5])
    expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
    expect(page.locator("#done-text")).to_have_text("All of your answers are saved.")
    assert_clean(page)
    votes = served.site.store.votes()
    assert [vote.choice for vote in votes] == ["left", "left", *(CHOICES[place % 5] for place in range(total))]
    assert all(0.6 <= vote.seconds < 600 for vote in votes)
    code = page.locator("#code").inner_text()
    assert code == served.site.bundle.keys.withdrawal_code(votes[0].rater)


def only_rater(served: Served) -> str:
    with served.site.store._engine.begin() as connection:
        (row,) = connection.exec_driver_sql("SELECT rater FROM raters").all()
    return str(row[0])


def questions(served: Served) -> int:
    """How many pairs the only rater is shown after the practice."""
    return len(served.site.store.session(only_rater(served)).trials) - 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_whole_session_by_touch(visit: Callable[..., Page], served: Served, scheme: str) -> None:
    page = visit(width=390, scheme=scheme)
    page.get_by_role("button", name="I agree").tap()
    assert_clean(page)
    page.get_by_role("button", name="Try two examples").tap()
    for _ in range(2):
        ready(page)
        page.get_by_role("button", name="Top", exact=True).tap()
        page.locator("#next").tap()
    ready(page)
    assert_clean(page)
    top, bottom = (page.locator(f"#{side}").bounding_box() for side in ("left", "right"))
    bar = page.locator(".bar").bounding_box()
    assert top and bottom and bar
    assert top["x"] == bottom["x"] and top["width"] == bottom["width"] > 150 and top["y"] < bottom["y"]
    assert bottom["y"] + bottom["height"] <= bar["y"], "nothing covers the pictures"
    assert bar["y"] + bar["height"] <= 844, "everything is in sight at once"
    page.get_by_role("button", name="Top picture, show it large").tap()
    large = page.locator("#large")
    expect(large.locator("#large-label")).to_have_text("Top")
    first = large.locator("img").get_attribute("src")
    large.locator(".large-stage").tap()
    expect(large.locator("#large-label")).to_have_text("Bottom")
    assert large.locator("img").get_attribute("src") != first, "a tap swaps them"
    assert_clean(page)
    large.get_by_role("button", name="Close").tap()
    names = ("Top", "Tie", "Bottom", "Both bad", "Skip")
    total = questions(served)
    for place in range(total):
        ready(page)
        expect(page.locator("#count")).to_have_text(f"{place + 1} / {total}")
        page.get_by_role("button", name=names[place % 5], exact=True).tap()
    expect(page.locator("#done-text")).to_have_text("All of your answers are saved.")
    assert_clean(page)
    assert len(served.site.store.votes()) == total + 2


def test_the_smallest_phone_and_a_long_prompt(visit: Callable[..., Page], served: Served) -> None:
    page = visit(width=360)
    page.set_viewport_size({"width": 360, "height": 640})
    begin(page)
    page.evaluate("document.querySelector('#prompt').textContent = 'A very long prompt about many things. '.repeat(9)")
    page.evaluate("document.querySelector('#prompt').classList.add('long')")
    assert_clean(page)
    page.locator('[data-choice="skip"]').scroll_into_view_if_needed()
    expect(page.locator('[data-choice="skip"]')).to_be_in_viewport()


def test_both_pictures_appear_in_the_same_frame(visit: Callable[..., Page]) -> None:
    page = visit()
    page.get_by_role("button", name="I agree").click()
    page.evaluate(
        """() => {
          window.counts = [];
          const look = () => {
            counts.push([...document.querySelectorAll('.slot img')].filter((image) => image.complete).length);
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    delayed = {"right": 0.4, "left": 0.0}

    def slow(route: Route) -> None:
        page.wait_for_timeout(1000 * delayed[route.request.url.rsplit("/", 1)[1]])
        route.continue_()

    page.route("**/rate/pictures/**", slow)
    page.get_by_role("button", name="Try two examples").click()
    for _ in range(2):
        ready(page)
        page.keyboard.press("ArrowLeft")
        page.locator("#next").click()
    ready(page)
    counts = set(page.evaluate("counts"))
    assert counts == {0, 2}, "never one alone"


def test_nobody_answers_before_both_pictures_stood_for_a_while(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    page.evaluate(
        """(keys) => {
          window.hasty = 0;
          new MutationObserver(() => {
            if (!document.querySelector('#left img')) return;
            for (const key of keys) document.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
            for (const button of document.querySelectorAll('[data-choice]')) button.click();
            hasty += 1;
          }).observe(document.querySelector('#left .slot'), { childList: true });
        }""",
        KEYS,
    )
    page.keyboard.press("ArrowLeft")
    ready(page)
    stored(page, served, "left")
    assert page.evaluate("hasty") == 1
    expect(page.locator("#count")).to_contain_text("2 /")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#count")).to_contain_text("3 /")


def test_the_last_answer_can_be_undone(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    prompt = page.locator("#prompt").inner_text()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#count")).to_contain_text("2 /")
    page.keyboard.press("u")
    expect(page.locator("#count")).to_contain_text("1 /")
    expect(page.locator("#prompt")).to_have_text(prompt)
    ready(page)
    page.get_by_role("button", name="Right", exact=True).click()
    expect(page.locator("#count")).to_contain_text("2 /")
    stored(page, served, "right")


def test_no_vote_is_lost_without_a_network(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    stored(page, served)
    pictures = "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/pictures/')).length"
    until(page, lambda: page.evaluate(pictures) == 8, "two pairs to practise, one to rate, and the next one ahead")
    page.context.set_offline(True)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#saving")).to_contain_text("1 answer waits for the network. Kept on this device")
    ready(page)
    page.keyboard.press("ArrowDown")
    expect(page.locator("#saving")).to_contain_text("2 answers wait")
    expect(page.locator("#waiting")).to_contain_text("No network")
    assert len(served.site.store.votes()) == 2
    page.context.set_offline(False)
    saved(page)
    ready(page)
    stored(page, served, "right", "tie")


@pytest.mark.parametrize("failure", ["before", "after", "busy"])
def test_a_vote_counts_once_whatever_fails(visit: Callable[..., Page], served: Served, failure: str) -> None:
    """Lost on the way there, lost on the way back (the server has it already), or the server is too busy."""
    page = visit()
    begin(page)
    stored(page, served)
    attempts: list[bool] = []
    network = {"works": False}

    def fail(route: Route) -> None:
        attempts.append(network["works"])
        if network["works"]:
            route.continue_()
        elif failure == "busy":
            route.fulfill(status=503, json={"error": "The study's database does not answer.", "reason": "later"})
        else:
            if failure == "after":
                route.fetch()
            route.abort()

    page.route("**/rate/api/answers", fail)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#saving")).to_contain_text("1 answer waits")
    until(page, lambda: len(attempts) > 1, "it tries again")
    network["works"] = True
    saved(page)
    assert attempts[-2:] == [False, True]
    stored(page, served, "right")


def test_waiting_answers_survive_a_reload(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    stored(page, served)
    page.route("**/rate/api/answers", lambda route: route.abort())
    page.keyboard.press("ArrowRight")
    expect(page.locator("#saving")).to_contain_text("1 answer waits")
    page.on("dialog", lambda dialog: dialog.accept())  # "leave the page?"
    page.reload()
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#count")).to_contain_text("2 /")
    page.unroute("**/rate/api/answers")
    stored(page, served, "right")
    saved(page)


def test_two_windows_of_one_rater(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    stored(page, served)
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_role("button", name="Go on").click()
    ready(other)
    other.keyboard.press("ArrowLeft")
    stored(page, served, "left")
    page.bring_to_front()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#notice")).to_contain_text("open in another window")
    expect(page.locator("#count")).to_contain_text("2 /")
    stored(page, served, "left")


def test_a_study_that_closes_meanwhile(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    served.site.store.close()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("heading", name="This study is closed")).to_be_visible()
    late = visit()
    late.get_by_role("button", name="I agree").click()
    expect(late.locator("#message-text")).to_contain_text("This study is closed")
    assert_clean(late)


@pytest.mark.parametrize("broken", ["refused", "no picture"])
def test_pictures_that_cannot_be_shown(visit: Callable[..., Page], broken: str) -> None:
    page = visit()
    told = {"error": "This picture was changed: bring it back.", "reason": "input"}
    answer = (
        {"status": 400, "json": told} if broken == "refused" else {"body": b"no picture", "content_type": "image/png"}
    )
    asked: list[str] = []

    def spoil(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(**answer)  # type: ignore[arg-type]

    page.route("**/rate/pictures/**", spoil)
    page.get_by_role("button", name="I agree").click()
    page.get_by_role("button", name="Try two examples").click()
    expect(page.get_by_role("heading", name="These pictures cannot be shown")).to_be_visible()
    page.wait_for_timeout(500)
    assert len(asked) <= 6, "it does not ask for ever"


def test_stopping_and_withdrawing(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    page.keyboard.press("ArrowLeft")
    stored(page, served, "left")
    page.get_by_role("button", name="Stop or withdraw").click()
    expect(page.get_by_role("heading", name="Stop here?")).to_be_visible()
    page.get_by_role("button", name="Go on rating").click()
    expect(page.locator("#count")).to_contain_text("2 /")
    page.get_by_role("button", name="Stop or withdraw").click()
    page.get_by_role("button", name="Delete my answers").first.click()
    dialog = page.get_by_role("dialog", name="Delete my answers")
    code = dialog.get_by_label("Withdrawal code")
    kept = code.input_value()
    code.fill("AAAA-BBBB-CCCC-DDDD")
    dialog.get_by_role("button", name="Delete them all").click()
    expect(dialog.get_by_role("alert")).to_contain_text("No answers are stored under this withdrawal code")
    assert_clean(page)
    code.fill(kept.lower().replace("-", " "))
    code.press("Enter")
    expect(page.locator("#message-text")).to_have_text("Your 3 answers are deleted. Nothing of them is left.")
    assert served.site.store.votes() == []
    page.reload()
    expect(page.get_by_role("button", name="I agree")).to_be_visible()


def test_another_round(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    total = questions(served)
    for place in range(total):
        ready(page)
        expect(page.locator("#count")).to_have_text(f"{place + 1} / {total}")
        page.keyboard.press("ArrowDown")
    expect(page.locator("#done-text")).to_have_text("All of your answers are saved.")
    page.get_by_role("button", name="Undo my last answer").click()
    ready(page)
    page.keyboard.press("ArrowLeft")
    stored(page, served, *["tie"] * (total - 1), "left")
    page.get_by_role("button", name="Rate another round").click()
    ready(page)
    expect(page.locator("#count")).to_contain_text(f"{total + 1} /")


def test_invitations(visit: Callable[..., Page], serve: Callable[..., Served], served: Served) -> None:
    served.url = serve(study_invite_only=True).url
    page = visit()
    expect(page.get_by_role("heading", name="By invitation")).to_be_visible()
    page = visit(f"/rate#{served.site.bundle.keys.invitation(3)}")
    page.get_by_role("button", name="I agree").click()
    page.get_by_role("button", name="Try two examples").wait_for()
    expect(page, "the invitation does not stay where others may read it").to_have_url(re.compile("^[^#]*$"))
    page = visit("/rate#forged.invitation")
    page.get_by_role("button", name="I agree").click()
    expect(page.locator("#notice")).to_contain_text("not one of this study")


def test_day_and_night(visit: Callable[..., Page]) -> None:
    page = visit(scheme="dark")
    paper = page.locator("html")
    expect(paper).to_have_css("background-color", "rgb(21, 19, 17)")
    page.get_by_role("button", name="Day or night").click()
    expect(paper).to_have_css("background-color", "rgb(250, 247, 241)")
    page.reload()
    expect(paper).to_have_css("background-color", "rgb(250, 247, 241)")


def test_a_pair_that_was_left_open_for_days(visit: Callable[..., Page], served: Served) -> None:
    page = visit()
    begin(page)
    page.evaluate("const now = performance.now(); performance.now = () => now + 3 * 86_400_000")
    page.keyboard.press("ArrowLeft")
    stored(page, served, "left")
    assert served.site.store.votes()[-1].seconds == 86_400
    expect(page.locator("#notice")).to_be_hidden()


def test_who_comes_back_on_a_slow_network_is_told_to_wait(visit: Callable[..., Page]) -> None:
    page = visit()
    begin(page)
    waiting: list[Route] = []
    page.route("**/rate/api/session", lambda route: waiting.append(route))
    page.reload()
    expect(page.get_by_role("status").filter(has_text="One moment …")).to_be_visible()
    until(page, lambda: bool(waiting), "it does not ask")
    waiting[0].continue_()
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()


def test_the_code_can_be_copied_again(visit: Callable[..., Page]) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    begin(page)
    page.get_by_role("button", name="Stop or withdraw").click()
    copy = page.locator("#copy")
    for _ in range(2):
        copy.click()
        expect(copy).to_have_text("Copied")
        expect(copy).to_have_text("Copy")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#code").inner_text()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_results(visit: Callable[..., Page], served: Served, width: int, scheme: str) -> None:
    store, keys = served.site.store, served.site.bundle.keys
    votes = simulate(served.site.bundle.plan, World(), seed=1)
    store.add_votes(votes, lambda rater: keys.withdrawal_hash(keys.withdrawal_code(rater)))
    page = visit("/results", width=width, scheme=scheme)
    assert_clean(page)
    page.get_by_label("Password").fill("a guess")
    page.get_by_role("button", name="Show the results").click()
    expect(page.get_by_role("alert")).to_have_text("This is not the password: try again.")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Which image is of higher quality?")).to_be_visible()
    for details in page.locator("details summary").all():
        details.click()
    assert_clean(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Votes, CSV").click()
    assert Path(download.value.path()).read_bytes().startswith(b"rater,")
    page.get_by_role("button", name="Leave").click()
    expect(page.get_by_label("Password")).to_be_visible()

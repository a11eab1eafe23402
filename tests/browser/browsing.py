"""What the browser tests share."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect

from markovgen_app import runtime as runtimes
from markovgen_app.runtime import Runtime

RESULTS = Path(__file__).parents[2] / "test-results"
FAILED = pytest.StashKey[list[str]]()

PATIENCE = 120_000  # ms; generous, because other tests share the cores
DOUBLE_CLICK = 500  # ms for which Stop and Run do not take a click that was meant for the other
OpenPage = Callable[..., Page]
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--use-angle=swiftshader",  # for the canvas that is painted on; pages are put together faster without
    "--disable-gpu-compositing",
]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def visiting(browser: Browser, test: pytest.Item) -> Iterator[Callable[..., Page]]:
    """Opens empty pages, each in a new context with Playwright's options; failing or blocked scripts fail the test.

    Nothing glides or fades, so that a place or a colour seen once is there to stay. A failure leaves screenshots, and
    in the second of a test's two runs traces, which cost a quarter of its time.
    """
    pages: list[Page] = []
    problems: list[str] = []
    traced = bool(test.stash.get(FAILED, []))

    def new_page(**options: Any) -> Page:
        context = browser.new_context(reduced_motion="reduce", **options)
        context.set_default_timeout(PATIENCE)
        if traced:
            context.tracing.start(screenshots=True, snapshots=True)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if "Content Security" in line.text else None)
        pages.append(page)
        return page

    yield new_page
    failed = bool(test.stash.get(FAILED, [])) or bool(problems)
    for number, page in enumerate(pages):
        stem = f"{test.name}-{number}"
        if failed:
            RESULTS.mkdir(exist_ok=True)
            page.screenshot(path=RESULTS / f"{stem}.png")
        if traced:
            page.context.tracing.stop(path=RESULTS / f"{stem}.zip" if failed else None)
        page.context.close()
    assert not problems, problems


class Turnstile:
    """Stands in for a device's lock and lets through as many steps as it is told to."""

    def __init__(self) -> None:
        self._steps = Semaphore(0)

    def __enter__(self) -> None:
        self._steps.acquire()

    def __exit__(self, *problem: object) -> None:
        pass

    def let(self, steps: int) -> None:
        """Lets further steps through."""
        self._steps.release(steps)


@contextmanager
def step_by_step(runtime: Runtime) -> Iterator[Turnstile]:
    """Has runs wait before every step: the tiny models are too quick to be watched. In the end all goes on."""
    lock, device, turnstile = runtime.lock, str(runtime.device), Turnstile()
    runtimes._LOCKS[device] = turnstile  # type: ignore[assignment]
    try:
        yield turnstile
    finally:
        runtimes._LOCKS[device] = lock
        turnstile.let(1000)


def finished(stage: Locator) -> str:
    """Waits until the picture on a tab's stage is finished; returns its URL.

    The shelf has it at once, the stage itself when it is unpacked. Of a second run the shelf's length tells the start.
    """
    expect(stage.locator(".mg-label")).to_have_text("Ready")
    source = stage.locator('.mg-mine button[aria-pressed="true"] img').get_attribute("src") or ""
    assert source.startswith("data:image/png;base64,")
    return source


def until(page: Page, holds: Callable[[], bool], what: str) -> None:
    """Waits until something holds that no locator tells."""
    for _ in range(PATIENCE // 500):
        if holds():
            return
        page.wait_for_timeout(500)
    raise AssertionError(what)


def at_rest(place: Locator) -> FloatRect:
    """Scrolls to a place and waits until the page moves no more; returns its box, for the mouse."""
    place.scroll_into_view_if_needed()
    boxes: list[FloatRect | None] = []

    def rests() -> bool:
        boxes.append(place.bounding_box())
        return len(boxes) > 2 and boxes[-1] is not None and boxes[-3:] == [boxes[-1]] * 3

    until(place.page, rests, "the page moves on and on")
    assert boxes[-1] is not None
    return boxes[-1]

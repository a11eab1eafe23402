"""The real app on a free port, with tiny random models of the real classes, driven in Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import FAILED, FLAGS, PATIENCE, OpenPage, free_port, visiting
from builders import TINY_CODES, tiny_field, tiny_ladder, tiny_tokenizer, tiny_vocabulary
from playwright.sync_api import Browser, Page, expect, sync_playwright

from markovgen_app.models.transformer import MuseTransformer
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.runtime import Runtime
from markovgen_app.settings import Settings
from markovgen_app.ui.build import build, launch
from markovgen_app.ui.examples import make_comparisons, make_examples

expect.set_options(timeout=PATIENCE)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Tells the fixtures whether the test failed, in this of its two runs."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    failed = [] if report.when == "setup" else item.stash[FAILED]
    item.stash[FAILED] = [*failed, report.when] if report.failed else failed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has a browser test that fails run a second time: on busy cores now and then one misses a deadline."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.flaky(reruns=1))


def tiny_runtime(*, field: bool = True) -> Runtime:
    """Random pictures of 128 x 128 px, 16 x 16 tokens, in a few milliseconds a step."""
    grid = (16, 16)
    transformer = MuseTransformer(codebook_size=TINY_CODES, grid=grid, hidden_size=32, num_layers=1, num_heads=2)
    mrf = tiny_field(grid) if field else None
    pipeline = MarkovGenPipeline(transformer, tiny_tokenizer(), vocabulary=tiny_vocabulary(), mrf=mrf)
    return Runtime(pipeline, torch.device("cpu"), torch.float32, step_seconds=0.08, decode_seconds=0.05)


def served(runtime: Runtime, examples: Path, **options: Any) -> Iterator[str]:
    """The address of an app, until it is closed; `options` are settings."""
    settings = Settings(port=free_port(), **options)
    page = build(runtime, settings, examples=examples)
    launch(page, settings, prevent_thread_lock=True, quiet=True, _frontend=False)  # no look whether it answers in 3 s
    yield f"http://127.0.0.1:{settings.port}/"
    page.close()


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """What the app runs on."""
    return tiny_runtime()


@pytest.fixture(scope="session")
def url(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the running app."""
    examples = tmp_path_factory.mktemp("examples")
    make_examples(runtime, examples)
    make_comparisons(runtime, examples, effort=0)
    yield from served(runtime, examples)


@pytest.fixture(scope="session")
def bare_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an app whose weights hold no random field, without examples."""
    yield from served(tiny_runtime(field=False), tmp_path_factory.mktemp("nothing"))


@pytest.fixture(scope="session")
def ladder_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an app whose weights make pictures of 32 and 64 px, without examples."""
    runtime = Runtime(tiny_ladder(), torch.device("cpu"), torch.float32, step_seconds=0.08, decode_seconds=0.05)
    yield from served(runtime, tmp_path_factory.mktemp("nothing"))


@pytest.fixture(scope="session")
def narrow_url(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an app in whose line one may wait, without examples."""
    yield from served(runtime, tmp_path_factory.mktemp("nothing"), queue_size=1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium."""
    program = shutil.which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, url: str, request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    """Opens the app: `open_page("?p=…", width=1440, scheme="light")`; see `visiting`."""
    with visiting(browser, request.node) as new_page:

        def opened(
            query: str = "", *, width: int = 1440, scheme: str = "light", address: str = url, **options: Any
        ) -> Page:
            page = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
            page.goto(address + query)
            page.locator(".mg-run:visible").wait_for()
            return page

        yield opened

"""The Edit by words tab, as a person uses it."""

from __future__ import annotations

import re

import pytest
from browsing import OpenPage, finished, until
from playwright.sync_api import Locator, Page, expect

from markovgen_app.decoding import editing

pytestmark = pytest.mark.browser

PROMPT = "a panda on a brick wall"


def tab(page: Page) -> Locator:
    return page.locator("#tab-edit")


def go(page: Page) -> None:
    """Opens the tab and waits for the prompt that it takes over."""
    page.get_by_label("Describe a picture").fill(PROMPT)
    page.get_by_role("tab", name="Edit by words").click()
    expect(tab(page).get_by_label("What should the picture show?")).to_have_value(PROMPT)


def press(page: Page, name: str) -> None:
    tab(page).get_by_role("button", name=name, exact=True).click()


def test_one_picture_and_a_strip_at_three_strengths(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "ROUNDS", 12)  # of the app in this process: nobody has to watch 175 of them
    page = open_page()
    go(page)
    tab(page).get_by_role("radio", name="Subtle").check()
    expect(tab(page).get_by_role("spinbutton", name=re.compile("Strength"))).to_have_value("0.25")
    tab(page).get_by_role("button", name="Advanced").click()
    tab(page).get_by_label(re.compile(r"^\s*Seed\b")).fill("5")
    press(page, "Run")
    subtle = finished(tab(page))
    expect(tab(page).get_by_role("slider", name="Line between Before and After")).to_be_visible()

    tab(page).get_by_role("radio", name="All three").check()
    press(page, "Run")
    expect(tab(page).locator(".mg-mine button")).to_have_count(4)
    strong = finished(tab(page))
    strip = tab(page).locator(".mg-strip button")
    expect(strip).to_have_text(["Subtle", "Medium", "Strong"])
    expect(strip.last).to_have_attribute("aria-pressed", "true")
    expect(strip.first.locator("img"), "the same seed and strength give the same file").to_have_attribute("src", subtle)
    assert strong != subtle
    strip.first.click()
    expect(strip.first).to_have_attribute("aria-pressed", "true")
    assert finished(tab(page)) == subtle


def test_a_picture_that_is_kept_whole(open_page: OpenPage) -> None:
    page = open_page()
    go(page)
    edges = tab(page).locator(".mg-rectangle")
    for edge, value in {"Right": "128", "Bottom": "128"}.items():
        edges.get_by_label(edge, exact=True).fill(value)
    press(page, "Mark")
    alerts = tab(page).get_by_role("alert")

    def told() -> bool:
        press(page, "Show tokens")
        return alerts.count() > 0

    until(page, told, "the mask does not arrive")
    expect(alerts).to_contain_text("The whole picture is kept")
    press(page, "Run")
    expect(alerts).to_have_count(2)  # on the picture, and beside the words
    edges.get_by_label("Left", exact=True).fill("129")
    press(page, "Mark")
    expect(alerts.first).to_contain_text("The rectangle is empty")

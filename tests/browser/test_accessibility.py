"""Every width, by day and by night: nothing serious from axe, nothing wider than the screen."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import OpenPage
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


# What is seen beyond the right edge, unless it lies in something narrower that scrolls or cuts it off on purpose.
_BEYOND_THE_EDGE = """() => {
  const right = (e) => e.getBoundingClientRect().right;
  const cut = (e) => getComputedStyle(e).overflowX !== "visible" && right(e) <= innerWidth + 1;
  return [...document.querySelectorAll("#header *, #tabs *")]
    .filter((e) => e.checkVisibility() && getComputedStyle(e).clipPath === "none") // but for what is only to be heard
    .filter((e) => e.getBoundingClientRect().width && right(e) > innerWidth + 1)
    .filter((e) => {
      for (let up = e.parentElement; up && !up.matches(".gradio-container"); up = up.parentElement)
        if (cut(up)) return false;
      return true;
    })
    .map((e) => e.outerHTML.slice(0, 100));
}"""


def assert_clean(page: Page) -> None:
    response = Axe().run(page).response
    assert len(response["passes"]) > 10, "axe looked at the page"
    serious = [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for violation in response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
    assert not serious, "\n".join(serious)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    beyond = page.evaluate(_BEYOND_THE_EDGE)
    assert not beyond, f"cut off at the right: {beyond}"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (768, "dark"), (1440, "light")])
def test_words_and_what_came_of_them(open_page: OpenPage, width: int, scheme: str) -> None:
    page = open_page(width=width, scheme=scheme)
    page.get_by_label("Describe a picture").fill("a wombat")
    page.get_by_role("button", name="Advanced").click()
    page.get_by_role("button", name="Confidence").click()
    page.locator(".mg-hint").wait_for()
    assert_clean(page)
    page.get_by_role("tab", name="About").click()
    page.get_by_role("heading", name="What this model knows").wait_for()
    assert_clean(page)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_pictures_that_are_changed(open_page: OpenPage, width: int, scheme: str) -> None:
    page = open_page(width=width, scheme=scheme)
    for name, place in {"Inpaint": "#tab-inpaint", "Edit by words": "#tab-edit"}.items():
        page.get_by_role("tab", name=name).click()
        tab = page.locator(place)
        tab.locator(".mg-editor canvas").first.wait_for()
        tab.get_by_role("button", name="Advanced").click()
        tab.get_by_role("button", name="Run", exact=True).click()
        expect(tab.get_by_role("alert")).to_contain_text("The prompt is empty")
        assert_clean(page)
        if name == "Inpaint":
            tab.get_by_label("Widen the picture").check()
            tab.locator(".mg-canvas").wait_for()
            assert_clean(page)


def test_the_smallest_phone(open_page: OpenPage) -> None:
    page = open_page(width=360)
    assert_clean(page)
    page.locator("#tab-generate .mg-label").evaluate("(label) => label.textContent = 'Waiting: number 3 of 12 in line'")
    assert_clean(page)
    page.get_by_role("tab", name="Inpaint").click()
    page.locator("#tab-inpaint .mg-editor canvas").first.wait_for()
    assert_clean(page)
    page.locator("#tab-inpaint").get_by_label("Widen the picture").check()
    page.locator("#tab-inpaint .mg-canvas").wait_for()
    assert_clean(page)
    bar = page.locator(".mg-runbar:visible").bounding_box()
    assert bar and bar["y"] + bar["height"] == pytest.approx(900, abs=1), "the run bar sticks to the lower edge"

"""The Inpaint tab, as a person uses it: a mask painted on the canvas, words, and a picture that changed only there."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from browsing import PATIENCE, OpenPage
from PIL import Image
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE)


def tab(page: Page) -> Locator:
    return page.locator("#tab-inpaint")


def go(page: Page) -> None:
    """Opens the tab and waits for the picture on its canvas, which is enlarged to fill it."""
    page.get_by_role("tab", name="Inpaint").click()
    expect(tab(page).locator(".mg-editor").get_by_text(re.compile(r"[2-9]\d\d%"))).to_be_visible()


def press(page: Page, name: str) -> None:
    tab(page).get_by_role("button", name=name, exact=True).click()


def stroke(page: Page) -> None:
    """A short stroke with the brush, near the middle of the picture."""
    canvas = tab(page).locator(".mg-editor canvas").first
    canvas.scroll_into_view_if_needed()
    box, earlier = canvas.bounding_box(), None
    while box != earlier:  # the page may still be scrolling
        page.wait_for_timeout(300)
        box, earlier = canvas.bounding_box(), box
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=6)
    page.mouse.up()


def mask_of(page: Page) -> np.ndarray:
    """The mask as it arrives on the server, and comes back as a file."""
    with page.expect_download() as download:
        press(page, "Download mask")
    return np.asarray(Image.open(download.value.path())) > 127


def png(source: str | None) -> Image.Image:
    encoded = (source or "").removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def finish(page: Page, pictures: int = 1) -> Image.Image:
    """Waits until there are that many pictures; returns the newest."""
    expect(tab(page).locator(".mg-mine button")).to_have_count(pictures)
    expect(tab(page).locator(".mg-label")).to_have_text("Ready")
    return png(tab(page).locator(".mg-mine img").first.get_attribute("src"))


def test_a_stroke_arrives_where_it_was_painted(open_page: OpenPage) -> None:
    page = open_page()
    go(page)
    press(page, "Run")
    expect(tab(page).get_by_role("alert")).to_contain_text("The prompt is empty")
    tab(page).get_by_label("What should be there?").fill("a panda")
    press(page, "Run")
    expect(tab(page).get_by_role("alert")).to_contain_text("The mask is empty")
    stroke(page)
    mask = mask_of(page)
    rows, columns = np.nonzero(mask)
    assert mask.shape == (128, 128) and 100 < mask.sum() < 6000
    assert abs(rows.mean() - 64) < 8 and abs(columns.mean() - 64) < 8


def test_a_picture_is_sent_here_and_widened(open_page: OpenPage) -> None:
    page = open_page("?p=two+owls&seed=12&steps=2")
    expect(page.get_by_label("Describe a picture")).to_have_value("two owls")
    page.locator(".mg-run:visible").click()
    expect(page.locator("#tab-generate .mg-label")).to_have_text("Ready")
    made = png(page.locator("#tab-generate .mg-native").get_attribute("src"))
    page.locator("#tab-generate").get_by_role("button", name="Inpaint", exact=True).click()
    expect(tab(page).get_by_label("What should be there?")).to_have_value("two owls")
    tab(page).get_by_role("button", name="Advanced").click()
    expect(tab(page).get_by_label(re.compile(r"^\s*Seed\b"))).to_have_value("12")

    tab(page).get_by_label("Widen the picture").check()
    press(page, "Run")
    expect(tab(page).get_by_role("alert").first).to_contain_text("There is nothing to add")
    tab(page).locator(".mg-pads").get_by_label("Right", exact=True).fill("32")
    expect(tab(page).locator(".mg-canvas figcaption")).to_have_text("128 × 128 → 160 × 128 pixels")
    press(page, "Run")
    after = finish(page)
    assert after.size == (160, 128)
    assert (np.asarray(after)[:, :120] == np.asarray(made)[:, :120]).all(), "what was there stays"

"""The Inpaint tab, as a person uses it: a mask painted on the canvas, words, and a picture that changed only there."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from browsing import DOUBLE_CLICK, OpenPage, finished, step_by_step, until
from easels import brush, expect_mask, mask_of
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from markovgen_app.runtime import Runtime

pytestmark = pytest.mark.browser


def tab(page: Page) -> Locator:
    return page.locator("#tab-inpaint")


def prompt_box(page: Page) -> Locator:
    return tab(page).get_by_label("What should be there?")


def go(page: Page) -> None:
    """Opens the tab and waits for what it takes over, and for the picture on its canvas, enlarged to fill it."""
    page.get_by_label("Describe a picture").fill("two owls")
    page.get_by_role("tab", name="Inpaint").click()
    expect(prompt_box(page)).to_have_value("two owls")
    expect(tab(page).locator(".mg-editor").get_by_text(re.compile(r"[2-9]\d\d%"))).to_be_visible()


def press(page: Page, name: str) -> None:
    tab(page).get_by_role("button", name=name, exact=True).click()


def png(source: str | None) -> Image.Image:
    encoded = (source or "").removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def finish(page: Page, pictures: int = 1) -> np.ndarray:
    """Waits until there are that many pictures; returns the newest, (H, W, 3)."""
    expect(tab(page).locator(".mg-mine button")).to_have_count(pictures)
    return np.asarray(png(finished(tab(page))))


def before(page: Page) -> np.ndarray:
    """What is on the left of the line, (H, W, 3)."""
    left = tab(page).locator(".mg-left img")
    expect(left).to_have_attribute("src", re.compile("^data:"))
    return np.asarray(png(left.get_attribute("src")))


def test_a_stroke_changes_what_it_covers_and_stays(open_page: OpenPage, runtime: Runtime) -> None:
    page = open_page()
    go(page)
    prompt_box(page).fill("")
    press(page, "Run")
    expect(tab(page).get_by_role("alert")).to_contain_text("The prompt is empty")
    prompt_box(page).fill("a panda")
    press(page, "Run")
    expect(tab(page).get_by_role("alert")).to_contain_text("The mask is empty")

    brush(tab(page))
    until(page, lambda: mask_of(tab(page)).any(), "the stroke does not arrive")
    mask = mask_of(tab(page))
    rows, columns = np.nonzero(mask)
    assert mask.shape == (128, 128) and 100 < mask.sum() < 6000
    assert abs(rows.mean() - 64) < 8 and abs(columns.mean() - 64) < 8, "it arrives where it was painted"
    press(page, "Show tokens")
    expect(tab(page).locator(".mg-touched figcaption")).to_contain_text(re.compile(r"^\d+ of 256 tokens may change"))

    tab(page).get_by_label("Feather").fill("0")
    press(page, "Run")
    after, old = finish(page), before(page)
    assert old.shape == after.shape == (128, 128, 3)
    assert (old[~mask] == after[~mask]).all() and (old[mask] != after[mask]).any()
    expect(tab(page).get_by_role("slider", name="Line between Before and After")).to_be_visible()

    prompt_box(page).fill("an owl")
    press(page, "Use as input")
    expect(tab(page).locator(".mg-touched")).to_be_hidden()
    expect_mask(tab(page), mask)
    with step_by_step(runtime):
        press(page, "Run")
        expect(tab(page).locator(".mg-label")).to_have_text("Waiting for a free place")
        page.wait_for_timeout(DOUBLE_CLICK)
        press(page, "Stop")
        expect(tab(page).get_by_role("button", name="Run", exact=True)).to_be_visible()
    page.wait_for_timeout(DOUBLE_CLICK)
    press(page, "Run")
    finish(page, 2)
    until(page, lambda: np.array_equal(before(page), after), "it does not go on from the result")
    expect_mask(tab(page), mask)


def hand_over(page: Page, button: str, file: Path) -> None:
    """Chooses a file, as a person does."""
    with page.expect_file_chooser() as chooser:
        press(page, button)
    chooser.value.set_files(file)


def test_masks_without_a_pointer(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    go(page)
    edges = tab(page).locator(".mg-rectangle")
    for edge, value in {"Left": "16", "Top": "8", "Right": "48", "Bottom": "40"}.items():
        edges.get_by_label(edge, exact=True).fill(value)
    press(page, "Mark")
    mask = np.zeros((128, 128), bool)
    mask[8:40, 16:48] = True
    expect_mask(tab(page), mask)
    press(page, "Invert")
    expect_mask(tab(page), ~mask)
    press(page, "Clear")
    expect_mask(tab(page), np.zeros_like(mask))

    Image.fromarray(mask).save(tmp_path / "mask.png")
    hand_over(page, "Upload mask", tmp_path / "mask.png")
    expect_mask(tab(page), mask)
    Image.fromarray(mask[:64]).save(tmp_path / "small.png")
    (tmp_path / "words.png").write_text("not a picture")
    for file, button, says in (
        ("small.png", "Upload mask", "The mask is 128 × 64 pixels and the picture 128 × 128"),
        ("words.png", "Open a picture", "no picture that can be read"),
    ):
        hand_over(page, button, tmp_path / file)
        expect(tab(page).get_by_role("alert")).to_contain_text(says)
    expect_mask(tab(page), mask)


def test_a_picture_is_sent_here_and_widened(open_page: OpenPage) -> None:
    page = open_page("?p=two+owls&seed=12&steps=2")
    expect(page.get_by_label("Describe a picture")).to_have_value("two owls")
    page.locator(".mg-run:visible").click()
    made = np.asarray(png(finished(page.locator("#tab-generate"))))
    page.locator("#tab-generate").get_by_role("button", name="Inpaint", exact=True).click()
    expect(prompt_box(page)).to_have_value("two owls")
    tab(page).get_by_role("button", name="Advanced").click()
    seed = tab(page).get_by_label(re.compile(r"^\s*Seed\b"))
    expect(seed).to_have_value("12")
    tab(page).get_by_role("button", name="Seed 12 is kept: use a new one each time").click()
    expect(seed).to_have_value("")

    tab(page).get_by_label("Widen the picture").check()
    press(page, "Run")
    expect(tab(page).get_by_role("alert").first).to_contain_text("There is nothing to add")
    tab(page).locator(".mg-pads").get_by_label("Right", exact=True).fill("32")
    expect(tab(page).locator(".mg-canvas figcaption")).to_have_text("128 × 128 → 160 × 128 pixels")
    press(page, "Run")
    after = finish(page)
    assert after.shape == (128, 160, 3)
    assert (after[:, :120] == made[:, :120]).all(), "what was there stays"


def test_a_large_picture_is_widened_again_and_again_and_keeps_every_pixel(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    go(page)
    old = np.random.default_rng(0).integers(0, 256, (300, 1200, 3), dtype=np.uint8)
    Image.fromarray(old).save(tmp_path / "panorama.png")
    hand_over(page, "Open a picture", tmp_path / "panorama.png")
    tab(page).get_by_label("Widen the picture").check()
    tab(page).locator(".mg-pads").get_by_label("Right", exact=True).fill("64")
    canvas = tab(page).locator(".mg-canvas figcaption")
    expect(canvas).to_contain_text("1200 × 300 → 1264 × 300 pixels")
    press(page, "Run")
    once = finish(page)
    assert once.shape == (300, 1264, 3) and (once[:, :1190] == old[:, :1190]).all()
    press(page, "Use as input")
    expect(canvas).to_contain_text("1264 × 300 → 1328 × 300 pixels")
    press(page, "Run")
    twice = finish(page, 2)
    assert twice.shape == (300, 1328, 3) and (twice[:, :1254] == once[:, :1254]).all()


def test_without_a_picture_it_asks_for_one(open_page: OpenPage, bare_url: str, tmp_path: Path) -> None:
    page = open_page(address=bare_url)
    page.get_by_label("Describe a picture").fill("a panda")
    page.get_by_role("tab", name="Inpaint").click()
    expect(tab(page).locator(".mg-no-picture")).to_be_visible()
    expect(prompt_box(page)).to_have_value("a panda")
    press(page, "Run")
    expect(tab(page).get_by_role("alert")).to_contain_text("There is no picture yet")
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "photo.png")
    tab(page).locator(".mg-source input[type=file]").first.set_input_files(tmp_path / "photo.png")
    expect(tab(page).locator(".mg-editor canvas").first).to_be_visible()
    expect(tab(page).locator(".mg-no-picture")).to_be_hidden()
    until(page, lambda: mask_of(tab(page)).shape == (48, 64), "the picture does not arrive")

"""The Edit by words tab, as a person uses it."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from browsing import OpenPage, finished, until
from easels import brush, expect_mask, mask_of
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

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


def mark(page: Page, **edges: int) -> None:
    """Marks a rectangle."""
    for edge, value in edges.items():
        tab(page).locator(".mg-rectangle").get_by_label(edge.capitalize(), exact=True).fill(str(value))
    press(page, "Mark")


def stroke(page: Page) -> None:
    """A short stroke with the brush, in the middle of the picture."""
    editor = tab(page).locator(".mg-editor")
    expect(editor.get_by_text(re.compile(r"[2-9]\d\d%"))).to_be_visible()  # the picture fills its canvas
    brush(tab(page))


def picture_input(page: Page) -> Locator:
    return tab(page).locator(".mg-source input[type=file]").first


def opening(page: Page) -> Locator:
    return tab(page).locator(".mg-opening").get_by_role("status", include_hidden=True)


def test_one_picture_and_a_strip_at_three_strengths(open_page: OpenPage) -> None:
    page = open_page()
    go(page)
    tab(page).get_by_role("radio", name="Subtle").check()
    expect(tab(page).get_by_role("spinbutton", name=re.compile("Strength"))).to_have_value("0.25")
    tab(page).get_by_role("button", name="Advanced").click()
    tab(page).get_by_label(re.compile(r"^\s*Seed\b")).fill("5")
    press(page, "Run")
    subtle = finished(tab(page))
    expect(tab(page).get_by_role("slider", name="Line between Before and After")).to_be_visible()

    expect(tab(page).locator(".mg-candidates")).to_be_visible()
    tab(page).get_by_role("radio", name="All three").check()
    expect(tab(page).locator(".mg-candidates"), "they are one a strength").to_be_hidden()
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


def test_chance_brings_settings_of_its_own(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "ROUNDS", 8)  # of the app in this process: nobody has to watch 50 of them
    page = open_page()
    go(page)
    tab(page).get_by_role("button", name="Advanced").click()
    steps = tab(page).locator(".mg-field-steps").get_by_role("spinbutton")
    guidance = tab(page).locator(".mg-field-guidance_scale").get_by_role("spinbutton")
    share = tab(page).locator(".mg-field-share").get_by_role("spinbutton")
    expect(share).to_be_hidden()
    tab(page).get_by_role("radio", name=re.compile("by chance")).check()
    expect(share).to_have_value("0.08")
    expect(steps).to_have_value("1")
    expect(guidance).to_have_value("4")
    press(page, "Run")
    finished(tab(page))
    expect(tab(page).locator(".mg-film button")).to_have_count(4)  # rounds
    tab(page).get_by_role("radio", name=re.compile("speak against")).check()
    expect(share).to_be_hidden()
    expect(steps).to_have_value("24")
    expect(guidance).to_have_value("2")


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


def test_what_is_painted_can_be_undone(open_page: OpenPage) -> None:
    page = open_page()
    go(page)
    strokes = tab(page).locator(".mg-editor").get_by_role("button", name="Undo")
    expect(strokes, "the picture itself is nothing to undo").to_be_disabled()
    mark(page, left=8, top=0, right=56, bottom=24)
    marked = np.zeros((128, 128), bool)
    marked[:24, 8:56] = True
    expect_mask(tab(page), marked)
    stroke(page)
    until(page, lambda: bool((mask_of(tab(page)) & ~marked).any()), "the stroke does not arrive")
    page.keyboard.press("Control+z")
    expect(strokes).to_be_disabled()
    expect_mask(tab(page), marked)
    page.keyboard.press("Control+z")
    expect_mask(tab(page), np.zeros_like(marked))
    tab(page).locator(".mg-undo").click()
    expect_mask(tab(page), marked)
    stroke(page)
    expect(strokes).to_be_enabled()
    tab(page).locator(".mg-undo").click()
    expect(strokes, "strokes come first").to_be_disabled()
    expect_mask(tab(page), marked)
    words = tab(page).get_by_label("What should the picture show?")
    words.press("Control+z")
    expect_mask(tab(page), marked)


def test_a_picture_of_another_size_can_be_painted_and_undone(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    go(page)
    mark(page, left=8, top=0, right=56, bottom=24)
    until(page, lambda: bool(mask_of(tab(page)).any()), "the mask does not arrive")
    marked = mask_of(tab(page))
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "small.png")
    picture_input(page).set_input_files(tmp_path / "small.png")
    expect_mask(tab(page), np.zeros((48, 64), bool))
    tab(page).locator(".mg-undo").click()
    expect_mask(tab(page), marked)
    tab(page).locator(".mg-undo").click()
    expect_mask(tab(page), np.zeros((48, 64), bool))
    mark(page, left=2, top=0, right=20, bottom=10)
    until(page, lambda: bool(mask_of(tab(page))[:10, 2:20].all()), "the rectangle does not arrive")
    stroke(page)
    until(page, lambda: mask_of(tab(page)).sum() > 400, "the stroke does not arrive")
    assert mask_of(tab(page))[:10, 2:20].all(), "painting keeps what is there"


def test_leaving_what_is_painted_is_warned_of(open_page: OpenPage) -> None:
    page = open_page()
    go(page)

    def warned() -> bool:
        return bool(page.evaluate("!dispatchEvent(new Event('beforeunload', { cancelable: true }))"))

    assert not warned()
    stroke(page)
    assert warned()
    press(page, "Clear")
    until(page, lambda: not warned(), "nothing is painted any more")
    mark(page, left=0, top=0, right=64, bottom=64)
    until(page, warned, "a rectangle is painted")
    press(page, "Run")
    finished(tab(page))
    assert not warned()


def test_a_phones_photo_is_shrunk_before_it_travels(open_page: OpenPage, tmp_path: Path) -> None:
    upright = np.zeros((5712, 4284, 3), np.uint8)
    upright[:2856] = (220, 30, 30)
    upright[2856:] = (30, 30, 220)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side in the file
    Image.fromarray(np.rot90(upright)).save(tmp_path / "IMG_0001.jpg", exif=exif)
    page = open_page()
    go(page)

    def slowly(route: Route) -> None:
        expect(opening(page)).to_have_text("Opening the picture …")
        route.continue_()

    page.route(re.compile(r"/upload\?"), slowly, times=1)
    picture_input(page).set_input_files(tmp_path / "IMG_0001.jpg")
    said = "Shrunk from 4,284 × 5,712 to 1,536 × 2,048 pixels"
    expect(tab(page).get_by_role("alert")).to_contain_text(said)
    expect(opening(page)).to_have_text("")
    colours = page.evaluate(
        """async (input) => {
          const picture = await createImageBitmap(input.files[0]);
          const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
          context.drawImage(picture, 0, 0);
          return [200, 1800].map((y) => [...context.getImageData(300, y, 1, 1).data].slice(0, 3));
        }""",
        picture_input(page).element_handle(),
    )
    assert np.abs(np.subtract(colours, [(220, 30, 30), (30, 30, 220)])).max() < 12, "upright"
    until(page, lambda: mask_of(tab(page)).shape == (2048, 1536), "the picture does not arrive")
    mask = np.zeros((5712, 4284), np.uint8)
    mask[:2856] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    tab(page).locator(".mg-source input[type=file]").last.set_input_files(tmp_path / "mask.png")
    until(page, lambda: 0.49 < mask_of(tab(page)).mean() < 0.51, "nor does a mask of the photo")
    mask[:] = 0
    mask[3000] = 255  # a line of one pixel
    Image.fromarray(mask).save(tmp_path / "line.png")
    tab(page).locator(".mg-source input[type=file]").last.set_input_files(tmp_path / "line.png")
    until(
        page,
        lambda: mask_of(tab(page)).all(axis=1).sum() == mask_of(tab(page)).any(axis=1).sum() == 2,
        "the line vanishes",
    )


def test_files_that_cannot_be_opened_are_told_beside_the_picture(open_page: OpenPage) -> None:
    page = open_page()
    go(page)
    for name, kind, size, says in (
        ("letter.pdf", "application/pdf", 99, "letter.pdf is no picture that can be read: choose a PNG"),
        ("scan.tif", "image/tiff", 11 * 2**20, "scan.tif has more than 10 MB: save it smaller"),
    ):
        picture_input(page).set_input_files({"name": name, "mimeType": kind, "buffer": bytes(size)})
        expect(opening(page)).to_contain_text(says)
    picture_input(page).set_input_files({"name": "scan.tif", "mimeType": "image/tiff", "buffer": bytes(99)})
    expect(tab(page).get_by_role("alert")).to_contain_text("scan.tif is no picture that can be read")
    expect(opening(page)).to_have_text("")


def test_pasted_text_opens_no_picture(open_page: OpenPage) -> None:
    """Office programs put a picture of the text beside the text."""
    page = open_page()
    go(page)
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32), "teal").save(buffer, "PNG")
    words = tab(page).get_by_label("What should the picture show?").element_handle()

    def paste(target: object, *texts: str) -> bool:
        """Whether the page takes it for itself."""
        taken = page.evaluate(
            """async ([target, png, texts]) => {
              const data = new DataTransfer();
              const file = await (await fetch(`data:image/png;base64,${png}`)).blob();
              data.items.add(new File([file], "image.png", { type: "image/png" }));
              for (const text of texts) data.setData("text/plain", text);
              const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
              return !(target ?? document.body).dispatchEvent(event);
            }""",
            [target, base64.b64encode(buffer.getvalue()).decode(), list(texts)],
        )
        return bool(taken)

    assert not paste(words, "an owl")
    expect(opening(page)).to_have_text("")
    assert paste(words), "a picture alone is meant for the easel"
    until(page, lambda: mask_of(tab(page)).shape == (32, 48), "the picture does not arrive")
    assert paste(None, "an owl")

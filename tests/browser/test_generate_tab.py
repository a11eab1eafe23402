"""The Generate tab, as a person uses it."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from browsing import DOUBLE_CLICK, OpenPage, Turnstile, finished, step_by_step
from PIL import Image
from playwright.sync_api import JSHandle, Locator, Page, expect

from markovgen_app.pictures import read_settings
from markovgen_app.runtime import Runtime
from markovgen_app.ui import stage

pytestmark = pytest.mark.browser

PROMPT = "a panda on a brick wall"


def prompt_box(page: Page) -> Locator:
    return page.get_by_label("Describe a picture")


def picture(page: Page) -> Locator:
    return page.locator(".mg-native")


def label(page: Page) -> Locator:
    return page.locator(".mg-label")


def control(page: Page, name: str) -> Locator:
    """A control in the advanced options; its explanation is part of its label."""
    return page.locator("#advanced").get_by_label(re.compile(rf"^\s*{name}\b"))


def advanced(page: Page) -> None:
    page.get_by_role("button", name="Advanced").click()
    expect(control(page, "Seed")).to_be_visible()


def run(page: Page, prompt: str = PROMPT) -> None:
    prompt_box(page).fill(prompt)
    page.locator(".mg-run:visible").click()


def finish(page: Page) -> bytes:
    """Waits for the picture and returns its PNG file."""
    return base64.b64decode(finished(page.locator("#tab-generate")).removeprefix("data:image/png;base64,"))


def do_some_steps(page: Page, turnstile: Turnstile) -> None:
    turnstile.let(3)
    expect(label(page)).to_have_text(re.compile(r"^base \d/24$"))


def seed_of(page: Page) -> str:
    found = re.search(r"seed (\d+)", page.locator(".mg-facts").inner_text())
    assert found
    return found[1]


def test_the_page_opens_with_pictures(open_page: OpenPage) -> None:
    page = open_page()
    examples = page.locator(".mg-examples button")
    expect(examples).to_have_count(3)
    expect(picture(page)).to_be_visible()
    examples.nth(1).click()
    expect(prompt_box(page)).to_have_value(examples.nth(1).inner_text())
    expect(picture(page)).to_have_attribute("alt", examples.nth(1).inner_text())


def test_a_run_shows_every_step_and_echoes_its_seed(open_page: OpenPage, runtime: Runtime) -> None:
    page = open_page()
    prompt_box(page).fill(PROMPT)
    with step_by_step(runtime) as turnstile:
        prompt_box(page).press("Control+Enter")
        expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
        do_some_steps(page, turnstile)
    png = finish(page)
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_visible()
    expect(page.locator(".mg-film button")).to_have_count(24)
    expect(picture(page)).to_have_attribute("alt", PROMPT)

    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG" and image.size == (128, 128)
    settings = read_settings(io.BytesIO(png))
    assert settings.prompt == PROMPT and str(settings.seed) == seed_of(page)
    expect(page).to_have_url(re.compile(rf"\bseed={settings.seed}\b"))

    page.locator(".mg-film button").nth(2).click()
    expect(label(page)).to_have_text("step 3 of 24")
    page.keyboard.press("ArrowRight")
    expect(label(page)).to_have_text("step 4 of 24")

    advanced(page)
    page.get_by_role("button", name="Reuse seed").click()
    expect(control(page, "Seed")).to_have_value(str(settings.seed))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".mg-mine button")).to_have_count(2)
    again = finish(page)
    assert Image.open(io.BytesIO(again)).tobytes() == image.tobytes(), "the same seed gives the same picture"
    page.get_by_role("button", name=f"Seed {settings.seed} is kept: use a new one each time").click()
    expect(control(page, "Seed")).to_have_value("")


def test_detail_is_added_in_a_second_stage_where_the_weights_have_one(open_page: OpenPage, ladder_url: str) -> None:
    page = open_page(address=ladder_url)
    advanced(page)
    control(page, "Steps for detail").fill("3")
    run(page)
    assert Image.open(io.BytesIO(finish(page))).size == (64, 64)
    film = page.locator(".mg-film button")
    expect(film.last).to_have_text("fine 3")
    expect(page.get_by_role("button", name="Download 8×", exact=True)).to_be_visible()
    page.get_by_role("button", name="fine step 2 of 3").click()
    expect(label(page)).to_have_text("fine step 2 of 3")
    page.locator("[data-act=heat]").click()
    expect(page.locator(".mg-legend")).to_contain_text("of 64 tokens decided")
    page.get_by_role("button", name="step 2 of 24", exact=True).click()
    expect(page.locator(".mg-legend")).to_contain_text("of 16 tokens decided")

    page.locator("#advanced").get_by_label("32 × 32 px").check()
    run(page)
    expect(page.locator(".mg-mine button")).to_have_count(2)
    assert Image.open(io.BytesIO(finish(page))).size == (32, 32)
    expect(page).to_have_url(re.compile(r"\bsize=32\b"))


def test_a_size_is_no_question_where_there_is_one(open_page: OpenPage) -> None:
    page = open_page()
    advanced(page)
    expect(page.locator("#advanced").get_by_text("Size", exact=True)).to_have_count(0)


def test_four_pictures_and_the_confidence_overlay(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("radio", name="4", exact=True).check()
    advanced(page)
    control(page, "Steps").fill("6")
    run(page)
    first = finish(page)
    expect(page.locator(".mg-mine button")).to_have_count(4)
    page.locator(".mg-mine button").nth(3).click()
    expect(page.locator(".mg-mine button").nth(3)).to_have_attribute("aria-pressed", "true")
    assert finish(page) != first

    overlay = page.locator(".mg-heat")
    expect(overlay).to_be_hidden()
    page.get_by_role("button", name="Confidence").click()
    expect(overlay).to_be_visible()
    expect(page.locator(".mg-legend")).to_contain_text("256 of 256 tokens decided")
    page.locator(".mg-film button").first.click()
    expect(page.locator(".mg-legend")).not_to_contain_text("256 of 256 tokens decided")


def test_stop_leaves_the_last_picture_and_frees_the_place(open_page: OpenPage, runtime: Runtime) -> None:
    page = open_page()
    prompt_box(page).fill(PROMPT)
    with step_by_step(runtime) as turnstile:
        page.locator(".mg-run:visible").dblclick()
        expect(label(page)).to_have_text("Waiting for a free place")
        do_some_steps(page, turnstile)
        page.keyboard.press("Escape")
        expect(label(page)).to_have_text(re.compile(r"Stopped at base \d+/24"))
    expect(picture(page)).to_be_visible()
    advanced(page)
    stopped = label(page).inner_text()
    page.get_by_role("button", name="Reuse seed").click()
    expect(control(page, "Seed")).to_have_value(seed_of(page))

    control(page, "Steps").fill("3")
    run(page)
    finish(page)
    page.locator(".mg-mine button").nth(1).click()
    expect(label(page)).to_have_text(stopped)
    page.locator("#tab-generate").get_by_role("button", name="Inpaint", exact=True).click()
    expect(page.locator("#tab-inpaint .mg-editor canvas").first).to_be_visible()
    expect(page.locator("#tab-inpaint .mg-field-prompt textarea")).to_have_value(PROMPT)


def test_a_second_visitor_waits_in_line(open_page: OpenPage, runtime: Runtime) -> None:
    first, second = open_page(), open_page()
    with runtime.lock:  # nobody gets a step done
        run(first)
        expect(label(first)).to_have_text("Waiting for a free place")
        run(second, "a fox in the forest")
        for place in (label(second), second.locator(".mg-queue"), second.locator("#tab-generate .mg-live")):
            expect(place).to_have_text("Waiting: you are next in line")
        first.wait_for_timeout(DOUBLE_CLICK)
        first.get_by_role("button", name="Stop", exact=True).click()
        expect(first.get_by_role("button", name="Run", exact=True)).to_be_visible()
    finish(second)
    expect(second.locator(".mg-queue")).to_have_text("")


def test_a_full_queue_says_so_and_takes_nothing(open_page: OpenPage, narrow_url: str, runtime: Runtime) -> None:
    first, second = open_page(address=narrow_url), open_page(address=narrow_url)
    with step_by_step(runtime) as turnstile:
        run(first)
        do_some_steps(first, turnstile)
        first.get_by_role("tab", name="Compare").click()
        first.locator(".mg-run:visible").click()
        expect(first.locator("#tab-compare .mg-label")).to_have_text("Waiting: you are next in line")
        for _ in range(2):
            run(second, "a fox in the forest")
            expect(second.locator("#tab-generate").get_by_role("alert")).to_contain_text("Press Run again in a minute")
            expect(second.get_by_role("button", name="Run", exact=True)).to_be_visible()
            expect(prompt_box(second)).to_have_value("a fox in the forest")
    finished(first.locator("#tab-generate"))
    expect(first.locator("#tab-compare .mg-live")).to_have_text("The comparison is ready")
    run(second)
    finish(second)
    expect(second.locator("#tab-generate").get_by_role("alert")).to_have_count(0)


def test_a_run_that_fails_midway_keeps_its_last_step_and_the_keyboard(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page()
    prompt_box(page).fill(PROMPT)
    told = []

    def packed(*step: object) -> str:
        told.append(step)
        if len(told) > 3:
            raise RuntimeError("the fourth step cannot be told")
        return ""

    monkeypatch.setattr(stage, "pack_tokens", packed)
    start = page.get_by_role("button", name="Run", exact=True)
    start.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Something went wrong")
    expect(label(page)).to_have_text("Stopped at base 3/24")
    expect(start).to_be_focused()


@pytest.mark.parametrize(
    ("prompt", "field", "value", "says"),
    [
        ("", None, "", "The prompt is empty"),
        ("panda " * 833, None, "", "shorten it to 1,000"),
        (PROMPT, "Steps", "0", "Steps must be a whole number between 1 and 256, not 0."),
        (PROMPT, "Seed", "4294967296", "Seed must be a whole number between 0 and 4294967295, not"),
        (PROMPT, "Seed", "seven", "Seed must be a whole number between 0 and 4294967295, not 'seven'."),
    ],
)
def test_mistakes_are_answered_beside_the_prompt(
    open_page: OpenPage, prompt: str, field: str | None, value: str, says: str
) -> None:
    page = open_page()
    expect(picture(page)).to_have_attribute("src", re.compile("^data:"))
    shown = picture(page).get_attribute("src")
    if field:
        advanced(page)
        control(page, field).fill(value)
        page.get_by_role("button", name="Advanced").click()
        expect(control(page, field)).to_be_hidden()
    for _ in range(2):
        run(page, prompt)
        expect(page.get_by_role("alert")).to_contain_text(says)
        wrong = control(page, field) if field else prompt_box(page)
        expect(wrong).to_have_attribute("aria-invalid", "true")
        expect(wrong).to_be_focused()
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_visible()
    expect(prompt_box(page)).to_have_value(prompt)
    assert picture(page).get_attribute("src") == shown
    if field:
        expect(control(page, field)).to_have_value(value)
    wrong.fill("1")
    expect(wrong).not_to_have_attribute("aria-invalid", "true")


def test_unknown_words_can_be_swapped(open_page: OpenPage) -> None:
    page = open_page()
    prompt_box(page).press_sequentially("a wombat on a brick wall")
    hint = page.locator(".mg-hint")
    expect(hint).to_contain_text("wombat is new to this model")
    chip = hint.get_by_role("button").first
    known = chip.inner_text()
    chip.click()
    expect(prompt_box(page)).to_have_value(f"a {known} on a brick wall")
    expect(hint).to_have_count(0)


def test_known_words_go_into_the_prompt(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Search the words this model knows").fill("owl")
    expect(page.get_by_role("button", name="panda", exact=True)).to_be_hidden()
    page.get_by_role("button", name="owl", exact=True).click()
    page.get_by_label("Search the words this model knows").fill("")
    page.get_by_role("button", name="panda", exact=True).click()
    page.get_by_role("button", name="brick wall", exact=True).click()
    page.get_by_role("button", name="watercolor", exact=True).click()
    expect(prompt_box(page)).to_have_value("an owl and a panda on a brick wall, watercolor")


def test_a_link_fills_the_controls(open_page: OpenPage) -> None:
    page = open_page("?p=two+owls+in+the+snow&seed=12&m=early-exit&steps=10&finalise=argmax")
    expect(prompt_box(page)).to_have_value("two owls in the snow")
    expect(page.get_by_role("radio", name=re.compile("Early exit"))).to_be_checked()
    advanced(page)
    expect(control(page, "Seed")).to_have_value("12")
    expect(control(page, "Steps")).to_have_value("10")
    expect(control(page, "Exit step")).to_be_visible()
    expect(control(page, "Tokens left at the exit")).to_have_value("the likeliest each")
    expect(control(page, "Rounds of the random field")).to_be_hidden()
    page.get_by_role("radio", name=re.compile("MarkovGen")).check()
    expect(control(page, "Rounds of the random field")).to_have_attribute("placeholder", "2, the field's own")
    expect(control(page, "Trust decided tokens")).to_be_checked()


def test_markovgen_makes_a_picture_with_its_own_settings(open_page: OpenPage) -> None:
    page = open_page("?p=an+owl&seed=4&m=markovgen&steps=8&mrf_iterations=1&mrf_clamp=False")
    expect(page.get_by_role("radio", name=re.compile("MarkovGen"))).to_be_checked()
    expect(prompt_box(page)).to_have_value("an owl")
    page.locator(".mg-run:visible").click()
    settings = read_settings(io.BytesIO(finish(page)))
    assert (settings.method, settings.mrf_iterations, settings.mrf_clamp) == ("markovgen", 1, False)


def test_a_broken_link_says_so(open_page: OpenPage) -> None:
    page = open_page("?p=an+owl&seed=-3")
    expect(page.get_by_role("alert")).to_contain_text("Seed must be a whole number")


def test_what_was_made_and_typed_outlives_a_reload(open_page: OpenPage) -> None:
    page = open_page()
    advanced(page)
    control(page, "Steps").fill("3")
    run(page)
    made = finish(page)
    prompt_box(page).fill("a fox in the forest")
    page.reload()
    expect(prompt_box(page)).to_have_value("a fox in the forest")
    expect(control(page, "Seed")).to_have_value("")
    expect(page.locator(".mg-mine button")).to_have_count(1)
    assert finish(page) == made

    page.get_by_role("tab", name="Inpaint").click()
    elsewhere = page.get_by_label("What should be there?")
    expect(elsewhere).to_have_value("a fox in the forest")
    elsewhere.fill("an owl")
    page.reload()
    expect(page.get_by_role("tab", name="Inpaint")).to_have_attribute("aria-selected", "true")
    expect(elsewhere).to_have_value("an owl")

    address = page.url.partition("?")[0]
    page.goto(f"{address}?p=two+owls&seed=5")
    expect(prompt_box(page)).to_have_value("two owls")
    expect(page.locator("#tab-generate .mg-empty")).to_have_text("Press Run to make the picture of this link.")
    page.goto(f"{address}?tab=about")
    expect(page.get_by_role("heading", name="What this model knows")).to_be_visible()


def test_on_a_phone_the_page_goes_where_something_happened(open_page: OpenPage) -> None:
    page = open_page(width=390, has_touch=True)
    page.locator(".mg-examples button").last.click()
    expect(page.locator("#tab-generate .mg-frame").first).to_be_in_viewport(ratio=0.95)
    for button in ("Reuse seed", "Use settings"):
        page.get_by_role("button", name=button).click()
        expect(prompt_box(page)).to_be_in_viewport()
        expect(page.locator("#tab-generate .mg-live")).to_have_text("Settings are filled in")
    expect(control(page, "Seed")).to_have_css("font-size", "16px")
    page.get_by_role("button", name="Edit by words", exact=True).click()
    expect(page.get_by_role("tab", name="Edit by words")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("tab", name="Edit by words")).to_be_in_viewport()


def dragged(page: Page, file: Path) -> JSHandle:
    """A file as it hangs on the pointer."""
    return page.evaluate_handle(
        """(encoded) => {
            const data = new DataTransfer(), bytes = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
            data.items.add(new File([bytes], "picture.png", { type: "image/png" }));
            return data;
        }""",
        base64.b64encode(file.read_bytes()).decode(),
    )


def test_downloads_carry_settings_that_restore(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    advanced(page)
    control(page, "Seed").fill("77")
    control(page, "Steps").fill("4")
    run(page)
    finish(page)
    for button, side in (("Download", 128), ("Download 4×", 512)):
        with page.expect_download() as download:
            page.get_by_role("button", name=button, exact=True).click()
        path = tmp_path / f"{side}.png"
        download.value.save_as(path)
        assert Image.open(path).size == (side, side)
        settings = read_settings(path)
        assert (settings.prompt, settings.seed, settings.steps) == (PROMPT, 77, 4)

    other = open_page()
    other.locator("input[type=file]").set_input_files(tmp_path / "512.png")
    expect(prompt_box(other)).to_have_value(PROMPT)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    other.locator("input[type=file]").set_input_files(tmp_path / "plain.png")
    expect(other.get_by_role("alert")).to_contain_text("no MarkovGen settings")
    expect(prompt_box(other)).to_have_value(PROMPT)

    prompt_box(other).fill("something else")
    file = dragged(other, tmp_path / "512.png")
    other.locator("#tab-generate .mg-shelves").dispatch_event("drop", {"dataTransfer": file})
    expect(prompt_box(other)).to_have_value(PROMPT)
    expect(other.locator("#tab-generate .mg-live")).to_have_text("Settings are filled in")
    beside = "(dataTransfer) => new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true })"
    assert not other.evaluate(f"(data) => document.body.dispatchEvent(({beside})(data))", file), "the page stays"


def test_day_and_night(open_page: OpenPage) -> None:
    page = open_page("?__theme=system", scheme="dark")
    expect(page.locator("body.dark")).to_have_count(1)
    page.get_by_role("button", name="Day or night").click()
    expect(page.locator("body.dark")).to_have_count(0)
    page.reload()
    page.get_by_role("button", name="Run", exact=True).wait_for()
    expect(page.locator("body.dark")).to_have_count(0)

"""The Compare tab, as a person uses it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from browsing import OpenPage, Turnstile, at_rest, finished, step_by_step, until
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from test_accessibility import assert_clean

from markovgen_app.pictures import read_settings
from markovgen_app.runtime import Runtime

pytestmark = pytest.mark.browser

LINK = "?tab=compare&p=a+panda+on+a+brick+wall&seed=7&steps=8"
PROMPT = "a panda on a brick wall"


def tab(page: Page) -> Locator:
    return page.locator("#tab-compare")


def prompt_box(page: Page) -> Locator:
    return tab(page).get_by_label("Describe one picture for all methods")


def seed_box(page: Page) -> Locator:
    return tab(page).get_by_label(re.compile(r"^\s*Seed\b"))


def card(page: Page, title: str) -> Locator:
    return tab(page).locator(".mg-card").filter(has=page.get_by_role("heading", name=title, exact=True))


def method(page: Page, title: str) -> Locator:
    return tab(page).get_by_role("checkbox", name=title, exact=True)


def slider(page: Page) -> Locator:
    return tab(page).get_by_role("slider", name=re.compile("Line between"))


def press(page: Page, name: str) -> None:
    tab(page).get_by_role("button", name=name, exact=True).click()


def finish(page: Page) -> None:
    """Waits for a comparison that was not there before."""
    expect(tab(page).get_by_role("button", name="Compare", exact=True)).to_be_visible()
    expect(tab(page).locator(".mg-shelf h2").first).to_have_text("Your comparisons")
    expect(page).to_have_url(re.compile("tab=compare"))


def compare(page: Page) -> None:
    expect(prompt_box(page)).not_to_have_value("")  # a link is read after the page stands
    press(page, "Compare")
    finish(page)


def do_some_steps(page: Page, turnstile: Turnstile) -> list[int]:
    """Lets a comparison of three methods do a few steps; returns the step that each is at."""
    turnstile.let(10)
    states = tab(page).locator(".mg-state")
    expect(states).to_have_text([re.compile(r"^base \d+/")] * 3)
    return [int(state.removeprefix("base ").partition("/")[0]) for state in states.all_inner_texts()]


def test_the_tab_opens_with_comparisons(open_page: OpenPage) -> None:
    page = open_page("?tab=compare")
    examples = tab(page).locator(".mg-shelf button")
    expect(examples).to_have_count(3)
    expect(tab(page).locator(".mg-card")).to_have_count(3)
    expect(tab(page).locator(".mg-label")).to_have_text("Made earlier")
    examples.nth(1).click()
    expect(tab(page).locator(".mg-prompt")).to_have_text(examples.nth(1).inner_text())
    expect(slider(page)).to_be_visible()


def test_cards_fill_in_step_and_say_what_it_took(open_page: OpenPage, runtime: Runtime) -> None:
    page = open_page()
    page.get_by_role("tab", name="Compare").click()
    prompt_box(page).fill(PROMPT)
    with step_by_step(runtime) as turnstile:
        prompt_box(page).press("Control+Enter")
        expect(tab(page).get_by_role("button", name="Stop", exact=True)).to_be_visible()
        expect(tab(page).locator(".mg-label")).to_have_text("Waiting for a free place")
        reached = do_some_steps(page, turnstile)
        assert max(reached) - min(reached) <= 1, "all methods are at the same step"
        for title in ("Full", "Early exit", "MarkovGen"):
            expect(card(page, title).get_by_role("img")).to_have_attribute("alt", f"{PROMPT} ({title})")
    finish(page)
    for title, calls in (("Full", 24), ("Early exit", 18), ("MarkovGen", 18)):
        expect(card(page, title).locator("dd").nth(0)).to_have_text(f"{calls} of 24")
        expect(card(page, title).locator("dd").nth(1)).to_have_text(str(calls))
        expect(card(page, title).locator("dd").nth(2)).to_have_text(re.compile(r"^\d+\.\d\d s$"))
    expect(card(page, "Full").locator(".mg-speed")).to_have_text("1×the reference")
    expect(card(page, "MarkovGen").locator(".mg-speed")).to_have_text(re.compile(r"^\d+\.\d\d×as fast as Full$"))
    expect(tab(page).locator(".mg-cuts button")).to_have_count(8)
    expect(tab(page).locator(".mg-fair")).to_contain_text(
        "Full, Early exit and MarkovGen share every token up to step 18"
    )
    expect(tab(page).locator(".mg-live")).to_have_text("The comparison is ready")
    seed = re.findall(r"seed (\d+) for all", tab(page).locator(".mg-facts").inner_text())[0]
    link = f"tab=compare&p=a+panda+on+a+brick+wall&m=full,early-exit,markovgen&seed={seed}"
    expect(page).to_have_url(re.compile(re.escape(link)))


def test_the_methods_are_a_choice(open_page: OpenPage) -> None:
    page = open_page(LINK)
    expect(prompt_box(page)).to_have_value(PROMPT)
    for name in ("Early exit", "MarkovGen"):
        method(page, name).uncheck()
    method(page, "Halton").check()
    compare(page)
    expect(tab(page).locator(".mg-card h2")).to_have_text(["Full", "Halton"])
    expect(card(page, "Halton").locator("dd").first).to_have_text("6 of 6")
    expect(tab(page).locator(".mg-field")).to_be_hidden()
    method(page, "Full").uncheck()
    press(page, "Compare")
    expect(page.get_by_role("alert")).to_have_text("Choose two methods or more to compare.")
    expect(tab(page).locator(".mg-card")).to_have_count(2)


def test_the_line_moves_by_keyboard_and_pointer(open_page: OpenPage) -> None:
    page = open_page(LINK)
    compare(page)
    line = slider(page)
    expect(line).to_have_attribute("aria-label", "Line between Early exit and MarkovGen")
    line.focus()
    for key, value in (("ArrowRight", "51"), ("Home", "0"), ("End", "100"), ("ArrowLeft", "99")):
        page.keyboard.press(key)
        expect(line).to_have_value(value)
    expect(line).to_have_attribute("aria-valuetext", "Early exit on the left 99 %, MarkovGen on the rest")

    frame = tab(page).locator(".mg-divide")
    box = at_rest(frame)
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.6 * box["height"])
    expect(line).to_have_value("25")
    page.mouse.up()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.6 * box["height"])
    expect(line).to_have_value("25")
    left = frame.locator(".mg-left")
    expect(left).to_have_css("clip-path", "inset(0px 75% 0px 0px)")
    page.keyboard.down("b")
    expect(left).to_have_css("clip-path", "none")
    page.keyboard.up("b")
    expect(left).to_have_css("clip-path", "inset(0px 75% 0px 0px)")


def test_the_left_picture_is_seen_alone_while_the_button_is_held(open_page: OpenPage) -> None:
    page = open_page("?tab=compare", width=390, has_touch=True, is_mobile=True)
    frame = tab(page).locator(".mg-divide")
    left, button = frame.locator(".mg-left"), tab(page).get_by_role("button", name="Before")
    expect(frame).to_have_css("touch-action", "pan-y pinch-zoom")
    box = at_rest(button)
    touch = page.context.new_cdp_session(page)
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    expect(left).to_have_css("clip-path", "none")
    expect(button).to_have_attribute("aria-pressed", "true")
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(left).to_have_css("clip-path", "inset(0px 50% 0px 0px)")
    expect(slider(page), "the line stays").to_have_value("50")
    button.focus()
    for key in ("Space", "Enter"):
        page.keyboard.down(key)
        expect(left).to_have_css("clip-path", "none")
        page.keyboard.up(key)
        expect(left).to_have_css("clip-path", "inset(0px 50% 0px 0px)")


def test_an_example_comes_into_sight_and_keeps_the_focus(open_page: OpenPage) -> None:
    page = open_page("?tab=compare", width=390)
    last = tab(page).locator(".mg-shelf button").last
    words = last.inner_text()
    last.focus()
    page.keyboard.press("Enter")
    expect(tab(page).locator(".mg-prompt")).to_have_text(words)
    expect(tab(page).locator(".mg-prompt")).to_be_in_viewport()
    expect(last).to_be_focused()
    expect(tab(page).locator('.mg-shelf button[aria-pressed="true"]')).to_have_text(words)


def test_the_line_moves_by_touch(open_page: OpenPage) -> None:
    page = open_page(LINK, width=390, has_touch=True)
    compare(page)
    box = at_rest(tab(page).locator(".mg-divide"))
    page.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])
    expect(slider(page)).to_have_value("30")


def test_any_two_pictures_can_be_put_side_by_side(open_page: OpenPage) -> None:
    page = open_page(LINK)
    compare(page)
    left, right = tab(page).get_by_label("Left", exact=True), tab(page).get_by_label("Right", exact=True)
    on_left, on_right = tab(page).locator(".mg-divide .mg-left img"), tab(page).locator(".mg-divide img").first
    full, last = card(page, "Full").get_by_role("img"), tab(page).locator(".mg-shelf img").first
    left.select_option("Full")
    until(page, lambda: on_left.get_attribute("src") == full.get_attribute("src"), "Full is not on the left")
    expect(on_right).to_have_attribute("src", last.get_attribute("src") or "")
    expect(card(page, "MarkovGen").get_by_role("img")).to_have_attribute("src", last.get_attribute("src") or "")
    expect(tab(page).locator(".mg-difference")).to_have_text(re.compile(r"^\d+ of 256 tokens differ\.$"))
    press(page, "Swap left and right")
    expect(left).to_have_value("markovgen")
    expect(right).to_have_value("full")
    right.select_option("MarkovGen")
    expect(tab(page).locator(".mg-difference")).to_have_text("The same to the last token.")

    step = tab(page).get_by_role("button", name=re.compile("^Step 4, "))
    step.click()
    expect(step).to_have_attribute("aria-pressed", "true")
    expect(left).to_have_value("plain 4")
    expect(right).to_have_value("refined 4")
    expect(slider(page)).to_have_attribute(
        "aria-label", "Line between Step 4, without the field and Step 4, with the field"
    )


def test_what_the_field_changed_can_be_seen(open_page: OpenPage) -> None:
    page = open_page(LINK)
    compare(page)
    made = tab(page).locator(".mg-field")
    expect(made).to_contain_text(re.compile(r"\d+ of the \d+ tokens left at step 6 came out differently"))
    expect(made.locator("dd")).to_have_text([re.compile(r"^−?[\d,]+\.\d$")] * 2)
    marked = card(page, "MarkovGen").locator(".mg-heat")
    expect(marked).to_be_hidden()
    press(page, "Changed tokens")
    expect(marked).to_be_visible()
    expect(card(page, "Full").locator(".mg-heat")).to_be_hidden()
    expect(tab(page).locator(".mg-marks")).to_be_visible()
    press(page, "Confidence")
    expect(card(page, "Full").locator(".mg-heat")).to_be_visible()
    expect(tab(page).locator(".mg-legend")).to_contain_text("mean confidence: Full 0.")
    expect(tab(page).get_by_role("button", name="Changed tokens")).to_have_attribute("aria-pressed", "false")
    press(page, "Show it here")
    expect(tab(page).get_by_label("Left", exact=True)).to_have_value("unrefined")
    expect(tab(page).locator(".mg-marks")).to_be_visible()


def test_two_stages_are_compared_by_the_tokens_of_the_last(open_page: OpenPage, ladder_url: str) -> None:
    page = open_page(LINK, address=ladder_url)
    compare(page)
    expect(card(page, "Full").locator("dd").first).to_have_text("8 of 8 + 8 of 8")
    expect(tab(page).locator(".mg-difference")).to_have_text(re.compile(r"^\d+ of 64 tokens differ\.$"))
    expect(tab(page).locator(".mg-field-said")).to_have_text(
        re.compile(r"tokens left at step 6 came out .* tokens left at super-resolution step 3 came out differently")
    )
    press(page, "Confidence")
    heat = card(page, "Full").locator(".mg-heat")
    expect(heat).to_be_visible()
    shades = heat.evaluate(
        "(canvas) => Array.from({ length: 64 }, (_, at) =>"
        " canvas.getContext('2d').getImageData(64 * (at % 8) + 32, 64 * Math.floor(at / 8) + 32, 1, 1).data[3])"
    )
    assert any(left != right for left, right in zip(shades[::2], shades[1::2], strict=True)), "tokens of 64 px, not 128"
    step = tab(page).get_by_role("button", name=re.compile("^Super-resolution step 3, "))
    expect(step).to_contain_text("fine 3, the exit")
    step.click()
    expect(step).to_have_attribute("aria-pressed", "true")
    expect(tab(page).get_by_label("Left", exact=True)).to_have_value("plain 1.3")
    expect(slider(page)).to_have_attribute(
        "aria-label",
        "Line between Super-resolution step 3, without the field and Super-resolution step 3, with the field",
    )


def test_pictures_and_the_grid_are_downloaded(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(LINK)
    compare(page)
    with page.expect_download() as download:
        press(page, "Download as one labelled grid")
    assert download.value.suggested_filename == "a-panda-on-a-brick-wall_comparison.png"
    download.value.save_as(tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.format == "PNG" and grid.width > 3 * 384
    with page.expect_download() as download:
        card(page, "MarkovGen").get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "one.png")
    settings = read_settings(io.BytesIO((tmp_path / "one.png").read_bytes()))
    assert (settings.prompt, settings.seed, settings.method, settings.steps) == (PROMPT, 7, "markovgen", 8)


def test_stop_leaves_what_is_there(open_page: OpenPage, runtime: Runtime) -> None:
    page = open_page(LINK)
    expect(prompt_box(page)).to_have_value(PROMPT)
    with step_by_step(runtime) as turnstile:
        press(page, "Compare")
        do_some_steps(page, turnstile)
        page.keyboard.press("Escape")
        expect(card(page, "Full").locator(".mg-state")).to_have_text(re.compile(r"Stopped at base \d/8"))
    expect(card(page, "Full").get_by_role("img")).to_be_visible()
    expect(tab(page).get_by_role("button", name="Compare", exact=True)).to_be_visible()
    expect(slider(page)).to_be_visible()
    expect(card(page, "Full").get_by_role("button", name="Copy settings")).to_be_hidden()
    expect(card(page, "Full").get_by_role("button", name="Inpaint")).to_be_visible()
    compare(page)
    expect(card(page, "Full").locator("dd").first).to_have_text("8 of 8")
    expect(card(page, "Full").get_by_role("button", name="Copy settings")).to_be_visible()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("prompt", "", "The prompt is empty"),
        ("seed", "seven", "Seed must be a whole number between 0 and 4294967295, not 'seven'."),
        ("seed", "-1", "Seed must be a whole number between"),
    ],
)
def test_mistakes_are_answered_beside_the_prompt(open_page: OpenPage, field: str, value: str, says: str) -> None:
    page = open_page(LINK)
    control = prompt_box(page) if field == "prompt" else seed_box(page)
    expect(prompt_box(page)).to_have_value(PROMPT)
    control.fill(value)
    press(page, "Compare")
    expect(page.get_by_role("alert")).to_contain_text(says)
    expect(control).to_have_value(value)
    expect(tab(page).get_by_role("button", name="Compare", exact=True)).to_be_visible()


def test_a_link_leads_to_its_comparison(open_page: OpenPage) -> None:
    page = open_page("?tab=compare&p=two+owls&seed=12&m=full,halton&steps=10&guidance_scale=2.5")
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
    expect(prompt_box(page)).to_have_value("two owls")
    expect(seed_box(page)).to_have_value("12")
    for name, chosen in (("Full", True), ("Early exit", False), ("MarkovGen", False), ("Halton", True)):
        expect(method(page, name)).to_be_checked(checked=chosen)
    tab(page).get_by_role("button", name="Advanced").click()
    expect(tab(page).get_by_role("spinbutton", name="Steps")).to_have_value("10")
    expect(tab(page).get_by_label(re.compile(r"^\s*Guidance\b")).first).to_have_value("2.5")
    compare(page)
    address = page.url
    again = open_page("?" + address.partition("?")[2])
    expect(prompt_box(again)).to_have_value("two owls")
    expect(seed_box(again)).to_have_value("12")
    expect(tab(again).locator(".mg-shelf button")).to_have_count(3)
    expect(tab(again).locator(".mg-empty")).to_have_text("Press Compare to make the pictures of this link.")
    expect(tab(again).locator(".mg-card"), "an example beside another prompt would mislead").to_have_count(0)


def test_a_broken_link_says_so(open_page: OpenPage) -> None:
    page = open_page("?tab=compare&p=an+owl&m=full,magic")
    expect(page.get_by_role("alert")).to_contain_text("No method is called 'magic'")


def test_prompt_and_seed_are_carried_from_tab_to_tab(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Describe a picture").fill(PROMPT)
    page.get_by_role("tab", name="Compare").click()
    expect(prompt_box(page)).to_have_value(PROMPT)
    prompt_box(page).fill("an owl")
    seed_box(page).fill("99")
    page.get_by_role("tab", name="About").click()
    page.get_by_role("tab", name="Generate").click()
    expect(page.get_by_label("Describe a picture")).to_have_value("an owl")
    forget = page.get_by_role("button", name="Seed 99 is kept: use a new one each time")
    forget.click()
    expect(forget).to_be_hidden()
    page.get_by_role("tab", name="Compare").click()
    expect(seed_box(page)).to_have_value("")


def test_a_picture_is_sent_to_compare_and_back(open_page: OpenPage) -> None:
    page = open_page("?p=an+owl&seed=5&steps=6&m=markovgen")
    generate = page.locator("#tab-generate")
    expect(page.get_by_label("Describe a picture")).to_have_value("an owl")
    generate.get_by_role("button", name="Run", exact=True).click()
    made = finished(generate)
    page.get_by_label("Describe a picture").fill("something else")
    generate.get_by_role("button", name="Compare methods").click()
    expect(prompt_box(page)).to_have_value("an owl")
    expect(seed_box(page)).to_have_value("5")
    compare(page)
    expect(card(page, "Full").locator("dd").first).to_have_text("6 of 6")
    same = card(page, "MarkovGen").get_by_role("img")
    expect(same, "the same settings give the same file").to_have_attribute("src", made)
    card(page, "Early exit").get_by_role("button", name="Open in Generate").click()
    expect(page.get_by_role("radio", name=re.compile("Early exit"))).to_be_checked()
    expect(page.get_by_label("Describe a picture")).to_have_value("an owl")


def test_earlier_comparisons_stay(open_page: OpenPage) -> None:
    page = open_page(LINK)
    compare(page)
    prompt_box(page).fill("an owl")
    press(page, "Compare")
    mine = tab(page).locator(".mg-shelf").first.locator("button")
    expect(mine).to_have_count(2)
    mine.nth(1).click()
    expect(tab(page).locator(".mg-prompt")).to_have_text(PROMPT)
    press(page, "Reuse seed")
    expect(seed_box(page)).to_have_value("7")


def test_settings_are_copied(open_page: OpenPage) -> None:
    page = open_page(LINK, permissions=["clipboard-read", "clipboard-write"])
    compare(page)
    whole, one = tab(page).locator(".mg-take"), card(page, "Early exit")

    def copied() -> str:
        return str(page.evaluate("navigator.clipboard.readText()"))

    whole.get_by_role("button", name="Copy settings").click()
    expect(tab(page).locator(".mg-live")).to_have_text("Copied")
    settings = json.loads(copied())
    assert settings["methods"] == ["full", "early-exit", "markovgen"] and settings["seed"] == 7
    whole.get_by_role("button", name="Copy link").click()
    until(page, lambda: copied() == page.url, "the link was not copied")
    one.get_by_role("button", name="Copy settings").click()
    until(page, lambda: '"method": "early-exit"' in copied(), "the settings of one method were not copied")
    one.get_by_role("button", name="Copy link").click()
    until(page, lambda: copied().endswith("?p=a+panda+on+a+brick+wall&m=early-exit&steps=8&seed=7"), "nor its link")


def test_without_a_field_the_others_are_compared(open_page: OpenPage, bare_url: str) -> None:
    page = open_page(LINK, address=bare_url)
    expect(tab(page)).to_contain_text("hold no trained random field")
    expect(tab(page).locator(".mg-empty")).to_be_visible()
    expect(tab(page).get_by_role("checkbox", name="MarkovGen")).to_have_count(0)
    compare(page)
    expect(tab(page).locator(".mg-card h2")).to_have_text(["Full", "Early exit", "Rescheduled"])
    expect(tab(page).locator(".mg-field")).to_be_hidden()
    strip = tab(page).locator(".mg-cuts button")
    expect(strip).to_have_count(8)
    strip.nth(2).click()
    expect(tab(page).get_by_label("Right", exact=True)).to_have_value("full")
    sent = open_page("?tab=compare&p=an+owl&m=full,markovgen", address=bare_url)
    expect(sent.get_by_role("alert")).to_contain_text("hold no random field")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (768, "dark"), (1440, "light")])
def test_every_width_by_day_and_night(open_page: OpenPage, width: int, scheme: str) -> None:
    page = open_page(LINK, width=width, scheme=scheme)
    tab(page).get_by_role("button", name="Advanced").click()
    compare(page)
    press(page, "Changed tokens")
    assert_clean(page)


def test_the_smallest_phone(open_page: OpenPage) -> None:
    page = open_page("?tab=compare", width=360)
    expect(tab(page).locator(".mg-card")).to_have_count(3)
    assert_clean(page)

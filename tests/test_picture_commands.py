"""`markovgen inpaint | outpaint | edit`: what they write, and one line for everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import run_command as run
from PIL import Image

from markovgen_app.picture_requests import EditRequest, InpaintRequest, OutpaintRequest
from markovgen_app.pictures import METADATA_KEY

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def files(elsewhere: Path) -> None:
    """A picture and masks in the working directory."""
    Image.fromarray(NOISE).save("a.png")
    Image.fromarray(NOISE).convert("CMYK").save("cmyk.jpg")
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27).save("deep.png")
    Image.new("RGB", (1, 1)).save("dot.png")
    Image.new("L", (60, 40)).save("empty.png")
    Image.new("L", (60, 40), 255).save("full.png")
    Image.new("L", (10, 10), 255).save("other.png")
    mask = Image.new("L", (60, 40))
    mask.paste(255, (20, 10, 35, 25))
    mask.save("mask.png")
    Path("text.png").write_text("no picture")
    Path("short.png").write_bytes(Path("a.png").read_bytes()[:1000])


def test_inpaint_prints_one_object_and_keeps_what_is_outside(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--mask mask.png --feather 2 --steps 3 --seed 7 --count 2 --json --device cpu"
    assert run("inpaint", "a.png", *options.split(), "a fox", "--model", weights) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert [set(image) for image in images] == [
        {"path", "seed", "method", "steps", "seconds", "model_seconds", "width", "height", "prompt"}
    ] * 2
    for image, seed in zip(images, (7, 8), strict=True):
        assert (image["seed"], image["width"], image["height"], image["prompt"]) == (seed, 60, 40, "a fox")
        with Image.open(image["path"]) as made:
            changed = (np.asarray(made) != NOISE).any(axis=2)
            settings = json.loads(made.text[METADATA_KEY])  # type: ignore[attr-defined]
        assert changed[12:23, 22:33].all() and not changed[:8].any() and not changed[:, 38:].any()
        assert settings["task"] == "inpaint" and settings["seed"] == seed and settings["feather"] == 2


def test_outpaint_and_edit_write_pictures_of_the_right_size(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("outpaint", "a.png", "--left", "16", "--steps", "2", "a fox", "--model", weights) == 0
    assert run("edit", "a.png", "a fox", "--strength", "0.03", "--method", "markovgen", "--model", weights) == 0
    wide, edited = capsys.readouterr().out.split()
    assert Image.open(wide).size == (76, 40) and Image.open(edited).size == (60, 40)
    assert np.array_equal(np.asarray(Image.open(wide))[:, 30:], NOISE[:, 14:])


@pytest.mark.parametrize(
    ("picture", "note"),
    [("cmyk.jpg", "Converted from CMYK to RGB."), ("deep.png", "Reduced from 16 to 8 bits a channel.")],
)
def test_odd_files_work_and_what_was_done_to_them_is_said(
    weights: str, picture: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("inpaint", picture, "--rectangle", "5,5,20,20", "a fox", "--steps", "1", "--model", weights) == 0
    assert note in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("inpaint a.png --mask other.png fox", "The mask is 10 × 10 pixels and the picture 60 × 40"),
        ("inpaint a.png --mask empty.png fox", "The mask is empty"),
        ("inpaint a.png --mask full.png fox", "The mask covers the whole picture"),
        ("inpaint a.png fox", "The mask is empty"),
        ("inpaint dot.png --mask mask.png fox", "The picture is 1 × 1 pixels: choose one of at least 16 × 16."),
        ("inpaint text.png --mask mask.png fox", "text.png is no picture that can be read"),
        ("inpaint short.png --mask mask.png fox", "short.png is cut short or damaged"),
        ("inpaint a.png --mask text.png fox", "text.png is no picture that can be read"),
        ("inpaint nowhere.png --mask mask.png fox", "There is no file nowhere.png"),
        (f"inpaint nowhere.png --mask mask.png {'fox' * 100}", "There is no file nowhere.png"),
        (f"inpaint {'a' * 300} --mask mask.png fox", "There is no file aaa"),
        ("inpaint fox a.png --mask mask.png", "There is no file fox: the picture comes first, then the words."),
        ("inpaint a.png --mask mask.png --grow 999 fox", "Grow must be a whole number between -256 and 256, not 999."),
        ("inpaint a.png", "Missing argument"),
        ("outpaint a.png fox", "There is nothing to add"),
        ("outpaint a.png --left 61 fox", "Left must be between 0 and the picture's own width, 60 pixels, not 61"),
        ("outpaint a.png --aspect wide fox", "'wide' is no aspect"),
        ("edit a.png --strength 2 fox", "Strength must be a number between 0.01 and 1, not 2.0."),
        ("edit a.png --keep full.png fox", "The whole picture is kept"),
        ("edit a.png --method halton --remask chance fox", "method must be full or markovgen, not halton"),
    ],
)
def test_bad_input_is_one_line_on_standard_error(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments.split(), "--json") == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize(
    ("command", "kind"), [("inpaint", InpaintRequest), ("outpaint", OutpaintRequest), ("edit", EditRequest)]
)
def test_every_field_is_an_option(command: str, kind: type, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    printed = capsys.readouterr().out
    for field in set(kind.model_fields) - {"image", "prompt", "guidance_scale"}:
        assert f"--{field.replace('_', '-')}" in printed
    assert "--guidance " in printed

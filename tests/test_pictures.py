"""PNG files: lossless, never overwritten, with settings that can be read back."""

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from markovgen_app.errors import UserError
from markovgen_app.pictures import Picture, read_settings, settings_text, write_error
from markovgen_app.requests import GenerateRequest


def picture(prompt: str = "a panda", **fields: Any) -> Picture:
    request = GenerateRequest(prompt=prompt, seed=7, **fields)
    image = Image.effect_noise((32, 16), 50).convert("RGB")
    return Picture(image, request.model_dump(), 7, request.method, request.steps, 1.0, 0.5, 24, 24, request.prompt)


def png_with(value: str) -> io.BytesIO:
    info = PngInfo()
    info.add_itxt("markovgen", value)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG", pnginfo=info)
    buffer.seek(0)
    return buffer


def test_a_saved_picture_is_the_picture(tmp_path: Path) -> None:
    made = picture()
    path = made.save(tmp_path / "new" / "folder")
    assert path.name == "a-panda_full_7.png"
    with Image.open(path) as loaded:
        assert loaded.tobytes() == made.image.tobytes()
    assert (made.width, made.height) == (32, 16)
    assert os.listdir(path.parent) == [path.name]


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80).filter(lambda text: text.split()),
    st.integers(1, 256),
    st.floats(0, 30, allow_subnormal=False),
    st.one_of(st.none(), st.integers(1, 100)),
)
def test_settings_come_back(prompt: str, steps: int, guidance: float, top_k: int | None) -> None:
    made = picture(prompt, steps=steps, guidance_scale=guidance, top_k=top_k)
    request = read_settings(io.BytesIO(made.png()))
    assert request == GenerateRequest(**made.settings)


def test_people_can_read_the_settings_too() -> None:
    with Image.open(io.BytesIO(picture("ein Bär 🐻").png())) as loaded:
        assert loaded.info["parameters"].startswith("ein Bär 🐻\n")
        assert "guidance scale: 2.0" in loaded.info["parameters"]


def test_settings_can_be_left_out() -> None:
    with Image.open(io.BytesIO(picture().png(metadata=False))) as loaded:
        assert loaded.info == {}


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    names = [picture().save(tmp_path).name for _ in range(3)]
    assert names == ["a-panda_full_7.png", "a-panda_full_7-2.png", "a-panda_full_7-3.png"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_pictures_are_saved_where_no_file_can_be_linked(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "chmod", refused if number == errno.EPERM else os.chmod)
    paths = [picture().save(tmp_path) for _ in range(2)]
    assert [path.name for path in paths] == ["a-panda_full_7.png", "a-panda_full_7-2.png"]
    assert read_settings(paths[1]).prompt == "a panda" and len(list(tmp_path.iterdir())) == 2


@given(st.text(max_size=300))
def test_any_prompt_gives_a_plain_file_name(prompt: str) -> None:
    name = Picture(Image.new("RGB", (1, 1)), {}, 1, "full", 1, 0, 0, 1, 1, prompt).name
    assert name.isascii() and "/" not in name and not name.startswith((".", "_")) and len(name) < 90


def test_settings_of_other_versions_are_taken_as_far_as_known() -> None:
    fields = {"prompt": "a panda", "steps": 8, "of_the_future": True}
    assert read_settings(png_with(json.dumps(fields))).steps == 8


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (io.BytesIO(b"not a picture"), "is no picture that can be read"),
        (io.BytesIO(picture().png()[:60]), "is no picture that can be read"),
        (io.BytesIO(picture().png(metadata=False)), "holds no MarkovGen settings"),
        (png_with("{"), "are damaged"),
        (png_with("[1, 2]"), "are damaged"),
        (png_with("[" * 50_000), "are damaged"),
        (png_with(json.dumps({"prompt": "p" * 200_000})), "are damaged"),
        (png_with('{"prompt": "a panda", "steps": 0}'), "do not work here: Steps must be"),
        (png_with("{}"), "do not work here: Prompt is missing"),
    ],
)
def test_what_is_no_picture_of_ours_is_said(file: io.BytesIO, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_settings(file)


def test_a_missing_file_and_an_open_image_are_handled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture"):
        read_settings(tmp_path / "nothing.png")
    with Image.open(io.BytesIO(picture().png())) as image:
        assert read_settings(image).seed == 7


def test_folders_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="is a file, not a folder"):
            picture().save(folder)
    assert "disk of out is full" in str(write_error(Path("out"), OSError(errno.ENOSPC, "No space left on device")))
    assert "disk of out is full" in str(write_error(Path("out"), RuntimeError("I/O error: (os error 28)")))
    assert "Permission denied" in str(write_error(Path("out"), OSError(errno.EACCES, "Permission denied")))
    assert "Cannot write to out (odd)" in str(write_error(Path("out"), RuntimeError("odd")))


def test_settings_text_needs_no_prompt() -> None:
    assert settings_text({}).chunks

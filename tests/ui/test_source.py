"""Pictures and masks on their way into the editor and out of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from builders import tiny_tokenizer, tiny_transformer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from markovgen_app.errors import UserError
from markovgen_app.intake import mask_picture
from markovgen_app.picture_requests import EditRequest, InpaintRequest, OutpaintRequest
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.ui.source import (
    MAX_SIDE,
    OPACITY,
    SHOWN_SIDE,
    Source,
    before_picture,
    editor_value,
    from_url,
    mask_file,
    painted,
    pooled,
    take_in,
    touched,
)
from markovgen_app.ui.stage import preview_url


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def source(width: int = 40, height: int = 32) -> Source:
    return take_in(png(picture(width, height)))[0]


def test_small_pictures_keep_every_pixel() -> None:
    taken, notes = take_in(png(picture(40, 32)))
    assert np.array_equal(np.asarray(taken.image), np.asarray(picture(40, 32))) and notes == []
    assert taken.size == taken.given == (40, 32)


def test_large_pictures_are_shrunk_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (4096, 1024), "teal").save(tmp_path / "holiday.jpg", exif=exif)
    taken, notes = take_in(tmp_path / "holiday.jpg")
    assert taken.size == (512, MAX_SIDE) and taken.given == (1024, 4096) and taken.name == "holiday"
    assert notes == [
        "Shrunk from 1,024 × 4,096 to 512 × 2,048 pixels to work on it here; the command line keeps every pixel."
    ]


def test_the_editor_shows_a_large_picture_smaller_and_its_mask_comes_back() -> None:
    large = source(1500, 200)
    assert large.size == (1500, 200) and large.shown == (SHOWN_SIDE, 137)
    assert np.array_equal(np.asarray(large.image), np.asarray(picture(1500, 200)))
    mask = (np.random.default_rng(0).random((200, 1500)) > 0.999).astype(np.float32)
    shown = editor_value(large, mask)
    assert shown["background"].size == shown["layers"][0].size == large.shown  # type: ignore[union-attr]
    back = painted(shown, large)
    assert back.shape == mask.shape and (back >= mask).all() and back.mean() < 3 * mask.mean()
    assert np.array_equal(painted(editor_value(large, back), large), back), "it does not grow from change to change"


def test_pictures_made_here_keep_every_pixel() -> None:
    taken, notes = take_in(png(Image.new("RGB", (MAX_SIDE + 256, 1024), "teal")), longest=None)
    assert taken.size == (MAX_SIDE + 256, 1024) and notes == []


def test_masks_of_the_file_fit_its_shrunk_picture(tmp_path: Path) -> None:
    taken, _ = take_in(png(Image.new("RGB", (4096, 1024), "teal")))
    mask = np.zeros((1024, 4096), np.float32)
    mask[:, :2048] = 1
    mask_picture(mask).save(tmp_path / "mask.png")
    fitted = mask_file(tmp_path / "mask.png", taken)
    assert fitted.shape == (512, 2048) and fitted[:, :1023].all() and not fitted[:, 1025:].any()
    mask_picture(mask[:100]).save(tmp_path / "other.png")
    with pytest.raises(UserError, match="The mask is 4096 × 100 pixels and the picture 4096 × 1024"):
        mask_file(tmp_path / "other.png", taken)


def test_a_mask_that_was_shrunk_on_its_way_is_called_by_its_own_size(tmp_path: Path) -> None:
    mask_picture(np.zeros((768, 1024), np.float32)).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="The mask is 4000 × 3000 pixels and the picture 1024 × 768"):
        mask_file(tmp_path / "mask.png", source(1024, 768), (4000, 3000))
    assert mask_file(tmp_path / "mask.png", take_in(png(picture(1024, 768)), (4000, 3000))[0], (4000, 3000)).any() == 0


@given(st.integers(40, 300), st.integers(32, 200), st.integers(0, 2**32 - 1))
def test_no_stroke_is_too_thin_for_a_smaller_mask(width: int, height: int, seed: int) -> None:
    mask = np.zeros((height, width), np.float32)
    x, y = np.random.default_rng(seed).integers(0, (width, height))
    mask[y, x] = 1
    small = pooled(mask, (40, 32))
    assert small.shape == (32, 40) and small.sum() == 1 and small[y * 32 // height, x * 40 // width] == 1


@given(st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_from_the_editor_as_it_was(seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 2, (32, 40)).astype(np.float32)
    shown = editor_value(source(), mask)
    assert np.array_equal(painted(shown, source()), mask)


def test_what_is_painted_is_the_most_of_all_layers() -> None:
    layers = [Image.new("RGBA", (40, 32)) for _ in range(2)]
    layers[0].paste((0, 0, 0, round(255 * OPACITY)), (0, 0, 10, 32))
    layers[1].paste((255, 255, 255, 255), (5, 0, 20, 32))
    mask = painted({"layers": layers}, source())
    assert mask[:, :20].all() and not mask[:, 20:].any()


@pytest.mark.parametrize("value", [None, {"background": None, "layers": [], "composite": None}])
def test_an_untouched_editor_has_no_mask(value: dict | None) -> None:
    assert not painted(value, source()).any()


def test_a_canvas_of_another_size_is_told() -> None:
    with pytest.raises(UserError, match="The mask is 41 × 32 pixels and the picture 40 × 32"):
        painted({"layers": [Image.new("RGBA", (41, 32))]}, source())


def test_a_picture_sent_as_a_url_arrives() -> None:
    image = picture(40, 32)
    assert np.array_equal(np.asarray(take_in(from_url(preview_url(image)))[0].image), np.asarray(image))
    for broken in ("", "data:image/png;base64,!", "/etc/passwd"):
        with pytest.raises(UserError):
            take_in(from_url(broken))


def test_the_tokens_that_may_change_are_framed() -> None:
    pipeline = MarkovGenPipeline(tiny_transformer(), tiny_tokenizer())  # 4 x 4 tokens of 8 px
    request = InpaintRequest.validated(prompt="an owl", image=picture(32, 32), rectangle=(9, 1, 10, 2))
    shown, says = touched(pipeline, request)
    assert says.startswith("1 of 16 tokens may change.")
    pixels = np.asarray(shown).astype(int)
    assert shown.size == (512, 512) and (pixels[0, 128:256] == 255).all()
    assert pixels[128:].std() < pixels[2:126, 130:254].std(), "the rest is faded"
    keep = mask_picture(np.tile(np.float32([[1, 0]]).repeat(16, axis=1), (32, 1)))
    _, says = touched(pipeline, EditRequest.validated(prompt="an owl", image=picture(32, 32), keep=keep))
    assert says.startswith("8 of 16 tokens may change, if the words speak against what they show.")


def test_before_stands_where_it_stays() -> None:
    request = OutpaintRequest.validated(prompt="an owl", image=picture(40, 32), left=8, bottom=4)
    before = before_picture(request)
    assert before.size == (48, 36)
    assert np.array_equal(np.asarray(before)[:32, 8:], np.asarray(picture(40, 32)))

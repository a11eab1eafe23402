"""Pictures for blind eyes: what is in the file, and what is not."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from markovgen_app.errors import UserError
from markovgen_app.study.pictures import (
    chunks,
    common_size,
    corrupted,
    encoded,
    filled,
    filled_size,
    fitted,
    read_picture,
)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.integers(0, 5000))
def test_a_filled_file_is_the_same_picture_in_so_many_bytes(width: int, height: int, seed: int, extra: int) -> None:
    picture = noise(width, height, seed)
    png = encoded(picture)
    size = filled_size({len(png), len(png) + extra})
    file = filled(png, size)
    assert len(file) == size and size % 1024 == 0
    with Image.open(io.BytesIO(file)) as opened:
        opened.verify()
    assert Image.open(io.BytesIO(file)).convert("RGB").tobytes() == picture.tobytes()
    assert [kind for kind, _ in chunks(file) if kind not in (b"IHDR", b"IDAT", b"fiLl", b"IEND")] == []


def test_the_filling_cannot_be_compressed_away() -> None:
    import zlib

    flat, rough = encoded(Image.new("RGB", (64, 64), "red")), encoded(noise(64, 64))
    size = filled_size({len(flat), len(rough)})
    for png in (flat, rough):
        assert len(zlib.compress(filled(png, size), 9)) > 0.97 * size


def test_a_file_that_is_too_small_for_its_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        filled(encoded(noise(30, 30)), 100)


def test_nothing_but_pixels_is_read(tmp_path: Path) -> None:
    text = PngInfo()
    text.add_itxt("markovgen", '{"method": "full"}')
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif[0x010E] = "made by full"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise(20, 10).save(tmp_path / "a.png", pnginfo=text, exif=exif, icc_profile=profile, dpi=(300, 300))
    picture = read_picture(tmp_path / "a.png")
    assert picture.size == (10, 20) and picture.mode == "RGB"
    assert {kind for kind, _ in chunks(encoded(picture))} == {b"IHDR", b"IDAT", b"IEND"}


def test_colours_come_out_as_a_viewer_shows_them(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255), "transparent is white"
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    palette.save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "palette.png").getpixel((0, 0)) == (10, 200, 30)
    Image.new("I;16", (4, 4), 65535).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("L", (4, 4), 99).save(tmp_path / "grey.png", icc_profile=b"damaged")
    assert read_picture(tmp_path / "grey.png").getpixel((0, 0)) == (99, 99, 99)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\nrubbish", b"<svg/>"])
def test_no_picture_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png is no picture that can be read"):
        read_picture(tmp_path / "a.png")


def test_one_size_for_all() -> None:
    assert common_size({(128, 128), (256, 256)}) == (256, 256)
    assert common_size({(4096, 2048)}) == (2048, 1024)
    assert fitted(noise(128, 128), (256, 256), "It").size == (256, 256)
    with pytest.raises(UserError, match=r"It has 128 × 96 pixels and the study 256 × 256: .* crop them"):
        fitted(noise(128, 96), (256, 256), "It")


@given(st.integers(16, 70), st.integers(16, 70), st.text(max_size=5))
def test_corruption_moves_every_patch_and_is_reproducible(width: int, height: int, seed: str) -> None:
    picture = noise(width, height)
    spoilt = corrupted(picture, seed)
    assert spoilt.size == picture.size
    assert spoilt.tobytes() == corrupted(picture, seed).tobytes()
    kept = sum(a == b for a, b in zip(picture.get_flattened_data(), spoilt.get_flattened_data(), strict=True))
    assert kept < 0.01 * width * height + 2, "noise that stayed in place"


def test_corruption_keeps_the_colours() -> None:
    picture = noise(64, 64)
    assert sorted(corrupted(picture, "a").get_flattened_data()) == sorted(picture.get_flattened_data())

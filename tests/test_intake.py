"""Pictures from outside: every kind of file becomes upright RGB pixels, or one line; memory stays bounded."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from markovgen_app.errors import UserError
from markovgen_app.intake import open_mask, open_picture

GENERATOR = np.random.default_rng(0)
NOISE = GENERATOR.integers(0, 256, (24, 40, 3), dtype=np.uint8)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_files_come_in_bit_for_bit(kind: str) -> None:
    opened = open_picture(file_of(Image.fromarray(NOISE), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert opened.image.mode == "RGB" and opened.notes == ()
    assert np.array_equal(opened.image, NOISE)


def test_files_names_bytes_streams_and_pictures_are_the_same(tmp_path: Path) -> None:
    content = file_of(Image.fromarray(NOISE))
    (tmp_path / "a.png").write_bytes(content)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), io.BytesIO(content), Image.fromarray(NOISE)):
        assert np.array_equal(open_picture(source).image, NOISE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """Flat coloured quarters survive JPEG: what was in which corner is known for every orientation."""
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24], upright[16:, 24:] = (
        (250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)
    )  # fmt: skip
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = file_of(Image.fromarray(np.ascontiguousarray(undo(upright))), "JPEG", exif=exif, quality=95)
    found = np.asarray(open_picture(stored).image, dtype=int)
    assert found.shape == upright.shape
    assert np.abs(found - upright).mean() < 6


def test_alpha_is_flattened_on_white_or_the_colour_asked_for() -> None:
    layer = np.dstack([NOISE, np.full(NOISE.shape[:2], 255, dtype=np.uint8)])
    layer[:, :20, 3] = 0
    content = file_of(Image.fromarray(layer))
    opened = open_picture(content)
    assert (np.asarray(opened.image)[:, :20] == 255).all() and np.array_equal(
        opened.image.crop((20, 0, 40, 24)), NOISE[:, 20:]
    )
    assert opened.notes == ("Its transparent parts are filled with white.",)
    assert open_picture(content, background="#102030").image.getpixel((0, 0)) == (16, 32, 48)
    opaque = open_picture(file_of(Image.fromarray(NOISE).convert("RGBA")))
    assert opaque.notes == () and np.array_equal(opaque.image, NOISE)


def test_palettes_with_a_transparent_colour_are_flattened() -> None:
    picture = Image.new("P", (20, 20), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(1, (10, 0, 20, 20))
    opened = open_picture(file_of(picture, transparency=1)).image
    assert opened.getpixel((3, 3)) == (255, 0, 0) and opened.getpixel((15, 3)) == (255, 255, 255)


def test_cmyk_jpeg_keeps_its_colours() -> None:
    opened = open_picture(file_of(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG")).image
    assert opened.mode == "RGB" and np.abs(np.array(opened.getpixel((9, 9))) - (255, 0, 0)).max() < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    levels = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    opened = np.asarray(open_picture(file_of(Image.fromarray(levels), kind)).image)
    assert np.array_equal(opened[..., 0], np.rint(levels / 257).astype(np.uint8))
    assert (opened == opened[..., :1]).all()


def test_floats_become_eight_bits() -> None:
    levels = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    levels[0, 0] = np.nan
    opened = np.asarray(open_picture(file_of(Image.fromarray(levels), "TIFF")).image)[..., 0]
    assert opened[0, 0] == 0 and opened[-1, -1] == 255 and np.abs(opened / 255 - np.nan_to_num(levels)).max() < 0.003


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_moving_pictures_the_first_frame_is_used_and_that_is_said(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    opened = open_picture(file_of(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(np.array(opened.image.getpixel((5, 5))) - (255, 0, 0)).max() < 8
    word = "pages" if kind == "TIFF" else "frames"
    assert opened.notes == (f"The picture has 3 {word}: the first one is used.",)


def test_twelve_thousand_pixels_squared_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="12,000 × 12,000 pixels: shrink it to 16 megapixels"):
        open_picture(png_header(12_000, 12_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kilobytes"


def test_a_bomb_is_refused_with_any_limit_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16_000_000)
    with pytest.raises(UserError, match="too many pixels: shrink it"):
        open_picture(png_header(12_000, 12_000))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (file_of(Image.new("RGB", (1, 1))), "The picture is 1 × 1 pixels: choose one of at least 16 × 16."),
        (file_of(Image.new("RGB", (16, 200))), "cut it to at most 8 times as long as it is wide"),
        (b"this is no picture at all, whatever its name", "is no picture that can be read: choose a PNG"),
        (b"", "is no picture that can be read"),
        (file_of(Image.fromarray(NOISE))[:1200], "is cut short or damaged"),
        (file_of(Image.fromarray(NOISE), "JPEG")[:900], "is cut short or damaged"),
        (png_header(64, 64), "is cut short or damaged"),
        (b"%PDF-1.4 " + bytes(200), "is no picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture that can be read"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "odd.png").write_bytes(content)
    for source in (content, tmp_path / "odd.png"):
        with pytest.raises(UserError) as caught:
            open_picture(source)
        assert says in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_and_unknown_colours_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        open_picture(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="There is no file"):
        open_picture(tmp_path)
    with pytest.raises(UserError, match="No colour is called 'reddish'"):
        open_picture(file_of(Image.fromarray(NOISE)), background="reddish")


@given(st.binary(max_size=60), st.integers(0, 2000))
def test_any_damage_is_one_line_or_a_picture(noise: bytes, at: int) -> None:
    content = bytearray(file_of(Image.fromarray(NOISE)))
    content[at : at + len(noise)] = noise
    try:
        assert open_picture(bytes(content)).image.mode == "RGB"
    except UserError as error:
        assert len(str(error).splitlines()) == 1


def test_masks_are_white_where_the_picture_may_change() -> None:
    grey = Image.new("L", (20, 20), 0)
    grey.paste(255, (0, 0, 10, 20))
    grey.paste(128, (10, 0, 15, 20))
    mask = open_mask(file_of(grey))
    assert mask.dtype == np.float32 and mask.shape == (20, 20)
    assert (mask[:, :10] == 1).all() and np.allclose(mask[:, 10:15], 128 / 255) and (mask[:, 15:] == 0).all()
    strokes = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    strokes.paste((255, 255, 255, 255), (0, 0, 10, 20))
    assert open_mask(file_of(strokes)).sum() == 200
    assert open_mask(file_of(Image.new("1", (20, 20), 1))).min() == 1

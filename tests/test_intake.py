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
from PIL import Image, ImageCms

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
    return png_file(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), zlib.compress(b"\0" * 99))


def png_file(header: bytes, data: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


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


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours_and_that_is_said(kind: str) -> None:
    opened = open_picture(file_of(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), kind))
    assert opened.image.mode == "RGB" and np.abs(np.array(opened.image.getpixel((9, 9))) - (255, 0, 0)).max() < 4
    assert opened.notes == ("Converted from CMYK to RGB.",)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    levels = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    for source in (file_of(Image.fromarray(levels), kind), Image.fromarray(levels)):
        found = open_picture(source)
        opened = np.asarray(found.image)
        assert np.array_equal(opened[..., 0], np.rint(levels / 257).astype(np.uint8))
        assert (opened == opened[..., :1]).all()
        assert found.notes == ("Reduced from 16 to 8 bits a channel.",)


def test_colours_of_sixteen_bits_become_eight_and_that_is_said() -> None:
    """Pillow unpacks them to eight bits and says nothing."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in NOISE)
    header = struct.pack(">IIBBBBB", 40, 24, 16, 2, 0, 0, 0)
    opened = open_picture(png_file(header, zlib.compress(rows)))
    assert np.array_equal(opened.image, NOISE) and opened.notes == ("Reduced from 16 to 8 bits a channel.",)


def test_floats_become_eight_bits() -> None:
    levels = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    levels[0, 0] = np.nan
    found = open_picture(file_of(Image.fromarray(levels), "TIFF"))
    opened = np.asarray(found.image)[..., 0]
    assert found.notes == ("Reduced from 32 to 8 bits a channel.",)
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


def moving(kind: str) -> bytes:
    """Three frames of noise, or one where the format has no more."""
    frames = [Image.fromarray(np.roll(NOISE, step, axis=0)) for step in range(3)]
    return file_of(frames[0], kind, **({} if kind == "JPEG" else {"save_all": True, "append_images": frames[1:]}))


KINDS = ("PNG", "GIF", "TIFF", "JPEG", "WEBP")


@given(st.sampled_from(KINDS), st.binary(max_size=60), st.integers(0, 9000))
def test_any_damage_is_one_line_or_a_picture(kind: str, noise: bytes, at: int) -> None:
    content = bytearray(moving(kind))
    content[at : at + len(noise)] = noise
    try:
        assert open_picture(bytes(content)).image.mode == "RGB"
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_files_cut_short_are_one_line_or_their_first_frame(kind: str) -> None:
    content = moving(kind)
    whole = open_picture(content).image
    fine = 0
    for end in range(0, len(content), 1 + len(content) // 150):
        try:
            opened = open_picture(content[:end])
        except UserError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert np.array_equal(opened.image, whole)
            fine += 1
    assert (fine > 0) == (kind in ("PNG", "GIF", "TIFF")), "those keep the first frame whole, before the others"


def profile(*colorants: tuple[float, float, float]) -> bytes:
    """sRGB's profile, with other primaries if they are given: XYZ of red, green and blue under D50."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=False):
        at = content.index(name, 128)  # in the table of tags, behind the header: name, place, length
        place = int.from_bytes(content[at + 4 : at + 8], "big") + 8
        content[place : place + 12] = struct.pack(">3i", *(round(value * 65536) for value in values))
    return bytes(content)


SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))


@pytest.mark.parametrize(
    ("kind", "alpha"), [("PNG", False), ("PNG", True), ("TIFF", False), ("TIFF", True), ("JPEG", False)]
)
def test_colours_of_another_profile_are_brought_to_srgb_and_that_is_said(kind: str, alpha: bool) -> None:
    """As the colorants say: linear light times one matrix, then the other one's inverse. Muted, so that all fit."""
    stored = np.zeros((32, 48, 3), dtype=np.uint8)
    stored[:, :16], stored[:, 16:32], stored[:, 32:] = (190, 90, 70), (90, 160, 80), (128, 128, 128)
    picture = Image.fromarray(stored)
    if alpha:
        picture.putalpha(Image.fromarray(np.pad(np.full((32, 32), 255, dtype=np.uint8), ((0, 0), (0, 16)))))
    opened = open_picture(file_of(picture, kind, icc_profile=profile(*DISPLAY_P3)))
    levels = stored / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    light = light @ np.array(DISPLAY_P3) @ np.linalg.inv(np.array(SRGB))
    wanted = 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light.clip(0) ** (1 / 2.4) - 0.055)
    found = np.asarray(opened.image, dtype=float)
    assert np.abs(found - wanted)[4:-4, [4, 5, 24, 25]].max() <= (4 if kind == "JPEG" else 1.5)
    assert found[9, 5, 0] - stored[9, 5, 0] > 8, "redder, as it was meant"
    assert np.abs(found[9, 44] - (255 if alpha else 128)).max() <= 1
    assert opened.notes[0] == "Converted from its own colour profile to sRGB." and len(opened.notes) == 1 + alpha
    assert "icc_profile" not in opened.image.info, "or it would be applied again"


@pytest.mark.parametrize(
    "told",
    [profile(), profile(*SRGB), profile(*DISPLAY_P3)[:300], b"no profile", ImageCms.ImageCmsProfile(
        ImageCms.createProfile("LAB")).tobytes()],
    ids=["sRGB", "much like sRGB", "cut short", "none", "of another kind of picture"],
)  # fmt: skip
def test_a_profile_that_says_nothing_new_changes_no_bit(told: bytes) -> None:
    opened = open_picture(file_of(Image.fromarray(NOISE), icc_profile=told))
    assert np.array_equal(opened.image, NOISE) and opened.notes == ()
    assert "icc_profile" not in opened.image.info


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

"""Pictures from outside: whatever file people bring becomes RGB pixels the right way up, or one line that says why not.

The size is read from the file's header and checked before anything is unpacked, so that memory stays bounded.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageColor, ImageFile, ImageOps

from .colours import in_srgb
from .errors import UserError

MAX_PIXELS = 16_000_000
MIN_SIDE = 16
MAX_ASPECT = 8
MAX_BYTES = 64_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_READABLE = "choose a PNG, JPEG, WebP, GIF, BMP or TIFF file"

Source = str | Path | bytes | IO[bytes] | Image.Image


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture that was taken in.

    Attributes:
        image: RGB, upright.
        notes: lines on what was done to it, most often none.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def open_picture(source: Source, *, background: str = "white") -> Opened:
    """Take in a picture: the first frame of a moving one, turned as its EXIF data say, in sRGB, flattened, 8 bits.

    Args:
        source: file, its bytes, or a picture of Pillow's.
        background: colour that shows through transparent parts, as Pillow names colours.

    Raises:
        UserError: no picture, a damaged one, or one that is too large, too small or too long and thin.
    """
    try:
        colour = ImageColor.getrgb(background)[:3]
    except ValueError:
        raise UserError(f"No colour is called {background!r}: write one as white or #ffcc00.") from None
    image, notes = _unpacked(source)
    _check_shape(*image.size)
    of_print = image.mode == "CMYK"
    image, changed = _with_srgb(image)
    if of_print:
        notes.append("Converted from CMYK to RGB.")
    elif changed:
        notes.append("Converted from its own colour profile to sRGB.")
    image, filled = _to_rgb(image, colour)
    image.info.pop("icc_profile", None)  # it is not true any more, and a file that is written would tell it
    if filled:
        notes.append(f"Its transparent parts are filled with {background}.")
    return Opened(image, tuple(notes))


def open_mask(source: Source) -> np.ndarray:
    """Take in a mask: (H, W) float32 in [0, 1], white (1) where the picture may change; transparent counts as black.

    Raises:
        UserError: no picture, a damaged one, or one that is too large.
    """
    image, _ = _to_rgb(_unpacked(source)[0], (0, 0, 0))
    return np.asarray(image.convert("L"), dtype=np.float32) / 255


def mask_picture(mask: np.ndarray) -> Image.Image:
    """A mask (H, W) in [0, 1] as a grey picture, which `open_mask` reads back."""
    return Image.fromarray(np.rint(mask * 255).astype(np.uint8))


def _unpacked(source: Source) -> tuple[Image.Image, list[str]]:
    """The picture's first frame, upright, in the mode that it was stored in, and notes on that."""
    name = Path(source).name if isinstance(source, (str, Path)) else "The file"
    image = source if isinstance(source, Image.Image) else _opened(source, name)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UserError(f"The picture is {width:,} × {height:,} pixels: {_SMALLER}.")
    bits = _bits(image)
    try:
        image.seek(0)
        image.load()
    except Exception as error:  # damaged files fail in as many ways as there are formats
        raise UserError(f"{name} is cut short or damaged: save or download it again.") from error
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data do not make a picture unreadable
        upright = image.copy()
    notes = []
    frames = _frames(image)
    if frames > 1:
        still = "page" if image.format == "TIFF" else "frame"
        notes.append(f"The picture has {frames} {still}s: the first one is used.")
    if bits > 8:
        notes.append(f"Reduced from {bits} to 8 bits a channel.")
    return upright, notes


def _frames(image: Image.Image) -> int:
    """How many frames a moving picture has, or pages; 1 where the file is damaged behind the first."""
    if image.format not in ("GIF", "PNG", "WEBP", "TIFF"):
        return 1
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # they are counted by reading on, and damaged files fail in as many ways as there are formats
        return 1


def _bits(image: Image.Image) -> int:
    """Bits a channel that a picture is stored with; of a file it is known before it is unpacked."""
    stored = image.mode
    if image.format in ("PNG", "TIFF") and isinstance(image, ImageFile.ImageFile) and image.tile:
        stored = str(image.tile[0].args)  # Pillow's name of how it is stored, such as RGB;16B
    named = re.search(r";(\d+)", stored)
    if named:
        return int(named[1])
    return 32 if image.mode in ("I", "F") else 8


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; False for what can be no file's name, such as a long text."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, ValueError):
        return False


def _opened(source: str | Path | bytes | IO[bytes], name: str) -> Image.Image:
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        if not is_file(path):
            raise UserError(f"There is no file {str(source)[:200]}: check its name and folder.")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{name} has more than {MAX_BYTES // 1_000_000} MB: save it smaller.")
        source = path
    elif isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # sizes are checked below
            return Image.open(source, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise UserError(f"{name} has too many pixels: {_SMALLER}.") from None
    except OSError as error:
        if isinstance(error, PermissionError):
            raise UserError(f"{name} cannot be read: check its permissions.") from None
        raise UserError(f"{name} is no picture that can be read: {_READABLE}.") from None
    except Exception as error:  # damaged files fail in as many ways as there are formats
        raise UserError(f"{name} is no picture that can be read: {_READABLE}.") from error


_SMALLER = f"shrink it to {MAX_PIXELS // 1_000_000} megapixels or fewer, for example 4,000 × 4,000"


def _check_shape(width: int, height: int) -> None:
    given = f"The picture is {width:,} × {height:,} pixels"
    if min(width, height) < MIN_SIDE:
        raise UserError(f"{given}: choose one of at least {MIN_SIDE} × {MIN_SIDE}.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UserError(f"{given}: cut it to at most {MAX_ASPECT} times as long as it is wide.")


def _with_srgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """The picture with sRGB's colours where it brings a profile of its own, and whether that changed any."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode.startswith(("I", "F")):
        return image, False
    if not image.has_transparency_data:
        return in_srgb(image if image.mode == "CMYK" else image.convert("RGB"), profile)
    layer = image.convert("RGBA")
    colours, changed = in_srgb(layer.convert("RGB"), profile)
    colours.putalpha(layer.getchannel("A"))
    return colours, changed


def _to_rgb(image: Image.Image, background: tuple[int, ...]) -> tuple[Image.Image, bool]:
    """The picture in RGB with 8 bits a channel, and whether transparent parts of it were filled."""
    if image.mode.startswith(("I", "F")):
        return _from_deep(image).convert("RGB"), False
    if not image.has_transparency_data:
        return image.convert("RGB"), False
    layer = image.convert("RGBA")
    flat = Image.new("RGBA", layer.size, (*background, 255))
    flat.alpha_composite(layer)
    return flat.convert("RGB"), bool(np.asarray(layer.getchannel("A")).min() < 255)


def _from_deep(image: Image.Image) -> Image.Image:
    """A grey picture of 16 or 32 bits, or of floats, in 8 bits: its format's white, or what it holds, becomes 255."""
    levels = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I"):
        white = 65535.0 if levels.max() < 65536 else levels.max()
    else:
        white = max(1.0, levels.max())
    return Image.fromarray(np.rint(levels.clip(0, white) / white * 255).astype(np.uint8))

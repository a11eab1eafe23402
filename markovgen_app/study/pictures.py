"""Pictures for blind eyes: one size, one encoding, one number of bytes, nothing else in the file.

PNG files of smooth pictures are smaller than those of noisy ones, so their sizes would tell methods apart. Every file
of a study is therefore filled up to the same number of bytes, with a private chunk that viewers skip. The filling looks
random, so that compression on the way cannot undo it.
"""

from __future__ import annotations

import hashlib
import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageOps

from ..colours import in_srgb
from ..errors import UserError

Size = tuple[int, int]

PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FILLING = b"fiLl"  # ancillary, private, safe to copy: https://www.w3.org/TR/png-3/#5Chunk-naming-conventions
_CHUNK_BYTES = 12  # of a chunk without data: length, type, checksum
_GRANULE = 1024
_LARGEST_SIDE = 2048
_LARGEST_PIXELS = 64_000_000
_PATCHES = 8  # a side


def read_picture(path: Path) -> Image.Image:
    """A picture file as upright RGB in sRGB, transparent parts on white, everything else in the file left behind.

    Raises:
        UserError: no picture that can be read.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > _LARGEST_PIXELS:
                raise UserError(f"{path} has {file.width} × {file.height} pixels: make it smaller.")
            picture = ImageOps.exif_transpose(file)
            profile = file.info.get("icc_profile")
            if picture.mode in ("LA", "PA", "RGBA", "P"):
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
            picture = picture.convert("RGB") if picture.mode not in ("RGB", "CMYK") else picture
            return in_srgb(picture, profile)[0]
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is no picture that can be read: replace it ({error}).") from None


def fitted(picture: Image.Image, size: Size, name: str) -> Image.Image:
    """The picture in the study's size.

    Raises:
        UserError: its shape is another one: cropping or filling would give its method away.
    """
    if abs(picture.width * size[1] - picture.height * size[0]) > 0.01 * picture.height * size[0]:
        raise UserError(
            f"{name} has {picture.width} × {picture.height} pixels and the study {size[0]} × {size[1]}: pictures of"
            " all methods must have one shape, so crop them first."
        )
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def common_size(sizes: set[Size]) -> Size:
    """The size that all pictures of a study are brought to: the largest, up to 2048 pixels a side."""
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    scale = min(1.0, _LARGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def corrupted(picture: Image.Image, seed: str) -> Image.Image:
    """The picture cut into 8 × 8 patches that are put back in another order: nobody should prefer it.

    Every patch goes elsewhere.
    """
    width, height = picture.size
    edges = [[round(length * step / _PATCHES) for step in range(_PATCHES + 1)] for length in (width, height)]
    boxes = [
        (edges[0][column], edges[1][row], edges[0][column + 1], edges[1][row + 1])
        for row in range(_PATCHES)
        for column in range(_PATCHES)
    ]
    order = random.Random(seed).sample(range(len(boxes)), len(boxes))
    spoilt = picture.copy()
    for place, source in zip(order, order[1:] + order[:1], strict=True):
        left, top, right, bottom = boxes[place]
        patch = picture.crop(boxes[source]).resize((right - left, bottom - top), Image.Resampling.NEAREST)
        spoilt.paste(patch, (left, top))
    return spoilt


def encoded(picture: Image.Image) -> bytes:
    """The PNG file of an RGB picture: always the same encoder with the same settings, and no metadata."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", picture.size, picture.tobytes()).save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


def filled_size(sizes: set[int]) -> int:
    """The number of bytes to which files of such sizes are filled up: a multiple of 1024 that all of them fit into."""
    return -(-(max(sizes) + _CHUNK_BYTES) // _GRANULE) * _GRANULE


def filled(png: bytes, size: int) -> bytes:
    """The same picture in a file of exactly `size` bytes.

    Raises:
        ValueError: the file is too large for that.
    """
    room = size - len(png) - _CHUNK_BYTES
    if room < 0:
        raise ValueError(f"a file of {len(png)} bytes does not fit into {size}")
    data = _FILLING + hashlib.shake_256(png).digest(room)
    chunk = struct.pack(">I", room) + data + struct.pack(">I", zlib.crc32(data))
    return png.removesuffix(PNG_END) + chunk + PNG_END


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Types and contents of a PNG file's chunks.

    Raises:
        ValueError: this is no PNG file.
    """
    if png[: len(_SIGNATURE)] != _SIGNATURE:
        raise ValueError("no PNG file")
    start = len(_SIGNATURE)
    while start < len(png):
        length = int.from_bytes(png[start : start + 4], "big")
        yield png[start + 4 : start + 8], png[start + 8 : start + 8 + length]
        start += length + _CHUNK_BYTES

"""A picture from outside and the mask painted on it, as the editor holds them: pure functions of pictures and arrays.

The editor's value is a background and layers of RGBA. What is painted counts by its alpha alone. The picture itself is
kept beside the editor, so that no canvas ever comes between it and its pixels. A large one is shown smaller there, and
what is painted on it is spread over all that it stands for.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gradio.components.image_editor import EditorValue
from PIL import Image, ImageDraw

from markovgen_app.decoding import masks
from markovgen_app.errors import UserError
from markovgen_app.intake import open_mask, open_picture
from markovgen_app.patches import PREVIEW_SIDE, Patch, patches
from markovgen_app.picture_requests import EditRequest, OutpaintRequest, PictureRequest
from markovgen_app.pipeline import MarkovGenPipeline

MAX_SIDE = 2048
"""Longest side of pictures that people bring: larger ones are shrunk on their way here. Those made here stay."""

SHOWN_SIDE = 1024
"""Longest side of what the editor shows, which phones would not survive larger."""

OPACITY = 0.6
TINTS = ((190, 24, 214), (0, 190, 200))
BRUSHES = tuple(f"rgba({red}, {green}, {blue}, {OPACITY})" for red, green, blue in TINTS)
"""What brushes paint with, to be seen on any picture: the colour means nothing, `OPACITY` marks a pixel in full."""


@dataclass(frozen=True)
class Source:
    """A picture to change.

    Attributes:
        png: its file, RGB.
        size: width and height in pixels.
        given: the same of the file that it was read from.
        name: of that file, without ending.
    """

    png: bytes
    size: tuple[int, int]
    given: tuple[int, int]
    name: str = "picture"

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height in the editor."""
        return _within(self.size, SHOWN_SIDE)

    @property
    def image(self) -> Image.Image:
        return Image.open(io.BytesIO(self.png))


def take_in(
    file: str | Path | bytes, given: tuple[int, int] | None = None, longest: int | None = MAX_SIDE
) -> tuple[Source, list[str]]:
    """A picture from a file, and lines on what was done to it.

    Args:
        given: its size before it was shrunk on its way here, if it was.
        longest: pixels of its longer side; a larger picture is shrunk. None keeps every one.

    Raises:
        UserError: no picture, a damaged one, or one that is too large, too small or too long and thin.
    """
    opened = open_picture(file)
    image, notes = opened.image, list(opened.notes)
    given = given or image.size
    if longest and max(image.size) > longest:
        image = image.resize(_within(image.size, longest), Image.Resampling.LANCZOS)
    if image.size != given:
        notes.append(
            f"Shrunk from {given[0]:,} × {given[1]:,} to {image.width:,} × {image.height:,} pixels to work on it here;"
            " the command line keeps every pixel."
        )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    name = "picture" if isinstance(file, bytes) else Path(file).stem[:60]
    return Source(buffer.getvalue(), image.size, given, name), notes


def _within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """A size, shrunk in proportion where its longer side is above `longest`."""
    scale = min(1, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def from_url(url: str) -> bytes:
    """The file in a data URL.

    Raises:
        UserError: it holds none.
    """
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except (binascii.Error, ValueError, AttributeError):
        raise UserError("This picture did not arrive: send it again.") from None


def mask_file(file: str | Path, source: Source, given: tuple[int, int] | None = None) -> np.ndarray:
    """A mask from a file, of the picture's size now or before it was shrunk: (H, W) in [0, 1].

    Args:
        given: its size before it was shrunk on its way here, if it was.

    Raises:
        UserError: no picture that can be read, or one of another size.
    """
    mask = open_mask(file)
    width, height = given or mask.shape[::-1]
    if (width, height) not in (source.given, source.size):
        wide, high = source.given
        raise UserError(f"The mask is {width} × {height} pixels and the picture {wide} × {high}: give one of its size.")
    return pooled(mask, source.size)


def pooled(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) at another width and height: as white as the whitest under each pixel, lest thin strokes vanish."""
    for axis, length in enumerate(size[::-1]):
        starts = -(-np.arange(length) * mask.shape[axis] // length)  # first pixel under each of the new ones
        mask = np.maximum.reduceat(mask, starts, axis=axis)
    return mask


def spread(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) at a larger width and height, from which `pooled` makes the same mask again."""
    for axis, length in enumerate(size[::-1]):
        mask = mask.take(np.arange(length) * mask.shape[axis] // length, axis=axis)
    return mask


def painted(value: Mapping[str, Any] | None, source: Source) -> np.ndarray:
    """The mask in the editor: (H, W) float32 in [0, 1] of the whole picture, all 0 where nothing is painted.

    Raises:
        UserError: it is not of the size that the editor shows the picture in.
    """
    mask = np.zeros(source.shown[::-1], dtype=np.float32)
    for layer in value["layers"] if value else []:
        alpha = np.asarray(layer.getchannel("A"), dtype=np.float32) / (255 * OPACITY)
        masks.check_size(alpha, *source.shown)
        mask = np.maximum(mask, alpha.clip(0, 1))
    return spread(mask, source.size)


def editor_value(source: Source, mask: np.ndarray | None = None) -> EditorValue:
    """What the editor is to show: the picture, and a mask (H, W) of it, empty where there is none.

    The editor forgets what it could undo when a layer comes. Without one, undoing would take the picture away.
    """
    size = source.shown
    alpha = np.zeros(size[::-1]) if mask is None else np.rint(pooled(mask, size) * 255 * OPACITY)
    tint = Image.new("RGB", size, TINTS[0])
    layer: Any = Image.merge("RGBA", [*tint.split(), Image.fromarray(alpha.astype(np.uint8))])
    image = source.image if size == source.size else source.image.resize(size, Image.Resampling.LANCZOS)
    return {"background": image, "layers": [layer], "composite": None}


def before_picture(request: PictureRequest) -> Image.Image:
    """The picture as it was, for the other side of the divider, at `SHOWN_SIDE` at most; on its canvas if it grows."""
    canvas = request.image.image
    if isinstance(request, OutpaintRequest):
        canvas = Image.new("RGB", request.padding.size(*canvas.size), (128, 124, 120))
        canvas.paste(request.image.image, (request.padding.left, request.padding.top))
    size = _within(canvas.size, SHOWN_SIDE)
    return canvas if size == canvas.size else canvas.resize(size, Image.Resampling.LANCZOS)


def touched(pipeline: MarkovGenPipeline, request: PictureRequest) -> tuple[Image.Image, str]:
    """The picture with every token framed that a request may change, all others faded, and that in words."""
    patch = next(patches(request, pipeline.size, pipeline.grid))
    assert patch.geometry is not None, "a picture that is there has a window"
    is_open = patch.open_tokens(pipeline.size, pipeline.grid).reshape(pipeline.grid)  # (n,) -> (rows, columns)
    count = int(is_open.sum())
    says = f"{count} of {is_open.size} tokens may change"
    if isinstance(request, EditRequest) and request.remask == "words":
        says = f"{says}, if the words speak against what they show"
    if not request.keep_outside:
        return _framed(patch, is_open), f"{says}; the others are drawn again from the same tokens."
    return _framed(patch, is_open), f"{says}. Pixels outside the mask and its feather stay as they are, to the bit."


def _framed(patch: Patch, is_open: np.ndarray) -> Image.Image:
    """The picture of a patch, enlarged, with its open tokens (rows, columns) framed and all the rest faded."""
    assert patch.geometry is not None, "a picture that is there has a window"
    geometry, picture = patch.geometry, patch.pictures[0]
    scale = PREVIEW_SIDE / max(picture.size)
    shown = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    faded = Image.blend(shown, Image.new("RGB", shown.size, (132, 126, 122)), 0.72)
    draw = ImageDraw.Draw(faded)
    across, down = geometry.size[0] / is_open.shape[1], geometry.size[1] / is_open.shape[0]
    for row, column in np.argwhere(is_open):
        left, top = geometry.to_picture(column * across, row * down)
        right, bottom = geometry.to_picture((column + 1) * across, (row + 1) * down)
        box = [round(value * scale) for value in (left, top, right, bottom)]
        box = [max(0, box[0]), max(0, box[1]), min(shown.width, box[2]), min(shown.height, box[3])]
        if box[0] < box[2] and box[1] < box[3]:
            faded.paste(shown.crop(tuple(box)), (box[0], box[1]))  # type: ignore[arg-type]
            draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline="white")
    return faded

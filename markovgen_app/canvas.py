"""Where a picture of any size meets a model of one size: windows onto the picture, and canvases that reach beyond it.

    input pixels  --window: letterbox or crop-->  model pixels  --factor-->  tokens

A window is a rectangle of the model's proportions. "letterbox" sees all of the picture and a mirrored margin where the
proportions differ; "crop" sees the largest rectangle inside the picture, so that less is lost to scaling. What the
model made goes back through the same window, so that the picture keeps its own size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from PIL import Image

from .decoding.masks import any_coverage
from .errors import UserError
from .intake import MAX_ASPECT, MAX_PIXELS
from .requests import Anchor, Fit

Box = tuple[int, int, int, int]  # left, top, right, bottom

MAX_WINDOWS = 32
_CONTEXT = 0.5  # share of a window that should be known already


@dataclass(frozen=True)
class Geometry:
    """A window of a picture, at the size of a model.

    Attributes:
        picture: width and height of the picture in pixels.
        window: left, top, right, bottom in pixels of the picture; may reach beyond it.
        size: width and height that the model works at, in pixels.
        grid: rows and columns of tokens.
    """

    picture: tuple[int, int]
    window: Box
    size: tuple[int, int]
    grid: tuple[int, int]

    def at(self, size: tuple[int, int], grid: tuple[int, int]) -> Geometry:
        """The same window for another model."""
        return replace(self, size=size, grid=grid)

    @property
    def _sides(self) -> tuple[int, int]:
        left, top, right, bottom = self.window
        return right - left, bottom - top

    @property
    def inside(self) -> Box:
        """The part of the picture that the window shows."""
        left, top, right, bottom = self.window
        return max(0, left), max(0, top), min(self.picture[0], right), min(self.picture[1], bottom)

    def to_model(self, x: float, y: float) -> tuple[float, float]:
        """A point of the picture, in pixels of the model."""
        width, height = self._sides
        return (x - self.window[0]) * self.size[0] / width, (y - self.window[1]) * self.size[1] / height

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """A point of the model's picture, in pixels of the picture."""
        width, height = self._sides
        return self.window[0] + x * width / self.size[0], self.window[1] + y * height / self.size[1]

    def cells(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """First and last + 1 pixel of the picture in every row and column of tokens; neighbours may share one."""
        (width, height), (rows, columns) = self._sides, self.grid
        left, top = self.window[:2]
        return (
            [(top + row * height // rows, top - (-(row + 1) * height // rows)) for row in range(rows)],
            [
                (left + column * width // columns, left - (-(column + 1) * width // columns))
                for column in range(columns)
            ],
        )

    def tokens(self, mask: np.ndarray) -> np.ndarray:
        """The tokens (rows, columns) that a mask (H, W) of the picture touches, be it with a single pixel."""
        return any_coverage(mask, *self.cells())

    def view(self, picture: Image.Image) -> Image.Image:
        """What the model sees: the window, mirrored where it leaves the picture, at the model's size."""
        left, top, right, bottom = self.window
        x0, y0, x1, y1 = self.inside
        shown = np.asarray(picture)[y0:y1, x0:x1]
        margins = ((y0 - top, bottom - y1), (x0 - left, right - x1), (0, 0))
        return _scaled(Image.fromarray(np.pad(shown, margins, mode="symmetric")), self.size)

    def place(self, made: Image.Image, picture: Image.Image) -> Image.Image:
        """The picture with what the model made in its window, at the picture's own size."""
        left, top = self.window[:2]
        x0, y0, x1, y1 = self.inside
        full = _scaled(made, self._sides)
        placed = picture.copy()
        placed.paste(full.crop((x0 - left, y0 - top, x1 - left, y1 - top)), (x0, y0))
        return placed


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS)


def choose_window(
    picture: tuple[int, int], size: tuple[int, int], grid: tuple[int, int], fit: Fit, focus: Box | None = None
) -> Geometry:
    """The window to work in.

    Args:
        picture: width and height in pixels.
        size, grid: of the model, see `Geometry`.
        fit: "letterbox" or "crop".
        focus: the part that must be in the window, and near its middle; the picture's middle if not given.

    Raises:
        UserError: the part does not fit into a crop.
    """
    width, height = picture
    across, down = size
    if fit == "letterbox":
        high = max(height, -(-width * down // across))
        wide = max(width, -(-high * across // down))
    else:
        high = min(height, width * down // across)
        wide = min(width, high * across // down)
    x0, y0, x1, y1 = focus or (0, 0, width, height)
    if fit == "crop" and focus and (x1 - x0 > wide or y1 - y0 > high):
        raise UserError(
            f"The part to change is {x1 - x0} × {y1 - y0} pixels and a crop shows {wide} × {high}: choose letterbox."
        )
    left = _clamped((x0 + x1 - wide) // 2, width - wide)
    top = _clamped((y0 + y1 - high) // 2, height - high)
    return Geometry(picture, (left, top, left + wide, top + high), size, grid)


def _clamped(start: int, room: int) -> int:
    """A start from 0 to `room`; in the middle where there is less than no room."""
    return room // 2 if room < 0 else min(max(start, 0), room)


@dataclass(frozen=True)
class Padding:
    """Pixels that a picture's canvas grows by on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the canvas around a picture of this size."""
        return self.left + width + self.right, self.top + height + self.bottom

    def check(self, width: int, height: int) -> None:
        """Make sure that a picture of this size can grow so.

        Raises:
            UserError: by nothing, by less than nothing, or by too much.
        """
        for side, pixels in self.__dict__.items():
            limit, name = (width, "width") if side in ("left", "right") else (height, "height")
            if not 0 <= pixels <= limit:
                raise UserError(
                    f"{side.capitalize()} must be between 0 and the picture's own {name}, {limit} pixels, not {pixels}:"
                    " add more in several goes."
                )
        wide, high = self.size(width, height)
        if (wide, high) == (width, height):
            raise UserError("There is nothing to add: give pixels for at least one side, or another aspect.")
        if wide * high > MAX_PIXELS:
            raise UserError(
                f"{wide:,} × {high:,} pixels are too many: stay within {MAX_PIXELS // 1_000_000} megapixels."
            )
        if max(wide, high) > MAX_ASPECT * min(wide, high):
            raise UserError(f"{wide:,} × {high:,} pixels are too long and thin: stay within {MAX_ASPECT} to 1.")


def padding_to_aspect(width: int, height: int, aspect: str, anchor: Anchor = "centre") -> Padding:
    """The least padding that brings a picture to an aspect.

    Args:
        aspect: "16:9", "3:2", …, or a number such as "1.5".
        anchor: where the picture stays on its larger canvas.

    Raises:
        UserError: no such aspect or anchor, or the picture has that aspect already.
    """
    ratio = _ratio(aspect)
    if anchor not in get_args(Anchor):
        raise UserError(f"No anchor is called {anchor!r}: choose one of {', '.join(get_args(Anchor))}.")
    wide, high = max(0, round(height * ratio) - width), 0
    if not wide:
        high = max(0, round(width / ratio) - height)
    if not wide and not high:
        raise UserError(f"The picture, {width} × {height} pixels, is {aspect} already: choose another aspect.")
    before = {"left": 0, "right": wide}.get(anchor.split()[-1], wide // 2)
    over = {"top": 0, "bottom": high}.get(anchor.split()[0], high // 2)
    return Padding(before, over, wide - before, high - over)


def _ratio(aspect: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:[:/x×]\s*(\d+(?:\.\d+)?))?\s*", aspect)
    if not found or not float(found[1]) or not float(found[2] or 1):
        raise UserError(f"{aspect!r} is no aspect: write it as 16:9 or 1.5.")
    return float(found[1]) / float(found[2] or 1)


def padded(image: Image.Image, padding: Padding) -> tuple[Image.Image, np.ndarray]:
    """A picture on its larger canvas, mirrored into the new part, and the mask (H, W) of that part."""
    width, height = padding.size(*image.size)
    margins = ((padding.top, padding.bottom), (padding.left, padding.right))
    canvas = np.pad(np.asarray(image), (*margins, (0, 0)), mode="symmetric")
    mask = np.ones((height, width), dtype=np.float32)
    mask[padding.top : height - padding.bottom, padding.left : width - padding.right] = 0
    return Image.fromarray(canvas), mask


def windows_for(mask: np.ndarray, size: tuple[int, int], grid: tuple[int, int], side: int) -> list[Geometry]:
    """Windows that together see all that is masked, in the order to work through them.

    Of the windows that know at least half of what they see, the one with the most to do comes next; where there is
    none, the one that knows most. So every window continues what is there, or what an earlier one made.

    Args:
        mask: (H, W), 1 where the canvas is empty.
        size, grid: of the model, see `Geometry`.
        side: shorter side of a window in pixels of the canvas.

    Raises:
        UserError: too many windows.
    """
    empty = mask > 0
    height, width = empty.shape
    scale = min(side / min(size), width / size[0], height / size[1])
    wide, high = round(scale * size[0]), round(scale * size[1])
    places = [(left, top) for top in _starts(height, high) for left in _starts(width, wide)]
    found: list[Geometry] = []
    while empty.any():
        todo = {place: count for place, count in zip(places, _counts(empty, places, wide, high), strict=True) if count}
        with_context = [place for place, count in todo.items() if count <= (1 - _CONTEXT) * wide * high]
        left, top = max(with_context, key=todo.__getitem__) if with_context else min(todo, key=todo.__getitem__)
        empty[top : top + high, left : left + wide] = False
        found.append(Geometry((width, height), (left, top, left + wide, top + high), size, grid))
        if len(found) > MAX_WINDOWS:
            raise UserError("That is too much to add in one go: choose letterbox, or add less.")
    return found


def _counts(empty: np.ndarray, places: list[tuple[int, int]], wide: int, high: int) -> list[int]:
    """Empty pixels in the window at each place, from sums over everything above and to the left."""
    sums = np.pad(empty.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))  # (H + 1, W + 1)
    return [
        int(sums[top + high, left + wide] - sums[top, left + wide] - sums[top + high, left] + sums[top, left])
        for left, top in places
    ]


def _starts(length: int, window: int) -> list[int]:
    """Where windows may start along a side: half a window apart from both ends."""
    room, step = length - window, max(1, window // 2)
    return sorted({*range(0, room + 1, step), *range(room, -1, -step)})

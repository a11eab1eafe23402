"""Where a picture of any size meets a model of one size: windows onto the picture, and canvases that reach beyond it.

    pixels of the picture  --window: letterbox or crop-->  pixels of the model  --factor-->  tokens

"letterbox" shows all of the picture, mirrored into the margins that its proportions leave; "crop" shows the largest
rectangle of the model's proportions, so that less is lost to scaling. What the model made goes back the same way, so
that the picture keeps its own size.
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
from .picture_requests import Anchor, Fit

Box = tuple[int, int, int, int]  # left, top, right, bottom

MAX_WINDOWS = 32
_CONTEXT = 0.5  # share of a window that should be known already


@dataclass(frozen=True)
class Geometry:
    """A window of a picture, and where a model sees it.

    Attributes:
        picture: width and height of the picture in pixels.
        window: the part of the picture that the model sees, in pixels of the picture.
        place: where in the model's picture it is, in pixels of the model; around it, it is mirrored.
        size: width and height of the model's picture.
        grid: rows and columns of tokens.
    """

    picture: tuple[int, int]
    window: Box
    place: Box
    size: tuple[int, int]
    grid: tuple[int, int]

    def at(self, size: tuple[int, int], grid: tuple[int, int]) -> Geometry:
        """The same window for a model of another size."""
        x0, y0, x1, y1 = self.place
        across, down = size[0] / self.size[0], size[1] / self.size[1]
        place = (round(x0 * across), round(y0 * down), round(x1 * across), round(y1 * down))
        return replace(self, place=place, size=size, grid=grid)

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """A point of the model's picture, in pixels of the picture."""
        x0, y0, x1, y1 = self.place
        left, top, right, bottom = self.window
        return left + (x - x0) * (right - left) / (x1 - x0), top + (y - y0) * (bottom - top) / (y1 - y0)

    def tokens(self, mask: np.ndarray) -> np.ndarray:
        """The tokens (rows, columns) that a mask (H, W) of the picture touches, be it with a single pixel."""
        left, top, right, bottom = self.window
        x0, y0, x1, y1 = self.place
        touched = any_coverage(mask, _shares(top, bottom, y1 - y0), _shares(left, right, x1 - x0))
        touched = np.pad(touched, self._margins(), mode="symmetric")  # (model's height, model's width)
        rows, columns = self.grid
        cells = touched.reshape(rows, self.size[1] // rows, columns, self.size[0] // columns)
        return np.asarray(cells.any(axis=(1, 3)))

    def pixels(self, tokens: np.ndarray) -> np.ndarray:
        """The mask (H, W) of the picture's pixels that tokens (rows, columns) bool cover, be it in part."""
        down, across = self._covered(1, self.grid[0]), self._covered(0, self.grid[1])
        count = down @ tokens.astype(np.float32) @ across.T  # (H, rows) · (rows, columns) · (columns, W) -> (H, W)
        return (count > 0).astype(np.float32)

    def _covered(self, axis: int, tokens: int) -> np.ndarray:
        """Which pixels which tokens cover along an axis, 0 across and 1 down: (pixels, tokens) of 0 and 1."""
        first, last = self.window[axis], self.window[axis + 2]
        start, stop = self.place[axis], self.place[axis + 2]
        edges = start + (np.arange(first, last + 1) - first) * (stop - start) / (
            last - first
        )  # of pixels, in the model
        cells = edges * tokens / self.size[axis]
        numbers = np.arange(tokens)
        covered = np.zeros((self.picture[axis], tokens), np.float32)
        covered[first:last] = (cells[:-1, None] < numbers + 1) & (cells[1:, None] > numbers)
        return covered

    def view(self, picture: Image.Image) -> Image.Image:
        """What the model sees of a picture."""
        x0, y0, x1, y1 = self.place
        shown = _scaled(picture.crop(self.window), (x1 - x0, y1 - y0))
        return Image.fromarray(np.pad(np.asarray(shown), (*self._margins(), (0, 0)), mode="symmetric"))

    def put_back(self, made: Image.Image, picture: Image.Image) -> Image.Image:
        """The picture with what the model made in its window."""
        left, top, right, bottom = self.window
        changed = picture.copy()
        changed.paste(_scaled(made.crop(self.place), (right - left, bottom - top)), (left, top))
        return changed

    def _margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        x0, y0, x1, y1 = self.place
        return (y0, self.size[1] - y1), (x0, self.size[0] - x1)


def _shares(start: int, stop: int, parts: int) -> list[tuple[int, int]]:
    """First and last + 1 pixel under each of `parts` equal parts of a side; neighbours may share one."""
    length = stop - start
    return [(start + part * length // parts, start - (-(part + 1) * length // parts)) for part in range(parts)]


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


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
        scale = min(across / width, down / height)
        wide, high = max(1, round(width * scale)), max(1, round(height * scale))
        x0, y0 = (across - wide) // 2, (down - high) // 2
        return Geometry(picture, (0, 0, width, height), (x0, y0, x0 + wide, y0 + high), size, grid)
    if width * down <= height * across:
        wide, high = width, max(1, round(width * down / across))
    else:
        wide, high = max(1, round(height * across / down)), height
    x0, y0, x1, y1 = focus or (0, 0, width, height)
    if focus and (x1 - x0 > wide or y1 - y0 > high):
        raise UserError(
            f"The part to change is {x1 - x0} × {y1 - y0} pixels and a crop shows {wide} × {high}: choose letterbox."
        )
    left = min(max((x0 + x1 - wide) // 2, 0), width - wide)
    top = min(max((y0 + y1 - high) // 2, 0), height - high)
    return Geometry(picture, (left, top, left + wide, top + high), (0, 0, *size), size, grid)


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
        found.append(Geometry((width, height), (left, top, left + wide, top + high), (0, 0, *size), size, grid))
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

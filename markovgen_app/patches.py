"""Where the decoding loop works: on all of a new picture, or on a window of one that is there.

A request leads to one patch, or to several where one builds on what another made: outpainting moves window by window.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from .canvas import Box, Geometry, choose_window, padded, windows_for
from .decoding import masks
from .errors import UserError
from .picture_requests import EditRequest, InpaintRequest, OutpaintRequest, PictureRequest
from .requests import DecodingRequest

PREVIEW_SIDE = 512


@dataclass(frozen=True, eq=False)
class Patch:
    """One pass of the loop.

    Attributes:
        pictures: one a candidate, as they are before; none where new pictures are made.
        geometry: the window of them that the model sees; None where new pictures are made.
        marked: (H, W) in [0, 1], what may change; None for all that the window shows.
        shown: (H, W) in [0, 1], how much of what is made is put into the picture; None for all of the window.
        share: of the tokens that may change, how many are made anew.
        tokens: (rows, columns) bool of the base, which may change of those that are marked; None for all.
        number, total: which of how many passes this is, from 1.
    """

    pictures: Sequence[Image.Image] = ()
    geometry: Geometry | None = None
    marked: np.ndarray | None = None
    shown: np.ndarray | None = None
    share: float = 1.0
    number: int = 1
    total: int = 1
    tokens: np.ndarray | None = None

    def open_tokens(self, size: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
        """Tokens that may change, (n,) bool, for a model of this size and grid."""
        is_open = np.ones(grid, dtype=bool)
        if self.geometry is not None and self.marked is not None:
            is_open = self.geometry.at(size, grid).tokens(self.marked)
        if self.tokens is not None:
            above = (np.arange(side) * own // side for side, own in zip(grid, self.tokens.shape, strict=True))
            is_open = is_open & self.tokens[np.ix_(*above)]
        return is_open.flatten()

    def narrowed(self, tokens: np.ndarray, feather: int | None) -> Patch:
        """The same, of whose tokens some alone may change.

        Args:
            tokens: (rows, columns) bool, of the base.
            feather: pixels around them over which new and old picture are blended; None leaves what is shown as it is.
        """
        if feather is None or self.geometry is None:
            return replace(self, tokens=tokens)
        shown = masks.feather(self.geometry.pixels(tokens), feather)
        return replace(self, tokens=tokens, shown=shown if self.shown is None else np.minimum(shown, self.shown))

    def views(self, size: tuple[int, int]) -> list[Image.Image]:
        """What the model sees of each picture, at its size."""
        assert self.geometry is not None, "new pictures have nothing to see yet"
        geometry = self.geometry.at(size, self.geometry.grid)
        return [geometry.view(picture) for picture in self.pictures]

    def finished(self, made: Sequence[Image.Image], rows: Sequence[int] | None = None) -> list[Image.Image]:
        """The pictures with what was made for them put in; `rows` says for which of them, if not one for each."""
        if self.geometry is None:
            return list(made)
        pictures = [self.pictures[row] for row in (range(len(self.pictures)) if rows is None else rows)]
        return [self._with(picture, image) for picture, image in zip(pictures, made, strict=True)]

    def _with(self, picture: Image.Image, made: Image.Image) -> Image.Image:
        assert self.geometry is not None
        geometry = self.geometry.at(made.size, self.geometry.grid)
        if self.shown is None:
            return geometry.put_back(made, picture)
        known = ~self.open_tokens(geometry.size, geometry.grid).reshape(geometry.grid)  # (n,) -> (rows, columns)
        factor = made.height // geometry.grid[0]
        known = known.repeat(factor, axis=0).repeat(factor, axis=1)  # (rows, columns) -> (H, W)
        level = masks.evened(np.asarray(geometry.view(picture)), np.asarray(made), known, factor)
        changed = geometry.put_back(Image.fromarray(level), picture)
        return Image.fromarray(masks.paste_back(np.asarray(picture), np.asarray(changed), self.shown))

    @cached_property
    def preview(self) -> Patch:
        """The same at a size that is quick to look at: no side above `PREVIEW_SIDE` pixels."""
        if self.geometry is None or max(self.geometry.picture) <= PREVIEW_SIDE:
            return self
        width, height = self.geometry.picture
        scale = PREVIEW_SIDE / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        across, down = size[0] / width, size[1] / height
        left, top, right, bottom = self.geometry.window
        window = (round(left * across), round(top * down), round(right * across), round(bottom * down))
        shown = self.shown
        if shown is not None:
            shown = np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.BOX)).clip(0, 1)
        small: dict[int, Image.Image] = {}  # candidates of a first pass share one picture
        for picture in self.pictures:
            small.setdefault(id(picture), picture.resize(size, Image.Resampling.BOX))
        pictures = [small[id(picture)] for picture in self.pictures]
        return replace(
            self, pictures=pictures, geometry=replace(self.geometry, picture=size, window=window), shown=shown
        )


def working_side(request: PictureRequest) -> int:
    """The longer side of the windows that a request works in, in pixels of its picture."""
    if request.fit == "crop":
        return min(request.size)
    return max(request.padding.size(*request.size) if isinstance(request, OutpaintRequest) else request.size)


Passes = Generator[Patch, list[Image.Image], list[Image.Image]]


def patches(request: DecodingRequest, size: tuple[int, int], grid: tuple[int, int]) -> Passes:
    """The passes that a request leads to, for a model of this size and grid.

    Send each pass' finished pictures back in; the generator returns the last ones.

    Raises:
        UserError: what is to change does not fit into the window that was asked for, or lies outside of it.
    """
    if isinstance(request, InpaintRequest):
        return (yield _inpainting(request, size, grid))
    if isinstance(request, OutpaintRequest):
        return (yield from _outpainting(request, size, grid))
    if isinstance(request, EditRequest):
        return (yield _editing(request, size, grid))
    return (yield Patch())


def pass_count(request: DecodingRequest, size: tuple[int, int], grid: tuple[int, int]) -> int:
    """How many passes `patches` leads to.

    Raises:
        UserError: too many windows.
    """
    if not isinstance(request, OutpaintRequest):
        return 1
    return len(_windows(request, padded(request.image.image, request.padding)[1], size, grid))


def _candidates(request: PictureRequest, picture: Image.Image) -> list[Image.Image]:
    return [picture] * request.count


def _shown(request: PictureRequest, marked: np.ndarray) -> np.ndarray | None:
    return masks.feather(marked, request.feather) if request.keep_outside else None


def _inpainting(request: InpaintRequest, size: tuple[int, int], grid: tuple[int, int]) -> Patch:
    focus = masks.bounds(request.marked)
    geometry = choose_window(request.size, size, grid, request.fit, focus)
    return Patch(
        _candidates(request, request.image.image),
        geometry,
        request.marked,
        _shown(request, request.marked),
        request.strength,
    )


def _outpainting(request: OutpaintRequest, size: tuple[int, int], grid: tuple[int, int]) -> Passes:
    canvas, empty = padded(request.image.image, request.padding)
    windows = _windows(request, empty, size, grid)
    pictures = _candidates(request, canvas)
    for number, geometry in enumerate(windows, 1):
        left, top, right, bottom = geometry.window
        marked = np.zeros_like(empty)
        marked[top:bottom, left:right] = empty[top:bottom, left:right]
        empty[top:bottom, left:right] = 0
        pictures = yield Patch(pictures, geometry, marked, _shown(request, marked), number=number, total=len(windows))
    return pictures


def _windows(
    request: OutpaintRequest, empty: np.ndarray, size: tuple[int, int], grid: tuple[int, int]
) -> list[Geometry]:
    """The windows that an outpainting works through, in order; `empty` is the mask (H, W) of the canvas' new part."""
    if request.fit == "crop":
        return windows_for(empty, size, grid, min(request.size))
    height, width = empty.shape
    return [choose_window((width, height), size, grid, "letterbox")]


def _editing(request: EditRequest, size: tuple[int, int], grid: tuple[int, int]) -> Patch:
    """A crop lies over what may change if it can hold that, else in the picture's middle."""
    geometry = choose_window(request.size, size, grid, request.fit)
    marked = request.marked
    focus = None if marked is None else masks.bounds(marked)
    if focus is not None and _fits(focus, geometry.window):
        geometry = choose_window(request.size, size, grid, request.fit, focus)
    if request.keep_outside and geometry.window != (0, 0, *request.size):
        within = _inset(geometry.window, request.size, request.feather)
        marked = within if marked is None else np.minimum(marked, within)
    shown = None if marked is None else _shown(request, marked)
    patch = Patch(_candidates(request, request.image.image), geometry, marked, shown)
    if not patch.open_tokens(size, grid).any():
        left, top, right, bottom = geometry.window
        raise UserError(
            f"All of the crop, {left}, {top} to {right}, {bottom}, is kept, so nothing could change: choose letterbox,"
            " or keep less of the picture."
        )
    return patch


def _fits(box: Box, window: Box) -> bool:
    """Whether a window of this size, wherever it lies, can hold a box."""
    return all(box[axis + 2] - box[axis] <= window[axis + 2] - window[axis] for axis in (0, 1))


def _inset(window: Box, picture: tuple[int, int], margin: int) -> np.ndarray:
    """The mask of a window less a margin along those of its edges that cut through the picture, for a feather there."""
    left, top, right, bottom = window
    margin = min(margin, (right - left - 1) // 2, (bottom - top - 1) // 2)
    box = (
        left + margin * (left > 0),
        top + margin * (top > 0),
        right - margin * (right < picture[0]),
        bottom - margin * (bottom < picture[1]),
    )
    return masks.rectangle(*picture, box)

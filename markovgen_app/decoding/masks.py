"""Masks: which pixels may change, which tokens that touches, and how what was made goes back into the picture.

A mask is (H, W) float32 in [0, 1], 1 where the picture may change. "Hard" masks hold 0 and 1 only; the levels of a
"soft" one say how much of the new picture shows. Nothing here knows a model: pure functions of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from markovgen_app.errors import UserError

MAX_REACH = 256
"""Pixels that a mask can be grown, shrunk or feathered by."""

TOUCHED = 1 / 16
"""Level from which a pixel of a soft mask counts: below is the noise of lossy files."""

_BOXES = 3  # means over squares, one after another, that come close to a bell
_TOO_FEW = 0.1  # share of known pixels under a bell, below which a wider one is believed rather
_NOTHING = 1e-6


def harden(mask: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The hard mask of the pixels at or above a level."""
    return (mask >= threshold).astype(np.float32)


def invert(mask: np.ndarray) -> np.ndarray:
    """What was kept may change, what could change is kept."""
    return 1 - mask


def rectangle(width: int, height: int, box: Sequence[int]) -> np.ndarray:
    """The mask of a rectangle.

    Args:
        width, height: of the picture, in pixels.
        box: left, top, right, bottom in pixels; right and bottom are the first column and row outside.

    Raises:
        UserError: the rectangle is empty, or reaches beyond the picture.
    """
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise UserError("The rectangle is empty: its right and bottom edges must lie beyond the left and top ones.")
    if left < 0 or top < 0 or right > width or bottom > height:
        raise UserError(
            f"The rectangle {left}, {top} to {right}, {bottom} leaves the picture:"
            f" stay within 0, 0 to {width}, {height}."
        )
    mask = np.zeros((height, width), dtype=np.float32)
    mask[top:bottom, left:right] = 1
    return mask


def bounds(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the pixels that count (see `TOUCHED`); None where there are none."""
    rows, columns = (np.flatnonzero((mask >= TOUCHED).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def check_size(mask: np.ndarray, width: int, height: int) -> None:
    """Raise UserError where a mask is not of a picture's size."""
    if mask.shape != (height, width):
        given = f"{mask.shape[1]} × {mask.shape[0]}"
        raise UserError(f"The mask is {given} pixels and the picture {width} × {height}: give a mask of its size.")


def check(mask: np.ndarray) -> None:
    """Raise UserError where a mask marks nothing, or everything."""
    counted = mask >= TOUCHED
    if not counted.any():
        raise UserError("The mask is empty: mark the part of the picture that should change.")
    if counted.all():
        raise UserError("The mask covers the whole picture, so nothing of it would stay: leave a part out.")


def distance(mask: np.ndarray, limit: int) -> np.ndarray:
    """Euclidean distance from every pixel to the nearest set one, (H, W) float32; infinite where above `limit`.

    Exact: distances along columns first, then the lowest parabola over each row (Felzenszwalb and Huttenlocher,
    2012), cut off at `limit`.

    Args:
        mask: (H, W) bool.
        limit: in pixels, 0 to `MAX_REACH`.
    """
    height, width = mask.shape
    found = np.full((height, width), np.inf, dtype=np.float32)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return found
    window = np.s_[max(0, rows[0] - limit) : rows[-1] + 1 + limit, max(0, columns[0] - limit) : columns[-1] + 1 + limit]
    near = mask[window]  # all pixels within the limit, and most often far fewer than the picture has
    far = limit + 1
    place = np.arange(len(near), dtype=np.int32)[:, None]
    above = np.maximum.accumulate(np.where(near, place, -far), axis=0)
    below = np.minimum.accumulate(np.where(near, place, len(near) + far)[::-1], axis=0)[::-1]
    along = np.minimum(np.minimum(place - above, below - place), far).astype(np.int32) ** 2
    squared = along.copy()
    for shift in range(1, min(limit, near.shape[1] - 1) + 1):
        np.minimum(squared[:, shift:], along[:, :-shift] + shift**2, out=squared[:, shift:])
        np.minimum(squared[:, :-shift], along[:, shift:] + shift**2, out=squared[:, :-shift])
    found[window] = np.where(squared <= limit**2, np.sqrt(squared, dtype=np.float32), np.inf)
    return found


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The hard mask of all that is within `pixels` of a mask (of its level 0.5); negative shrinks it by as much.

    Raises:
        UserError: further than `MAX_REACH`.
    """
    _check_reach("Grow", pixels, -MAX_REACH)
    inside = mask >= 0.5
    if pixels < 0:
        return (~(distance(~inside, -pixels) <= -pixels)).astype(np.float32)
    return (distance(inside, pixels) <= pixels).astype(np.float32)


def feather(mask: np.ndarray, pixels: int) -> np.ndarray:
    """How much of the new picture shows: the mask itself, and a smooth ramp down to 0 over `pixels` outside of it.

    What was marked in full is replaced in full: the ramp lies outside, where old and new picture show the same. It is
    exactly 0 further out. Pixels of a soft mask that do not count show nothing.

    Raises:
        UserError: further than `MAX_REACH`.
    """
    _check_reach("Feather", pixels, 0)
    level = np.where(mask >= TOUCHED, mask, 0).astype(np.float32)
    if pixels == 0:
        return level
    nearness = 1 - np.minimum(distance(mask > 0.99, pixels) / (pixels + 1), 1)
    return np.maximum(level, nearness * nearness * (3 - 2 * nearness)).astype(np.float32)


def any_coverage(mask: np.ndarray, rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which cells hold a pixel that counts (see `TOUCHED`): one pixel is enough, so that no stroke is too thin.

    Args:
        mask: (H, W).
        rows, columns: first and last + 1 pixel of every row and column of cells; cells may overlap, or lie outside.

    Returns:
        (len(rows), len(columns)) bool.
    """
    height, width = mask.shape
    counted = mask >= TOUCHED
    by_row = np.stack([counted[max(0, top) : max(0, min(bottom, height))].any(axis=0) for top, bottom in rows])
    cells = [by_row[:, max(0, left) : max(0, min(right, width))].any(axis=1) for left, right in columns]
    return np.stack(cells, axis=1)


def paste_back(original: np.ndarray, made: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """What was made where it shows, the original elsewhere: bit for bit where `shown` is 0, likewise where it is 1.

    Args:
        original, made: (H, W, 3) uint8.
        shown: (H, W) in [0, 1], see `feather`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the three do not fit each other.
    """
    if original.shape != made.shape or original.shape[:2] != shown.shape:
        raise ValueError(f"{original.shape}, {made.shape} and {shown.shape} are not pictures and a mask of one size")
    pasted = original.copy()
    place = shown > 0
    old, new = original[place].astype(np.float32), made[place].astype(np.float32)  # (pixels that change, 3)
    pasted[place] = np.rint(old + shown[place, None] * (new - old)).astype(np.uint8)
    return pasted


def evened(original: np.ndarray, made: np.ndarray, known: np.ndarray, reach: int) -> np.ndarray:
    """What was made, less the error in colour that it shows around: a plain wall that comes back a shade darker would
    leave a pale or dark patch wherever a part of it is put into the picture.

    The error is measured where the original is known, and spread from there over what is not: by bells of `reach`
    pixels near the border, of twice that further in, and so on (as pull and push of Gortler et al., 1996, fill holes).

    Args:
        original, made: (H, W, 3) uint8.
        known: (H, W) bool, where both show the same thing.
        reach: in pixels, at least 1.

    Returns:
        (H, W, 3) uint8; what was made, if nothing is known.
    """
    weight = torch.from_numpy(known).float().unsqueeze(0)  # (H, W) -> (1, H, W)
    error = torch.from_numpy(original.astype(np.float32) - made).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    measured = torch.cat([error * weight, weight]).unsqueeze(0)  # (4, H, W) -> (1, 4, H, W)
    scales = max(1, int(np.ceil(np.log2(max(known.shape) / reach))))
    level = torch.zeros_like(error)
    for scale in reversed(range(scales)):
        spread, total = _blurred(measured, reach << scale)[0].split([3, 1])  # (1, 4, H, W) -> (3, H, W), (1, H, W)
        level = torch.lerp(level, spread / total.clamp_min(_NOTHING), total / (total + _TOO_FEW))
    return np.rint(made + level.permute(1, 2, 0).numpy()).clip(0, 255).astype(np.uint8)


def _blurred(maps: Tensor, reach: int) -> Tensor:
    """Maps (B, C, H, W) under a bell: means over a square of 2 · reach + 1 pixels, one after another."""
    for _ in range(_BOXES):
        for axis in ((1, 0), (0, 1)):
            sides, margins = (tuple(most * each for each in axis) for most in (2 * reach, reach))
            maps = nn.functional.avg_pool2d(
                maps, (sides[0] + 1, sides[1] + 1), stride=1, padding=margins, count_include_pad=False
            )
    return maps


def _check_reach(name: str, pixels: int, lowest: int) -> None:
    if not lowest <= pixels <= MAX_REACH:
        raise UserError(f"{name} must be between {lowest} and {MAX_REACH} pixels, not {pixels}.")

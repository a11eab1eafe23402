"""What is measured of a picture that was inpainted or edited, beside the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..decoding import masks
from ..models.scorer import Reading, Scorer
from .cases import CHANGES, Case, Change
from .judging import look
from .reach import beyond

_NEAR = 0.15  # of the picture's side: how far an object that is kept may move


@dataclass(frozen=True, eq=False)
class Made:
    """What one variant made of a case.

    Attributes:
        image: (H, W, 3) uint8; `raw`: the same without paste-back.
        tokens: (n,) long, what `raw` was decoded from; `is_open`: (n,) bool, those of them that were free to change.
        seconds: of the model.
    """

    image: np.ndarray
    raw: np.ndarray
    tokens: np.ndarray
    is_open: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class Before:
    """A picture before, as the model has it: its tokens (n,) long, and the tokenizer's reconstruction (H, W, 3)."""

    tokens: np.ndarray
    reconstruction: np.ndarray


def border_difference(picture: np.ndarray, mask: np.ndarray, reach: int = 1) -> float:
    """Mean difference in colour across a mask's border, in levels: each pixel at it against that `reach` further out.

    Along rows and columns, both ways; NaN where the mask has no border inside the picture.
    """
    inside, colours = mask > 0, picture.astype(np.float64)
    differences = []
    for pixels, marked in ((colours, inside), (colours.transpose(1, 0, 2), inside.T)):
        for ordered, hit in ((pixels, marked), (pixels[::-1], marked[::-1])):
            last = hit[:-reach] & ~hit[1 : len(hit) - reach + 1] & ~hit[reach:]
            differences.append(np.abs(ordered[:-reach] - ordered[reach:]).mean(axis=2)[last])
    found = np.concatenate(differences)
    return float(found.mean()) if len(found) else float("nan")


def psnr_where(picture: np.ndarray, other: np.ndarray, place: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over some of the pixels of two pictures of 8 bits; NaN over none."""
    if not place.any():
        return float("nan")
    error = np.square(picture[place].astype(np.float64) - other[place]).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-6)))


def judged(change: Change, case: Case, reading: Reading) -> dict[str, float]:
    """What the scorer found right, each 0 or 1."""
    seen = [item.noun for item in reading.objects]
    wanted, before = case.target.nouns, case.scene.nouns
    background = float(reading.background == case.target.background)
    if change == "removed":
        return {"empty": float(not seen), "background": background}
    item = case.scene.objects[0]
    near = [
        each.noun
        for each in reading.objects
        if max(abs(each.x - item.x), abs(each.y - item.y)) <= _NEAR + item.size / 4
    ]
    values = {"object": float(wanted[0] in near), "exactly": float(seen == list(wanted)), "background": background}
    if change != "background":
        values["old_gone"] = float(before[0] not in seen)
    return values


def kept_tokens_exact(made: Made, before: Before) -> float:
    """1 where all tokens that were not to change are as they were, else 0; NaN where all were free to change."""
    kept = ~made.is_open
    return float(np.array_equal(made.tokens[kept], before.tokens[kept])) if kept.any() else float("nan")


def measures(
    change: Change,
    work: Sequence[Case],
    made: Sequence[Made],
    befores: Sequence[Before],
    scorer: Scorer,
    feather: int,
    grid: tuple[int, int],
    reach: int,
) -> dict[str, np.ndarray]:
    """Name of a measure → its value for each case, (P,).

    Args:
        feather: pixels that a seam is blended over.
        grid: rows and columns of tokens.
        reach: pixels beyond an open token in which the decoder shows it (see `decoder_reach`).
    """
    readings = look(scorer, [each.image for each in made]).readings
    rows = [judged(change, case, reading) for case, reading in zip(work, readings, strict=True)]
    for row, case, each, before in zip(rows, work, made, befores, strict=True):
        outside = masks.feather(case.mask, feather) == 0
        if change in CHANGES["inpaint"]:
            row["outside_exact"] = float(np.array_equal(each.image[outside], case.picture[outside]))
            row["kept_tokens_exact"] = kept_tokens_exact(each, before)
            outside = beyond(each.is_open, grid, len(case.picture) // grid[0], reach)
            row["kept_share"] = float(outside.mean())
            for name, picture in (("", each.image), ("_true", case.truth)):
                row[f"seam{name}"] = border_difference(picture, case.mask)
                row[f"band{name}"] = border_difference(picture, case.mask, feather + 1)
        if change != "background":
            row["kept_psnr"] = psnr_where(each.raw, case.picture, outside)
            row["reconstruction_psnr"] = psnr_where(before.reconstruction, case.picture, outside)
        row["model_seconds"] = each.seconds
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}

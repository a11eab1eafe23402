"""What people's own pictures have in common, wherever they come from: splits, order, and the way into a square."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError

Split = Literal["train", "tune", "test"]
ItemT = TypeVar("ItemT")

CAPTIONS = ("text", "caption", "prompt")  # what a caption is called, in tables and objects
FEWEST = 3  # pictures, one for each split
_HELD_OUT_SHARE = 0.02  # in each of the splits tune and test, one picture at least


class OwnPictures(Generic[ItemT]):
    """An endless, deterministic stream of the pictures of one split, each epoch in an order of its own.

    Args:
        items: all pictures, in an order that has nothing to do with what they show; the splits are cut from it.
        seed: another seed, another order.
        size: side of the pictures in pixels: shrunk or grown to fill the square, the rest cut off evenly.
        split: "tune" and "test" are 2 % of the pictures each.
    """

    def __init__(self, items: Sequence[ItemT], seed: int, size: int, split: Split) -> None:
        self.seed, self.size, self.split = seed, size, split
        held_out = max(1, round(_HELD_OUT_SHARE * len(items)))
        parts = {"tune": items[:held_out], "test": items[held_out : 2 * held_out], "train": items[2 * held_out :]}
        self.items = parts[split]

    @property
    def identity(self) -> list[str]:
        """What tells these pictures from others."""
        raise NotImplementedError

    def scene(self, index: int) -> Any:
        """Picture `index` of the stream."""
        return self.item(index)

    def item(self, index: int) -> ItemT:
        """Which of the items picture `index` of the stream is."""
        epoch, place = divmod(index, len(self.items))
        return self.items[place] if self.split != "train" else self.items[self._order(epoch)[place]]

    def render(self, scene: Any, size: int | None = None) -> np.ndarray:
        """The picture, (size, size, 3) uint8; UserError where it is damaged."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        scene = self.scene(index)
        return scene, self.render(scene)

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_shuffled", (None,))[0] != epoch:
            self._shuffled = (epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.items)))
        return self._shuffled[1]


def read_square(file: Path | BinaryIO, side: int, advice: str) -> np.ndarray:
    """A picture file as a square, (side, side, 3) uint8: upright, on white, what stands out cut off evenly.

    Raises:
        UserError: the file is damaged; `advice` with the reason.
    """
    try:
        with Image.open(file) as image:
            image.draft("RGB", (2 * side, 2 * side))  # JPEG files are unpacked no larger than needed
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
            fitted = ImageOps.fit(upright.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{advice} ({error}).") from error
    return np.asarray(fitted)

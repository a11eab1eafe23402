"""People's own pictures with captions: a folder, read as the scenes are, so that every stage trains on it.

Captions are looked for in this order: a table metadata.csv or metadata.jsonl in the picture's folder or one above it
(with a column file_name, as in datasets' imagefolder), a .txt file of the picture's name, a .json file of that name. In
tables and objects the caption is called text, caption or prompt. Pictures without a caption are left out.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError

Split = Literal["train", "tune", "test"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
CAPTIONS = ("text", "caption", "prompt")
_TABLES = ("metadata.csv", "metadata.jsonl")
_HELD_OUT_SHARE = 0.02  # in each of the splits tune and test, one picture at least


@dataclass(frozen=True)
class CaptionedFile:
    """A picture's file and what it shows."""

    path: Path
    caption: str


class FolderDataset:
    """An endless, deterministic stream of the pictures of one split, each epoch in an order of its own.

    The split of a picture hangs on its name alone, so it stays as others are added, but for a few at the borders.

    Args:
        folder: searched with all its sub-folders.
        seed: another seed, another order.
        size: side of the pictures in pixels: shrunk or grown to fill the square, the rest cut off evenly.
        split: "tune" and "test" are 2 % of the pictures each.

    Raises:
        UserError: no such folder, fewer than three captioned pictures in it, or a table that cannot be read.
    """

    def __init__(self, folder: str | Path, seed: int = 0, size: int = 256, split: Split = "train") -> None:
        self.folder, self.seed, self.size, self.split = Path(folder), seed, size, split
        found = captioned_files(self.folder)
        if len(found) < 3:
            raise UserError(
                f"{folder} holds {len(found)} pictures with captions, and training needs three: put a .txt file"
                " beside each picture, or a metadata.csv with the columns file_name and text."
            )
        found.sort(key=lambda each: hashlib.blake2b(str(each.path.relative_to(self.folder)).encode()).digest())
        held_out = max(1, round(_HELD_OUT_SHARE * len(found)))
        parts = {"tune": found[:held_out], "test": found[held_out : 2 * held_out], "train": found[2 * held_out :]}
        self.files = parts[split]

    def scene(self, index: int) -> CaptionedFile:
        """Picture `index` of the stream."""
        epoch, place = divmod(index, len(self.files))
        if self.split != "train":
            return self.files[place]
        return self.files[self._order(epoch)[place]]

    def render(self, scene: CaptionedFile, size: int | None = None) -> np.ndarray:
        """The picture, (size, size, 3) uint8; UserError where its file is damaged."""
        side = size or self.size
        try:
            with Image.open(scene.path) as image:
                image.draft("RGB", (2 * side, 2 * side))  # JPEG files are unpacked no larger than needed
                upright = ImageOps.exif_transpose(image)
                if upright.has_transparency_data:
                    upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
                fitted = ImageOps.fit(upright.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{scene.path} cannot be read: remove it, or save it again ({error}).") from error
        return np.asarray(fitted)

    def __getitem__(self, index: int) -> tuple[CaptionedFile, np.ndarray]:
        scene = self.scene(index)
        return scene, self.render(scene)

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_shuffled", (None,))[0] != epoch:
            self._shuffled = (epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.files)))
        return self._shuffled[1]


def captioned_files(folder: Path) -> list[CaptionedFile]:
    """Pictures under a folder that have captions, in the order of their names; says how many have none.

    Raises:
        UserError: no such folder, or a table that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: name one with pictures and captions (--data).")
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    listed = {
        (table.parent / name).resolve(): caption
        for kind in _TABLES
        for table in sorted(folder.rglob(kind))
        for name, caption in _table(table)
    }
    found = [CaptionedFile(path, listed.get(path.resolve()) or _beside(path)) for path in pictures]
    captioned = [each for each in found if each.caption]
    if len(captioned) < len(found):
        print(f"{len(found) - len(captioned)} of {len(found)} pictures in {folder} have no caption.", file=sys.stderr)
    return captioned


def _caption(fields: Mapping[str, Any]) -> str:
    return next((" ".join(fields[name].split()) for name in CAPTIONS if isinstance(fields.get(name), str)), "")


def _table(path: Path) -> Iterator[tuple[str, str]]:
    """File names and captions of a table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = (
                csv.DictReader(file) if path.suffix == ".csv" else (json.loads(line) for line in file if line.strip())
            )
            for row in rows:
                yield row["file_name"], _caption(row)
    except KeyError:
        raise UserError(f"{path} has no column file_name: name each picture's file there.") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): correct it.") from None


def _beside(path: Path) -> str:
    """The caption in the file beside a picture; empty where there is none."""
    try:
        text, fields = path.with_suffix(".txt"), path.with_suffix(".json")
        if text.is_file():
            return " ".join(text.read_text(encoding="utf-8-sig").split())
        if fields.is_file():
            content = json.loads(fields.read_text(encoding="utf-8-sig"))
            return _caption(content) if isinstance(content, dict) else ""
    except (OSError, ValueError) as error:
        raise UserError(f"The caption beside {path} cannot be read ({error}): correct it.") from None
    return ""

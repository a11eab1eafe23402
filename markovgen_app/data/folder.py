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
from typing import Any

import numpy as np

from ..errors import UserError
from .own import CAPTIONS, FEWEST, OwnPictures, Split, read_square

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_TABLES = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class CaptionedFile:
    """A picture's file and what it shows."""

    path: Path
    caption: str


class FolderDataset(OwnPictures[CaptionedFile]):
    """The pictures of one split of a folder.

    The split of a picture hangs on its name alone, so it stays as others are added, but for a few at the borders.

    Args:
        folder: searched with all its sub-folders.
        seed, size, split: see `OwnPictures`.

    Raises:
        UserError: no such folder, fewer than three captioned pictures in it, or a table that cannot be read.
    """

    def __init__(self, folder: str | Path, seed: int = 0, size: int = 256, split: Split = "train") -> None:
        self.folder = Path(folder)
        found = captioned_files(self.folder)
        if len(found) < FEWEST:
            raise UserError(
                f"{folder} holds {len(found)} pictures with captions, and training needs three: put a .txt file"
                " beside each picture, or a metadata.csv with the columns file_name and text."
            )
        found.sort(key=lambda each: hashlib.blake2b(str(each.path.relative_to(self.folder)).encode()).digest())
        super().__init__(found, seed, size, split)

    @property
    def identity(self) -> list[str]:
        """What tells these pictures from others."""
        return [str(self.folder.resolve()), str(len(self.items)), str(self.size)]

    def render(self, scene: CaptionedFile, size: int | None = None) -> np.ndarray:
        """The picture, (size, size, 3) uint8; UserError where its file is damaged."""
        return read_square(scene.path, size or self.size, f"{scene.path} cannot be read: remove it, or save it again")


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

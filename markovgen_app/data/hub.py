"""Pictures with captions in a data set of the hub, or a folder of Parquet files, by the library datasets.

The library is an optional dependency and imported where a data set is opened. Rows without a caption are left out;
where a row has a list of captions, as in COCO, every epoch takes the next one.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, first_line
from .own import CAPTIONS, FEWEST, OwnPictures, Split, read_square

_SCANNED = 1000  # rows at once


@dataclass(frozen=True)
class Columns:
    """What to take from a data set.

    Attributes:
        image: column of the pictures; the first one of pictures if not given.
        caption: column of the captions; the first of text, caption, prompt if not given.
        subset: which of its configurations, where it has several.
        rows: which of its own splits; ours are cut from it.
    """

    image: str | None = None
    caption: str | None = None
    subset: str | None = None
    rows: str = "train"


@dataclass(frozen=True)
class CaptionedRow:
    """A row of a data set and what its picture shows."""

    number: int
    caption: str


class HubDataset(OwnPictures[int]):
    """The pictures of one split of a data set, which is downloaded into the hub's cache first.

    Args:
        data: hub id, or a folder with Parquet files.
        seed, size, split: see `OwnPictures`.
        columns: which pictures and captions.

    Raises:
        UserError: the library is not installed, the data set is out of reach, or has no such columns.
    """

    def __init__(
        self, data: str, seed: int = 0, size: int = 256, split: Split = "train", columns: Columns | None = None
    ) -> None:
        self.data = data
        columns = columns or Columns()
        rows = _load(data, columns)
        image, caption = _chosen(data, rows, columns)
        captioned = _captioned_rows(rows, caption)
        if len(captioned) < FEWEST:
            raise UserError(
                f"{data} holds {len(captioned)} pictures with captions in {caption!r}, and training needs three."
            )
        if len(captioned) < len(rows):
            print(f"{len(rows) - len(captioned)} of {len(rows)} pictures in {data} have no caption.", file=sys.stderr)
        self._fingerprint = str(rows._fingerprint)
        self._captions, self._files = rows.select_columns([caption]), _undecoded(rows, image)
        order = np.random.default_rng(0).permutation(len(captioned))
        super().__init__(captioned[order].tolist(), seed, size, split)

    @property
    def identity(self) -> list[str]:
        """What tells these pictures from others."""
        return [self.data, self._fingerprint, str(len(self.items)), str(self.size)]

    def scene(self, index: int) -> CaptionedRow:
        """Picture `index` of the stream."""
        number = self.item(index)
        (value,) = self._captions[number].values()
        told = _texts(value)
        return CaptionedRow(number, told[index // len(self.items) % len(told)])

    def render(self, scene: CaptionedRow, size: int | None = None) -> np.ndarray:
        """The picture, (size, size, 3) uint8; UserError where it is damaged."""
        (value,) = self._files[scene.number].values()
        file = io.BytesIO(value["bytes"]) if value["bytes"] else Path(value["path"])
        return read_square(file, size or self.size, f"Picture {scene.number} of {self.data} cannot be read")


def _load(data: str, columns: Columns) -> Any:
    """The data set's rows; or UserError."""
    try:
        import datasets
        from datasets.exceptions import DatasetNotFoundError
    except ImportError:
        raise UserError(
            f"{data} is a data set, which takes the library datasets: pip install 'datasets>=5,<6', or give a folder of"
            " pictures."
        ) from None
    try:
        return datasets.load_dataset(data, columns.subset, split=columns.rows)
    except DatasetNotFoundError as error:
        if "gated" in str(error):
            raise UserError(
                f"The hub gives {data} only to those who accepted its conditions: accept them at"
                f" https://huggingface.co/datasets/{data}, then run `hf auth login` on this machine."
            ) from error
        raise UserError(
            f"There is no folder {data}, and the hub has no data set of that name that you may see: check the spelling,"
            " or run `hf auth login` if it is private."
        ) from error
    except ConnectionError as error:
        raise UserError(f"The hub cannot be reached, and {data} is not in its cache: start with a network.") from error
    except Exception as error:  # whatever data sets of the hub are made of
        raise UserError(
            f"The data set {data} cannot be read ({first_line(error)}): correct data_subset or data_split, or take"
            " another one."
        ) from error


def _chosen(data: str, rows: Any, columns: Columns) -> tuple[str, str]:
    """Names of the columns with pictures and with captions; or UserError."""
    import datasets

    there = rows.features
    images = [name for name, kind in there.items() if isinstance(kind, datasets.Image)]
    image = columns.image or next(iter(images), None)
    caption = columns.caption or next((name for name in CAPTIONS if name in there), None)
    for what, name in (("image", image), ("caption", caption)):
        if name is None or name not in there:
            missing = f"no column {name!r}" if name else f"no column for the {what}s that is known by its name"
            raise UserError(
                f"{data} has {missing}, only {', '.join(there)}: name it as {what}_column in the configuration."
            )
    assert image is not None and caption is not None
    if image not in images:
        raise UserError(f"The column {image!r} of {data} holds no pictures: name another one as image_column.")
    return image, caption


def _captioned_rows(rows: Any, caption: str) -> np.ndarray:
    """Numbers of the rows that have a caption."""
    found: list[int] = []
    for start, block in enumerate(rows.select_columns([caption]).iter(_SCANNED)):
        found += [start * _SCANNED + place for place, value in enumerate(block[caption]) if _texts(value)]
    return np.array(found, dtype=np.int64)


def _undecoded(rows: Any, image: str) -> Any:
    """The pictures' files, as bytes or paths."""
    import datasets

    return rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))


def _texts(value: Any) -> list[str]:
    """The captions in a field: one, several, or none."""
    given = value if isinstance(value, list) else [value]
    return [" ".join(text.split()) for text in given if isinstance(text, str) and text.strip()]

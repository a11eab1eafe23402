"""Streams of captioned pictures for training, rendered or people's own, in order, without end, resumable anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..checkpoint import is_hub_id
from ..data.folder import FolderDataset
from ..data.hub import Columns, HubDataset
from ..data.own import Split
from ..data.scenes import STYLED, TINTED, Layout, SceneDataset, Vocabulary
from ..errors import UserError
from ..pixels import stacked, to_pixels
from .loop import LoopConfig


class Pictures(Protocol):
    """An endless stream of captioned pictures. A scene is whatever has a `caption`."""

    size: int

    def scene(self, index: int) -> Any:
        """Scene `index`."""

    def render(self, scene: Any, size: int | None = None) -> np.ndarray:
        """Its picture, (size, size, 3) uint8; of the stream's own size if none is given."""

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        """Scene `index` and its picture."""


class PicturesConfig(LoopConfig):
    """Settings of what a run trains on."""

    data: str | None = Field(
        None, description="pictures with captions: a folder, or a data set of the hub; rendered scenes by default"
    )
    image_column: str | None = Field(None, description="of a data set; its first column of pictures by default")
    caption_column: str | None = Field(None, description="of a data set; text, caption or prompt by default")
    data_subset: str | None = Field(None, description="of a data set that has several")
    data_split: str = Field("train", description="the data set's rows to use; held-out ones are taken from them")
    vocabulary: Vocabulary = Field("frequent", description="of the scenes")
    layout_shares: dict[Layout, Annotated[float, Field(ge=0)]] = Field(
        {}, description="how frequent layouts of the scenes are, where not as ever"
    )
    open_backgrounds: float = Field(
        0, ge=0, le=1, description="share of the scenes' captions that say nothing of the background"
    )
    styled: float = Field(STYLED, ge=0, le=1, description="share of the scenes that are drawn in a style")
    tinted: float = Field(TINTED, ge=0, le=1, description="share of the objects in a colour that is not their own")


def open_pictures(config: PicturesConfig, size: int, split: Split, seed: int | None = None) -> Pictures:
    """What a run trains on.

    Args:
        size: side of the pictures in pixels.
        seed: the run's own if not given.

    Raises:
        UserError: there is no such folder or data set, or it has too few captioned pictures.
    """
    seed = config.seed if seed is None else seed
    if config.data is None:
        if split != "train":
            return SceneDataset(seed, size, split, config.vocabulary, None, config.open_backgrounds)
        return SceneDataset(
            seed, size, split, config.vocabulary, config.layout_shares, config.open_backgrounds, config.styled,
            config.tinted,
        )  # fmt: skip
    folder = Path(config.data).expanduser()
    if folder.is_dir() and not any(folder.rglob("*.parquet")):
        return FolderDataset(folder, seed, size, split)
    if folder.is_dir() or (not folder.exists() and is_hub_id(config.data)):
        columns = Columns(config.image_column, config.caption_column, config.data_subset, config.data_split)
        return HubDataset(config.data, seed, size, split, columns)
    raise UserError(
        f"There is no folder {config.data}: name one with pictures and captions, or a data set of the hub (--data)."
    )


@dataclass(frozen=True)
class SceneBatch:
    """Scenes and their pictures, (B, 3, H, W) uint8 for each of the sizes that were asked for."""

    scenes: list[Any]
    renders: tuple[Tensor, ...]

    @property
    def pictures(self) -> Tensor:
        """Those of the first size."""
        return self.renders[0]

    def pixels(self, device: torch.device | str = "cpu", which: int = 0) -> Tensor:
        """Pictures in [-1, 1], (B, 3, H, W) float32, channels last in memory."""
        return to_pixels(self.renders[which], device)


class _Batches(Dataset):
    def __init__(self, scenes: Pictures, batch_size: int, first: int, sizes: Sequence[int], every: int) -> None:
        self.scenes, self.batch_size, self.first, self.sizes, self.every = scenes, batch_size, first, sizes, every

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, number: int) -> SceneBatch:
        start = (self.first + number * self.every) * self.batch_size
        drawn = [self.scenes.scene(index) for index in range(start, start + self.batch_size)]
        renders = (stacked([self.scenes.render(scene, size) for scene in drawn]) for size in self.sizes)
        return SceneBatch(drawn, tuple(renders))


class _Counting(torch.utils.data.Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1


def scene_batches(
    scenes: Pictures, batch_size: int, first: int = 0, workers: int = 0, sizes: Sequence[int] = (), every: int = 1
) -> Iterator[SceneBatch]:
    """Batches `first`, `first` + `every`, … of the dataset; rendered by `workers` processes, or here where that is 0.

    Each scene is drawn at every one of `sizes`, the dataset's own size if there are none.
    """
    dataset = _Batches(scenes, batch_size, first, tuple(sizes) or (scenes.size,), every)
    options = {"prefetch_factor": 4} if workers else {}
    return iter(
        DataLoader(dataset, batch_size=None, sampler=_Counting(), num_workers=workers, **options)  # type: ignore[arg-type]
    )

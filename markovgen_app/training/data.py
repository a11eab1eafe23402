"""Streams of captioned pictures for training, rendered or people's own, in order, without end, resumable anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.folder import FolderDataset, Split
from ..data.scenes import SceneDataset, Vocabulary
from ..pixels import stacked, to_pixels


class Pictures(Protocol):
    """An endless stream of captioned pictures. A scene is whatever has a `caption`."""

    size: int

    def scene(self, index: int) -> Any:
        """Scene `index`."""

    def render(self, scene: Any, size: int | None = None) -> np.ndarray:
        """Its picture, (size, size, 3) uint8; of the stream's own size if none is given."""

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        """Scene `index` and its picture."""


def open_pictures(data: str | None, seed: int, size: int, split: Split, vocabulary: Vocabulary) -> Pictures:
    """What a run trains on.

    Args:
        data: folder of pictures with captions; None for rendered scenes.
        vocabulary: of the scenes.

    Raises:
        UserError: there is no such folder, or too few captioned pictures in it.
    """
    if data is not None:
        return FolderDataset(data, seed, size, split)
    return SceneDataset(seed, size, split, vocabulary)


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
    def __init__(self, scenes: Pictures, batch_size: int, first: int, sizes: Sequence[int]) -> None:
        self.scenes, self.batch_size, self.first, self.sizes = scenes, batch_size, first, sizes

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, number: int) -> SceneBatch:
        start = (self.first + number) * self.batch_size
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
    scenes: Pictures, batch_size: int, first: int = 0, workers: int = 0, sizes: Sequence[int] = ()
) -> Iterator[SceneBatch]:
    """Batches `first`, `first` + 1, … of the dataset; rendered by `workers` processes, or here where that is 0.

    Each scene is drawn at every one of `sizes`, the dataset's own size if there are none.
    """
    dataset = _Batches(scenes, batch_size, first, tuple(sizes) or (scenes.size,))
    options = {"prefetch_factor": 4} if workers else {}
    return iter(
        DataLoader(dataset, batch_size=None, sampler=_Counting(), num_workers=workers, **options)  # type: ignore[arg-type]
    )

"""Captioned image tokens of scenes: fresh ones without end, or a fixed number kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.own import OwnPictures
from ..models.tokenizer import ImageTokenizer
from .data import Pictures, scene_batches
from .masked import MaskedConfig

_SHARD = 4096
_TOGETHER = 32
_PLAIN_SIZE = 128  # whose folder has no size in its name


@dataclass(frozen=True)
class TokenBatch:
    """Captions and the image tokens of their pictures, (B, n) for each of the source's sizes."""

    captions: list[str]
    tokens: tuple[Tensor, ...]


class TokenSource:
    """Captioned tokens of scenes: fresh ones, or a fixed number of them tokenized once and kept on disk.

    Args:
        scenes: what to draw.
        tokenizer: on the device.
        config: its batch size, cache, workers and folder of runs are used.
        device: where batches go.
        sizes: sides of the pictures to tokenize in pixels; the scenes' own size if not given.
    """

    def __init__(
        self,
        scenes: Pictures,
        tokenizer: ImageTokenizer,
        config: MaskedConfig,
        device: torch.device,
        sizes: Sequence[int] = (),
    ) -> None:
        self.scenes, self.tokenizer, self.config, self.device = scenes, tokenizer, config, device
        self.sizes = tuple(sizes) or (scenes.size,)
        self._shards: dict[Path, Tensor] = {}
        weights = float(sum(parameter.detach().double().abs().sum() for parameter in tokenizer.parameters()))
        sample = [scenes.scene(index).caption for index in range(64)]
        if isinstance(scenes, OwnPictures):
            sample += scenes.identity
        self._key = hashlib.blake2b(f"{weights:.6f} {sample}".encode(), digest_size=8).hexdigest()

    def _shard(self, number: int, size: int) -> Tensor:
        """Tokens of scenes number·4096 … drawn at one size, (4096, n) int16."""
        folder = self._key if size == _PLAIN_SIZE else f"{self._key}-{size}"
        path = self.config.runs / "tokens" / folder / f"{number:05d}.safetensors"
        if path not in self._shards:
            if not path.is_file():
                first, count = number * _SHARD // _TOGETHER, _SHARD // _TOGETHER
                batches = scene_batches(self.scenes, _TOGETHER, first, self.config.workers, (size,))
                parts = [self.tokenizer.encode(next(batches).pixels(self.device)).cpu() for _ in range(count)]
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file({"tokens": torch.cat(parts).short()}, path)
            self._shards[path] = load_file(path)["tokens"]
        return self._shards[path]

    def _cached(self, indices: Sequence[int], size: int) -> Tensor:
        tokens = torch.stack([self._shard(index // _SHARD, size)[index % _SHARD] for index in indices])  # (B, n)
        return tokens.long().to(self.device)

    def batches(self, first: int) -> Iterator[TokenBatch]:
        """Batches from number `first` on."""
        count, cached, reuse = self.config.batch_size, self.config.cached_scenes, self.config.reuse
        if not cached:
            for number, batch in enumerate(
                scene_batches(self.scenes, count, first // reuse, self.config.workers, self.sizes), first // reuse
            ):
                pixels = (batch.pixels(self.device, which) for which in range(len(self.sizes)))
                tokens = tuple(self.tokenizer.encode(each) for each in pixels)
                for _ in range(max(number * reuse, first), (number + 1) * reuse):
                    yield TokenBatch([scene.caption for scene in batch.scenes], tokens)
        number = first
        while True:
            indices = [(number * count + offset) % cached for offset in range(count)]
            captions = [self.scenes.scene(index).caption for index in indices]
            yield TokenBatch(captions, tuple(self._cached(indices, size) for size in self.sizes))
            number += 1

"""Captioned image tokens of scenes: fresh ones without end, or a fixed number kept on disk."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..data.own import OwnPictures
from ..models.tokenizer import ImageTokenizer
from ..tensor_files import save_whole
from .data import Pictures, scene_batches
from .loop import Trainer
from .masked import MaskedConfig

_SHARD = 4096
_TOGETHER = 32
_PLAIN_SIZE = 128  # whose folder has no size in its name
_NOTE = "drawn.txt"  # beside the shards: a digest of the first scenes' pictures
_LOOKED_AT = 8  # of them


@dataclass(frozen=True)
class TokenBatch:
    """Scenes and the image tokens of their pictures, (B, n) for each of the source's sizes."""

    scenes: list[Any]
    tokens: tuple[Tensor, ...]

    @property
    def captions(self) -> list[str]:
        """What the scenes are called."""
        return [scene.caption for scene in self.scenes]


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
        self._folders: dict[int, Path] = {}
        weights = float(sum(parameter.detach().double().abs().sum() for parameter in tokenizer.parameters()))
        sample = [scenes.scene(index).caption for index in range(64)]
        if isinstance(scenes, OwnPictures):
            sample += scenes.identity
        self._key = hashlib.blake2b(f"{weights:.6f} {sample}".encode(), digest_size=8).hexdigest()

    def _folder(self, size: int) -> Path:
        """Where shards of one size are kept: another folder once scenes of the same captions are drawn otherwise."""
        if size not in self._folders:
            folder = self.config.runs / "tokens" / (self._key if size == _PLAIN_SIZE else f"{self._key}-{size}")
            pictures = (self.scenes.render(self.scenes.scene(index), size).tobytes() for index in range(_LOOKED_AT))
            drawn = hashlib.blake2b(b"".join(pictures), digest_size=8).hexdigest()
            note = folder / _NOTE
            if note.is_file() and note.read_text() != drawn:
                note = folder.with_name(f"{folder.name}-{drawn}") / _NOTE
            if not note.is_file():
                note.parent.mkdir(parents=True, exist_ok=True)
                whole = note.with_suffix(f".{os.getpid()}")
                whole.write_text(drawn)
                whole.replace(note)
            self._folders[size] = note.parent
        return self._folders[size]

    def _shard(self, number: int, size: int) -> Tensor:
        """Tokens of scenes number·4096 … drawn at one size, (4096, n) int16."""
        path = self._folder(size) / f"{number:05d}.safetensors"
        if path not in self._shards:
            if not path.is_file():
                first, count = number * _SHARD // _TOGETHER, _SHARD // _TOGETHER
                batches = scene_batches(self.scenes, _TOGETHER, first, self.config.workers, (size,))
                parts = [self.tokenizer.encode(next(batches).pixels(self.device)).cpu() for _ in range(count)]
                save_whole({"tokens": torch.cat(parts).short()}, path)
            self._shards[path] = load_file(path)["tokens"]
        return self._shards[path]

    def _cached(self, indices: Sequence[int], size: int) -> Tensor:
        tokens = torch.stack([self._shard(index // _SHARD, size)[index % _SHARD] for index in indices])  # (B, n)
        return tokens.long().to(self.device)

    def prepare(self, process: int, processes: int) -> None:
        """Tokenize this process's share of what is kept on disk and not there yet."""
        numbers = range(process, -(-self.config.cached_scenes // _SHARD), processes)
        for number, size in itertools.product(numbers, self.sizes):
            self._shard(number, size)
        self._shards.clear()

    def batches(self, first: int, every: int = 1) -> Iterator[TokenBatch]:
        """Batches `first`, `first` + `every`, …: those of one of `every` processes."""
        count, cached, reuse = self.config.batch_size, self.config.cached_scenes, self.config.reuse
        if not cached:
            step, process = divmod(first, every)
            fresh = step // reuse
            scenes = scene_batches(self.scenes, count, fresh * every + process, self.config.workers, self.sizes, every)
            for number, batch in enumerate(scenes, fresh):
                pixels = (batch.pixels(self.device, which) for which in range(len(self.sizes)))
                tokens = tuple(self.tokenizer.encode(each) for each in pixels)
                for _ in range(max(number * reuse, step), (number + 1) * reuse):
                    yield TokenBatch(batch.scenes, tokens)
        number = first
        while True:
            indices = [(number * count + offset) % cached for offset in range(count)]
            drawn = [self.scenes.scene(index) for index in indices]
            yield TokenBatch(drawn, tuple(self._cached(indices, size) for size in self.sizes))
            number += every

    def batches_for(self, trainer: Trainer) -> Iterator[TokenBatch]:
        """The batches of a run's process; what several keep on disk is tokenized by all of them first."""
        if trainer.processes > 1 and self.config.cached_scenes:
            self.prepare(trainer.accelerator.process_index, trainer.processes)
            trainer.accelerator.wait_for_everyone()
        return self.batches(trainer.stream, trainer.processes)

"""Captioned image tokens of scenes: fresh ones without end, or a fixed number kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
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
    """Scenes and the tokens of their pictures, (B, n) for each of the source's sizes; then what is made of those."""

    scenes: list[Any]
    tokens: tuple[Tensor, ...]

    @property
    def captions(self) -> list[str]:
        """What the scenes are called."""
        return [scene.caption for scene in self.scenes]


@dataclass(frozen=True)
class Derived:
    """Tokens that are made of others, and kept on disk beside them.

    Attributes:
        name: of their folder: other ones, another name.
        make: (tokens of each size, number of the shard or batch) -> what is made of them, (B, …) each.
    """

    name: str
    make: Callable[[tuple[Tensor, ...], int], tuple[Tensor, ...]]


class TokenSource:
    """Captioned tokens of scenes: fresh ones, or a fixed number of them tokenized once and kept on disk.

    Args:
        scenes: what to draw.
        tokenizer: on the device.
        config: its batch size, cache, workers and folder of runs are used.
        device: where batches go.
        sizes: sides of the pictures to tokenize in pixels; the scenes' own size if not given.
        derived: tokens made of those, which batches hold after them.
    """

    def __init__(
        self,
        scenes: Pictures,
        tokenizer: ImageTokenizer,
        config: MaskedConfig,
        device: torch.device,
        sizes: Sequence[int] = (),
        derived: Derived | None = None,
    ) -> None:
        self.derived = derived
        self.scenes, self.tokenizer, self.config, self.device = scenes, tokenizer, config, device
        self.sizes = tuple(sizes) or (scenes.size,)
        self._shards: dict[Path, tuple[Tensor, ...]] = {}
        self._folders: dict[int, Path] = {}
        weights = float(sum(parameter.detach().double().abs().sum() for parameter in tokenizer.encoder.parameters()))
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

    def _kept(self, path: Path, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The tensors of a file, (4096, …) int16 each; made and written where there is none."""
        if path not in self._shards:
            if not path.is_file():
                save_whole({str(place): tokens.short() for place, tokens in enumerate(make())}, path)
            self._shards[path] = tuple(tokens for _, tokens in sorted(load_file(path).items()))
        return self._shards[path]

    def _shard(self, number: int, size: int) -> Tensor:
        """Tokens of scenes number·4096 … drawn at one size, (4096, n)."""

        def drawn() -> tuple[Tensor]:
            first, count = number * _SHARD // _TOGETHER, _SHARD // _TOGETHER
            batches = scene_batches(self.scenes, _TOGETHER, first, self.config.workers, (size,))
            return (torch.cat([self.tokenizer.encode(next(batches).pixels(self.device)).cpu() for _ in range(count)]),)

        (tokens,) = self._kept(self._folder(size) / f"{number:05d}.safetensors", drawn)
        return tokens

    def _made(self, number: int) -> tuple[Tensor, ...]:
        """Tokens that are made of those of the same scenes, (4096, …) each."""
        if self.derived is None:
            return ()
        make, folder = self.derived.make, self._folder(self.sizes[-1])

        def made() -> tuple[Tensor, ...]:
            shards = [self._shard(number, size).long().to(self.device) for size in self.sizes]
            return tuple(tokens.cpu() for tokens in make(tuple(shards), number))

        return self._kept(folder.with_name(f"{folder.name}-{self.derived.name}") / f"{number:05d}.safetensors", made)

    def _cached(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Tokens (B, n) of every size, and what is made of them."""
        rows = [
            [tokens[index % _SHARD] for tokens in (*self._of_all_sizes(number), *self._made(number))]
            for number, index in ((index // _SHARD, index) for index in indices)
        ]
        return tuple(torch.stack(each).long().to(self.device) for each in zip(*rows, strict=True))

    def _of_all_sizes(self, number: int) -> list[Tensor]:
        return [self._shard(number, size) for size in self.sizes]

    def prepare(self, process: int, processes: int) -> None:
        """Tokenize this process's share of what is kept on disk and not there yet."""
        for number in range(process, -(-self.config.cached_scenes // _SHARD), processes):
            self._of_all_sizes(number)
            self._made(number)
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
                tokens += self.derived.make(tokens, number * every + process) if self.derived else ()
                for _ in range(max(number * reuse, step), (number + 1) * reuse):
                    yield TokenBatch(batch.scenes, tokens)
        number = first
        while True:
            indices = [(number * count + offset) % cached for offset in range(count)]
            drawn = [self.scenes.scene(index) for index in indices]
            yield TokenBatch(drawn, self._cached(indices))
            number += every

    def batches_for(self, trainer: Trainer) -> Iterator[TokenBatch]:
        """The batches of a run's process; what several keep on disk is tokenized by all of them first."""
        if trainer.processes > 1 and self.config.cached_scenes:
            self.prepare(trainer.accelerator.process_index, trainer.processes)
            trainer.accelerator.wait_for_everyone()
        return self.batches(trainer.stream, trainer.processes)

"""Train the scorer on rendered scenes.

Pictures are rendered once, by worker processes, kept on disk and seen several times: mirrored, blurred, noisy and
shifted in colour, because what the scorer judges later went through a tokenizer. The loss is the sum of
  - cross-entropy of each cell's noun, cells with and without an object counting the same in all,
  - cross-entropy of tint, and L1 of centre and size, in cells with an object,
  - cross-entropy of background and of style, binary cross-entropy of each noun's presence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from ..data.scenes import Scene, SceneDataset, Vocabulary
from ..data.vocabulary import BACKGROUNDS, COLOURS, STYLES
from ..evaluation.metrics import Judgement, judge
from ..models.scorer import FOOTPRINT, Scorer, ScorerOutput
from ..pixels import stacked, to_pixels
from ..tensor_files import save_whole
from .data import scene_batches
from .loop import LoopConfig, Trainer, copy_half, read_config, start_from, without_denormals
from .muon import Muon

MOST_OBJECTS = 4
_SHARD = 2048
_RENDERED_TOGETHER = 64


class ScorerConfig(LoopConfig):
    """Settings of a scorer run."""

    matrix_rate: float = Field(0.02, gt=0, description="Muon's learning rate, for the body's matrices")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's, for everything else")
    weight_decay: float = Field(0.02, ge=0)
    vocabulary: Vocabulary = "frequent"
    size: int = Field(128, ge=32, multiple_of=16, description="side of the pictures that it judges in pixels")
    cached_scenes: int = Field(40_960, ge=1, description="scenes rendered once and seen again and again")
    channels: tuple[int, int, int] = (64, 128, 256)
    blocks: tuple[int, int, int] = (1, 2, 2)
    start_from: Path | None = Field(None, description="folder of exported weights to start from")
    export: Path | None = Field(None, description="folder for the exported weights")


@dataclass(frozen=True)
class Labels:
    """What B pictures show.

    Attributes:
        objects: (B, 4, 5) float32: noun from 1 (0: no object), tint from 1 (0: none), x, y, size.
        backgrounds: (B,) long.
        styles: (B,) long, from 1; 0 is none.
    """

    objects: Tensor
    backgrounds: Tensor
    styles: Tensor

    def __getitem__(self, rows: slice | Tensor | list[int]) -> Labels:
        return Labels(self.objects[rows], self.backgrounds[rows], self.styles[rows])

    def to(self, device: torch.device | str) -> Labels:
        return Labels(self.objects.to(device), self.backgrounds.to(device), self.styles.to(device))


def labels(scenes: Sequence[Scene], scorer: Scorer) -> Labels:
    """Labels of scenes in the scorer's numbering."""
    names = scorer.config
    noun_index = {name: index for index, name in enumerate(names.nouns, 1)}
    colour_index = {name: index for index, name in enumerate((None, *names.colours))}
    objects = torch.zeros(len(scenes), MOST_OBJECTS, 5)
    for row, scene in enumerate(scenes):
        for slot, item in enumerate(scene.objects):
            described = [noun_index[item.noun], colour_index[item.colour], item.x, item.y, item.size]
            objects[row, slot] = torch.tensor(described)
    return Labels(
        objects,
        torch.tensor([list(names.backgrounds).index(scene.background) for scene in scenes]),
        torch.tensor([[None, *names.styles].index(scene.style) for scene in scenes]),
    )


@dataclass(frozen=True)
class ScorerBatch:
    """Pictures (B, 3, H, W) uint8 and what they show."""

    pictures: Tensor
    labels: Labels


class PictureCache:
    """The first `count` scenes of a dataset, rendered once into `folder`, in an endless shuffled stream."""

    def __init__(self, scenes: SceneDataset, count: int, scorer: Scorer, folder: Path, workers: int = 0) -> None:
        self.scenes, self.scorer, self.workers = scenes, scorer, workers
        sample = b"".join(scenes[index][1].tobytes() for index in range(8)) + repr(scorer.config.nouns).encode()
        digest = hashlib.blake2b(sample, digest_size=6).hexdigest()  # another look, other pictures
        self.folder = folder / f"{scenes.split}-{scenes.seed}-{scenes.size}-{digest}"
        self.shards = self._shards(-(-count // _SHARD))
        self.count = min(count, len(self.shards) * _SHARD)

    def _shards(self, count: int) -> list[dict[str, Tensor]]:
        paths = [self.folder / f"{number:05d}.safetensors" for number in range(count)]
        missing = next((number for number, path in enumerate(paths) if not path.is_file()), count)
        if missing < count:
            per_shard = _SHARD // _RENDERED_TOGETHER
            batches = scene_batches(self.scenes, _RENDERED_TOGETHER, missing * per_shard, self.workers)
            for path in paths[missing:]:
                self._write(path, [next(batches) for _ in range(per_shard)])
        return [load_file(path) for path in paths]

    def _write(self, path: Path, batches: Sequence) -> None:
        known = labels([scene for batch in batches for scene in batch.scenes], self.scorer)
        pictures = torch.cat([batch.pictures for batch in batches]).permute(0, 2, 3, 1).contiguous()  # -> (S, H, W, 3)
        tensors = {"pictures": pictures, "objects": known.objects, "backgrounds": known.backgrounds}
        save_whole({**tensors, "styles": known.styles}, path)

    def batches(self, size: int, first: int, every: int = 1) -> Iterator[ScorerBatch]:
        """Batches `first`, `first` + `every`, …; every epoch has its own order."""
        per_epoch = max(1, self.count // size)
        number = first
        order, epoch = np.empty(0, dtype=np.int64), -1
        while True:
            if number // per_epoch != epoch:
                epoch = number // per_epoch
                order = np.random.default_rng((self.scenes.seed, epoch)).permutation(self.count)
            start = number % per_epoch * size
            yield self._batch(order[start : start + size])
            number += every

    def _batch(self, indices: np.ndarray) -> ScorerBatch:
        places = [divmod(int(index), _SHARD) for index in indices]
        stacked = {
            name: torch.stack([self.shards[shard][name][row] for shard, row in places]) for name in self.shards[0]
        }
        pictures = stacked["pictures"].permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)
        return ScorerBatch(pictures, Labels(stacked["objects"], stacked["backgrounds"], stacked["styles"]))


def augmented(pixels: Tensor, known: Labels, generator: torch.Generator) -> tuple[Tensor, Labels]:
    """Pictures (B, 3, H, W) in [-1, 1], half of them mirrored, a third blurred, all noisy and shifted in colour."""
    count = len(pixels)
    draws = torch.rand(4, count, 1, 1, 1, generator=generator).to(pixels.device)
    mirrored = draws[0] < 0.5
    pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    objects = known.objects.clone()
    objects[..., 2] = torch.where(mirrored.flatten()[:, None], 1 - objects[..., 2], objects[..., 2])
    blurred = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    pixels = torch.where(draws[1] < 0.33, torch.lerp(pixels, blurred, draws[2]), pixels)
    shift = torch.randn(2, count, 3, 1, 1, generator=generator).to(pixels.device) * 0.03
    noise = torch.randn(pixels.shape, generator=generator).to(pixels.device) * (0.08 * draws[3].square())
    return pixels * (1 + shift[0]) + shift[1] + noise, Labels(objects, known.backgrounds, known.styles)


@dataclass(frozen=True)
class CellTargets:
    """What each cell should say: noun and tint (B, G²) long, 0 for none, and box (B, G², 3)."""

    nouns: Tensor
    colours: Tensor
    boxes: Tensor


def cell_targets(objects: Tensor, cells: Tensor) -> CellTargets:
    """Targets of the cells: that of the nearest object whose footprint holds the cell's centre.

    Args:
        objects: (B, 4, 5) as in `Labels`.
        cells: (G², 2) centres (x, y).
    """
    centres, sizes = objects[:, :, None, 2:4], objects[:, :, None, 4]  # (B, 4, 1, 2), (B, 4, 1)
    offsets = centres - cells  # (B, 4, G², 2)
    inside = (offsets.abs().amax(dim=-1) <= FOOTPRINT * sizes) & (objects[:, :, None, 0] > 0)  # (B, 4, G²)
    distance = offsets.norm(dim=-1).masked_fill(~inside, torch.inf)
    nearest = distance.argmin(dim=1)  # (B, G²)
    chosen = objects.gather(1, nearest[:, :, None].expand(-1, -1, objects.shape[-1]))  # (B, G², 5)
    any_object = inside.any(dim=1)  # (B, G²)
    boxes = torch.cat([chosen[..., 2:4] - cells, chosen[..., 4:]], dim=-1)
    return CellTargets(chosen[..., 0].long() * any_object, chosen[..., 1].long() * any_object, boxes)


def scorer_loss(out: ScorerOutput, cells: Tensor, known: Labels) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss above, and its parts; `cells` are the scorer's (G², 2)."""
    target = cell_targets(known.objects, cells)
    filled = target.nouns > 0  # (B, G²)
    nouns = F.cross_entropy(out.nouns.flatten(0, 1), target.nouns.flatten(), reduction="none").view_as(filled)
    count = filled.sum().clamp_min(1)
    present = F.one_hot(known.objects[..., 0].long(), out.presence.shape[1] + 1).amax(dim=1)[:, 1:].float()  # (B, N)
    parts = {
        "nouns": (nouns * filled).sum() / count,
        "nothing": (nouns * ~filled).sum() / (~filled).sum().clamp_min(1),
        "colours": F.cross_entropy(out.colours[filled], target.colours[filled], reduction="sum") / count,
        "boxes": 5 * (out.boxes - target.boxes)[filled].abs().sum() / count,
        "backgrounds": F.cross_entropy(out.backgrounds, known.backgrounds),
        "styles": F.cross_entropy(out.styles, known.styles),
        "presence": 0.2 * F.binary_cross_entropy_with_logits(out.presence, present, reduction="sum") / len(present),
    }
    return torch.stack(list(parts.values())).sum(), {name: value.detach() for name, value in parts.items()}


@torch.no_grad()
def judgements(scorer: Scorer, scenes: SceneDataset, indices: Sequence[int], batch_size: int = 64) -> list[Judgement]:
    """What the scorer gets right of fresh renders."""
    found: list[Judgement] = []
    for start in range(0, len(indices), batch_size):
        drawn = [scenes[index] for index in indices[start : start + batch_size]]
        pixels = to_pixels(stacked([picture for _, picture in drawn]), scorer.device)
        found += [judge(scene, reading) for (scene, _), reading in zip(drawn, scorer.read(pixels), strict=True)]
    return found


def accuracies(judged: Sequence[Judgement]) -> dict[str, float]:
    """Share of pictures with objects, background, style, and all of them right."""
    names = ("objects", "background", "style", "prompt")
    return {name: float(np.mean([getattr(each, name) for each in judged])) for name in names}


def build_optimizers(model: Scorer, config: ScorerConfig) -> list[torch.optim.Optimizer]:
    """Muon for the body's matrices, whose inputs range from 48 to 2,304; AdamW for norms, biases and heads."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (matrices if name.startswith("body.") and parameter.ndim == 2 else others).append(parameter)
    adam = torch.optim.AdamW(others, config.learning_rate, weight_decay=config.weight_decay)
    return [Muon(matrices, config.matrix_rate), adam]


@without_denormals
def train(config_path: Path, resume: bool = False) -> None:
    """Train by the configuration file; export after every checkpoint where it names a folder."""
    config = read_config(config_path, ScorerConfig)
    torch.manual_seed(config.seed)
    scenes = SceneDataset(config.seed, config.size, "train", config.vocabulary)
    held_out = SceneDataset(config.seed, config.size, "tune", config.vocabulary)
    names = {
        "nouns": [noun.name for noun in scenes.nouns],
        "backgrounds": list(BACKGROUNDS),
        "styles": list(STYLES),
        "colours": list(COLOURS),
    }
    if config.start_from is None:
        model = Scorer(**names, size=config.size, channels=config.channels, blocks=config.blocks)
    else:
        model = start_from(Scorer, config.start_from, config, **names, size=config.size)
    model = model.to(memory_format=torch.channels_last)
    trainer = Trainer(config, model, build_optimizers(model, config))
    if resume:
        trainer.resume()
    forward = torch.compile(model) if config.compile else model
    with trainer.accelerator.main_process_first():
        cache = PictureCache(scenes, config.cached_scenes, model, config.runs / "pictures", config.workers)

    def loss(batch: ScorerBatch, number: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        pixels = to_pixels(batch.pictures, trainer.device)
        pixels, known = augmented(pixels, batch.labels.to(trainer.device), generator)
        output = forward(pixels.contiguous(memory_format=torch.channels_last))
        value, parts = scorer_loss(output, model.cells, known)
        return value, {"loss": value.detach(), **parts}

    def on_checkpoint() -> None:
        average: Scorer = trainer.average  # type: ignore[assignment]
        trainer.log({"step": trainer.step, **accuracies(judgements(average, held_out, range(512)))})
        if config.export:
            copy_half(average, config.export)

    trainer.fit(cache.batches(config.batch_size, trainer.stream, trainer.processes), loss, on_checkpoint)

"""What the scorer sees in pictures of scenes, and how much of it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import pixels
from ..data.scenes import LAYOUTS, Scene, SceneDataset
from ..data.vocabulary import FREQUENT_NOUNS, NOUNS
from ..errors import UserError
from ..loading import load_model
from ..models.scorer import Reading, Scorer, ScorerOutput
from ..models.tokenizer import ImageTokenizer
from ..pipeline import MarkovGenPipeline
from ..settings import DEFAULT_MODEL, model_path
from . import metrics

if TYPE_CHECKING:
    from ..models.amused import AmusedTokenizer

ACCURACIES = {
    "prompt_accuracy": "prompt",
    "object_accuracy": "objects",
    "background_accuracy": "background",
    "style_accuracy": "style",
}
_DETAILS = {"noun_accuracy": "nouns", "place_accuracy": "place", "colour_accuracy": "colour"}
WAY_OF_LOOKING = 2
"""Counts the ways in which `look` has worked: what was kept of one is of no use to another."""
BATCH = 32
"""Pictures that the scorer and the tokenizer see at once."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the scorer saw in M pictures, in their parts where they are finer than it.

    Attributes:
        readings: what they show.
        features: (M, F), of what things and places are seen.
        details: (M, C), of the small shapes and edges that they are seen by.
    """

    readings: list[Reading]
    features: np.ndarray
    details: np.ndarray


def load_scorer(folder: Path | None = None, device: torch.device | str = "cpu") -> Scorer:
    """The trained scorer: that of the default weights, or of another folder.

    Raises:
        UserError: it is not there, or damaged.
    """
    folder = folder or Path(model_path(DEFAULT_MODEL)) / "scorer"
    absent = f"There is no scorer in {folder}: train it with `markovgen train scorer --config configs/scorer.yaml`."
    scorer = load_model(Scorer, folder, absent)
    return scorer.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def scenes_for(pipeline: MarkovGenPipeline, scorer: Scorer, split: str, open_backgrounds: float = 0.0) -> SceneDataset:
    """Scenes of the words that both the weights and the scorer know; a share of captions leaves the background open.

    Raises:
        UserError: the scorer knows too few nouns, or there is no such split.
    """
    frequent = {noun.name for noun in FREQUENT_NOUNS}
    known = set(pipeline.vocabulary.nouns) or {noun.name for noun in NOUNS}
    vocabulary = "frequent" if known <= frequent else "full"
    try:
        scenes = SceneDataset(0, scorer.config.size, split, vocabulary, None, open_backgrounds)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"{error}.") from None
    if missing := [noun.name for noun in scenes.nouns if noun.name not in set(scorer.config.nouns)]:
        raise UserError(
            f"The scorer does not know {missing[0]!r} and {len(missing) - 1} more nouns of these weights:"
            f" train it with `vocabulary: {vocabulary}` in configs/scorer.yaml."
        )
    return scenes


def to_pixels(pictures: Sequence[Image.Image | np.ndarray], size: int, device: torch.device | str) -> Tensor:
    """Pictures as (B, 3, size, size) in [-1, 1], averaged down or enlarged to that size."""
    images = [picture if isinstance(picture, Image.Image) else Image.fromarray(picture) for picture in pictures]
    scaled = [
        image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BOX) for image in images
    ]
    return pixels.to_pixels(pixels.stacked([np.asarray(image.convert("RGB")) for image in scaled]), device)


@torch.no_grad()
def look(scorer: Scorer, pictures: Sequence[Image.Image | np.ndarray]) -> Seen:
    """Show pictures to the scorer.

    What is in them it reads at its own size, larger ones averaged down. So that what only the larger ones show counts
    as well, their features and details are the means of those of their parts, each as large as the scorer's pictures.
    """
    size = scorer.config.size

    def shown(batch: Sequence[Image.Image | np.ndarray]) -> tuple[ScorerOutput, Tensor]:
        output = scorer(to_pixels(batch, size, scorer.device))
        return output, torch.cat([output.features, output.details], dim=1).float().cpu()  # (B, F + C)

    readings: list[Reading] = []
    seen = []
    for start in range(0, len(pictures), BATCH):
        batch = pictures[start : start + BATCH]
        output, of_each = shown(batch)
        readings += scorer.readings(output)
        for row, picture in enumerate(batch):
            if len(cut := parts(picture, size)) > 1:
                of_each[row] = torch.cat([shown(cut[at : at + BATCH])[1] for at in range(0, len(cut), BATCH)]).mean(0)
        seen.append(of_each)
    features, details = torch.cat(seen).tensor_split([scorer.config.width], dim=1)  # (M, F), (M, C)
    return Seen(readings, features.numpy(), details.numpy())


def parts(picture: Image.Image | np.ndarray, size: int) -> list[np.ndarray]:
    """Squares of `size` pixels that cover a square picture, as few as do, row by row; itself if it is no larger."""
    whole = np.asarray(picture)
    side = whole.shape[0]
    corners = np.linspace(0, max(0, side - size), -(-side // size)).round().astype(int)
    return [np.ascontiguousarray(whole[top : top + size, left : left + size]) for top in corners for left in corners]


@torch.no_grad()
def encode(
    tokenizer: ImageTokenizer | AmusedTokenizer, pictures: Sequence[Image.Image | np.ndarray], size: int
) -> Tensor:
    """Tokens of pictures at size × size pixels, (M, n), on the CPU."""
    parts = [
        tokenizer.encode(to_pixels(pictures[start : start + BATCH], size, tokenizer.device)).cpu()
        for start in range(0, len(pictures), BATCH)
    ]
    return torch.cat(parts)


def judged_values(scenes: Sequence[Scene], readings: Sequence[Reading]) -> dict[str, np.ndarray]:
    """Name of an accuracy → its value for each prompt, (P,), averaged over the seeds; NaN where it does not apply."""
    judged = [metrics.judge(scenes[index % len(scenes)], reading) for index, reading in enumerate(readings)]
    values = {}
    for name, attribute in {**ACCURACIES, **_DETAILS}.items():
        raw = np.array([getattr(each, attribute) for each in judged], dtype=np.float64)  # None becomes NaN
        by_seed = raw.reshape(-1, len(scenes))  # (seeds · P,) -> (seeds, P)
        counts = (~np.isnan(by_seed)).sum(axis=0)
        values[name] = np.where(counts > 0, np.nansum(by_seed, axis=0) / np.maximum(counts, 1), np.nan)
    return values


def accuracy_table(
    scenes: Sequence[Scene], readings: Sequence[Reading], weights: np.ndarray
) -> dict[str, metrics.Interval | dict]:
    """Accuracies over all prompts, and by layout; readings lie seed by seed, prompt by prompt."""
    values = judged_values(scenes, readings)
    table: dict[str, Any] = {name: metrics.mean_interval(value, weights) for name, value in values.items()}
    kinds = np.array([scene.layout for scene in scenes])
    table["layouts"] = {
        layout: {
            "images": int((kinds == layout).sum()) * (len(readings) // len(scenes)),
            **{
                name: metrics.mean_interval(np.where(kinds == layout, values[name], np.nan), weights)
                for name in ACCURACIES
            },
        }
        for layout in LAYOUTS
        if layout in kinds
    }
    return table

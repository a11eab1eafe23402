"""The measures of one method's pictures: distances to real ones, accuracies, and what the tokenizer loses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from .. import pixels
from ..data.scenes import Scene, SceneDataset
from ..loading import tensors_digest
from ..models.scorer import Scorer
from ..models.tokenizer import ImageTokenizer
from ..pipeline import MarkovGenPipeline
from ..tensor_files import save_whole
from . import metrics
from .judging import ACCURACIES, BATCH, WAY_OF_LOOKING, Seen, accuracy_table, encode, judged_values, look, to_pixels
from .output import progress

if TYPE_CHECKING:
    from ..models.amused import AmusedTokenizer

REFERENCES = 2048
"""Real pictures that distances are measured to, unless another number is asked for."""
_REFERENCE_SEED = 1_000_003  # away from that of the prompts: scenes of the same split that no method is asked for


@dataclass(frozen=True, eq=False)
class Reference:
    """Real pictures of `grid` tokens that distances are measured to.

    `bigrams` (2, K²) counts neighbours of the codes' `groups` (V,).
    """

    grid: tuple[int, int]
    frechet: metrics.FrechetReference
    kernel: metrics.KernelReference
    unbiased: metrics.UnbiasedKernelReference
    detail_frechet: metrics.FrechetReference
    detail_unbiased: metrics.UnbiasedKernelReference
    bigrams: Tensor
    groups: Tensor


def reference_for(
    pipeline: MarkovGenPipeline,
    scorer: Scorer,
    scenes: SceneDataset,
    grid: tuple[int, int],
    count: int,
    cache: Path | None,
) -> Reference:
    """Features and tokens of `count` real pictures of the same kind of scenes, kept in `cache` for the next time.

    They are drawn as large as `grid` tokens make them, and shown to the scorer as pictures that are made so large are.
    """
    size = grid[1] * pipeline.tokenizer.factor
    real = SceneDataset(scenes.seed + _REFERENCE_SEED, size, scenes.split, scenes.vocabulary)
    look_of_the_world = hashlib.blake2b(b"".join(real[index][1].tobytes() for index in range(8)), digest_size=4)
    key = f"{look_of_the_world.hexdigest()}-{WAY_OF_LOOKING}-{scenes.split}-{len(scenes.nouns)}-{count}"
    path = cache / f"real-{key}-{tensors_digest(scorer, pipeline.tokenizer)}.safetensors" if cache else None
    if path and path.is_file():
        stored = load_file(path)
    else:
        pictures = [real[index][1] for index in progress(range(count), "real scenes")]
        seen = look(scorer, pictures)
        stored = {"features": torch.from_numpy(seen.features), "details": torch.from_numpy(seen.details)}
        stored["tokens"] = encode(pipeline.tokenizer, pictures, size).int()
        if path:
            save_whole(stored, path)
    values, details = stored["features"].numpy(), stored["details"].numpy()
    groups = metrics.coarse_codes(pipeline.tokenizer.codebook.cpu())
    bigrams = torch.stack(
        [metrics.bigram_counts(part.long(), grid, groups).sum(dim=0) for part in stored["tokens"].split(256)]
    ).sum(dim=0)  # (2, K²)
    distances = metrics.FrechetReference(values), metrics.KernelReference(values)
    unbiased = metrics.UnbiasedKernelReference(values)
    of_details = metrics.FrechetReference(details), metrics.UnbiasedKernelReference(details)
    return Reference(grid, *distances, unbiased, *of_details, bigrams, groups)


def quality(
    seen: Seen,
    tokens: Tensor | None,
    scenes: Sequence[Scene],
    reference: Reference,
    weights: np.ndarray,
    draws: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Every measure of one method, and the resampled values behind the intervals, for paired differences.

    Args:
        seen: what the scorer saw in M pictures, which lie seed by seed, prompt by prompt.
        tokens: (M, n) of the pictures, on the reference's grid; without them, neighbours are not measured.
        weights: (R, P) bootstrap weights of the prompts.
        draws: how many of the R resamples the distances get, which cost more than means.
    """
    count = len(seen.readings)
    seeds = count // len(scenes)
    weights_of_pictures = metrics.over_pictures(weights[:draws], seeds)
    equal = np.full((1, count), 1 / count)
    fd = reference.frechet(seen.features)
    fd_draws = metrics.distances(reference.frechet, seen.features, weights_of_pictures)
    rows = np.concatenate([equal, weights_of_pictures])  # (1 + R, M)
    kernel = reference.kernel.resampled(seen.features, rows)  # (1 + R,)
    unbiased = reference.unbiased.resampled(seen.features, rows)  # (1 + R,)
    detail_fd = reference.detail_frechet(seen.details)
    detail_draws = metrics.distances(reference.detail_frechet, seen.details, weights_of_pictures)
    detail_kid = reference.detail_unbiased.resampled(seen.details, rows)  # (1 + R,)
    table: dict[str, Any] = {
        "scene_fd": metrics.centred(fd, fd_draws),
        "cmmd": metrics.centred(float(kernel[0]), kernel[1:]),
        "kid": metrics.centred(float(unbiased[0]), unbiased[1:]),
        "detail_fd": metrics.centred(detail_fd, detail_draws),
        "detail_kid": metrics.centred(float(detail_kid[0]), detail_kid[1:]),
    }
    resampled = {"scene_fd": fd_draws, "cmmd": kernel[1:], "kid": unbiased[1:]}
    resampled |= {"detail_fd": detail_draws, "detail_kid": detail_kid[1:]}
    if tokens is not None:
        counts = metrics.bigram_counts(tokens, reference.grid, reference.groups)  # (M, 2, K²)
        mixed = torch.from_numpy(rows).float()  # (1 + R, M)
        tables = (mixed @ counts.flatten(1)).unflatten(1, (2, -1))  # (1 + R, 2, K²)
        bigrams = metrics.bigram_divergence(tables, reference.bigrams).numpy()
        table["bigram_divergence"] = metrics.centred(bigrams[0], bigrams[1:])
        resampled["bigram_divergence"] = bigrams[1:]
    table |= accuracy_table(scenes, seen.readings, weights)
    for name, values in judged_values(scenes, seen.readings).items():
        if name in ACCURACIES:
            resampled[name] = metrics.resampled_means(values, weights)[1]
    return table, resampled


def reconstruction(
    tokenizer: ImageTokenizer | AmusedTokenizer, scorer: Scorer, scenes: SceneDataset, count: int, weights: np.ndarray
) -> dict[str, Any]:
    """What is lost between a picture and its tokens: PSNR in dB at 128 and 256 px, codes in use, scorer accuracies.

    Accuracies are of the pictures of 256 px for a scorer of that size or more, else of those of 128 px.

    Args:
        count: the first scenes of the dataset that take part.
        weights: (R, count) bootstrap weights.
    """
    drawn = [scenes.scene(index) for index in range(count)]
    report: dict[str, Any] = {"images": count}
    kept: list[np.ndarray] = []
    used = torch.zeros(tokenizer.codebook_size, dtype=torch.bool)
    judged_size = 256 if scorer.config.size >= 256 else 128
    for size in (128, 256):
        values = []
        for start in progress(range(0, count, BATCH), f"reconstructions at {size} px"):
            rendered = [scenes.render(scene, size) for scene in drawn[start : start + BATCH]]
            originals = to_pixels(rendered, size, tokenizer.device)
            tokens = tokenizer.encode(originals)
            decoded = tokenizer.decode(tokens)
            values.append(metrics.psnr(decoded, originals).cpu())
            if size == 128:
                used[tokens.cpu().unique()] = True
            if size == judged_size:
                kept += list(pixels.to_levels(decoded))
        report[f"psnr_{size}"] = float(torch.cat(values).mean())
    report["codebook_use"] = float(used.float().mean())
    drawn_table = accuracy_table(drawn, look(scorer, [scenes.render(scene) for scene in drawn]).readings, weights)
    decoded_table = accuracy_table(drawn, look(scorer, kept).readings, weights)
    for name in ACCURACIES:
        report[name] = decoded_table[name]
        report[f"{name}_ratio"] = decoded_table[name]["value"] / max(drawn_table[name]["value"], 1e-9)
    return report

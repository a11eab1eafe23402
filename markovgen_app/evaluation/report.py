"""The quality table: every method on the same held-out prompts with the same seeds, judged by the scorer.

    markovgen evaluate --methods full,early-exit --images 500

A method is a name, with options after colons where it departs from the defaults: `full`, `early-exit:exit_step=12`,
`full:guidance_scale=2:temperature=0.8`. Pictures are made one by one, as the app makes them, the methods in turn, so
that their times are comparable.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import pixels
from ..data.scenes import LAYOUTS, Scene, SceneDataset
from ..data.vocabulary import FREQUENT_NOUNS, NOUNS
from ..errors import UserError
from ..models.scorer import Reading, Scorer
from ..models.tokenizer import ImageTokenizer
from ..pipeline import MarkovGenPipeline, Result
from ..requests import MAX_SEED, GenerateRequest
from ..runtime import choose_device, load_runtime
from ..settings import DEFAULT_MODEL, load_settings, model_path
from . import metrics
from .exits import EARLY_EXIT, Variant, finalised
from .output import plain, sheet, text_table, write_report

if TYPE_CHECKING:
    from ..models.amused import AmusedTokenizer

ACCURACIES = {
    "prompt_accuracy": "prompt",
    "object_accuracy": "objects",
    "background_accuracy": "background",
    "style_accuracy": "style",
}
_DETAILS = {"noun_accuracy": "nouns", "place_accuracy": "place", "colour_accuracy": "colour"}
_REFERENCE_SEED = (
    1_000_003  # real pictures to measure distances to: scenes of the same split that no method is asked for
)
_BATCH = 32
_TIMED = 12


@dataclass
class Made:
    """What one method made, seed by seed, prompt by prompt; times and calls only of pictures run by themselves."""

    images: list[Image.Image] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    model_seconds: list[float] = field(default_factory=list)
    transformer_calls: list[int] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """The picture of a run."""
        picture = result.images[0]
        self.images.append(picture.image)
        self.tokens.append(result.frames[-1][0].cpu())
        self.model_seconds.append(picture.model_seconds)
        self.transformer_calls.append(picture.transformer_calls)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the scorer saw in M pictures: readings, and features (M, F)."""

    readings: list[Reading]
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class Reference:
    """Real pictures that distances are measured to; `bigrams` (2, K²) counts neighbours of the codes' `groups` (V,)."""

    frechet: metrics.FrechetReference
    kernel: metrics.KernelReference
    bigrams: Tensor
    groups: Tensor


def parse_methods(text: str) -> dict[str, dict[str, Any]]:
    """Methods as typed → fields of a request. "full,early-exit:exit_step=8" has two.

    Raises:
        UserError: one line on what is wrong.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in (part.strip() for part in text.split(",")):
        method, *options = name.split(":")
        pairs = [option.partition("=") for option in options]
        if any(not value for _, _, value in pairs):
            raise UserError(f"{name!r} is no method: write options as in early-exit:exit_step=12.")
        fields = {"method": method, **{key: value for key, _, value in pairs}}
        GenerateRequest.validated(prompt="a panda", **fields)
        found[name] = fields
    return found


def available(methods: Mapping[str, dict[str, Any]], pipeline: MarkovGenPipeline) -> dict[str, dict[str, Any]]:
    """The methods that a pipeline can do; those it cannot are named on standard error."""
    left_out = [name for name, fields in methods.items() if fields["method"] not in pipeline.methods]
    if left_out:
        print(f"Left out for want of a random field: {', '.join(left_out)}.", file=sys.stderr)
    return {name: fields for name, fields in methods.items() if name not in left_out}


def parse_seeds(text: str) -> list[int]:
    """Seeds as typed: "0,1,2".

    Raises:
        UserError: not whole numbers, or none.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"Seeds are whole numbers parted by commas, such as 0,1,2, not {text!r}.") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError("Seeds are different whole numbers of 0 or more.")
    return seeds


def load_scorer(folder: Path, device: torch.device | str = "cpu") -> Scorer:
    """The trained scorer.

    Raises:
        UserError: it is not there, or damaged.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"There is no scorer in {folder}: train it with `markovgen train scorer --config configs/scorer.yaml`."
        )
    try:
        scorer = Scorer.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    except Exception as error:  # whatever a damaged file raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"The scorer in {folder} cannot be loaded: copy it again ({reason}).") from error
    return scorer.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def scenes_for(pipeline: MarkovGenPipeline, scorer: Scorer, split: str, seed: int = 0) -> SceneDataset:
    """Scenes of the words that both the weights and the scorer know.

    Raises:
        UserError: the scorer knows too few nouns, or there is no such split.
    """
    frequent = {noun.name for noun in FREQUENT_NOUNS}
    known = set(pipeline.vocabulary.nouns) or {noun.name for noun in NOUNS}
    vocabulary = "frequent" if known <= frequent else "full"
    try:
        scenes = SceneDataset(seed, scorer.config.size, split, vocabulary)  # type: ignore[arg-type]
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
    """Show pictures to the scorer."""
    readings: list[Reading] = []
    features = []
    for start in range(0, len(pictures), _BATCH):
        output = scorer(to_pixels(pictures[start : start + _BATCH], scorer.config.size, scorer.device))
        readings += scorer.readings(output)
        features.append(output.features.float().cpu().numpy())
    return Seen(readings, np.concatenate(features))


def request_for(scene: Scene, seed: int, index: int, fields: Mapping[str, Any]) -> GenerateRequest:
    """The request for prompt `index`: its noise is its own, and the same for every method."""
    noise = (seed * 1_000_003 + index) % (MAX_SEED + 1)
    return GenerateRequest.validated(prompt=scene.caption, seed=noise, **fields)


def generate(
    pipeline: MarkovGenPipeline, scenes: Sequence[Scene], seeds: Sequence[int], methods: Mapping[str, Mapping[str, Any]]
) -> dict[str, Made]:
    """Pictures of every scene's caption, with every seed, by every method in turn.

    The first `_TIMED` prompts of each seed are run method by method, which is where times and calls come from. After
    them, methods that leave the loop of `full` early get their pictures from one run of it (see `exits`).
    """
    made = {name: Made() for name in methods}
    shared = exits_of_full(pipeline, methods)
    for seed, index in progress(list(product(seeds, range(len(scenes)))), "prompts"):
        requests = {name: request_for(scenes[index], seed, index, fields) for name, fields in methods.items()}
        together = shared if index >= _TIMED else {}
        if together:
            field = {} if pipeline.mrf is None else {"mrf": pipeline.mrf}
            longest = next(name for name in together if methods[name]["method"] == "full")
            variants = [variant for variant in together.values() if variant is not None]
            whole, left = finalised(pipeline, field, variants, requests[longest])
            tokens = dict(zip(variants, left, strict=True))
            for name, variant in together.items():
                grid = whole if variant is None else tokens[variant]
                made[name].images += pipeline.to_images(grid.unsqueeze(0).to(pipeline.device))
                made[name].tokens.append(grid)
        for name in methods:
            if name not in together:
                for event in pipeline.run(requests[name]):
                    if isinstance(event, Result):
                        made[name].add(event)
    return made


def exits_of_full(pipeline: MarkovGenPipeline, methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Variant | None]:
    """Methods that share every step with a `full` among them, and how each leaves its loop; None: at the end.

    Empty where there is no such pair.
    """
    own = {"method", "exit_step", "finalise", "mrf_iterations", "mrf_clamp"}
    requests = {name: GenerateRequest.validated(prompt="-", seed=0, **fields) for name, fields in methods.items()}
    full = next((request for request in requests.values() if request.method == "full"), None)
    found: dict[str, Variant | None] = {}
    for name, request in requests.items():
        if len(pipeline.stages_for(request)) > 1:  # what the finer stages add is each method's own
            continue
        if full is None or request.model_dump(exclude=own) != full.model_dump(exclude=own):
            continue
        if request.method == "full":
            found[name] = None
        elif request.method in ("early-exit", "markovgen"):
            step = pipeline.decoding_settings(request).exit_step
            assert step is not None
            field = "mrf" if request.method == "markovgen" else EARLY_EXIT
            found[name] = Variant(step, field, request.mrf_iterations, request.mrf_clamp, request.finalise)
    return found if len(found) > 1 else {}


def _checksum(*models: torch.nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for model in models:
        for tensor in model.state_dict().values():
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def encode(
    tokenizer: ImageTokenizer | AmusedTokenizer, pictures: Sequence[Image.Image | np.ndarray], size: int
) -> Tensor:
    """Tokens of pictures at size × size pixels, (M, n), on the CPU."""
    parts = [
        tokenizer.encode(to_pixels(pictures[start : start + _BATCH], size, tokenizer.device)).cpu()
        for start in range(0, len(pictures), _BATCH)
    ]
    return torch.cat(parts)


def reference_for(
    pipeline: MarkovGenPipeline, scorer: Scorer, scenes: SceneDataset, count: int, cache: Path | None
) -> Reference:
    """Features and tokens of `count` real pictures of the same kind of scenes, kept in `cache` for the next time."""
    real = SceneDataset(scenes.seed + _REFERENCE_SEED, scenes.size, scenes.split, scenes.vocabulary)
    look_of_the_world = hashlib.blake2b(b"".join(real[index][1].tobytes() for index in range(8)), digest_size=4)
    key = f"{look_of_the_world.hexdigest()}-{scenes.split}-{len(scenes.nouns)}-{count}"
    path = cache / f"real-{key}-{_checksum(scorer, pipeline.tokenizer)}.safetensors" if cache else None
    if path and path.is_file():
        stored = load_file(path)
    else:
        pictures = [real[index][1] for index in progress(range(count), "real scenes")]
        features = torch.from_numpy(look(scorer, pictures).features)
        tokens = encode(pipeline.tokenizer, pictures, pipeline.size[0])
        stored = {"features": features, "tokens": tokens.int()}
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(stored, path)
    values = stored["features"].numpy()
    groups = metrics.coarse_codes(pipeline.tokenizer.codebook.cpu())
    bigrams = torch.stack(
        [metrics.bigram_counts(part.long(), pipeline.grid, groups).sum(dim=0) for part in stored["tokens"].split(256)]
    ).sum(dim=0)  # (2, K²)
    return Reference(metrics.FrechetReference(values), metrics.KernelReference(values), bigrams, groups)


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


def quality(
    pictures: Sequence[Image.Image],
    tokens: Tensor,
    scenes: Sequence[Scene],
    scorer: Scorer,
    pipeline: MarkovGenPipeline,
    reference: Reference,
    weights: np.ndarray,
    draws: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Every measure of one method, and the resampled values behind the intervals, for paired differences.

    Args:
        weights: (R, P) bootstrap weights of the prompts.
        draws: how many of the R resamples the distances get, which cost more than means.
    """
    seen = look(scorer, pictures)
    seeds = len(pictures) // len(scenes)
    weights_of_pictures = metrics.over_pictures(weights[:draws], seeds)
    equal = np.full((1, len(pictures)), 1 / len(pictures))
    fd = reference.frechet(seen.features)
    fd_draws = metrics.distances(reference.frechet, seen.features, weights_of_pictures)
    kernel = float(reference.kernel.resampled(seen.features, equal)[0])
    kernel_draws = reference.kernel.resampled(seen.features, weights_of_pictures)
    counts = metrics.bigram_counts(tokens, pipeline.grid, reference.groups)  # (M, 2, K²)
    mixed = torch.from_numpy(np.concatenate([equal, weights_of_pictures])).float()  # (1 + R, M)
    bigrams = metrics.bigram_divergence((mixed @ counts.flatten(1)).unflatten(1, (2, -1)), reference.bigrams).numpy()
    table: dict[str, Any] = {
        "scene_fd": metrics.centred(fd, fd_draws),
        "cmmd": metrics.centred(kernel, kernel_draws),
        "bigram_divergence": metrics.centred(bigrams[0], bigrams[1:]),
        **accuracy_table(scenes, seen.readings, weights),
    }
    resampled = {"scene_fd": fd_draws, "cmmd": kernel_draws, "bigram_divergence": bigrams[1:]}
    for name, values in judged_values(scenes, seen.readings).items():
        if name in ACCURACIES:
            resampled[name] = metrics.resampled_means(values, weights)[1]
    return table, resampled


def reconstruction(
    tokenizer: ImageTokenizer | AmusedTokenizer, scorer: Scorer, scenes: SceneDataset, count: int, weights: np.ndarray
) -> dict[str, Any]:
    """What is lost between a picture and its tokens: PSNR in dB at 128 and 256 px, codes in use, scorer accuracies.

    Args:
        count: the first scenes of the dataset that take part.
        weights: (R, count) bootstrap weights.
    """
    drawn = [scenes.scene(index) for index in range(count)]
    report: dict[str, Any] = {"images": count}
    kept: list[np.ndarray] = []
    used = torch.zeros(tokenizer.codebook_size, dtype=torch.bool)
    for size in (128, 256):
        values = []
        for start in progress(range(0, count, _BATCH), f"reconstructions at {size} px"):
            rendered = [scenes.render(scene, size) for scene in drawn[start : start + _BATCH]]
            originals = to_pixels(rendered, size, tokenizer.device)
            tokens = tokenizer.encode(originals)
            decoded = tokenizer.decode(tokens)
            values.append(metrics.psnr(decoded, originals).cpu())
            if size == 128:
                used[tokens.cpu().unique()] = True
                kept += list(pixels.to_levels(decoded))
        report[f"psnr_{size}"] = float(torch.cat(values).mean())
    report["codebook_use"] = float(used.float().mean())
    drawn_table = accuracy_table(drawn, look(scorer, [scenes.render(scene) for scene in drawn]).readings, weights)
    decoded_table = accuracy_table(drawn, look(scorer, kept).readings, weights)
    for name in ACCURACIES:
        report[name] = decoded_table[name]
        report[f"{name}_ratio"] = decoded_table[name]["value"] / max(drawn_table[name]["value"], 1e-9)
    return report


def evaluate(
    pipeline: MarkovGenPipeline,
    scorer: Scorer,
    methods: Mapping[str, Mapping[str, Any]],
    images: int,
    seeds: Sequence[int] = (0,),
    *,
    split: str = "test",
    references: int = 2048,
    reconstructions: int = 0,
    draws: int = 1000,
    distance_draws: int = 300,
    cache: Path | None = None,
) -> tuple[dict[str, Any], list[tuple[str, Image.Image]]]:
    """Judge methods on the first `images` held-out prompts, each with every seed.

    Args:
        methods: name → fields of the request (see `parse_methods`); differences are to the first one.
        references: real pictures that distances are measured to.
        reconstructions: scenes on which to measure the tokenizer; 0 leaves that out.
        draws, distance_draws: bootstrap resamples, for accuracies and for distances.
        cache: folder that keeps what is known of the real pictures.

    Returns:
        the report, ready for JSON, and the captions and pictures of the first method at the first seed.

    Raises:
        UserError: the scorer does not know these weights' nouns, or a method does not exist.
    """
    dataset = scenes_for(pipeline, scorer, split)
    scenes = [dataset.scene(index) for index in range(images)]
    weights = metrics.resamples(images, draws)
    reference = reference_for(pipeline, scorer, dataset, references, cache)
    renders = [dataset.render(scene) for scene in scenes]
    made = generate(pipeline, scenes, seeds, methods)

    real_tokens = encode(pipeline.tokenizer, renders, pipeline.size[0])
    real, _ = quality(
        [Image.fromarray(picture) for picture in renders],
        real_tokens,
        scenes,
        scorer,
        pipeline,
        reference,
        weights,
        distance_draws,
    )
    table: dict[str, Any] = {}
    first: tuple[dict[str, Any], dict[str, np.ndarray]] | None = None
    for name, work in made.items():
        tokens = torch.stack(work.tokens)
        values, resampled = quality(work.images, tokens, scenes, scorer, pipeline, reference, weights, distance_draws)
        table[name] = {
            **values,
            "model_seconds": float(np.median(work.model_seconds)),
            "transformer_calls": float(np.mean(work.transformer_calls)),
        }
        if first is None:
            first = values, resampled
        else:
            table[name]["difference"] = {
                key: metrics.centred(values[key]["value"] - first[0][key]["value"], resampled[key] - first[1][key])
                for key in resampled
            }
    report: dict[str, Any] = {
        "images": images,
        "seeds": list(seeds),
        "split": split,
        "nouns": len(dataset.nouns),
        "methods": table,
        "real": real,
    }
    if reconstructions:
        fresh = SceneDataset(dataset.seed + 1, dataset.size, "train", dataset.vocabulary)
        report["reconstruction"] = reconstruction(
            pipeline.tokenizer, scorer, fresh, reconstructions, metrics.resamples(reconstructions, draws)
        )
    shown = [(scene.caption, image) for scene, image in zip(scenes, next(iter(made.values())).images, strict=False)]
    return report, shown


def progress(items: Sequence, what: str) -> Iterator:
    """The items, with their progress on standard error every few seconds."""
    started = last = time.monotonic()
    for number, item in enumerate(items):
        yield item
        now = time.monotonic()
        if now - last > 10:
            last = now
            left = (now - started) / (number + 1) * (len(items) - number - 1)
            print(f"{what}: {number + 1}/{len(items)}, {left / 60:.1f} minutes left", file=sys.stderr, flush=True)


def main(
    model: str | None = None,
    methods: str = "full",
    images: int = 500,
    seeds: str = "0",
    as_json: bool = False,
    *,
    mrf: str | None = None,
    device: str | None = None,
    split: str = "test",
    scorer_folder: Path | None = None,
    references: int = 2048,
    reconstructions: int = 0,
    sheet_path: Path | None = None,
    out: Path | None = None,
) -> None:
    """`markovgen evaluate`: print the quality table, or one JSON object.

    Args:
        model: checkpoint, the settings' one if not given.
        methods, seeds: as typed, parted by commas.
        scorer_folder: the scorer's weights; weights/scorer if not given.
        sheet_path: PNG file for the first 16 pictures of the first method, unpicked, with their prompts.
        out: file for the JSON report, beside what is printed.

    Raises:
        UserError: one line on what is wrong.
    """
    with redirect_stdout(sys.stderr):
        chosen, numbers = parse_methods(methods), parse_seeds(seeds)
        if images < 2:
            raise UserError(f"Images must be 2 or more, not {images}: intervals need several prompts.")
        settings = load_settings(model=model, mrf=mrf, device=device)
        folder = scorer_folder or Path(model_path(DEFAULT_MODEL)) / "scorer"
        scorer = load_scorer(folder, choose_device(settings.device))
        runtime = load_runtime(settings)
        chosen = available(chosen, runtime.pipeline)
        report, pictures = evaluate(
            runtime.pipeline,
            scorer,
            chosen,
            images,
            numbers,
            split=split,
            references=references,
            reconstructions=reconstructions,
            cache=Path("runs/evaluation"),
        )
        report = {**plain(report), "command": command(methods, images, seeds, split, reconstructions)}
        if sheet_path:
            sheet(pictures, sheet_path)
        if out:
            write_report(report, out)
    print(json.dumps(report) if as_json else text_table(report))


def command(methods: str, images: int, seeds: str, split: str, reconstructions: int) -> str:
    """The line that measures the same once more on the weights that the settings name."""
    words = ["markovgen", "evaluate", "--methods", methods, "--images", str(images)]
    for option, value, usual in (
        ("--seeds", seeds, "0"),
        ("--split", split, "test"),
        ("--reconstructions", str(reconstructions), "0"),
    ):
        words += [option, value] if value != usual else []
    return shlex.join(words)

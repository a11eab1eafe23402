"""The quality table: every method on the same held-out prompts with the same seeds, judged by the scorer.

    markovgen evaluate --methods full,early-exit --images 500

What methods are asked for is in `generation`, what is measured in `quality`; this is the table of both, its intervals
and differences, and the command that prints it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.scenes import SceneDataset
from ..errors import UserError
from ..models.scorer import Scorer
from ..pipeline import MarkovGenPipeline
from ..runtime import choose_device, load_runtime
from ..settings import DEFAULT_MODEL, load_settings
from . import metrics
from .generation import (
    available,
    counterparts,
    enlarged_picture,
    generate,
    grid_of,
    parse_methods,
    parse_seeds,
    picture_of,
)
from .judging import ACCURACIES, encode, load_scorer, look, scenes_for
from .kept import Kept
from .output import check_files, command_line, pairs_sheet, plain, sheet, text_table, write_report
from .quality import REFERENCES, quality, reconstruction, reference_for

_FOLDER = Path("runs/evaluation")
_SHOWN = 16
"""Prompts, or scenes, of which pictures are shown."""
_ROWS = 8


@dataclass(frozen=True, eq=False)
class Example:
    """A prompt with pictures of it, by what they are; `method` is the name of the first method's."""

    caption: str
    method: str
    pictures: dict[str, Image.Image]


def evaluate(
    pipeline: MarkovGenPipeline,
    scorer: Scorer,
    methods: Mapping[str, Mapping[str, Any]],
    images: int,
    seeds: Sequence[int] = (0,),
    *,
    split: str = "test",
    open_backgrounds: float = 0.0,
    references: int = REFERENCES,
    reconstructions: int = 0,
    draws: int = 1000,
    distance_draws: int = 300,
    cache: Path | None = None,
    kept: Kept | None = None,
) -> tuple[dict[str, Any], list[Example]]:
    """Judge methods on the first `images` held-out prompts, each with every seed.

    Pictures are of the size that a method asks for, the largest if none, and are compared with real ones of that size;
    the row of real pictures is of the first method's. Where that goes on to finer stages, its base's pictures, enlarged
    to its size, are judged, too.

    Args:
        methods: name → fields of the request (see `parse_methods`); the report has the differences of `counterparts`.
        open_backgrounds: share of the prompts that say nothing of the background, where any is right.
        references: real pictures that distances are measured to.
        reconstructions: scenes on which to measure the tokenizer; 0 leaves that out.
        draws, distance_draws: bootstrap resamples, for accuracies and for distances.
        cache: folder that keeps what is known of the real pictures.
        kept: what a stopped evaluation was done with, and this one will be.

    Returns:
        the report, ready for JSON, and the first prompts with their pictures at the first seed.

    Raises:
        UserError: the scorer does not know these weights' nouns, a method does not exist, or no stage makes its size.
    """
    dataset = scenes_for(pipeline, scorer, split, open_backgrounds)
    scenes = [dataset.scene(index) for index in range(images)]
    weights = metrics.resamples(images, draws)
    grids = {name: grid_of(pipeline, fields) for name, fields in methods.items()}
    by_grid = {
        grid: reference_for(pipeline, scorer, dataset, grid, references, cache)
        for grid in dict.fromkeys(grids.values())
    }
    made, enlarged = generate(pipeline, scorer, scenes, seeds, methods, kept)

    reference = next(iter(by_grid.values()))
    size = reference.grid[1] * pipeline.tokenizer.factor
    renders = [dataset.render(scene, size) for scene in scenes]
    tokens = encode(pipeline.tokenizer, renders, size)
    real, _ = quality(look(scorer, renders), tokens, scenes, reference, weights, distance_draws)
    if len(seeds) > 1:  # distances shrink with the number of pictures, and real ones there are one a prompt
        real |= dict.fromkeys(("scene_fd", "cmmd", "detail_fd"), metrics.UNKNOWN)
    table: dict[str, Any] = {}
    resampled: dict[str, dict[str, np.ndarray]] = {}
    for name, work in made.items():
        own = by_grid[grids[name]]
        values, resampled[name] = quality(work.seen, work.tokens, scenes, own, weights, distance_draws)
        table[name] = {
            "size": grids[name][1] * pipeline.tokenizer.factor,
            **values,
            "model_seconds": float(np.median(work.model_seconds)),
            "transformer_calls": float(np.mean(work.transformer_calls)),
        }
    for name, others in counterparts(pipeline, methods).items():
        table[name]["differences"] = {
            other: {
                key: metrics.centred(
                    table[name][key]["value"] - table[other][key]["value"], drawn - resampled[other][key]
                )
                for key, drawn in resampled[name].items()
                if grids[name] == grids[other] or key in ACCURACIES  # distances are to real pictures of one size
            }
            for other in others
        }
    report: dict[str, Any] = {
        "images": images,
        "seeds": list(seeds),
        "split": split,
        "open_backgrounds": open_backgrounds,
        "nouns": len(dataset.nouns),
        "scorer_size": scorer.config.size,
        "methods": table,
        "real": real,
    }
    first = next(iter(methods))
    if enlarged:
        values, drawn_enlarged = quality(enlarged.seen, None, scenes, reference, weights, distance_draws)
        report["enlarged"] = {
            "from": pipeline.sizes[0],
            "size": size,
            "method": first,
            **values,
            **{
                f"{key}_share": metrics.quotient(
                    table[first][key]["value"], resampled[first][key], values[key]["value"], drawn_enlarged[key]
                )
                for key in ("scene_fd", "kid", "detail_fd", "detail_kid")
            },
        }
    if reconstructions:
        fresh = SceneDataset(dataset.seed + 1, dataset.size, "train", dataset.vocabulary)
        report["reconstruction"] = reconstruction(
            pipeline.tokenizer, scorer, fresh, reconstructions, metrics.resamples(reconstructions, draws)
        )
    shown = [
        first,
        *[name for name, fields in methods.items() if fields["method"] == "markovgen" and name != first][:1],
    ]
    examples = []
    for index, scene in enumerate(scenes[:_SHOWN]):
        pictures = {name: picture_of(pipeline, made[name].shown[index].tokens) for name in shown}
        if enlarged:
            base = enlarged_picture(pipeline, enlarged.shown[index].tokens, size)
            pictures = {f"{pipeline.sizes[0]} px enlarged": base, **pictures}
        examples.append(Example(scene.caption, first, {**pictures, "real": Image.fromarray(renders[index])}))
    return report, examples


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
    open_backgrounds: float = 0.0,
    scorer_folder: Path | None = None,
    references: int = REFERENCES,
    reconstructions: int = 0,
    sheet_path: Path | None = None,
    pairs_path: Path | None = None,
    columns_path: Path | None = None,
    out: Path | None = None,
) -> None:
    """`markovgen evaluate`: print the quality table, or one JSON object; a stopped one goes on where it was.

    Args:
        model: checkpoint, the settings' one if not given.
        methods, seeds: as typed, parted by commas.
        scorer_folder: the scorer's weights; weights/scorer if not given.
        sheet_path: PNG or WebP file for the first 16 pictures of the first method, unpicked, with their prompts.
        pairs_path: file for the split's first 16 scenes, each above what the checkpoint's tokenizer makes of it.
        columns_path: file for the first prompts, one a row: the base's picture enlarged where there are stages
            above it, the first method's, markovgen's if that is another one, and the real one.
        out: file for the JSON report, beside what is printed.

    Raises:
        UserError: one line on what is wrong.
    """
    with redirect_stdout(sys.stderr):
        chosen, numbers = parse_methods(methods), parse_seeds(seeds)
        if images < 2:
            raise UserError(f"Images must be 2 or more, not {images}: intervals need several prompts.")
        check_files((sheet_path, pairs_path, columns_path), out)
        settings = load_settings(model=model, mrf=mrf, device=device)
        scorer = load_scorer(scorer_folder, choose_device(settings.device))
        runtime = load_runtime(settings)
        chosen = available(chosen, runtime.pipeline)
        if pairs_path:
            scenes, size = scenes_for(runtime.pipeline, scorer, split), runtime.pipeline.sizes[-1]
            originals = [scenes.render(scenes.scene(index), size) for index in range(_SHOWN)]
            pairs_sheet(runtime.pipeline.tokenizer, originals, pairs_path)
        kept = Kept.of(runtime.pipeline, scorer, chosen, _FOLDER)
        report, examples = evaluate(
            runtime.pipeline,
            scorer,
            chosen,
            images,
            numbers,
            split=split,
            open_backgrounds=open_backgrounds,
            references=references,
            reconstructions=reconstructions,
            cache=_FOLDER,
            kept=kept,
        )
        again = command(
            methods,
            images,
            seeds,
            split,
            reconstructions,
            open_backgrounds=open_backgrounds,
            references=references,
            scorer_folder=scorer_folder,
            model=settings.model,
            mrf=settings.mrf,
            device=settings.device,
        )
        report = {**plain(report), "command": again}
        if sheet_path:
            sheet([(each.caption, each.pictures[each.method]) for each in examples], sheet_path)
        if columns_path:
            rows = examples[:_ROWS]
            pictures = [(f"{title} · {row.caption}", image) for row in rows for title, image in row.pictures.items()]
            sheet(pictures, columns_path, len(pictures), len(rows[0].pictures))
        if out:
            write_report(report, out)
        kept.remove()
    print(json.dumps(report) if as_json else text_table(report))


def command(
    methods: str,
    images: int,
    seeds: str,
    split: str,
    reconstructions: int,
    *,
    open_backgrounds: float = 0.0,
    references: int = REFERENCES,
    scorer_folder: Path | None = None,
    model: str = DEFAULT_MODEL,
    mrf: str | None = None,
    device: str = "auto",
) -> str:
    """The line that measures the same once more, also where the environment named the weights.

    What is as it would be anyway is left out.
    """
    return command_line(
        "evaluate",
        ("--methods", methods, None),
        ("--images", images, None),
        ("--seeds", seeds, "0"),
        ("--split", split, "test"),
        ("--open-backgrounds", open_backgrounds, 0.0),
        ("--references", references, REFERENCES),
        ("--reconstructions", reconstructions, 0),
        ("--scorer", scorer_folder, None),
        ("--model", model, DEFAULT_MODEL),
        ("--mrf", mrf, None),
        ("--device", device, "auto"),
    )

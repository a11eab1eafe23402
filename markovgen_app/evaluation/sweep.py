"""The sweep of what the MarkovGen paper leaves open.

Exit step, form of the field, iterations, clamping, how the rest is finalised and at which temperature it is drawn.

    markovgen sweep --fields runs/mrf/weights,runs/mrf-dense/weights --images 200

Every prompt is decoded once, to the end; at each exit step the loop's state and its generator are kept, and every
variant finalises that same state with that same noise: variants differ by nothing else, and cost no transformer call.
The split is `tune`: what is chosen here is confirmed by `markovgen evaluate` on `test`. `--stage 1` sweeps the first
super-resolution stage: all its variants refine the same coarse tokens, those of the base's full run.

The default plan turns one knob at a time around a centre, at every exit step; `--grid` crosses all of them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.scenes import Scene
from ..errors import UserError
from ..ladder import Stage, check_field
from ..loading import load_field
from ..models.mrf import MarkovRandomField
from ..models.scorer import Reading, Scorer
from ..pipeline import MarkovGenPipeline
from ..pixels import to_levels
from ..runtime import choose_device, load_runtime
from ..settings import DEFAULT_MODEL, load_settings
from . import metrics
from .exits import EARLY_EXIT, Variant, finalised
from .generation import request_for
from .judging import judged_values, load_scorer, look, scenes_for
from .output import command_line, plain, progress, write_report
from .quality import REFERENCES, Reference, reference_for
from .sweep_output import plot, text_table

FULL = "full"
ITERATIONS = "3,1,2,5,8"
TEMPERATURES = (0.5, 0.25, 0.0)
EXIT_STEPS, STEPS = "6,8,10,12,16,18,20", 24
FINER_EXIT_STEPS, FINER_STEPS = "2,3,4,5,6", 8  # of the stages above the base


@dataclass(frozen=True)
class Knobs:
    """The values that are swept; the first of each list but the exit steps is the centre."""

    exit_steps: tuple[int, ...] = (6, 8, 10, 12, 16, 18, 20)
    iterations: tuple[int, ...] = (3, 1, 2, 5, 8)
    clamp: tuple[bool, ...] = (True, False)
    finalise: tuple[str, ...] = ("perturb", "sample", "argmax", "decimate")
    temperature: tuple[float | None, ...] = (None, *TEMPERATURES)  # None: that of all draws


def plan(fields: Sequence[str], knobs: Knobs, grid: bool = False) -> list[Variant]:
    """All variants to measure, baselines included; `fields` are names, the first is the centre."""
    found: dict[Variant, None] = {}
    for step in knobs.exit_steps:
        found |= dict.fromkeys(_plain(Variant(step, temperature=each)) for each in knobs.temperature)
        if not fields:
            continue
        turned: dict[str, Sequence[Any]] = {
            "field": fields,
            "iterations": knobs.iterations,
            "clamp": knobs.clamp,
            "finalise": knobs.finalise,
            "temperature": knobs.temperature,
        }
        if grid:
            crossed = (dict(zip(turned, values, strict=True)) for values in product(*turned.values()))
            found |= dict.fromkeys(_plain(Variant(step, **each)) for each in crossed)
            continue
        centre = Variant(step, **{name: values[0] for name, values in turned.items()})
        each_knob = ({name: value} for name, values in turned.items() for value in values)
        found |= dict.fromkeys(_plain(replace(centre, **knob)) for knob in each_knob)
    return list(found)


def _plain(variant: Variant) -> Variant:
    """With the knobs that mean something: a decimation has its tokens fixed, and without chance nothing is drawn."""
    if variant.finalise == "decimate":
        return replace(variant, clamp=True)
    likeliest = variant.finalise == "argmax" or variant.temperature == 0
    return replace(variant, finalise="argmax", temperature=0.0) if likeliest else variant


def sweep(
    pipeline: MarkovGenPipeline,
    fields: Mapping[str, MarkovRandomField],
    scorer: Scorer,
    variants: Sequence[Variant],
    images: int,
    *,
    options: Mapping[str, Any],
    split: str = "tune",
    open_backgrounds: float = 0.0,
    references: int = REFERENCES,
    draws: int = 200,
    cache: Path | None = None,
    number: int = 0,
) -> dict[str, Any]:
    """Measure every variant, and the full run, on the first `images` prompts of a split.

    Args:
        fields: name → random field, as the variants name them.
        options: fields of the request of the full run, such as steps and guidance scale.
        open_backgrounds: share of the prompts that say nothing of the background.
        draws: bootstrap resamples over prompts, for the intervals.
        number: the stage that is swept; those below take all of their steps.

    Raises:
        UserError: an exit step is beyond the steps, a field does not fit, the checkpoint has no such stage, or the
            scorer does not know the nouns.
    """
    stage = pipeline.stage(number)
    dataset = scenes_for(pipeline, scorer, split, open_backgrounds)
    scenes = [dataset.scene(index) for index in range(images)]
    reference = reference_for(pipeline, scorer, dataset, stage.grid, references, cache)
    names: list[Variant | str] = [FULL, *variants]
    tokens: list[list[Tensor]] = [[] for _ in names]
    features: list[list[np.ndarray]] = [[] for _ in names]
    readings: list[list[Any]] = [[] for _ in names]
    for index in progress(range(images), "prompts"):
        request = request_for(scenes[index], 0, index, {**options, "method": FULL})
        whole, taken = finalised(pipeline, fields, variants, request, number)
        for place, (grid, seen) in enumerate(_looked_at(pipeline, scorer, stage, [whole, *taken])):
            tokens[place].append(grid)
            features[place].append(seen.features)
            readings[place] += seen.readings
    weights = metrics.resamples(images, draws)
    rows = []
    for place, name in enumerate(names):
        values = _measured(
            scenes,
            torch.stack(tokens[place]),
            np.concatenate(features[place]),
            readings[place],
            reference,
            weights,
        )
        told = {"method": FULL} if isinstance(name, str) else {"method": _method(name), **asdict(name)}
        rows.append({**told, **values})
    asked = {"images": images, "split": split, "open_backgrounds": open_backgrounds, "options": dict(options)}
    return {"stage": number, **asked, "rows": rows}


def _looked_at(
    pipeline: MarkovGenPipeline, scorer: Scorer, stage: Stage, grids: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Any]]:
    for start in range(0, len(grids), 16):
        part = torch.stack(list(grids[start : start + 16]))  # (B, n)
        pictures = list(to_levels(pipeline.tokenizer.decode(part.to(pipeline.device), stage.grid)))
        for grid, picture in zip(part, pictures, strict=True):
            yield grid, look(scorer, [picture])


def _method(variant: Variant) -> str:
    return EARLY_EXIT if variant.field == EARLY_EXIT else "markovgen"


def _measured(
    scenes: Sequence[Scene],
    tokens: Tensor,
    features: np.ndarray,
    readings: Sequence[Reading],
    reference: Reference,
    weights: np.ndarray,
) -> dict[str, metrics.Interval]:
    equal = np.full((1, len(features)), 1 / len(features))
    mixed = np.concatenate([equal, weights])  # (1 + R, M)
    kernel = reference.kernel.resampled(features, mixed)
    counts = metrics.bigram_counts(tokens, reference.grid, reference.groups)  # (M, 2, K²)
    shares = (torch.from_numpy(mixed).float() @ counts.flatten(1)).unflatten(1, (2, -1))  # (1 + R, 2, K²)
    bigrams = metrics.bigram_divergence(shares, reference.bigrams).numpy()
    return {
        "scene_fd": metrics.centred(
            reference.frechet(features), metrics.distances(reference.frechet, features, weights)
        ),
        "cmmd": metrics.centred(float(kernel[0]), kernel[1:]),
        "bigram_divergence": metrics.centred(float(bigrams[0]), bigrams[1:]),
        "prompt_accuracy": metrics.mean_interval(judged_values(scenes, readings)["prompt_accuracy"], weights),
    }


def whole_numbers(text: str, what: str) -> tuple[int, ...]:
    """Numbers as typed, parted by commas; UserError where they are none."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{what} are whole numbers parted by commas, not {text!r}.") from None


def temperatures_typed(text: str) -> tuple[float, ...]:
    """Temperatures as typed, parted by commas; UserError where they are none."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        raise UserError(f"Temperatures are numbers from 0 on, parted by commas, not {text!r}.")
    return values


def main(
    model: str | None = None,
    fields: str = "",
    images: int = 200,
    as_json: bool = False,
    *,
    stage: int = 0,
    exit_steps: str | None = None,
    iterations: str = ITERATIONS,
    temperatures: str | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    grid: bool = False,
    split: str = "tune",
    open_backgrounds: float = 0.0,
    references: int = REFERENCES,
    device: str | None = None,
    scorer_folder: Path | None = None,
    plot_path: Path | None = None,
    out: Path | None = None,
) -> None:
    """`markovgen sweep`: print the table, or one JSON object.

    Args:
        fields: folders of random fields, parted by commas, the centre first; if empty the one that the environment
            names for the base, else the checkpoint's own of that stage.
        stage: number of the stage to sweep, 0 the base.
        exit_steps, steps: if None, 6 to 20 of 24 for the base and 2 to 6 of 8 for the stages above it.
        temperatures: of the draws at the exit, parted by commas, the centre first; if None the centre field's own, that
            of all draws, and `TEMPERATURES`.
        grid: cross all knobs instead of turning one at a time.
        references: real pictures that distances are measured to.
        plot_path: PNG or SVG file.

    Raises:
        UserError: one line on what is wrong.
    """
    with redirect_stdout(sys.stderr):
        usual = (FINER_EXIT_STEPS, FINER_STEPS) if stage else (EXIT_STEPS, STEPS)
        exits, planned = exit_steps or usual[0], steps or usual[1]
        knobs = Knobs(whole_numbers(exits, "Exit steps"), whole_numbers(iterations, "Iterations"))
        if temperatures is not None:
            knobs = replace(knobs, temperature=temperatures_typed(temperatures))
        if not 1 <= min(knobs.exit_steps) <= max(knobs.exit_steps) <= planned:
            raise UserError(f"Exit steps must be between 1 and the {planned} steps, not {exits}.")
        if min(knobs.iterations) < 1:
            raise UserError(f"Iterations must be 1 or more, not {iterations}.")
        if images < 2:
            raise UserError(f"Images must be 2 or more, not {images}: intervals need several prompts.")
        settings = load_settings(model=model, device=device)
        fields = fields or ("" if stage else settings.mrf) or ""
        scorer = load_scorer(scorer_folder, choose_device(settings.device))
        pipeline = load_runtime(settings).pipeline
        swept = pipeline.stage(stage)
        paths = [path for path in fields.split(",") if path]
        names = [_name(Path(path)) for path in paths]
        names = names if len(set(names)) == len(names) else paths
        named = {name: load_field(Path(path)) for name, path in zip(names, paths, strict=True)}
        if not named and swept.mrf is not None:
            named = {"mrf": swept.mrf}
        for field in named.values():
            check_field(field, swept.transformer, f" of {swept.name}" if stage else "")
            torch.nn.Module.to(field, pipeline.device)
        if named:  # the centre is what its field is for
            own = next(iter(named.values())).config
            knobs = replace(knobs, finalise=tuple(dict.fromkeys([own.finalise, *knobs.finalise])))
            if temperatures is None:
                knobs = replace(knobs, temperature=tuple(dict.fromkeys([own.exit_temperature, *knobs.temperature])))
        of_stage = "super_resolution_" if stage else ""
        options: dict[str, Any] = {f"{of_stage}steps": planned}
        if guidance_scale is not None:
            options[f"{of_stage}guidance_scale"] = guidance_scale
        report = sweep(
            pipeline,
            named,
            scorer,
            plan(list(named), knobs, grid),
            images,
            options=options,
            split=split,
            open_backgrounds=open_backgrounds,
            references=references,
            cache=Path("runs/evaluation"),
            number=stage,
        )
        again = command(
            fields,
            images,
            stage=stage,
            exit_steps=exit_steps,
            iterations=iterations,
            temperatures=temperatures,
            steps=steps,
            guidance_scale=guidance_scale,
            grid=grid,
            split=split,
            open_backgrounds=open_backgrounds,
            references=references,
            scorer_folder=scorer_folder,
            model=settings.model,
            device=settings.device,
        )
        report = {**plain(report), "command": again}
        if out:
            write_report(report, out)
        if plot_path:
            plot(report, plot_path)
    print(json.dumps(report) if as_json else text_table(report))


def command(
    fields: str,
    images: int,
    *,
    stage: int = 0,
    exit_steps: str | None = None,
    iterations: str = ITERATIONS,
    temperatures: str | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    grid: bool = False,
    split: str = "tune",
    open_backgrounds: float = 0.0,
    references: int = REFERENCES,
    scorer_folder: Path | None = None,
    model: str = DEFAULT_MODEL,
    device: str = "auto",
) -> str:
    """The line that sweeps the same once more, also where the environment named the weights or the field."""
    return command_line(
        "sweep",
        ("--fields", fields, ""),
        ("--images", images, None),
        ("--stage", stage, 0),
        ("--exit-steps", exit_steps, None),
        ("--iterations", iterations, ITERATIONS),
        ("--temperatures", temperatures, None),
        ("--steps", steps, None),
        ("--guidance", guidance_scale, None),
        ("--grid", grid, False),
        ("--split", split, "tune"),
        ("--open-backgrounds", open_backgrounds, 0.0),
        ("--references", references, REFERENCES),
        ("--scorer", scorer_folder, None),
        ("--model", model, DEFAULT_MODEL),
        ("--device", device, "auto"),
    )


def _name(folder: Path) -> str:
    """runs/NAME/weights → NAME, else the folder's own name."""
    return folder.parent.name if folder.name == "weights" else folder.name

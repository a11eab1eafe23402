"""Editing against ground truth: held-out scenes in which one thing changes, so that the right picture is known.

    markovgen evaluate --task inpaint --methods full,early-exit --images 300
    markovgen evaluate --task edit --methods full:strength=0.5,markovgen:strength=0.5 --images 300

Every case is a scene with one object, and the same scene with another object, with none, or on another background. The
scorer says what is seen. Two rows say what is in reach: the true pictures themselves, and the tokenizer's
reconstructions of them. Variants that differ in their method alone are compared case by case: their noise is the same.
Rounds by chance are the start of a stronger edit's, so strengths of full:remask=chance cost one run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..decoding.editing import rounds_of
from ..errors import UserError
from ..models.scorer import Scorer
from ..patches import patches
from ..picture_requests import EditRequest, InpaintRequest, PictureRequest
from ..pipeline import MarkovGenPipeline
from ..requests import MAX_SEED, DecodingRequest
from ..runtime import choose_device, load_runtime
from ..settings import DEFAULT_MODEL, load_settings
from . import metrics
from .cases import CHANGES, Case, Task, cases
from .edit_measures import Before, Made, judged, measures
from .generation import available, method_typed
from .judging import load_scorer, look, scenes_for
from .output import aligned, cell, check_files, command_line, plain, progress, sheet, write_report
from .reach import decoder_reach
from .summaries import counterparts, difference, summary

_REQUESTS: dict[Task, type[PictureRequest]] = {"inpaint": InpaintRequest, "edit": EditRequest}
_SOURCE = "+source"


def parse_variants(text: str, task: Task) -> dict[str, dict[str, Any]]:
    """Variants as typed → fields of a request: "full,full:strength=0.5+source" has two.

    "+source" at the end of one for the task edit tells the model what the picture shows before.

    Raises:
        UserError: one line on what is wrong.
    """
    found: dict[str, dict[str, Any]] = {}
    blank = Image.new("RGB", (32, 32))
    for name in (part.strip() for part in text.split(",")):
        fields = method_typed(name.removesuffix(_SOURCE), "full:strength=0.5")
        task_fields = {"rectangle": (0, 0, 8, 8)} if task == "inpaint" else {}
        _REQUESTS[task].validated(prompt="a panda", image=blank, **task_fields, **fields)
        if name.endswith(_SOURCE):
            if task != "edit":
                raise UserError("Only --task edit reads what the picture shows before (+source).")
            fields[_SOURCE] = True
        found[name] = fields
    return found


def _request(case: Case, index: int, task: Task, fields: Mapping[str, Any]) -> PictureRequest:
    """The request for case `index`: its noise is its own, and the same for every variant."""
    given = {key: value for key, value in fields.items() if key != _SOURCE}
    given |= {"prompt": case.prompt, "image": Image.fromarray(case.picture), "seed": index % (MAX_SEED + 1)}
    if task == "inpaint":
        given["mask"] = case.mask
    elif fields.get(_SOURCE):
        given["source_prompt"] = case.source_prompt
    return _REQUESTS[task].validated(**given)


def make(
    pipeline: MarkovGenPipeline, work: Sequence[Case], task: Task, variants: Mapping[str, Mapping[str, Any]], what: str
) -> dict[str, list[Made]]:
    """Every variant's picture of every case."""
    made: dict[str, list[Made]] = {name: [] for name in variants}
    first = _request(work[0], 0, task, next(iter(variants.values())))
    groups = (
        _sharing(variants) if task == "edit" and len(pipeline.stages_for(first)) == 1 else [[name] for name in variants]
    )
    for index in progress(range(len(work)), what):
        for names in groups:
            strongest = max(names, key=lambda name: _last_step(variants[name]) if len(names) > 1 else 0)
            result = pipeline.result(_request(work[index], index, task, variants[strongest]))
            for name in names:
                step = _last_step(variants[name]) if len(names) > 1 else len(result.frames) - 1
                tokens = result.frames[step][:1]
                raw = pipeline.to_images(tokens)[0]
                seconds = result.images[0].model_seconds * (step + 1) / len(result.frames)
                made[name].append(
                    Made(
                        np.asarray(result.frame(step)),
                        np.asarray(raw),
                        tokens[0].cpu().numpy(),
                        open_tokens(pipeline, result.request),
                        seconds,
                    )
                )
    return made


def open_tokens(pipeline: MarkovGenPipeline, request: DecodingRequest) -> np.ndarray:
    """The base's tokens (n,) bool that a request of one window lets change."""
    return next(patches(request, pipeline.size, pipeline.grid)).open_tokens(pipeline.size, pipeline.grid)


def _sharing(variants: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Names of edits that are steps of one run: by chance, of other strengths, and no random field ends them."""
    groups: dict[str, list[str]] = {}
    for name, fields in variants.items():
        same = {key: value for key, value in fields.items() if key != "strength"}
        shared = fields["method"] == "full" and fields.get("remask") == "chance"
        groups.setdefault(json.dumps(same, sort_keys=True) if shared else name, []).append(name)
    return list(groups.values())


def _last_step(fields: Mapping[str, Any]) -> int:
    return rounds_of(float(fields.get("strength", EditRequest.model_fields["strength"].default))) - 1


def through_tokenizer(pipeline: MarkovGenPipeline, pictures: Sequence[np.ndarray]) -> list[Before]:
    """Pictures of the pipeline's size as tokens and back; one by one, as a request has them."""
    tokens = [pipeline.encode([Image.fromarray(picture)]) for picture in pictures]  # each (1, n)
    return [Before(row[0].cpu().numpy(), np.asarray(pipeline.to_images(row)[0])) for row in tokens]


def evaluate(
    pipeline: MarkovGenPipeline,
    scorer: Scorer,
    task: Task,
    variants: Mapping[str, Mapping[str, Any]],
    images: int,
    *,
    split: str = "test",
    draws: int = 1000,
) -> tuple[dict[str, Any], list[tuple[str, Image.Image]]]:
    """Judge variants on the first `images` cases of each kind of change.

    Returns:
        the report, ready for JSON; and the first cases, before and after by the first variant, with their prompts.

    Raises:
        UserError: the scorer does not know these weights' nouns, or there is no such split.
    """
    dataset = scenes_for(pipeline, scorer, split)
    weights = metrics.resamples(images, draws)
    report: dict[str, Any] = {
        "task": task,
        "images": images,
        "split": split,
        "nouns": len(dataset.nouns),
        "changes": {},
    }
    shown: list[tuple[str, Image.Image]] = []
    for change in CHANGES[task]:
        work = cases(dataset, change, images, pipeline.size[0])
        made = make(pipeline, work, task, variants, change)
        befores = through_tokenizer(pipeline, [case.picture for case in work])
        if task == "inpaint" and "decoder_reach" not in report:
            tokens = torch.from_numpy(np.stack([each.tokens for each in befores])).to(pipeline.device)  # (P, n)
            report["decoder_reach"] = decoder_reach(pipeline.to_images, tokens, pipeline.grid)
        truths = [case.truth for case in work]
        reach = report.get("decoder_reach", 0)
        rows = {
            name: measures(change, work, each, befores, scorer, _feather(variants[name]), pipeline.grid, reach)
            for name, each in made.items()
        }
        reconstructed = [each.reconstruction for each in through_tokenizer(pipeline, truths)]
        for name, pictures in {"tokenizer": reconstructed, "true pictures": truths}.items():
            readings = look(scorer, pictures).readings
            found = [judged(change, case, reading) for case, reading in zip(work, readings, strict=True)]
            rows[name] = {key: np.array([row[key] for row in found]) for key in found[0]}
        table = report["changes"][change] = {name: summary(values, weights) for name, values in rows.items()}
        for name, others in counterparts(variants).items():
            if others:
                table[name]["differences"] = {other: difference(rows[name], rows[other], weights) for other in others}
        for case, each in islice(zip(work, next(iter(made.values())), strict=True), 4):
            shown += [(f"before: {case.source_prompt}", Image.fromarray(case.picture))]
            shown += [(case.prompt, Image.fromarray(each.image))]
    return report, shown


def _feather(fields: Mapping[str, Any]) -> int:
    return int(fields.get("feather", PictureRequest.model_fields["feather"].default))


def text_table(report: Mapping[str, Any]) -> str:
    """The report for people: a table a kind of change, 95 % intervals in brackets."""
    lines: list[str] = []
    for change, rows in report["changes"].items():
        lines += [*_aligned({(name,): values for name, values in rows.items()}, [change]), ""]
        differences: dict[tuple[str, ...], Any] = {
            (name, other): values
            for name, measured in rows.items()
            for other, values in measured.get("differences", {}).items()
        }
        if differences:
            lines += [*_aligned(differences, [f"{change}, on the same cases", "less"]), ""]
    if reach := report.get("decoder_reach"):
        lines.append(
            f"kept psnr, without paste-back, and reconstruction psnr are of the pixels more than {reach} away from all"
            " tokens that may change: closer ones the decoder draws from those tokens, too. kept share: how many of a"
            " picture's pixels that are; cases without any do not count."
        )
    return "\n".join(
        [
            *lines,
            f"{report['images']} cases of the {report['split']} split for each change, {report['nouns']} nouns."
            " Brackets: 95 % bootstrap intervals over cases; a method makes a difference where that of its difference"
            " leaves out 0.",
            "The last two rows of each table are what the scorer finds in the true pictures, and in them after the"
            " tokenizer.",
        ]
    )


def _aligned(rows: Mapping[tuple[str, ...], Mapping[str, Any]], heading: Sequence[str]) -> list[str]:
    """Rows of measures under their names."""
    columns = list(dict.fromkeys(name for values in rows.values() for name in values if name != "differences"))
    table = [[*heading, *(column.replace("_", " ") for column in columns)]]
    for names, values in rows.items():
        table.append([*names, *(cell(values[column]) if column in values else "–" for column in columns)])
    return aligned(table)


def main(
    model: str | None,
    task: Task,
    methods: str,
    images: int,
    as_json: bool,
    *,
    mrf: str | None = None,
    device: str | None = None,
    split: str = "test",
    scorer_folder: Path | None = None,
    sheet_path: Path | None = None,
    out: Path | None = None,
) -> None:
    """`markovgen evaluate --task inpaint|edit`: print the tables, or one JSON object; arguments as for other tasks.

    Raises:
        UserError: one line on what is wrong.
    """
    with redirect_stdout(sys.stderr):
        variants = parse_variants(methods, task)
        if images < 2:
            raise UserError(f"Images must be 2 or more, not {images}: intervals need several cases.")
        check_files((sheet_path,), out)
        settings = load_settings(model=model, mrf=mrf, device=device)
        scorer = load_scorer(scorer_folder, choose_device(settings.device))
        pipeline = load_runtime(settings).pipeline
        variants = available(variants, pipeline)
        report, pictures = evaluate(pipeline, scorer, task, variants, images, split=split)
        again = command(
            task,
            methods,
            images,
            split,
            scorer_folder=scorer_folder,
            model=settings.model,
            mrf=settings.mrf,
            device=settings.device,
        )
        report = {**plain(report), "command": again}
        if sheet_path:
            sheet(pictures, sheet_path)
        if out:
            write_report(report, out)
    print(json.dumps(report) if as_json else text_table(report))


def command(
    task: Task,
    methods: str,
    images: int,
    split: str = "test",
    *,
    scorer_folder: Path | None = None,
    model: str = DEFAULT_MODEL,
    mrf: str | None = None,
    device: str = "auto",
) -> str:
    """The line that measures the same once more, also where the environment named the weights."""
    return command_line(
        "evaluate",
        ("--task", task, None),
        ("--methods", methods, None),
        ("--images", images, None),
        ("--split", split, "test"),
        ("--scorer", scorer_folder, None),
        ("--model", model, DEFAULT_MODEL),
        ("--mrf", mrf, None),
        ("--device", device, "auto"),
    )

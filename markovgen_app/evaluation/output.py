"""How reports leave the commands: tables for people, JSON files, a sheet of pictures; and how far the work is."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from ..data.scenes import wrapped
from ..errors import UserError
from ..pictures import writable_folder, write_error
from ..pixels import stacked, to_levels, to_pixels

if TYPE_CHECKING:
    from ..models.amused import AmusedTokenizer
    from ..models.tokenizer import ImageTokenizer

_COMPARED = {
    "prompts right": "prompt_accuracy",
    "objects": "object_accuracy",
    "background": "background_accuracy",
    "style": "style_accuracy",
    "scene-FD": "scene_fd",
    "CMMD": "cmmd",
    "KID": "kid",
    "detail-FD": "detail_fd",
    "detail-KID": "detail_kid",
    "bigrams": "bigram_divergence",
}
"""Columns of what methods are compared by."""


SHEETS = (".png", ".webp")
"""What a sheet of pictures can be written as."""
_QUALITY = 90  # of 100


def sheet(pictures: Sequence[tuple[str, Image.Image]], path: Path, count: int = 16, columns: int = 4) -> None:
    """The first pictures with their captions, unpicked, as one PNG or WebP file.

    Raises:
        UserError: the file cannot be written.
    """
    text_height, gap = 60, 12
    pictures = pictures[:count]
    scale = max(1, 256 // pictures[0][1].width)
    width, height = (side * scale for side in pictures[0][1].size)
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + text_height) + gap), "white")
    draw = ImageDraw.Draw(page)
    for index, (caption, image) in enumerate(pictures):
        x, y = gap + index % columns * (width + gap), gap + index // columns * (height + text_height)
        page.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, y))
        draw.multiline_text((x, y + height + 2), wrapped(caption, max(8, width // 7), 4), fill="black", spacing=1)
    _save(page, path)


def pairs_sheet(tokenizer: ImageTokenizer | AmusedTokenizer, pictures: Sequence[np.ndarray], path: Path) -> None:
    """Pictures (H, W, 3) above their reconstructions, eight a row, as one PNG or WebP file.

    Raises:
        UserError: the file cannot be written.
    """
    shown = list(to_levels(tokenizer.decode(tokenizer.encode(to_pixels(stacked(list(pictures)), tokenizer.device)))))
    columns = min(8, len(pictures))
    rows = []
    for start in range(0, len(pictures), columns):
        rows += [np.concatenate(block[start : start + columns], axis=1) for block in (pictures, shown)]
    _save(Image.fromarray(np.concatenate(rows, axis=0)), path)


def check_files(sheets: Sequence[Path | None], report: Path | None) -> None:
    """Raise UserError where files that are asked for cannot be written: before the work, not after."""
    for path in filter(None, sheets):
        if path.suffix.lower() not in SHEETS:
            raise UserError(f"A sheet of pictures is a {' or '.join(SHEETS)} file, not {path.name}: name such a file.")
    for path in filter(None, (*sheets, report)):
        writable_folder(path.parent)


def _save(page: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path, quality=_QUALITY, method=6)  # of WebP; PNG takes no notice
    except OSError as error:
        raise write_error(path.parent, error) from error


def plain(value: Any) -> Any:
    """The same for JSON: numbers with five significant digits, NaN as null."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """The report as a JSON file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise write_error(path.parent, error) from error


def command_line(name: str, *options: tuple[str, Any, Any]) -> str:
    """`markovgen NAME` with options: each an option's name, its value, and the value that needs no word."""
    words = ["markovgen", name]
    for option, value, usual in options:
        if value != usual:
            words += [option] if value is True else [option, str(value)]
    return shlex.join(words)


def prompts_told(report: Mapping[str, Any]) -> str:
    """How many prompts of what kind a report is of."""
    prompts = f"{report['images']} prompts of the {report['split']} split"
    share = report.get("open_backgrounds", 0)
    return f"{prompts}, {share:.0%} of them without a word on the background" if share else prompts


def cell(value: Any) -> str:
    """A number, with its interval where it has one; a dash for what is not defined (NaN, or null in JSON)."""
    if not isinstance(value, Mapping):
        return f"{value:.3g}" if _defined(value) else "–"
    if not _defined(value["value"]):
        return "–"
    known = _defined(value["low"]) and _defined(value["high"])
    return f"{value['value']:.3g} ({value['low']:.3g} … {value['high']:.3g})" if known else f"{value['value']:.3g} (–)"


def _defined(number: float | None) -> bool:
    return number is not None and bool(np.isfinite(number))


def text_table(report: Mapping[str, Any]) -> str:
    """The report for people: methods against measures, 95 % intervals in brackets, then what the numbers rest on."""
    columns = {**_COMPARED, "seconds": "model_seconds", "calls": "transformer_calls"}
    measured = {**report["methods"], "real pictures": report["real"]}
    if enlarged := report.get("enlarged"):
        measured = {f"{enlarged['from']} px enlarged": enlarged, **measured}
    rows = [["method", *columns]]
    for name, values in measured.items():
        rows.append([name, *(cell(values[key]) if key in values else "–" for key in columns.values())])
    lines = aligned(rows)
    lines += differences(report["methods"])
    lines += ["", "prompts right, by layout"]
    layouts = list(report["real"]["layouts"])
    by_layout = [["method", *layouts]]
    for name, values in measured.items():
        by_layout.append([name, *(cell(values["layouts"][layout]["prompt_accuracy"]) for layout in layouts)])
    lines += aligned(by_layout)
    lines += [
        "",
        f"{prompts_told(report)}, seeds {report['seeds']}, {report['nouns']} nouns."
        " Brackets: 95 % bootstrap intervals over prompts.",
        "The row of real pictures is the scorer's own accuracy, and the smallest distances that this many pictures can"
        " have (a dash where methods have several pictures a prompt).",
    ]
    if any(values["size"] > report["scorer_size"] for values in report["methods"].values()):
        lines.append(
            f"The scorer reads pictures at {report['scorer_size']} px: what larger ones show is read from them averaged"
            " down, distances are of what it sees in their parts, as fine as they are."
        )
    if enlarged:
        lines.append(
            f"The scene-FD of {enlarged['method']} is {cell(enlarged['scene_fd_share'])} times that of its own"
            f" {enlarged['from']} px pictures enlarged by Lanczos' filter, its KID {cell(enlarged['kid_share'])} times;"
            f" of details, the FD is {cell(enlarged['detail_fd_share'])} and the KID"
            f" {cell(enlarged['detail_kid_share'])} times as large."
        )
    if found := report.get("reconstruction"):
        lines.append(
            f"Tokenizer on {found['images']} scenes: {found['psnr_128']:.1f} dB at 128 px, {found['psnr_256']:.1f} dB"
            f" at 256 px, {found['codebook_use']:.0%} of the codes in use, object accuracy"
            f" {found['object_accuracy']['value']:.3f} ({found['object_accuracy_ratio']:.3f} of the originals')."
        )
    return "\n".join(lines)


def differences(methods: Mapping[str, Any]) -> list[str]:
    """A table of one method's values less another's on the same prompts and seeds, with a line of heading."""
    rows = [
        [name, other, *(cell(values[key]) if key in values else "–" for key in _COMPARED.values())]
        for name, measured in methods.items()
        for other, values in measured.get("differences", {}).items()
    ]
    heading = ["", "differences on the same prompts and seeds: method less another"]
    return [*heading, *aligned([["method", "less", *_COMPARED], *rows])] if rows else []


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


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

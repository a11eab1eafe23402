"""Comparisons on paper: a labelled grid of the methods, the map of the tokens that the field changed, the filmstrip."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .compare import Column, Comparison, Entry, Refinement, step_name
from .methods import NAMES, TITLES
from .palette import ACCENT, INK, MUTED, PAPER
from .pictures import writable_folder, write_error

_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
_SHEETS = {"grid": "grid", "token_changes": "token-changes", "filmstrip": "filmstrip"}
_REPORT = "comparison.json"
_MARGIN, _GAP = 32, 24
_LARGE, _SMALL = 384, 160  # pixels of a picture's side in a grid, and in a filmstrip
_BODY, _HEAD = 17, 24


def steps_text(entry: Entry) -> str:
    """ "18 of 24", "18 of 24 + 3 of 8" with a stage above the base."""
    return " + ".join(f"{done} of {planned}" for done, planned in entry.steps.values())


def speedup_text(entry: Entry) -> str:
    """ "1.33× full", "the reference" for full itself, or nothing where full was not run."""
    if entry.method == "full":
        return "the reference"
    return "" if entry.speedup is None else f"{entry.speedup:.2f}× full"


def cost_text(entry: Entry) -> str:
    """ "18 transformer calls · 1.05 s · 1.33× full"."""
    calls = entry.picture.transformer_calls
    parts = [
        f"{calls} transformer call{'s' * (calls != 1)}",
        f"{entry.picture.model_seconds:.2f} s",
        speedup_text(entry),
    ]
    return " · ".join(part for part in parts if part)


def energy_text(refinement: Refinement) -> str:
    """ "Energy −1,812.4 → −1,845.0 nats"."""
    before, after = (f"{value:,.1f}".replace("-", "−") for value in (refinement.energy_before, refinement.energy_after))
    return f"Energy {before} → {after} nats"


def changed_text(refinement: Refinement) -> str:
    """ "14 of the 38 tokens left at step 18 came out differently"."""
    changed, left = int(refinement.changed.sum()), refinement.undecided
    where = step_name(refinement.stage, refinement.step)
    return f"{changed} of the {left} tokens left at {where} came out differently"


def write(comparison: Comparison, folder: Path, *, metadata: bool = True) -> dict[str, Any]:
    """Write METHOD.png for every method, grid.png, token-changes.png, filmstrip.png and comparison.json.

    An earlier comparison in the folder is replaced; other files are left alone.

    Args:
        metadata: whether the methods' files carry their settings.

    Returns:
        What comparison.json holds; paths are None where there is no such file.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    folder = writable_folder(folder)
    drawn = {
        "grid": methods_sheet(comparison),
        "token_changes": changes_sheet(comparison),
        "filmstrip": film_sheet(comparison),
    }
    try:
        if (folder / _REPORT).is_file():
            for name in (*NAMES, *_SHEETS.values()):
                (folder / f"{name}.png").unlink(missing_ok=True)
        images = []
        for name, entry in comparison.entries.items():
            path = folder / f"{name}.png"
            path.write_bytes(entry.picture.png(metadata=metadata))
            images.append({"path": str(path), **entry_report(entry)})
        paths: dict[str, str | None] = dict.fromkeys(drawn)
        for name, sheet in drawn.items():
            if sheet is not None:
                paths[name] = str(folder / f"{_SHEETS[name]}.png")
                sheet.save(folder / f"{_SHEETS[name]}.png")
        report = {**comparison_report(comparison), "images": images, **paths}
        (folder / _REPORT).write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise write_error(folder, error) from error
    return report


def comparison_report(comparison: Comparison) -> dict[str, Any]:
    """What all methods share, as plain values."""
    request = comparison.request
    return {
        "prompt": request.prompt,
        "seed": request.seed,
        "settings": request.model_dump(exclude={"prompt", "seed", "method", "count"}),
        "exit_step": comparison.exit_step,
        "notes": comparison.notes,
    }


def entry_report(entry: Entry) -> dict[str, Any]:
    """What a method took and gave, as plain values; energies in nats, `random_field` being the last stage's."""
    picture = entry.picture
    fields = {made.stage.name: _field_report(made) for made in entry.refinements}
    return {
        "method": entry.method,
        "seed": picture.seed,
        "steps": picture.steps,
        "steps_by_stage": {stage: {"done": done, "planned": planned} for stage, (done, planned) in entry.steps.items()},
        "transformer_calls": picture.transformer_calls,
        "model_seconds": round(picture.model_seconds, 4),
        "speedup_over_full": None if entry.speedup is None else round(entry.speedup, 3),
        "mean_confidence": round(float(entry.confidence.mean()), 4),
        "width": picture.width,
        "height": picture.height,
        "prompt": picture.prompt,
        "random_field": fields[entry.refinement.stage.name] if entry.refinement else None,
        "random_field_by_stage": fields,
    }


def _field_report(made: Refinement) -> dict[str, Any]:
    return {
        "tokens_undecided": made.undecided,
        "tokens_changed": int(made.changed.sum()),
        "energy_before": round(made.energy_before, 3),
        "energy_after": round(made.energy_after, 3),
    }


def methods_sheet(comparison: Comparison) -> Image.Image:
    """The picture of every method over what it took."""
    panels = [
        (entry.picture.image, TITLES[name], f"{steps_text(entry)} steps\n{cost_text(entry)}")
        for name, entry in comparison.entries.items()
    ]
    return _sheet(comparison, "Same prompt, seed, noise, weights and guidance.", panels, _LARGE)


def changes_sheet(comparison: Comparison) -> Image.Image | None:
    """The last field's stage without it, with it, and where they differ; None where no field was at work."""
    entry = comparison.entries.get("markovgen")
    if entry is None or entry.refinement is None:
        return None
    made = entry.refinement
    panels = [
        (
            made.plain,
            "Without the random field",
            f"{step_name(made.stage, made.step)}, the transformer's own guesses",
        ),
        (made.refined, "With the random field", "the same step, the same noise"),
        (
            token_map(made.refined, made.changed.unflatten(0, made.stage.grid).numpy()),  # (n,) -> (h, w)
            "What it changed",
            f"framed: {int(made.changed.sum())} of {made.changed.numel()} tokens",
        ),
    ]
    return _sheet(comparison, f"{changed_text(made)}. {energy_text(made)}.", panels, _LARGE)


def film_sheet(comparison: Comparison) -> Image.Image | None:
    """The filmstrip: a column a step, without the random field above, with it below; None where there is no film."""
    film = comparison.film
    if not film:
        return None
    refined = any(column.refined for column in film)
    said = "The full run, cut at a step: by the transformer's own guesses"
    said += " above, by the random field below." if refined else "."
    rows = [[(column.plain, _cut(column), "") for column in film]]
    if refined:
        rows.append([(column.refined, "", _changed(column)) if column.refined else _BLANK for column in film])
    return _sheet(comparison, said, [panel for row in rows for panel in row], _SMALL, columns=len(film))


def _cut(column: Column) -> str:
    """ "step 18, the exit", "fine 3" above the base."""
    name = f"fine {column.step}" if column.stage.number else f"step {column.step}"
    return f"{name}, the exit" if column.is_exit else name


def _changed(column: Column) -> str:
    return f"{column.changed} changed"


def token_map(image: Image.Image, changed: np.ndarray, side: int = _LARGE) -> Image.Image:
    """A picture with all but the changed tokens (h, w) faded, and the changed ones framed."""
    picture = np.asarray(_enlarged(image, side), dtype=np.float32)
    scale = picture.shape[0] // changed.shape[0], picture.shape[1] // changed.shape[1]
    shown = np.kron(changed, np.ones(scale, dtype=bool))[..., None]
    shown = np.pad(shown, [(0, picture.shape[axis] - shown.shape[axis]) for axis in (0, 1)] + [(0, 0)])
    faded = 0.25 * picture.mean(axis=2, keepdims=True) + 0.75 * np.array(_rgb(PAPER), dtype=np.float32)
    panel = Image.fromarray(np.where(shown, picture, faded).round().astype(np.uint8))
    draw = ImageDraw.Draw(panel)
    for row, column in zip(*np.nonzero(changed), strict=True):
        top, left = row * scale[0], column * scale[1]
        draw.rectangle((left, top, left + scale[1] - 1, top + scale[0] - 1), outline=ACCENT[0], width=2)
    return panel


Panel = tuple[Image.Image, str, str]
"""Picture, title, text below; lines of the text are parted by line feeds."""
_BLANK: Panel = (Image.new("RGB", (1, 1), PAPER[0]), "", "")


def _sheet(
    comparison: Comparison, subtitle: str, panels: Sequence[Panel], side: int, columns: int | None = None
) -> Image.Image:
    """Pictures in rows under the prompt, with what is written to each below it."""
    columns = columns or (len(panels) if len(panels) <= 3 else -(-len(panels) // 2))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = max(2 * _MARGIN + columns * (side + _GAP) - _GAP, 2 * _MARGIN + 2 * _LARGE)
    head = _wrapped(comparison.request.prompt, _HEAD, width - 2 * _MARGIN, 3)
    lead = _wrapped(f"{subtitle} Seed {comparison.request.seed}.", _BODY, width - 2 * _MARGIN, 2)
    top = _MARGIN + len(head) * 32 + 6 + len(lead) * 24 + 18
    heights = [side + max(_text_height(title, text) for _, title, text in row) for row in rows]
    page = Image.new("RGB", (width, top + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN), PAPER[0])
    draw = ImageDraw.Draw(page)
    y = _lines(draw, _MARGIN, _MARGIN, head, _HEAD, INK[0], 32) + 6
    _lines(draw, _MARGIN, y, lead, _BODY, MUTED[0], 24)
    y = top
    for row, height in zip(rows, heights, strict=True):
        for column, (image, title, text) in enumerate(row):
            x = _MARGIN + column * (side + _GAP)
            page.paste(_enlarged(image, side), (x, y))
            below = y + side + 10
            if title:
                below = _lines(draw, x, below, [title], _BODY + 3 * (side == _LARGE), INK[0], 26)
            _lines(draw, x, below, text.splitlines(), _BODY - 1, MUTED[0], 22)
        y += height + _GAP
    return page


def _text_height(title: str, text: str) -> int:
    return 10 + 26 * bool(title) + 22 * len(text.splitlines())


def _wrapped(text: str, size: int, width: int, most: int) -> list[str]:
    """Lines that are at most `width` pixels wide; what does not go into `most` of them is left out."""
    lines = [""]
    for word in text.split():
        for part in _parts(word, size, width):
            joined = f"{lines[-1]} {part}".strip()
            if _font(size).getlength(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(part)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1].rpartition(' ')[0]} …"]
    return lines


def _parts(word: str, size: int, width: int) -> list[str]:
    """A word, or what becomes of one that is too wide for a line."""
    if _font(size).getlength(word) <= width:
        return [word]
    return textwrap.wrap(word, max(1, width // (2 * size)))


def _lines(draw: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], size: int, fill: str, leading: int) -> int:
    for line in lines:
        draw.text((x, y), line, font=_font(size), fill=fill)
        y += leading
    return y


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side is `side`, smoothly."""
    scale = side / max(image.size)
    size = round(image.width * scale), round(image.height * scale)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _rgb(colour: tuple[str, str]) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[0][1:])
    return red, green, blue


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of the system that has × and accents; else Pillow's own."""
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)

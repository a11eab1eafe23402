"""The measured quality that comes with the project, as tables: README.md, docs and the About tab show the same figures.

`markovgen evaluate … --out assets/results/quality.json` makes a file; the command is kept in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "assets" / "results"
QUALITY = "quality.json"
HEAD = ("method", "transformer calls", "model seconds", "scene-FD ↓", "objects ↑", "backgrounds ↑", "prompts right ↑")
EDITS = ("inpaint.json", "edit.json")
EDITS_HEAD = ("", "method", "seen as asked ↑", "background ↑", "outside exact", "seam ratio", "model seconds")
_CHANGES = {
    "replaced": "inpaint: another object",
    "removed": "inpaint: no object",
    "noun": "edit: another object",
    "background": "edit: another background",
}
_MEASURES = ("object_accuracy", "background_accuracy", "prompt_accuracy")


@dataclass(frozen=True)
class Results:
    """Rows under `HEAD`, and what they were measured on."""

    rows: tuple[tuple[str, ...], ...]
    images: int
    seeds: int
    command: str

    @property
    def note(self) -> str:
        """How to read the table."""
        seeds = "one seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return (
            f"{self.images:,} held-out prompts, {seeds} each, the same for every method; ranges: 95 % bootstrap "
            "intervals over prompts. scene-FD: Fréchet distance to real scenes on features of the project's own scorer."
        )


def load_results(folder: Path = FOLDER) -> Results | None:
    """The results kept in `folder`; None where nothing was measured."""
    path = folder / QUALITY
    if not path.is_file():
        return None
    report = json.loads(path.read_text())
    return Results(
        tuple(_row(name, values) for name, values in report["methods"].items()),
        report["images"],
        len(report["seeds"]),
        report["command"],
    )


def markdown(results: Results) -> str:
    """The table and its note for README.md."""
    return f"{_table(HEAD, results.rows)}\n\n{results.note}\nMeasured by `{results.command}`."


def edits_markdown(folder: Path = FOLDER) -> str | None:
    """The table of edits against the truth for docs/editing.md; None where one of them was not measured."""
    if not all((folder / name).is_file() for name in EDITS):
        return None
    reports = [json.loads((folder / name).read_text()) for name in EDITS]
    rows = [
        (_CHANGES[change], *_edit_row(name, values))
        for report in reports
        for change, methods in report["changes"].items()
        for name, values in methods.items()
    ]
    measured = " and ".join(f"`{report['command']}` ({report['images']} cases a change)" for report in reports)
    return f"{_table(EDITS_HEAD, rows)}\n\nMeasured by {measured}."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ("---",) * len(head), *rows])


def _edit_row(name: str, values: dict[str, Any]) -> tuple[str, ...]:
    found = values["empty" if "empty" in values else "object"]
    seconds = values.get("model_seconds")
    return (
        name,
        _share(found),
        _share(values["background"]),
        _plain_share(values.get("outside_exact")),
        "–" if "seam_ratio" not in values else f"{values['seam_ratio']['value']:.2f}",
        "–" if seconds is None else f"{seconds:.2f}",
    )


def _plain_share(measure: dict[str, float] | None) -> str:
    """A share without its interval, rounded down: what is not all is never written as 100 %."""
    if measure is None:
        return "–"
    tenths = math.floor(measure["value"] * 1000 + 1e-9) / 10
    return f"{tenths:g} %"


def _row(name: str, values: dict[str, Any]) -> tuple[str, ...]:
    distance = values["scene_fd"]
    return (
        name,
        f"{values['transformer_calls']:g}",
        f"{values['model_seconds']:.2f}",
        f"{distance['value']:.0f} ({distance['low']:.0f} … {distance['high']:.0f})",
        *(_share(values[measure]) for measure in _MEASURES),
    )


def _share(measure: dict[str, float]) -> str:
    if measure["value"] is None:  # no prompt says anything of it
        return "–"
    return f"{measure['value']:.1%} ({measure['low']:.1%} … {measure['high']:.1%})".replace("%", " %")

"""What the sweep says: its table for people, and its plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ..pictures import write_error
from .exits import EARLY_EXIT
from .output import aligned, cell, prompts_told

MEASURES = ("scene_fd", "cmmd", "bigram_divergence", "prompt_accuracy")


def text_table(report: Mapping[str, Any]) -> str:
    """The report for people, the best scene-FD of every exit step marked."""
    rows = [
        [
            "exit",
            "method",
            "field",
            "iterations",
            "clamp",
            "finalise",
            "temperature",
            "scene-FD",
            "CMMD",
            "bigrams",
            "prompts right",
            "",
        ]
    ]
    best = {
        step: min(row["scene_fd"]["value"] for row in report["rows"] if row.get("exit_step") == step)
        for step in {row["exit_step"] for row in report["rows"] if "exit_step" in row}
    }
    for row in report["rows"]:
        knobs = ["–"] * 7
        if "exit_step" in row:
            named = row["method"] == "markovgen"
            inner = [row["field"], str(row["iterations"]), "yes" if row["clamp"] else "no"] if named else ["–"] * 3
            chance = "all draws'" if row["temperature"] is None else f"{row['temperature']:g}"
            knobs = [str(row["exit_step"]), row["method"], *inner, row["finalise"], chance]
        else:
            knobs[1] = row["method"]
        mark = "best" if row["scene_fd"]["value"] == best.get(row.get("exit_step")) else ""
        rows.append([*knobs, *(cell(row[name]) for name in MEASURES), mark])
    note = f"{prompts_told(report)}; brackets: 95 % bootstrap intervals over prompts."
    if report["stage"]:
        note += f"\nExits of stage {report['stage']}; all refine the same tokens, of full runs of the stages below."
    return "\n".join([*aligned(rows), "", note])


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Scene-FD and CMMD over the exit step: the baselines, and of every field the centre, which all knobs turn around.

    The best of many variants would be better by chance alone; the table has all of them.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    rows = [row for row in report["rows"] if "exit_step" in row]
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        chance = "" if row["temperature"] is None else f" (temperature {row['temperature']:g})"
        name = f"{row['method']}{chance}" if row["method"] == EARLY_EXIT else row["field"]
        lines.setdefault(name, []).append(row)
    for panel, measure, label in zip(
        panels, ("scene_fd", "cmmd"), ("scene-FD (lower is better)", "CMMD (lower is better)"), strict=True
    ):
        for name, found in lines.items():
            steps = sorted({row["exit_step"] for row in found})
            chosen = [next(row for row in found if row["exit_step"] == k) for k in steps]
            panel.plot(steps, [row[measure]["value"] for row in chosen], marker="o", label=name)
        panel.axhline(report["rows"][0][measure]["value"], color="black", linestyle=":", label="full")
        panel.set_xlabel("exit step k of n")
        panel.set_title(label, fontsize=10)
    panels[0].legend(fontsize=7)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise write_error(path.parent, error) from error

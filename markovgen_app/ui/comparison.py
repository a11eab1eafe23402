"""What the Compare tab shows: a comparison's turns and findings as one JSON value, read by `static/compare.js`."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Sequence
from typing import Any

from PIL import Image

from markovgen_app.compare import Column, Comparison, Entry, Refinement, Turn, step_name
from markovgen_app.events import Result, StepEvent
from markovgen_app.ladder import Level
from markovgen_app.methods import EXPLAINED, TITLES
from markovgen_app.requests import GenerateRequest
from markovgen_app.sheets import changed_text, entry_report, methods_sheet, steps_text

from .links import comparison_link, link
from .stage import data_url, pack_tokens, preview_url


class ComparisonRun:
    """Collects one comparison for the tab.

    Args:
        grid: rows and columns of the base's tokens.
        metadata: whether the PNG files carry their settings.
    """

    def __init__(
        self, request: GenerateRequest, methods: Sequence[str], grid: tuple[int, int], *, metadata: bool = True
    ) -> None:
        self.request, self.metadata = request, metadata
        self.value: dict[str, Any] = {
            "run": secrets.token_hex(6),
            "final": False,
            "prompt": request.prompt,
            "grid": list(grid),
            "cards": {name: _blank_card(name) for name in methods},
            "film": [],
        }

    def add(self, event: Turn | Column | Comparison) -> dict[str, Any]:
        """The value after one more event."""
        if isinstance(event, Comparison):
            self.value = self.value | self._findings(event)
        elif isinstance(event, Column):
            self.value = self.value | {"film": [*self.value["film"], _film_column(event)]}
        else:
            alone = self.request.model_copy(update={"method": event.method})
            card = self.value["cards"][event.method] | _turn(event.event, alone, metadata=self.metadata)
            self.value = self.value | {"cards": self.value["cards"] | {event.method: card}}
        return self.value

    def _findings(self, comparison: Comparison) -> dict[str, Any]:
        request = comparison.request
        slowest = max(entry.picture.model_seconds for entry in comparison.entries.values())
        cards = {name: self.value["cards"][name] | _entry(entry, slowest) for name, entry in comparison.entries.items()}
        made = [refinement for entry in comparison.entries.values() for refinement in entry.refinements]
        return {
            "final": True,
            "cards": cards,
            "seed": request.seed,
            "exit_step": comparison.exit_step,
            "field": _field(*made) if made else None,
            "equal": equal_lines(comparison),
            "differs": different_lines(comparison),
            "link": comparison_link(self.request.model_copy(update={"seed": request.seed}), list(comparison.entries)),
            "settings": json.dumps(
                {**request.model_dump(exclude={"method", "count"}), "methods": list(comparison.entries)},
                ensure_ascii=False,
                indent=2,
            ),
            "sheet": data_url(_png(methods_sheet(comparison))),
            "file": next(iter(comparison.entries.values())).picture.name.rpartition("_")[0].rpartition("_")[0],
        }


def _blank_card(method: str) -> dict[str, Any]:
    return {"title": TITLES[method], "explained": EXPLAINED[method], "label": "", "fraction": 0.0, "src": None}


def _turn(event: StepEvent | Result, alone: GenerateRequest, *, metadata: bool) -> dict[str, Any]:
    """What changes on a card when its method did a step or has its picture; `alone` asks for that method."""
    if isinstance(event, Result):
        picture = event.images[0]
        return {
            "label": "Ready",
            "done": True,
            "fraction": 1.0,
            "src": data_url(picture.png(metadata=metadata)),
            "settings": json.dumps(picture.settings, ensure_ascii=False, indent=2),
            "link": link(alone, picture.seed),
            "file": picture.name,
        }
    step = event.step
    return {
        "label": event.label,
        "fraction": event.fraction,
        "src": preview_url(event.images[0]),
        "tokens": pack_tokens(step.confidence[0], step.mask[0]),
        "stage": _above(event.stage),
    }


def _entry(entry: Entry, slowest: float) -> dict[str, Any]:
    """What a card says at the end; `slowest` is the longest model time of all methods."""
    report = entry_report(entry)
    return {
        "steps": steps_text(entry),
        "calls": report["transformer_calls"],
        "seconds": f"{entry.picture.model_seconds:.2f} s",
        "share": round(entry.picture.model_seconds / slowest, 4),
        "speedup": None if entry.speedup is None else f"{entry.speedup:.2f}×",
        "reference": entry.method == "full",
        "sure": f"{report['mean_confidence']:.2f}",
        "codes": entry.tokens.tolist(),
        "tokens": pack_tokens(entry.confidence, entry.confidence < 0),
        "stage": _above(entry.stage),
    }


def _above(stage: Level) -> dict[str, Any] | None:
    """What tells a stage from the base, whose grid the value holds; None for the base itself."""
    return {"number": stage.number, "grid": list(stage.grid)} if stage.number else None


def _field(*refinements: Refinement) -> dict[str, Any]:
    """What the random field of the last stage did, and in a few words those of the stages below."""
    *below, made = refinements
    drop = made.energy_before - made.energy_after
    return {
        "stage": _above(made.stage),
        "below": [changed_text(each) for each in below],
        "said": changed_text(made),
        "changed": made.changed.int().tolist(),
        "before": _number(made.energy_before),
        "after": _number(made.energy_after),
        "verdict": f"{_number(abs(drop))} nats {'lower: they fit together better' if drop >= 0 else 'higher'}",
        "plain": preview_url(made.plain),
        "refined": preview_url(made.refined),
        "name": step_name(made.stage, made.step).capitalize(),
    }


def _film_column(column: Column) -> dict[str, Any]:
    return {
        "step": column.step,
        "stage": _above(column.stage),
        "name": step_name(column.stage, column.step).capitalize(),
        "exit": column.is_exit,
        "plain": preview_url(column.plain),
        "refined": preview_url(column.refined) if column.refined else None,
        "changed": column.changed,
    }


def equal_lines(comparison: Comparison) -> list[str]:
    """What was the same for all methods."""
    request, names = comparison.request, list(comparison.entries)
    sharing = [TITLES[name] for name in ("full", "early-exit", "markovgen") if name in names]
    ramp = ", ramped up over the steps" if request.guidance_ramp else ""
    left = request.temperature * (1 - request.annealing)
    fall = f", falling to {left:g} over the steps" if request.annealing else ""
    lines = [
        f"Prompt, seed {request.seed} and its noise, weights, device and precision.",
        f"Guidance {request.guidance_scale:g}{ramp}; temperature {request.temperature:g}{fall}.",
        "Each method was really run by itself. They took turns step by step, so whatever else the machine did met all.",
    ]
    if len(sharing) > 1:
        base = " of the base" * any(entry.stage.number for entry in comparison.entries.values())
        lines.insert(1, f"{_listed(sharing)} share every token up to step {comparison.exit_step}{base}.")
    return lines


def different_lines(comparison: Comparison) -> list[str]:
    """What the methods do differently, and what their times count."""
    request, step = comparison.request, comparison.exit_step
    cut = f"stops after step {step} of {request.steps}"
    said = {
        "full": f"Full takes all {request.steps} steps.",
        "early-exit": f"Early exit {cut}: the transformer's guesses stand.",
        "markovgen": f"MarkovGen {cut}: the random field decides what is left.",
        "rescheduled": f"Rescheduled plans {step} steps from the start, with a schedule and a ramp over those.",
        "halton": f"Halton takes {step} steps in Halton order by the arc cosine schedule, as its paper does.",
    }
    return [
        *(said[name] + _done_above(entry) for name, entry in comparison.entries.items()),
        "Model time counts text, transformer, random field and decoding the picture; not previews, filmstrip, waiting.",
    ]


def _done_above(entry: Entry) -> str:
    """ " Then it takes 3 of 8 steps of super-resolution."; nothing where the base is the last stage."""
    _, *above = entry.steps.items()
    return "".join(f" Then it takes {done} of {planned} steps of {stage}." for stage, (done, planned) in above)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float) -> str:
    return f"{value:,.1f}".replace("-", "−")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

"""What the stage shows: a run's steps and pictures as one JSON value, read by `static/stage.js`."""

from __future__ import annotations

import base64
import io
import json
import math
import secrets
from typing import Any

import torch
from PIL import Image

from markovgen_app.pipeline import Picture, Result, StepEvent
from markovgen_app.requests import GenerateRequest

from .links import link

MAX_FRAMES = 32


def data_url(png: bytes) -> str:
    """A PNG file as a URL that needs no request."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def preview_url(image: Image.Image) -> str:
    """A picture that is looked at once: losslessly, but packed in a hurry."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return data_url(buffer.getvalue())


def pack_tokens(confidence: torch.Tensor, mask: torch.Tensor) -> str:
    """(n,) confidences in [0, 1] and (n,) undecided flags → base64, one byte a token: 0..127, plus 128 if undecided."""
    level = (confidence.clamp(0, 1) * 127).round().to(torch.uint8)  # (n,)
    return base64.b64encode((level + 128 * mask.to(torch.uint8)).cpu().numpy().tobytes()).decode()


def facts(picture: Picture) -> str:
    """The line under a finished picture."""
    parts = [f"seed {picture.seed}", picture.method, f"{picture.planned_calls} steps"]
    return " · ".join([*parts, f"{picture.seconds:.1f} s", f"{picture.width} × {picture.height} px"])


class StageRun:
    """Collects one run for what the page shows: every step, or where there are many, every so many and the newest.

    Args:
        metadata: whether the PNG files carry their settings.
    """

    def __init__(self, request: GenerateRequest, *, metadata: bool = True) -> None:
        self.request = request
        self.metadata = metadata
        self._newest = (0, 0)  # stage and step of the newest frame
        self.value: dict[str, Any] = {
            "run": secrets.token_hex(6),
            "final": False,
            "prompt": request.prompt,
            "count": request.count,
            "fraction": 0.0,
            "label": "",
            "frames": [],
            "pictures": [],
        }

    def step(self, event: StepEvent) -> dict[str, Any]:
        """The value after one more step."""
        step, stage = event.step, event.stage
        which = "fine " * (stage.number > 0)
        frame = {
            "label": f"{which}{step.index}",
            "title": f"{which}step {step.index} of {step.steps}",
            "grid": list(stage.grid),
            "decided": (~step.mask).sum(1).tolist(),
            "sure": [f"{value:.2f}" for value in step.confidence.mean(1).tolist()],
            "pictures": [preview_url(image) for image in event.images],
            "tokens": [pack_tokens(*row) for row in zip(step.confidence, step.mask, strict=True)],
        }
        frames = self.value["frames"]
        number, index = self._newest
        planned = self.request.super_resolution_steps if stage.number else self.request.steps
        if number == stage.number and index % math.ceil(planned / MAX_FRAMES):
            frames = frames[:-1]
        self._newest = (stage.number, step.index)
        return self._update(frames=[*frames, frame], fraction=event.fraction, label=event.label)

    def result(self, result: Result) -> dict[str, Any]:
        """The value at the end of the run."""
        pictures = [picture_value(picture, self.request, metadata=self.metadata) for picture in result.images]
        return self._update(final=True, fraction=1.0, label="Ready", pictures=pictures)

    def _update(self, **fields: Any) -> dict[str, Any]:
        self.value = {**self.value, **fields}
        return self.value


def picture_value(picture: Picture, request: GenerateRequest, *, metadata: bool = True) -> dict[str, Any]:
    """A finished picture with all that its buttons need."""
    return {
        "src": data_url(picture.png(metadata=metadata)),
        "alt": picture.prompt,
        "facts": facts(picture),
        "file": picture.name,
        "seed": picture.seed,
        "link": link(request, picture.seed),
        "settings": json.dumps(picture.settings, ensure_ascii=False, indent=2),
    }

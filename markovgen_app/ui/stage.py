"""What the stage shows: a run's steps and pictures as one JSON value, read by `static/stage.js`."""

from __future__ import annotations

import base64
import io
import json
import math
import secrets
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from markovgen_app.canvas import Geometry
from markovgen_app.events import Result, StepEvent
from markovgen_app.pictures import Picture
from markovgen_app.requests import DecodingRequest, GenerateRequest

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
    taken, planned = picture.transformer_calls, picture.planned_calls
    steps = f"{planned} steps" if taken == planned else f"{taken} of {planned} steps"
    parts = [f"seed {picture.seed}", picture.method, steps]
    return " · ".join([*parts, f"{picture.seconds:.1f} s", f"{picture.width} × {picture.height} px"])


class StageRun:
    """Collects what the page shows of one run: every step, or where there are many, every so many and the newest.

    Args:
        requests: what is done, one after the other; most often one. Their seeds are settled.
        metadata: whether the PNG files carry their settings.
        before: URL of the picture that is changed, if one is.
        captions: of the requests' pictures, if they have any.
    """

    def __init__(
        self,
        *requests: DecodingRequest,
        metadata: bool = True,
        before: str | None = None,
        captions: Sequence[str] = (),
    ) -> None:
        self.requests = requests
        self.metadata = metadata
        self.captions = captions
        self._newest = (0, 0)  # stage and step of the newest frame
        self._done = 0  # requests
        self.value: dict[str, Any] = {
            "run": secrets.token_hex(6),
            "final": False,
            "prompt": requests[0].prompt,
            "before": before,
            "captions": [caption for caption, each in zip(captions, requests, strict=True) for _ in range(each.count)]
            if captions
            else None,
            "count": sum(request.count for request in requests),
            "seeds": [seed for request in requests for seed in request.seeds],
            "fraction": 0.0,
            "label": "",
            "frames": [],
            "pictures": [],
        }

    def step(self, event: StepEvent) -> dict[str, Any]:
        """The value after one more step."""
        step, stage = event.step, event.stage
        which = "fine " * (stage.number > 0)
        window = f"window {event.patch.number}, " if event.patch.total > 1 else ""
        frame = {
            "first": len(self.value["pictures"]),
            "label": f"{which}{step.index}",
            "title": f"{window}{which}step {step.index} of {step.steps}",
            "grid": list(stage.grid),
            "place": grid_place(event.patch.geometry),
            "decided": (~step.mask).sum(1).tolist(),
            "sure": [f"{value:.2f}" for value in step.confidence.mean(1).tolist()],
            "pictures": [preview_url(image) for image in event.images],
            "tokens": [pack_tokens(*row) for row in zip(step.confidence, step.mask, strict=True)],
        }
        frames = self.value["frames"]
        number, index = self._newest
        if number == stage.number and 0 < index < step.index and index % math.ceil(step.steps / MAX_FRAMES):
            frames = frames[:-1]
        self._newest = (stage.number, step.index)
        caption = f"{self.captions[self._done]} · " if self.captions else ""
        fraction = (self._done + event.fraction) / len(self.requests)
        return self._update(frames=[*frames, frame], fraction=fraction, label=caption + event.label)

    def result(self, result: Result) -> dict[str, Any]:
        """The value at the end of a request."""
        request = self.requests[self._done]
        made = [picture_value(picture, request, metadata=self.metadata) for picture in result.images]
        self._done += 1
        self._newest = (0, 0)
        pictures, final = [*self.value["pictures"], *made], self._done == len(self.requests)
        fraction = self._done / len(self.requests)
        return self._update(
            final=final, fraction=fraction, label="Ready" if final else self.value["label"], pictures=pictures
        )

    def _update(self, **fields: Any) -> dict[str, Any]:
        self.value = {**self.value, **fields}
        return self.value


def grid_place(geometry: Geometry | None) -> list[float]:
    """Where the grid of tokens lies on the picture: left, top, width, height in units of the picture's sides."""
    if geometry is None:
        return [0, 0, 1, 1]
    (left, top), (right, bottom) = geometry.to_picture(0, 0), geometry.to_picture(*geometry.size)
    width, height = geometry.picture
    return [left / width, top / height, (right - left) / width, (bottom - top) / height]


def picture_value(picture: Picture, request: DecodingRequest, *, metadata: bool = True) -> dict[str, Any]:
    """A finished picture with all that its buttons need; a link leads to those that words and a seed make alone."""
    return {
        "src": data_url(picture.png(metadata=metadata)),
        "task": request.task,
        "alt": picture.prompt,
        "facts": facts(picture),
        "file": picture.name,
        "seed": picture.seed,
        "link": link(request, picture.seed) if isinstance(request, GenerateRequest) else None,
        "settings": json.dumps(picture.settings, ensure_ascii=False, indent=2),
    }

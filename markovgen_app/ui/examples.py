"""The pictures and comparisons that the page opens with, and the strip of steps on the About tab.

`python -m markovgen_app.ui.examples` makes them anew in assets/examples with the weights that the settings name.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from markovgen_app.compare import compare
from markovgen_app.errors import UserError
from markovgen_app.events import Result, StepEvent
from markovgen_app.methods import default_methods
from markovgen_app.pictures import read_settings
from markovgen_app.requests import GenerateRequest
from markovgen_app.runtime import Runtime, load_runtime
from markovgen_app.settings import load_settings

from .comparison import ComparisonRun
from .links import link
from .stage import data_url

FOLDER = Path(__file__).parents[2] / "assets" / "examples"
STEPS = "steps.png"
_COMPARISONS = (
    ("two pizzas", 6),
    ("a panda next to a pizza on a brick wall", 6),
    ("four frogs on the ocean", 1),
)
_PICTURES = (
    ("a panda next to a pizza on a brick wall", 6),
    ("three foxes in the desert", 1),
    ("a tiger above a television in the living room", 1),
)
_LARGEST = 660_000  # characters of a comparison: three of them stay below 2 MB
_EFFORT = 6  # of WebP, at most
_QUALITY = 92  # of WebP, of 100
_PANELS = 6
_GAP = 16  # pixels between panels


def load_examples(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The example pictures for the stage, in the order of their file names; none where the folder is missing."""
    return [_example(path) for path in sorted(folder.glob("example-*.png"))]


def first_picture(folder: Path = FOLDER) -> Path | None:
    """The picture that the tabs begin with that change one; None where the folder is missing."""
    return next(iter(sorted(folder.glob("example-*.png"))), None)


def _example(path: Path) -> dict[str, Any]:
    request = read_settings(path)
    return {
        "src": data_url(path.read_bytes()),
        "alt": request.prompt,
        "facts": f"seed {request.seed} · {request.method} · {request.steps} steps",
        "file": path.stem,
        "seed": request.seed,
        "link": link(request, request.seed or 0),
        "settings": request.model_dump_json(indent=2),
    }


def load_comparisons(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The example comparisons, as the Compare tab shows them; none where the folder is missing."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("comparison-*.json"))]


def make_comparisons(runtime: Runtime, folder: Path = FOLDER, effort: int = _EFFORT) -> list[Path]:
    """Makes every example comparison, of the methods that a comparison has at first; returns the files.

    Args:
        effort: 0 to 6, for small files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, (prompt, seed) in enumerate(_COMPARISONS, 1):
        request = GenerateRequest(prompt=prompt, seed=seed)
        methods = default_methods(runtime.pipeline.methods)
        run = ComparisonRun(request, methods, runtime.pipeline.grid)
        for event in compare(runtime, request, methods):
            value = run.add(event)
        value = {name: part for name, part in value.items() if name != "sheet"}  # large, and made again by one press
        path = folder / f"comparison-{number}.json"
        value |= {"run": path.stem, **{name: _packed(value[name], effort) for name in ("film", "field")}}
        path.write_text(json.dumps(_fitting(value), ensure_ascii=False) + "\n", encoding="utf-8")
        files.append(path)
    return files


def _packed(part: Any, effort: int) -> Any:
    """A part of a comparison with its previews as small files that look the same: equal ones stay equal."""
    if isinstance(part, dict):
        return {name: _packed(each, effort) for name, each in part.items()}
    if isinstance(part, list):
        return [_packed(each, effort) for each in part]
    if not isinstance(part, str) or not part.startswith("data:image/png;base64,"):
        return part
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(part.partition(",")[2]))) as preview:
        preview.save(buffer, "webp", quality=_QUALITY, method=effort)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _fitting(value: dict[str, Any]) -> dict[str, Any]:
    """A comparison with as much of its film as there is room for: the largest columns go first, the exits last."""
    while value["film"] and len(json.dumps(value)) > _LARGEST:
        least = max(value["film"], key=lambda cut: (not cut["exit"], len(json.dumps(cut))))
        value = value | {"film": [cut for cut in value["film"] if cut is not least]}
    return value


def make_examples(runtime: Runtime, folder: Path = FOLDER) -> list[Path]:
    """Makes every example and the strip of steps of the first; returns the files, replaced where they were there."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, (prompt, seed) in enumerate(_PICTURES, 1):
        *steps, result = runtime.run(GenerateRequest(prompt=prompt, seed=seed))
        assert isinstance(result, Result)
        path = folder / f"example-{number}.png"
        path.write_bytes(result.images[0].png())
        files.append(path)
        if number == 1:
            strip = step_strip([step for step in steps if isinstance(step, StepEvent)])
            strip.save(folder / STEPS)
            files.append(folder / STEPS)
    return files


def step_strip(steps: list[StepEvent]) -> Image.Image:
    """Some steps of the first picture of a run side by side, RGBA, nothing where a token was not decided yet."""
    chosen = [steps[round(index)] for index in np.linspace(0, len(steps) - 1, _PANELS)]
    size = steps[-1].images[0].size
    panels = []
    for event in chosen:
        panel = event.images[0].resize(size, Image.Resampling.LANCZOS).convert("RGBA")
        decided = ~event.step.mask[0].cpu().numpy().reshape(event.stage.grid)  # (n,) -> (h, w)
        panel.putalpha(Image.fromarray(decided).convert("L").resize(panel.size, Image.Resampling.NEAREST))
        panels.append(panel)
    width, height = panels[0].size
    strip = Image.new("RGBA", (len(panels) * (width + _GAP) - _GAP, height))
    for index, panel in enumerate(panels):
        strip.paste(panel, (index * (width + _GAP), 0))
    return strip


if __name__ == "__main__":
    try:
        ready = load_runtime(load_settings())
        print(*make_examples(ready), *make_comparisons(ready), sep="\n")
    except UserError as error:
        sys.exit(str(error))

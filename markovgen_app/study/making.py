"""What the options of `markovgen study create` stand for: arms, the text of consent, methods, and what draws them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..pipeline import MarkovGenPipeline
    from .creation import Make


def arms_of(given: list[str]) -> dict[str, Path]:
    """Folders of pictures made elsewhere by name, of NAME=FOLDER each; raises UserError on others, and on twice one."""
    arms = {}
    for each in given:
        name, _, folder = each.partition("=")
        if not name or not folder or name in arms:
            raise UserError(f"{each!r} is no arm of its own: write --arm NAME=FOLDER, each name once.")
        arms[name] = Path(folder)
    return arms


def consent_text(path: Path) -> str:
    """What raters read first; raises UserError where the file holds no text."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"Cannot read {path}: give a text file in UTF-8.") from None
    if not text:
        raise UserError(f"{path} is empty: write what raters consent to.")
    return text


def parsed_methods(methods: str) -> dict[str, dict[str, Any]]:
    """The methods' settings, none for ''; raises UserError on what is no method."""
    if not methods.strip():
        return {}
    from ..evaluation.generation import parse_methods

    return parse_methods(methods)


def maker_of(
    generated: dict[str, dict[str, Any]], model: str | None, mrf: str | None, device: str | None
) -> tuple[tuple[int, int] | None, Make, dict[str, Any]]:
    """The pictures' size, what makes them, and with which weights; no model is loaded for nothing.

    Raises:
        UserError: the weights cannot be loaded, or cannot run a method.
    """
    if not generated:

        def nothing(method: str, text: str, seed: int) -> Any:
            raise AssertionError(f"{method} comes from a folder")

        return None, nothing, {}
    from ..events import Result
    from ..loading import weights_digest
    from ..requests import GenerateRequest
    from ..runtime import load_runtime
    from ..settings import load_settings

    settings = load_settings(model=model, mrf=mrf, device=device)
    runtime = load_runtime(settings)
    for name, fields in generated.items():
        if fields["method"] not in runtime.pipeline.methods:
            raise UserError(
                f"These weights cannot run {name}: choose other --methods, or name a field's folder (--mrf)."
            )

    def make(method: str, text: str, seed: int) -> Any:
        for event in runtime.run(GenerateRequest.validated(prompt=text, seed=seed, **generated[method])):
            if isinstance(event, Result):
                return event.images[0].image
        raise AssertionError("a run ends with its result")

    made_with = {"model": settings.model, "mrf": settings.mrf, "dtype": str(runtime.dtype)}
    made_with["weights"] = weights_digest(runtime.pipeline)
    return max(_drawn_size(runtime.pipeline, fields) for fields in generated.values()), make, made_with


def _drawn_size(pipeline: MarkovGenPipeline, fields: dict[str, Any]) -> tuple[int, int]:
    """Width and height of the pictures that a method's requests make."""
    from ..requests import GenerateRequest

    request = pipeline.settled(GenerateRequest.validated(prompt="a panda", **fields))
    height, width = pipeline.stages_for(request)[-1].grid
    return width * pipeline.tokenizer.factor, height * pipeline.tokenizer.factor

"""What programs can call by `gradio_client` to change pictures: `/inpaint`, `/outpaint` and `/edit`.

Their parameters are the fields of the requests, in their order and with their defaults. What has its default is not
said: the weights, or the way to edit, may have a better one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from markovgen_app.errors import UserError
from markovgen_app.picture_requests import EditRequest, InpaintRequest, OutpaintRequest, PictureRequest
from markovgen_app.runtime import Runtime
from markovgen_app.visitors import VisitorLimit

from .api import Answer, answering, one_picture

CHANGES: dict[str, type[PictureRequest]] = {kind.task: kind for kind in (InpaintRequest, OutpaintRequest, EditRequest)}
_SAYS = {
    "inpaint": "Makes a part of a picture anew: what a mask (white where it may change) or a rectangle marks.",
    "outpaint": "Widens a picture: by pixels a side, or to an aspect.",
    "edit": "Changes a picture by words alone.",
}
_PICTURES = ("image", "mask", "keep")  # fields that are files
_FIRST = ("image", "prompt", "mask")  # what is given without a name
_NEVER = {"count"}  # one picture a call


def change_endpoint(
    kind: type[PictureRequest], runtime: Runtime, limit: VisitorLimit, cache: str, *, metadata: bool
) -> Callable[..., Iterator[Any]]:
    """The function behind `/inpaint`, `/outpaint` or `/edit`.

    Args:
        kind: of request.
        cache: folder of the files, Gradio's own, which is emptied after a while.
        metadata: whether the files carry their settings.
    """
    picture_of = partial(one_picture, runtime, limit, cache, metadata)

    def change(*given: Any) -> Iterator[Answer | None]:
        asked = signature.bind(*given).arguments
        caller = asked.pop("request")
        files = {name: _path(asked[name], cache) for name in _PICTURES if asked.get(name) is not None}
        said = {name: value for name, value in asked.items() if value != kind.model_fields[name].default}
        yield from picture_of(kind.validated(**{**said, **files}), caller)

    parameters = [
        *_parameters(kind),
        inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
    ]
    signature = inspect.Signature(parameters)
    change.__name__ = kind.task
    change.__doc__ = f"{_SAYS[kind.task]} Gives its PNG file, and its settings (the seed among them)."
    change.__annotations__ = {**{each.name: each.annotation for each in parameters}, "request": gr.Request}
    change.__signature__ = signature  # type: ignore[attr-defined]
    return answering(change, Answer)


def _parameters(kind: type[PictureRequest]) -> list[inspect.Parameter]:
    """The fields of a request as parameters; those without a default come first."""
    fields = kind.model_fields
    names = [*(name for name in _FIRST if name in fields), *(name for name in fields if name not in {*_FIRST, *_NEVER})]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if fields[name].is_required() else fields[name].default,
            annotation=FileData | None if name in _PICTURES else fields[name].annotation,
        )
        for name in names
    ]


def _path(file: Any, cache: str) -> Path:
    """Where an uploaded file is; nothing else on this machine is ever read.

    Raises:
        UserError: it was not uploaded.
    """
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str) or not Path(path).resolve().is_relative_to(Path(cache).resolve()):
        raise UserError("A picture has to be uploaded: pass it as gradio_client.handle_file(path of a file).")
    return Path(path)

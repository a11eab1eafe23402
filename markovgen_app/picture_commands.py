"""`markovgen inpaint | outpaint | edit`: commands whose options are the fields of their requests."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UserError
from .options import (
    DeviceOption,
    FolderOption,
    JsonOption,
    MetadataOption,
    ModelOption,
    MrfOption,
    request_of,
    request_option,
    run_and_save,
)
from .requests import EditRequest, InpaintRequest, OutpaintRequest, PictureRequest

picture_app = typer.Typer(rich_markup_mode=None)

_NAMES = {"guidance_scale": "--guidance"}
_ALONGSIDE: dict[str, tuple[Any, Any]] = {
    "model": (ModelOption, None),
    "mrf": (MrfOption, None),
    "device": (DeviceOption, None),
    "out": (FolderOption, Path("out")),
    "metadata": (MetadataOption, None),
    "as_json": (JsonOption, False),
}


def _command(name: str, kind: type[PictureRequest], says: str) -> None:
    """Add a command; options that are not given keep the defaults of the request."""
    positional = ("image", "prompt")

    def run(**given: Any) -> None:
        alongside = {key: given.pop(key) for key in _ALONGSIDE}
        out, as_json = alongside.pop("out"), alongside.pop("as_json")
        if not Path(given["image"]).is_file() and Path(given["prompt"]).is_file():
            raise UserError(f"There is no file {given['image']}: the picture comes first, then the words.")
        run_and_save(request_of(kind, given), out, as_json, **alongside)

    arguments: dict[str, tuple[Any, Any]] = {
        field: (Annotated[str, typer.Argument(help=kind.model_fields[field].description)], inspect.Parameter.empty)
        for field in positional
    }
    for field in kind.model_fields:
        if field not in positional:
            arguments[field] = (_annotation(field, kind), None)
    arguments |= _ALONGSIDE
    run.__doc__ = says
    run.__annotations__ = {key: annotation for key, (annotation, _) in arguments.items()}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in arguments.items()
        ]
    )
    picture_app.command(name)(run)


def _annotation(field: str, kind: type[PictureRequest]) -> Any:
    """How the command line reads a field: flags as --x/--no-x, numbers as such, all else as text for the request."""
    wanted: Any = kind.model_fields[field].annotation
    option = _NAMES.get(field, f"--{field.replace('_', '-')}")
    if wanted is bool:
        option = f"{option}/--no-{option[2:]}"
    read = next((each for each in (bool, int, float) if wanted in (each, each | None)), str)
    return Annotated[read | None, request_option(field, option, kind=kind)]


_COMMANDS: tuple[tuple[str, type[PictureRequest], str], ...] = (
    ("inpaint", InpaintRequest, "Make a part of a picture anew: what a mask or a rectangle marks."),
    ("outpaint", OutpaintRequest, "Widen a picture: by pixels a side, or to an aspect."),
    ("edit", EditRequest, "Change a picture by words alone."),
)
for _entry in _COMMANDS:
    _command(*_entry)

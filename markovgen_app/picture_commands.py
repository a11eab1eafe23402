"""`markovgen inpaint | outpaint | edit`: commands whose options are the fields of their requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    run_and_save,
    taking,
)
from .picture_requests import EditRequest, InpaintRequest, OutpaintRequest, PictureRequest

picture_app = typer.Typer(rich_markup_mode=None)


def _command(name: str, kind: type[PictureRequest], says: str) -> None:
    """Add a command; options that are not given keep the defaults of the request."""

    @picture_app.command(name, help=says)
    @taking(kind, "image", "prompt")
    def run(
        given: Mapping[str, Any],
        model: ModelOption = None,
        mrf: MrfOption = None,
        device: DeviceOption = None,
        out: FolderOption = Path("out"),
        metadata: MetadataOption = None,
        as_json: JsonOption = False,
    ) -> None:
        from .intake import is_file

        if not is_file(given["image"]) and is_file(given["prompt"]):
            raise UserError(f"There is no file {given['image']}: the picture comes first, then the words.")
        request = request_of(kind, given)
        run_and_save(request, out, as_json, model=model, mrf=mrf, device=device, metadata=metadata)


_COMMANDS: tuple[tuple[str, type[PictureRequest], str], ...] = (
    ("inpaint", InpaintRequest, "Make a part of a picture anew: what a mask or a rectangle marks."),
    ("outpaint", OutpaintRequest, "Widen a picture: by pixels a side, or to an aspect."),
    ("edit", EditRequest, "Change a picture by words alone."),
)
for _entry in _COMMANDS:
    _command(*_entry)

"""What the commands share: options that requests describe, and how pictures are made, saved and printed."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from .requests import DecodingRequest, GenerateRequest
from .validation import RequestT, validated


def request_option(field: str, *names: str, kind: type[DecodingRequest] = GenerateRequest) -> Any:
    """An option with the description and the default of a request's field."""
    info = kind.model_fields[field]
    default = "" if info.default in (None, "") else f" [default: {info.default}]"
    return typer.Option(*names, help=f"{info.description}{default}", show_default=False)


ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="checkpoint: a folder or a hub id [default: weights]", show_default=False),
]
MrfOption = Annotated[
    str | None,
    typer.Option(
        "--mrf", help="folder or hub id of a random field [default: the checkpoint's own]", show_default=False
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, … [default: auto]", show_default=False)
]
MetadataOption = Annotated[
    bool | None, typer.Option("--metadata/--no-metadata", help="keep the settings in the PNG files")
]
FolderOption = Annotated[Path, typer.Option("--out", help="folder for the pictures")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object")]
HostOption = Annotated[
    str | None, typer.Option("--host", help="address to listen on [default: 127.0.0.1]", show_default=False)
]
PortOption = Annotated[int | None, typer.Option("--port", help="port to listen on [default: 7860]", show_default=False)]

GuidanceOption = Annotated[float | None, request_option("guidance_scale", "--guidance")]

_NAMES = {"guidance_scale": "--guidance"}
_BY_NAME = inspect.Parameter.KEYWORD_ONLY


def taking(
    kind: type[DecodingRequest], *positional: str, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command take the fields of a request: those that are `positional` as arguments, the others as options.

    The command gets what was given, by field, as its first argument; its other parameters are options of its own.

    Args:
        without: fields that the command has no use for.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        fields = {name: _annotation(kind, name) for name in kind.model_fields if name not in (*positional, *without)}
        arguments = {
            name: Annotated[str, typer.Argument(help=kind.model_fields[name].description)] for name in positional
        }
        parameters = [
            *(inspect.Parameter(name, _BY_NAME, annotation=annotation) for name, annotation in arguments.items()),
            *(inspect.Parameter(name, _BY_NAME, annotation=each, default=None) for name, each in fields.items()),
            *(parameter.replace(kind=_BY_NAME) for parameter in own),
        ]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            command({name: given.pop(name) for name in (*positional, *fields)}, **given)

        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorated


def _annotation(kind: type[DecodingRequest], field: str) -> Any:
    """How the command line reads a field: flags as --x/--no-x, numbers as such, all else as text for the request."""
    wanted: Any = kind.model_fields[field].annotation
    option = _NAMES.get(field, f"--{field.replace('_', '-')}")
    if wanted is bool:
        option = f"{option}/--no-{option[2:]}"
    read = next((each for each in (bool, int, float) if wanted in (each, each | None)), str)
    return Annotated[read | None, request_option(field, option, kind=kind)]


def request_of(kind: type[RequestT], options: Mapping[str, Any]) -> RequestT:
    """The request that a command's options make: those that are its fields, as far as they were given.

    Raises:
        UserError: one line on what is wrong.
    """
    return validated(kind, {name: options[name] for name in kind.model_fields if options.get(name) is not None})


def run_and_save(
    request: DecodingRequest,
    out: Path,
    as_json: bool,
    *,
    model: str | None,
    mrf: str | None,
    device: str | None,
    metadata: bool | None,
) -> None:
    """Make a request's pictures, save them, and print their paths or one JSON object.

    Raises:
        UserError: one line on what is wrong.
    """
    with redirect_stdout(sys.stderr):
        from .pictures import writable_folder
        from .settings import load_settings

        settings = load_settings(model=model, mrf=mrf, device=device, save_metadata=metadata)
        writable_folder(out)
        from .runtime import load_runtime

        result = watched(load_runtime(settings).run(request))
        paths = [picture.save(out, metadata=settings.save_metadata) for picture in result.images]
        for note in result.notes:
            print(note)
    if not as_json:
        print(*paths, sep="\n")
        return
    images = [
        {
            "path": str(path),
            "seed": picture.seed,
            "method": picture.method,
            "steps": picture.steps,
            "seconds": round(picture.seconds, 4),
            "model_seconds": round(picture.model_seconds, 4),
            "width": picture.width,
            "height": picture.height,
            "prompt": picture.prompt,
        }
        for path, picture in zip(paths, result.images, strict=True)
    ]
    print(json.dumps({"images": images}, ensure_ascii=False, indent=2))


def watched(events: Iterator[Any]) -> Any:
    """The last of a run's events; on a terminal, each is named as it comes."""
    live = sys.stderr.isatty()
    for event in events:
        if live and (label := getattr(event, "label", "")):
            print(f"\r\x1b[K{label}", end="", file=sys.stderr, flush=True)
    if live:
        print(file=sys.stderr)
    return event

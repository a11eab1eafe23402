"""Many prompts on many devices: `accelerate launch -m markovgen_app.batch --prompts FILE --out DIR`.

Process r of N makes items r, r + N, r + 2N, … Every item has a seed of its own, so the files are the same whatever N
is, and a run that was cut short goes on where it stopped: pictures that are there with the same settings, by the same
weights, are not made again. Started with plain `python -m`, it is one process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import PartialState
from PIL import Image

from .errors import UserError
from .pictures import METADATA_KEY, Picture, read_settings, writable_folder, write_error
from .requests import MAX_SEED, GenerateRequest
from .settings import Settings, load_settings

LIST = "pictures.jsonl"
_WEIGHTS = "weights"  # beside the settings: the digest of the weights that made a picture


@dataclass(frozen=True)
class Item:
    """One line of the file: what to make, and the names of its pictures."""

    index: int
    request: GenerateRequest

    def names(self) -> list[str]:
        """One file name a picture: "00012_1234.png", the line's number from 0 and the seed."""
        return [f"{self.index:05d}_{seed}.png" for seed in self.request.seeds]


def read_items(path: Path, common: dict[str, Any], first_seed: int) -> list[Item]:
    """The items of a file of prompts.

    Args:
        path: a prompt a line; or, if it is named .jsonl, an object with fields of `GenerateRequest` a line. Empty lines
            are left out, and counted.
        common: fields for all items; those of a line win.
        first_seed: line i has seed `first_seed` + i, counted from 0, if it has none of its own.

    Raises:
        UserError: no such file, nothing in it, or a line that is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"There is no file of prompts {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text in UTF-8: {error}.") from None
    items = []
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            fields = json.loads(line) if path.suffix == ".jsonl" else {"prompt": line}
            if not isinstance(fields, dict):
                raise UserError('this is no object such as {"prompt": "a panda"}.')
            seed = (first_seed + index) % (MAX_SEED + 1)
            items.append(Item(index, GenerateRequest.validated(**{"seed": seed, **common, **fields})))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {index + 1}: this is no JSON ({error.msg}).") from None
        except UserError as error:
            raise UserError(f"{path}, line {index + 1}: {error}") from None
    if not items:
        raise UserError(f"{path} holds no prompt: write one a line.")
    return items


def is_made(path: Path, request: GenerateRequest, weights: str) -> bool:
    """Whether a file holds the picture of a request for one, made by the weights of this digest."""
    try:
        if not path.is_file() or read_settings(path) != request:
            return False
    except UserError:
        return False
    with Image.open(path) as image:
        return dict(json.loads(image.info.get(METADATA_KEY, "{}"))).get(_WEIGHTS) == weights


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture with its settings, whole or not at all, in place of what was there; UserError if it cannot be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(picture.png())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path.parent, error) from error


def run(items: Sequence[Item], out: Path, settings: Settings) -> list[Path]:
    """Make this process's share of the items, and in the first process, once all are done, their list.

    The model's own defaults count as settings: a picture is only taken for made if it was made with them. Pictures by
    other weights, a random field among them, are made again.

    Returns:
        the files of this process's share.

    Raises:
        UserError: the checkpoint or the folder is not usable.
    """
    state = PartialState(cpu=settings.device == "cpu" or not torch.accelerator.is_available())
    writable_folder(out)
    from .events import Result
    from .loading import weights_digest
    from .runtime import load_runtime

    runtime = load_runtime(settings)
    weights = weights_digest(runtime.pipeline)
    items = [Item(item.index, runtime.pipeline.settled(item.request)) for item in items]
    paths = []
    for item in items[state.process_index :: state.num_processes]:
        request = item.request
        files = [out / name for name in item.names()]
        alone = [request.model_copy(update={"seed": seed, "count": 1}) for seed in request.seeds]
        if not all(is_made(path, each, weights) for path, each in zip(files, alone, strict=True)):
            *_, result = runtime.run(request)
            assert isinstance(result, Result)
            for path, picture in zip(files, result.images, strict=True):
                write_picture(path, replace(picture, settings={**picture.settings, _WEIGHTS: weights}))
        paths += files
        print(f"line {item.index + 1}: {', '.join(str(path) for path in files)}", file=sys.stderr)
    state.wait_for_everyone()
    if state.is_main_process:
        write_list(items, out, weights)
    return paths


def write_list(items: Sequence[Item], out: Path, weights: str) -> None:
    """One JSON object a picture: its file, the line it comes from, its settings, the digest of its weights."""
    lines = [
        json.dumps(
            {"path": name, "line": item.index + 1}
            | item.request.model_dump()
            | {"seed": seed, "count": 1, _WEIGHTS: weights}
        )
        for item in items
        for name, seed in zip(item.names(), item.request.seeds, strict=True)
    ]
    try:
        (out / LIST).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise write_error(out, error) from error


def command(
    prompts: Annotated[Path, typer.Option("--prompts", help="a prompt a line, or .jsonl with a request's fields")],
    out: Annotated[Path, typer.Option("--out", help="folder for the pictures")],
    method: Annotated[str | None, typer.Option("--method", help="for lines that do not say")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="for lines that do not say")] = None,
    exit_step: Annotated[int | None, typer.Option("--exit-step", help="for lines that do not say")] = None,
    guidance_scale: Annotated[float | None, typer.Option("--guidance", help="for lines that do not say")] = None,
    count: Annotated[int | None, typer.Option("--count", help="pictures a line")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="of the first line; then counting up")] = 0,
    model: Annotated[str | None, typer.Option("--model", help="checkpoint: a folder or a hub id")] = None,
    mrf: Annotated[str | None, typer.Option("--mrf", help="folder or hub id of a random field")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, …")] = None,
) -> None:
    """Make the pictures of a file of prompts, on all devices that `accelerate launch` was told of."""
    given = {"method": method, "steps": steps, "exit_step": exit_step, "guidance_scale": guidance_scale, "count": count}
    common = {name: value for name, value in given.items() if value is not None}
    run(read_items(prompts, common, seed), out, load_settings(model=model, mrf=mrf, device=device))


def main() -> None:
    """The command, ending with status 2 and one line where the input is wrong."""
    try:
        typer.run(command)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

"""Pictures with the settings that made them, and their PNG files: lossless, with the settings as text in the file."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from .errors import UserError
from .requests import GenerateRequest

METADATA_KEY = "markovgen"
_LARGEST_METADATA = 100_000  # characters


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture and how it came to be.

    Attributes:
        image: RGB.
        settings: fields of the request that makes this picture again, alone (`GenerateRequest(**settings)`).
        seed: its own seed.
        method: name of the decoding method.
        steps: planned decoding steps of the base.
        seconds: wall time of the whole request, with every picture in it.
        model_seconds: of those, the time that the models and the decoding loop worked; previews are not counted.
        transformer_calls: decoding steps that were computed, of all stages.
        planned_calls: decoding steps that all stages plan, which is what the method full computes.
        prompt: as given.
    """

    image: Image.Image
    settings: dict[str, Any]
    seed: int
    method: str
    steps: int
    seconds: float
    model_seconds: float
    transformer_calls: int
    planned_calls: int
    prompt: str

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height

    @property
    def name(self) -> str:
        """File name without ending: "a-panda-on-a-brick-wall_full_7"."""
        words = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower())[:60].strip("-")
        return f"{words or 'picture'}_{self.method}_{self.seed}"

    def png(self, *, metadata: bool = True) -> bytes:
        """The PNG file, with the settings in it unless `metadata` is off."""
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG", pnginfo=settings_text(self.settings) if metadata else None)
        return buffer.getvalue()

    def save(self, folder: str | Path, *, metadata: bool = True) -> Path:
        """Write the PNG file into a folder, made where it is not there; no file is ever overwritten.

        Raises:
            UserError: the folder cannot be written to, or the disk is full.
        """
        folder = writable_folder(folder)
        try:
            return _write_new(folder, self.name, self.png(metadata=metadata))
        except OSError as error:
            raise write_error(folder, error) from error


def writable_folder(folder: str | Path) -> Path:
    """The folder, made where it is not there.

    Raises:
        UserError: it cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise write_error(folder, error) from error


def _write_new(folder: Path, name: str, content: bytes) -> Path:
    """Write `name`.png, or `name`-2.png, … : whole, or not at all."""
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        with suppress(PermissionError):  # exFAT and the like have no modes
            os.chmod(temporary, 0o644)
        number = 1
        while True:
            path = folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
            try:
                _put(temporary, path, content)
                return path
            except FileExistsError:
                number += 1
    finally:
        os.unlink(temporary)


def _put(temporary: str, path: Path, content: bytes) -> None:
    """Make a file of a temporary one that holds its content; raises FileExistsError where it is there already."""
    try:
        os.link(temporary, path)  # fails where the file exists, unlike a rename
    except FileExistsError:
        raise
    except OSError:  # exFAT and some mounts have no links
        with path.open("xb") as file:
            try:
                file.write(content)
                file.flush()
            except OSError:
                path.unlink()
                raise


def write_error(folder: Path, error: Exception) -> UserError:
    """What to do about a file that could not be written; safetensors says the error's number in its text only."""
    in_text = re.search(r"os error (\d+)", str(error))
    number = error.errno if isinstance(error, OSError) else int(in_text.group(1)) if in_text else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"The disk of {folder} is full: free some space, or choose another folder.")
    if number in (errno.EEXIST, errno.ENOTDIR):
        return UserError(f"{folder} is a file, not a folder: choose another folder.")
    return UserError(f"Cannot write to {folder} ({os.strerror(number) if number else error}): choose another folder.")


def settings_text(settings: dict[str, Any]) -> PngInfo:
    """PNG text chunks: the settings as JSON for programs, and as one line for people."""
    text = PngInfo()
    text.add_itxt(METADATA_KEY, json.dumps(settings, ensure_ascii=False))
    rest = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in settings.items() if name != "prompt")
    text.add_itxt("parameters", f"{settings.get('prompt', '')}\n{rest}")
    return text


def stored_settings(png: str | Path | IO[bytes] | Image.Image) -> dict[str, Any]:
    """The settings inside a picture's PNG file, as they stand there.

    Raises:
        UserError: no picture file, a picture without settings, or settings that are damaged.
    """
    try:
        image = png if isinstance(png, Image.Image) else Image.open(png)
        text = image.text if isinstance(image, PngImageFile) else image.info  # `text` reads to the end of the file
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError("This file is no picture that can be read: choose a PNG file made here.") from None
    found = text.get(METADATA_KEY)
    if not isinstance(found, str):
        raise UserError(
            "This picture holds no MarkovGen settings: choose a PNG file made here, with settings kept in it."
        )
    try:
        if len(found) > _LARGEST_METADATA:
            raise ValueError("too long")
        return dict(json.loads(found))
    except (ValueError, TypeError, RecursionError):
        raise UserError("The settings in this picture are damaged: choose another picture.") from None


def read_settings(png: str | Path | IO[bytes] | Image.Image) -> GenerateRequest:
    """The request that made a picture from words alone, from its PNG file.

    Raises:
        UserError: as `stored_settings` and `request_of`.
    """
    return request_of(stored_settings(png))


def request_of(fields: Mapping[str, Any]) -> GenerateRequest:
    """The request that made a picture from words alone, of the settings stored in it.

    Raises:
        UserError: they do not work here, or the picture was made by another task, such as inpaint.
    """
    task = fields.get("task", GenerateRequest.task)
    if task != GenerateRequest.task:
        raise UserError(f"This picture was made by {str(task)[:20]}: only one made of words alone can be made again.")
    known = {name: fields[name] for name in GenerateRequest.model_fields if name in fields}
    try:
        return GenerateRequest.validated(**known)
    except UserError as error:
        raise UserError(f"The settings in this picture do not work here: {error}") from None

"""Checkpoints on disk: where they are, and whether they are whole, before any model is built from them.

A checkpoint is a folder in diffusers' format: model_index.json, a folder with config.json and safetensors for each
part, and vocabulary.json beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.json", "*/*.json", "*/*.safetensors"]
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_AGAIN = "copy or download the checkpoint again"


def find_checkpoint(source: str | PathLike[Any]) -> Path:
    """The folder of a checkpoint; one that is named by a hub id is downloaded unless it is in the hub's cache.

    Raises:
        UserError: there is no such checkpoint.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{source} is a file, not a checkpoint's folder: give the folder that holds model_index.json.")
    if not _HUB_ID.fullmatch(str(source)):
        raise UserError(f"There is no folder {source}: give a checkpoint's folder, or a hub id such as owner/name.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=_HUB_FILES))
    except Exception as error:  # whatever keeps the hub from answering
        raise UserError(
            f"There is no folder {source}, and the hub gives no model of that name now: check name and connection."
        ) from error


def check_checkpoint(
    folder: Path, class_name: str, parts: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> set[str]:
    """Make sure that a checkpoint is of the right kind, and that its files are there and whole.

    Args:
        folder: the checkpoint.
        class_name: class that model_index.json must name.
        parts: sub-folder → class of its models.
        optional: the same for parts that a checkpoint may do without.

    Returns:
        names of the parts that are there.

    Raises:
        UserError: names the file that is missing or damaged, and says what to do.
    """
    index = _read_json(folder / "model_index.json")
    found = index.get("_class_name")
    if found != class_name:
        raise UserError(f"{folder} holds {found or 'no pipeline'}, not {class_name}: choose another checkpoint.")
    present = {part: kind for part, kind in (optional or {}).items() if index.get(part) not in (None, [None, None])}
    for part, kind in {**parts, **present}.items():
        if index.get(part) != [kind.__module__, kind.__name__]:
            raise UserError(f"The {part} in {folder} is no {kind.__name__}: choose another checkpoint.")
        _read_json(folder / part / "config.json")
        tensor_names(folder / part)
    return {*parts, *present}


def check_model(folder: Path, kind: type) -> None:
    """Make sure that a model's folder holds one of this class, whole.

    Raises:
        UserError: names the file that is missing or damaged, and says what to do.
    """
    found = _read_json(folder / "config.json").get("_class_name")
    if found != kind.__name__:
        raise UserError(f"{folder} holds {found or 'no model'}, not {kind.__name__}: choose another folder.")
    tensor_names(folder)


def tensor_names(folder: Path) -> set[str]:
    """Names of all tensors in a model's folder; every file is opened, which finds those cut short.

    Raises:
        UserError: a file is missing, or no whole safetensors file.
    """
    index = folder / f"{_WEIGHTS}.index.json"
    files = {folder / _WEIGHTS}
    if index.is_file():
        try:
            files = {folder / name for name in _read_json(index)["weight_map"].values()}
        except (KeyError, AttributeError, TypeError):
            raise UserError(f"{index} is damaged: {_AGAIN}.") from None
    names: set[str] = set()
    for file in sorted(files):
        if not file.is_file():
            raise UserError(f"{file} is missing: {_AGAIN}.")
        try:
            with safe_open(file, framework="pt") as tensors:
                names.update(tensors.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is truncated or damaged: {_AGAIN}.") from error
    return names


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is no whole checkpoint, {_AGAIN}.") from None
    except (OSError, ValueError):
        raise UserError(f"{path} is damaged: {_AGAIN}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: {_AGAIN}.")
    return content

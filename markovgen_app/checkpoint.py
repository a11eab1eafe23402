"""Checkpoints on disk: where they are, and whether they are whole, before any model is built from them.

A checkpoint is a folder in diffusers' format: model_index.json, a folder with config.json and safetensors for each
part, and vocabulary.json beside them.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ("*.json", "*/*.json", "*/*.txt", "*/*.safetensors")
_HUB_VARIANTS = ["*.fp16.safetensors", "*.non_ema.safetensors"]  # the same weights again
_WEIGHTS = "diffusion_pytorch_model"
MODEL_FILES = ("config.json", f"{_WEIGHTS}*.safetensors", f"{_WEIGHTS}.safetensors.index.json")
"""What to download of a repository that holds one model: * also stands for /, so these begin as the files do."""
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
    if not is_hub_id(source):
        raise UserError(f"There is no folder {source}: give a checkpoint's folder, or a hub id such as owner/name.")
    return download(str(source))


def is_hub_id(source: str | PathLike[Any]) -> bool:
    """Whether a name has the form owner/name."""
    return _HUB_ID.fullmatch(str(source)) is not None


def download(name: str, patterns: Sequence[str] = _HUB_FILES) -> Path:
    """The folder of a model of the hub, in the hub's cache; files that are not there yet are downloaded.

    Args:
        patterns: of the files to download.

    Raises:
        UserError: there is no such model, it asks for permission, there is no network, or no room.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, IncompleteSnapshotError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=_HUB_VARIANTS))
    except GatedRepoError as error:
        raise UserError(
            f"The hub gives {name} only to those who accepted its conditions: accept them at"
            f" https://huggingface.co/{name}, then run `hf auth login` on this machine."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"There is no folder {name}, and the hub has no model of that name that you may see: check the spelling,"
            " or run `hf auth login` if it is private."
        ) from error
    except IncompleteSnapshotError as error:
        raise UserError(
            f"Only a part of {name} was downloaded, and the hub cannot be reached: start again with a network."
        ) from error
    except Exception as error:  # whatever else keeps the hub from answering
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(f"There is no room left on the disk for {name}: make some, then start again.") from error
        raise UserError(
            f"There is no folder {name}, and the hub gives no model of that name now: check name and connection."
        ) from error


def class_of(folder: Path) -> str | None:
    """The pipeline's class that a checkpoint names; UserError where its model_index.json is missing or damaged."""
    return read_json(folder / "model_index.json").get("_class_name")


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
    index = read_json(folder / "model_index.json")
    found = index.get("_class_name")
    if found != class_name:
        raise UserError(f"{folder} holds {found or 'no pipeline'}, not {class_name}: choose another checkpoint.")
    present = {part: kind for part, kind in (optional or {}).items() if index.get(part) not in (None, [None, None])}
    for part, kind in {**parts, **present}.items():
        if index.get(part) != [kind.__module__, kind.__name__]:
            raise UserError(f"The {part} in {folder} is no {kind.__name__}: choose another checkpoint.")
        read_json(folder / part / "config.json")
        tensor_names(folder / part)
    return {*parts, *present}


def check_model(folder: Path, kind: type) -> None:
    """Make sure that a model's folder holds one of this class, whole.

    Raises:
        UserError: names the file that is missing or damaged, and says what to do.
    """
    found = read_json(folder / "config.json").get("_class_name")
    if found != kind.__name__:
        raise UserError(f"{folder} holds {found or 'no model'}, not {kind.__name__}: choose another folder.")
    tensor_names(folder)


def variant_of(folder: Path, stem: str = _WEIGHTS) -> str | None:
    """The precision that a model's files name, where there are no others: "fp16" for model.fp16.safetensors."""
    plain = any((folder / f"{stem}.safetensors{ending}").is_file() for ending in ("", ".index.json"))
    return None if plain or not (folder / f"{stem}.fp16.safetensors").is_file() else "fp16"


def tensor_names(folder: Path, stem: str = _WEIGHTS) -> set[str]:
    """Names of all tensors in a model's folder; every file is opened, which finds those cut short.

    Args:
        stem: what the files' names begin with.

    Raises:
        UserError: a file is missing, or no whole safetensors file.
    """
    variant = variant_of(folder, stem)
    index = folder / f"{stem}.safetensors.index.json"
    files = {folder / f"{stem}{'' if variant is None else '.' + variant}.safetensors"}
    if index.is_file():
        try:
            files = {folder / name for name in read_json(index)["weight_map"].values()}
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


def read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is no whole checkpoint, {_AGAIN}.") from None
    except (OSError, ValueError):
        raise UserError(f"{path} is damaged: {_AGAIN}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: {_AGAIN}.")
    return content

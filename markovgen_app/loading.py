"""Models from their folders, and models as they are stored."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.modeling_utils import ModelMixin

from .checkpoint import MODEL_FILES, check_model, download, is_hub_id, tensor_names
from .errors import UserError, first_line
from .ladder import Finer
from .models.mrf import MarkovRandomField
from .models.super_resolution import SuperResolutionTransformer
from .models.text import HUB_ID

if TYPE_CHECKING:
    from .pipeline import MarkovGenPipeline


ModelT = TypeVar("ModelT", bound=ModelMixin)

_ON_A_STAGE = re.compile(r"mrf|super_resolution(_\d+)?(_mrf)?")


def load_model(
    kind: type[ModelT], folder: Path, absent: str | None = None, *, dtype: torch.dtype = torch.float32
) -> ModelT:
    """A model from its folder, whole and of this class.

    Args:
        absent: what to say where the folder holds no model.

    Raises:
        UserError: it is not there, damaged, of another class, or its config.json is not that of its weights.
    """
    if absent is not None and not (folder / "config.json").is_file():
        raise UserError(absent)
    check_model(folder, kind)
    try:
        model = kind.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True)
    except Exception as error:  # a config and weights that do not fit fail in as many ways as there are mistakes
        raise UserError(
            f"The model in {folder} cannot be loaded: copy it again, with its config.json ({first_line(error)})."
        ) from error
    check_complete(model, folder)
    return model


def load_field(source: str | os.PathLike[Any], dtype: torch.dtype = torch.float32) -> MarkovRandomField:
    """A random field, from the folder that its training writes, or from the hub.

    Raises:
        UserError: it is not there, damaged, or something else.
    """
    folder = Path(source)
    if not folder.exists() and is_hub_id(source):
        folder = download(str(source), MODEL_FILES)
    absent = f"There is no random field in {folder}: train one with `markovgen train mrf`."
    return load_model(MarkovRandomField, folder, absent, dtype=dtype)


def load_finer(folder: Path, transformer: str, mrf: str | None, dtype: torch.dtype) -> Finer:
    """A stage above the first super-resolution, from its folders in a checkpoint.

    Raises:
        UserError: a part is damaged, or something else.
    """
    model = load_model(SuperResolutionTransformer, folder / transformer, dtype=dtype)
    return model, None if mrf is None else load_field(folder / mrf, dtype)


def added_fields(folder: Path, present: Collection[str], dtype: torch.dtype) -> dict[str, MarkovRandomField]:
    """Random fields whose folders were put beside the parts that a checkpoint names, by the folder's name.

    Args:
        present: the parts that it names.

    Raises:
        UserError: a field is damaged, or something else.
    """
    wanted = {"mrf": "transformer", "super_resolution_mrf": "super_resolution"}
    return {
        field: load_field(folder / field, dtype)
        for field, transformer in wanted.items()
        if field not in present and transformer in present and (folder / field).is_dir()
    }


def remove_parts(folder: Path, kept: Collection[str]) -> None:
    """Remove the stages and random fields that an earlier checkpoint left in a folder, but for those that are kept."""
    for config in folder.glob("*/config.json"):
        if _ON_A_STAGE.fullmatch(config.parent.name) and config.parent.name not in kept:
            shutil.rmtree(config.parent)


def storable(model: Any) -> Any:
    """A model's copy in half precision that does not tell where it was loaded from."""
    stored: Any = torch.nn.Module.half(copy.deepcopy(model).cpu())
    stored._internal_dict = FrozenDict({key: value for key, value in model.config.items() if key != "_name_or_path"})
    return stored


def weights_digest(pipeline: MarkovGenPipeline) -> str:
    """What tells one set of weights from another, 16 hexadecimal digits.

    Of all image parts it covers which of them are there, their config, and every tensor that a checkpoint stores, by
    name, shape, and value in float16. So a pipeline in float32 or float16, on any device, has the digest of the
    checkpoint that it is saved as; one that was cast to bfloat16 has another, as its weights were rounded. The text
    encoder counts where it is not the published one, by its hub id or its folder's own name, not by its weights.
    """
    source = pipeline.text_encoder.source
    name = source.name if isinstance(source, Path) else str(source)
    digest = hashlib.blake2b(b"" if name == HUB_ID else name.encode(), digest_size=8)
    parts: dict[str, Any] = {"tokenizer": pipeline.tokenizer}
    for stage in pipeline.stages:
        parts |= {f"{stage.name} transformer": stage.transformer, f"{stage.name} mrf": stage.mrf}
    for place, part in parts.items():
        if part is None:
            continue
        digest.update(json.dumps([place, own_config(part)], sort_keys=True, default=str).encode())
        _add_tensors(digest, part)
    return digest.hexdigest()


def own_config(model: Any) -> dict[str, Any]:
    """What a model of diffusers was made with: its config without what diffusers notes there for itself."""
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def tensors_digest(*parts: torch.nn.Module) -> str:
    """What tells the weights of some models from others, on any device: 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        _add_tensors(digest, part)
    return digest.hexdigest()


def _add_tensors(digest: hashlib.blake2b, part: torch.nn.Module) -> None:
    """Feed every tensor that a checkpoint stores of a part, by name, shape, and value in float16."""
    for key, tensor in part.state_dict().items():
        values = (tensor.half() if tensor.is_floating_point() else tensor).cpu()
        digest.update(f"{key} {tuple(values.shape)}".encode() + values.numpy().tobytes())


def check_complete(model: torch.nn.Module, folder: Path) -> None:
    """Raise UserError where a model was not filled from its files to the last tensor, with finite values."""
    stored, wanted = tensor_names(folder), set(model.state_dict())
    if stored != wanted:
        odd = sorted(stored ^ wanted)
        raise UserError(
            f"The weights in {folder} do not fit its config.json ({odd[0]}): copy both from one checkpoint."
        )
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise UserError(f"The weights in {folder} are damaged (not all numbers are finite): copy them again.")

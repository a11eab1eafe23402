"""Trained parts, put together into one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin

from ..data.scenes import VOCABULARIES
from ..data.vocabulary import BACKGROUNDS, COLOURS, STYLES
from ..errors import UserError
from ..models.mrf import MarkovRandomField
from ..models.super_resolution import SuperResolutionTransformer
from ..models.tokenizer import ImageTokenizer
from ..models.transformer import MuseTransformer
from ..pipeline import MarkovGenPipeline, load_field
from ..vocabulary import Vocabulary

ModelT = TypeVar("ModelT", bound=ModelMixin)


def load_part(kind: type[ModelT], folder: Path) -> ModelT:
    """A trained part from the folder that its stage writes, in float32.

    Raises:
        UserError: there are no weights in the folder.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"There are no trained weights in {folder}: run `markovgen train` for that stage first.")
    return kind.from_pretrained(folder, torch_dtype=torch.float32)


def export(
    tokenizer: Path,
    base: Path,
    out: Path,
    vocabulary: str,
    *,
    mrf: Path | None = None,
    super_resolution: Sequence[Path] = (),
    super_resolution_mrf: Sequence[Path] = (),
) -> None:
    """Write a checkpoint in diffusers' folder format to `out`.

    Args:
        tokenizer, base: folders that the training stages write (runs/NAME/weights).
        mrf: folder of a random field; none is exported if not given.
        vocabulary: the nouns that the base transformer was trained on.
        super_resolution: folders of the stages above the base, from the lowest up.
        super_resolution_mrf: folders of their random fields; stages beyond the last one get none.

    Raises:
        UserError: a part is missing, the parts do not fit, or `out` cannot be written.
    """
    if vocabulary not in VOCABULARIES:
        raise UserError(f"There is no vocabulary {vocabulary!r}: choose one of {', '.join(VOCABULARIES)}.")
    if len(super_resolution_mrf) > len(super_resolution):
        raise UserError("There are more random fields than super-resolution stages: give a stage for each.")
    fields: list[MarkovRandomField | None] = [load_field(folder) for folder in super_resolution_mrf]
    fields += [None] * (len(super_resolution) - len(fields))
    stages = [load_part(SuperResolutionTransformer, folder) for folder in super_resolution]
    finer = list(zip(stages, fields, strict=True))
    words = Vocabulary.of(VOCABULARIES[vocabulary], BACKGROUNDS, STYLES, COLOURS)
    pipeline = MarkovGenPipeline(
        load_part(MuseTransformer, base),
        load_part(ImageTokenizer, tokenizer),
        vocabulary=words,
        mrf=load_field(mrf) if mrf else None,
        super_resolution=finer[0][0] if finer else None,
        super_resolution_mrf=finer[0][1] if finer else None,
        further=finer[1:],
    )
    pipeline.save_pretrained(out)

"""Trained parts, put together into one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin

from ..data.scenes import VOCABULARIES
from ..data.vocabulary import BACKGROUNDS, COLOURS, STYLES
from ..errors import UserError
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


def export(tokenizer: Path, base: Path, out: Path, vocabulary: str, *, mrf: Path | None = None) -> None:
    """Write a checkpoint in diffusers' folder format to `out`.

    Args:
        tokenizer, base: folders that the training stages write (runs/NAME/weights).
        mrf: folder of a random field; none is exported if not given.
        vocabulary: the nouns that the base transformer was trained on.

    Raises:
        UserError: a part is missing, the parts do not fit, or `out` cannot be written.
    """
    if vocabulary not in VOCABULARIES:
        raise UserError(f"There is no vocabulary {vocabulary!r}: choose one of {', '.join(VOCABULARIES)}.")
    words = Vocabulary.of(VOCABULARIES[vocabulary], BACKGROUNDS, STYLES, COLOURS)
    pipeline = MarkovGenPipeline(
        load_part(MuseTransformer, base),
        load_part(ImageTokenizer, tokenizer),
        vocabulary=words,
        mrf=load_field(mrf) if mrf else None,
    )
    pipeline.save_pretrained(out)

"""Trained parts, put together into one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data.scenes import VOCABULARIES
from ..data.vocabulary import BACKGROUNDS, COLOURS, STYLES
from ..errors import UserError
from ..loading import ModelT, load_field, load_model
from ..models.mrf import MarkovRandomField
from ..models.super_resolution import SuperResolutionTransformer
from ..models.text import HUB_ID, TextEncoder, source_beside
from ..models.tokenizer import ImageTokenizer
from ..models.transformer import MuseTransformer
from ..pipeline import MarkovGenPipeline
from ..vocabulary import Vocabulary


def load_part(kind: type[ModelT], folder: Path) -> ModelT:
    """A trained part from the folder that its stage writes, in float32.

    Raises:
        UserError: there are no weights in the folder, or damaged ones.
    """
    absent = f"There are no trained weights in {folder}: run `markovgen train` for that stage first."
    return load_model(kind, folder, absent)


def common_text_encoder(parts: Sequence[Path]) -> TextEncoder | None:
    """The text encoder that transformers were trained with; None for the published one.

    Raises:
        UserError: it is not there, or they were trained with different ones.
    """
    named = {source_beside(part): part for part in parts}
    if len(named) > 1:
        told = ", ".join(f"{part} with {name}" for name, part in named.items())
        raise UserError(f"The parts were trained with different text encoders ({told}): train them with one.")
    ((name, part),) = named.items()
    return None if name == HUB_ID else TextEncoder.beside(part)


def _words(vocabulary: str) -> Vocabulary:
    return (
        Vocabulary() if vocabulary == "none" else Vocabulary.of(VOCABULARIES[vocabulary], BACKGROUNDS, STYLES, COLOURS)
    )


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
        vocabulary: the nouns that the base transformer was trained on; "none" where it was on people's own pictures.
        super_resolution: folders of the stages above the base, from the lowest up.
        super_resolution_mrf: folders of their random fields; stages beyond the last one get none.

    Raises:
        UserError: a part is missing, the parts do not fit, or `out` cannot be written.
    """
    if vocabulary not in (*VOCABULARIES, "none"):
        raise UserError(f"There is no vocabulary {vocabulary!r}: choose one of {', '.join(VOCABULARIES)}, none.")
    if len(super_resolution_mrf) > len(super_resolution):
        raise UserError("There are more random fields than super-resolution stages: give a stage for each.")
    fields: list[MarkovRandomField | None] = [load_field(folder) for folder in super_resolution_mrf]
    fields += [None] * (len(super_resolution) - len(fields))
    stages = [load_part(SuperResolutionTransformer, folder) for folder in super_resolution]
    finer = list(zip(stages, fields, strict=True))
    pipeline = MarkovGenPipeline(
        load_part(MuseTransformer, base),
        load_part(ImageTokenizer, tokenizer),
        common_text_encoder([base, *super_resolution]),
        _words(vocabulary),
        mrf=load_field(mrf) if mrf else None,
        super_resolution=finer[0][0] if finer else None,
        super_resolution_mrf=finer[0][1] if finer else None,
        further=finer[1:],
    )
    pipeline.save_pretrained(out)

"""Builders that test files share: a whole pipeline of tiny random models of the real classes, and checkpoints of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from markovgen_app.data.vocabulary import BACKGROUNDS, COLOURS, FREQUENT_NOUNS, STYLES
from markovgen_app.models.mrf import MarkovRandomField
from markovgen_app.models.super_resolution import SuperResolutionTransformer
from markovgen_app.models.text import TextEncoder
from markovgen_app.models.tokenizer import ImageTokenizer
from markovgen_app.models.transformer import MuseTransformer
from markovgen_app.pipeline import MarkovGenPipeline
from markovgen_app.runtime import Runtime
from markovgen_app.vocabulary import Vocabulary

TINY_GRID = (4, 4)
TINY_LEVELS = (8, 6, 5)
TINY_CODES = 240


def tiny_transformer(text_width: int = 384) -> MuseTransformer:
    """A base transformer of 4 x 4 tokens with random weights, also where training starts from zeros."""
    generator = torch.manual_seed(0)
    model = MuseTransformer(
        codebook_size=TINY_CODES, grid=TINY_GRID, hidden_size=32, num_layers=2, num_heads=2, text_width=text_width
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval().requires_grad_(False)


def tiny_tokenizer(levels: tuple[int, ...] = TINY_LEVELS) -> ImageTokenizer:
    """An image tokenizer with few channels and random weights, for `tiny_transformer`'s codebook."""
    torch.manual_seed(0)
    model = ImageTokenizer(levels=levels, channels=(8, 12, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    return model.eval().requires_grad_(False)


def tiny_field(grid: tuple[int, int] = TINY_GRID) -> MarkovRandomField:
    """A random field over `tiny_transformer`'s codes that has something to say."""
    generator = torch.Generator().manual_seed(1)
    field = MarkovRandomField("directional", TINY_CODES, grid, rank=4, neighbourhood=3, iterations=2)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return field.eval().requires_grad_(False)


def tiny_super_resolution(number: int = 1) -> SuperResolutionTransformer:
    """A transformer from `tiny_transformer`'s 4 x 4 tokens to 8 x 8, or for a higher number from there up.

    The first reads the enlarged coarse picture as well.
    """
    side = TINY_GRID[0] * 2**number
    torch.manual_seed(2)
    generator = torch.Generator().manual_seed(2)
    grids = (side, side), (side // 2, side // 2)
    model = SuperResolutionTransformer(
        TINY_CODES, *grids, 32, 1, 2, 2.0, fine_size=16, levels=TINY_LEVELS, enlarged=number == 1
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval().requires_grad_(False)


def tiny_ladder(*, field: bool = True, further: int = 0) -> MarkovGenPipeline:
    """`tiny_pipeline` with a stage for 64 x 64 px, with or without a random field there, and `further` ones above."""
    return MarkovGenPipeline(
        tiny_transformer(),
        tiny_tokenizer(),
        text_encoder(),
        tiny_vocabulary(),
        tiny_field(),
        tiny_super_resolution(),
        tiny_field((8, 8)) if field else None,
        [(tiny_super_resolution(number), None) for number in range(2, 2 + further)],
    )


def tiny_vocabulary() -> Vocabulary:
    """The words of the frequent-noun world."""
    return Vocabulary.of(FREQUENT_NOUNS, BACKGROUNDS, STYLES, COLOURS)


def tiny_pipeline(encoder: TextEncoder | None = None) -> MarkovGenPipeline:
    """A pipeline that makes random pictures of 32 x 32 px in milliseconds, with the real text encoder."""
    return MarkovGenPipeline(
        tiny_transformer(), tiny_tokenizer(), encoder or text_encoder(), tiny_vocabulary(), tiny_field()
    )


def tiny_checkpoint(folder: Path) -> Path:
    """The tiny pipeline, saved."""
    tiny_pipeline().save_pretrained(folder)
    return folder


def runtime_of(pipeline: MarkovGenPipeline) -> Runtime:
    """The pipeline ready to work on the CPU, as if a step took 0.1 s."""
    return Runtime(pipeline, torch.device("cpu"), torch.float32, step_seconds=0.1, decode_seconds=0.1)


@cache
def text_encoder() -> TextEncoder:
    """The published text encoder, loaded once a process."""
    return TextEncoder.from_pretrained()

"""Train the super-resolution transformer to predict masked fine tokens from coarse ones and the caption.

The recipe is that of `masked`. The coarse tokens are those of the same scene drawn small, which is what the base
transformer learned to make. At run time they come from a model, which errs, so some are replaced in training: a share
drawn for each sample between nothing and `corruption`, half of them (`near_share`) by one of the codes nearest to the
true one, the rest by any code. A few samples (`drop_coarse`) get no coarse tokens at all, so that their worth can be
measured: the log's `full_mask_loss_without_coarse`.

With `enlarged`, the transformer also reads the coarse picture enlarged, as tokens of the fine grid. Coarse tokens have
to be decoded and encoded again for that, so those of a scene are spoilt once, and kept with what was made of them.

What a fine token is depends on what is near it. For the first part of a run the fine grid can therefore be a window of
it, somewhere on the objects more often than elsewhere; the coarse tokens are always all there. The rest of the run sees
whole grids.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from ..decoding.guidance import guided_logits
from ..decoding.sampler import decode, method_settings
from ..ladder import enlarged_tokens
from ..loading import tensors_digest
from ..models.super_resolution import SuperResolutionTransformer
from ..models.text import TextEncoder
from ..models.tokenizer import ImageTokenizer
from ..pixels import stacked, to_levels, to_pixels
from .data import open_pictures
from .loop import Trainer, copy_half, read_config, start_from, without_denormals
from .masked import (
    MaskedConfig,
    build_optimizers,
    drop_captions,
    load_text_encoder,
    load_tokenizer,
    mask_rates,
    masked_loss,
    place_weights,
    random_mask,
    read_captions,
    write_sheet,
)
from .tokens import Derived, TokenBatch, TokenSource

_INNER = ("blocks.", "coarse_blocks.", "fine_before.", "fine_after.", "merge_in.", "spread_out.", "coarse_spread.")
_NEAR = 8  # codes that count as near
_HELD_OUT = 32
_TOGETHER = 8
_SHOWN = 6


class SuperResolutionConfig(MaskedConfig):
    """Settings of a super-resolution run."""

    size: int = Field(256, ge=16, description="side of the pictures to make, in pixels")
    coarse_size: int = Field(128, ge=8, description="side of the pictures to start from, in pixels")
    corruption: float = Field(0.3, ge=0, le=1, description="largest share of coarse tokens to replace")
    near_share: float = Field(0.5, ge=0, le=1, description="of the replaced ones, by codes near the true one")
    drop_coarse: float = Field(0.05, ge=0, le=1, description="share of samples without coarse tokens")
    steps_shown: int = Field(8, ge=1, description="decoding steps of samples.png")
    window: int | None = Field(None, ge=1, description="fine tokens a side of the first part's windows; None: all")
    window_until: float = Field(0.8, ge=0, le=1, description="share of the time that the first part is")
    object_weight: float = Field(3.0, gt=0, description="how much oftener a window lies on an object than elsewhere")
    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    coarse_layers: int = 1
    fine_size: int = 192
    fine_layers: tuple[int, int] = (1, 2)
    merge: int = 2
    enlarged: bool = Field(False, description="whether it reads the tokens of the enlarged coarse picture as well")

    @model_validator(mode="after")
    def _window_fits(self) -> SuperResolutionConfig:
        side = self.size // ImageTokenizer.factor
        if self.window is not None and (self.window > side or self.window % self.merge or side % self.merge):
            raise ValueError(f"window is a multiple of {self.merge}, and at most {side}, the tokens a side")
        return self


def near_codes(codebook: Tensor, count: int = _NEAR) -> Tensor:
    """The `count` codes nearest to each code of a codebook (V, D), itself left out, nearest first: (V, count)."""
    distances = torch.cdist(codebook.float(), codebook.float())  # (V, V)
    return distances.fill_diagonal_(torch.inf).topk(count, largest=False).indices


def corrupted(tokens: Tensor, near: Tensor, corruption: float, near_share: float, generator: torch.Generator) -> Tensor:
    """Tokens (B, n) with a share, uniform in [0, corruption] for each sample, replaced; `generator` is on the CPU."""
    count, n = tokens.shape
    draws = torch.rand(2, count, n, generator=generator)
    replaced = draws[0] < torch.rand(count, 1, generator=generator) * corruption  # (B, n)
    which = torch.randint(near.shape[1], (count, n), generator=generator).to(tokens.device)
    neighbours = near[tokens].gather(2, which[..., None]).squeeze(2)  # (B, n, K) -> (B, n)
    anything = torch.randint(len(near), (count, n), generator=generator).to(tokens.device)
    chosen = torch.where((draws[1] < near_share).to(tokens.device), neighbours, anything)
    return torch.where(replaced.to(tokens.device), chosen, tokens)


def dropped(
    tokens: Sequence[Tensor], probability: float, unknown: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Tokens (B, …) each, the same rows of all replaced by the token `unknown` where rand < `probability`."""
    rows = torch.rand(len(tokens[0]), 1, generator=generator) < probability
    return tuple(each.masked_fill(rows.to(each.device), unknown) for each in tokens)


def spoilt(config: SuperResolutionConfig, tokenizer: ImageTokenizer, near: Tensor) -> Derived:
    """Coarse tokens with errors, and the fine ones of their enlarged pictures."""
    grids = (_grid(config.coarse_size, tokenizer), _grid(config.size, tokenizer))

    def make(tokens: tuple[Tensor, ...], number: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        coarse = corrupted(tokens[0], near, config.corruption, config.near_share, generator)
        return coarse, enlarged_tokens(tokenizer, coarse, *grids)

    drawn_by = tensors_digest(tokenizer.decoder)  # pictures are enlarged as it draws them
    return Derived(
        f"spoilt-{config.coarse_size}-{config.corruption}-{config.near_share}-{config.seed}-{drawn_by}", make
    )


def window_places(
    scenes: Sequence[Any], grid: tuple[int, int], side: int, step: int, weight: float, generator: torch.Generator
) -> Tensor:
    """Places of a square window of each grid, (B, side²) long, row-major; its corner lies at multiples of `step`.

    It holds a place that is drawn, one on a scene's objects, if it has any, `weight` × as likely as another.
    """
    height, width = grid
    held = place_weights(scenes, grid, weight).multinomial(1, generator=generator).squeeze(1)  # (B, 1) -> (B,)
    before = torch.randint(side, (2, len(scenes)), generator=generator)  # of the place held, in the window
    corners = torch.stack([held // width, held % width]) - before  # (2, B)
    furthest = torch.tensor([[height - side], [width - side]])
    top, left = corners.clamp(min=0).minimum(furthest) // step * step
    inside = (torch.arange(side)[:, None] * width + torch.arange(side)).flatten()  # (side, side) -> (side²,)
    return (top * width + left)[:, None] + inside


@torch.no_grad()
def sample_sheet(
    model: SuperResolutionTransformer,
    tokenizer: ImageTokenizer,
    text_encoder: TextEncoder,
    captions: Sequence[str],
    coarse: Sequence[Tensor],
    originals: Sequence[np.ndarray],
    steps: int,
    path: Path,
) -> None:
    """A PNG with three pictures a caption: coarse tokens decoded and enlarged (Lanczos), refined ones, the original.

    Args:
        coarse: coarse tokens, and those of the enlarged pictures if the model reads them.
    """
    settings = method_settings("full", steps=steps)
    device = next(model.parameters()).device
    text, empty = (text_encoder.encode(words).to(device) for words in (captions, [""]))
    logits = guided_logits(model.given(*coarse), text, empty, settings)
    height, width = model.grid
    tokens = torch.full((len(captions), height * width), model.mask_token_id, device=device)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(captions))]
    for step in decode(logits, tokens, model.mask_token_id, settings, generators, grid=model.grid):
        tokens = step.predicted
    refined = to_levels(tokenizer.decode(tokens, model.grid))
    shown = []
    for row, small in enumerate(to_levels(tokenizer.decode(coarse[0], model.coarse_grid))):
        size = (refined[row].shape[1], refined[row].shape[0])
        shown += [
            np.asarray(Image.fromarray(small).resize(size, Image.Resampling.LANCZOS)),
            refined[row],
            originals[row],
        ]
    write_sheet(shown, 6, path)


def _grid(size: int, tokenizer: ImageTokenizer) -> tuple[int, int]:
    side = size // tokenizer.factor
    return side, side


def build_model(
    config: SuperResolutionConfig, tokenizer: ImageTokenizer, text_width: int = 384
) -> SuperResolutionTransformer:
    """The transformer of a run: a new one, or the exported one that it starts from.

    Args:
        text_width: width of the text encoder's states.

    Raises:
        UserError: the exported one is not there or of other sizes.
    """
    given = {
        "codebook_size": tokenizer.codebook_size,
        "levels": tokenizer.config.levels,
        "grid": _grid(config.size, tokenizer),
        "coarse_grid": _grid(config.coarse_size, tokenizer),
        "text_width": text_width,
    }
    if config.start_from:
        return start_from(SuperResolutionTransformer, config.start_from, config, **given)
    sizes = ("hidden_size", "num_layers", "num_heads", "coarse_layers", "fine_size", "fine_layers", "merge", "enlarged")
    return SuperResolutionTransformer(**given, **{name: getattr(config, name) for name in sizes})


@without_denormals
def train(config_path: Path, resume: bool = False, data: str | None = None) -> None:
    """Train by the configuration file; the averaged weights go to runs/NAME/weights at every checkpoint.

    Args:
        data: folder of pictures with captions, in place of the file's.
    """
    config = read_config(config_path, SuperResolutionConfig, data=data)
    torch.manual_seed(config.seed)
    tokenizer = load_tokenizer(config.tokenizer)
    text_encoder = load_text_encoder(config)
    model = build_model(config, tokenizer, text_encoder.width)
    trainer = Trainer(config, model, build_optimizers(model, config.matrix_rate, config.learning_rate, _INNER))
    if resume:
        trainer.resume()
    device = trainer.device
    tokenizer.to(device)
    text_encoder.to(device)
    sizes = (config.coarse_size, config.size)
    near = near_codes(tokenizer.codebook)
    derived = spoilt(config, tokenizer, near) if config.enlarged else None
    source = TokenSource(open_pictures(config, 128, "train"), tokenizer, config, device, sizes, derived)
    forward = torch.compile(model.hidden) if config.compile else model.hidden

    held_out = open_pictures(config, config.size, "tune")
    scenes = [held_out.scene(index) for index in range(_HELD_OUT)]
    captions = [scene.caption for scene in scenes]
    small, large = ([held_out.render(scene, size) for scene in scenes] for size in sizes)
    small_tokens, held_out_tokens = (
        torch.cat([tokenizer.encode(to_pixels(stacked([picture]), device)) for picture in pictures])
        for pictures in (small, large)
    )
    held_out_coarse = [small_tokens]
    if config.enlarged:
        held_out_coarse.append(enlarged_tokens(tokenizer, small_tokens, model.coarse_grid, model.grid))

    def loss(batch: TokenBatch, number: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        small, tokens, *read = batch.tokens
        count, n = tokens.shape
        mask = random_mask(mask_rates(count, config.full_mask_share, generator), n, generator).to(device)
        text = read_captions(text_encoder, drop_captions(batch.captions, config.drop_text, generator))
        read = read or [corrupted(small, near, config.corruption, config.near_share, generator)]
        coarse, *enlarged = dropped(read, config.drop_coarse, model.mask_token_id, generator)
        hidden = forward
        if config.window is not None and trainer.minutes < config.window_until * config.minutes:
            at = (batch.scenes, model.grid, config.window, model.config.merge, config.object_weight)
            places = window_places(*at, generator).to(device)
            tokens, mask, *enlarged = (each.gather(1, places) for each in (tokens, mask, *enlarged))
            hidden = functools.partial(forward, places=places, window=(config.window, config.window))
        value = masked_loss(model, tokens, mask, text, coarse, *enlarged, hidden_states=hidden)
        return value, {"loss": value.detach()}

    @torch.no_grad()
    def full_mask_loss(words: Sequence[str], coarse: Sequence[Tensor]) -> float:
        average: SuperResolutionTransformer = trainer.average  # type: ignore[assignment]
        text, everything = text_encoder.encode(words).to(device), torch.ones_like(held_out_tokens, dtype=torch.bool)
        rows = [slice(start, start + _TOGETHER) for start in range(0, _HELD_OUT, _TOGETHER)]
        losses = [
            masked_loss(average, held_out_tokens[r], everything[r], text[r], *(each[r] for each in coarse))
            for r in rows
        ]
        return float(torch.stack(losses).mean())

    def on_checkpoint() -> None:
        average: SuperResolutionTransformer = trainer.average  # type: ignore[assignment]
        trainer.log(
            {
                "step": trainer.step,
                "full_mask_loss": full_mask_loss(captions, held_out_coarse),
                "full_mask_loss_without_text": full_mask_loss([""] * _HELD_OUT, held_out_coarse),
                "full_mask_loss_without_coarse": full_mask_loss(
                    captions, [torch.full_like(each, average.mask_token_id) for each in held_out_coarse]
                ),
            }
        )
        sample_sheet(
            average,
            tokenizer,
            text_encoder,
            captions[:_SHOWN],
            [each[:_SHOWN] for each in held_out_coarse],
            large[:_SHOWN],
            config.steps_shown,
            config.folder / "samples.png",
        )
        (config.folder / "samples.txt").write_text("\n".join(captions[:_SHOWN]) + "\n")
        copy_half(average, config.folder / "weights")
        text_encoder.name_beside(config.folder / "weights")

    trainer.fit(source.batches_for(trainer), loss, on_checkpoint)

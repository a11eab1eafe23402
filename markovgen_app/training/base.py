"""Train the base transformer to predict masked tokens of captioned scenes; the recipe is that of `masked`.

A masked token tells the others nothing but that it is there. For the first part of a run most places of the grid can
therefore be left out, mask and token: the steps are cheaper, and places on objects, the ones that are hard to learn,
can be drawn more often than scenery. The rest of the run sees whole grids, as the model does when it is used (compare
MaskDiT, Zheng et al., arXiv 2306.09305).

Tokens are a roundabout way of learning which of a caption's things belongs where: a place's token is uncertain even to
who knows that. As scenes know what stands where, inner hidden states can be trained to say it (compare REPA, Yu et al.,
arXiv 2410.06940, who align them with another network's): `naming`, by a linear layer that is not exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.scenes import VOCABULARIES, Scene, covered
from ..data.vocabulary import BACKGROUNDS
from ..decoding.guidance import guided_logits
from ..decoding.sampler import decode, method_settings
from ..errors import UserError
from ..models.text import TextEncoder
from ..models.tokenizer import ImageTokenizer
from ..models.transformer import MuseTransformer
from ..pixels import stacked, to_levels, to_pixels
from .data import open_pictures
from .loop import Trainer, copy_half, grown, read_config, start_from, without_denormals
from .masked import (
    MaskedConfig,
    build_optimizers,
    drop_captions,
    load_text_encoder,
    load_tokenizer,
    mask_patches,
    mask_rates,
    masked_loss,
    place_weights,
    read_captions,
    token_loss,
    write_sheet,
)
from .tokens import TokenBatch, TokenSource


class BaseConfig(MaskedConfig):
    """Settings of a base transformer run."""

    size: int = Field(128, ge=32, description="side of the pictures in pixels")
    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 4
    added_layers: int = Field(
        0, ge=0, description="blocks added to the model started from; they change nothing at first"
    )
    kept_tokens: int | None = Field(None, ge=1, description="places of the grid in a step of the first part; None: all")
    kept_until: float = Field(0.5, ge=0, le=1, description="share of the time that the first part is")
    object_weight: float = Field(3.0, gt=0, description="how much oftener a place on an object is kept than another")
    text_conditioning: Literal["prefix", "cross-attention"] = "prefix"
    patches: float = Field(
        0, ge=0, le=1, description="share of the masks that hide whole regions, not scattered places"
    )
    naming: float = Field(0, ge=0, description="weight of the loss for what stands where, told from inner states")
    naming_block: int = Field(3, ge=1, description="number of blocks before those states")

    @model_validator(mode="after")
    def _places_fit(self) -> BaseConfig:
        places = (self.size // ImageTokenizer.factor) ** 2
        if self.kept_tokens is not None and self.kept_tokens > places:
            raise ValueError(f"kept_tokens is at most {places}, the places of a picture of {self.size} pixels")
        if self.added_layers and self.start_from is None:
            raise ValueError("added_layers is for a model to start from: set num_layers, or name one in start_from")
        if self.naming and self.data is not None:
            raise ValueError(
                "naming is for rendered scenes, which know what stands where: leave it out with own pictures"
            )
        return self


def things_shown(scenes: Sequence[Any], grid: tuple[int, int], names: Sequence[str]) -> Tensor:
    """Which of `names` stands at each place, (B, n) long: an object's noun in its square, else the background.

    A place is -100 (which cross-entropy leaves out) where that name is none of them; so is a picture that is no scene.
    """
    numbers = {name: number for number, name in enumerate(names)}
    shown = torch.full((len(scenes), *grid), -100)
    for row, scene in enumerate(scenes):
        if isinstance(scene, Scene):
            shown[row] = numbers.get(scene.background, -100)
            for item in scene.objects:
                square = torch.from_numpy(covered(replace(scene, objects=(item,)), grid[0]))
                shown[row, square] = numbers.get(item.noun, -100)
    return shown.flatten(1)  # (B, h, w) -> (B, n)


def deepened(model: MuseTransformer, blocks: int) -> MuseTransformer:
    """The same function of tokens and text with `blocks` more blocks at the end, which add nothing until trained."""
    deeper = grown(model, num_layers=model.config.num_layers + blocks)
    for block in deeper.blocks[model.config.num_layers :]:
        for name, parameter in block.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.zeros_(parameter)
    return deeper


class Learner(nn.Module):
    """The transformer and, for `names` of things, the layers that say which stands where, which only training needs."""

    def __init__(self, model: MuseTransformer, names: int) -> None:
        super().__init__()
        self.model = model
        width = model.config.hidden_size
        self.naming = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, names)) if names else None


def keep_places(
    scenes: Sequence[Any], grid: tuple[int, int], count: int, weight: float, generator: torch.Generator
) -> Tensor:
    """Places to keep, (B, count) long in rising order; those on a scene's objects, if it has any, `weight` × as likely.

    Args:
        scenes: one a sample; those without objects have all places alike.
    """
    weights = place_weights(scenes, grid, weight)
    return weights.multinomial(count, generator=generator).sort(dim=1).values


@torch.no_grad()
def sample_sheet(
    model: MuseTransformer, tokenizer: ImageTokenizer, text_encoder: TextEncoder, captions: Sequence[str], path: Path
) -> None:
    """One picture a caption, `full` method, as one PNG."""
    settings = method_settings("full", steps=16)
    device = next(model.parameters()).device
    text, empty = (text_encoder.encode(words).to(device) for words in (captions, [""]))
    n = model.grid[0] * model.grid[1]
    tokens = torch.full((len(captions), n), model.mask_token_id, device=device)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(captions))]
    logits = guided_logits(model, text, empty, settings)
    for step in decode(logits, tokens, model.mask_token_id, settings, generators, grid=model.grid):
        tokens = step.predicted
    write_sheet(list(to_levels(tokenizer.decode(tokens, model.grid))), 8, path)


@without_denormals
def train(config_path: Path, resume: bool = False, data: str | None = None) -> None:
    """Train by the configuration file; the averaged weights go to runs/NAME/weights at every checkpoint.

    Args:
        data: folder of pictures with captions, in place of the file's.
    """
    config = read_config(config_path, BaseConfig, data=data)
    torch.manual_seed(config.seed)
    tokenizer = load_tokenizer(config.tokenizer)
    text_encoder = load_text_encoder(config)
    model = MuseTransformer(
        tokenizer.codebook_size,
        grid=(config.size // tokenizer.factor,) * 2,
        text_width=text_encoder.width,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        text_conditioning=config.text_conditioning,
        levels=tokenizer.config.levels,
    )
    if config.start_from:
        codes = {"codebook_size": tokenizer.codebook_size, "levels": tokenizer.config.levels}
        model = start_from(MuseTransformer, config.start_from, config, text_width=text_encoder.width, **codes)
        model = deepened(model, config.added_layers)
    if config.naming and config.naming_block > len(model.blocks):
        raise UserError(f"{config_path}: naming_block is at most the {len(model.blocks)} blocks of the transformer.")
    names = [*(noun.name for noun in VOCABULARIES[config.vocabulary]), *BACKGROUNDS]
    learner = Learner(model, len(names) if config.naming else 0)
    optimizers = build_optimizers(learner, config.matrix_rate, config.learning_rate, ("model.blocks.",))
    trainer = Trainer(config, learner, optimizers)
    if resume:
        trainer.resume()
    device = trainer.device
    tokenizer.to(device)
    text_encoder.to(device)
    scenes = open_pictures(config, config.size, "train")
    source = TokenSource(scenes, tokenizer, config, device)
    forward = torch.compile(model.hidden_after) if config.compile else model.hidden_after

    held_out = open_pictures(config, config.size, "tune")
    shown = [held_out[index] for index in range(64)]
    captions = [scene.caption for scene, _ in shown]
    held_out_tokens = tokenizer.encode(to_pixels(stacked([picture for _, picture in shown]), device))

    def loss(batch: TokenBatch, number: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        (tokens,) = batch.tokens
        rates = mask_rates(len(tokens), config.full_mask_share, generator)
        mask = mask_patches(rates, model.grid, config.patches, generator).to(device)
        text = read_captions(text_encoder, drop_captions(batch.captions, config.drop_text, generator))
        kept = None
        if config.kept_tokens is not None and trainer.minutes < config.kept_until * config.minutes:
            kept = keep_places(batch.scenes, model.grid, config.kept_tokens, config.object_weight, generator).to(device)
            tokens, mask = tokens.gather(1, kept), mask.gather(1, kept)
        seen = tokens.masked_fill(mask, model.mask_token_id)
        hidden, inner = forward(seen, text.states, text.mask, text.pooled, kept, config.naming_block)
        value = token_loss(model, hidden, tokens, mask)
        told: dict[str, Tensor | float] = {"loss": value.detach()}
        if learner.naming is not None:
            shown_here = things_shown(batch.scenes, model.grid, names).to(device)
            shown_here = shown_here if kept is None else shown_here.gather(1, kept)
            naming = F.cross_entropy(learner.naming(inner).flatten(0, 1).float(), shown_here.flatten())
            told["naming"] = naming.detach()
            value = value + config.naming * naming
        return value, told

    def on_checkpoint() -> None:
        average: MuseTransformer = trainer.average.model  # type: ignore[assignment]
        everything = torch.ones_like(held_out_tokens, dtype=torch.bool)
        with torch.no_grad():
            with_text, without_text = (
                float(masked_loss(average, held_out_tokens, everything, text_encoder.encode(words).to(device)))
                for words in (captions, [""] * len(captions))
            )
        trainer.log({"step": trainer.step, "full_mask_loss": with_text, "full_mask_loss_without_text": without_text})
        sample_sheet(average, tokenizer, text_encoder, captions[:16], config.folder / "samples.png")
        (config.folder / "samples.txt").write_text("\n".join(captions[:16]) + "\n")
        copy_half(average, config.folder / "weights")
        text_encoder.name_beside(config.folder / "weights")

    trainer.fit(source.batches_for(trainer), loss, on_checkpoint)
